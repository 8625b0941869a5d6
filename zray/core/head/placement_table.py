"""Placement groups, as the head knows them: what was asked for, where each bundle is, by names.

Also what nodes have reserved for them, in the head's estimate of these nodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from zray import limits
from zray.core import bundles, labels, resources
from zray.core.head.task_records import NodeView
from zray.core.resources import Needs
from zray.protocol import messages as m

TABLE = "placement_groups"


class GroupRow(msgspec.Struct, array_like=True, frozen=True):
    """What the store keeps. ``nodes``, ``incarnations``: of each bundle; empty, 0: no place yet."""

    request: m.CreateGroup
    state: int
    nodes: list[bytes]
    incarnations: list[int]


class GroupRecord:
    """One placement group, from its request until it is removed.

    ``places``: of each bundle, the node that has it, or is asked to; None: none.
    """

    def __init__(self, request: m.CreateGroup) -> None:
        self.request = request
        self.state = m.GROUP_PENDING
        self.needs = [_needs(bundle) for bundle in request.bundles]
        self.amounts = [resources.needs(bundle.resources) for bundle in request.bundles]
        self.places: list[NodeView | None] = [None] * len(request.bundles)
        self.placed: dict[int, None] = {}  # of those, what is decided, durably or soon
        # Where they were before the head's restart, and which incarnation that was.
        self.expected: dict[int, tuple[bytes, int]] = {}
        self.awaited: dict[NodeView, None] = {}  # nodes that have yet to answer a PREPARE
        self.round = 0
        self.stored = 0  # the round whose places are durable
        self.stuck = 0  # the bundle that found no place the last time
        self.refusals = 0  # in a row
        self.refused = ""  # by whom, and why, the last time
        self.refusing: dict[NodeView, None] = {}  # nodes that are passed over for now
        self.lost = ""  # which node has gone with bundles of it
        self.until_stored: list[Callable[[], None]] | None = []  # answers, until it is durable
        # Requests, by process, that are answered once it is placed, or gone.
        self.waiters: dict[bytes, deque[int]] = {}

    @property
    def group_id(self) -> bytes:
        """Its id, of 16 bytes."""
        return self.request.group_id

    def unplaced(self) -> list[int]:
        """The bundles that have no place."""
        return [
            index
            for index in range(len(self.places))
            if index not in self.placed and index not in self.expected
        ]

    def is_whole(self) -> bool:
        """Whether each bundle has its place."""
        return len(self.placed) == len(self.places)

    def at(self, view: NodeView) -> list[int]:
        """The bundles that are there, or are asked for there."""
        return [index for index, place in enumerate(self.places) if place is view]

    def tentative(self) -> dict[NodeView, list[int]]:
        """The bundles of which it is not decided yet that they are there."""
        found: dict[NodeView, list[int]] = {}
        for index, place in enumerate(self.places):
            if place is not None and index not in self.placed:
                found.setdefault(place, []).append(index)
        return found

    def parts(self, indices: Iterable[int]) -> list[m.PlacedBundle]:
        """These bundles, for their node."""
        return [m.PlacedBundle(index, list(self.amounts[index])) for index in indices]

    def row(self) -> tuple[str, bytes, bytes]:
        """As it is to be stored now."""
        nodes, incarnations = [], []
        for index, place in enumerate(self.places):
            where = self.expected.get(index, (b"", 0))
            if place is not None and index in self.placed:
                where = (place.node_id, place.incarnation)
            nodes.append(where[0])
            incarnations.append(where[1])
        state = m.GROUP_CREATED if self.is_whole() else self.state
        row = GroupRow(self.request, state, nodes, incarnations)
        return (TABLE, self.group_id, msgspec.msgpack.encode(row))

    def status(self, reason: str = "") -> m.GroupStatus:
        """For whoever asks."""
        request = self.request
        nodes = [
            self.expected[index][0]
            if index in self.expected
            else place.node_id
            if place is not None and index in self.placed
            else b""
            for index, place in enumerate(self.places)
        ]
        return m.GroupStatus(
            *(request.group_id, request.name, request.namespace, request.strategy),
            *(request.detached, request.job_id, self.state),
            request.bundles,
            nodes,
            reason,
            self.round,
        )


def _needs(bundle: m.Bundle) -> Needs:
    selected = labels.term([bundle.labels] if bundle.labels else [], bundle.resources)
    return resources.needs(bundle.resources, selected)


class PlacementTable:
    """Those that are not removed, and the last ones that are."""

    def __init__(self) -> None:
        self._records: dict[bytes, GroupRecord] = {}
        self._by_name: dict[tuple[str, str], bytes] = {}
        self._called: dict[str, dict[bytes, None]] = {}  # in whichever namespace
        self._by_job: dict[bytes, dict[bytes, None]] = {}
        self._bundles_of: dict[bytes, int] = {}  # by job
        self.unplaced: dict[bytes, None] = {}  # groups that lack places
        self.removed: dict[bytes, m.GroupStatus] = {}
        self._bundles_kept = 0  # of these

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, group_id: bytes) -> bool:
        return group_id in self._records

    def get(self, group_id: bytes) -> GroupRecord | None:
        """The group, if it is not removed."""
        return self._records.get(group_id)

    def values(self) -> Iterator[GroupRecord]:
        """All that are not removed."""
        yield from self._records.values()

    def ids(self) -> list[bytes]:
        """Of all that are not removed and durable."""
        return [one.group_id for one in self._records.values() if one.until_stored is None]

    def add(self, record: GroupRecord) -> None:
        """There is such a group."""
        request = record.request
        self._records[record.group_id] = record
        if request.name:
            self._by_name[request.namespace, request.name] = record.group_id
            self._called.setdefault(request.name, {})[record.group_id] = None
        self._by_job.setdefault(request.job_id, {})[record.group_id] = None
        self._bundles_of[request.job_id] = self.bundles_of(request.job_id) + len(record.places)
        self.set_state(record, record.state)

    def set_state(self, record: GroupRecord, state: int) -> None:
        """One of the groups has its places, lacks some, or is no more."""
        record.state = state
        if state in (m.GROUP_PENDING, m.GROUP_RESCHEDULING):
            self.unplaced[record.group_id] = None
        else:
            self.unplaced.pop(record.group_id, None)

    def remove(self, record: GroupRecord) -> None:
        """It is no more; what it was is remembered of the last ones."""
        request = record.request
        del self._records[record.group_id]
        if self._by_name.get((request.namespace, request.name)) == record.group_id:
            del self._by_name[request.namespace, request.name]
            called = self._called[request.name]
            del called[record.group_id]
            if not called:
                del self._called[request.name]
        self.set_state(record, m.GROUP_REMOVED)
        of_job = self._by_job[request.job_id]
        del of_job[record.group_id]
        self._bundles_of[request.job_id] -= len(record.places)
        if not of_job:
            del self._by_job[request.job_id], self._bundles_of[request.job_id]
        self.removed[record.group_id] = record.status()
        self._bundles_kept += len(record.places)
        while (
            len(self.removed) > limits.GROUPS_KEPT_MAX
            or self._bundles_kept > limits.BUNDLES_KEPT_MAX
        ):
            forgotten = self.removed.pop(next(iter(self.removed)))
            self._bundles_kept -= len(forgotten.bundles)

    def named(self, namespace: str, name: str) -> GroupRecord | None:
        """The group that has this name."""
        group_id = self._by_name.get((namespace, name)) if name else None
        return self._records[group_id] if group_id is not None else None

    def called(self, name: str) -> list[bytes]:
        """The groups that have this name, in any namespace."""
        return [*self._called.get(name, ())]

    def why_gone(self, group_id: bytes) -> str:
        """Why nothing can run in the group; empty: it can, or will."""
        if group_id in self._records:
            return ""
        return f"its placement group {group_id.hex()} was removed, or there never was one"

    def bundles_of(self, job_id: bytes) -> int:
        """How many bundles the groups have that were made in the job."""
        return self._bundles_of.get(job_id, 0)

    def of_job(self, job_id: bytes) -> list[GroupRecord]:
        """Those that were made in the job."""
        return [self._records[group_id] for group_id in self._by_job.get(job_id, ())]


# ---- what nodes have reserved --------------------------------------------------------------------


def reserve(view: NodeView, group_id: bytes, index: int, amounts: Needs) -> None:
    """A bundle takes its part of a node."""
    view.bundles.setdefault(group_id, {})[index] = amounts
    resources.take(view.free, amounts)


def commit(view: NodeView, group_id: bytes, index: int) -> None:
    """A bundle is resources of its own by now."""
    if (group_id, index) in view.committed:
        return
    view.committed[group_id, index] = None
    offered = bundles.offered(view.bundles[group_id][index], group_id, index)
    resources.give(view.total, offered)
    resources.give(view.free, offered)
    view.changed()


def release(view: NodeView, group_id: bytes, indices: Iterable[int]) -> None:
    """The node has its part back."""
    group = view.bundles.get(group_id, {})
    for index in [one for one in indices if one in group]:
        amounts = group.pop(index)
        view.give(amounts)
        if (group_id, index) not in view.committed:
            continue
        del view.committed[group_id, index]
        offered = bundles.offered(amounts, group_id, index)
        resources.take(view.total, offered)
        resources.take(view.free, offered)
        for name, _ in offered:
            if not view.total.get(name):
                view.total.pop(name, None)  # a node may have told of it twice
                view.free.pop(name, None)
                view.released.pop(name, None)  # the node reports no more of it
    if not group:
        view.bundles.pop(group_id, None)
