"""The standard streams of a worker: they print any text, and know when something was printed."""

from __future__ import annotations

import io
from typing import Any


class _Counted(io.FileIO):
    """Counts its writes, and those of all others of its kind."""

    writes = 0

    def write(self, data: Any, /) -> int:
        _Counted.writes += 1
        return super().write(data)


def text_stream(fd: int) -> io.TextIOWrapper:
    """A line-buffered stream that prints any text, whatever the locale."""
    file = io.BufferedWriter(_Counted(fd, "w", closefd=False))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def printed() -> int:
    """How often this process has printed by such streams; what C prints is not seen."""
    return _Counted.writes
