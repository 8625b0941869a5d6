"""The ``local_mode`` of a program: all of it in its own process, with no socket and no file."""
