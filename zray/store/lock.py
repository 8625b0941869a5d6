"""The lock on a data directory. Owns the directory's mode and its ``lock`` file, never its data."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from zray.errors import DataDirectoryLockedError, StoreError

_LOCK_NAME = "lock"
_LOCK_FILE_BYTES_MAX = 4096


class DirectoryLock:
    """flock on ``<directory>/lock``, which says who holds it. The kernel drops it at death."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / _LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the directory if needed (mode 0700) and lock it, without waiting.

        Raises:
            DataDirectoryLockedError: another process holds the lock; names its pid.
            StoreError: the directory cannot be used, or other users can enter it.
        """
        try:
            self._prepare()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise StoreError(
                f"the data directory {self._directory} cannot be used: {error}. The head does not "
                "start. Give it a directory that its user may write."
            ) from error
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Unlock, also for children that inherited the descriptor. Idempotent."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def _prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._directory.stat()
        if status.st_uid != os.geteuid():
            raise StoreError(
                f"the data directory {self._directory} belongs to the user with id "
                f"{status.st_uid}, not to {os.geteuid()} who starts this head. "
                "Give the head a directory of its own."
            )
        mode = stat.S_IMODE(status.st_mode)
        if not mode & 0o077:
            return
        names = os.listdir(self._directory)
        # Nothing but an empty directory or one of ours is safe to close to other users unasked.
        if mode & stat.S_ISVTX or (names and "gcs.sqlite" not in names):
            raise StoreError(
                f"the data directory {self._directory} is open to other users (mode {mode:04o}) "
                "and holds other things. Give the head a directory of its own, or run "
                f"`chmod 700 {self._directory}`."
            )
        self._directory.chmod(0o700)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(
                    f"the data directory {self._directory} cannot be locked: {error}. "
                    "Give the head a directory on a local disk."
                ) from error
            raise self._refusal(descriptor) from None
        holder = {
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "host": os.uname().nodename,
        }
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error}. The head does not start. "
                "Free some space, or check the disk."
            ) from error

    def _refusal(self, descriptor: int) -> DataDirectoryLockedError:
        holder = _parsed(os.pread(descriptor, _LOCK_FILE_BYTES_MAX, 0))
        pid, host = holder.get("pid"), holder.get("host")
        text = f"the data directory {self._directory} is in use by another head"
        if type(pid) is not int or pid <= 0:
            remedy = f"`fuser {self._path}` names it. Stop it"
        elif host != os.uname().nodename:
            text += f": pid {pid} on host {host}, started {holder.get('started')}"
            remedy = "Stop it there"
        elif _alive(pid):
            text += f": pid {pid}, started {holder.get('started')}"
            remedy = f"Stop it with `kill {pid}`"
        else:
            text += f": pid {pid} has ended, but a process that it forked still holds the lock"
            remedy = f"`fuser {self._path}` names it. Stop it"
        return DataDirectoryLockedError(
            f"{text}. Two heads on one directory would overwrite each other, so this one does "
            f"not start. {remedy}, or give this head another data directory."
        )


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
