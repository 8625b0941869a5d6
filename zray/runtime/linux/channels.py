"""What a raylet shares with one worker: sockets, two pipes and a page of shared memory.

Owns their making and their ends. It must never read or write what passes through them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket

import msgspec

from zray.runtime.linux.direct import TaskQueue

PAGE_BYTES = 16


class SharedPage:
    """Two cells in shared memory; of each, one process sets it and another reads it, lock-free.

    ``count``, of the worker: how far it came. ``lease_until``, of the raylet: until then (seconds
    of `clock.boot_time`) the worker may serve as an actor. Each outlives the process that sets it,
    and can be read while that is stopped.
    """

    __slots__ = ("_count", "_lease", "_map")

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._count = memoryview(self._map)[:8].cast("Q")
        self._lease = memoryview(self._map)[8:].cast("d")

    @property
    def count(self) -> int:
        """How many tasks the worker has started."""
        return self._count[0]

    @count.setter
    def count(self, value: int) -> None:
        """The worker says so, before it starts one."""
        self._count[0] = value

    @property
    def lease_until(self) -> float:
        """Until when the worker may serve as an actor, in seconds of `clock.boot_time`."""
        return self._lease[0]

    @lease_until.setter
    def lease_until(self, value: float) -> None:
        """The raylet says so; 0: it may not, for now."""
        self._lease[0] = value

    def close(self) -> None:
        """Unmap the page; its cells raise ValueError afterwards. May be called again."""
        self._count.release()
        self._lease.release()
        self._map.close()


def open_page(fd: int) -> SharedPage:
    """The worker's side of its page. Takes the descriptor over and closes it."""
    page = SharedPage(fd)
    os.close(fd)
    return page


class WorkerChannels(msgspec.Struct):
    """The raylet's ends of what it shares with one worker; the raylet closes them.

    ``queue``: of tasks that wait behind others, out of which both take.

    The sockets and the two pipes are non-blocking. Their end of file is a hint, not the worker's
    death: a process that the worker left behind may hold the other ends.
    """

    worker_id: bytes
    task: socket.socket
    control: socket.socket
    stdout_fd: int
    stderr_fd: int
    page: SharedPage
    queue: TaskQueue

    def close(self) -> None:
        """Close all of them. May be called again."""
        self.task.close()
        self.control.close()
        for fd in (self.stdout_fd, self.stderr_fd):
            if fd >= 0:
                os.close(fd)
        self.stdout_fd = self.stderr_fd = -1
        self.page.close()
        self.queue.close()


def open_channels(worker_id: bytes) -> tuple[WorkerChannels, list[int]]:
    """Both ends of a worker's channels: ours, and the descriptors to send, in `Fork`'s order."""
    with contextlib.ExitStack() as undo:

        def opened(fd: int) -> int:
            undo.callback(os.close, fd)
            return fd

        task, task_fd = _socket_pair(undo)
        control, control_fd = _socket_pair(undo)
        page_fd = opened(os.memfd_create("zray-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(page_fd, PAGE_BYTES)
        # A worker that shrank it would turn the raylet's next look into SIGBUS.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(page_fd, fcntl.F_ADD_SEALS, seals)
        out, out_fd = map(opened, os.pipe())
        err, err_fd = map(opened, os.pipe())
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        queue = TaskQueue.make()
        undo.callback(queue.close)
        queue_fd = opened(queue.theirs())
        page = SharedPage(page_fd)
        undo.pop_all()
    channels = WorkerChannels(worker_id, task, control, out, err, page, queue)
    return channels, [task_fd, control_fd, page_fd, queue_fd, out_fd, err_fd]


def _socket_pair(undo: contextlib.ExitStack) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    undo.callback(ours.close)
    ours.setblocking(False)
    fd = theirs.detach()
    undo.callback(os.close, fd)
    return ours, fd
