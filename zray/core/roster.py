"""What the coming and going of members means for the cluster's state.

Joins, full-state announcements, deaths of nodes, workers and drivers: each moves tasks and holds
in the GCS's tables. Reconnection always reconciles full state, never increments.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray.core.gcs import RECOVERY, Gcs
from zray.core.members import JobMember, Member, NodeMember, NodeRow
from zray.core.resources import Vector
from zray.core.tasks import ASSIGNED, GONE, READY, TaskRecord
from zray.errors import NodeDiedError
from zray.ids import split_objects, split_tasks, task_of
from zray.protocol.messages import (
    Announce,
    Credit,
    Discard,
    Free,
    Have,
    HeldTask,
    Hello,
    JobEnded,
    Notice,
    Outcome,
    Returned,
    WorkerDied,
)


class Roster:
    def __init__(self, gcs: Gcs) -> None:
        self.gcs = gcs
        self._joining: dict[bytes, int] = {}  # node -> incarnation being made durable

    # ---- joining ---------------------------------------------------------------------------

    def node_joins(self, hello: Hello, now: float, welcome: Callable[[], None]) -> None:
        """A raylet said HELLO and is not fenced; ``welcome`` is called once that is durable."""
        gcs, info = self.gcs, hello.node
        assert info is not None
        node = gcs.members.nodes.get(hello.process_id)
        if node is not None and node.incarnation == hello.incarnation:
            self._resume(node, now)
            welcome()
            return
        if node is not None:
            self.node_died(node, "a new incarnation of the node has joined", now)

        def then(_now: float) -> None:
            if gcs.members.fenced(hello.process_id, hello.incarnation):
                return
            joined = gcs.members.nodes.get(hello.process_id)
            if joined is None or joined.incarnation != hello.incarnation:
                joined = NodeMember(hello, info, _now)
                gcs.members.nodes[hello.process_id] = joined
                gcs.scheduler.add_node(joined.view)
            self._resume(joined, _now)
            welcome()

        row = NodeRow(hello.incarnation, True, info.name)
        known = gcs.members.node_rows.get(hello.process_id)
        if known == row:
            then(now)
        else:
            gcs.persist([gcs.members.row(hello.process_id, row)], then)

    def _resume(self, node: NodeMember, now: float) -> None:
        self.gcs.outbox.discard(node.process_id)
        node.begin_session(now)
        node.announced = False
        node.refused_since = None
        node.view.usable = False

    def job_joins(self, hello: Hello, now: float, welcome: Callable[[], None]) -> None:
        """A driver said HELLO."""
        gcs, info = self.gcs, hello.job
        assert info is not None
        job = gcs.members.jobs.get(hello.process_id)
        if job is not None:
            gcs.outbox.discard(job.process_id)
            job.begin_session(now)
            welcome()
            return

        def then(_now: float) -> None:
            joined = gcs.members.jobs.setdefault(
                hello.process_id, JobMember(hello.process_id, info, _now)
            )
            joined.begin_session(_now)
            welcome()

        gcs.persist([("jobs", hello.process_id, msgspec.msgpack.encode(info))], then)

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

    # ---- a raylet's reports ----------------------------------------------------------------

    def on_announce(self, node: NodeMember, message: Announce, now: float) -> None:
        """Compare everything the raylet has with everything the head believes it has."""
        gcs, view = self.gcs, node.view
        view.new_session()
        node.announced = True
        gcs.members.awaited.pop(node.process_id, None)
        held = {task.task_id: task for task in message.tasks}
        for task_id, record in [*view.assigned.items()]:
            if task_id not in held:  # it was on its way when the link was cut
                gcs.scheduler.release(task_id, record)
                self._again(task_id, record)
        not_yours = [task for task in message.tasks if not self._confirm(node, task)]
        if not_yours:
            gcs.outbox.send(node.process_id, Discard(0, not_yours))
        for holds in message.holds:
            gcs.workers[holds.holder] = node.process_id
            node.workers[holds.holder] = None
            gcs.objects.set_holds(holds.holder, split_objects(holds.object_ids))
        living = {holds.holder for holds in message.holds}
        for worker_id in [worker for worker in node.workers if worker not in living]:
            self._worker_gone(node, worker_id, now)
        self._announced_objects(node, message.objects)
        gcs.transfers.retry()

    def _again(self, task_id: bytes, record: TaskRecord) -> None:
        """A task that no raylet holds any more, and that did not fail."""
        if record.cancelled:
            self.gcs.cancel(task_id, self._queued(record), force=False)
        elif record.spec is not None and record.template is not None:
            self.gcs.scheduler.push(record, front=True)
        else:
            self.gcs.tasks.pop(task_id, None)

    @staticmethod
    def _queued(record: TaskRecord) -> TaskRecord:
        record.state = GONE
        record.node = None
        return record

    def _confirm(self, node: NodeMember, held: HeldTask) -> bool:
        gcs = self.gcs
        record = gcs.tasks.get(held.task_id)
        if record is None:
            if held.job_id not in gcs.members.jobs or not gcs.recovering():
                return False
            record = TaskRecord(None, gcs.templates.get(held.template_id), held.job_id, b"")
            gcs.tasks[held.task_id] = record
            gcs.members.jobs[held.job_id].unfinished += 1
        elif record.state == ASSIGNED:
            return record.node is node.view and record.attempt == held.attempt
        elif not record.parked and record.attempt:
            return False  # this head has since given it to somebody else
        elif record.state == READY:
            gcs.scheduler.withdraw(record, GONE)
        record.parked = False
        record.attempt = held.attempt
        gcs.scheduler.adopt(node.view, held.task_id, record)
        return True

    def _announced_objects(self, node: NodeMember, outcomes: list[Outcome]) -> None:
        gcs = self.gcs
        unheld = []
        by_task: dict[bytes, list[Outcome]] = {}
        for outcome in outcomes:
            record = gcs.objects.get(outcome.object_id)
            if record is not None and record.kind >= 0:
                gcs.objects.add_location(record, node.process_id)
            else:
                by_task.setdefault(task_of(outcome.object_id), []).append(outcome)
        for task_id, group in by_task.items():
            task = gcs.tasks.get(task_id)
            if task is not None and task.state == ASSIGNED:
                continue  # its DONE follows
            if task is not None:
                gcs.commit(task_id, task, group, (node.process_id,))
            elif gcs.recovering():
                for outcome in group:
                    gcs.objects.hold(RECOVERY, outcome.object_id, process=True)
                    gcs.settle_object(outcome, (node.process_id,))
            else:
                unheld += [outcome.object_id for outcome in group]
        if unheld:
            gcs.outbox.send(node.process_id, Free(0, b"".join(unheld)))

    def on_credit(self, node: NodeMember, message: Credit, now: float) -> None:
        released: Vector = dict(message.released)
        node.view.report(message.granted, released)
        node.view.usable = node.announced and node.connected

    def on_returned(self, node: NodeMember, message: Returned, now: float) -> None:
        gcs = self.gcs
        ids = split_tasks(message.task_ids)
        gcs.scheduler.returned(node.view, len(ids), now)
        for task_id in reversed(ids):
            record = gcs.tasks.get(task_id)
            if record is not None and record.node is node.view:
                gcs.counters["reclaimed"] += 1
                gcs.scheduler.release(task_id, record)
                self._again(task_id, record)

    def on_have(self, node: NodeMember, message: Have, now: float) -> None:
        gcs = self.gcs
        unheld = []
        for oid in split_objects(message.object_ids):
            record = gcs.objects.get(oid)
            if record is not None and record.kind >= 0:
                gcs.objects.add_location(record, node.process_id)
            else:
                unheld.append(oid)
        if unheld:
            gcs.outbox.send(node.process_id, Free(0, b"".join(unheld)))

    def on_worker_died(self, node: NodeMember, message: WorkerDied, now: float) -> None:
        self._worker_gone(node, message.worker_id, now)

    # ---- ends ------------------------------------------------------------------------------

    def _worker_gone(self, node: NodeMember, worker_id: bytes, now: float) -> None:
        gcs = self.gcs
        node.workers.pop(worker_id, None)
        gcs.workers.pop(worker_id, None)
        gcs.objects.vanish(worker_id)
        gcs.forget_acks(worker_id)
        self._cancel_tasks_of(worker_id)

    def _cancel_tasks_of(self, submitter: bytes) -> None:
        """Tasks whose submitter is gone have nobody to give their results to."""
        gcs = self.gcs
        for task_id, record in [*gcs.tasks.items()]:
            if record.submitter == submitter and record.state != GONE:
                gcs.cancel(task_id, record, force=False)

    def node_died(self, node: NodeMember, why: str, now: float) -> None:
        """Fence the incarnation, move its tasks, void its copies and its workers' holds."""
        gcs = self.gcs
        gcs.members.nodes.pop(node.process_id, None)
        gcs.outbox.discard(node.process_id)
        gcs.transfers.session_lost(node.process_id)
        held = gcs.scheduler.remove_node(node.view)
        for task_id, record in held.items():
            record.node = None
            if record.cancelled or record.spec is None:
                record.state = GONE
                gcs.cancel(task_id, record, force=False)
            elif not gcs.retry(record):
                text = f"node {node.info.name} ({node.info.host}) died: {why}; it held the task"
                gcs.fail(task_id, record, NodeDiedError, text, node.info.name)
        for worker_id in [*node.workers]:
            self._worker_gone(node, worker_id, now)
        gcs.objects.forget_place(node.process_id)
        gcs.transfers.retry()
        gcs.note(f"node {node.info.name} ({node.info.host}) is dead: {why}")
        row = NodeRow(node.incarnation, False, node.info.name)
        gcs.persist([gcs.members.row(node.process_id, row)], lambda _now: None)

    def never_returned(self, node_id: bytes, why: str) -> None:
        """A node of before the restart is dead: its incarnation must not come back."""
        gcs = self.gcs
        gcs.members.awaited.pop(node_id, None)
        old = gcs.members.node_rows[node_id]
        row = NodeRow(old.incarnation, False, old.name)
        gcs.note(f"node {old.name} is dead: {why}")
        gcs.persist([gcs.members.row(node_id, row)], lambda _now: None)

    def job_ended(self, job: JobMember, why: str, now: float) -> None:
        """A driver is gone: its tasks end, its objects go, its workers stop."""
        gcs = self.gcs
        del gcs.members.jobs[job.process_id]
        gcs.outbox.discard(job.process_id)
        gcs.transfers.session_lost(job.process_id)
        for task_id, record in [*gcs.tasks.items()]:
            if record.job_id == job.process_id and task_id in gcs.tasks:
                if record.node is not None:
                    gcs.scheduler.release(task_id, record)
                gcs.cancel(task_id, self._withdrawn(record), force=False)
        gcs.objects.vanish(job.process_id)
        gcs.forget_acks(job.process_id)
        gcs.objects.forget_place(job.process_id)
        for node in gcs.members.nodes.values():
            if job.process_id in node.known or job.resumed:
                node.known.discard(job.process_id)
                gcs.outbox.send(node.process_id, JobEnded(0, job.process_id))
        gcs.persist([("jobs", job.process_id, None)], lambda _now: None)

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
                self.job_ended(member, why, now)
            elif isinstance(member, bytes):
                self.never_returned(member, why)
        for group, reason in gcs.scheduler.warnings(now):
            gcs.note(reason)
            for job_id in group.queues:
                gcs.outbox.send(job_id, Notice(0, "ZR-3007", reason))
