"""``zray-head --supervise``: a small process that starts a head, and starts it again.

Run by its path, without site-packages: python -I -S supervisor.py WATCHDOG_S LOG READY_FD OPTIONS,
where LOG and READY_FD may be "". Imports next to nothing, since it is there for as long as the
head. What it does when is the judgement of `Supervision`. Ended by force it leaves the head alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..")))

from zray.core.head.supervision import Again, End, Supervision
from zray.runtime import service

PROGRAM = "zray-head"
SAME_STOP_S = 0.2  # as in the head: what follows within this is the same stop
INSIST_S = 1.0  # a head that was told twice is killed after this
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
READ_BYTES = 65536
SLIP_S = 1.0  # a wait that took so much longer than asked for: this process stood still


class Supervisor:
    """``options``: the head's, as text; ``ready_fd`` is for the first head alone; below 0: none."""

    def __init__(self, watchdog_s: float, log: str, ready_fd: int, options: str) -> None:
        self._watchdog_s = watchdog_s
        self._log = log
        self._ready_fd = ready_fd
        self._options = options
        self._supervision = Supervision(watchdog_s)
        self._port = "0"  # where the first has listened, so that the others do, too
        self._pid = 0
        self._told: list[int] = []  # signals that are to be passed on
        self._told_at = -1.0
        self._kill_at = float("inf")
        self._heard = b""
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)

    def run(self) -> int:
        """Until it is over; the exit status."""
        self._handle_signals()
        service.declare()
        for fd in map(int, os.listdir("/proc/self/fd")):  # its lock is not for the head
            with contextlib.suppress(OSError):  # that of the list itself
                os.set_inheritable(fd, fd < 3)
        if self._log:  # which is opened by name: a file that was rotated may go
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        while True:
            try:
                pipe = self._start()
            except OSError as error:
                status, how = 1, f"no process can be made for the head: {error}"
            else:
                status = self._watch(pipe)
                os.close(pipe)
                how = self._how(status)
            verdict = self._supervision.ended(status, how, time.monotonic())
            if isinstance(verdict, End):
                if verdict.text:
                    self.say(f"{verdict.text}. It is not started again.")
                service.tell(STOPPING=1)
                return verdict.status
            self.say(f"{verdict.text}.")
            service.tell(STATUS=verdict.text)
            if self._pause(verdict):
                return 0

    # ---- the head --------------------------------------------------------------------------

    def _start(self) -> int:
        """Its process; the pipe that it tells of itself on.

        Raises:
            OSError: none can be made.
        """
        self._supervision.begun(time.monotonic())
        self._heard = b""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        os.set_inheritable(write, True)
        if self._ready_fd >= 0:
            os.set_inheritable(self._ready_fd, True)
        given = [self._options, str(self._ready_fd), self._log, self._port]
        command = [sys.executable, "-P", "-m", "zray.cli.supervised", *given]
        environment = {**os.environ, service.PIPE_VARIABLE: f"{write}:{self._watchdog_s}"}
        actions: list[tuple[object, ...]] = []
        if self._log:  # the one before may have been renamed
            actions = [
                (os.POSIX_SPAWN_OPEN, 1, self._log, LOG_FLAGS, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
        try:
            self._pid = os.posix_spawn(sys.executable, command, environment, file_actions=actions)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1
        return read

    def _watch(self, pipe: int) -> int:
        """Until the head has ended: its status, negative for a signal."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        poller.register(pipe, select.POLLIN)
        while True:
            now = time.monotonic()
            until = min(self._supervision.deadline(), self._kill_at)
            wait_s = max(0.0, min(until - now, service.beat()))
            found = poller.poll(None if wait_s == float("inf") else wait_s * 1000 + 1)
            slip_s = time.monotonic() - now - wait_s
            if slip_s > SLIP_S and not found:
                self._supervision.slept(slip_s)
            for fd, event in found:
                if fd == self._wake_read:
                    os.read(self._wake_read, READ_BYTES)
                elif event & select.POLLIN:
                    self._hear(os.read(pipe, READ_BYTES))
                else:
                    poller.unregister(pipe)  # its end is about to be noticed
            ended = self._reap()
            if ended is not None:
                return ended
            self._pass_on()
            now = time.monotonic()
            if self._supervision.overdue(now) or now >= self._kill_at:
                self._kill_at = float("inf")
                os.kill(self._pid, signal.SIGKILL)

    def _reap(self) -> int | None:
        """The head's status, if it has ended. In a container others' children may be this one's."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._pid:
                return os.waitstatus_to_exitcode(status)
            if not pid:
                return None

    def _hear(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        now = time.monotonic()
        for line in lines:
            name, _, value = line.decode(errors="replace").partition("=")
            if name == "X_ZRAY_PORT":
                self._port = value
            elif name == "READY":
                self._supervision.ready(now)
                service.tell(READY=1)
            elif name == "STATUS":
                service.tell(STATUS=value)
            self._supervision.heard(now)

    def _pass_on(self) -> None:
        """What this process was told, the head is told. Twice, and not at once, ends it."""
        told, self._told = self._told, []
        for number in told:
            now = time.monotonic()
            self._supervision.stop(now)
            service.tell(STOPPING=1)
            if self._told_at >= 0 and now - self._told_at > SAME_STOP_S:
                self._kill_at = min(self._kill_at, now + INSIST_S)
            self._told_at = now if self._told_at < 0 else self._told_at
            os.kill(self._pid, number)
            os.kill(self._pid, signal.SIGCONT)  # a process that is stopped does not even end

    def _pause(self, verdict: Again) -> bool:
        """Wait; whether it is all over meanwhile."""
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        until = time.monotonic() + verdict.pause_s
        while not self._told and (left_s := until - time.monotonic()) > 0:
            if poller.poll(min(left_s, service.beat()) * 1000 + 1):
                os.read(self._wake_read, READ_BYTES)
        return bool(self._told)

    # ---- this process ----------------------------------------------------------------------

    def _handle_signals(self) -> None:
        def noted(number: int, _frame: object) -> None:
            # A terminal that goes away is a stop, too.
            self._told.append(signal.SIGTERM if number == signal.SIGHUP else number)

        signal.signal(signal.SIGINT, noted)
        signal.signal(signal.SIGTERM, noted)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is obeyed
            signal.signal(signal.SIGHUP, noted)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def _how(self, status: int) -> str:
        if status >= 0:
            return f"the head (pid {self._pid}) has ended with status {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"the head (pid {self._pid}) was killed by {name}"

    def say(self, text: str) -> None:
        """One line, where the head's words go."""
        fd = 2
        try:
            if self._log:
                fd = os.open(self._log, LOG_FLAGS, 0o600)
            os.write(fd, f"{PROGRAM}: {text}\n".encode())
        except OSError:
            pass  # a full disk, a terminal that is gone: the head comes first
        finally:
            if fd != 2:
                os.close(fd)


def main() -> int:
    """Entry of the process; its exit status."""
    watchdog_s, log, ready_fd, options = sys.argv[1:]
    supervisor = Supervisor(float(watchdog_s), log, int(ready_fd or -1), options)
    try:
        return supervisor.run()
    except Exception as error:
        supervisor.say(f"the supervisor has failed, and the head goes on without: {error!r}")
        raise


if __name__ == "__main__":
    sys.exit(main())
