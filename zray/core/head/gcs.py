"""The GCS actor: owns the cluster's state and changes it only by messages from its mailbox.

This module is the life of tasks and objects: submit, dispatch, commit, retry, cancel, free. Who is
alive is `members`, who runs what `scheduler`, who holds what `objects`, durable tables `catalog`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from zray import limits
from zray.core import failures, resources
from zray.core.head.actors import Actors
from zray.core.head.catalog import Catalog, Row
from zray.core.head.definitions import Definitions
from zray.core.head.holders import Holdings
from zray.core.head.lineage import Lineage
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectRecord, ObjectTable
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_records import (
    ASSIGNED,
    GONE,
    READY,
    WAITING,
    NodeView,
    TaskRecord,
    TemplateRecord,
)
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.transfers import Transfers
from zray.core.incidents import Incidents
from zray.core.machine import NEVER, Outbox
from zray.core.offers import Offers
from zray.core.prints import Prints
from zray.errors import (
    InternalFaultError,
    MessageTooLargeError,
    NameNotOfferedError,
    ProtocolError,
    TaskCancelledError,
    ZrayError,
)
from zray.ids import object_id, task_of
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
    Export,
    Free,
    Job,
    JobEnded,
    Message,
    Outcome,
    Reclaim,
    Rejected,
    Result,
    Submit,
    TaskDone,
    Tasks,
    TaskSpec,
    Template,
)

T = TypeVar("T")
REBUILT_DEPTH = 1 << 20  # somebody waits for what is made again


class Gcs:
    def __init__(self, epoch: int, rows: dict[str, dict[bytes, bytes]], now: float) -> None:
        self.epoch = epoch
        self.outbox: Outbox[bytes] = Outbox()  # by process id
        self.journal: list[tuple[int, list[Row]]] = []  # for the store, in order
        self.incidents = Incidents()
        self.prints = Prints()
        self.later_epoch = 0  # the latest that a peer knows, where that is later than this one
        self.store_trouble = ""  # why nothing becomes durable just now
        self.members = Members(rows, now)
        self.catalog = Catalog(rows, self.persist)
        self.scheduler = TaskScheduler()
        self.objects = ObjectTable()
        self._now = now  # of the last turn
        self.lineage = Lineage(self)
        self.transfers = Transfers(
            *(self.outbox, self.objects, self.members, self.recovering),
            lambda oid: self.lineage.rebuild(oid, self._now),
        )
        self.workers: dict[bytes, bytes] = {}  # worker -> its node
        self.results = Results(self.outbox, self.objects, self.members, self.workers)
        self.definitions = Definitions(self)
        self.tasks = TaskTable(self.definitions.unused)
        self.offers = Offers()
        self.notices: list[str] = []
        counted = ("finished", "retried", "stale", "lost", "rebuilt", "reclaimed")
        self.counters = dict.fromkeys(counted, 0)
        self._tokens = 0
        self._commits: dict[int, Callable[[float], None]] = {}
        self._acks: dict[bytes, int] = {}  # DONEs to acknowledge: with other messages, or soon
        self._ack_at = 0.0
        self.holdings = Holdings(self)
        self.recovery = Recovery(self, restarted=bool(rows.get("actors")))
        self.actors = Actors(self, rows, now)
        self._steps: tuple[tuple[str, Callable[[float], None]], ...] = (
            ("recovering", self._recover),
            ("tending actors", self.actors.step),
            ("scheduling", self._assign),
            ("reclaiming tasks", self._reclaim),
            ("telling outcomes", self.results.flush),
            ("freeing objects", self._free),
            ("forgetting functions", self.definitions.settle),
            ("acknowledging", self._send_acks),
        )

    # ---- durability ------------------------------------------------------------------------

    def persist(self, rows: list[Row], then: Callable[[float], None]) -> None:
        """Commit rows; ``then`` (which acknowledges or reveals them) runs once they are durable."""
        self._tokens += 1
        self._commits[self._tokens] = then
        self.journal.append((self._tokens, rows))

    def committed(self, token: int, now: float) -> None:
        then = self._commits.pop(token)
        self.attempt("going on after a commit", "", lambda: then(now))

    # ---- faults ----------------------------------------------------------------------------

    def attempt(self, what: str, whom: str, action: Callable[[], T]) -> T | None:
        """Do a part of the work of many; if it fails, that is recorded, and the rest goes on."""
        try:
            return action()
        except Exception as error:
            self.incidents.record(what, whom, error, self._now)
            return None

    def task_fault(self, task_id: bytes, what: str, error: Exception) -> None:
        """One task could not be dealt with: it ends with an error, and the others go on."""
        said = self.incidents.record(what, f"task {task_id.hex()}", error, self._now)
        record = self.tasks.get(task_id)
        if record is not None:
            if record.node is not None:
                self.scheduler.release(task_id, record)
            text = f"the head failed while {what}: {said}; its log has more"
            self.attempt(
                *("failing a task", f"task {task_id.hex()}"),
                lambda: self.fail(task_id, record, InternalFaultError, text),
            )

    # ---- submit ----------------------------------------------------------------------------

    def on_submit(self, sender: Member, message: Submit, now: float) -> None:
        job = self.members.jobs.get(message.job_id)
        if job is None:  # a worker's node may not have heard of it yet
            ended = "the job of these tasks has ended"
            refusal = Rejected(0, message.seq, ProtocolError.code, ended)
            told = JobEnded(0, message.job_id)
            is_node = isinstance(sender, NodeMember)
            self.outbox.send(sender.process_id, told if is_node else refusal)
            return
        submitter, templates, tasks = message.submitter, self.definitions.templates, self.tasks
        self.note_worker(sender, submitter)
        for spec in message.tasks:
            try:
                template = templates.get(spec.template_id)
                if template is None:
                    text = f"task {spec.task_id.hex()} names a template that was never sent"
                    rejection = Rejected(0, message.seq, ProtocolError.code, text)
                    self.outbox.send(sender.process_id, rejection)
                    continue
                record = tasks.get(spec.task_id)
                if record is not None:
                    if record.spec is None:
                        self.recovery.adopted(record, spec, template, submitter)
                        self.begin(record, spec, now)
                    continue
                if self._resend_outcome(spec, template, submitter):
                    continue
                record = TaskRecord(spec, template, message.job_id, submitter)
                tasks.add(spec.task_id, record)
                job.unfinished += 1
                if self.recovery.active:
                    self.recovery.submitted(record, spec, sender)
                self.begin(record, spec, now)
            except Exception as error:
                self.task_fault(spec.task_id, "taking a submitted task", error)

    def begin(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        """A task's spec is known: it waits for its dependencies, unless it runs already."""
        if record.rebuilds:
            record.depth = REBUILT_DEPTH
        elif spec.parent:
            parent = self.tasks.get(spec.parent)
            record.depth = 1 if parent is None else parent.depth + 1
        if spec.dependencies or spec.nested:
            self._await_dependencies(record, spec, now)
        if record.exhausted() and record.node is None:
            self.recovery.give_up(record)
        else:
            self.advance(record)

    def note_worker(self, sender: Member, process_id: bytes) -> None:
        if isinstance(sender, NodeMember) and process_id != sender.process_id:
            self.workers[process_id] = sender.process_id
            sender.workers[process_id] = None

    def _await_dependencies(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        for dependency in spec.dependencies:
            known = self.holdings.hold(spec.task_id, dependency, now)
            if known.kind == PENDING:
                record.waiting += 1
                if known.waiters is None:
                    known.waiters = []
                known.waiters.append(spec.task_id)
        for inner in spec.nested:
            self.holdings.hold(spec.task_id, inner, now)

    def lives(self, process_id: bytes) -> bool:
        return process_id in self.workers or process_id in self.members.jobs

    def advance(self, record: TaskRecord, *, front: bool = False) -> None:
        """Make a waiting task ready if nothing is in its way any more."""
        if record.state == WAITING and not (record.waiting or record.parked or record.spec is None):
            assert record.template is not None
            trouble = self._objection(record.template.message)
            if trouble:
                self.fail(record.spec.task_id, record, NameNotOfferedError, trouble)
            elif not record.template.function.ready:
                self.definitions.waits(record)
            else:
                record.near = self._near(record) if record.spec.dependencies else b""
                # Calls wait for an actor: it does not stand in line behind tasks.
                front = front or record.spec.task_id in self.actors.records
                self.scheduler.push(record, front=front)

    def _objection(self, template: Template) -> str:
        """Why no node could run it, as one that it might be told by now."""
        if not template.by_name or self.recovery.active or not self.scheduler.nodes:
            return ""
        return self.offers.objection(template.name)

    def _near(self, record: TaskRecord) -> bytes:
        """The node that has most of the task's large arguments, if it can run the task."""
        assert record.spec is not None and record.template is not None
        there: dict[bytes, int] = {}
        for oid in record.spec.dependencies:
            known = self.objects.get(oid)
            if known is not None and known.size > limits.INLINE_BYTES_MAX:
                for place in known.locations:
                    there[place] = there.get(place, 0) + known.size
        for node_id, size in sorted(there.items(), key=lambda item: -item[1]):
            node = self.scheduler.nodes.get(node_id)
            if size < limits.LOCALITY_BYTES_MIN:
                break
            if node is not None and resources.fits(node.total, record.template.needs):
                return node_id
        return b""

    def _resend_outcome(self, spec: TaskSpec, template: TemplateRecord, submitter: bytes) -> bool:
        """A resubmitted task that has its outcome: tell it again. False: not such a one."""
        found = False
        returns = template.message.num_returns
        if returns <= 1 and object_id(spec.task_id) not in self.objects.records:
            return found
        for index in range(max(returns, 1)):
            oid = object_id(spec.task_id, index)
            record = self.objects.get(oid)
            if record is None:
                continue
            if record.kind != PENDING:
                found = True
                self.results.tell_owner(submitter, self.objects.outcome(oid, record), record)
            elif self.lives(submitter):  # somebody has named it before its submitter did
                self.objects.hold(submitter, oid, process=True)
        return found

    # ---- end of an attempt -----------------------------------------------------------------

    def on_done(self, sender: NodeMember, message: Done, now: float) -> None:
        view, tasks = sender.view, self.tasks
        view.last_done = now
        stored = self._tokens
        for done in message.tasks:
            try:
                record = tasks.get(done.task_id)
                if record is None:
                    if not self.recovery.outcome_found(done, sender):
                        self._ignore(done, sender)
                elif record.node is view and record.attempt == done.attempt:
                    if done.borrowed and done.worker_id:
                        self._borrowed(done, sender)
                    self._attempt_ended(record, done, sender)
                else:
                    self._ignore(done, sender)
            except Exception as error:
                self.task_fault(done.task_id, "taking the end of a task", error)
        if stored != self._tokens:
            sender.ends_durable = False
        if message.seq:  # else others follow, and all of them are acknowledged at once
            self.acknowledge(sender, message.seq, now, durable=sender.ends_durable)
            sender.ends_durable = True

    def _borrowed(self, done: TaskDone, sender: NodeMember) -> None:
        self.note_worker(sender, done.worker_id)
        for oid in done.borrowed:
            self.objects.hold(done.worker_id, oid, process=True)

    def acknowledge(self, sender: NodeMember, seq: int, now: float, *, durable: bool) -> None:
        """Tell a raylet soon that its ends up to this one are known, once that is ``durable``."""
        sender.ends_heard = seq
        if not durable:
            sender.ends_unstored[seq] = None
            self.persist([], lambda now: self._end_stored(sender, seq, now))
        self._acknowledge(sender, now)

    def _end_stored(self, sender: NodeMember, seq: int, now: float) -> None:
        sender.ends_unstored.pop(seq, None)
        self._acknowledge(sender, now)

    def _acknowledge(self, sender: NodeMember, now: float) -> None:
        upto = min((sender.ends_heard, *(seq - 1 for seq in sender.ends_unstored)))
        if not self._acks:
            self._ack_at = now + limits.ACK_DELAY_S
        self._acks[sender.process_id] = upto

    def _ignore(self, done: TaskDone, sender: NodeMember) -> None:
        """The end of an attempt that does not count any more."""
        self.counters["stale"] += 1
        if done.status == FINISHED:
            self.holdings.refuse_copies(done.results, sender)

    def _attempt_ended(self, record: TaskRecord, done: TaskDone, sender: NodeMember) -> None:
        self.scheduler.release(done.task_id, record)
        template = record.template
        sender.view.finished += 1
        if done.task_id in self.actors.records:
            self.actors.creation_ended(record, done, sender)
            return
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
            if done.status == FINISHED:
                self.lineage.finished(record, done.results)
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
        if task_id in self.actors.records:
            self.actors.creation_failed(task_id, record, text)
            return
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
        self.tasks.remove(task_id)
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
            if known is not None and known.kind != PENDING:  # it came ahead of its task, or again
                stands = not record.rebuilds or self.lineage.again(outcome)
                for place in locations:
                    if stands:
                        self.holdings.found(outcome, place)
                    else:
                        self.outbox.send(place, Free(0, oid))
                if owned:
                    self.results.tell_owner(submitter, self.objects.outcome(oid, known), known)
                continue
            if self.recovery.active:
                self.recovery.hold(oid)  # who holds it may have yet to return
            if record.spec is not None and known is None and owned and has_returns:
                self.objects.hold(submitter, oid, process=True)
            places = locations
            if is_driver and locations and not outcome.kind & LOCATED:
                places = (*locations, submitter)  # the driver gets the value itself
            settled = self.holdings.settle(outcome, places)
            if owned:
                self.results.tell_owner(submitter, outcome, settled)
        if record.spec is not None:
            for oid in record.spec.dependencies:
                self.objects.drop(task_id, oid)
            for oid in record.spec.nested:
                self.objects.drop(task_id, oid)
        if record.rebuilds:
            self.transfers.retry()  # others wait for it

    # ---- cancel ----------------------------------------------------------------------------

    def on_cancel(self, sender: Member, message: Cancel, now: float) -> None:
        children = self.tasks.descendants(message.task_id) if message.recursive else []
        for task_id in (*children, message.task_id):
            record = self.tasks.get(task_id)
            if record is not None and task_id not in self.actors.records:
                self.cancel(task_id, record, message.force)

    def cancel(self, task_id: bytes, record: TaskRecord, force: bool) -> None:
        record.cancelled = True
        record.forced = record.forced or force
        if record.state == ASSIGNED:
            assert record.node is not None
            request = CancelTask(0, task_id, record.attempt, record.forced)
            self.outbox.send(record.node.node_id, request)
        else:
            self._cancel_outcome(task_id, record)

    def note(self, text: str) -> None:
        """Remember something that whoever runs the cluster should know."""
        self.notices.append(text)
        del self.notices[: -limits.NOTES_MAX]

    def too_large(self, target: Member, message: Message, text: str) -> None:
        """A message, of one thing, is too large for its receiver: that thing fails alone."""
        for assignment in message.tasks if isinstance(message, Tasks) else ():
            task_id = assignment.spec.task_id
            record = self.tasks.get(task_id)
            if record is not None and record.node is not None:
                record.node.sent -= 1
                self.scheduler.release(task_id, record)
                self.fail(task_id, record, MessageTooLargeError, text)
        if isinstance(message, Result):
            value = failures.encode(MessageTooLargeError, text)
            for oid in [outcome.object_id for outcome in message.outcomes]:
                self.results.tell(message.target, Outcome(oid, ERROR, len(value), value))
        self.note(text)

    def recovering(self) -> bool:
        return self.recovery.active

    def send_to(self, process_id: bytes, message: Message) -> None:
        """Send to a driver, or to a worker by way of its node."""
        self.outbox.send(self.workers.get(process_id, process_id), message)

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: assign, reclaim, tell outcomes, free."""
        self._now = now
        for what, step in self._steps:
            try:
                step(now)
            except Exception as error:
                self.incidents.record(what, "", error, now)

    def _recover(self, now: float) -> None:
        if self.recovery.active:
            self.recovery.step(now)
        elif self.holdings.unknown:
            self.holdings.forget_unknown(now)

    def _assign(self, now: float) -> None:
        for view, records in self.scheduler.schedule(now):
            try:
                self._dispatch(view, records)
            except Exception as error:
                for record in records:
                    assert record.spec is not None
                    self.task_fault(record.spec.task_id, "sending a task to its node", error)

    def _reclaim(self, now: float) -> None:
        for view, group, count in self.scheduler.reclaims(now):
            wanted = list(resources.countable(group.needs))  # a node counts nothing else
            self.outbox.send(view.node_id, Reclaim(0, wanted, count))

    def _free(self, _now: float) -> None:
        swept = self.objects.sweep(self._is_needed)
        if not swept:
            return
        freed: dict[bytes, list[bytes]] = {}
        nodes, actors, origins = self.members.nodes, self.actors.records, self.lineage.origins
        while swept:
            for oid, known in swept:
                task_id = task_of(oid)
                self.holdings.forget_freed(oid)
                if task_id in origins:
                    self.lineage.freed(task_id)  # which may let go of others
                if task_id in actors:
                    self.actors.handle_gone(task_id)
                self.transfers.serve(oid)
                for place in known.locations:
                    if known.served or place in nodes:
                        freed.setdefault(place, []).append(oid)
            swept = self.objects.sweep(self._is_needed)
        for place, ids in freed.items():
            self.outbox.send(place, Free(0, b"".join(ids)))

    def _is_needed(self, oid: bytes, record: ObjectRecord) -> bool:
        if record.kind == PENDING:
            return task_of(oid) in self.tasks
        return self.results.is_owed(oid, record)

    def _send_acks(self, now: float) -> None:
        """A message of its own would cost the raylet a turn, so it goes along with others."""
        for node_id in [*self._acks]:
            if node_id in self.outbox or now >= self._ack_at:
                self.outbox.send(node_id, Ack(0, self._acks.pop(node_id)))

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        soonest = NEVER if self.recovery.active else self.holdings.unknown.soonest()
        if self._acks:
            soonest = min(soonest, self._ack_at)
        return min(soonest, self.scheduler.steal_deadline(), self.actors.deadline())

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
            actor = self.actors.records.get(spec.task_id)
            if actor is None:
                ids = (record.attempt, record.job_id, spec)
                assignment = Assignment(*ids, record.failures, None, record.depth)
            else:
                assignment = self.actors.assignment(actor, record)
            assignments.append(assignment)
        self.outbox.send(view.node_id, Tasks(0, assignments, list(values.values())))

    def _introduce(self, node: NodeMember, template: TemplateRecord) -> None:
        message = template.message
        node.known.add(message.template_id)
        if not message.by_name and message.function_id not in node.known:
            node.known.add(message.function_id)
            row = self.catalog.functions[message.function_id]
            self.outbox.send(node.process_id, Export(0, message.function_id, row.name, row.blob))
        self.outbox.send(node.process_id, message)
