"""The version, single-sourced: packaging reads it from here. Imports nothing."""

__version__ = "0.1.0"
