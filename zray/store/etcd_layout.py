"""How rows lie in etcd: keys, values, and which changes go into one transaction. Does no I/O.

Under ``/zray/NAME/``: ``heads/ID`` (each goes with its head's lease), ``leader`` (which of them
leads; goes with that, too), ``halted`` (that all are to stop), ``mark`` (the leader's last
transaction), ``meta`` (the cluster's id), ``rows/TABLE/KEY``, ``parts/ID/NUMBER`` (of values too
large for a row) and ``staged/`` (a batch too large for one transaction). A value of a row is a
letter, a checksum, and either the value or where its parts are. etcd's limits: 1.5 MiB a request,
128 operations a transaction (https://etcd.io/docs/v3.4/dev-guide/limit/).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

import msgpack

from zray.store.base import Batch

SCHEMA: Final = 1  # a reader of schema n refuses n+1; `schema` in the key `meta` stays
OPERATIONS_MAX: Final = 120  # of one transaction, beside the mark
TRANSACTION_BYTES: Final = 1 << 20  # of keys and values
OPERATION_BYTES: Final = 64  # that one takes beside these
INLINE_BYTES: Final = 16 << 10  # larger values are in parts, so that a page of rows is bounded
PART_BYTES: Final = 512 << 10
SKIPPED_MAX: Final = 2**52  # with a revision it is an epoch that messages can have

_WHOLE: Final = b"W"
_PARTS: Final = b"P"
_CRC: Final = struct.Struct(">I")
_PLACE: Final = struct.Struct(">IQ")  # parts, bytes; the id follows

Put: TypeAlias = tuple[bytes, bytes]
"""Key and value."""


class Delete(NamedTuple):
    """Keys from ``start`` up to ``end``; ``end`` None: that key alone."""

    start: bytes
    end: bytes | None = None


Operation: TypeAlias = "Put | Delete"
Changes: TypeAlias = dict[tuple[str, bytes], bytes | None]


class Place(NamedTuple):
    """Where the parts of a value are."""

    name: bytes
    parts: int
    size: int


class Damaged(Exception):
    """What is stored is not what was written; the text says which row."""


class Meta(NamedTuple):
    """The cluster.

    Attributes:
        schema: of the store; whoever knows only smaller ones cannot read the rest.
        cluster_id: None: none yet.
        skipped: epochs that go before etcd's revisions.
    """

    schema: int
    cluster_id: bytes | None = None
    skipped: int = 0

    def encode(self) -> bytes:
        cluster_id = self.cluster_id.hex() if self.cluster_id is not None else ""
        fields = {"schema": self.schema, "cluster_id": cluster_id, "skipped_epochs": self.skipped}
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, content: bytes) -> Meta:
        """
        Raises:
            Damaged: it is none.
        """
        try:
            found: Any = json.loads(content)
            schema = int(found["schema"])
            if schema > SCHEMA:
                return cls(schema)
            cluster_id = bytes.fromhex(found["cluster_id"]) or None
            skipped = int(found["skipped_epochs"])
            if not 0 <= skipped <= SKIPPED_MAX or len(cluster_id or b"") not in (0, 16):
                raise ValueError("out of range")
            return cls(schema, cluster_id, skipped)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise Damaged(f"its key `meta` cannot be read ({error!r})") from error


class Layout:
    """The keys of one cluster."""

    def __init__(self, name: str) -> None:
        self.root = f"/zray/{quote(name, safe='')}/".encode()
        self.halted = self.root + b"halted"
        self.heads = self.root + b"heads/"
        self.leader = self.root + b"leader"
        self.election = (self.halted, self.leader + b"\0")  # these three, and nothing else
        self.mark = self.root + b"mark"
        self.meta = self.root + b"meta"
        self.rows = self.root + b"rows/"
        self.parts = self.root + b"parts/"
        self.staged = self.root + b"staged/"
        self.commit = self.staged + b"commit"  # after the pieces of the batch: it is durable

    def head(self, head_id: str) -> bytes:
        return self.heads + head_id.encode()

    def row(self, table: str, key: bytes) -> bytes:
        return self.rows + quote(table, safe="").encode() + b"/" + key

    def table_and_key(self, stored: bytes) -> tuple[str, bytes]:
        """
        Raises:
            Damaged: it is not the key of a row.
        """
        table, slash, key = stored[len(self.rows) :].partition(b"/")
        try:
            name = unquote(table.decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            slash = b""
        if not slash:
            raise Damaged(f"the key {stored!r} is no row's")
        return name, key

    def part(self, place: bytes, number: int) -> bytes:
        return self.parts + place + b"/%08d" % number

    def all_parts(self, place: bytes) -> Delete:
        start = self.parts + place + b"/"
        return Delete(start, after_prefix(start))

    def piece(self, number: int) -> bytes:
        return self.staged + b"piece/%08d" % number


def after_prefix(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``, whose last byte is below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def crc(table: str, key: bytes, value: bytes) -> int:
    name = table.encode()
    begun = zlib.crc32(b"%d %d " % (len(name), len(key)) + name)
    return zlib.crc32(value, zlib.crc32(key, begun))


def whole(table: str, key: bytes, value: bytes) -> bytes:
    """A row's stored value, with the value in it."""
    return _WHOLE + _CRC.pack(crc(table, key, value)) + value


def placed(table: str, key: bytes, value: bytes, name: bytes) -> bytes:
    """The same where its parts are elsewhere."""
    count = -(-len(value) // PART_BYTES)
    place = _PLACE.pack(count, len(value)) + name
    return _PARTS + _CRC.pack(crc(table, key, value)) + place


def read(table: str, key: bytes, stored: bytes) -> bytes | Place:
    """A row's value, or where it is.

    Raises:
        Damaged: it does not match its checksum, or is no row's value.
    """
    kind, checksum, content = stored[:1], stored[1 : 1 + _CRC.size], stored[1 + _CRC.size :]
    if kind == _WHOLE and checksum == _CRC.pack(crc(table, key, content)):
        return content
    if kind == _PARTS and len(content) > _PLACE.size:
        count, size = _PLACE.unpack_from(content)
        return Place(content[_PLACE.size :], count, size)
    raise _mismatch(table, key)


def check(table: str, key: bytes, stored: bytes, value: bytes, place: Place) -> None:
    """Whether ``value``, from its parts, is what ``stored`` is of.

    Raises:
        Damaged: it is not.
    """
    expected = stored[1 : 1 + _CRC.size]
    if len(value) != place.size or expected != _CRC.pack(crc(table, key, value)):
        raise _mismatch(table, key)


def _mismatch(table: str, key: bytes) -> Damaged:
    return Damaged(f"a row of {table!r} (key {key!r}) does not match its checksum")


class Planned(NamedTuple):
    """Transactions, in order.

    Attributes:
        before: which nobody sees until those after them are applied.
        together: what is to be applied together or not at all.
    """

    before: list[list[Operation]]
    together: list[Operation]


class Planner:
    """Turns changes of rows into operations; knows which rows have their values in parts.

    Args:
        prefix: of the names of parts; no other leader's is the same.
    """

    def __init__(self, layout: Layout, prefix: bytes) -> None:
        self._layout = layout
        self._prefix = prefix
        self._numbered = 0
        self.places: dict[tuple[str, bytes], bytes] = {}

    def plan(self, changes: Changes) -> Planned:
        """To be called for changes in the order in which they are applied."""
        before: list[list[Operation]] = []
        together: list[Operation] = []
        for (table, key), value in changes.items():
            stored_key = self._layout.row(table, key)
            old = self.places.pop((table, key), None)
            if value is None:
                together.append(Delete(stored_key))
            elif len(value) <= INLINE_BYTES:
                together.append((stored_key, whole(table, key, value)))
            else:
                name = self._name()
                parts = [
                    (self._layout.part(name, number), value[start : start + PART_BYTES])
                    for number, start in enumerate(range(0, len(value), PART_BYTES))
                ]
                before += packed(parts)
                together.append((stored_key, placed(table, key, value, name)))
                self.places[table, key] = name
            if old is not None:
                together.append(self._layout.all_parts(old))
        return Planned(before, together)

    def _name(self) -> bytes:
        self._numbered += 1
        return self._prefix + b"-%d" % self._numbered


def cost(operation: Operation) -> int:
    """Bytes of a request that it takes."""
    first, second = operation
    return len(first) + len(second or b"") + OPERATION_BYTES


def fits(operations: list[Operation]) -> bool:
    """Whether one transaction can have them."""
    few = len(operations) <= OPERATIONS_MAX
    return few and sum(map(cost, operations)) <= TRANSACTION_BYTES


def packed(operations: Iterable[Operation]) -> list[list[Operation]]:
    """As few transactions as hold them, in order."""
    found: list[list[Operation]] = []
    size = TRANSACTION_BYTES + 1
    for operation in operations:
        size += cost(operation)
        if size > TRANSACTION_BYTES or len(found[-1]) == OPERATIONS_MAX:
            found.append([])
            size = cost(operation)
        found[-1].append(operation)
    return found


def merged(batches: Iterable[Batch]) -> Changes:
    """Of two rows with one key the later one."""
    return {(table, key): value for batch in batches for table, key, value in batch}


def stage(operations: list[Operation], layout: Layout) -> list[Put]:
    """The pieces of a batch that no transaction can hold, and the last, which makes it durable."""
    content = msgpack.packb([(isinstance(one, Delete), *one) for one in operations])
    pieces = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    puts = [(layout.piece(number), piece) for number, piece in enumerate(pieces)]
    return [*puts, (layout.commit, b"%d %d" % (len(pieces), zlib.crc32(content)))]


def unstage(staged: Mapping[bytes, bytes], layout: Layout) -> list[Operation]:
    """What is still to be applied: nothing where the last piece was not written.

    Raises:
        Damaged: pieces are missing or not what was written.
    """
    commit = staged.get(layout.commit)
    if commit is None:
        return []
    try:
        count, checksum = map(int, commit.split())
        content = b"".join(staged[layout.piece(number)] for number in range(count))
        if zlib.crc32(content) != checksum:
            raise ValueError("checksum")
        found = msgpack.unpackb(content)
        return [Delete(first, second) if gone else (first, second) for gone, first, second in found]
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"a batch that was being applied is incomplete ({error!r})") from error
