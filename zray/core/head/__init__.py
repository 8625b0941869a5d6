"""The head's machines."""
