"""The socket between a raylet's object store and a process that shares its memory.

Packets of a unix socket, some with a descriptor; of one user only (SO_PEERCRED). Abstract names:
nothing is left in the file system. Owns the socket, never what is said over it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import deque

from zray.errors import ProtocolError
from zray.protocol import codec
from zray.protocol.messages import Message
from zray.protocol.splitting import Joiner
from zray.runtime.linux import segments
from zray.runtime.linux.direct import same_user

PACKET_BYTES_MAX = 160 << 10  # under the default size of a socket's buffer


class StoreLink:
    """One end. A packet carries one message, a part of one, or several without a descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)
        self._queue: deque[tuple[bytes, int | None]] = deque()
        self._joiner = Joiner()
        self._early: int | None = None  # the descriptor that came with a part

    def fileno(self) -> int:
        """Of its socket."""
        return self.socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether packets wait for room in the socket."""
        return bool(self._queue)

    def send(self, message: Message, fd: int | None = None) -> None:
        """Queue a message and send as far as the socket takes it.

        Args:
            fd: goes along; it is duplicated at once, so that the caller may close it.

        Raises:
            OSError: the peer is gone.
        """
        for data in codec.encode_local([message], PACKET_BYTES_MAX):
            self._queue.append((data, None if fd is None else os.dup(fd)))
            fd = None
        self.flush()

    def flush(self) -> bool:
        """Send what waits; True if nothing is left. Raises OSError when the peer is gone."""
        while self._queue:
            data, fd = self._queue[0]
            try:
                if fd is None:
                    self.socket.send(data, socket.MSG_NOSIGNAL)
                else:
                    segments.send(self.socket, data, fd)
            except BlockingIOError:
                return False
            except OSError:
                self._drop()
                raise
            self._queue.popleft()
            if fd is not None:
                os.close(fd)
        return True

    def receive(self, most: int = sys.maxsize) -> tuple[list[tuple[Message, int | None]], bool]:
        """What has come, each with its descriptor or None, and whether the peer is gone.

        At most ``most`` packets: poll level-triggered.
        """
        found: list[tuple[Message, int | None]] = []
        for _ in range(most):
            try:
                data, fd = segments.receive(self.socket, PACKET_BYTES_MAX + 4096)
            except BlockingIOError:
                return found, False
            except (OSError, EOFError, ValueError):
                return found, True
            try:
                payload = codec.decode(data)
                parts = payload.messages
                whole = [one for part in parts if (one := self._joiner.take(part)) is not None]
            except ProtocolError:
                payload, whole = None, []
            if fd is not None and self._early is None and not whole:  # it came with a part
                self._early, fd = fd, None
            for message in whole:
                found.append((message, self._early if fd is None else fd))
                self._early = fd = None
            if fd is not None:
                os.close(fd)
            if payload is None or payload.refused:
                return found, True  # whoever that is, it does not speak the protocol
        return found, False

    def break_off(self) -> None:
        """Something was lost on it: both ends find it closed."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; what waits is dropped."""
        self._drop()
        self.socket.close()

    def _drop(self) -> None:
        for _, fd in self._queue:
            if fd is not None:
                os.close(fd)
        self._queue.clear()
        if self._early is not None:
            os.close(self._early)
            self._early = None


def _name(what: bytes) -> str:
    return f"\0zray-store-{what.hex()}"


def listen(what: bytes) -> socket.socket | None:
    """Listen under a name made of ``what``; None: somebody else does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    try:
        listener.bind(_name(what))
    except OSError:
        listener.close()
        return None
    listener.listen(128)
    return listener


def accept(listener: socket.socket) -> StoreLink | None:
    """The next process; None: there is none, or it is another user's."""
    try:
        sock, _ = listener.accept()
    except OSError:
        return None
    return _checked(sock)


def connect(what: bytes) -> StoreLink | None:
    """A connection to the store of that name; None: there is none on this machine."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)  # where a hundred others wait to be accepted, it does without
    try:
        sock.connect(_name(what))
    except OSError:
        sock.close()
        return None
    return _checked(sock)


def _checked(sock: socket.socket) -> StoreLink | None:
    if not same_user(sock):
        sock.close()
        return None
    return StoreLink(sock)
