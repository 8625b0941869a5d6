"""The user's process."""
