"""Memory that a daemon has freed goes back to the system, as glibc does not do by itself.

Values of some kilobytes lie between others that stay, so the heap's top never falls
(malloc_trim(3), mallinfo(3)). Other C libraries have neither function, and nothing is done there.
"""

from __future__ import annotations

from typing import Any

from zray import limits


class Heap:
    """Call ``tend`` now and then."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._kept_bytes = 0  # what was free after the last time, and went back
        self._library: Any = None

    def tend(self, now: float) -> None:
        """Give back what has been freed, if that is much and was not looked at lately."""
        if now < self._look_at:
            return
        first, self._look_at = not self._look_at, now + limits.HEAP_LOOK_S
        if first:  # a daemon starts fast
            return
        free = self._free_bytes()
        if free > self._kept_bytes + limits.HEAP_FREE_BYTES:
            self._library.malloc_trim(0)
            self._kept_bytes = free
        else:
            self._kept_bytes = min(self._kept_bytes, free)

    def _free_bytes(self) -> int:
        if self._library is None:
            self._library = _library()
        return self._library.mallinfo2().fordblks if self._library else 0


def _library() -> Any:
    """The C library; False: it has no such functions."""
    import ctypes

    class Info(ctypes.Structure):
        _fields_ = [
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
                *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
            )
        ]

    library = ctypes.CDLL(None)
    try:
        library.mallinfo2.restype = Info
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except AttributeError:
        return False
    return library
