"""Looks into processes of this machine with py-spy, as processes of their own beside the node.

Owns those processes and what they write. How many there may be, and for how long, the machine says.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from zray import limits
from zray.errors import ProfilerError
from zray.runtime.linux.process_handle import ProcessHandle
from zray.runtime.loop import Loop

MISSING = (
    "py-spy is not installed on the node of the process; in the Python environment that its "
    'zray-head or zray-worker was started from: pip install "zray[profile]"'
)
FORBIDDEN = (
    "the system does not let this node look into other processes (ptrace{scope}); in a container "
    "start it with --cap-add=SYS_PTRACE (Kubernetes: securityContext.capabilities.add "
    "[SYS_PTRACE]), elsewhere run sysctl kernel.yama.ptrace_scope=0 as root, or the node as root"
)
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
TEXT_BYTES = 2000

Done = Callable[[int, bytes, str, str], None]  # number, data, error's code, text


class _Look:
    """One run of py-spy; what it says and finds is in memory."""

    def __init__(self, process: Any, handle: ProcessHandle, found: int, said: int) -> None:
        self.process = process
        self.handle = handle
        self.found = found
        self.said = said


class Examiner:
    """``done``: hears of each that was started."""

    def __init__(self, loop: Loop, done: Done) -> None:
        self._loop = loop
        self._done = done
        self._looks: dict[int, _Look] = {}

    def start(self, number: int, pid: int, seconds: float) -> None:
        """Begin to look; that it cannot be done is told as what was found."""
        tool = find_tool()
        if tool is None:
            self._done(number, b"", ProfilerError.code, MISSING)
            return
        import subprocess

        found = os.memfd_create("zray-examined", os.MFD_CLOEXEC)
        said = os.memfd_create("zray-examiner", os.MFD_CLOEXEC)
        line = [tool, "dump", "--pid", str(pid)]
        if seconds:
            target = ["--output", f"/proc/self/fd/{found}", "--format", "flamegraph"]
            often = ["--rate", str(limits.PROFILE_RATE), "--duration", str(round(seconds))]
            line = [tool, "record", "--pid", str(pid), *often, *target]
        if is_stopped(pid):
            line.append("--nonblocking")  # it cannot be stopped for it once more
        process = None
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=said if seconds else found,
                stderr=said,
                pass_fds=(found,) if seconds else (),
                env={**os.environ, "NO_COLOR": "1", "RUST_BACKTRACE": "0"},
                start_new_session=True,
            )
            handle = ProcessHandle(process.pid)
        except OSError as error:
            if process is not None:
                process.kill()
                process.wait()
            os.close(found)
            os.close(said)
            self._done(number, b"", ProfilerError.code, f"py-spy cannot be started: {error}")
            return
        most = 2 * limits.EXAMINED_BYTES_MAX
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        look = _Look(process, handle, found, said)
        self._looks[number] = look
        self._loop.watch(handle, partial(self._ended, number))

    def end(self, number: int) -> None:
        """Nobody waits for it any more."""
        look = self._looks.get(number)
        if look is not None:
            look.handle.signal(signal.SIGKILL)

    def _ended(self, number: int) -> None:
        look = self._looks.pop(number)
        self._loop.unwatch(look.handle)
        look.handle.close()
        status = look.process.wait()
        data = os.pread(look.found, limits.EXAMINED_BYTES_MAX + 1, 0)
        said = os.pread(look.said, 1 << 16, 0).decode("utf-8", "replace")
        os.close(look.found)
        os.close(look.said)
        if len(data) > limits.EXAMINED_BYTES_MAX:
            text = f"there are more than {limits.EXAMINED_BYTES_MAX >> 20} MiB of it"
            self._done(number, b"", ProfilerError.code, text)
        elif status == 0 and data:
            self._done(number, data, "", "")
        else:
            self._done(number, b"", ProfilerError.code, _reason(said, status))

    def close(self) -> None:
        """End all of them."""
        for look in self._looks.values():
            look.handle.signal(signal.SIGKILL)
            self._loop.unwatch(look.handle)
            look.process.wait()
            look.handle.close()
            os.close(look.found)
            os.close(look.said)
        self._looks.clear()


def find_tool() -> str | None:
    """py-spy of this Python's environment, or of the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # it has just ended
        return False
    return state == "T"


def _reason(said: str, status: int) -> str:
    plain = " ".join(said.split())
    if "permission denied" in plain.lower() or "not permitted" in plain.lower():
        scope = ""
        with contextlib.suppress(OSError):
            scope = f"; kernel.yama.ptrace_scope is {YAMA.read_text().strip()}"
        return FORBIDDEN.format(scope=scope)
    if "no stack counts" in plain.lower():
        return (
            "it has run nothing meanwhile, so there is nothing to show; look for longer (--seconds)"
        )
    return f"py-spy failed (exit status {status}): {plain[-TEXT_BYTES:] or 'it said nothing'}"
