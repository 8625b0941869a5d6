"""What holds each object: the head's word, and that of all processes that have references.

Drivers and nodes, with their workers, are asked at the same time; who does not answer in time is
named. Each tells of its largest objects, so that the answer is bounded whatever the cluster has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zray import limits
from zray.errors import ZrayError
from zray.nodes import contact
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.runtime import session
from zray.util.state.records import CALL_SITE, ObjectState, StateRecord

ROWS_MAX = 2000  # largest objects of each process, and of each store
LISTED_MAX = 20_000  # objects of which the head is asked
TIMEOUT_S = limits.HELD_WAIT_S + 1.0
NO_SITE = ""  # recorded, but not for this one


@dataclass
class ReferenceState(StateRecord):
    """An object, and one that holds it.

    ``reference_type``: in Ray's words the strongest of ``references``, which has how many there are
    of each. ``type``: DRIVER, WORKER, TASK, ACTOR, OBJECT or NODE, whose id is ``holder_id``.
    ``places``: where the value is. ``call_site``: the line that made the reference.
    """

    object_id: str
    object_size: int
    state: str
    reference_type: str
    references: dict[str, int]
    type: str
    holder_id: str
    holder_name: str
    pid: int
    node: str
    call_site: str
    places: list[str]


@dataclass
class NodeMemory(StateRecord):
    """A node's objects in shared memory, in figures."""

    node_id: str
    name: str
    capacity_bytes: int
    used_bytes: int
    spilled_bytes: int
    objects: int


@dataclass
class MemoryReport:
    """``silent``: who has not answered, in words. ``left_out``: smaller objects, of which processes
    have told how many they hold, each by itself; ``unlisted``: objects that the head was not asked
    for. ``records_sites``: some process notes which lines make its references."""

    references: list[ReferenceState] = field(default_factory=list)
    nodes: list[NodeMemory] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    left_out: int = 0
    unlisted: int = 0
    records_sites: bool = False

    def described(self, *, references: bool = True) -> dict[str, Any]:
        """As the command and the HTTP API tell it; without ``references`` the totals alone."""
        sizes = {row.object_id: row.object_size for row in self.references}
        found: dict[str, Any] = {
            "objects": len(sizes),
            "bytes": sum(sizes.values()),
            "reference_types": dict(Counter(row.reference_type for row in self.references)),
            "nodes": [one.asdict() for one in self.nodes],
            "silent": self.silent,
            "left_out": self.left_out,
            "unlisted": self.unlisted,
        }
        if references:
            found["references"] = [row.asdict() for row in self.references]
        return found


def memory(address: str | None = None, timeout: float = TIMEOUT_S) -> MemoryReport:
    """What holds the cluster's objects, the largest first.

    Args:
        address: of the head; None: of the cluster that this program is connected to, or of the one
            that runs on this machine.
        timeout: for processes to answer, in seconds.

    Raises:
        HeadConnectionError: the head cannot be reached. ZrayError: this process is a task.
    """
    asker = operator(address)
    if asker is None:
        raise ZrayError("a task cannot ask what holds memory, nor is there a cluster in local mode")
    with asker as asked:
        return gather(asked, timeout)


def operator(address: str | None) -> Operator | None:
    """Who may ask, of the cluster at an address; None: of this program's, or this machine's.

    Returns:
        None: this process is a task, and has no key of the cluster.

    Raises:
        HeadConnectionError: there is none.
    """
    if address not in (None, "", "auto"):
        return Operator(*contact.reach(str(address).partition("://")[2] or str(address)))
    connected = session.current()
    if connected is None:
        return Operator(*contact.running())
    if getattr(connected, "info", None) is None:
        return None
    return Operator(connected.info, connected.addresses)


def gather(asked: Operator, timeout: float = TIMEOUT_S) -> MemoryReport:
    """The same, by an operator of the cluster."""
    return _Gathering(asked, timeout).report


def complete(
    found: list[ObjectState], report: MemoryReport, filters: list[m.Filter], limit: int
) -> None:
    """Add to objects who holds them, and behind them those of which the head does not know."""
    by_object: dict[str, list[ReferenceState]] = {}
    for one in report.references:
        by_object.setdefault(one.object_id, []).append(one)
    for row in found:
        _add_references(row, by_object.pop(row.object_id, []))
    for object_id, held in by_object.items():
        first = held[0]
        row = ObjectState(
            object_id=object_id,
            object_size=first.object_size if first.state != "PENDING" else -1,
            task_status="NIL" if first.state == "PENDING" else "FINISHED",
            attempt_number=1,
            reference_type=first.reference_type,
            call_site=CALL_SITE,
            type=first.type,
            pid=first.pid,
            ip=first.node,
            state=first.state,
            node_ids=[],
            num_holders=len(held),
            holder_id=first.holder_id,
        )
        _add_references(row, held)
        if len(found) < limit and all(_passes(row, one) for one in filters):
            found.append(row)


def _add_references(row: ObjectState, held: list[ReferenceState]) -> None:
    row.references = [one.asdict() for one in held]
    sites = [one.call_site for one in held if one.call_site not in (CALL_SITE, NO_SITE)]
    if sites:
        row.call_site = sites[0]


def _passes(row: ObjectState, one: m.Filter) -> bool:
    same = str(row.get(one.key)).casefold() == one.value.casefold()
    return same is not one.negated


class _Thing:
    """What is known of one object."""

    __slots__ = ("places", "size", "state")

    def __init__(self) -> None:
        self.size = 0
        self.state = ""
        self.places: dict[str, None] = {}


class _Gathering:
    def __init__(self, asked: Operator, timeout: float) -> None:
        self.report = MemoryReport()
        self._things: dict[bytes, _Thing] = {}
        self._titles: dict[bytes, str] = {}  # of workers, what they run
        self._known: dict[tuple[bytes, bytes], None] = {}  # objects and who holds them
        nodes = asked.nodes()
        self._nodes = {node.node_id: node.info.name for node in nodes}
        workers = [one for page in self._pages(asked, m.WORKERS) for one in page.workers]
        self._processes = {one.worker_id: one for one in workers if one.alive}
        drivers = [one for one in self._processes.values() if one.type == "DRIVER"]
        whom = [*self._nodes, *(one.worker_id for one in drivers)]
        answers = asked.held(whom, ROWS_MAX, timeout)
        listed = [one for page in self._pages(asked, m.OBJECTS) for one in page.objects]
        for one in listed:
            self._take_listed(one)
        for process_id, answer in zip(whom, answers, strict=True):
            if answer is None:
                self.report.silent.append(self._in_words(process_id))
            else:
                self._take_stored(process_id, answer)
        for process_id, answer in zip(whom, answers, strict=True):
            for holder in answer.holders if answer is not None else ():
                self._take_held(process_id, holder)
        for one in listed:
            self._take_holders(one)
        for process_id, answer in zip(whom, answers, strict=True):
            for stored in answer.stored if answer is not None else ():
                self._take_viewers(process_id, stored)
        made = {row.object_id: row.call_site for row in self.report.references if row.call_site}
        for row in self.report.references:
            row.call_site = row.call_site or made.get(row.object_id, NO_SITE)
            thing = self._things[bytes.fromhex(row.object_id)]
            row.object_size, row.state, row.places = thing.size, thing.state, [*thing.places]
        self.report.references.sort(key=lambda row: (-row.object_size, row.object_id))

    def _pages(self, asked: Operator, kind: int) -> Iterable[m.Listed]:
        """Of what the head knows of a kind, so much at most."""
        cursor = b""
        for _ in range(LISTED_MAX // limits.LISTED_ROWS_MAX):
            page = asked.page(kind, (), limits.LISTED_ROWS_MAX, cursor)
            yield page
            cursor = page.cursor
            if not cursor:
                return
        if kind == m.OBJECTS:
            self.report.unlisted = max(0, page.total - LISTED_MAX)

    def _in_words(self, process_id: bytes) -> str:
        if (name := self._nodes.get(process_id)) is not None:
            return f"node {name}"
        driver = self._processes.get(process_id)
        return f"driver pid {driver.pid} on {driver.host}" if driver is not None else "a driver"

    def _thing(self, oid: bytes) -> _Thing:
        thing = self._things.get(oid)
        if thing is None:
            thing = self._things[oid] = _Thing()
        return thing

    # ---- what there is ---------------------------------------------------------------------

    def _take_listed(self, row: m.ListedObject) -> None:
        thing = self._thing(row.object_id)
        thing.size, thing.state = row.size, row.state
        for place in row.places:
            thing.places[self._nodes.get(place) or self._in_words(place)] = None

    def _take_stored(self, node_id: bytes, answer: m.Held) -> None:
        name = self._nodes.get(node_id)
        if name is None:  # a driver
            return
        store = answer.store
        figures = (store.capacity_bytes, store.used_bytes, store.spilled_bytes, store.objects)
        self.report.nodes.append(NodeMemory(node_id.hex(), name, *figures))
        self.report.silent += [f"worker pid {pid} of node {name}" for pid in answer.silent]
        for one in answer.stored:
            thing = self._thing(one.object_id)
            thing.size, thing.state = thing.size or one.size, thing.state or "READY"
            thing.places.pop(name, None)
            how = "spilled at" if one.spilled else "shared memory of"
            thing.places[f"{how} {name}"] = None

    # ---- who holds it ----------------------------------------------------------------------

    def _take_held(self, whom: bytes, holder: m.HeldBy) -> None:
        self.report.left_out += holder.left_out
        self._titles[holder.process_id] = holder.title
        self.report.records_sites |= holder.records_sites
        for one in holder.objects:
            thing = self._thing(one.object_id)
            thing.size, thing.state = thing.size or one.size, thing.state or one.state
            if one.place == m.IN_PROCESS and not thing.places:
                thing.places[f"in the process {holder.pid or self._pid(holder.process_id)}"] = None
            site = holder.sites[one.site - 1] if 0 < one.site <= len(holder.sites) else NO_SITE
            if not holder.records_sites:
                site = CALL_SITE
            kinds = {
                m.ACTOR_HANDLE: int(one.is_handle),
                m.PINNED_IN_MEMORY: int(one.pinned),
                m.USED_BY_PENDING_TASK: one.tasks,
                m.LOCAL_REFERENCE: one.local,
                m.CAPTURED_IN_OBJECT: one.contained,
            }
            self._add(one.object_id, kinds, holder.process_id, site)

    def _pid(self, process_id: bytes) -> int:
        row = self._processes.get(process_id)
        return row.pid if row is not None else 0

    def _add(
        self, oid: bytes, kinds: dict[str, int], holder_id: bytes, site: str = NO_SITE
    ) -> None:
        """A process holds the object so."""
        self._known[oid, holder_id] = None
        found = {kind: count for kind, count in kinds.items() if count}
        first = next(iter(found), m.HELD_OTHERWISE)
        process = self._processes.get(holder_id)
        kind = process.type if process is not None else "WORKER"
        node = self._nodes.get(process.node_id, "") if process is not None else ""
        where = (self._pid(holder_id), node or (process.host if process is not None else ""))
        who = (kind, holder_id.hex(), self._titles.get(holder_id, ""), *where)
        self.report.references.append(
            ReferenceState(oid.hex(), 0, "", first, found, *who, site, [])
        )

    def _take_holders(self, row: m.ListedObject) -> None:
        """Whom the head knows to hold it beside those who have said so themselves."""
        others = {m.USED_BY_PENDING_TASK: "TASK", m.CAPTURED_IN_OBJECT: "OBJECT"}
        others[m.CAPTURED_IN_ACTOR] = "ACTOR"
        for kind, holder_id, name in row.held:
            if (row.object_id, holder_id) in self._known:
                continue
            if holder_id in self._processes:
                self._add(row.object_id, {kind: 1}, holder_id)
                continue
            what = "NODE" if holder_id in self._nodes else others.get(kind, "")
            self._add_other(row.object_id, kind, what, holder_id, name)
        if row.holders > len(row.held):
            more = f"and {row.holders - len(row.held)} more"
            self._add_other(row.object_id, m.HELD_OTHERWISE, "", b"", more)

    def _add_other(self, oid: bytes, kind: str, what: str, holder_id: bytes, name: str) -> None:
        who = (what, holder_id.hex(), name, 0, self._nodes.get(holder_id, ""))
        self.report.references.append(
            ReferenceState(oid.hex(), 0, "", kind, {kind: 1}, *who, NO_SITE, [])
        )

    def _take_viewers(self, node_id: bytes, stored: m.StoredHere) -> None:
        """An array outlives its reference: it is that which holds the memory."""
        for viewer in stored.viewers:
            if (stored.object_id, viewer) not in self._known and viewer != node_id:
                self._add(stored.object_id, {m.PINNED_IN_MEMORY: 1}, viewer)
