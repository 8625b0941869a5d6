"""The GCS actor: owns the cluster's state and changes it only by messages from its mailbox.

This module is the life of tasks and objects: submit, dispatch, commit, retry, cancel, free. Who is
alive is `members`, who runs what `scheduler`, who holds what `objects`, durable tables `catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zray import limits
from zray.core import failures, resources
from zray.core.catalog import Catalog, Row
from zray.core.machine import NEVER, Outbox
from zray.core.members import JobMember, Member, Members, NodeMember
from zray.core.objects import PENDING, ObjectRecord, ObjectTable
from zray.core.recovery import Recovery
from zray.core.results import Results
from zray.core.scheduler import NodeView, TaskScheduler
from zray.core.tasks import ASSIGNED, GONE, READY, WAITING, TaskRecord, TemplateRecord
from zray.core.transfers import Transfers
from zray.errors import (
    ObjectLostError,
    ProtocolError,
    TaskCancelledError,
    ZrayError,
)
from zray.ids import object_id, split_objects, task_of
from zray.protocol.messages import (
    CANCELLED,
    CRASHED,
    ERROR,
    FAILED,
    FINISHED,
    LOCATED,
    Ack,
    Assignment,
    Cancel,
    CancelTask,
    Done,
    Drop,
    Export,
    Exported,
    Free,
    Hold,
    Job,
    Outcome,
    Put,
    Reclaim,
    Rejected,
    Submit,
    TaskDone,
    Tasks,
    TaskSpec,
    Template,
    Watch,
)


class Gcs:
    def __init__(self, epoch: int, rows: dict[str, dict[bytes, bytes]], now: float) -> None:
        self.epoch = epoch
        self.outbox: Outbox[bytes] = Outbox()  # by process id
        self.journal: list[tuple[int, list[Row]]] = []  # for the store, in order
        self.members = Members(rows, now)
        self.catalog = Catalog(rows, self.persist)
        self.scheduler = TaskScheduler()
        self.objects = ObjectTable()
        self.transfers = Transfers(self.outbox, self.objects, self.members, self.recovering)
        self.results = Results(self.outbox, self.objects, self.members)
        self.tasks: dict[bytes, TaskRecord] = {}
        self.templates: dict[bytes, TemplateRecord] = {}
        self.workers: dict[bytes, bytes] = {}  # worker -> its node
        self.unknown: dict[bytes, float] = {}  # awaited objects of unknown origin -> deadline
        self.notices: list[str] = []
        self.counters = {"finished": 0, "retried": 0, "stale": 0, "lost": 0, "reclaimed": 0}
        self._tokens = 0
        self._commits: dict[int, Callable[[float], None]] = {}
        self._acks: dict[bytes, int] = {}  # DONEs to acknowledge: with other messages, or soon
        self._ack_at = 0.0
        self.recovery = Recovery(self)

    # ---- durability ------------------------------------------------------------------------

    def persist(self, rows: list[Row], then: Callable[[float], None]) -> None:
        """Commit rows; ``then`` (which acknowledges or reveals them) runs once they are durable."""
        self._tokens += 1
        self._commits[self._tokens] = then
        self.journal.append((self._tokens, rows))

    def committed(self, token: int, now: float) -> None:
        self._commits.pop(token)(now)

    # ---- functions and templates -----------------------------------------------------------

    def on_export(self, sender: Member, message: Export, now: float) -> None:
        for inner in message.contained:
            self.objects.hold(message.function_id, inner)

        def durable() -> None:
            for record in self.templates.values():
                if record.message.function_id == message.function_id:
                    record.function_ready = True
            for task in [t for t in self.tasks.values() if t.state == WAITING]:
                self.advance(task)
            self.outbox.send(sender.process_id, Exported(0, [message.function_id]))

        self.catalog.export(message, durable)

    def on_template(self, sender: Member, message: Template, now: float) -> None:
        if message.template_id not in self.templates:
            ready = message.function_id in self.catalog.functions
            record = TemplateRecord(message, resources.needs(message.resources), ready)
            self.templates[message.template_id] = record

    # ---- submit ----------------------------------------------------------------------------

    def on_submit(self, sender: Member, message: Submit, now: float) -> None:
        job = self.members.jobs.get(message.job_id)
        submitter = message.submitter
        if job is None:
            self.outbox.send(
                sender.process_id,
                Rejected(0, message.seq, ProtocolError.code, "the job of these tasks has ended"),
            )
            return
        self._note_worker(sender, submitter)
        for spec in message.tasks:
            template = self.templates.get(spec.template_id)
            if template is None:
                text = f"task {spec.task_id.hex()} names a template that was never sent"
                rejection = Rejected(0, message.seq, ProtocolError.code, text)
                self.outbox.send(sender.process_id, rejection)
                continue
            record = self.tasks.get(spec.task_id)
            if record is not None:
                if record.spec is None:
                    self.recovery.adopted(record, spec, template, submitter)
                    self._begin(record, spec, now)
                continue
            if self._resend_outcome(spec, template, submitter):
                continue
            record = TaskRecord(spec, template, message.job_id, submitter)
            self.tasks[spec.task_id] = record
            job.unfinished += 1
            self.recovery.submitted(record, spec, sender)
            self._begin(record, spec, now)

    def _begin(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        """A task's spec is known: it waits for its dependencies, unless it runs already."""
        self._await_dependencies(record, spec, now)
        if record.exhausted() and record.node is None:
            self.recovery.give_up(record)
        else:
            self.advance(record)

    def _note_worker(self, sender: Member, process_id: bytes) -> None:
        if isinstance(sender, NodeMember) and process_id != sender.process_id:
            self.workers[process_id] = sender.process_id
            sender.workers[process_id] = None

    def _await_dependencies(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        for dependency in spec.dependencies:
            known = self._object(dependency, now)
            self.objects.hold(spec.task_id, dependency)
            if known.kind == PENDING:
                record.waiting += 1
                if known.waiters is None:
                    known.waiters = []
                known.waiters.append(spec.task_id)
        for inner in spec.nested:
            self._object(inner, now)
            self.objects.hold(spec.task_id, inner)

    def _object(self, oid: bytes, now: float) -> ObjectRecord:
        """The record of an object that somebody names; its submitter is a holder from the start."""
        record = self.objects.get(oid)
        if record is not None and record.kind != PENDING:
            return record
        task = self.tasks.get(task_of(oid))
        if task is None:
            self.unknown.setdefault(oid, now + limits.UNKNOWN_OBJECT_S)
        elif record is None and self._lives(task.submitter):
            self.objects.hold(task.submitter, oid, process=True)
        return self.objects.make(oid)

    def _lives(self, process_id: bytes) -> bool:
        return process_id in self.workers or process_id in self.members.jobs

    def advance(self, record: TaskRecord, *, front: bool = False) -> None:
        """Make a waiting task ready if nothing is in its way any more."""
        if record.state == WAITING and not (record.waiting or record.parked or record.spec is None):
            assert record.template is not None
            if record.template.function_ready:
                self.scheduler.push(record, front=front)

    def _resend_outcome(self, spec: TaskSpec, template: TemplateRecord, submitter: bytes) -> bool:
        """A resubmitted task that has its outcome: tell it again. False: not such a one."""
        found = False
        for index in range(max(template.message.num_returns, 1)):
            oid = object_id(spec.task_id, index)
            record = self.objects.get(oid)
            if record is not None and record.kind != PENDING:
                found = True
                self.results.tell_owner(submitter, self.objects.outcome(oid, record), record)
        return found

    # ---- end of an attempt -----------------------------------------------------------------

    def on_done(self, sender: NodeMember, message: Done, now: float) -> None:
        view = sender.view
        view.last_done = now
        for done in message.tasks:
            record = self.tasks.get(done.task_id)
            if record is None:
                if not self.recovery.outcome_found(done, sender):
                    self._ignore(done, sender)
            elif record.node is view and record.attempt == done.attempt:
                if done.borrowed and done.worker_id:
                    self._note_worker(sender, done.worker_id)
                    for oid in done.borrowed:
                        self.objects.hold(done.worker_id, oid, process=True)
                self._attempt_ended(record, done, sender)
            else:
                self._ignore(done, sender)
        if not self._acks:
            self._ack_at = now + limits.ACK_DELAY_S
        self._acks[sender.process_id] = message.seq

    def _ignore(self, done: TaskDone, sender: NodeMember) -> None:
        """The end of an attempt that does not count any more."""
        self.counters["stale"] += 1
        if done.status == FINISHED:
            self.refuse_copies(done.results, sender)

    def refuse_copies(self, outcomes: Iterable[Outcome], node: NodeMember) -> None:
        """A node keeps values that nobody asked it for: only those of known objects may stay."""
        unwanted = []
        for outcome in outcomes:
            record = self.objects.get(outcome.object_id)
            if record is not None and record.kind != PENDING:
                self.objects.add_location(record, node.process_id)
            else:
                unwanted.append(outcome.object_id)
        if unwanted:
            self.outbox.send(node.process_id, Free(0, b"".join(unwanted)))

    def _attempt_ended(self, record: TaskRecord, done: TaskDone, sender: NodeMember) -> None:
        self.scheduler.release(done.task_id, record)
        template = record.template
        sender.view.finished += 1
        if template is not None and done.status == FINISHED:
            template.measured(done.seconds)
        if record.cancelled and done.status != FINISHED:
            self._cancel_outcome(done.task_id, record)
        elif done.status in (FAILED, CRASHED) and self.retry(done.task_id, record):
            record.failure = done.results if record.spec is None else None
        elif done.status == CANCELLED:
            self._cancel_outcome(done.task_id, record)
        else:
            # A raylet keeps the values of finished tasks alone.
            places = (sender.process_id,) if done.status == FINISHED else ()
            self.commit(done.task_id, record, done.results, places)

    def retry(self, task_id: bytes, record: TaskRecord) -> bool:
        """Queue a failed task again, if its retries allow (which its spec will tell)."""
        record.failures += 1
        if record.exhausted():
            return False
        self.counters["retried"] += 1
        self.requeue(task_id, record)
        return True

    def requeue(self, task_id: bytes, record: TaskRecord) -> None:
        """No raylet holds the task any more: it is ready again, or waits for what it lacks."""
        record.node = None
        record.state = WAITING
        self.recovery.returned(task_id, record)
        self.advance(record, front=True)

    def _cancel_outcome(self, task_id: bytes, record: TaskRecord) -> None:
        self.fail(task_id, record, TaskCancelledError, "the task was cancelled")

    def fail(
        self, task_id: bytes, record: TaskRecord, error: type[ZrayError], text: str, node: str = ""
    ) -> None:
        """Commit an error of the cluster's own as a task's outcome."""
        name = record.template.message.name if record.template is not None else ""
        returns = record.template.message.num_returns if record.template is not None else 1
        value = failures.encode(error, f"{text} (task {name} {task_id.hex()})", name, node)
        self.commit(task_id, record, failures.outcomes(task_id, returns, value), ())

    def commit(
        self,
        task_id: bytes,
        record: TaskRecord,
        outcomes: Iterable[Outcome],
        locations: tuple[bytes, ...],
    ) -> None:
        """The one outcome of a task, for each of its returns; later ones are stale."""
        assert record.node is None
        if record.state == READY:
            self.scheduler.withdraw(record, GONE)
        record.state = GONE
        del self.tasks[task_id]
        job = self.members.jobs.get(record.job_id)
        if job is not None:
            job.unfinished -= 1
            job.finished += 1
        self.counters["finished"] += 1
        submitter = record.submitter
        is_driver = submitter in self.members.jobs
        owned = is_driver or submitter in self.workers
        template = record.template
        has_returns = template is not None and template.message.num_returns > 0
        for outcome in outcomes:
            oid = outcome.object_id
            known = self.objects.get(oid)
            if known is not None and known.kind != PENDING:  # it came ahead of its task
                for place in locations:
                    self.copy_found(outcome, place)
                if owned:
                    self.results.tell_owner(submitter, self.objects.outcome(oid, known), known)
                continue
            if record.spec is None:
                self.recovery.hold(oid)  # who holds it has yet to return
            elif known is None and owned and has_returns:
                self.objects.hold(submitter, oid, process=True)
            places = locations
            if is_driver and locations and not outcome.kind & LOCATED:
                places = (*locations, submitter)  # the driver gets the value itself
            settled = self.settle_object(outcome, places)
            if owned:
                self.results.tell_owner(submitter, outcome, settled)
        if record.spec is not None:
            for oid in record.spec.dependencies:
                self.objects.drop(task_id, oid)
            for oid in record.spec.nested:
                self.objects.drop(task_id, oid)

    def settle_object(self, outcome: Outcome, locations: tuple[bytes, ...]) -> ObjectRecord:
        record = self.objects.settle(outcome, locations)
        if self.unknown:
            self.unknown.pop(outcome.object_id, None)
        waiters, record.waiters = record.waiters, None
        for task_id in waiters or ():
            task = self.tasks.get(task_id)
            if task is not None:
                task.waiting -= 1
                self.advance(task)
        watchers, record.watchers = record.watchers, None
        for target in watchers or ():
            self.results.tell(target, outcome)
        return record

    # ---- cancel ----------------------------------------------------------------------------

    def on_cancel(self, sender: Member, message: Cancel, now: float) -> None:
        children = self._children(message.task_id) if message.recursive else []
        for task_id in (*children, message.task_id):
            record = self.tasks.get(task_id)
            if record is not None:
                self.cancel(task_id, record, message.force)

    def _children(self, parent: bytes) -> list[bytes]:
        """All descendants of a task that are not finished, nearest first."""
        by_parent: dict[bytes, list[bytes]] = {}
        for task_id, record in self.tasks.items():
            if record.spec is not None and record.spec.parent:
                by_parent.setdefault(record.spec.parent, []).append(task_id)
        found = by_parent.pop(parent, [])
        for task_id in found:  # grows while it is walked; a cycle ends, as nobody comes twice
            found += by_parent.pop(task_id, ())
        return found

    def cancel(self, task_id: bytes, record: TaskRecord, force: bool) -> None:
        record.cancelled = True
        record.forced = record.forced or force
        if record.state == ASSIGNED:
            assert record.node is not None
            request = CancelTask(0, task_id, record.attempt, record.forced)
            self.outbox.send(record.node.node_id, request)
        else:
            self._cancel_outcome(task_id, record)

    # ---- objects ---------------------------------------------------------------------------

    def on_put(self, sender: Member, message: Put, now: float) -> None:
        self._note_worker(sender, message.holder)
        outcome = message.outcome
        self.recovery.hold(outcome.object_id)
        self.objects.hold(message.holder, outcome.object_id, process=True)
        self.copy_found(outcome, sender.process_id)
        if isinstance(sender, JobMember):
            self.objects.make(outcome.object_id).served = True

    def copy_found(self, outcome: Outcome, place: bytes) -> None:
        """A process has the object: its outcome, unless that was known already."""
        record = self.objects.get(outcome.object_id)
        if record is None or record.kind == PENDING:
            self.settle_object(outcome, (place,))
        else:
            self.objects.add_location(record, place)
            self.objects.contain(outcome.object_id, record, outcome.contained)

    def on_watch(self, sender: Member, message: Watch, now: float) -> None:
        self._note_worker(sender, message.target)
        for oid in split_objects(message.object_ids):
            record = self._object(oid, now)
            if record.kind != PENDING:
                self.results.tell(message.target, self.objects.outcome(oid, record))
                continue
            if record.watchers is None:
                record.watchers = []
            if message.target not in record.watchers:
                record.watchers.append(message.target)

    def on_hold(self, sender: Member, message: Hold, now: float) -> None:
        self._note_worker(sender, message.holder)
        ids = split_objects(message.object_ids)
        for oid in ids:
            self._object(oid, now)
        if message.full:
            self.objects.set_holds(message.holder, ids)
            # What it still wanted to know of earlier sessions it has asked for by now.
            self.results.acked(message.holder, sender.session_seq)
        else:
            for oid in ids:
                self.objects.hold(message.holder, oid, process=True)
        if message.full and isinstance(sender, JobMember):
            sender.resynced = True

    def on_drop(self, sender: Member, message: Drop, now: float) -> None:
        for oid in split_objects(message.object_ids):
            if oid not in self.objects.records and task_of(oid) not in self.tasks:
                continue
            record = self._object(oid, now)  # a pending task's: that it is not held is noted
            self.objects.drop(message.holder, oid, process=True)
            if not record.served:
                self.objects.remove_location(oid, record, message.holder)

    def note(self, text: str) -> None:
        """Remember something that whoever runs the cluster should know."""
        self.notices.append(text)
        del self.notices[: -limits.NOTES_MAX]

    def recovering(self) -> bool:
        return self.recovery.active

    def _forget_unknown(self, now: float) -> None:
        for oid in [oid for oid, deadline in self.unknown.items() if now >= deadline]:
            del self.unknown[oid]
            record = self.objects.get(oid)
            if record is None or record.kind != PENDING or task_of(oid) in self.tasks:
                continue
            if record.waiters or record.watchers:
                text = f"object {oid.hex()} is not known: it was freed, or its owner ended"
                value = failures.encode(ObjectLostError, text)
                self.counters["lost"] += 1
                self.settle_object(Outcome(oid, ERROR, len(value), value), ())
            elif record.holders is not None:
                self.unknown[oid] = now + limits.UNKNOWN_OBJECT_S

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: assign, reclaim, tell outcomes, free."""
        if self.recovery.active:
            self.recovery.step(now)
        elif self.unknown:
            self._forget_unknown(now)
        plan = self.scheduler.schedule()
        for view, records in plan:
            self._dispatch(view, records)
        for view, group, count in self.scheduler.reclaims(now):
            self.outbox.send(view.node_id, Reclaim(0, list(group.needs), count))
        self.results.flush(self.workers)
        freed: dict[bytes, list[bytes]] = {}
        for oid, known in self.objects.sweep(self._is_needed):
            for place in known.locations:
                if known.served or place in self.members.nodes:
                    freed.setdefault(place, []).append(oid)
        if freed:
            self.transfers.retry()
        for place, ids in freed.items():
            self.outbox.send(place, Free(0, b"".join(ids)))
        if self._acks:
            self._acknowledge(now)

    def _is_needed(self, oid: bytes, record: ObjectRecord) -> bool:
        if record.kind == PENDING:
            return task_of(oid) in self.tasks
        return self.results.is_owed(oid, record)

    def _acknowledge(self, now: float) -> None:
        """A message of its own would cost the raylet a turn, so it goes along with others."""
        for node_id in [*self._acks]:
            if node_id in self.outbox or now >= self._ack_at:
                self.outbox.send(node_id, Ack(0, self._acks.pop(node_id)))

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        soonest = NEVER if self.recovery.active else min(self.unknown.values(), default=NEVER)
        if self._acks:
            soonest = min(soonest, self._ack_at)
        return min(soonest, self.scheduler.steal_deadline())

    def _dispatch(self, view: NodeView, records: list[TaskRecord]) -> None:
        node = self.members.nodes[view.node_id]
        assignments = []
        values: dict[bytes, Outcome] = {}
        for record in records:
            spec, template = record.spec, record.template
            assert spec is not None and template is not None
            if spec.template_id not in node.known:
                self._introduce(node, template)
            if record.job_id not in node.known:
                node.known.add(record.job_id)
                info = self.members.jobs[record.job_id].info
                self.outbox.send(view.node_id, Job(0, record.job_id, info))
            for oid in spec.dependencies:
                known = self.objects.get(oid)
                assert known is not None
                if view.node_id not in known.locations and oid not in values:
                    value = self.objects.value(oid)
                    if value is not None:
                        values[oid] = Outcome(oid, known.kind, known.size, value)
            assignment = Assignment(record.attempt, record.job_id, spec, record.failures)
            assignments.append(assignment)
        self.outbox.send(view.node_id, Tasks(0, assignments, list(values.values())))

    def _introduce(self, node: NodeMember, template: TemplateRecord) -> None:
        message = template.message
        node.known.add(message.template_id)
        if message.function_id not in node.known:
            node.known.add(message.function_id)
            row = self.catalog.functions[message.function_id]
            self.outbox.send(node.process_id, Export(0, message.function_id, row.name, row.blob))
        self.outbox.send(node.process_id, message)
