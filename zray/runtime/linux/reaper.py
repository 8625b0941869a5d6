"""Ends processes when the one that has started it is gone: a program's daemons, however it ends.

Reads from its standard input a line for each process: its id, or ``-`` and its id once it is to be
left alone; and ``=`` with a folder that is removed at the end. That comes when the input ends, or
the program does: its forked children may have the other end as well. A process of its own, since
whoever is killed can do nothing more.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator

GRACE_S = 10.0


def main() -> None:
    """The process. Its argument: the id of the program."""
    found: dict[int, int] = {}  # a descriptor for each, so that no other process is taken for it
    folders: list[str] = []
    for text in _lines(int(sys.argv[1])):
        if text.startswith("="):
            folders.append(text[1:])
        elif text.startswith("-"):
            if (handle := found.pop(int(text[1:]), None)) is not None:
                os.close(handle)
        elif int(text) not in found:
            with contextlib.suppress(ProcessLookupError):
                found[int(text)] = os.pidfd_open(int(text))
    end([*found.values()])
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _lines(program: int) -> Iterator[str]:
    """What it says, until it says no more or has ended."""
    told = sys.stdin.fileno()
    watched = [told]
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(program)
        if os.getppid() == program:  # else it had ended, and that is another
            watched.append(handle)
    rest = b""
    while told in select.select(watched, [], [])[0]:
        data = os.read(told, 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from map(os.fsdecode, whole)


def end(handles: list[int]) -> None:
    """Ask them to end, the last one first, and kill what has not after a while."""
    for handle in reversed(handles):
        _send(handle, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for handle in handles:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([handle], [], [], left)[0]:
            _send(handle, signal.SIGKILL)


def _send(handle: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


if __name__ == "__main__":
    main()
