"""What a worker sleeps on: sockets of its raylet, of its node's store, of actors and of callers."""

from __future__ import annotations

import select
from typing import Any

from zray.runtime.wake_pipe import WakePipe


class Poller:
    """Any thread may change it, or wake it, while one polls."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pipe = WakePipe()
        self._wake_fd = self._pipe.fileno()
        self._epoll.register(self._wake_fd, select.POLLIN)
        self.wake = self._pipe.wake
        self.fileno = self._epoll.fileno  # readable when something watched is, for a loop

    def watch(self, item: Any, *, writes: bool = False, once: bool = False) -> None:
        """Wake up when it can be read or, with ``writes``, written; replaces what was asked for.

        ``once``: for each thing that comes, not for as long as there is something.
        """
        events = select.POLLIN | (select.POLLOUT if writes else 0)
        if once:
            events |= select.EPOLLET
        try:
            self._epoll.modify(item, events)
        except FileNotFoundError:
            self._epoll.register(item, events)

    def forget(self, item: Any) -> None:
        """Watch it no more; does nothing if it is closed, or is not watched."""
        try:
            self._epoll.unregister(item)
        except OSError:
            pass

    def poll(self, timeout_s: float) -> list[int]:
        """Sleep until something is there, or somebody wakes it; the descriptors that are ready."""
        ready = [fd for fd, _ in self._epoll.poll(timeout_s)]
        if self._wake_fd in ready:
            self._pipe.drain()
        return ready

    def close(self) -> None:
        """Give back its descriptors."""
        self._epoll.close()
        self._pipe.close()
