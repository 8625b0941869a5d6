"""What ``gcs.sqlite`` is like, and whether one is: tables, statements, checksums. Never writes.

SQLite says whether a page's structure is right; the crc of each row, and of the meta row, says
whether its content is.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from zray.store.sqlite_errors import damaged, newer_schema
from zray.store.sqlite_log import log_damage

if TYPE_CHECKING:
    import sqlite3

SCHEMA: Final = 1  # a reader of schema n refuses n+1; `SELECT schema FROM meta` works in all
STATEMENT_ROWS: Final = (1, 16, 240)  # 4 x 240 + 1 variables: SQLite before 3.32 allows 999

# The trigger lets one INSERT carry deletions too. A transaction must be one statement: each call
# into sqlite3 gives up the GIL, and gets it back only after up to 5 ms of a busy head's loop.
DEFINITIONS: Final = (
    "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), schema INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, cluster_id BLOB, crc INTEGER NOT NULL)",
    "CREATE TABLE rows (kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB,"
    " crc INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    "CREATE TRIGGER deletion AFTER INSERT ON rows WHEN NEW.value IS NULL BEGIN"
    " DELETE FROM rows WHERE kind = NEW.kind AND key = NEW.key; END",
)
INSERT: Final = {
    count: "INSERT OR REPLACE INTO rows SELECT * FROM (VALUES "
    + ", ".join(["(?, ?, ?, ?)"] * count)
    + ") WHERE column1 IS NOT NULL AND (SELECT epoch FROM meta) = ?"
    for count in STATEMENT_ROWS
}


class Meta(NamedTuple):
    """The cluster; ``epoch``: of the last head that has opened the file."""

    epoch: int
    cluster_id: bytes | None


def connect(path: Path, mode: str, busy_s: float) -> sqlite3.Connection:
    """``mode``: ro or rw; ``busy_s``: how long to wait for a foreign program."""
    import sqlite3

    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
    )


def checked(connection: sqlite3.Connection, path: Path, *, written: bool = False) -> Meta:
    """Look at all but the content of rows.

    Args:
        written: a head writes to it now, and so to its log.

    Raises:
        StoreRefusedError: damaged, or of a newer schema. sqlite3.Error: SQLite says what is wrong.
    """
    found = connection.execute("SELECT schema FROM meta").fetchall()
    if len(found) == 1 and type(found[0][0]) is int and found[0][0] > SCHEMA:
        raise newer_schema(path, found[0][0], SCHEMA)
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        raise damaged(path, "its header does not say that it has a write-ahead log")
    log = None if written else log_damage(path)
    if log is not None:
        raise damaged(path, log)
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != ("ok",):
        raise damaged(path, str(verdict[0]) if verdict else "it cannot be checked")
    definitions = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")
    if {sql for (sql,) in definitions} != set(DEFINITIONS):
        raise damaged(path, "its table definitions are not zray's")
    return _meta(connection, path)


def _meta(connection: sqlite3.Connection, path: Path) -> Meta:
    found = connection.execute("SELECT id, schema, epoch, cluster_id, crc FROM meta").fetchall()
    if len(found) != 1:
        raise damaged(path, f"table meta has {len(found)} rows instead of 1")
    number, schema, epoch, cluster_id, crc = found[0]
    if (
        (number, schema) != (1, SCHEMA)
        or type(epoch) is not int
        or type(cluster_id) not in (bytes, type(None))
        or crc != meta_crc(epoch, cluster_id)
    ):
        raise damaged(path, "the row of table meta does not match its checksum")
    return Meta(epoch, cluster_id)


def rows(connection: sqlite3.Connection, path: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """All rows: table, key, value.

    Raises:
        StoreRefusedError: one does not match its checksum.
    """
    for kind, key, value, crc in connection.execute("SELECT * FROM rows"):
        if (type(kind), type(key), type(value)) != (str, bytes, bytes) or crc != row_crc(
            kind, key, value
        ):
            raise damaged(path, f"a row of {kind!r} (key {key!r}) does not match its checksum")
        yield kind, key, value


def row_crc(table: str, key: bytes, value: bytes | None) -> int:
    """Of a row."""
    head = table.encode()
    crc = zlib.crc32(b"%d %d " % (len(head), len(key)) + head)
    return zlib.crc32(value or b"", zlib.crc32(key, crc))


def meta_crc(epoch: int, cluster_id: bytes | None) -> int:
    """Of the row of table meta."""
    return zlib.crc32(b"%d %d " % (SCHEMA, epoch) + (b"-" if cluster_id is None else cluster_id))
