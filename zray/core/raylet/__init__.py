"""The raylet's machines."""
