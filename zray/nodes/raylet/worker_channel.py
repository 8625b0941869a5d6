"""The raylet's side of one worker process: its sockets, what it prints, and its log file.

Owns those descriptors; what is said over them is the Raylet machine's business.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from pathlib import Path

from zray import limits
from zray.runtime.linux.prints import Marks, Piece
from zray.runtime.linux.processes import WorkerChannels
from zray.runtime.log_files import LogBounds, WorkerLog
from zray.runtime.stream import FrameReader, FrameWriter


class Printer:
    """One stream of a worker: cut into lines, kept in a log file, told to the driver."""

    def __init__(self, fd: int, is_error: bool) -> None:
        self.fd = fd
        self.is_error = is_error
        self._rest = b""
        self._marks = Marks()

    def read(self) -> tuple[list[Piece], list[str], bool]:
        """What came: by task, in whole lines, and whether it has ended."""
        parts: list[bytes] = []
        ended = False
        try:
            while len(parts) < 16:
                data = os.read(self.fd, 65536)
                if not data:
                    ended = True
                    break
                parts.append(data)
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        pieces = self._marks.split(b"".join(parts), ended=ended)
        raw = b"".join(data for _, data in pieces)
        *lines, self._rest = (self._rest + raw).split(b"\n")
        if self._rest and (ended or len(self._rest) > limits.LOG_LINE_BYTES_MAX):
            lines.append(self._rest)
            self._rest = b""
        cut = limits.LOG_LINE_BYTES_MAX
        return pieces, [line[:cut].decode("utf-8", "replace") for line in lines], ended


class WorkerChannel:
    """The raylet's side of one worker process."""

    def __init__(self, channels: WorkerChannels) -> None:
        self.channels = channels
        self.reader = FrameReader()
        self.task = FrameWriter(channels.task)
        self.control = FrameWriter(channels.control)
        self.printers = [Printer(channels.stdout_fd, False), Printer(channels.stderr_fd, True)]
        self.last_words: deque[str] = deque(maxlen=limits.STDERR_TAIL_LINES)
        self.broken = False  # something in it wrote to the socket: no word of it counts any more
        self._log: WorkerLog | None = None
        self._unlogged = 0  # bytes since the last that could be written

    def open_log(self, path: Path, bounds: LogBounds) -> None:
        """Keep what it prints in a file, too. Raises OSError if there cannot be one."""
        self._log = WorkerLog(path, bounds)

    def tend_log(self) -> None:
        """Now and then. Raises OSError: it cannot be rotated."""
        if self._log is not None:
            self._log.tend()

    def write_log(self, raw: bytes) -> None:
        """Keep what it printed, if it has a log.

        Raises:
            OSError: it could not be kept; the log says so when it can be written again.
        """
        if self._log is None or not raw:
            return
        try:
            if self._unlogged:
                note = f"\n({self._unlogged} bytes before this could not be written)\n".encode()
                self._log.write(note)
            self._unlogged = 0
            written = self._log.write(raw)
            if written < len(raw):  # the last that had room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._unlogged += len(raw)
            raise

    def log_end(self) -> tuple[int, int] | None:
        """Which file its log is now, and how long; None: it has none."""
        if self._log is None:
            return None
        about = os.fstat(self._log.fileno())
        return about.st_ino, about.st_size

    def close(self) -> None:
        """Give back its descriptors; a log without a word in it is no use to anybody."""
        self.channels.close()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
