"""``zray gcs backup`` and ``restore``: a control store into one file, and back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from zray import limits
from zray.cli.gcs_places import (
    KEY_NAME,
    DataDirectory,
    EtcdPlace,
    Place,
    batches,
    commit,
    given_up,
)
from zray.errors import StoreError, ZrayError
from zray.store import backup, moved
from zray.store.backup import BackupReader
from zray.store.lock import DirectoryLock
from zray.store.reader import Identity, Reader, Stored
from zray.store.sqlite_file import SqliteFile
from zray.store.sqlite_format import connect
from zray.store.sqlite_log import log_damage
from zray.store.sqlite_reader import SqliteReader
from zray.store.sync import sync

EPOCHS_PER_S = 4096  # a second restore of one backup has later epochs than the first
LOG_BYTES = 64 << 20  # of what is written before it goes into the file


def save(place: Place, path: Path, *, replace: bool) -> int:
    """Make a backup; returns the exit code."""
    try:
        identity, counts = _save(place.reader(), place.where, path, replace=replace)
    except (ZrayError, ValueError, OSError) as error:
        return _failed(error)
    size = path.stat().st_size
    print(
        f"Wrote {path}: {sum(counts.values()):,} records of {_cluster(identity)}, epoch "
        f"{identity.epoch:,}, {size:,} bytes.\nIt does not have the cluster's key: keep a copy of "
        f"{_key_path(place)} in a safe place, too."
    )
    return 0


def _save(
    reader: Reader, source: str, path: Path, *, replace: bool
) -> tuple[Identity, dict[str, int]]:
    with contextlib.closing(reader):
        identity = reader.identity()._replace(source=source)
        return identity, backup.write(path, identity, reader.rows(), replace=replace)


def restore(path: Path, place: Place, *, replace: bool) -> int:
    """Make the store what the backup has; returns the exit code."""
    try:
        print(_restore(path, place, replace=replace))
    except (ZrayError, ValueError, OSError) as error:
        return _failed(error)
    return 0


def _restore(path: Path, place: Place, *, replace: bool) -> str:
    counts, identity = _whole(path)
    todo = place.check_key(identity.cluster_id)
    if isinstance(place, DataDirectory):
        aside = _into_directory(path, identity, place, counts, replace=replace)
    else:
        aside = _into_etcd(path, identity, place, replace=replace)
    made = datetime.fromtimestamp(identity.created).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    lines = [
        f"Restored {sum(counts.values()):,} records of {_cluster(identity)} to {place.where}, as "
        f"they were at {made}."
    ]
    lines += [f"What was there is kept: {aside}"] if aside else []
    lines += [f"To be done: {todo}."] if todo else []
    lines += [
        f"Start the head with: {place.start_command()}",
        "Nodes and programs that still run accept it. What was stored after the backup is lost; "
        "jobs that began after it end.",
    ]
    return "\n".join(lines)


def _whole(path: Path) -> tuple[dict[str, int], Identity]:
    """Read all of the backup first, so that a damaged one changes nothing."""
    with contextlib.closing(BackupReader(path)) as reader:
        identity = reader.identity()
        if identity.cluster_id is None:
            raise StoreError(f"the backup {path} is of a cluster that was never begun")
        for _ in reader.rows():
            pass
        return reader.counts, identity


def _rows(reader: BackupReader) -> Iterator[Stored]:
    reader.identity()
    return (row for row in reader.rows() if row[0] != moved.TABLE)


def _later(identity: Identity, other: int = 0) -> int:
    """An epoch after all that heads have had since the backup."""
    passed_s = max(0.0, time.time() - identity.created)
    return max(identity.epoch, other) + limits.ADOPT_EPOCHS + int(passed_s) * EPOCHS_PER_S


# ---- into a data directory -----------------------------------------------------------------


def _into_directory(
    path: Path, identity: Identity, place: DataDirectory, counts: dict[str, int], *, replace: bool
) -> str:
    """Returns where what was there is kept."""
    lock = DirectoryLock(place.path)
    lock.acquire()
    try:
        there = place.file.exists() or Path(f"{place.file}-wal").exists()
        if there and not replace:
            raise StoreError(
                f"{place.file} is there already; with --force it is kept under another name"
            )
        draft = place.file.with_name(f"{place.file.name}.restoring")
        _unlink(draft)
        try:
            _write_draft(path, draft, _later(identity, _epoch_of(place)))
            _compare(draft, counts)
            aside = _set_aside(place) if there else ""
            draft.rename(place.file)
        except BaseException:
            _unlink(draft)
            raise
        sync(place.path)
    finally:
        lock.release()
    return aside


def _write_draft(path: Path, draft: Path, epoch: int) -> None:
    with (
        contextlib.closing(BackupReader(path)) as reader,
        contextlib.closing(SqliteFile(draft)) as file,
    ):
        rows = _rows(reader)
        identity = file.open(epoch - 1)
        assert identity.epoch == epoch
        file.set_cluster_id(_cluster_id(path))
        for batch in batches(rows):
            stall = file.write({(table, key): value for table, key, value in batch})
            if stall is not None:
                raise given_up(stall) from stall
            if file.log_bytes() > LOG_BYTES:
                file.checkpoint()
    if Path(f"{draft}-wal").exists():
        raise StoreError(f"{draft} cannot be written as a whole: is the disk full?")
    sync(draft)


def _cluster_id(path: Path) -> bytes:
    with contextlib.closing(BackupReader(path)) as reader:
        found = reader.identity().cluster_id
        assert found is not None
        return found


def _compare(draft: Path, counts: dict[str, int]) -> None:
    """What was written is what was to be written."""
    found: dict[str, int] = {}
    with contextlib.closing(SqliteReader(draft)) as reader:
        reader.identity()
        for table, _, _ in reader.rows():
            found[table] = found.get(table, 0) + 1
    if found != {table: count for table, count in counts.items() if table != moved.TABLE}:
        raise StoreError(f"{draft} has not got all of the backup: {found} of {counts}")


def _epoch_of(place: DataDirectory) -> int:
    """Of the store that is there, if it can be read."""
    with contextlib.suppress(ZrayError, OSError), contextlib.closing(place.reader()) as reader:
        return reader.identity().epoch
    return 0


def _set_aside(place: DataDirectory) -> str:
    """Give it another name, its log first: no other file may ever be read with that log.

    Where the store is whole its log is emptied before, so that ended here nothing is lost, either.
    """
    file = place.file
    if _epoch_of(place) and log_damage(file) is None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(connect(file, "rw", 1)) as whole,
        ):
            whole.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    aside = file.with_name(f"{file.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}x")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{file}{suffix}").rename(f"{aside}{suffix}")
    with contextlib.suppress(FileNotFoundError):
        os.link(file, aside)  # the file itself is replaced, so that there always is one
    sync(file.parent)
    return str(aside)


def _unlink(draft: Path) -> None:
    for one in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
        one.unlink(missing_ok=True)


# ---- into etcd -----------------------------------------------------------------------------


def _into_etcd(path: Path, identity: Identity, place: EtcdPlace, *, replace: bool) -> str:
    """Returns where what was there is kept."""
    aside = ""
    store = place.store()
    found = store.open()
    try:
        if found.cluster_id not in (None, identity.cluster_id):
            raise StoreError(
                f"{place.where} has the state of another cluster ({found.cluster_id.hex()}). "
                "Choose another --name"
            )
        if moved.own(found.rows) and not moved.incomplete_from(found.rows):
            if not replace:
                raise StoreError(
                    f"{place.where} has a state already; with --force it is kept as a backup here"
                )
            kept = Path(f"zray-gcs-{place.name}-{time.strftime('%Y%m%d-%H%M%S')}.backup").absolute()
            _save(place.reader(), place.where, kept, replace=False)
            aside = str(kept)
        epoch = _later(identity, found.epoch)
        store.close()
        store = place.store()
        store.open(epoch - found.epoch)
        commit(store, moved.mark_from(str(path)))
        assert identity.cluster_id is not None
        store.set_cluster_id(identity.cluster_id)
        keys: set[tuple[str, bytes]] = set()
        with contextlib.closing(BackupReader(path)) as reader:
            for batch in batches(_rows(reader)):
                keys.update((table, key) for table, key, _ in batch)
                commit(store, batch)
        gone = [
            (table, key)
            for table, of_table in moved.own(found.rows).items()
            for key in of_table
            if (table, key) not in keys
        ]
        for start in range(0, len(gone), 100):
            commit(store, [(*one, None) for one in gone[start : start + 100]])
        commit(store, moved.no_mark())
    finally:
        store.close()
    return aside


# ---- words ---------------------------------------------------------------------------------


def _cluster(identity: Identity) -> str:
    return f"cluster {identity.cluster_id.hex() if identity.cluster_id else 'not begun'}"


def _key_path(place: Place) -> str:
    if isinstance(place, DataDirectory):
        return str(place.path / KEY_NAME)
    return f"{KEY_NAME} in a head's data directory"


def _failed(error: Exception) -> int:
    print(f"zray: {error}", file=sys.stderr)
    return 1
