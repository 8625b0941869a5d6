"""The raylet's side of one worker process: its sockets, what it prints, and its log file.

Owns those descriptors; what is said over them is the Raylet machine's business.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

from zray import limits
from zray.runtime.linux.processes import WorkerChannels
from zray.runtime.stream import FrameReader, FrameWriter


class Printer:
    """One stream of a worker: cut into lines, kept in a log file, told to the driver."""

    def __init__(self, fd: int, is_error: bool) -> None:
        self.fd = fd
        self.is_error = is_error
        self._rest = b""

    def read(self) -> tuple[bytes, list[str], bool]:
        """What came: raw, in whole lines, and whether it has ended."""
        parts: list[bytes] = []
        ended = False
        with contextlib.suppress(BlockingIOError):
            while len(parts) < 16:
                data = os.read(self.fd, 65536)
                if not data:
                    ended = True
                    break
                parts.append(data)
        raw = b"".join(parts)
        *lines, self._rest = (self._rest + raw).split(b"\n")
        if self._rest and (ended or len(self._rest) > limits.LOG_LINE_BYTES_MAX):
            lines.append(self._rest)
            self._rest = b""
        cut = limits.LOG_LINE_BYTES_MAX
        return raw, [line[:cut].decode("utf-8", "replace") for line in lines], ended


class Channel:
    """The raylet's side of one worker process."""

    def __init__(self, channels: WorkerChannels, log_path: Path | None) -> None:
        self.channels = channels
        self.reader = FrameReader()
        self.task = FrameWriter(channels.task)
        self.control = FrameWriter(channels.control)
        self.printers = [Printer(channels.stdout_fd, False), Printer(channels.stderr_fd, True)]
        self.last_words: deque[str] = deque(maxlen=limits.STDERR_TAIL_LINES)
        self.log = log_path.open("ab", buffering=0) if log_path is not None else None

    def close(self) -> None:
        """Give back its descriptors; a log without a word in it is no use to anybody."""
        self.channels.close()
        if self.log is not None:
            if not self.log.tell():
                os.unlink(self.log.name)
            self.log.close()
