"""A folder for ``sys.path``: what is in it is imported as if it was on top."""
