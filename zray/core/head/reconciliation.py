"""What raylets say that they have, against what the head believes: tasks, holds, objects, actors.

A new session reconciles full state, never increments; within it, raylets report what changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.core.head.actor_reconciliation import ActorReconciliation
from zray.core.head.definitions import Definitions
from zray.core.head.holders import Holders
from zray.core.head.leases import Leases
from zray.core.head.members import Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.recovery import Recovery
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_records import ASSIGNED, GONE, READY, TaskRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.transfers import Transfers
from zray.core.machine import Outbox
from zray.core.resources import Vector
from zray.ids import object_id, split_objects, split_tasks, task_of
from zray.protocol.messages import (
    Announce,
    Begun,
    Credit,
    Discard,
    Free,
    Have,
    HeldTask,
    Hold,
    JobEnded,
    Message,
    Outcome,
    Returned,
    Submit,
)


class Reconciliation:
    """``worker_ended``: a raylet has a worker no more."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        counters: dict[str, int],
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        scheduler: TaskScheduler,
        recovery: Recovery,
        transfers: Transfers,
        holders: Holders,
        definitions: Definitions,
        task_manager: TaskManager,
        task_outcomes: TaskOutcomes,
        actors: ActorReconciliation,
        leases: Leases,
        worker_ended: Callable[[NodeMember, bytes], None],
    ) -> None:
        self._outbox = outbox
        self._counters = counters
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._scheduler = scheduler
        self._recovery = recovery
        self._transfers = transfers
        self._holders = holders
        self._definitions = definitions
        self._task_manager = task_manager
        self._task_outcomes = task_outcomes
        self._actors = actors
        self._leases = leases
        self._worker_ended = worker_ended
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Announce: self.on_announce,
            Credit: self.on_credit,
            Returned: self.on_returned,
            Begun: self.on_begun,
            Have: self.on_have,
        }

    # ---- all that a raylet has -------------------------------------------------------------

    def on_announce(self, node: NodeMember, message: Announce, now: float) -> None:
        """Compare everything the raylet has with everything the head believes it has."""
        view = node.view
        view.new_session()
        node.resynced = True
        node.away = False
        self._members.awaited.pop(node.process_id, None)
        held = {(task.task_id, task.attempt) for task in message.tasks}
        for task_id, record in [*view.assigned.items()]:
            if (task_id, record.attempt) not in held:  # it was on its way when the link was cut
                self._scheduler.release(task_id, record)
                self._again(task_id, record)
        if self._recovery.active:
            for task in message.failed:
                self._task_manager.failed_before(task)
        not_yours = [task for task in message.tasks if not self._confirm(node, task)]
        if not_yours:
            self._outbox.send(node.process_id, Discard(0, not_yours))
        for holds in message.holds:
            self._holders.on_hold(node, Hold(0, holds.holder, holds.object_ids, True), now)
        living = {holds.holder for holds in message.holds}
        for worker_id in [worker for worker in node.workers if worker not in living]:
            self._worker_ended(node, worker_id)
        self._announced_objects(node, message.objects)
        self._actors.announced(node, message.actors)
        self._leases.announced(node, message.leases, now)
        for job_id in message.jobs:
            if job_id not in self._members.jobs:
                self._outbox.send(node.process_id, JobEnded(0, job_id))
        self._transfers.retry()

    def _again(self, task_id: bytes, record: TaskRecord) -> None:
        """A task that no raylet holds any more, and that did not fail."""
        if record.cancelled:
            record.state = GONE
            record.node = None
            self._task_manager.cancel(task_id, record, force=False)
        else:
            self._task_manager.requeue(task_id, record)

    def _confirm(self, node: NodeMember, held: HeldTask, *, is_new: bool = False) -> bool:
        """Whether the attempt that the raylet has counts; if so, the task is there.

        ``is_new``: this head may be the first to hear of it.
        """
        record = self._tasks.get(held.task_id)
        if record is None and held.makes_actor:
            if self._actors.has_made(node, held):
                return True
            record = self._actors.adopt_creation(node, held)
            if record is None:
                return False
        elif record is None:
            if held.job_id not in self._members.jobs or not (is_new or self._recovery.active):
                return False
            outcome = self._objects.get(object_id(held.task_id))
            if outcome is not None and outcome.kind != PENDING:
                return False  # another node has told of a later attempt, which has ended
            template = self._definitions.templates.get(held.template_id)
            record = TaskRecord(None, template, held.job_id, b"")
            self._tasks.add(held.task_id, record)
            self._members.jobs[held.job_id].unfinished += 1
        elif record.state == ASSIGNED:
            if record.attempt >= held.attempt or not self._recovery.is_inherited(held.task_id):
                mine = record.node is node.view and record.attempt == held.attempt
                if mine and record.cancelled:  # that may not have arrived
                    self._task_manager.cancel(held.task_id, record, record.forced)
                return mine
            self._scheduler.release(held.task_id, record)  # another node has an earlier one
        elif record.was_given() and (not record.parked or record.attempt >= held.attempt):
            return False  # this head gave it to somebody else since, or has counted its end
        elif record.state == READY:
            self._scheduler.take_out(record)
        record.parked = False
        record.attempt = held.attempt
        record.failures = max(record.failures, held.failures)
        self._recovery.inherit(held.task_id)
        self._scheduler.adopt(node.view, held.task_id, record)
        return True

    def _announced_objects(self, node: NodeMember, outcomes: list[Outcome]) -> None:
        by_task: dict[bytes, list[Outcome]] = {}
        unclaimed: dict[bytes, Outcome] = {}
        for outcome in outcomes:
            if self._tasks.get(task_of(outcome.object_id)) is not None:
                by_task.setdefault(task_of(outcome.object_id), []).append(outcome)
            else:
                unclaimed[outcome.object_id] = outcome
        for task_id, group in by_task.items():
            task = self._tasks[task_id]
            if task.state != ASSIGNED:
                self._task_outcomes.commit(task_id, task, group, (node.process_id,))
            elif task.node is not node.view:  # else its DONE follows
                self._holders.refuse_copies(group, node)
        claimed = list(unclaimed)
        while claimed:  # what is found may refer to others
            known, recovers = self._objects.records, self._recovery.active
            claimed = [oid for oid in unclaimed if recovers or oid in known]
            for oid in claimed:
                self._recovery.hold(oid)
                self._holders.found(unclaimed.pop(oid), node.process_id)
        self._holders.refuse_copies(unclaimed.values(), node)

    def on_begun(self, node: NodeMember, message: Begun, now: float) -> None:
        """Tasks of a node's workers, which it has begun by itself, are the cluster's."""
        not_yours = []
        for task in message.tasks:
            who = (task.spec.task_id, task.attempt, message.job_id, task.spec.template_id)
            held = HeldTask(*who, task.spec.failures)
            if not self._confirm(node, held, is_new=True):
                not_yours.append(held)
        specs = [task.spec for task in message.tasks]
        submit = Submit(message.seq, message.job_id, message.submitter, specs)
        self._task_manager.on_submit(node, submit, now)
        if not_yours:
            self._outbox.send(node.process_id, Discard(0, not_yours))

    # ---- what changes ----------------------------------------------------------------------

    def on_credit(self, node: NodeMember, message: Credit, now: float) -> None:
        """How many tasks a node takes, and what its blocked ones do not use."""
        released: Vector = dict(message.released)
        node.view.report(message.granted, released)
        node.view.set_floors(message.floors)
        node.view.ending = message.ending
        node.view.live = node.announced and node.connected

    def on_returned(self, node: NodeMember, message: Returned, now: float) -> None:
        """A node gives tasks back that did not start there."""
        ids = split_tasks(message.task_ids)
        self._scheduler.returned(node.view, len(ids), now)
        for task_id in reversed(ids):
            record = self._tasks.get(task_id)
            if record is not None and record.node is node.view:
                self._counters["reclaimed"] += 1
                self._scheduler.release(task_id, record)
                record.since = now
                record.near = b""  # it was taken back for a node that has nothing to do
                self._again(task_id, record)

    def on_have(self, node: NodeMember, message: Have, now: float) -> None:
        """A node has copies of these by now."""
        unheld = []
        for oid in split_objects(message.object_ids):
            record = self._objects.get(oid)
            if record is not None and record.kind >= 0:
                self._objects.add_location(record, node.process_id)
                self._transfers.arrived(node.process_id, oid)
            else:
                unheld.append(oid)
        if unheld:
            self._outbox.send(node.process_id, Free(0, b"".join(unheld)))
