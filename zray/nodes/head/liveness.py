"""Knocks at the own ports of raylets: a refusal proves that the process behind it has ended.

Must never wait: a connection is begun in one turn of the head's loop and looked at in others.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

from zray import limits
from zray.runtime import connection

Told = Callable[[bytes, bool | None, float], None]  # node id, whether it refused, now


class LivenessProbes:
    """``told`` hears of each node whether its port refused; None: nothing came back in time."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._open: dict[bytes, tuple[socket.socket, float]] = {}

    def __bool__(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._open)

    def look(self, wanted: Mapping[bytes, str], now: float) -> None:
        """Report what has been answered, and knock at those of ``wanted`` that are not knocked at.

        Args:
            wanted: host:port of each node that is in doubt.
        """
        for node_id, (probe, since) in [*self._open.items()]:
            error = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error or now - since > limits.REFUSED_S or _connected(probe):
                probe.close()
                del self._open[node_id]
                late = not error and now - since > limits.REFUSED_S
                self._tell(node_id, errno.ETIMEDOUT if late else error, now)
        for node_id, address in wanted.items():
            if node_id not in self._open:
                self._knock(node_id, address, now)

    def _knock(self, node_id: bytes, address: str, now: float) -> None:
        host, port = connection.parse_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        probe = socket.socket(family, socket.SOCK_STREAM)
        probe.setblocking(False)
        error = probe.connect_ex((host, port))
        if error in (0, errno.EINPROGRESS):
            self._open[node_id] = (probe, now)
            return
        probe.close()
        self._tell(node_id, error, now)

    def _tell(self, node_id: bytes, error: int, now: float) -> None:
        self._told(node_id, None if error not in (0, errno.ECONNREFUSED) else bool(error), now)

    def close(self) -> None:
        """Knock no more."""
        for probe, _ in self._open.values():
            probe.close()
        self._open.clear()


def _connected(probe: socket.socket) -> bool:
    try:
        probe.getpeername()
    except OSError:
        return False
    return True
