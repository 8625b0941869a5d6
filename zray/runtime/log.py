"""A daemon's own words, on its stderr. Never raises and never waits, whatever stderr is.

A disk that is full, a pager that ended or that nobody scrolls: such lines are counted, and the
count is told when there is room again.
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback

WRITE_BYTES = 4096  # PIPE_BUF: a pipe that is writable takes so much without waiting
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
del _ESCAPED[ord("\n")], _ESCAPED[ord("\t")]


class Log:
    """``name`` is the daemon's, as in ``zray-head``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.lost = 0  # lines that could not be written since the last that could

    def __call__(self, text: str) -> None:
        """Write a text of one or more lines, with time and name before it.

        What peers say may be in it: what would do something to a terminal is escaped.
        """
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        lost = f"({self.lost} lines before this could not be written) " if self.lost else ""
        if _write(
            f"{stamp} {self._name}: {lost}{text.translate(_ESCAPED)}\n".encode(
                "utf-8", "backslashreplace"
            )
        ):
            self.lost = 0
        else:
            self.lost += 1


def _write(data: bytes) -> bool:
    try:
        fd = sys.stderr.fileno()
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        while data:
            if not any(mask & select.POLLOUT for _, mask in poller.poll(0)):
                return False
            data = data[os.write(fd, data[:WRITE_BYTES]) :]
    except (OSError, ValueError, AttributeError):  # AttributeError: there is no stderr at all
        return False
    return True


def with_traceback(error: BaseException) -> str:
    """An exception as it is shown in a log."""
    return "".join(traceback.format_exception(error)).rstrip()
