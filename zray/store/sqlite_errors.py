"""What the SQLite store says when it cannot go on: cause, effect, next step. Raises nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zray.errors import StoreError, StoreRefusedError

if TYPE_CHECKING:
    import sqlite3


def damaged(path: Path, detail: str) -> StoreRefusedError:
    """The file is not what was written."""
    return StoreRefusedError(
        f"the control store {path} is damaged: {detail}. The head does not start, because it "
        "would forget its nodes, actors and jobs. Restore a backup: `zray gcs restore FILE "
        f"--data-directory {path.parent} --force` keeps what is there under another name; or, to "
        f"begin an empty cluster, move {path.name}, {path.name}-wal and {path.name}-shm out of the "
        "directory."
    )


def newer_schema(path: Path, found: int, known: int) -> StoreRefusedError:
    """A later zray has written the file."""
    return StoreRefusedError(
        f"the control store {path} was written by a newer zray (schema {found}; this one knows "
        f"{known}). Nothing was changed, and the head does not start. Use that newer zray, or "
        "another data directory."
    )


def overtaken(path: Path) -> StoreRefusedError:
    """Another head has opened the store since."""
    return StoreRefusedError(
        f"another head has opened the control store {path} after this one (is its lock file "
        "gone?). This head acknowledges nothing more. Stop it, and keep the newer one."
    )


def displaced(path: Path, reason: str) -> StoreRefusedError:
    """The file was moved, removed or replaced under the running head."""
    return StoreRefusedError(
        f"the control store {path} was moved, removed or replaced under the running head "
        f"({reason}). The head acknowledges nothing more, because no restart would find it. Put "
        "the data directory back and restart the head."
    )


def cannot_open(path: Path, error: sqlite3.Error) -> StoreError:
    """Why opening failed; an error that SQLite gives for no other reason means damage."""
    import sqlite3

    code = _primary_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"the control store {path} is locked by another program ({error}): a backup or a "
            f"sqlite3 shell. The head does not start. `fuser {path}` names it."
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreError(
            f"the control store {path} cannot be opened: its disk is full. The head does not "
            "start. Free some space."
        )
    if code in (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
    ):
        return StoreError(
            f"the control store {path} cannot be opened: {_described(error)}. The head does not "
            "start. Check that its user may read and write the file and its directory, and the "
            "disk (`dmesg`)."
        )
    return damaged(path, str(error))


def stalled(path: Path, error: sqlite3.Error) -> StoreError | None:
    """Why a write cannot succeed just now; None where a retry is no remedy."""
    import sqlite3

    code = _primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreError(
            f"the disk of the control store {path} is full. Changes to nodes, actors and jobs "
            "wait; the rest goes on. Free some space: the head recovers by itself."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"another program holds a lock on the control store {path}: a backup or a sqlite3 "
            f"shell. Changes to nodes, actors and jobs wait for it. `fuser {path}` names it."
        )
    return None


def slow(path: Path, limit_s: float) -> StoreError:
    """A change takes long, and may still come."""
    return StoreError(
        f"the disk of the control store {path} takes longer than {limit_s:g} s for a change. "
        "Changes to nodes, actors and jobs wait; the rest goes on. Look at the disk (`iostat -x`, "
        "`dmesg`) and at who else writes to it."
    )


def cannot_write(path: Path, error: sqlite3.Error) -> StoreError:
    """The system does not take what is to be written."""
    return StoreError(
        f"the control store {path} cannot be written: {_described(error)}. The head acknowledges "
        "nothing more; all that it acknowledged is stored. Check the disk (`dmesg`), its quota "
        "and `ulimit -f`, then restart the head."
    )


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 1)) & 0xFF


def _described(error: sqlite3.Error) -> str:
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
