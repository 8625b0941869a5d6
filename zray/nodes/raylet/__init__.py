"""The raylet's process."""
