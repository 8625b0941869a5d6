"""What a driver sleeps on: its session, its wake-up pipe, its node's store, workers and actors."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable


class Poller:
    """Keeps what it polls from one sleep to the next: telling the kernel costs more than a sleep.

    ``watched``: descriptors, and what of each is waited for (flags of poll), as it is by then.
    """

    def __init__(self, watched: Callable[[], Iterable[tuple[int, int]]]) -> None:
        self._watched = watched
        self._kept: tuple[select.poll, int] | None = None
        self._version = 0

    def stale(self) -> None:
        """What is to be polled has changed. Any thread may call this."""
        self._version += 1

    def poll(self, timeout_s: float) -> list[int]:
        """Sleep until something is there; the descriptors that are ready.

        It may be called again by a signal handler that interrupts it.
        """
        kept, self._kept = self._kept, None
        if kept is None or kept[1] != self._version:
            kept = select.poll(), self._version
            for fd, events in self._watched():
                kept[0].register(fd, events)
        ready = []
        for fd, events in kept[0].poll(timeout_s * 1000):
            ready.append(fd)
            if events != select.POLLIN:  # what could not be written can be by now
                self._version += 1
        self._kept = kept
        return ready
