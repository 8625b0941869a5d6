"""Connections to a listening zmq socket over which nothing has come yet: few, and the oldest go.

Whoever has the cluster's key speaks at once. Strangers may connect as often as they like: past a
bound the oldest silent connections are cut, so that descriptors stay for those who have the key.
"""

from __future__ import annotations

import contextlib
import resource
import socket

import zmq

from zray import limits
from zray.runtime.sockets import Monitor, MonitorEvent, Socket, readable

EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
TURN_READS = 8  # of the monitor in one turn


class Doorkeeper:
    """Of one ROUTER, to be made before that binds; ``port`` is set once it is bound."""

    def __init__(self, router: Socket) -> None:
        # Not ACCEPT_FAILED: without a descriptor left, libzmq says so without an end.
        self.monitor = Monitor(router, EVENTS)
        self.port = 0
        self.cut = 0  # connections, in all
        self._silent: dict[int, None] = {}  # descriptors, the oldest first
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the loop asks for all it may have
        self._most = max(4, min(limits.SILENT_CONNECTIONS_MAX, allowed // 4))

    def read(self) -> list[MonitorEvent]:
        """Look at the monitor, and cut what is too much; the events, for whom else they concern."""
        found: list[MonitorEvent] = []
        for _ in range(TURN_READS):
            if not readable(self.monitor.socket):
                break
            found += self.monitor.read()
        for event in found:
            if event.event == zmq.EVENT_ACCEPTED:
                self._silent.pop(event.value, None)
                self._silent[event.value] = None
            elif event.event == zmq.EVENT_DISCONNECTED:
                self._silent.pop(event.value, None)
        while len(self._silent) > self._most:
            self._cut(next(iter(self._silent)))
        return found

    def spoke(self, fd: int) -> None:
        """Something that was encrypted with the right key came over this connection."""
        self._silent.pop(fd, None)

    def _cut(self, fd: int) -> None:
        del self._silent[fd]
        self.cut += self.cut_off(fd)

    def cut_off(self, fd: int) -> bool:
        """End a connection; whether there was one.

        libzmq closes what its peer seems to have closed.
        """
        with contextlib.suppress(OSError):  # it has just been closed
            connection = socket.socket(fileno=fd)  # no dup: there may be no descriptor for one
            try:
                if connection.getsockname()[1] == self.port:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
            finally:
                connection.detach()
        return False

    def close(self) -> None:
        """Give back its descriptors."""
        self.monitor.close()
