"""How the console scripts run their commands."""

from __future__ import annotations

import errno
import os
import sys

import click

INTERRUPTED = 130  # as a shell has it for a program that SIGINT has ended


def run(command: click.Command, program: str) -> None:
    """Run it with this process's arguments, and end with its exit status."""
    try:
        command(prog_name=program)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        with open(os.devnull, "w") as nowhere:  # what is left to say is not tried again at the end
            os.dup2(nowhere.fileno(), 1)
        sys.stderr.write(f"{program}: cannot write: {error}; make room on that disk\n")
        sys.exit(1)
