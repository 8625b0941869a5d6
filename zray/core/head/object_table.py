"""The GCS's ObjectTable: outcomes, where values are, and who holds each object.

Holders, not counts: a holder is a process incarnation, a task, a function or another object, and
hold and drop are set operations. An object without a holder is freed once its submitter knows its
outcome; an object with one never is. Values are never here, but for a bounded cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from zray import limits
from zray.ids import is_item, origin_of
from zray.protocol.messages import LOCATED, Outcome

PENDING = -1


class ObjectRecord:
    """What the head knows of one object."""

    __slots__ = (
        *("contained", "holders", "kind", "locations", "served", "size", "told", "waiters"),
        "watchers",
    )

    def __init__(self) -> None:
        self.kind = PENDING  # else Outcome.kind without the LOCATED flag
        self.size = 0
        self.locations: Sequence[bytes] = ()  # nodes and drivers that serve PULL; shared
        self.served = False  # a driver's put: it serves it until it is freed, held or not
        self.holders: bytes | dict[bytes, None] | None = None  # one holder is stored as itself
        self.contained: tuple[bytes, ...] = ()
        self.told: tuple[bytes, int] | None = None  # its task's submitter, and in which RESULT
        self.waiters: list[bytes] | None = None  # tasks that depend on it
        self.watchers: list[bytes] | None = None  # processes to tell


class ObjectTable:
    """By object id; records go when nobody holds or needs them."""

    def __init__(self) -> None:
        self.records: dict[bytes, ObjectRecord] = {}
        self.items: dict[bytes, dict[bytes, None]] = {}  # what tasks have yielded, of these
        self.held_by: dict[bytes, dict[bytes, None]] = {}  # process -> what it holds
        self.cache: OrderedDict[bytes, bytes] = OrderedDict()
        self.cache_bytes = 0
        self.own: dict[bytes, bytes] = {}  # values that nobody else has: errors the head made
        self.appears: Callable[[bytes], None] = lambda _: None  # told of one first heard of inside
        self._unheld: dict[bytes, None] = {}  # lost a holder since the last sweep
        # Objects in the same places share one list of these, so that a place is forgotten at once.
        self._places: dict[tuple[bytes, ...], list[bytes]] = {}
        self._lists: list[list[bytes]] = []  # all of them: by now two may be equal

    def get(self, object_id: bytes) -> ObjectRecord | None:
        """The record, if there is one."""
        return self.records.get(object_id)

    def make(self, object_id: bytes) -> ObjectRecord:
        """The record, made if need be."""
        record = self.records.get(object_id)
        if record is None:
            record = self.records[object_id] = ObjectRecord()
            if is_item(object_id):
                self.items.setdefault(origin_of(object_id), {})[object_id] = None
        return record

    # ---- holders ---------------------------------------------------------------------------

    def hold(self, holder: bytes, object_id: bytes, *, process: bool = False) -> None:
        """A holder has it; ``process``: one that tells all that it holds in a new session."""
        record = self.make(object_id)
        held = record.holders
        if held is None:
            record.holders = holder
        elif isinstance(held, bytes):
            if held != holder:
                record.holders = {held: None, holder: None}
        else:
            held[holder] = None
        if process:
            self.held_by.setdefault(holder, {})[object_id] = None

    def drop(self, holder: bytes, object_id: bytes, *, process: bool = False) -> None:
        """A holder does not have it any more; what it did not hold is ignored."""
        if process:
            mine = self.held_by.get(holder)
            if mine is not None:
                mine.pop(object_id, None)
        record = self.records.get(object_id)
        if record is None:
            return
        held = record.holders
        if held == holder:
            record.holders = None
            self._unheld[object_id] = None
        elif isinstance(held, dict):
            held.pop(holder, None)
            if not held:
                record.holders = None
                self._unheld[object_id] = None

    def vanish(self, process: bytes) -> None:
        """A process incarnation is gone, and every hold of it."""
        for object_id in self.held_by.pop(process, ()):
            self.drop(process, object_id)

    def set_holds(self, process: bytes, object_ids: Iterable[bytes]) -> None:
        """Replace everything that the process holds."""
        wanted = dict.fromkeys(object_ids)
        for object_id in [*self.held_by.get(process, ())]:
            if object_id not in wanted:
                self.drop(process, object_id, process=True)
        for object_id in wanted:
            self.hold(process, object_id, process=True)

    def unheld(self, object_id: bytes) -> None:
        """Look at the object in the next sweep."""
        self._unheld[object_id] = None

    def sweep(
        self, is_needed: Callable[[bytes, ObjectRecord], bool]
    ) -> list[tuple[bytes, ObjectRecord]]:
        """Remove the objects that nobody holds, but for those that ``is_needed`` names.

        Contained objects follow in turn.
        """
        freed: list[tuple[bytes, ObjectRecord]] = []
        while self._unheld:
            candidates, self._unheld = self._unheld, {}
            for object_id in candidates:
                record = self.records.get(object_id)
                if record is None or record.holders is not None:
                    continue
                if record.waiters or record.watchers:
                    continue
                if is_needed(object_id, record):
                    continue
                del self.records[object_id]
                if is_item(object_id):
                    self._forget_item(object_id)
                self._uncache(object_id)
                freed.append((object_id, record))
                for inner in record.contained:
                    self.drop(object_id, inner)
        return freed

    def _forget_item(self, object_id: bytes) -> None:
        items = self.items[origin_of(object_id)]
        del items[object_id]
        if not items:
            del self.items[origin_of(object_id)]

    # ---- outcomes --------------------------------------------------------------------------

    def settle(self, outcome: Outcome, locations: tuple[bytes, ...]) -> ObjectRecord:
        """Commit an object's outcome; the caller has made sure that there was none.

        ``locations``: who serves PULL for it; none: its value is kept here. Its waiters and
        watchers stay for the caller to wake.
        """
        record = self.make(outcome.object_id)
        assert record.kind == PENDING
        record.kind = outcome.kind & ~LOCATED
        record.size = outcome.size
        record.locations = self._places.get(locations) or self._shared(locations)
        self.contain(outcome.object_id, record, outcome.contained)
        if not locations:
            self.own[outcome.object_id] = outcome.value
        elif not outcome.kind & LOCATED:
            self._put_cache(outcome.object_id, outcome.value)
        if record.holders is None:
            self._unheld[outcome.object_id] = None
        return record

    def contain(self, object_id: bytes, record: ObjectRecord, inner_ids: list[bytes]) -> None:
        """The object's value has these references in it, and holds what they stand for."""
        if inner_ids and not record.contained:
            record.contained = tuple(inner_ids)
            for inner in record.contained:
                if inner not in self.records:
                    self.appears(inner)
                self.hold(object_id, inner)

    def made_again(self, object_id: bytes, record: ObjectRecord, outcome: Outcome) -> None:
        """Another value stands for the one that was lost, perhaps with other references in it."""
        inner = tuple(outcome.contained)
        if inner != record.contained:
            before, record.contained = record.contained, ()
            self.contain(object_id, record, outcome.contained)
            for oid in before:
                if oid not in inner:
                    self.drop(object_id, oid)
        record.kind, record.size = outcome.kind & ~LOCATED, outcome.size

    def is_lost(self, object_id: bytes, record: ObjectRecord) -> bool:
        """Whether there was a value, and no copy of it is left."""
        gone = record.kind != PENDING and not record.locations
        return gone and self.value(object_id) is None

    def value(self, object_id: bytes) -> bytes | None:
        """The value, if it is at hand."""
        value = self.cache.get(object_id)
        return self.own.get(object_id) if value is None else value

    def outcome(self, object_id: bytes, record: ObjectRecord) -> Outcome:
        """The committed outcome, with its value if that is at hand."""
        value = self.value(object_id)
        contained = list(record.contained)
        if value is None:
            return Outcome(object_id, record.kind | LOCATED, record.size, b"", contained)
        return Outcome(object_id, record.kind, record.size, value, contained)

    def add_location(self, record: ObjectRecord, place: bytes) -> None:
        """There is a copy at that process."""
        if place not in record.locations:
            record.locations = self._shared((*record.locations, place))

    def _shared(self, places: tuple[bytes, ...]) -> Sequence[bytes]:
        if not places:
            return ()
        shared = self._places.get(places)
        if shared is None:
            shared = self._places[places] = [*places]
            self._lists.append(shared)
        return shared

    def remove_location(self, object_id: bytes, record: ObjectRecord, place: bytes) -> None:
        """There is none any more."""
        if place in record.locations:
            places = tuple(other for other in record.locations if other != place)
            record.locations = self._shared(places)
            if not places and object_id in self.cache:
                self.own[object_id] = self.cache[object_id]  # the last copy stays

    def forget_place(self, place: bytes) -> None:
        """A node or driver is gone, and every copy that it had."""
        for places in self._lists:
            if place in places:
                places.remove(place)
        self._lists = [places for places in self._lists if places]
        self._places = {tuple(places): places for places in self._lists}
        if len(self._lists) > 4 * len(self._places) + 64:
            for record in self.records.values():
                record.locations = self._places.get(tuple(record.locations), ())
            self._lists = list(self._places.values())

    def _put_cache(self, object_id: bytes, value: bytes) -> None:
        self.cache[object_id] = value
        self.cache_bytes += len(value)
        while self.cache_bytes > limits.HEAD_CACHE_BYTES:
            oldest, old = self.cache.popitem(last=False)
            self.cache_bytes -= len(old)
            record = self.records.get(oldest)
            if record is not None and not record.locations:
                self.own[oldest] = old  # the last copy stays

    def _uncache(self, object_id: bytes) -> None:
        self.own.pop(object_id, None)
        value = self.cache.pop(object_id, None)
        if value is not None:
            self.cache_bytes -= len(value)
