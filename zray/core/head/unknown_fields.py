"""Fields of stored rows that this version does not know, as a newer one has written them.

They stay when this version changes such a row: where each record of it, and each record within a
record, has more fields than are known, those of before are put behind the new ones.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from zray.core.head import actor_records, job_table, placement_table
from zray.core.head.catalog import FunctionRow
from zray.core.head.journal import Row
from zray.core.head.members import NodeRow
from zray.protocol.messages import JobInfo

KINDS: Final[dict[str, type[msgspec.Struct]]] = {
    "nodes": NodeRow,
    "jobs": JobInfo,
    "functions": FunctionRow,
    actor_records.TABLE: actor_records.ActorRow,
    job_table.TABLE: job_table.JobRow,
    placement_table.TABLE: placement_table.GroupRow,
}


class _Shape:
    """How many items a record has, and which of them are records themselves."""

    def __init__(self, kind: msgspec.inspect.StructType) -> None:
        tagged = kind.tag is not None
        self.known = len(kind.fields) + tagged
        self.inner: dict[int, _Shape] = {}
        for place, field in enumerate(kind.fields, tagged):
            choices = getattr(field.type, "types", (field.type,))
            for one in choices:
                if isinstance(one, msgspec.inspect.StructType):
                    self.inner[place] = _Shape(one)

    def has_more(self, record: object) -> bool:
        """Whether there is anything in it that is not known."""
        if not isinstance(record, list):
            return False
        if len(record) > self.known:
            return True
        within = [(record[at], shape) for at, shape in self.inner.items() if at < len(record)]
        return any(shape.has_more(one) for one, shape in within)

    def merged(self, record: Any, before: Any) -> Any:
        """The record, with what is not known of what it was before."""
        if not isinstance(record, list) or not isinstance(before, list):
            return record
        found = list(record)
        for at, shape in self.inner.items():
            if at < len(found) and at < len(before):
                found[at] = shape.merged(found[at], before[at])
        return found + before[self.known :]


class UnknownFields:
    """``rows``: of a store that a newer version has led with."""

    def __init__(self, rows: dict[str, dict[bytes, bytes]]) -> None:
        self._shapes: dict[str, _Shape] = {}
        self._before: dict[tuple[str, bytes], bytes] = {}
        for table, kind in KINDS.items():
            info = msgspec.inspect.type_info(kind)
            assert isinstance(info, msgspec.inspect.StructType)
            shape = self._shapes[table] = _Shape(info)
            for key, value in rows.get(table, {}).items():
                if shape.has_more(msgspec.msgpack.decode(value)):
                    self._before[table, key] = value

    def kept(self, rows: list[Row]) -> list[Row]:
        """Rows that are to be stored, each with what was there and is not known."""
        return [self._kept(row) for row in rows]

    def _kept(self, row: Row) -> Row:
        table, key, value = row
        before = self._before.get((table, key))
        if before is None:
            return row
        if value is None:
            del self._before[table, key]
            return row
        decode = msgspec.msgpack.decode
        whole = self._shapes[table].merged(decode(value), decode(before))
        return (table, key, msgspec.msgpack.encode(whole))
