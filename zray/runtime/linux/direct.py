"""Sockets between two processes of one machine and user, without a file: Linux's abstract names.

The worker's id, which nobody can guess, names its socket; both ends check the other's user
(SO_PEERCRED). Elsewhere, or from another network namespace, there is no such socket: callers then
go by way of the head.
"""

from __future__ import annotations

import os
import socket
import struct

from zray.runtime.stream import FrameReader, FrameWriter

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class DirectLink:
    """One end of a connection: frames in, frames out, never blocking."""

    __slots__ = ("reader", "socket", "writer")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.reader = FrameReader()
        self.writer = FrameWriter(sock)

    def fileno(self) -> int:
        """Of its socket."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close its socket."""
        self.socket.close()


def _name(worker_id: bytes) -> str:
    return f"\0zray-{worker_id.hex()}"


def listen(worker_id: bytes) -> socket.socket:
    """The socket at which a worker can be reached.

    Raises:
        OSError: the kernel has none left.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(_name(worker_id))
    listener.listen(128)
    return listener


def accept(listener: socket.socket) -> DirectLink | None:
    """The next caller; None: there is none, or it is another user's."""
    try:
        sock, _ = listener.accept()
    except OSError:
        return None
    return _checked(sock)


def connect(worker_id: bytes) -> DirectLink | None:
    """A connection to a worker of this machine; None: there is no such way."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(_name(worker_id))
    except OSError:
        sock.close()
        return None
    return _checked(sock)


def _checked(sock: socket.socket) -> DirectLink | None:
    if not same_user(sock):
        sock.close()
        return None
    return DirectLink(sock)


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end is this user's (SO_PEERCRED: the kernel says so)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.geteuid())
