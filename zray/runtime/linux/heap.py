"""Memory that a daemon has freed goes back to the system, as glibc does not do by itself.

Values of some kilobytes lie between others that stay, so the heap's top never falls
(malloc_trim(3), mallinfo(3)). Other C libraries have neither function, and nothing is done there.
"""

from __future__ import annotations

import os
from typing import Any

from zray import limits

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heap:
    """Call ``tend`` now and then."""

    def __init__(self) -> None:
        self._look_at = 0.0
        self._kept_bytes = 0  # what stayed after the last time, or has since become less
        self._library: Any = None

    def tend(self, now: float) -> None:
        """Give back what has been freed, if that is much and was not looked at lately."""
        if now < self._look_at:
            return
        first, self._look_at = not self._look_at, now + limits.HEAP_LOOK_S
        if first:  # a daemon starts fast
            return
        idle = self._idle_bytes()
        if idle > self._kept_bytes + limits.HEAP_FREE_BYTES:
            self._library.malloc_trim(0)
            self._kept_bytes = self._idle_bytes()
        else:
            self._kept_bytes = min(self._kept_bytes, idle)

    def _idle_bytes(self) -> int:
        """Private memory that is resident and that no allocation of the C library holds.

        What glibc counts as free does not tell: pages that went back still count, and so
        memory that is used and freed again after that would not be seen.
        """
        if self._library is None:
            self._library = _library()
        if not self._library:
            return 0
        heap = self._library.mallinfo2()
        try:
            with open("/proc/self/statm") as file:  # proc(5): in pages; resident, of it shared
                _, resident, shared, *_ = map(int, file.read().split())
        except OSError:  # no descriptor is free: the next look will tell
            return 0
        return (resident - shared) * _PAGE_BYTES - int(heap.uordblks + heap.hblkhd)


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
