"""The standard streams of a worker: they print any text, and say which task has printed it.

Before what another task than the last one writes goes a mark, in the same stream, which its raylet
takes out again. So tasks that print nothing cost nothing. What C or a child process prints counts
as of whoever has printed last.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from typing import Any

_BEGIN = b"\x1ezray-task "
_MARK = re.compile(re.escape(_BEGIN) + rb"([0-9a-f]{32})?\x1e")
_MARK_BYTES = len(_BEGIN) + 33  # at most
_DIGITS = frozenset(b"0123456789abcdef")

Piece = tuple[bytes, bytes]  # the id of a task, empty of none, and what was printed


class _Counted(io.FileIO):
    """Counts its writes, and those of all others of its kind; marks whose they are."""

    writes = 0
    whose: Callable[[], bytes] = bytes  # the task that runs in this thread

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._told = b""
        self._pipe = os.fstat(fd).st_ino  # as it was inherited: a program may put another there

    def write(self, data: Any, /) -> int:
        _Counted.writes += 1
        task_id = _Counted.whose()
        if task_id != self._told:
            self._told = task_id
            if os.fstat(self.fileno()).st_ino == self._pipe:
                os.write(self.fileno(), mark(task_id))
        return super().write(data)


def text_stream(fd: int) -> io.TextIOWrapper:
    """A line-buffered stream that prints any text, whatever the locale."""
    file = io.BufferedWriter(_Counted(fd))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def printed() -> int:
    """How often this process has printed by such streams; what C prints is not seen."""
    return _Counted.writes


def ask_whose(running: Callable[[], bytes]) -> None:
    """``running``: the id of the task that runs in the calling thread, or empty."""
    _Counted.whose = staticmethod(running)


def mark(task_id: bytes) -> bytes:
    """What goes before the output of a task."""
    return _BEGIN + task_id.hex().encode() + b"\x1e"


class Marks:
    """Takes the marks out of one stream again, wherever it is cut."""

    def __init__(self) -> None:
        self._task = b""
        self._rest = b""  # what may be the beginning of a mark

    def split(self, data: bytes, *, ended: bool) -> list[Piece]:
        """What has come, by the tasks that have printed it."""
        data, self._rest = self._rest + data, b""
        if b"\x1e" not in data:
            return [(self._task, data)] if data else []
        found: list[Piece] = []
        place = 0
        for one in _MARK.finditer(data):
            if one.start() > place:
                found.append((self._task, data[place : one.start()]))
            self._task = bytes.fromhex((one[1] or b"").decode())
            place = one.end()
        end = len(data) if ended else _end_of_text(data, place)
        if place < end:
            found.append((self._task, data[place:end]))
        self._rest = data[end:]
        return found


def _end_of_text(data: bytes, place: int) -> int:
    """Where a mark may begin that is not whole yet, after ``place``; else the end."""
    last = data.rfind(b"\x1e", max(place, len(data) - _MARK_BYTES))
    if last < 0:
        return len(data)
    tail = data[last:]
    digits = tail[len(_BEGIN) :] if tail.startswith(_BEGIN) else b"no"
    is_part = _BEGIN.startswith(tail) or (len(digits) <= 32 and _DIGITS.issuperset(digits))
    return last if is_part else len(data)
