"""A cluster of a driver's own: starts its head, and has it end with this process.

Owns the process and the lifeline, a pipe whose closing ends the head, however this process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.errors import StartError
from zray.nodes.options import HeadOptions, encode_head
from zray.runtime.interrupts import interrupts

if TYPE_CHECKING:
    from zray.runtime.connection import ConnectionInfo


class LocalCluster:
    """A head of this driver's own: it ends with this process, however that ends."""

    def __init__(self, options: HeadOptions) -> None:
        """Start the process; what takes long here can be imported before `wait`.

        Raises:
            OSError: no process can be made.
        """
        name = f"local-{os.getpid()}-{secrets.token_hex(3)}"
        options = options._replace(name=name, local=True, port=0, data_directory=None)
        ready_read, ready_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        # -P: what lies in the program's directory shadows nothing that the head imports.
        command = [sys.executable, "-P", "-m", "zray.nodes.head.local_main", encode_head(options)]
        self._process = subprocess.Popen(
            [*command, str(ready_write), str(lifeline_read)],
            pass_fds=(ready_write, lifeline_read),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _import_path()},
            start_new_session=True,  # the terminal's Ctrl-C is for the driver
        )
        os.close(ready_write)
        os.close(lifeline_read)
        self._ready = ready_read

    def wait(self) -> ConnectionInfo:
        """Wait until the head serves; once only.

        Raises:
            StartError: it did not come up; the message says what it said.
        """
        try:
            return _connection(interrupts.allow(_read_line, self._ready, 30.0))
        finally:
            os.close(self._ready)

    def close(self) -> None:
        """End the head and all below it."""
        if self._lifeline < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, b".")  # a forked child may hold the other copy of this end
        self.abandon()
        try:
            self._process.wait(limits.STOP_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def abandon(self) -> None:
        """Let go of the lifeline, in a forked child too: the cluster is to end with its parent."""
        os.close(self._lifeline)
        self._lifeline = -1

    def has_ended(self) -> bool:
        """Whether the head's process is there no more."""
        return self._process.poll() is not None


def _connection(line: bytes) -> ConnectionInfo:
    """What a local head said of itself."""
    answer: dict[str, Any] = json.loads(line) if line else {}
    if "connection" not in answer:
        reason = answer.get("error", "it ended without a word; see its output above")
        raise StartError(f"the local cluster did not start: {reason}")
    from zray.runtime.connection import ConnectionInfo

    return ConnectionInfo.load(answer["connection"])


def _read_line(fd: int, timeout_s: float) -> bytes:
    """One line from a pipe, or what came until its end or the timeout."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            break
        data = os.read(fd, 65536)
        if not data:
            break
        line += data
    return line


def _import_path() -> str:
    """PYTHONPATH for a child that shall find the same zray."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
