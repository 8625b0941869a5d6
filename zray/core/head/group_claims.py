"""Room that is kept for placement groups where others would take whatever becomes free.

A group that has waited for a moment claims nodes that have what it needs but for tasks and leases:
in the head's estimate its bundles are taken there, so nothing new starts, and leases end until that
is made good. Once it is, the bundles are reserved. A claim that does not come to that is given up
for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.head.actor_table import ActorTable
from zray.core.head.bundle_policy import BundlePolicy, Choice
from zray.core.head.members import Members, NodeMember
from zray.core.head.openings import NodeChanges
from zray.core.head.placement_queue import PlacementQueue
from zray.core.head.placement_table import GroupRecord
from zray.core.head.task_records import NodeView
from zray.core.machine import NEVER

LOOKED_AT_MAX = 64  # nodes
SOUGHT_MAX = 1000  # bundles for which room is sought in a turn, or a few more
SOUGHT_S = 2e-4  # between two such turns, for each bundle in the first


class _Claim:
    """``choice``: where the bundles of the group are to be."""

    __slots__ = ("choice", "record", "until")

    def __init__(self, record: GroupRecord, choice: Choice, until: float) -> None:
        self.record = record
        self.choice = choice
        self.until = until


class GroupClaims:
    """``prepare``: ask these nodes for the bundles of a group."""

    def __init__(
        self,
        members: Members,
        actors: ActorTable,
        queue: PlacementQueue,
        prepare: Callable[[GroupRecord, Choice], None],
    ) -> None:
        self._members = members
        self._actors = actors
        self._queue = queue
        self._prepare = prepare
        self._claims: dict[bytes, _Claim] = {}
        self._after: dict[bytes, float] = {}  # groups that wait, and when they may claim something
        self._looked = 0  # nodes, in all
        self._rests_until = 0.0

    # ---- claims ----------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """After those were placed that find room as it is."""
        for claim in [*self._claims.values()]:
            self._look_at(claim, now)
        if not self._queue:
            self._after.clear()
            return
        first = self._queue.first()
        waiting, looked = {record.group_id for record in first}, 0
        for group_id in [one for one in self._after if one not in waiting]:
            del self._after[group_id]
        for record in first:
            due = self._after.setdefault(record.group_id, now + limits.GROUP_CLAIM_AFTER_S)
            if len(self._claims) >= limits.GROUP_CLAIMS_MAX:
                break
            rests = now < self._rests_until or looked >= SOUGHT_MAX
            if now >= due and not rests and record.group_id not in self._claims:
                looked += len(record.needs)
                self._claim(record, now)
        if looked:
            self._rests_until = now + looked * SOUGHT_S

    def _look_at(self, claim: _Claim, now: float) -> None:
        record, views = claim.record, dict.fromkeys(claim.choice.values())
        there = all(
            view.free.get(name, 0) >= 0
            for index, view in claim.choice.items()
            for name, _ in record.amounts[index]
        )
        usable = all(view.usable for view in views)
        if there and usable:
            self.drop(record)
            self._queue.remove(record)
            self._prepare(record, claim.choice)
        elif now >= claim.until or not usable:
            self.drop(record)
            self._after[record.group_id] = now + limits.GROUP_CLAIM_S

    def _claim(self, record: GroupRecord, now: float) -> None:
        nodes = self._could_have(record)
        twins = {view.node_id: view for view in nodes}
        places = [one and twins.get(one.node_id, one) for one in record.places]
        policy = BundlePolicy(NodeChanges(), twins)
        choice = policy.choose(record.request.strategy, record.needs, places)
        self._after[record.group_id] = now + limits.GROUP_CLAIM_S
        if isinstance(choice, int):
            return
        real = {index: self._members.nodes[one.node_id].view for index, one in choice.items()}
        for index, view in real.items():
            resources.take(view.free, record.amounts[index])
            view.claims += 1
        self._claims[record.group_id] = _Claim(record, real, now + limits.GROUP_CLAIM_S)

    def drop(self, record: GroupRecord) -> None:
        """The group has its places, or does not want any."""
        claim = self._claims.pop(record.group_id, None)
        if claim is not None:
            for index, view in claim.choice.items():
                view.claims -= 1
                view.give(record.amounts[index])

    # ---- nodes -----------------------------------------------------------------------------

    def _could_have(self, record: GroupRecord) -> list[NodeView]:
        """Some nodes as they would be without tasks and leases; none that is claimed, or has
        refused the group."""
        nodes = self._members.nodes
        self._looked = self._looked % max(len(nodes), 1)
        found = [*islice(nodes.values(), self._looked, self._looked + LOOKED_AT_MAX)]
        found += islice(nodes.values(), min(self._looked, LOOKED_AT_MAX - len(found)))
        self._looked += LOOKED_AT_MAX
        views = [(one, one.view) for one in found]
        able = [(one, view) for one, view in views if view.usable and view.reserves]
        return [
            self._without_tasks(one)
            for one, view in able
            if not view.claims and view not in record.refusing
        ]

    def _without_tasks(self, node: NodeMember) -> NodeView:
        view = node.view
        twin = NodeView(view.node_id, view.incarnation, dict(view.total))
        twin.labels, twin.live, twin.reserves = view.labels, True, True
        for group in view.bundles.values():
            for amounts in group.values():
                resources.take(twin.free, amounts)
        for actor_id in node.actors:
            resources.take(twin.free, self._actors[actor_id].held)
        return twin

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        due = min([claim.until for claim in self._claims.values()], default=NEVER)
        if self._queue and len(self._claims) < limits.GROUP_CLAIMS_MAX:
            after = [when for one, when in self._after.items() if one not in self._claims]
            due = min(due, max(self._rests_until, min(after, default=NEVER)))
        return due
