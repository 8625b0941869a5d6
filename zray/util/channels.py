"""Connections between two processes that know of each other: bytes out, bytes in, never blocking.

Owns the sockets. Who connects to whom, and what the bytes mean, is not known here.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Protocol

CHUNK_BYTES = 256 << 10  # of one call of the kernel
BUFFER_BYTES = 4 << 20  # asked for; the kernel has a bound of its own
HELLO_S = 5.0  # for the first word of who has connected
WAIT_S = 0.5  # between two looks

_HELLO = struct.Struct("<16s16sI")  # id of the one that is called, of the caller, its rank


class PeerGoneError(Exception):
    """The other end has closed the connection, or has ended."""


class Channel(Protocol):
    """A connection. Raises PeerGoneError where the other end is gone."""

    def send(self, data: memoryview) -> int:
        """How many bytes of it are on their way, perhaps none."""

    def receive(self, room: memoryview) -> int:
        """How many bytes have come, perhaps none."""

    def fileno(self) -> int:
        """What to wait on."""

    @property
    def patience_s(self) -> float:
        """How long its descriptor may be waited on before one tries again."""

    def close(self) -> None:
        """Hang up."""


class LocalChannel:
    """Between two processes of one machine and user."""

    patience_s = 60.0

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)

    def send(self, data: memoryview) -> int:
        """Raises PeerGoneError."""
        try:
            return self._socket.send(data[:CHUNK_BYTES])
        except BlockingIOError:
            return 0
        except OSError:
            raise PeerGoneError from None

    def receive(self, room: memoryview) -> int:
        """Raises PeerGoneError."""
        try:
            count = self._socket.recv_into(room)
        except BlockingIOError:
            return 0
        except OSError:
            raise PeerGoneError from None
        if not count:
            raise PeerGoneError
        return count

    def fileno(self) -> int:
        """Of its socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()


class LocalDoor:
    """Where processes of this machine connect to; ``member_id``: 16 random bytes, which name it."""

    def __init__(self, member_id: bytes) -> None:
        from zray.runtime.linux import direct  # who has a machine's id runs Linux

        self._id = member_id
        self._direct = direct
        self._listener = direct.listen(member_id)

    def accept(self, wait_s: float) -> tuple[int, bytes, LocalChannel] | None:
        """The rank, the id and the connection of who has connected; None: nobody, or no member."""
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        if not poller.poll(wait_s * 1000):
            return None
        link = self._direct.accept(self._listener)
        if link is None:
            return None
        try:
            link.socket.settimeout(HELLO_S)
            called, caller, rank = _HELLO.unpack(_read(link.socket, _HELLO.size))
        except (OSError, EOFError):
            link.close()
            return None
        if called != self._id:
            link.close()
            return None
        return rank, caller, LocalChannel(link.socket)

    def connect(self, member_id: bytes, rank: int) -> LocalChannel | None:
        """A connection to another member, from the one of that rank; None: it is not there."""
        link = self._direct.connect(member_id)
        if link is None:
            return None
        try:
            link.socket.sendall(_HELLO.pack(member_id, self._id, rank))
        except OSError:
            link.close()
            return None
        return LocalChannel(link.socket)

    def is_there(self, member_id: bytes) -> bool:
        """Whether that member's process lives."""
        link = self._direct.connect(member_id)
        if link is not None:
            link.close()
        return link is not None

    def close(self) -> None:
        """Nobody can connect any more."""
        self._listener.close()


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def wait(channels: list[tuple[Channel, int]], deadline: float) -> None:
    """Until one of them may have something to do: for each, the events of poll(2).

    Raises:
        TimeoutError: ``deadline``, of the monotonic clock, is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    poller = select.poll()
    wanted: dict[int, int] = {}
    for channel, events in channels:
        wanted[channel.fileno()] = wanted.get(channel.fileno(), 0) | events
        left = min(left, channel.patience_s)
    for fd, events in wanted.items():
        poller.register(fd, events)
    poller.poll(left * 1000 + 1)
