"""What the coming and going of members means for the cluster's state.

Joins, full-state announcements, deaths of nodes, workers and drivers: each moves tasks and holds
in the GCS's tables. Reconnection always reconciles full state, never increments.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray import limits
from zray.core.head.gcs import Gcs
from zray.core.head.members import JobMember, Member, NodeMember, NodeRow
from zray.core.head.object_table import PENDING
from zray.core.head.task_records import ASSIGNED, GONE, READY, TaskRecord
from zray.core.machine import NEVER
from zray.core.resources import Vector
from zray.errors import NodeDiedError
from zray.ids import object_id, split_objects, split_tasks, task_of
from zray.protocol.messages import (
    Announce,
    Credit,
    Discard,
    DriverEnded,
    FindDriver,
    Free,
    Have,
    HeldTask,
    Hello,
    Hold,
    JobEnded,
    Notice,
    Outcome,
    Returned,
    WorkerDied,
)


class Reconciliation:
    """What members say of themselves, and what their coming and going means."""

    def __init__(self, gcs: Gcs) -> None:
        self.gcs = gcs
        self._joining: dict[bytes, int] = {}  # node -> incarnation being made durable
        self.look_at = 0.0  # when nodes are asked next for drivers that are away

    # ---- joining ---------------------------------------------------------------------------

    def node_joins(self, hello: Hello, now: float, welcome: Callable[[float], None]) -> None:
        """A raylet said HELLO and is not fenced; ``welcome`` is called once that is durable."""
        gcs, info = self.gcs, hello.node
        assert info is not None
        node = gcs.members.nodes.get(hello.process_id)
        if node is not None and node.incarnation == hello.incarnation:
            welcome(now)
            return
        if node is not None:
            self.node_died(node, "a new incarnation of the node has joined", now)
        known = gcs.members.node_rows.get(hello.process_id)
        row = NodeRow(hello.incarnation, True, info.name, info.resources)
        stored = known is not None and known.alive and known.incarnation == hello.incarnation

        def then(_now: float) -> None:
            if self._joining.get(hello.process_id) == hello.incarnation:
                del self._joining[hello.process_id]
            if gcs.members.fenced(hello.process_id, hello.incarnation):
                return
            if known is not None and known.incarnation != hello.incarnation:
                gcs.members.gone(hello.process_id, known)  # the incarnation of before the restart
            joined = gcs.members.nodes.get(hello.process_id)
            if joined is None or joined.incarnation != hello.incarnation:
                joined = NodeMember(hello, info, _now)
                gcs.members.nodes[hello.process_id] = joined
                gcs.scheduler.add_node(joined.view)
                gcs.offers.learn(info.offers)
            welcome(_now)

        if stored and self._joining.get(hello.process_id) != hello.incarnation:
            then(now)
        else:
            self._joining[hello.process_id] = hello.incarnation
            gcs.journal.persist([gcs.members.row(hello.process_id, row)], then)

    def job_joins(self, hello: Hello, now: float, welcome: Callable[[float], None]) -> None:
        """A driver said HELLO."""
        gcs, info = self.gcs, hello.job
        assert info is not None
        if hello.process_id in gcs.members.jobs:
            welcome(now)
            return

        def then(_now: float) -> None:
            job = JobMember(hello.process_id, info, _now)
            gcs.members.jobs.setdefault(hello.process_id, job)
            welcome(_now)

        gcs.journal.persist([("jobs", hello.process_id, msgspec.msgpack.encode(info))], then)

    def session_begins(self, member: Member, now: float) -> None:
        """The peer is welcome under a route of its own; nothing of an earlier session counts."""
        self.gcs.outbox.discard(member.process_id)
        self.gcs.prints.heard(member.process_id)
        self.gcs.definitions.session_begins(member)
        member.begin_session(now)
        self.gcs.transfers.retry()

    def session_lost(self, member: Member, now: float) -> None:
        """The link is cut. Nothing is decided by that: only that no new work is sent."""
        if not member.connected:
            return
        member.connected = False
        member.lost = now
        self.gcs.outbox.discard(member.process_id)
        self.gcs.transfers.session_lost(member.process_id)
        if isinstance(member, NodeMember):
            member.view.usable = False
        else:
            self.look_at = now

    def look_for_drivers(self, now: float) -> None:
        """Ask a node of each driver that is away, on its machine, whether the process has ended."""
        members = self.gcs.members
        away = members.away()
        self.look_at = now + limits.FIND_DRIVER_S if away else NEVER
        if not away:
            return
        there: dict[str, NodeMember] = {}  # of each machine the node that was heard of last
        for node in sorted(members.nodes.values(), key=lambda node: node.heard):
            if node.announced and node.connected:
                there[node.info.machine] = node
        for job in away:
            if job.info.machine in there:
                question = FindDriver(0, job.process_id, job.info.pid)
                self.gcs.outbox.send(there[job.info.machine].process_id, question)

    def on_driver_ended(self, node: NodeMember, message: DriverEnded, now: float) -> None:
        """A node has seen that the driver's process is gone."""
        job = self.gcs.members.jobs.get(message.job_id)
        if job is not None and not job.connected and job.info.machine == node.info.machine:
            self.job_ended(job, "its process has ended", now)

    # ---- a raylet's reports ----------------------------------------------------------------

    def on_announce(self, node: NodeMember, message: Announce, now: float) -> None:
        """Compare everything the raylet has with everything the head believes it has."""
        gcs, view = self.gcs, node.view
        view.new_session()
        node.resynced = True
        gcs.members.awaited.pop(node.process_id, None)
        held = {(task.task_id, task.attempt) for task in message.tasks}
        for task_id, record in [*view.assigned.items()]:
            if (task_id, record.attempt) not in held:  # it was on its way when the link was cut
                gcs.scheduler.release(task_id, record)
                self._again(task_id, record)
        if gcs.recovering():
            for task in message.failed:
                gcs.task_manager.failed_before(task)
        not_yours = [task for task in message.tasks if not self._confirm(node, task)]
        if not_yours:
            gcs.outbox.send(node.process_id, Discard(0, not_yours))
        for holds in message.holds:
            gcs.on_hold(node, Hold(0, holds.holder, holds.object_ids, True), now)
        living = {holds.holder for holds in message.holds}
        for worker_id in [worker for worker in node.workers if worker not in living]:
            self._worker_gone(node, worker_id, now)
        self._announced_objects(node, message.objects)
        gcs.actors.announced(node, message.actors, now)
        for job_id in message.jobs:
            if job_id not in gcs.members.jobs:
                gcs.outbox.send(node.process_id, JobEnded(0, job_id))
        gcs.transfers.retry()

    def _again(self, task_id: bytes, record: TaskRecord) -> None:
        """A task that no raylet holds any more, and that did not fail."""
        if record.cancelled:
            self.gcs.task_manager.cancel(task_id, self._queued(record), force=False)
        else:
            self.gcs.task_manager.requeue(task_id, record)

    @staticmethod
    def _queued(record: TaskRecord) -> TaskRecord:
        record.state = GONE
        record.node = None
        return record

    def _confirm(self, node: NodeMember, held: HeldTask) -> bool:
        gcs = self.gcs
        record = gcs.tasks.get(held.task_id)
        if record is None and held.makes_actor:
            if gcs.actors.has_made(node, held):
                return True
            record = gcs.actors.adopt_creation(node, held)
            if record is None:
                return False
        elif record is None:
            if held.job_id not in gcs.members.jobs or not gcs.recovering():
                return False
            outcome = gcs.objects.get(object_id(held.task_id))
            if outcome is not None and outcome.kind != PENDING:
                return False  # another node has told of a later attempt, which has ended
            template = gcs.definitions.templates.get(held.template_id)
            record = TaskRecord(None, template, held.job_id, b"")
            gcs.tasks.add(held.task_id, record)
            gcs.members.jobs[held.job_id].unfinished += 1
        elif record.state == ASSIGNED:
            if record.attempt >= held.attempt or not gcs.recovery.is_inherited(held.task_id):
                mine = record.node is node.view and record.attempt == held.attempt
                if mine and record.cancelled:  # that may not have arrived
                    gcs.task_manager.cancel(held.task_id, record, record.forced)
                return mine
            gcs.scheduler.release(held.task_id, record)  # another node has told of an earlier one
        elif record.attempt and (not record.parked or record.attempt >= held.attempt):
            return False  # this head gave it to somebody else since, or has counted its end
        elif record.state == READY:
            gcs.scheduler.withdraw(record, GONE)
        record.parked = False
        record.attempt = held.attempt
        record.failures = max(record.failures, held.failures)
        gcs.recovery.inherit(held.task_id)
        gcs.scheduler.adopt(node.view, held.task_id, record)
        return True

    def _announced_objects(self, node: NodeMember, outcomes: list[Outcome]) -> None:
        gcs = self.gcs
        by_task: dict[bytes, list[Outcome]] = {}
        unclaimed: dict[bytes, Outcome] = {}
        for outcome in outcomes:
            if gcs.tasks.get(task_of(outcome.object_id)) is not None:
                by_task.setdefault(task_of(outcome.object_id), []).append(outcome)
            else:
                unclaimed[outcome.object_id] = outcome
        for task_id, group in by_task.items():
            task = gcs.tasks[task_id]
            if task.state != ASSIGNED:
                gcs.task_manager.commit(task_id, task, group, (node.process_id,))
            elif task.node is not node.view:  # else its DONE follows
                gcs.holders.refuse_copies(group, node)
        claimed = list(unclaimed)
        while claimed:  # what is found may refer to others
            claimed = [oid for oid in unclaimed if gcs.recovering() or oid in gcs.objects.records]
            for oid in claimed:
                gcs.recovery.hold(oid)
                gcs.holders.found(unclaimed.pop(oid), node.process_id)
        gcs.holders.refuse_copies(unclaimed.values(), node)

    def on_credit(self, node: NodeMember, message: Credit, now: float) -> None:
        """How many tasks a node takes, and what its blocked ones do not use."""
        released: Vector = dict(message.released)
        node.view.report(message.granted, released)
        node.view.floor, node.view.free_floor = message.floor, message.free_floor
        node.view.usable = node.announced and node.connected

    def on_returned(self, node: NodeMember, message: Returned, now: float) -> None:
        """A node gives tasks back that did not start there."""
        gcs = self.gcs
        ids = split_tasks(message.task_ids)
        gcs.scheduler.returned(node.view, len(ids), now)
        for task_id in reversed(ids):
            record = gcs.tasks.get(task_id)
            if record is not None and record.node is node.view:
                gcs.counters["reclaimed"] += 1
                gcs.scheduler.release(task_id, record)
                record.near = b""  # it was taken back for a node that has nothing to do
                self._again(task_id, record)

    def on_have(self, node: NodeMember, message: Have, now: float) -> None:
        """A node has copies of these by now."""
        gcs = self.gcs
        unheld = []
        for oid in split_objects(message.object_ids):
            record = gcs.objects.get(oid)
            if record is not None and record.kind >= 0:
                gcs.objects.add_location(record, node.process_id)
                gcs.transfers.arrived(node.process_id, oid)
            else:
                unheld.append(oid)
        if unheld:
            gcs.outbox.send(node.process_id, Free(0, b"".join(unheld)))

    def on_worker_died(self, node: NodeMember, message: WorkerDied, now: float) -> None:
        """A worker has ended: what it held is dropped, what it made ends."""
        self._worker_gone(node, message.worker_id, now)

    # ---- ends ------------------------------------------------------------------------------

    def _worker_gone(self, node: NodeMember, worker_id: bytes, now: float) -> None:
        gcs = self.gcs
        node.workers.pop(worker_id, None)
        gcs.processes.workers.pop(worker_id, None)
        gcs.actors.owner_gone(worker_id, "the worker that made it has ended")
        gcs.holders.broken(worker_id)
        gcs.definitions.process_gone(worker_id)
        gcs.objects.vanish(worker_id)
        gcs.results.forget(worker_id)
        self._cancel_tasks_of(worker_id)

    def _cancel_tasks_of(self, submitter: bytes) -> None:
        """Tasks whose submitter is gone end, unless somebody else has their references."""
        gcs = self.gcs
        for task_id, record in gcs.tasks.of_submitter(submitter):
            if record.state == GONE:
                continue
            if not self._is_wanted(task_id, record):
                gcs.task_manager.cancel(task_id, record, force=False)

    def _is_wanted(self, task_id: bytes, record: TaskRecord) -> bool:
        count = record.template.message.num_returns if record.template is not None else 1
        returns = [self.gcs.objects.get(object_id(task_id, index)) for index in range(count)]
        return any(known is not None and known.holders is not None for known in returns)

    def node_died(self, node: NodeMember, why: str, now: float) -> None:
        """Fence the incarnation; what it had moves once its death is durable."""
        if not node.ended:
            node.ended = True
            node.view.usable = False
            row = NodeRow(node.incarnation, False, node.info.name)
            stored = self.gcs.members.row(node.process_id, row)
            self.gcs.journal.persist([stored], lambda _now: self._bury(node, why, _now))

    def _bury(self, node: NodeMember, why: str, now: float) -> None:
        """Move the tasks of a dead incarnation, void its copies and its workers' holds."""
        gcs = self.gcs
        if gcs.members.nodes.get(node.process_id) is node:
            del gcs.members.nodes[node.process_id]
        gcs.outbox.discard(node.process_id)
        gcs.transfers.session_lost(node.process_id)
        # It may be one of before the restart that said HELLO and no more.
        row = NodeRow(node.incarnation, False, node.info.name, node.info.resources)
        gcs.members.gone(node.process_id, row)
        held = gcs.scheduler.remove_node(node.view)
        lost = f"node {node.info.name} ({node.info.host}) died: {why}"
        gcs.actors.node_died(node, lost, now)
        for task_id, record in held.items():
            record.node = None
            if task_id in gcs.actors.records:
                gcs.actors.creation_lost(task_id, record, lost, now)
            elif record.cancelled:
                record.state = GONE
                gcs.task_manager.cancel(task_id, record, force=False)
            elif not gcs.task_manager.retry(task_id, record):
                text = f"{lost}; it held the task"
                gcs.task_manager.fail(task_id, record, NodeDiedError, text, node.info.name)
        for worker_id in [*node.workers]:
            self._worker_gone(node, worker_id, now)
        gcs.objects.vanish(node.process_id)
        gcs.objects.forget_place(node.process_id)
        gcs.transfers.retry()
        gcs.note(f"node {node.info.name} ({node.info.host}) is dead: {why}")

    def process_ended(self, node_id: bytes, why: str, now: float) -> None:
        """It is proved that no process is that node any more."""
        node = self.gcs.members.nodes.get(node_id)
        if node is not None:
            self.node_died(node, why, now)
        elif node_id in self.gcs.members.awaited:
            self.never_returned(node_id, why)

    def never_returned(self, node_id: bytes, why: str) -> None:
        """A node of before the restart is dead: its incarnation must not come back."""
        members, old = self.gcs.members, self.gcs.members.node_rows[node_id]

        def then(_now: float) -> None:
            if members.gone(node_id, old):
                self.gcs.note(f"node {old.name} is dead: {why}")

        row = NodeRow(old.incarnation, False, old.name)
        self.gcs.journal.persist([members.row(node_id, row)], then)

    def job_ended(self, job: JobMember, why: str, now: float) -> None:
        """A driver is gone: its tasks end, its objects go, its workers stop."""
        gcs = self.gcs
        job.ended = True
        gcs.actors.job_ended(job.process_id)
        gcs.holders.broken(job.process_id)
        gcs.lineage.job_ended(job.process_id)
        del gcs.members.jobs[job.process_id]
        gcs.outbox.discard(job.process_id)
        gcs.prints.gone(job.process_id)
        gcs.transfers.session_lost(job.process_id)
        for task_id, record in gcs.tasks.of_job(job.process_id):
            if task_id in gcs.tasks:
                if record.node is not None:
                    gcs.scheduler.release(task_id, record)
                gcs.task_manager.cancel(task_id, self._withdrawn(record), force=False)
        gcs.objects.vanish(job.process_id)
        gcs.results.forget(job.process_id)
        gcs.objects.forget_place(job.process_id)
        gcs.transfers.retry()
        for node in gcs.members.nodes.values():
            node.known.discard(job.process_id)

        def durable(_now: float) -> None:  # else another head might start some of it again
            for node in gcs.members.nodes.values():
                gcs.outbox.send(node.process_id, JobEnded(0, job.process_id))
            gcs.definitions.process_gone(job.process_id)  # FORGET comes after that

        gcs.journal.persist([("jobs", job.process_id, None)], durable)

    def _belongings(self, job: JobMember, why: str) -> str:
        """What ends with a job, in words."""
        gcs = self.gcs
        actors = len(gcs.actors.records.of_job(job.process_id))
        objects = len(gcs.objects.held_by.get(job.process_id, ()))
        counted = [(job.unfinished, "unfinished task"), (actors, "actor"), (objects, "object")]
        words = [f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in counted if count]
        return f"{why}, so its job was ended, with {', '.join(words) or 'nothing left in it'}"

    def _withdrawn(self, record: TaskRecord) -> TaskRecord:
        if record.state == READY:
            self.gcs.scheduler.withdraw(record, GONE)
        return self._queued(record)

    # ---- time ------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Once a second: who is dead, and who should be warned."""
        gcs = self.gcs
        for member, why in gcs.members.check(now):
            if isinstance(member, NodeMember):
                self.node_died(member, why, now)
            elif isinstance(member, JobMember):
                gcs.members.job_lost(member.process_id, self._belongings(member, why))
                self.job_ended(member, why, now)
            elif isinstance(member, bytes):
                self.never_returned(member, why)
        proven, gcs.members.proven = gcs.members.proven, []
        for node in proven:
            if not node.ended:
                info = node.info
                row = NodeRow(node.incarnation, True, info.name, info.resources, info.liveness)
                gcs.journal.persist([gcs.members.row(node.process_id, row)], lambda _now: None)
        for group, reason in gcs.scheduler.warnings(now):
            gcs.note(reason)
            for job_id in group.queues:
                gcs.outbox.send(job_id, Notice(0, "ZR-3007", reason))
