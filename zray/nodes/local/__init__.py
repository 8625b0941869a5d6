"""The ``local_mode`` of a program: tasks and actors in its own process. No socket, process or file."""
