"""The title of this process in ps, top and /proc: what it is doing, over the area of its arguments.

A write into memory that is the process's own, so it costs a tenth of a microsecond and may be done
for each task. (The package setproctitle takes longer for each, and a call of the system with it.)
"""

from __future__ import annotations

import ctypes

_ARG_START, _ARG_END = 45, 46  # of what is after the name in /proc/self/stat, see proc(5)
_LEAST_BYTES = 16  # a smaller area is left as it is


class ProcessTitle:
    """Of a process that was forked by one with a long line of arguments: titles are cut to that."""

    def __init__(self) -> None:
        """The title stays what it is until ``show``."""
        self._shown = b""
        with open("/proc/self/stat", "rb") as file:
            found = file.read().rpartition(b")")[2].split()
        start, end = int(found[_ARG_START]), int(found[_ARG_END])
        self._room = end - start - 2
        self._area = None
        if self._room >= _LEAST_BYTES:
            self._area = (ctypes.c_char * (end - start - 1)).from_address(start)
            # Arguments end with a zero. Where none is, the kernel shows one text up to the first.
            ctypes.c_char.from_address(end - 1).value = b" "

    def cut(self, title: str) -> bytes:
        """A title for ``show``, as long as there is room for."""
        return title.encode(errors="replace").replace(b"\0", b"?")[: max(self._room, 0)]

    def show(self, title: bytes) -> None:
        """From now on the process is called so; for one that is shown already, do nothing."""
        if title is not self._shown and self._area is not None:
            self._shown = title
            self._area.value = title
