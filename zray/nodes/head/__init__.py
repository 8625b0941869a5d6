"""The head's process."""
