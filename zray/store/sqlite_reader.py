"""Reads ``gcs.sqlite`` as of one moment, also while a head writes to it. Never writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from zray.errors import StoreError
from zray.store import sqlite_format
from zray.store.reader import Identity, Stored
from zray.store.sqlite_errors import cannot_open, damaged

FILE_NAME: Final = "gcs.sqlite"
_BUSY_S: Final = 5.0


class SqliteReader:
    """``gcs.sqlite``, as of the moment when ``identity`` is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.where = str(self._path)
        self._connection: Any = None

    def identity(self) -> Identity:
        """As ``Reader.identity``."""
        if not self._path.exists():
            if Path(f"{self._path}-wal").exists():
                raise damaged(self._path, f"it is missing, though {self._path.name}-wal is there")
            raise StoreError(f"there is no control store {self._path}")
        if not self._path.stat().st_size:
            raise damaged(self._path, "it is empty (0 bytes)")
        with self._explained():
            self._connection = sqlite_format.connect(self._path, "ro", _BUSY_S)
            self._connection.execute("BEGIN")  # from the first read on it sees nothing else
            found = sqlite_format.checked(self._connection, self._path, written=self._is_written())
        return Identity(found.cluster_id, found.epoch)

    def rows(self) -> Iterator[Stored]:
        """As ``Reader.rows``."""
        with self._explained():
            yield from sqlite_format.rows(self._connection, self._path)

    def close(self) -> None:
        """As ``Reader.close``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except sqlite3.Error as error:
            raise cannot_open(self._path, error) from error
        except UnicodeDecodeError as error:  # SQLite quotes a damaged definition in its message
            raise damaged(self._path, "its table definitions cannot be read") from error
        except OSError as error:
            raise StoreError(f"the control store {self._path} cannot be read: {error}") from error

    def _is_written(self) -> bool:
        return is_in_use(self._path.parent)


def is_in_use(directory: Path) -> bool:
    """Whether a head has the data directory now."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
