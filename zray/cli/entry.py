"""How the console scripts run their commands."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import click

INTERRUPTED = 130  # as a shell has it for a program that SIGINT has ended
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def run(command: click.Command, program: str) -> None:
    """Run it with this process's arguments, and end with its exit status."""
    if sys.stdout is None:  # who has started this has closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as this runs
    try:
        try:
            command(prog_name=program)
        finally:
            sys.stdout.flush()  # what does not fit is said here, not at the interpreter's end
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in _UNWRITTEN or error.filename is not None:
            raise
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is buffered
        print(f"{program}: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
