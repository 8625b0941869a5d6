"""How a daemon runs: in the foreground, or detached with its output in a log file.

Owns forking, the READY pipe and what a terminal's signals mean; knows nothing of heads and nodes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from zray import limits

START_S: Final = 30.0
GIVE_UP_S: Final = 2.0  # for a daemon that has said why it does not start
TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 16 << 10


def check_platform(program: str) -> None:
    """End the program where daemons cannot run."""
    if sys.platform != "linux":
        fail(program, "heads and worker nodes run on Linux; other systems can use zray.init()")


def hangup_is_stop() -> None:
    """A terminal that goes away ends a foreground daemon as cleanly as Ctrl-C; nohup is obeyed."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))


def ready(text: str, ready_fd: int | None) -> None:
    """Say that the daemon serves: here, and to the starter that waits for it, if any."""
    print(text, flush=True)
    if ready_fd is not None:
        _tell(ready_fd, {"text": text})


def note(program: str, text: str, ready_fd: int | None) -> None:
    """Say why it takes longer, to the starter where it still waits."""
    if ready_fd is None or not _tell(ready_fd, {"note": text}):
        print(f"{program}: {text}", file=sys.stderr, flush=True)


def fail(program: str, reason: object, ready_fd: int | None = None, status: int = 1) -> NoReturn:
    """Say why, to the starter where it still waits, and end with that status."""
    if ready_fd is None or not _tell(ready_fd, {"error": str(reason), "status": status}):
        print(f"{program}: {reason}", file=sys.stderr, flush=True)
    sys.exit(status)


def _tell(ready_fd: int, found: dict[str, Any]) -> bool:
    """One line for the starter; whether it was there to hear."""
    try:
        os.write(ready_fd, json.dumps(found).encode() + b"\n")
    except OSError:  # it has heard READY and gone, or was killed
        return False
    return True


def detach(program: str, log_path: Callable[[], Path], more_s: float = 0.0) -> int:
    """Go on in the background: returns only there, with the descriptor to say READY on.

    The calling process waits for one line of JSON on it, prints its ``text`` with pid and log, and
    ends with 0; or with its ``status``, after its ``error`` and the end of the log, which stay on
    stderr.

    Args:
        log_path: called in the new process; where its output goes from then on.
        more_s: how much longer than others this daemon may take.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        os.waitpid(child, 0)
        _report(program, read, START_S + more_s)
    os.close(read)
    os.setsid()
    if os.fork():
        os._exit(0)  # so that nobody has to wait for the daemon
    from zray.runtime import log_files  # only what is detached needs it

    try:
        path = log_path()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(path, flags, 0o600)
    except Exception as error:
        _tell(write, {"pid": os.getpid(), "error": str(error)})
        os._exit(1)
    log_files.declared = path
    _tell(write, {"pid": os.getpid(), "log": str(path), "log_start": os.fstat(log).st_size})
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    os.chdir("/")  # a daemon keeps no file system busy
    return write


def _report(program: str, fd: int, timeout_s: float) -> NoReturn:
    """The starter's side: wait for READY, say what became of the daemon, end."""
    found: dict[str, Any] = {}
    try:
        for answer in _lines(fd, time.monotonic() + timeout_s):
            found |= answer
            if "note" in answer:
                print(f"{program}: {answer['note']}", file=sys.stderr, flush=True)
            if "error" in found or "text" in found:
                break
    except KeyboardInterrupt:
        _end(found, fd)
        sys.exit(130)
    if "text" in found:
        print(f"{found['text']}\nRuns in the background: pid {found['pid']}, log {found['log']}")
        sys.exit(0)
    _end(found, fd)
    if tail := _tail(found):
        print(f"---- end of {found['log']}\n{tail}\n----", file=sys.stderr)
    where = f" (log: {found['log']})" if "log" in found else ""
    late = f"it was not READY within {timeout_s:.0f} s and was stopped"
    reason = found.get("error") or (late if "late" in found else "it ended before it was READY")
    fail(program, f"{reason}{where}", status=found.get("status", 1))


def _lines(fd: int, deadline: float) -> Iterator[dict[str, Any]]:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    rest = b""
    while True:
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            yield {"late": True}
            return
        data = os.read(fd, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)


def _end(found: dict[str, Any], fd: int) -> None:
    """A daemon that did not come up must not go on half started; its end closes the pipe."""
    if "pid" not in found or not _is_open(fd, GIVE_UP_S if "error" in found else 0.0):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(found["pid"], signal.SIGTERM)
        if _is_open(fd, limits.STOP_S):
            os.kill(found["pid"], signal.SIGKILL)


def _is_open(fd: int, timeout_s: float) -> bool:
    """Whether the daemon still has its end of the pipe after that time."""
    return any("late" in answer for answer in _lines(fd, time.monotonic() + timeout_s))


def _tail(found: dict[str, Any]) -> str:
    """The last lines that this start wrote to the log."""
    if "log" not in found:
        return ""
    try:
        with open(found["log"], "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(found["log_start"], size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])
