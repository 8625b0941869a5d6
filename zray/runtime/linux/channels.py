"""What a raylet shares with one worker: two sockets, two pipes and a counter in shared memory.

Owns their making and their ends. It must never read or write what passes through them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
from dataclasses import dataclass

COUNTER_BYTES = 8


class Counter:
    """A 64-bit counter in a shared page: one process sets it, others read it, without a lock.

    It outlives the process that sets it, so the raylet can read how far a killed worker came.
    """

    __slots__ = ("_cells", "_map")

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, COUNTER_BYTES)
        self._cells = memoryview(self._map).cast("Q")

    @property
    def value(self) -> int:
        return self._cells[0]

    @value.setter
    def value(self, value: int) -> None:
        self._cells[0] = value

    def close(self) -> None:
        """Unmap the page; `value` raises ValueError afterwards. May be called again."""
        self._cells.release()
        self._map.close()


def open_counter(fd: int) -> Counter:
    """The worker's side of its counter. Takes the descriptor over and closes it."""
    counter = Counter(fd)
    os.close(fd)
    return counter


@dataclass(slots=True)
class WorkerChannels:
    """The raylet's ends of what it shares with one worker; the raylet closes them.

    The sockets and the two pipes are non-blocking. Their end of file is a hint, not the worker's
    death: a process that the worker left behind may hold the other ends.
    """

    worker_id: bytes
    task: socket.socket
    control: socket.socket
    stdout_fd: int
    stderr_fd: int
    counter: Counter

    def close(self) -> None:
        """Close all of them. May be called again."""
        self.task.close()
        self.control.close()
        for fd in (self.stdout_fd, self.stderr_fd):
            if fd >= 0:
                os.close(fd)
        self.stdout_fd = self.stderr_fd = -1
        self.counter.close()


def open_channels(worker_id: bytes) -> tuple[WorkerChannels, list[int]]:
    """Both ends of a worker's channels: ours, and the descriptors to send, in `Fork`'s order."""
    with contextlib.ExitStack() as undo:

        def opened(fd: int) -> int:
            undo.callback(os.close, fd)
            return fd

        task, task_fd = _socket_pair(undo)
        control, control_fd = _socket_pair(undo)
        counter_fd = opened(os.memfd_create("zray-counter", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(counter_fd, COUNTER_BYTES)
        # A worker that shrank it would turn the raylet's next look into SIGBUS.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(counter_fd, fcntl.F_ADD_SEALS, seals)
        out, out_fd = map(opened, os.pipe())
        err, err_fd = map(opened, os.pipe())
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        counter = Counter(counter_fd)
        undo.pop_all()
    channels = WorkerChannels(worker_id, task, control, out, err, counter)
    return channels, [task_fd, control_fd, counter_fd, out_fd, err_fd]


def _socket_pair(undo: contextlib.ExitStack) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    undo.callback(ours.close)
    ours.setblocking(False)
    fd = theirs.detach()
    undo.callback(os.close, fd)
    return ours, fd
