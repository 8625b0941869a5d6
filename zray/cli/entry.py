"""How the console scripts run their commands."""

from __future__ import annotations

import sys

import click

INTERRUPTED = 130  # as a shell has it for a program that SIGINT has ended


def run(command: click.Command, program: str) -> None:
    """Run it with this process's arguments, and end with its exit status."""
    try:
        command(prog_name=program)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
