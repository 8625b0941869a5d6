"""Sockets between two processes of one machine and user, without a file: Linux's abstract names.

The worker's id, which nobody can guess, names its socket; both ends check the other's user
(SO_PEERCRED). Elsewhere, or from another network namespace, there is no such socket: callers then
go by way of the head.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from zray.runtime.linux import segments
from zray.runtime.stream import FrameReader, FrameWriter

PACKET_BYTES_MAX = 160 << 10  # a socket of the default size takes one
QUEUE_BYTES = 1 << 20  # in the kernel; a short packet takes some 800 bytes of it

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_FLAGS = 6  # proc(5), stat: of the fields that follow the name
_PF_EXITING = 0x4  # include/linux/sched.h; set before the first descriptor is closed
_SEND_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


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


class TaskQueue:
    """Tasks on their way to a worker, where both ends can take them: delivered is not started.

    A connected pair of sockets that keep packets apart. Both processes have the end that is read,
    and the kernel gives each packet to one of them, whatever the other one does. The other way goes
    a bell, by which a worker wakes the giver: it need not be told of each end to be told of this.
    """

    __slots__ = ("_buffer", "_reads", "_writes")

    def __init__(self, reads: socket.socket, writes: socket.socket | None) -> None:
        self._reads = reads
        self._writes = writes
        # Of its pages those alone are used that packets fill: few are larger than one.
        self._buffer = mmap.mmap(-1, PACKET_BYTES_MAX, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    @classmethod
    def make(cls) -> TaskQueue:
        """The side of who gives.

        Raises:
            OSError: there are no descriptors left.
        """
        reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        writes.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
        return cls(reads, writes)

    def hand_over(self, link: DirectLink) -> None:
        """Let the worker at the other end of the link take, too. Comes first on the link.

        Raises:
            OSError: the worker is gone.
        """
        segments.send(link.socket, b"q", self._reads.fileno())

    @classmethod
    def received(cls, link: DirectLink) -> TaskQueue | None:
        """The worker's side, which comes first on the link; None: it has not come yet.

        Raises:
            OSError, EOFError, ValueError: the other end is no submitter, or is gone.
        """
        try:
            _, fd = segments.receive(link.socket, 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if fd is None:
            raise ValueError("a connection did not begin with a queue")
        try:
            reads = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise
        if (reads.family, reads.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            reads.close()
            raise ValueError("a connection began with something else than a queue")
        return cls(reads, None)

    @classmethod
    def inherited(cls, fd: int) -> TaskQueue:
        """The worker's side, which it was forked with. Takes the descriptor over."""
        return cls(socket.socket(fileno=fd), None)

    def theirs(self) -> int:
        """A new descriptor of the end that is read, for a worker that is about to be forked.

        Raises:
            OSError: there are no descriptors left.
        """
        return os.dup(self._reads.fileno())

    def put(self, payload: bytes) -> bool:
        """Append a packet; False: it is full, or the packet is too large for it."""
        if self._writes is None or len(payload) > PACKET_BYTES_MAX:
            return False
        try:
            self._writes.send(payload, _SEND_NOW)
        except OSError:
            return False
        return True

    def take(self) -> bytes | None:
        """The oldest packet; None: there is none."""
        try:
            size = self._reads.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except OSError:
            return None
        return self._buffer[:size] if size else None

    def ring(self) -> None:
        """The worker has nothing to do, or cannot go on."""
        with contextlib.suppress(OSError):  # the giver is gone, or has not heard it for long
            self._reads.send(b"!", _SEND_NOW)

    def bell(self) -> int:
        """What the giver can wait on for it, as a descriptor; -1: there is no such by now."""
        return self._writes.fileno() if self._writes is not None else -1

    def hear(self) -> None:
        """It was rung: from now on it is silent until it is rung again."""
        with contextlib.suppress(OSError):
            while self._writes is not None and self._writes.recv(1, socket.MSG_DONTWAIT):
                pass

    def fileno(self) -> int:
        """Of the end that is read."""
        return self._reads.fileno()

    def close(self) -> None:
        """Close it here. What is in it is lost once both processes have."""
        self._reads.close()
        if self._writes is not None:
            self._writes.close()


def hang_up(links: Sequence[DirectLink], timeout_s: float) -> None:
    """Say no more, and wait until the other ends have hung up as well; those that are busy do not
    read it within ``timeout_s``."""
    poller = select.poll()
    waiting: dict[int, None] = {}
    for link in links:
        with contextlib.suppress(OSError):
            link.socket.shutdown(socket.SHUT_WR)
            poller.register(link, select.POLLRDHUP)
            waiting[link.fileno()] = None
    deadline = time.monotonic() + timeout_s
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000 + 1):
            poller.unregister(fd)
            waiting.pop(fd, None)


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
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None  # this process has no descriptors left
    try:
        sock.setblocking(False)  # where others wait already, and nobody accepts, there is no way
        sock.connect(_name(worker_id))
        sock.setblocking(True)
    except OSError:
        sock.close()
        return None
    link = _checked(sock)
    if link is not None and _is_ending(sock):
        link.close()
        return None
    return link


def _is_ending(sock: socket.socket) -> bool:
    """Whether the process at the other end ends: its sockets close one by one, this one late."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid = _CREDENTIALS.unpack(raw)[0]
    if not pid:
        return False  # it is out of this process's sight, in a container of its own
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # its name may have spaces
    except OSError:
        return True
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def _checked(sock: socket.socket) -> DirectLink | None:
    if not same_user(sock):
        sock.close()
        return None
    return DirectLink(sock)


def same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end is this user's (SO_PEERCRED: the kernel says so)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.geteuid())
