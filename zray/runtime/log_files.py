"""Log files that do not grow for ever: rotated by size and age, the old ones removed in time.

``x.log`` becomes ``x.log.1``, that ``x.log.2``, and so on. A file is renamed and never copied, so
nothing that was written is lost; whoever still has it open writes into the renamed one.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from zray import limits

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
OF_WORKER = re.compile(r"worker-([0-9a-f]{32})\.log(\.\d+)?")

declared: Path | None = None  # where this process's own output goes, if that file is zray's


class LogBounds(NamedTuple):
    """``bytes_max`` and ``age_s``: past these a file is rotated; 0: never. ``kept``: old ones."""

    bytes_max: int
    age_s: float
    kept: int

    @classmethod
    def from_environment(cls) -> LogBounds:
        """``ZRAY_ROTATION_MAX_BYTES``, ``ZRAY_ROTATION_MAX_AGE_S`` and
        ``ZRAY_ROTATION_BACKUP_COUNT``, with Ray's prefix, too.

        Raises:
            ValueError: one of them is no such number.
        """
        return cls(
            int(_number("MAX_BYTES", limits.LOG_FILE_BYTES)),
            _number("MAX_AGE_S", limits.LOG_FILE_AGE_S),
            int(_number("BACKUP_COUNT", limits.LOG_FILES_KEPT, limits.LOG_FILES_KEPT_MAX)),
        )

    def passed(self, size: int, began: float, now: float) -> bool:
        """Whether a file is to be rotated: of so many bytes, the first from ``began`` on."""
        if not size:
            return False
        return 0 < self.bytes_max <= size or 0 < self.age_s <= now - began


def _number(name: str, otherwise: float, most: float = 2**53) -> float:
    for prefix in ("ZRAY_ROTATION_", "RAY_ROTATION_"):
        if text := os.environ.get(prefix + name):
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if not 0 <= value <= most:
                raise ValueError(
                    f"{prefix}{name} must be a number from 0 to {most:g}, got {text!r}"
                )
            return value
    return otherwise


def rotate(path: Path, kept: int) -> None:
    """Make room for a new file at ``path``. Raises OSError."""
    if not path.exists():
        return  # it was made before, but no new one could be
    if not kept:
        path.unlink()
        return
    for number in range(kept - 1, 0, -1):
        if (older := path.with_name(f"{path.name}.{number}")).exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


class WorkerLog:
    """The file of what one worker prints. ``size``: what was written to it."""

    def __init__(self, path: Path, bounds: LogBounds) -> None:
        """Raises OSError if there cannot be one."""
        self._path = path
        self._bounds = bounds
        self._fd = -1
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, FLAGS, 0o600)
        self.size = os.fstat(self._fd).st_size
        self._began = time.monotonic()
        self._again_at = 0.0  # not sooner, after a rotation that failed

    def write(self, data: bytes) -> int:
        """How much of it was written. Raises OSError if nothing could be.

        Where it cannot be rotated, as on a full disk, it grows on; ``tend`` tells of that.
        """
        if 0 < self._bounds.bytes_max <= self.size and time.monotonic() >= self._again_at:
            with contextlib.suppress(OSError):
                self._rotate()
        written = os.write(self._fd, data)
        self.size += written
        return written

    def tend(self) -> None:
        """Now and then: rotate what is old. Raises OSError."""
        if self._bounds.passed(self.size, self._began, time.monotonic()):
            self._rotate()

    def _rotate(self) -> None:
        before, self._again_at = self._fd, time.monotonic() + limits.LOG_LOOK_S
        rotate(self._path, self._bounds.kept)
        self._open()
        os.close(before)

    def fileno(self) -> int:
        """Of the file that is written now."""
        return self._fd

    def close(self) -> None:
        """A log without a word in it is no use to anybody. Raises OSError."""
        os.close(self._fd)
        if not self.size:
            self._path.unlink(missing_ok=True)


def prune(directory: Path, alive: Collection[str]) -> None:
    """Remove logs of workers that ended long ago, and the oldest where there are too many.

    ``alive``: the ids of those that have not ended, in hexadecimal. Raises OSError.
    """
    found: list[tuple[float, int, str]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = OF_WORKER.fullmatch(entry.name)
            if match is not None and match[1] not in alive and entry.is_file(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                found.append((about.st_mtime, about.st_size, entry.path))
    left, size = len(found), sum(one[1] for one in found)
    oldest = time.time() - limits.ENDED_LOG_AGE_S
    for modified, part, path in sorted(found):
        if modified > oldest and left <= limits.ENDED_LOG_FILES and size <= limits.ENDED_LOGS_BYTES:
            return
        Path(path).unlink(missing_ok=True)
        left, size = left - 1, size - part


class OwnLog:
    """The file that a daemon's own stdout and stderr go to, where the daemon has opened it.

    Args:
        path: None: they go to what the user chose, which nobody rotates.
        rotates: this process does; else it goes along with the one that does.
        reopened: told the descriptor of the new file, for those who have inherited the old one.
    """

    def __init__(
        self,
        path: Path | None,
        bounds: LogBounds,
        *,
        rotates: bool,
        reopened: Callable[[int], object] = lambda fd: None,
    ) -> None:
        self._bounds = bounds
        self._reopened = reopened
        self.move_to(path, rotates=rotates)

    def move_to(self, path: Path | None, *, rotates: bool) -> None:
        """The output goes to another file from now on."""
        self._path = path
        self._rotates = rotates
        self._began = time.monotonic()
        self._look_at = 0.0 if path is not None else float("inf")

    def tend(self, now: float) -> None:
        """Once a turn: look now and then. Raises OSError: a file cannot be renamed or opened."""
        if now < self._look_at or self._path is None:
            return
        self._look_at = now + limits.LOG_LOOK_S
        here = os.fstat(2)
        if self._rotates and self._bounds.passed(here.st_size, self._began, time.monotonic()):
            if _is(self._path, here):
                rotate(self._path, self._bounds.kept)
            self._reopen(self._path)
        elif not _is(self._path, here) and (self._rotates or self._path.exists()):
            self._reopen(self._path)

    def _reopen(self, path: Path) -> None:
        fd = os.open(path, FLAGS, 0o600)
        try:
            self._began = time.monotonic()
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            self._reopened(fd)
        finally:
            os.close(fd)


def _is(path: Path, about: os.stat_result) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (about.st_dev, about.st_ino) and stat.S_ISREG(
        found.st_mode
    )
