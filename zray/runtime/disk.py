"""A thread that reads and writes files for a loop, one job at a time, in order.

Owns the thread and the hand-over, and the folder for files that end with their process; decides
nothing about what is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from zray import limits

_LOCK = ".lock"

Done = Callable[[], None]
Job = Callable[[], Done]


class Disk:
    """``do(job)`` runs ``job()`` in the thread; what it returns is called by ``finish``."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        """Readable when ``finish`` has something to do."""
        return self._read

    def do(self, job: Job) -> None:
        """Have something done in the thread for files, after what was asked before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zray-disk", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._done.put(job())
            del job  # with the memory that it had in view, which may be needed before the next
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._write, b".")
        except BlockingIOError:
            pass  # it is readable anyway
        except OSError:  # nobody looks without it
            with contextlib.suppress(OSError):
                os.write(self._write, b".")

    def finish(self) -> None:
        """Call, in this thread, what the jobs that have ended left to be done."""
        with contextlib.suppress(OSError):  # it stays readable, if there is something
            os.read(self._read, 4096)
        while not self._done.empty():
            self._done.get()()

    def close(self) -> None:
        """Wait for the jobs to end, and drop what they left."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        os.close(self._read)
        os.close(self._write)


class OwnDirectory:
    """A folder for files that end with this process, however it ends; made with the first file.

    A lock says that its process lives: that holds between containers and machines which share the
    folder above it. What is left of processes that have ended is removed.

    Args:
        parent: None: below the folder for temporary files, in one of this user's own.
    """

    def __init__(self, parent: Path | None, what: str) -> None:
        self._base = parent or _temporary(f"zray-{what}-{os.geteuid()}")
        self._removes_base = parent is None
        self._path: Path | None = None
        self._lock = -1
        with contextlib.suppress(OSError):
            for entry in self._base.iterdir():
                if entry.suffix == _LOCK:
                    _remove_abandoned(entry)

    def write(self, name: str, data: memoryview) -> Path:
        """Write all of ``data`` to a new file; where that is.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        path = self.here() / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < len(data):
                done += os.write(fd, data[done : done + limits.FILE_BYTES_MAX])
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def here(self) -> Path:
        """The folder itself, which is made if it is not there.

        Raises:
            OSError: it cannot be made.
        """
        return self._path or self._make()

    def _make(self) -> Path:
        self._base.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = self._base / f"{os.getpid()}-{secrets.token_hex(8)}"
            lock = os.open(path.with_suffix(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.mkdir(mode=0o700)
            except BlockingIOError:  # somebody looked whether it is abandoned
                os.close(lock)
                continue
            except OSError:
                os.close(lock)
                raise
            self._path, self._lock = path, lock
            return path

    def remove(self) -> None:
        """Remove it, with all that is in it."""
        if self._path is None:
            return
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._path.with_suffix(_LOCK).unlink()
            if self._removes_base:
                self._base.rmdir()  # unless it has other processes' folders
        os.close(self._lock)
        self._path = None


def _remove_abandoned(lock: Path) -> None:
    """Remove the folder of a lock that nobody holds."""
    fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink()
    except OSError:
        pass  # its process lives, or another does the same
    finally:
        os.close(fd)


def _temporary(name: str) -> Path:
    """A folder for temporary files of this user; not made yet."""
    base = Path(tempfile.gettempdir()) / name
    try:
        found = base.lstat()
    except OSError:
        return base  # it is not there
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
        return base
    return base.with_name(f"{name}-{secrets.token_hex(8)}")  # somebody else took the name
