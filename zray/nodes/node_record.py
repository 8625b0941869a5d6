"""Which nodes run on this machine: a locked file for each, below ZRAY_HOME.

For ``zray stop``: a head that was killed cannot tell of its nodes. Whoever holds the lock on a file
that it has open, under the pid that the file names, is the node. The node that a head starts also
locks a file in that head's data directory, for the next head.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from zray import limits
from zray.runtime import connection
from zray.runtime.keys import secret_directory

if TYPE_CHECKING:
    import psutil

_DATA_LOCK = "node.lock"
_BYTES_MAX = 4 * limits.NODE_OPTIONS_BYTES_MAX  # of a record


class NodeRecord:
    """This process is a node of the cluster, until ``close``."""

    def __init__(self, cluster_id: str) -> None:
        """
        Raises:
            OSError, KeyFileError: the file, or its directory, cannot be written.
        """
        directory = secret_directory(connection.home() / "running")
        self._path = directory / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        new = self._path.with_suffix(".new")  # without its lock it would be taken for a dead one's
        self._fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.write(self._fd, json.dumps({"pid": os.getpid(), "cluster_id": cluster_id}).encode())
            new.rename(self._path)
        except OSError:
            os.close(self._fd)
            new.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """It is no longer."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        os.close(self._fd)


class DataLock:
    """This process is the node of the head that has this data directory, until ``close``."""

    def __init__(self, data: Path, signature: str) -> None:
        """``signature``: what the node was made of.

        Raises:
            BlockingIOError: another process is that node.
            OSError: the file cannot be written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._path = data / _DATA_LOCK
        self._fd = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = json.dumps({"pid": os.getpid(), "signature": signature}).encode()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, content, 0)
        except OSError:
            os.close(self._fd)
            raise

    def is_void(self) -> bool:
        """Whether the directory was removed or replaced: no head finds this node by it."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """It is no longer."""
        os.close(self._fd)

    @staticmethod
    def holder(data: Path) -> tuple[int, str] | None:
        """The pid and signature of the node of this data directory, if one runs."""
        path = data / _DATA_LOCK
        process = lock_holder(path)
        if process is None:
            return None
        try:
            return process.pid, str(json.loads(path.read_bytes())["signature"])
        except (OSError, ValueError, LookupError, TypeError):
            return None


def nodes_of(cluster_id: str) -> list[psutil.Process]:
    """The nodes of a cluster that run here; removes what nodes that were killed have left."""
    found = []
    for path in sorted((connection.home() / "running").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            process, cluster = _read(path)
            if process is None:
                path.unlink()
            elif cluster == cluster_id:
                found.append(process)
    return found


def _read(path: Path) -> tuple[psutil.Process | None, str]:
    """The process that holds the lock, and its cluster."""
    process = lock_holder(path)
    if process is None:
        return None, ""
    return process, str(json.loads(path.read_bytes())["cluster_id"])


def lock_holder(path: Path) -> psutil.Process | None:
    """Who has locked the file now, if it is the process whose pid the file names."""
    try:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                content = file.read(_BYTES_MAX)
            else:
                return None
    except OSError:
        return None
    import psutil  # large, and a daemon that runs does without

    try:
        process = psutil.Process(json.loads(content)["pid"])
        opened = {os.path.realpath(entry.path) for entry in process.open_files()}
    except (OSError, ValueError, LookupError, TypeError, psutil.Error):
        return None
    return process if os.path.realpath(path) in opened else None
