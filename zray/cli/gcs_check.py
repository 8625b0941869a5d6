"""``zray gcs check``: read all of a control store or a backup, and say what is there and wrong.

Changes nothing, and may run beside a head.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from zray.core.causes import plain
from zray.core.head import actor_records, job_table, placement_table, stored_version
from zray.core.head.unknown_fields import KINDS
from zray.errors import StoreRefusedError, ZrayError
from zray.store import moved
from zray.store.reader import Identity, Reader

FAULTS_SHOWN: Final = 20


class Check:
    """What all rows together say. ``faults``: no head can use it so; ``notes``: one can."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._marks: dict[bytes, bytes] = {}
        self._functions: set[bytes] = set()
        self._jobs: set[bytes] = set()
        self._needs: list[tuple[str, bytes, bytes]] = []  # an actor's: which, function, job

    def add(self, table: str, key: bytes, value: bytes) -> None:
        """One row."""
        self.counts[table] = self.counts.get(table, 0) + 1
        self.sizes[table] = self.sizes.get(table, 0) + len(key) + len(value)
        kind = KINDS.get(table)
        if table == moved.TABLE:
            self._marks[key] = value
        elif table == stored_version.TABLE:
            self._version(key, value)
        elif kind is not None:
            try:
                row: Any = msgspec.msgpack.decode(value, type=kind)
            except msgspec.MsgspecError as error:
                self.faults.append(f"{table}: the record {key.hex()} cannot be read: {error}")
                return
            if wrong := self._row(table, key, row):
                self.faults.append(f"{table}: the record {key.hex()} {wrong}")

    def _version(self, key: bytes, value: bytes) -> None:
        try:
            objection = stored_version.objection({stored_version.TABLE: {key: value}})
        except msgspec.MsgspecError as error:
            objection = f"which zray has written it cannot be read: {error}"
        if objection:
            self.faults.append(objection)

    def _row(self, table: str, key: bytes, row: Any) -> str:
        """What is wrong with it."""
        named = _KEYS[table](row) if table in _KEYS else key
        if named != key:
            return f"is that of {named.hex()}"
        if table == "functions":
            self._functions.add(key)
        elif table == "jobs":
            self._jobs.add(key)
        elif table == actor_records.TABLE:
            function = b"" if row.info.by_name else row.template.function_id
            job = b"" if row.job is not None else row.job_id
            self._needs.append((f"{row.info.class_name} ({key.hex()})", function, job))
        return ""

    def end(self) -> None:
        """After the last row: what needs what."""
        marks = {moved.TABLE: self._marks}
        if where := moved.moved_to(marks):
            self.notes.append(f"it was moved to {where}: no head starts with it")
        if where := moved.incomplete_from(marks):
            self.faults.append(f"it has only a part of what is to come from {where}")
        for actor, function, job in self._needs:
            if function and function not in self._functions:
                self.notes.append(f"actor {actor}: its class {function.hex()} is not stored")
            if job and job not in self._jobs:
                self.notes.append(f"actor {actor}: its job {job.hex()} is over, and so is it soon")


_KEYS: Final[dict[str, Callable[[Any], bytes]]] = {
    actor_records.TABLE: lambda row: row.spec.task_id,
    placement_table.TABLE: lambda row: row.request.group_id,
    job_table.TABLE: lambda row: row.job.submission_id.encode(),
}


def show(reader: Reader, *, as_json: bool) -> int:
    """Check it; returns the exit code."""
    check = Check()
    identity = Identity(None, 0)
    error: Exception | None = None
    with contextlib.closing(reader):
        try:
            identity = reader.identity()
            for row in reader.rows():
                check.add(*row)
            check.end()
        except (ZrayError, OSError) as found:
            error = found
            check.faults.append(str(found))
    if as_json:
        print(json.dumps(_view(reader, identity, check), indent=2))
    else:
        _print(reader, identity, check, error)
    return 1 if check.faults else 0


def _view(reader: Reader, identity: Identity, check: Check) -> dict[str, Any]:
    return {
        "where": reader.where,
        "cluster_id": identity.cluster_id.hex() if identity.cluster_id else None,
        "epoch": identity.epoch,
        "version": identity.version,
        "created": identity.created,
        "source": identity.source,
        "tables": {
            table: {"records": count, "bytes": check.sizes[table]}
            for table, count in sorted(check.counts.items())
        },
        "faults": check.faults,
        "notes": check.notes,
    }


def _print(reader: Reader, identity: Identity, check: Check, error: Exception | None) -> None:
    if identity.epoch:
        cluster = identity.cluster_id.hex() if identity.cluster_id else "not begun"
        print(f"{reader.where}: cluster {cluster}, epoch {identity.epoch:,}")
    if identity.created:
        when = datetime.fromtimestamp(identity.created).astimezone()
        print(
            f"  a backup of {plain(identity.source)}, made {when:%Y-%m-%d %H:%M:%S %z} by zray "
            f"{plain(identity.version)}"
        )
    if not error:
        for table, count in sorted(check.counts.items()):
            print(f"  {plain(table):18} {count:>10,} records {check.sizes[table]:>14,} bytes")
        if not check.counts:
            print("  no records")
    for title, found in (("note", check.notes), ("FAULT", check.faults)):
        for text in found[:FAULTS_SHOWN]:
            print(f"  {title}: {plain(text)}", file=sys.stderr if title == "FAULT" else sys.stdout)
        if len(found) > FAULTS_SHOWN:
            print(f"  and {len(found) - FAULTS_SHOWN:,} more of these")
    if not check.faults:
        print("Whole: every record was read.")
    elif not isinstance(error, StoreRefusedError):
        print("zray: no head can use it as it is", file=sys.stderr)
