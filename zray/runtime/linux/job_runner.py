"""Runs a job's command as a child, passes on what it prints, and leaves no process of it behind.

A program of its own, of the standard library alone, so that it lives whatever becomes of the
supervisor that starts it: ``python -I -S job_runner.py STATUS_FD``. On stdin comes a line of JSON,
and then nothing; its end means that the command is to end. To STATUS_FD goes how that has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TAIL_BYTES = 20_000  # of the last that it has printed
GIVE_UP_S = 10.0  # after SIGKILL: what is there still cannot be killed
LINGER_S = 2.0  # for what is in the pipe when all that could write into it is dead
_libc = ctypes.CDLL(None)


def main() -> None:
    """The program."""
    status_fd = int(sys.argv[1])
    os.set_inheritable(status_fd, False)
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what loses its parent becomes our child
    # If a command has stopped this, it goes on for its own end when its supervisor has ended.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for one in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, lambda *_: None)  # not ignored: children would inherit that
    order = json.loads(_line(0))
    command = _Command(order, wake)
    try:
        command.start()
    except OSError as error:
        _tell(status_fd, None, f"the command could not be started: {error}")
        return
    command.run()
    _tell(status_fd, command.code, command.tail())


def _line(fd: int) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(fd, 1 << 16)
        if not byte:
            sys.exit(1)  # the supervisor has ended already
        data += byte
    return data


def _tell(fd: int, code: int | None, text: str) -> None:
    data = json.dumps({"exit_code": code, "text": text}).encode()
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass  # nobody is there any more who wants to know


class _Command:
    """``order``: ``command``, ``grace_s`` (from SIGTERM to SIGKILL). ``wake``: has a byte for each
    signal."""

    def __init__(self, order: dict[str, Any], wake: int) -> None:
        self._command: str = order["command"]
        self._grace_s: float = order["grace_s"]
        self._wake = wake
        self._pid = 0
        self._printed = -1
        self._tail = b""
        self._pump = threading.Thread(target=self._pass_on, daemon=True)
        self.code = 0

    def start(self) -> None:
        """Begin. Raises OSError: it cannot be."""
        child = subprocess.Popen(
            ["/bin/sh", "-c", self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert child.stdout is not None
        self._pid = child.pid
        self._printed = os.dup(child.stdout.fileno())
        child.stdout.close()
        child.returncode = 0  # it is reaped here, and by nobody else
        self._pump.start()

    def run(self) -> None:
        """Until it has ended, or is to end; and then, whatever it has left behind."""
        poll = select.poll()
        poll.register(0, select.POLLIN | select.POLLHUP)
        poll.register(self._wake, select.POLLIN)
        wanted = True
        while wanted and not self._reap():
            for fd, _ in poll.poll():
                if fd == self._wake:
                    self._read_wake()
                elif not os.read(0, 1 << 16):
                    wanted = False
        self._end_all()
        self._pump.join(LINGER_S)

    def _read_wake(self) -> None:
        try:
            os.read(self._wake, 1 << 16)
        except BlockingIOError:
            pass

    def _reap(self) -> bool:
        """Take the ends of children; whether the command is among them."""
        ended = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if not pid:
                return ended
            if pid == self._pid:
                self.code = os.waitstatus_to_exitcode(status)
                ended = True

    def _end_all(self) -> None:
        """SIGTERM to all that is left, and SIGKILL to what is still there after a while.

        What another user runs, or the kernel holds, may stay all the same.
        """
        deadline = time.monotonic() + self._grace_s
        told: set[int] = set()
        while not self._is_alone() and time.monotonic() < deadline + GIVE_UP_S:
            late = time.monotonic() >= deadline
            for pid in _descendants():
                if late or pid not in told:
                    told.add(pid)
                    kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                    kill(pid, signal.SIGCONT)
            waits = select.select([self._wake], [], [], 0.05)
            if waits[0]:
                self._read_wake()

    def _is_alone(self) -> bool:
        """Whether there is no child any more. The command's own end is kept."""
        self._reap()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    def _pass_on(self) -> None:
        while True:
            try:
                data = os.read(self._printed, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            try:
                while data:
                    data = data[os.write(1, data) :]
            except OSError:
                pass  # it is kept nowhere, but the command goes on

    def tail(self) -> str:
        """The last that it has printed."""
        return self._tail.decode("utf-8", "replace")


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def kill(pid: int, number: int) -> None:
    """Send a signal to a process, if it is there."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _descendants() -> list[int]:
    """All below this process that are no zombies, each after its parent."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state != b"Z":
            parents.setdefault(int(parent), []).append(int(name))
    found = [os.getpid()]
    for pid in found:
        found += parents.get(pid, ())
    return found[1:]


if __name__ == "__main__":
    main()
