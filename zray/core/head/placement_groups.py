"""How placement groups are made, kept and removed: on all nodes that it takes, or on none.

First every node prepares its bundles; then the places are durable, which decides; then the nodes
commit. Whatever a node tells in a new session is held against that. A group that loses bundles with
a node gets other places for these, and keeps the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from zray import limits
from zray.core.head import placement_table
from zray.core.head.bundle_policy import BundlePolicy, Choice
from zray.core.head.events import INFO, WARNING
from zray.core.head.group_claims import GroupClaims
from zray.core.head.members import Member, NodeMember
from zray.core.head.placement_queue import PlacementQueue
from zray.core.head.placement_reasons import Found, PlacementReasons
from zray.core.head.placement_table import GroupRecord, GroupRow
from zray.core.head.tables import Tables
from zray.core.head.task_records import NodeView
from zray.errors import PlacementGroupExistsError, ProtocolError, TooManyBundlesError
from zray.protocol import messages as m


class PlacementGroups:
    """``rows``: of the store. ``end_tasks``: those of a removed group that no node has end."""

    def __init__(
        self,
        tables: Tables,
        rows: dict[str, dict[bytes, bytes]],
        end_tasks: Callable[[bytes], None],
    ) -> None:
        self._outbox = tables.outbox
        self._persist = tables.journal.persist
        self._members = tables.members
        self._scheduler = scheduler = tables.scheduler
        self._events = tables.events
        self._table = tables.placement
        self._end_tasks = end_tasks
        self._policy = BundlePolicy(scheduler.changes, scheduler.nodes)
        self.queue = PlacementQueue(self._table, scheduler.changes, self._place)
        self.claims = GroupClaims(tables.members, tables.actor_table, self.queue, self._prepare)
        self.reasons = PlacementReasons(tables.members, scheduler)
        self._preparing: dict[bytes, GroupRecord] = {}
        self._expected: dict[bytes, dict[bytes, None]] = {}  # groups, by a node of before
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.CreateGroup: self.on_create,
            m.RemoveGroup: self.on_remove,
            m.AskGroups: self.on_ask,
            m.Reserved: self.on_reserved,
        }
        for _, value in sorted(rows.get(placement_table.TABLE, {}).items()):
            self._restore(msgspec.msgpack.decode(value, type=GroupRow))

    def _restore(self, row: GroupRow) -> None:
        record = GroupRecord(row.request)
        record.state = row.state
        record.until_stored = None
        for index, where in enumerate(zip(row.nodes, row.incarnations, strict=True)):
            if where[0]:
                record.expected[index] = where
                self._expected.setdefault(where[0], {})[record.group_id] = None
        self._enter(record)
        self._wait(record)

    def _enter(self, record: GroupRecord) -> None:
        self._table.add(record)
        for needs in record.needs:
            self._scheduler.learn(needs)

    # ---- what clients ask ------------------------------------------------------------------

    def on_create(self, sender: Member, message: m.CreateGroup, now: float) -> None:
        """Make a group; it is answered once that is durable, wherever its bundles will be."""
        known = self._table.get(message.group_id)
        taken = self._table.named(message.namespace, message.name)
        if known is not None:
            self._when_stored(known, sender, message.seq)
        elif message.group_id in self._table.removed:
            self._tell(sender, message.seq, [self._table.removed[message.group_id]])
        elif message.job_id not in self._members.jobs:
            self._refuse(sender, message.seq, ProtocolError.code, "the job has ended")
        elif taken is not None:
            text = (
                f"A placement group with name {message.name!r} already exists in namespace "
                f"{message.namespace!r}; use another name, or zray.util.get_placement_group()"
            )
            self._refuse(sender, message.seq, PlacementGroupExistsError.code, text)
        elif self._table.bundles_of(message.job_id) + len(message.bundles) > limits.JOB_BUNDLES_MAX:
            text = (
                f"the program's placement groups have {self._table.bundles_of(message.job_id):,} "
                f"bundles, and a program may have {limits.JOB_BUNDLES_MAX:,}; remove groups that "
                "are not needed, with zray.util.remove_placement_group()"
            )
            self._refuse(sender, message.seq, TooManyBundlesError.code, text)
        else:
            record = GroupRecord(message)
            self._enter(record)
            self._when_stored(record, sender, message.seq)

            def durable(now: float) -> None:
                answers, record.until_stored = record.until_stored, None
                for answer in answers or ():
                    answer()
                self._wait(record)

            self._persist([record.row()], durable)

    def _when_stored(self, record: GroupRecord, sender: Member, about: int) -> None:
        def answer() -> None:
            self._tell(sender, about, [record.status()])

        if record.until_stored is None:
            answer()
        else:
            record.until_stored.append(answer)

    def _tell(self, sender: Member, about: int, groups: list[m.GroupStatus]) -> None:
        self._outbox.send(sender.process_id, m.Groups(0, about, groups))

    def _refuse(self, sender: Member, about: int, code: str, text: str) -> None:
        self._outbox.send(sender.process_id, m.Groups(0, about, [], False, code, text))

    def on_ask(self, sender: Member, message: m.AskGroups, now: float) -> None:
        """What is known of one group, or of all."""
        record = self._table.get(message.group_id)
        if message.name:
            record = self._table.named(message.namespace, message.name)
        elif not message.group_id:
            self._tell(sender, message.seq, self._all())
            return
        if record is None:
            gone = self._table.removed.get(message.group_id)
            self._tell(sender, message.seq, [gone] if gone is not None else [])
        elif message.placed and record.state != m.GROUP_CREATED:
            self._wait_for(record, sender, message.seq)
        else:
            self._tell(sender, message.seq, [self.status(record)])

    def _all(self) -> list[m.GroupStatus]:
        found: Found = {}
        known = [one for one in self._table.values() if one.until_stored is None]
        told = [one.status(self.reasons.of(one, found)) for one in known]
        return [*told, *self._table.removed.values()]

    def _wait_for(self, record: GroupRecord, sender: Member, about: int) -> None:
        """It is told when the group is placed, or gone; who asks too often, of the first now."""
        if sender.process_id not in record.waiters:
            for gone in [one for one in record.waiters if self._members.member(one) is None]:
                del record.waiters[gone]
        waiting = record.waiters.setdefault(sender.process_id, deque())
        waiting.append(about)
        if len(waiting) > limits.GROUP_WAITS_MAX:
            self._tell(sender, waiting.popleft(), [self.status(record)])

    def told(self, group_id: bytes) -> m.GroupStatus | None:
        """What is known of a group; None: there was none, or it is forgotten."""
        record = self._table.get(group_id)
        return self.status(record) if record is not None else self._table.removed.get(group_id)

    def status(self, record: GroupRecord) -> m.GroupStatus:
        """A group, with what it waits for."""
        return record.status(self.reasons.of(record))

    # ---- removal ---------------------------------------------------------------------------

    def on_remove(self, sender: Member, message: m.RemoveGroup, now: float) -> None:
        """Nobody wants the group any more."""

        def answer(_now: float) -> None:
            self._outbox.send(sender.process_id, m.Synced(0, message.seq))

        record = self._table.get(message.group_id)
        if record is not None:
            self._remove(record, answer)
        else:
            self._persist([], answer)

    def job_ended(self, job_id: bytes) -> None:
        """What was made in the job goes, unless it is detached."""
        for record in self._table.of_job(job_id):
            if not record.request.detached:
                self._remove(record, lambda _now: None)

    def _remove(self, record: GroupRecord, then: Callable[[float], None]) -> None:
        """Durable, then told; what is in the way of that ends by itself."""
        group_id = record.group_id
        self.queue.remove(record)
        self.claims.drop(record)
        self._preparing.pop(group_id, None)
        for node_id, _ in record.expected.values():
            self._expected.get(node_id, {}).pop(group_id, None)
        self._table.remove(record)
        text = f"placement group {group_id.hex()} was removed"
        self._events.add(INFO, "PLACEMENT_GROUP", "GROUP_REMOVED", text, group_id)

        def durable(now: float) -> None:
            for view in {one: None for one in record.places if one is not None}:
                self._reserve(view, record, m.RELEASE, [])
            self._end_tasks(group_id)
            self._answer_waiters(record)
            then(now)

        self._persist([(placement_table.TABLE, group_id, None)], durable)

    def _answer_waiters(self, record: GroupRecord) -> None:
        waiters, record.waiters = record.waiters, {}
        found = [self.status(record)] if waiters else []
        for process_id, waiting in waiters.items():
            for about in waiting:
                self._outbox.send(process_id, m.Groups(0, about, found))

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Before tasks are placed: give places to groups that lack some."""
        self.queue.step(now)
        self.claims.step(now)

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        return min(self.queue.deadline(), self.claims.deadline())

    # ---- prepare ---------------------------------------------------------------------------

    def _wait(self, record: GroupRecord) -> None:
        """It is to be given places, if it lacks any, and they are not being asked for."""
        there = record.group_id in self._table and record.group_id not in self._preparing
        if there and record.unplaced() and not record.expected:
            self.queue.add(record)

    def check(self) -> None:
        """Once a second: nodes that are silent are not waited for."""
        for record in [*self._preparing.values()]:
            if any(not view.usable for view in record.awaited):
                self._abort(record)
                self._wait(record)

    def _place(self, record: GroupRecord) -> bool:
        """Ask nodes for the bundles that have no place; False: there are none that have room."""
        stuck = record.stuck
        if record.places[stuck] is None and not self._policy.has_room(record.needs[stuck]):
            return False
        wanted = (record.request.strategy, record.needs, record.places)
        choice = self._policy.choose(*wanted, record.refusing)
        if isinstance(choice, int) and record.refusing:
            record.refusing.clear()  # all that might have room were asked: once more
            choice = self._policy.choose(*wanted)
        if isinstance(choice, int):
            record.stuck = choice
            return False
        self._prepare(record, choice)
        return True

    def _prepare(self, record: GroupRecord, choice: Choice) -> None:
        self.claims.drop(record)
        record.round += 1
        by_node: dict[NodeView, list[int]] = {}
        for index, view in sorted(choice.items(), key=lambda pair: pair[0]):
            record.places[index] = view
            placement_table.reserve(view, record.group_id, index, record.amounts[index])
            by_node.setdefault(view, []).append(index)
        self._preparing[record.group_id] = record
        record.awaited = dict.fromkeys(by_node)
        for view, indices in by_node.items():
            self._reserve(view, record, m.PREPARE, indices)

    def _reserve(self, view: NodeView, record: GroupRecord, step: int, indices: list[int]) -> None:
        parts = record.parts(indices)
        self._outbox.send(view.node_id, m.Reserve(0, record.group_id, record.round, step, parts))

    def on_reserved(self, node: NodeMember, message: m.Reserved, now: float) -> None:
        """A node has taken a step, or could not."""
        view, group_id = node.view, message.group_id
        record = self._table.get(group_id)
        if message.outcome == m.RELEASED:
            if record is None:
                placement_table.release(view, group_id, [*view.bundles.get(group_id, ())])
            return
        if record is None or message.round != record.round or view not in record.awaited:
            if message.outcome == m.PREPARED:
                self._not_wanted(view, group_id, message.round)
            return
        del record.awaited[view]
        if message.outcome == m.UNPREPARED:
            record.refused = f"node {node.info.name} has refused it: {message.text}"
            record.refusing[view] = None
            placement_table.release(view, group_id, record.tentative()[view])
            self._forget_places(record, view)
            self._abort(record)
            self.queue.pause(record, now)
        elif not record.awaited:
            self._decide(record)

    def _not_wanted(self, view: NodeView, group_id: bytes, number: int) -> None:
        """A node that was asked twice has refused, and then not; or it is told so a second time."""
        record = self._table.get(group_id)
        if record is None:
            self._outbox.send(view.node_id, m.Reserve(0, group_id, number, m.RELEASE, []))
            return
        others = [index for index, place in enumerate(record.places) if place is not view]
        if others:
            self._reserve(view, record, m.RELEASE, others)

    @staticmethod
    def _forget_places(record: GroupRecord, view: NodeView) -> None:
        for index in record.tentative().get(view, ()):
            record.places[index] = None

    def _abort(self, record: GroupRecord) -> None:
        """Not all nodes have room after all: none is to keep any of it."""
        self._preparing.pop(record.group_id, None)
        record.awaited.clear()
        for view, indices in record.tentative().items():
            self._reserve(view, record, m.RELEASE, indices)
            placement_table.release(view, record.group_id, indices)
            self._forget_places(record, view)

    # ---- commit ----------------------------------------------------------------------------

    def _decide(self, record: GroupRecord) -> None:
        """All nodes have prepared: from now on the bundles are there."""
        self._preparing.pop(record.group_id, None)
        record.refusals, record.refused = 0, ""
        record.refusing.clear()
        record.placed.update(dict.fromkeys(i for i, one in enumerate(record.places) if one))
        number = record.round
        self._persist([record.row()], lambda now: self._decided(record, number))

    def _decided(self, record: GroupRecord, number: int) -> None:
        record.stored = number
        if record.group_id not in self._table:
            return
        by_node: dict[NodeView, list[int]] = {}
        for index in record.placed:
            view = record.places[index]
            assert view is not None
            if (record.group_id, index) not in view.committed:
                by_node.setdefault(view, []).append(index)
        for view, indices in by_node.items():
            self._commit(view, record, sorted(indices))
        if record.is_whole():
            self._table.set_state(record, m.GROUP_CREATED)
            record.lost = ""
            self._answer_waiters(record)
        self._wait(record)

    def _commit(self, view: NodeView, record: GroupRecord, indices: list[int]) -> None:
        for index in indices:
            placement_table.commit(view, record.group_id, index)
        self._reserve(view, record, m.COMMIT, indices)
        self._scheduler.in_groups.at_home(record.group_id, view)

    # ---- nodes -----------------------------------------------------------------------------

    def announced(self, node: NodeMember, held: list[m.HeldBundle]) -> None:
        """Compare the bundles that a node has with those that it should have."""
        view = node.view
        told = {(one.group_id, one.index): one for one in held}
        before = [(group_id, index) for group_id, ones in view.bundles.items() for index in ones]
        for group_id, index in before:
            if (group_id, index) not in told:
                self._missing(view, group_id, index)
        for one in held:
            self._confirm(node, one)
        for group_id in self._expected.pop(node.process_id, ()):
            record = self._table.get(group_id)
            if record is not None:
                self._not_there(record, node.process_id)

    def _missing(self, view: NodeView, group_id: bytes, index: int) -> None:
        record = self._table.get(group_id)
        if record is None or index >= len(record.places):  # as that node said, and nobody else
            placement_table.release(view, group_id, [index])
        elif view in record.awaited:  # the question was lost
            self._reserve(view, record, m.PREPARE, [index])
        elif record.places[index] is view:
            placement_table.release(view, group_id, [index])
            self._lose(record, [index], f"node {view.node_id.hex()} has it no more")

    def _confirm(self, node: NodeMember, one: m.HeldBundle) -> None:
        """A node has this bundle."""
        view = node.view
        record = self._table.get(one.group_id)
        here = (node.process_id, node.incarnation)
        if one.index not in view.bundles.get(one.group_id, {}):
            placement_table.reserve(
                view, one.group_id, one.index, tuple((n, a) for n, a in one.resources)
            )
        if record is not None and record.expected.get(one.index) == here:
            del record.expected[one.index]
            record.places[one.index] = view
            record.placed[one.index] = None
        mine = record is not None and one.index < len(record.places)
        mine = mine and record is not None and record.places[one.index] is view
        if record is None or not mine:
            if one.committed:
                placement_table.commit(view, one.group_id, one.index)
            parts = [] if record is None else [m.PlacedBundle(one.index, one.resources)]
            number = one.round if record is None else record.round
            self._outbox.send(view.node_id, m.Reserve(0, one.group_id, number, m.RELEASE, parts))
            if record is not None:
                placement_table.release(view, one.group_id, [one.index])
        elif one.index in record.placed:
            if self._is_decided(record, one.index, view):
                self._commit(view, record, [one.index])
        elif view in record.awaited and one.round == record.round:
            self.on_reserved(node, m.Reserved(0, one.group_id, one.round, m.PREPARED), 0.0)

    def _is_decided(self, record: GroupRecord, index: int, view: NodeView) -> bool:
        """Whether that is durable; else its commit follows."""
        return record.stored >= record.round or (record.group_id, index) in view.committed

    def node_died(self, node_id: bytes, view: NodeView | None, why: str) -> None:
        """Bundles that were there need another place. ``view``: None of a node of before."""
        for group_id in [*view.bundles] if view is not None else ():
            record = self._table.get(group_id)
            if record is not None and view is not None:
                if view in record.awaited or view in record.tentative():
                    self._forget_places(record, view)
                    self._abort(record)
                    self._wait(record)
                self._lose(record, record.at(view), why)
        for group_id in self._expected.pop(node_id, ()):
            record = self._table.get(group_id)
            if record is not None:
                self._not_there(record, node_id)

    def _not_there(self, record: GroupRecord, node_id: bytes) -> None:
        """A node of before the restart does not have what it had."""
        gone = [index for index, where in record.expected.items() if where[0] == node_id]
        for index in gone:
            del record.expected[index]
        if gone:
            self._lose(record, gone, "its node did not return after the head's restart")
        elif not record.expected:
            self._wait(record)

    def _lose(self, record: GroupRecord, indices: list[int], why: str) -> None:
        if not indices:
            return
        for index in indices:
            view = record.places[index]
            record.places[index] = None
            record.placed.pop(index, None)
            if view is not None and not record.at(view):
                self._scheduler.in_groups.gone(record.group_id, view)
        self._table.set_state(record, m.GROUP_RESCHEDULING)
        record.lost = why
        text = f"placement group {record.group_id.hex()} has lost bundles: {why}"
        self._events.add(WARNING, "PLACEMENT_GROUP", "GROUP_RESCHEDULING", text, record.group_id)
        self._persist([record.row()], lambda _now: self._wait(record))
