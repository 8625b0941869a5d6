"""The file ``gcs.sqlite``: its format, its checks, its transactions. Never starts a thread.

SQLite says whether a page's structure is right; the crc of each row, and of the meta row, says
whether its content is. Local disks only: SQLite's write-ahead log does not work over NFS.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zray.errors import StoreError
from zray.store import sqlite_format
from zray.store.base import Opened, Rows
from zray.store.sqlite_errors import (
    cannot_open,
    cannot_write,
    damaged,
    displaced,
    overtaken,
    stalled,
)
from zray.store.sqlite_format import (
    DEFINITIONS,
    INSERT,
    SCHEMA,
    STATEMENT_ROWS,
    meta_crc,
    row_crc,
)
from zray.store.sync import sync

if TYPE_CHECKING:
    import sqlite3

_BUSY_S: Final = 1.0  # wait for a foreign program (backup, sqlite3 shell) before it is a stall
_LOG_BYTES_KEPT: Final = 4 << 20  # the log is cut to this after a checkpoint
_PAGE_BYTES: Final = 4096
_SHRINK_PAGES: Final = 2048  # fewer free ones stay for the next rows
_IDENTITY_CHECK_S: Final = 1.0


class SqliteFile:
    """One open ``gcs.sqlite``. For one thread at a time; the caller holds the directory's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._connection: sqlite3.Connection | None = None
        self._identity: list[tuple[int, int]] = []
        self._identity_checked = float("-inf")
        self._epoch = 0
        self._cluster_id: bytes | None = None
        self._log_bytes = 0  # written since the last checkpoint, estimated

    def open(self, skip: int = 0) -> Opened:
        """Make the file if there is none, else check and load all of it; commit the next epoch.

        Raises:
            StoreError: damaged, of a newer schema, unreadable, locked or unwritable.
        """
        try:
            import sqlite3
        except ImportError as error:
            raise StoreError(
                f"this Python has no sqlite3 ({error}), which the head keeps its state with. "
                "Use a Python that was built with SQLite."
            ) from error
        try:
            if self._exists():
                rows = self._load()
            else:
                self._create()
                rows = {}
            return self._begin_epoch(rows, skip)
        except sqlite3.Error as error:
            self.close()
            raise cannot_open(self._path, error) from error
        except UnicodeDecodeError as error:  # SQLite quotes a damaged definition in its message
            raise damaged(self._path, "its table definitions cannot be read") from error
        except OSError as error:
            self.close()
            raise StoreError(
                f"the control store {self._path} cannot be opened: {error}. The head does not "
                "start. Check the directory's permissions and free space."
            ) from error
        except StoreError:
            self.close()
            raise

    def write(self, changes: Mapping[tuple[str, bytes], bytes | None]) -> StoreError | None:
        """Make ``changes`` durable in one transaction; keys are (table, key), None deletes.

        Returns:
            None when they are durable; else why they are not yet, though a retry may succeed.

        Raises:
            StoreError: the store is fenced; the changes may be durable or not.
        """
        import sqlite3

        connection = self._live_connection()
        rows = [
            (table, key, value, row_crc(table, key, value))
            for (table, key), value in changes.items()
        ]
        try:
            self._check_identity()
            if len(rows) <= STATEMENT_ROWS[-1]:
                self._insert(connection, rows)
            else:
                self._insert_many(connection, rows)
        except sqlite3.Error as error:
            return self._stalled(error)
        self._log_bytes += sum(
            _PAGE_BYTES + len(key) + len(value or b"") for _, key, value, _ in rows
        )
        return None

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """Store the cluster's id.

        Raises:
            StoreError: another one is stored, or it cannot be written.
        """
        import sqlite3

        if self._cluster_id == cluster_id:
            return
        if self._cluster_id is not None:
            raise StoreError(
                f"the control store {self._path} belongs to cluster {self._cluster_id.hex()}, "
                f"not to {cluster_id.hex()}. Give the head another data directory."
            )
        try:
            cursor = self._live_connection().execute(
                "UPDATE meta SET cluster_id = ?, crc = ? WHERE epoch = ?",
                (cluster_id, meta_crc(self._epoch, cluster_id), self._epoch),
            )
        except sqlite3.Error as error:
            raise self._stalled(error) from error
        if cursor.rowcount != 1:
            raise overtaken(self._path)
        self._cluster_id = cluster_id
        self._log_bytes += _PAGE_BYTES

    def log_bytes(self) -> int:
        """Estimate of what was written to the log since the last checkpoint."""
        return self._log_bytes

    def checkpoint(self) -> None:
        """Move the log into the file. SQLite's own checkpoints would hide I/O errors.

        Raises:
            StoreError: fenced, as in ``write``.
        """
        import sqlite3

        self._log_bytes = 0
        try:
            left = self._shrink()
            self._live_connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._stalled(error)  # the log is still whole, so try again later
            return
        if left:
            self._log_bytes = _PAGE_BYTES  # there is more to do at the next checkpoint

    def _shrink(self) -> bool:
        """Give pages that deleted rows have left back to the disk, some at a time; more are left?

        A file that was made without auto_vacuum keeps them, for rows to come.
        """
        connection = self._live_connection()
        (before,) = connection.execute("PRAGMA freelist_count").fetchone()
        if before < _SHRINK_PAGES:
            return False
        # It frees a page with each step, and ``execute`` takes one step only.
        connection.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES});")
        (after,) = connection.execute("PRAGMA freelist_count").fetchone()
        return bool(after < before and after >= _SHRINK_PAGES)

    def close(self) -> None:
        """Close the file; without another user of it the log moves into it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            self._identity_checked = float("-inf")
            self._check_identity()
        except StoreError:
            # Closing would delete "<path>-wal", which belongs to whoever took the place by now.
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            return
        import sqlite3

        with contextlib.suppress(sqlite3.Error):
            connection.close()

    # ---- opening ---------------------------------------------------------------------------

    def _exists(self) -> bool:
        log = Path(f"{self._path}-wal")
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            if log.exists() and log.stat().st_size:
                raise damaged(
                    self._path, f"it is missing, though its log {log.name} is there"
                ) from None
            return False
        if size == 0:
            raise damaged(self._path, "it is empty (0 bytes)")
        return True

    def _create(self) -> None:
        """Make the file under another name first, so that an empty one always means damage."""
        draft = self._path.with_name(self._path.name + ".new")
        for leftover in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            leftover.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600))
        with contextlib.closing(sqlite_format.connect(draft, "rw", _BUSY_S)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("BEGIN")
            for definition in DEFINITIONS:
                connection.execute(definition)
            connection.execute(
                "INSERT INTO meta VALUES (1, ?, 0, NULL, ?)", (SCHEMA, meta_crc(0, None))
            )
            connection.execute("COMMIT")
        sync(draft)
        draft.rename(self._path)
        sync(self._path.parent)

    def _load(self) -> Rows:
        """Check everything and read it, through a connection that cannot write."""
        with contextlib.closing(sqlite_format.connect(self._path, "ro", _BUSY_S)) as connection:
            meta = sqlite_format.checked(connection, self._path)
            self._epoch, self._cluster_id = meta.epoch, meta.cluster_id
            rows: Rows = {}
            for table, key, value in sqlite_format.rows(connection, self._path):
                rows.setdefault(table, {})[key] = value
            return rows

    def _begin_epoch(self, rows: Rows, skip: int) -> Opened:
        connection = sqlite_format.connect(self._path, "rw", _BUSY_S)
        self._connection = connection
        for pragma in (
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {_LOG_BYTES_KEPT}",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        epoch = self._epoch + 1 + skip
        cursor = connection.execute(
            "UPDATE meta SET epoch = ?, crc = ? WHERE epoch = ?",
            (epoch, meta_crc(epoch, self._cluster_id), self._epoch),
        )
        if cursor.rowcount != 1:
            raise overtaken(self._path)
        self._epoch = epoch
        self._log_bytes = _PAGE_BYTES
        self._identity = self._identify()
        return Opened(epoch, rows, self._cluster_id)

    # ---- writing ---------------------------------------------------------------------------

    def _insert(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        room = next(count for count in STATEMENT_ROWS if count >= len(rows))
        values = [field for row in rows for field in row]
        values += [None] * (4 * (room - len(rows)))
        cursor = connection.execute(INSERT[room], [*values, self._epoch])
        if cursor.rowcount != len(rows):
            raise overtaken(self._path)

    def _insert_many(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
        size = STATEMENT_ROWS[-1]
        try:
            connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(rows), size):
                self._insert(connection, rows[start : start + size])
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.rollback()

    def _live_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"the control store {self._path} is not open")
        return self._connection

    def _check_identity(self) -> None:
        """A deleted file takes commits as gladly as ever, and no restart will find them."""
        now = time.monotonic()
        if not self._identity or now - self._identity_checked < _IDENTITY_CHECK_S:
            return
        self._identity_checked = now
        try:
            found = self._identify()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise displaced(self._path, str(error)) from error
        except OSError:
            return  # it cannot be told now, which is no proof
        if found != self._identity:
            raise displaced(self._path, "another file is in its place")

    def _identify(self) -> list[tuple[int, int]]:
        """Device and inode of the file and of its log."""
        paths = (self._path, Path(f"{self._path}-wal"))
        return [(status.st_dev, status.st_ino) for status in map(os.stat, paths)]

    def _stalled(self, error: sqlite3.Error) -> StoreError:
        """Why to try again later; raises where the store is fenced instead."""
        stall = stalled(self._path, error)
        if stall is None:
            raise cannot_write(self._path, error) from error
        return stall
