"""The raylet's side of the zygote: asks for workers, hears of their ends, kills them.

One object, one thread, no blocking call but `close`. It must never decide what a death means.
"""

from __future__ import annotations

import array
import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TypeAlias

import msgspec

from zray.runtime.linux.channels import WorkerChannels, open_channels, open_page
from zray.runtime.linux.zygote import (
    END_S,
    MESSAGE_BYTES_MAX,
    Exited,
    Fatal,
    Fork,
    Forked,
    ForkFailed,
    Report,
    Setup,
    received_fds,
    set_process_name,
)

__all__ = [
    "Event",
    "Exited",
    "ForkFailed",
    "Forked",
    "Interpreter",
    "WorkerChannels",
    "Zygote",
    "ZygoteDied",
    "editable_finders",
    "import_path",
    "open_page",
    "set_process_name",
    "sweep",
]

SESSION_VARIABLE = "ZRAY_ZYGOTE"  # in the environment of everything below one zygote
CLOSE_S = END_S + 0.5  # a zygote that takes longer to end is killed
SWEEP_S = 0.4
PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # Linux 6.9

_BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv[3:]; from zray.runtime.linux.zygote import main; main()"
)
_PACKAGE_ROOT = str(Path(__file__).parents[3])


class ZygoteDied(msgspec.Struct):
    """The zygote ended by itself; all its workers are dead too, and no `Exited` follows for them.

    Attributes:
        worker_ids: the workers that lived or were asked for.
        text: its last words, such as the traceback of an entry that cannot be imported, or "".
    """

    pid: int
    exit_code: int | None
    signal: int | None
    worker_ids: list[bytes]
    text: str


Event: TypeAlias = Forked | ForkFailed | Exited | ZygoteDied


class Interpreter(msgspec.Struct):
    """A Python that workers may be forked from: its executable, and as ``sys`` has it there."""

    executable: str
    prefix: str
    exec_prefix: str
    path: list[str]


class _Worker(msgspec.Struct):
    pid: int
    pidfd: int


class Zygote:
    """Forks workers through one zygote process that it starts and owns.

    `start` does not wait for the process: requests made before it is ready stay in the socket. The
    loop polls `fileno()` for reading and then calls `events()`. After `ZygoteDied`, `start` may be
    called again; `fileno()` then changes.

    Attributes:
        swept: how many processes were found and killed that its deaths had left.
    """

    def __init__(
        self,
        entry: str = "zray.nodes.worker.worker:prepare",
        extra_env: dict[str, str] | None = None,
        interpreter: Interpreter | None = None,
    ) -> None:
        """``interpreter``: None: that of this process."""
        self._interpreter = interpreter
        self._entry = entry
        self._extra_env = dict(extra_env or {})
        self._session = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._asked: dict[bytes, int | None] = {}  # not forked yet -> the signal it shall get
        self._workers: dict[bytes, _Worker] = {}
        self._ids: dict[int, bytes] = {}
        self._retired: list[int] = []
        self._last_words = ""
        self.swept = 0
        self._decode = msgspec.msgpack.Decoder(Report).decode

    @property
    def pid(self) -> int | None:
        """The zygote's pid while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Spawn the zygote and return at once. Raises OSError if the machine cannot."""
        if self._process is not None:
            raise RuntimeError("the zygote runs already")
        self._session = secrets.token_hex(16)
        self._last_words = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = self._interpreter or Interpreter(
            sys.executable, sys.prefix, sys.exec_prefix, import_path()
        )
        command = [python.executable, "-I", "-S", "-c", _BOOTSTRAP, str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                [*command, "zray-zygote", *python.path],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._extra_env, SESSION_VARIABLE: self._session},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # the terminal's Ctrl-C is for the raylet alone
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._sock = ours
        setup = Setup(self._entry, python.prefix, python.exec_prefix, editable_finders())
        self._post(msgspec.msgpack.encode(setup), [])

    def fileno(self) -> int:
        """The descriptor to poll for reading while the zygote runs.

        Raises:
            RuntimeError: it does not run.
        """
        if self._sock is None:
            raise RuntimeError("the zygote does not run; call start() first")
        return self._sock.fileno()

    def fork(self, worker_id: bytes, env: dict[str, str]) -> WorkerChannels:
        """Ask for a worker with `env` added to the zygote's environment; returns at once.

        `Forked` or `ForkFailed` follows from `events`, or `ZygoteDied`. Raises ValueError for an
        environment that no process can have or that is longer than 160 KiB, OSError if this process
        is out of descriptors.
        """
        if self._process is None:
            raise RuntimeError("the zygote does not run; call start() first")
        if worker_id in self._asked or worker_id in self._workers:
            raise ValueError(f"worker {worker_id.hex()} exists already")
        for name, value in env.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise ValueError(f"{name!r} cannot be set to {value!r} in a process's environment")
        message = msgspec.msgpack.encode(Fork(worker_id, env))
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueError(
                f"a worker's environment of {len(message)} bytes is too long "
                f"(at most {MESSAGE_BYTES_MAX}); pass large values as objects instead"
            )
        channels, theirs = open_channels(worker_id)
        self._asked[worker_id] = None
        self._post(message, theirs)
        return channels

    def redirect(self, fd: int) -> None:
        """Its own output goes to that file from now on, as that of the next one does anyway."""
        if self._process is not None:
            self._post(msgspec.msgpack.encode(Fork(b"", {})), [os.dup(fd)])

    def events(self) -> list[Event]:
        """What has happened since the last call, in order, without waiting.

        A `Forked.pidfd` stays open until the call after the one that returned its `Exited`.
        """
        _close(self._retired)
        found: list[Event] = []
        while self._sock is not None:
            try:
                message, ancillary, _, _ = self._sock.recvmsg(
                    MESSAGE_BYTES_MAX, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # told once, before what the zygote still said
            except OSError:
                if not found:
                    raise
                break  # what has come counts; the next look tells of this
            if not message:
                found.append(self._bury())
                break
            report = self._decode(message)
            if isinstance(report, Fatal):
                self._last_words = report.text
                continue
            self._apply(report, received_fds(ancillary))
            found.append(report)
        self.flush()
        return found

    def kill(self, target: int | bytes, number: int = signal.SIGKILL) -> bool:
        """Send a signal to the process group of a worker, named by its id or pid.

        A worker that is asked for but not forked yet gets it when it is. False if there is no such
        worker any more (its `Exited` may still be under way).
        """
        worker_id = self._ids.get(target) if isinstance(target, int) else target
        if worker_id is None:
            return False
        worker = self._workers.get(worker_id)
        if worker is not None:
            return _signal_group(worker, number)
        if worker_id not in self._asked:
            return False
        if self._asked[worker_id] != signal.SIGKILL:
            self._asked[worker_id] = number
        return True

    def close(self) -> None:
        """End the zygote and everything below it, within 2 s. May be called again.

        Channels are not closed: they belong to the raylet.
        """
        process = self._process
        if process is not None:
            self._drop_socket()  # the zygote's signal to kill what is below it, and to end
            if not _wait(process, CLOSE_S):
                self._kill_all()
            self._forget()
        _close(self._retired)

    # ---- inside --------------------------------------------------------------------------

    def _post(self, message: bytes, fds: list[int]) -> None:
        self._outbox.append((message, fds))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes; to be called once in a while, and is at each `events`."""
        while self._outbox and self._sock is not None:
            message, fds = self._outbox[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._sock.sendmsg([message], rights)
            except (BrokenPipeError, ConnectionResetError):
                return  # its end is reported, and the outbox dropped, by events()
            except OSError:  # no room for the message, or too many descriptors under way
                return
            self._outbox.popleft()
            _close(fds)

    def _apply(self, report: Forked | ForkFailed | Exited, fds: list[int]) -> None:
        """Follow one report in the tables."""
        if isinstance(report, Exited):
            worker = self._workers.pop(report.worker_id)
            del self._ids[worker.pid]
            self._retired.append(worker.pidfd)
            return
        number = self._asked.pop(report.worker_id)
        if isinstance(report, ForkFailed):
            return
        report.pidfd = fds[0] if fds else -1  # -1: this process is out of descriptors
        worker = _Worker(report.pid, report.pidfd)
        self._workers[report.worker_id] = worker
        self._ids[report.pid] = report.worker_id
        if number is not None:
            _signal_group(worker, number)

    def _bury(self) -> ZygoteDied:
        """The zygote has closed its socket: make sure of its end, and of everything below it."""
        assert self._process is not None
        process = self._process
        self._drop_socket()
        self._kill_all()
        code = process.returncode
        died = ZygoteDied(
            process.pid,
            code if code >= 0 else None,
            -code if code < 0 else None,
            [*self._workers, *self._asked],
            self._last_words,
        )
        self._forget()
        return died

    def _kill_all(self) -> None:
        """Kill the zygote and whatever carries its session."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.swept += sweep(self._session)

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        for _, fds in self._outbox:
            _close(fds)
        self._outbox.clear()

    def _forget(self) -> None:
        self._process = None
        self._retired += [worker.pidfd for worker in self._workers.values()]
        self._workers.clear()
        self._ids.clear()
        self._asked.clear()


def sweep(session: str) -> int:
    """Kill every process whose environment names the zygote session; returns how many.

    For what no process group or parent leads to any more, after a zygote was killed.
    """
    mark = f"{SESSION_VARIABLE}={session}".encode()
    killed: set[int] = set()
    deadline = time.monotonic() + SWEEP_S
    while True:  # again until none is found: a process may fork while it is looked for
        held: list[int] = []
        for pid in _pids():
            if pid == os.getpid() or mark not in _environ(pid):
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                held.append(os.pidfd_open(pid))
                if mark in _environ(pid):  # still the process that was looked at
                    signal.pidfd_send_signal(held[-1], signal.SIGKILL)
                    killed.add(pid)
        for pidfd in held:
            _ended(pidfd, max(0.0, deadline - time.monotonic()))
        if not held or time.monotonic() >= deadline:
            _close(held)
            return len(killed)
        _close(held)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    """The environment a process started with; nothing for zombies and for other users' ones."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _signal_group(worker: _Worker, number: int) -> bool:
    """Signal a worker's process group by its pidfd, which no reused pid can be mistaken for."""
    for flags in (PIDFD_SIGNAL_PROCESS_GROUP, 0):
        try:
            signal.pidfd_send_signal(worker.pidfd, number, None, flags)
            return True
        except ProcessLookupError:
            continue  # no group yet: it has not come as far as setsid
        except OSError:
            break  # a kernel before 6.9
    if worker.pidfd >= 0 and _ended(worker.pidfd):
        return False
    for kill in (os.killpg, os.kill):
        try:
            kill(worker.pid, number)
            return True
        except ProcessLookupError:
            continue
    return False


def _ended(pidfd: int, timeout_s: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the end of our own child without Popen.wait's naps; True if it has ended."""
    deadline = time.monotonic() + timeout_s
    if process.poll() is None:
        pidfd = os.pidfd_open(process.pid)
        try:
            if not _ended(pidfd, max(0.0, deadline - time.monotonic())):
                return False
        finally:
            os.close(pidfd)
        process.wait()
    return True


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
    fds.clear()


def import_path() -> list[str]:
    """This interpreter's import path, absolute, with the folder that holds zray itself."""
    found = [os.path.abspath(entry) for entry in sys.path]
    return list(dict.fromkeys([*found, _PACKAGE_ROOT]))


def editable_finders() -> list[str]:
    """Modules of the import hooks of editable installs, which `-S` leaves out."""
    modules = (getattr(finder, "__module__", "") for finder in sys.meta_path)
    return [name for name in dict.fromkeys(modules) if name.startswith("__editable__")]
