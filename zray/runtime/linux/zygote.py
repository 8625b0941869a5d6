"""The zygote: a single-threaded process that forks workers in about a millisecond and reaps them.

Owns what happens between fork and the worker's entry, and the death of everything below it. It must
never import zmq, numpy or click, start a thread, or decide anything: what to fork, and what a death
means, is the raylet's business (`zray.runtime.linux.processes`).

One SOCK_SEQPACKET pair joins the two. Down: `Setup` once, then `Fork`, each with five descriptors.
Up: `Forked` (with the child's pidfd), `ForkFailed`, `Exited`, `Fatal`. The pair is the lifeline:
when the raylet's end closes, every process below the zygote is killed. The other way round workers
die by PDEATHSIG, which fires because the zygote's only thread forked them.
"""

# No `from __future__ import annotations` here: msgspec reads the annotations of the structs.

import array
import contextlib
import ctypes
import errno
import faulthandler
import gc
import importlib
import os
import select
import signal
import site
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

MESSAGE_BYTES_MAX = 160 << 10  # one request; the default socket buffer is 208 KiB
FORK_FDS = 6  # task, control, counter, queue, stdout, stderr
END_S = 1.0  # killing everything below the zygote gives up after this
END_POLL_S = 0.002
REPORT_S = 5.0  # for which the kernel may be short of memory
REPORT_POLL_S = 0.01
FATAL_CHARS_MAX = 16 << 10

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_PASSING = {errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE}
_WORKER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Entry: TypeAlias = Callable[[bytes, int, int, int, int], int | None]
Prepare: TypeAlias = Callable[[], Entry]


class Setup(msgspec.Struct, array_like=True):
    """What the zygote must know of the raylet's interpreter, and the "module:function" that makes
    here, once, what workers share, and returns what each of them does with its life."""

    entry: str
    prefix: str
    exec_prefix: str
    finders: list[str]


class Fork(msgspec.Struct, array_like=True):
    """A request for one worker; its descriptors travel with it.

    Without an id: the descriptor that travels with it is the zygote's own output from now on.
    """

    worker_id: bytes
    env: dict[str, str]


class Forked(msgspec.Struct, array_like=True, tag=1):
    """A worker exists. `pidfd` belongs to the raylet's `Zygote`, which closes it."""

    worker_id: bytes
    pid: int
    pidfd: int = -1


class ForkFailed(msgspec.Struct, array_like=True, tag=2):
    """The machine refused another process; nothing was started for this worker."""

    worker_id: bytes
    reason: str


class Exited(msgspec.Struct, array_like=True, tag=3):
    """A worker ended, and what was left of its process group was killed.

    Exactly one of `exit_code` and `signal` is set. `max_rss_bytes`, `user_s` and `system_s` are the
    kernel's figures for it and for those of its children that it had waited for.
    """

    worker_id: bytes
    pid: int
    exit_code: int | None
    signal: int | None
    max_rss_bytes: int
    user_s: float
    system_s: float


class Fatal(msgspec.Struct, array_like=True, tag=4):
    """The zygote's last words before it ends by an error of its own."""

    text: str


Report: TypeAlias = Forked | ForkFailed | Exited | Fatal

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, *([ctypes.c_ulong] * 4))
_prctl_text = ctypes.CDLL(None, use_errno=True).prctl
_prctl_text.argtypes = (ctypes.c_int, ctypes.c_char_p, *([ctypes.c_ulong] * 3))
# The module signal makes enums of all it takes and gives, by code that a child has to copy first.
_set_handler: Callable[[int, Any], Any] = importlib.import_module("_signal").signal


def set_process_name(name: str) -> None:
    """Name the calling thread (for a main thread: the process) in ps and top; 15 bytes are kept."""
    _prctl_text(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def end_with_parent(pid: int) -> None:
    """End this process with the thread that has made it, of the process ``pid``: by SIGKILL."""
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != pid:
        os._exit(0)


# ---- the zygote ----------------------------------------------------------------------------


class _Job(msgspec.Struct):
    """What a child carries out of the loop it was forked in."""

    worker_id: bytes
    env: dict[str, str]
    fds: list[int]


class _Loop:
    """Serves fork requests and reaps, until the raylet's end closes or this process is a child."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pid = os.getpid()
        self._workers: dict[int, bytes] = {}
        self._wake, wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._decode = msgspec.msgpack.Decoder(Fork).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def run(self) -> _Job | None:
        """Returns the job in a child, None in the zygote once the raylet's end is closed."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for fd, event in poll.poll():
                if fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    self._reap()
                    continue
                if event & (select.POLLHUP | select.POLLERR):
                    return None  # whatever it asked for before is not wanted any more
                try:
                    message, fds = _receive(self._sock)
                except OSError as error:
                    if error.errno not in _PASSING:
                        raise
                    continue
                if not message:
                    return None
                job = self._fork(self._decode(message), fds)
                if job is not None:
                    return job

    def _fork(self, request: Fork, fds: list[int]) -> _Job | None:
        """Fork one worker; the job it is to run is returned in the child only."""
        if not request.worker_id:
            for fd in fds:
                os.dup2(fd, 1)
                os.dup2(fd, 2)
            _close(fds)
            return None
        try:
            if len(fds) != FORK_FDS:
                raise OSError("the zygote is out of file descriptors; raise `ulimit -n`")
            threads = len(os.listdir("/proc/self/task"))
            if threads != 1:
                raise RuntimeError(
                    f"the zygote has {threads} threads: a module that the worker's entry imports "
                    "starts one, and a fork would copy its locks; import that module later"
                )
            pid = os.fork()
        except OSError as error:
            _close(fds)
            self._report(ForkFailed(request.worker_id, str(error)))
            return None
        if pid == 0:
            signal.set_wakeup_fd(-1)
            if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != self._pid:
                os._exit(1)  # the zygote died before the lifeline was there
            self._sock.detach()  # no finalizer may close a number that is used anew
            return _Job(request.worker_id, request.env, fds)
        _close(fds)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            _kill_group(pid)
            os.waitpid(pid, 0)
            self._report(ForkFailed(request.worker_id, str(error)))
            return None
        self._workers[pid] = request.worker_id
        try:
            self._report(Forked(request.worker_id, pid), pidfd)
        finally:
            os.close(pidfd)
        return None

    def _reap(self) -> None:
        """Report each dead worker once the rest of its process group is killed."""
        while True:
            # Peeked at first: while the leader is not reaped, its number names its own group.
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            if dead.si_pid in self._workers:
                _kill_group(dead.si_pid)
            pid, status, usage = os.wait4(dead.si_pid, 0)
            worker_id = self._workers.pop(pid, None)
            if worker_id is None:
                continue  # an orphan of a worker, adopted and now gone
            code = os.waitstatus_to_exitcode(status)
            exited = Exited(
                worker_id,
                pid,
                code if code >= 0 else None,
                -code if code < 0 else None,
                usage.ru_maxrss << 10,
                usage.ru_utime,
                usage.ru_stime,
            )
            self._report(exited)

    def _report(self, report: Report, fd: int | None = None) -> None:
        rights = [] if fd is None else [_rights([fd])]
        message = self._encode(report)
        deadline = time.monotonic() + REPORT_S
        while True:
            try:
                self._sock.sendmsg([message], rights)
                return
            except (BrokenPipeError, ConnectionResetError):
                return
            except OSError as error:  # what is not told is waited for
                if error.errno not in _PASSING or time.monotonic() > deadline:
                    raise
            time.sleep(REPORT_POLL_S)


def main() -> None:
    """The zygote's whole life; argv[1] is its socket. Does not return."""
    gc.disable()  # until the first child: what is imported here stays, and stays shared
    sock = socket.socket(fileno=int(sys.argv[1]))
    sys.argv[:] = [""]
    job = None
    try:
        entry = _set_up(sock)
        job = _Loop(sock).run() if entry is not None else None
    except BaseException:
        words = traceback.format_exc()[-FATAL_CHARS_MAX:].encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            sock.sendmsg([msgspec.msgpack.encode(Fatal(words.decode()))])
        _end_everything_below()
        os._exit(1)
    if job is None or entry is None:
        _end_everything_below()
        os._exit(0)
    os._exit(_work(entry, job))


def _set_up(sock: socket.socket) -> Entry | None:
    """Make this process like the raylet's interpreter and load what workers share."""
    # It ends when its socket does. Blocked, not ignored: a signal that reaches a child early waits
    # there until the child has its handlers.
    signal.pthread_sigmask(signal.SIG_SETMASK, _WORKER_SIGNALS)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    set_process_name("zray-zygote")
    message, _ = _receive(sock)
    if not message:
        return None
    setup = msgspec.msgpack.decode(message, type=Setup)
    sys.prefix, sys.exec_prefix = setup.prefix, setup.exec_prefix
    site.setquit()
    site.sethelper()
    for finder in setup.finders:
        importlib.import_module(finder).install()
    module, _, function = setup.entry.partition(":")
    prepare: Prepare = getattr(importlib.import_module(module), function)
    importlib.import_module("zray.runtime.code")  # here alone: the raylet has no use for it
    entry = prepare()
    gc.freeze()
    return entry


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its descriptors; no bytes at the end of the stream."""
    try:
        message, ancillary, _, _ = sock.recvmsg(
            MESSAGE_BYTES_MAX, socket.CMSG_LEN(FORK_FDS * 4), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return b"", []
    return message, received_fds(ancillary)


def received_fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in the ancillary data of one recvmsg."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _rights(fds: list[int]) -> tuple[int, int, "array.array[int]"]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _kill_group(pid: int) -> None:
    """Kill a child that is not reaped yet, and its process group if it has made one."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _children() -> Iterator[int]:
    """Direct children, adopted orphans and zombies included."""
    parent = str(os.getpid()).encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[1] == parent:
                    yield int(name)


def _end_everything_below() -> None:
    """Kill generation after generation: as a subreaper the zygote inherits every orphan."""
    deadline = time.monotonic() + END_S
    while (children := list(_children())) and time.monotonic() < deadline:
        for pid in children:
            _kill_group(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(END_POLL_S)


# ---- the child, between fork and entry -----------------------------------------------------


def _work(entry: Entry, job: _Job) -> int:
    """Become the worker and run its entry; returns the process's exit code."""
    try:
        code: Any = entry(job.worker_id, *_become_worker(job))
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        with contextlib.suppress(OSError, ValueError):
            print(code, file=sys.stderr)  # as the interpreter does for SystemExit("text")
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    return int(code or 0) & 0xFF


def _become_worker(job: _Job) -> tuple[int, int, int, int]:
    """Leave everything of the zygote's behind; returns the task, control, counter and queue fds."""
    os.setsid()
    set_process_name("zray-idle")
    for number in (signal.SIGCHLD, *_WORKER_SIGNALS):
        _set_handler(number, int(signal.SIG_DFL))
    _set_handler(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    task_fd, control_fd, page_fd, queue_fd, stdout_fd, stderr_fd = job.fds
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    keep = {0, 1, 2, task_fd, control_fd, page_fd, queue_fd}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own, closed by now
                os.close(int(name))
    from zray.runtime.linux.prints import text_stream  # the worker's, and not this process's

    sys.stdout = sys.__stdout__ = text_stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = text_stream(2)  # type: ignore[misc]
    faulthandler.enable(sys.stderr)
    for variable, value in job.env.items():
        os.environ[variable] = value
    gc.enable()
    return task_fd, control_fd, page_fd, queue_fd
