"""The version, single-sourced: packaging reads it from here. Imports nothing."""

__version__ = "0.1.0"
RAY_VERSION = "2.60.0"  # of Ray, whose API zray keeps
