"""The life of a task: submitted, ready, sent to a node, retried or cancelled.

Who runs what is `task_scheduler`; how a task ends, `task_outcomes`; what the records are,
`task_records`. A task that makes an actor is one until its constructor has returned: what that
means is for `incarnations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core import labels, resources
from zray.core.depth_queue import AWAITED
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_table import ActorTable
from zray.core.head.definitions import Definitions
from zray.core.head.events import Events
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.journal import Journal
from zray.core.head.lineage import Lineage
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.near_tasks import NearTasks
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.placement_table import PlacementTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_records import ASSIGNED, WAITING, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.machine import Outbox
from zray.core.offers import Offers
from zray.errors import (
    NameNotOfferedError,
    NodeDiedError,
    ProtocolError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
)
from zray.ids import object_id
from zray.protocol.messages import (
    CANCELLED,
    CRASHED,
    ERROR,
    FAILED,
    FINISHED,
    Cancel,
    CancelTask,
    Done,
    HeldTask,
    JobEnded,
    Message,
    Rejected,
    Submit,
    TaskDone,
    TaskSpec,
    Template,
)


class TaskManager:
    """``actors``: their ids are those of the tasks that make them."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        journal: Journal,
        counters: dict[str, int],
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        objects: ObjectTable,
        actors: ActorTable,
        offers: Offers,
        scheduler: TaskScheduler,
        recovery: Recovery,
        holders: Holders,
        definitions: Definitions,
        lineage: Lineage,
        acknowledgements: Acknowledgements,
        incarnations: Incarnations,
        outcomes: TaskOutcomes,
        near_tasks: NearTasks,
        placement: PlacementTable,
        events: Events,
    ) -> None:
        self._outbox = outbox
        self._journal = journal
        self._counters = counters
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._actors = actors
        self._offers = offers
        self._scheduler = scheduler
        self._recovery = recovery
        self._holders = holders
        self._definitions = definitions
        self._lineage = lineage
        self._acknowledgements = acknowledgements
        self._incarnations = incarnations
        self._outcomes = outcomes
        self._near_tasks = near_tasks
        self._placement = placement
        self._events = events
        self._history = events.tasks
        self._commit = outcomes.commit  # looked up once: it is for each task
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Submit: self.on_submit,
            Cancel: self.on_cancel,
            Done: self.on_done,
        }

    # ---- submit ----------------------------------------------------------------------------

    def on_submit(self, sender: Member, message: Submit, now: float) -> None:
        """Tasks, perhaps sent before: each is taken once."""
        job = self._members.jobs.get(message.job_id)
        if job is None:  # a worker's node may not have heard of it yet
            ended = "the job of these tasks has ended"
            refusal = Rejected(0, message.seq, ProtocolError.code, ended)
            told = JobEnded(0, message.job_id)
            is_node = isinstance(sender, NodeMember)
            self._outbox.send(sender.process_id, told if is_node else refusal)
            return
        submitter, templates, tasks = message.submitter, self._definitions.templates, self._tasks
        self._processes.note_worker(sender, submitter)
        new = 0
        for spec in message.tasks:
            try:
                template = templates.get(spec.template_id)
                if template is None:
                    text = f"task {spec.task_id.hex()} names a template that was never sent"
                    rejection = Rejected(0, message.seq, ProtocolError.code, text)
                    self._outbox.send(sender.process_id, rejection)
                    continue
                record = tasks.get(spec.task_id)
                if record is not None:
                    self._counters["resubmitted"] += 1
                    if record.spec is None:
                        self._adopted(record, spec, template, submitter)
                        self.begin(record, spec, now)
                    continue
                if self._outcomes.resend(spec, template, submitter):
                    continue
                record = TaskRecord(spec, template, message.job_id, submitter)
                record.since = now
                tasks.add(spec.task_id, record)
                job.unfinished += 1
                new += 1
                if self._recovery.active:
                    self._recovery.submitted(record, spec, sender)
                self.begin(record, spec, now)
                early = self._holders.early_cancels
                if early and (cancel := early.take(spec.task_id, now)) is not None:
                    self.cancel(spec.task_id, record, cancel.force, cancel.recursive)
            except Exception as error:
                self._outcomes.fault(spec.task_id, "taking a submitted task", error, now)
        self._counters["submitted"] += new

    def begin(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        """A task's spec is known: it waits for its dependencies, unless it runs already."""
        if record.rebuilds:
            record.depth = AWAITED  # somebody waits for what is made again
        elif spec.parent:
            parent = self._tasks.get(spec.parent)
            record.depth = (spec.depth or 1) if parent is None else parent.depth + 1
        if spec.dependencies or spec.nested:
            self._await_dependencies(record, spec, now)
        if record.exhausted() and record.node is None:
            self._outcomes.give_up(record)
        else:
            self.advance(record)

    def _await_dependencies(self, record: TaskRecord, spec: TaskSpec, now: float) -> None:
        for dependency in spec.dependencies:
            known = self._holders.hold(spec.task_id, dependency, now)
            if known.kind == PENDING:
                record.waiting += 1
                if known.waiters is None:
                    known.waiters = []
                known.waiters.append(spec.task_id)
        for inner in spec.nested:
            self._holders.hold(spec.task_id, inner, now)

    def advance(self, record: TaskRecord, *, front: bool = False) -> None:
        """Make a waiting task ready if nothing is in its way any more."""
        if record.state == WAITING and not (record.waiting or record.parked or record.spec is None):
            assert record.template is not None
            group_id = record.template.group
            trouble = self._objection(record.template.message)
            if group_id and group_id not in self._placement:
                text = self._placement.why_gone(group_id)
                self._outcomes.fail(record.spec.task_id, record, TaskPlacementGroupRemoved, text)
            elif record.template.only_node and (text := self._no_such_node(record.template)):
                self._outcomes.fail(record.spec.task_id, record, TaskUnschedulableError, text)
            elif trouble:
                self._outcomes.fail(record.spec.task_id, record, NameNotOfferedError, trouble)
            elif not record.template.function.ready:
                self._definitions.waits(record)
            else:
                record.near = self._near(record) if record.spec.dependencies else b""
                # Calls wait for an actor: it does not stand in line behind tasks as deep.
                front = front or record.spec.task_id in self._actors
                self._scheduler.push(record, front=front)

    def _objection(self, template: Template) -> str:
        """Why no node could run it, as one that it might be told by now."""
        if not template.by_name or self._recovery.active or not self._scheduler.nodes:
            return ""
        return self._offers.objection(template.name)

    def _no_such_node(self, template: TemplateRecord) -> str:
        """Why the only node on which its tasks may run never does; empty: it may."""
        if self._recovery.active:
            return ""
        view = self._scheduler.nodes.get(bytes.fromhex(template.only_node))
        text = f"it may run on node {template.only_node} alone"
        if view is None:
            return f"{text}, which is not there; soft=True lets it run elsewhere then"
        amounts = () if template.group else resources.countable(template.needs)
        selected = labels.selects(template.message.labels[0], view.labels)
        if selected and resources.fits(view.total, amounts):
            return ""
        wanted = resources.in_words(amounts)
        return f"{text}, which never has what it needs ({wanted}); soft=True lets it run elsewhere"

    def node_gone(self, node_id: bytes) -> None:
        """Tasks that wait for that node alone end."""
        for group in self._scheduler.groups():
            template = group.first().template if group.ready else None
            if template is not None and template.only_node == node_id.hex():
                for record in group.pop(group.ready):
                    record.state = WAITING
                    self.advance(record)

    def _near(self, record: TaskRecord) -> bytes:
        """The node that has most of the task's large arguments, if it can run the task."""
        assert record.spec is not None and record.template is not None
        if record.job_id in self._scheduler.ranked:
            return b""  # it would be out of the order of its job's tasks
        there: dict[bytes, int] = {}
        for oid in record.spec.dependencies:
            known = self._objects.get(oid)
            if known is not None and known.size > limits.INLINE_BYTES_MAX:
                for place in known.locations:
                    there[place] = there.get(place, 0) + known.size
        for node_id, size in sorted(there.items(), key=lambda item: -item[1]):
            node = self._scheduler.nodes.get(node_id)
            if size < limits.LOCALITY_BYTES_MIN:
                break
            if node is not None and resources.fits(node.total, record.template.needs):
                return node_id
        return b""

    # ---- end of an attempt -----------------------------------------------------------------

    def on_done(self, sender: NodeMember, message: Done, now: float) -> None:
        """Ends of attempts, perhaps told before: each counts once, and only the holder's."""
        view, tasks = sender.view, self._tasks
        stored = self._journal.numbered
        for done in message.tasks:
            try:
                record = tasks.get(done.task_id)
                if record is None:
                    if not self._outcome_found(done, sender):
                        self._ignore(done, sender)
                elif record.node is view and record.attempt == done.attempt:
                    if done.borrowed and done.worker_id:
                        self._borrowed(done, sender)
                    self._attempt_ended(record, done, sender)
                else:
                    self._ignore(done, sender)
            except Exception as error:
                self._outcomes.fault(done.task_id, "taking the end of a task", error, now)
        if stored != self._journal.numbered:
            sender.ends_durable = False
        if message.seq:  # else others follow, and all of them are acknowledged at once
            self._acknowledgements.acknowledge(
                sender, message.seq, now, durable=sender.ends_durable
            )
            sender.ends_durable = True

    def _borrowed(self, done: TaskDone, sender: NodeMember) -> None:
        self._processes.note_worker(sender, done.worker_id)
        for oid in done.borrowed:
            self._objects.hold(done.worker_id, oid, process=True)

    def _ignore(self, done: TaskDone, sender: NodeMember) -> None:
        """The end of an attempt that does not count any more."""
        self._counters["stale"] += 1
        if done.status == FINISHED:
            self._holders.refuse_copies(done.results, sender)

    def _attempt_ended(self, record: TaskRecord, done: TaskDone, sender: NodeMember) -> None:
        self._scheduler.release(done.task_id, record)
        template = record.template
        sender.view.finished += 1
        creates = done.task_id in self._actors
        if template is not None and done.status == FINISHED:
            tally = template.tally or self._history.tally_of(template, creates=creates)
            if done.results and done.results[0].kind & ERROR:
                tally.failed += 1
            else:
                tally.finished += 1
        elif done.status != CANCELLED and not record.cancelled:
            self._history.attempt_failed(record, done, sender.process_id, self._events.now_s())
        if creates:
            self._incarnations.creation_ended(record, done, sender)
            return
        if template is not None and done.status == FINISHED:
            template.measured(done.seconds)
        if record.cancelled and done.status != FINISHED:
            self._outcomes.cancelled(done.task_id, record)
        elif done.status in (FAILED, CRASHED) and self.retry(done.task_id, record):
            record.failure = done.results if record.spec is None else None
        elif done.status == CANCELLED:
            self._outcomes.cancelled(done.task_id, record)
        else:
            # A raylet keeps the values of finished tasks alone.
            places = (sender.process_id,) if done.status == FINISHED else ()
            if done.status == FINISHED:
                self._lineage.finished(record, done.results)
            self._commit(done.task_id, record, done.results, places)

    def retry(self, task_id: bytes, record: TaskRecord) -> bool:
        """Queue a failed task again, if its retries allow (which its spec will tell)."""
        record.failures += 1
        if record.exhausted():
            return False
        self._counters["retried"] += 1
        self.requeue(task_id, record)
        return True

    def requeue(self, task_id: bytes, record: TaskRecord) -> None:
        """No raylet holds the task any more: it is ready again, or waits for what it lacks."""
        record.node = None
        record.state = WAITING
        record.since = self._scheduler.now
        self._recovery.returned(task_id, record)
        self.advance(record, front=True)

    # ---- cancel ----------------------------------------------------------------------------

    def on_cancel(self, sender: Member, message: Cancel, now: float) -> None:
        """Cancel a task, and those below it if asked to."""
        children = self._tasks.descendants(message.task_id) if message.recursive else []
        for task_id in (*children, message.task_id):
            record = self._tasks.get(task_id)
            if record is not None and task_id not in self._actors:
                self.cancel(task_id, record, message.force, message.recursive)
            elif record is None and task_id == message.task_id:
                self._pass_on(sender, message, now)
            if message.recursive:
                self._near_tasks.cancel_below(task_id, message.force)

    def _pass_on(self, sender: Member, message: Cancel, now: float) -> None:
        """To whom a call or leased task is, of which this head knows that its result will come."""
        oid = object_id(message.task_id, message.index)
        owner = self._holders.promiser(oid)
        if not owner:
            known = self._objects.get(oid)
            if known is None or known.kind == PENDING:
                self._holders.early_cancels.note(message, now)
        elif owner and owner != sender.process_id:
            self._processes.send_to(owner, replace(message, target=owner))

    def cancel(
        self, task_id: bytes, record: TaskRecord, force: bool, recursive: bool = False
    ) -> None:
        """Cancel one task: by its node if one has it, else here and now."""
        record.cancelled = True
        record.forced = record.forced or force
        if record.state == ASSIGNED:
            assert record.node is not None
            request = CancelTask(0, task_id, record.attempt, record.forced, recursive)
            self._outbox.send(record.node.node_id, request)
        else:
            self._outcomes.cancelled(task_id, record)

    def end_in_group(self, group_id: bytes) -> None:
        """A placement group was removed: what is ready to run in it ends."""
        for record in self._scheduler.in_groups.forget(group_id):
            self.advance(record)

    # ---- of before a head's restart ------------------------------------------------------------

    def _adopted(
        self, record: TaskRecord, spec: TaskSpec, template: TemplateRecord, submitter: bytes
    ) -> None:
        """The spec came of a task that only its node had told of."""
        unknown = record.template is None
        self._tasks.adopt(spec.task_id, record, spec, template)
        self._tasks.move(spec.task_id, record, submitter)
        if unknown and record.node is not None:
            self._scheduler.settle_adopted(record)

    def _outcome_found(self, done: TaskDone, sender: NodeMember) -> bool:
        """The end of a task that nobody has told of yet; False: it is stale."""
        if not self._recovery.active or done.status != FINISHED:
            return False
        for outcome in done.results:
            self._recovery.hold(outcome.object_id)
            self._holders.found(outcome, sender.process_id)
        return True

    def failed_before(self, held: HeldTask) -> None:
        """A raylet remembers an attempt that failed, which the head of before knew of."""
        record = self._tasks.get(held.task_id)
        if held.makes_actor:
            return  # restarts of actors are counted in their rows
        if record is None:
            self._recovery.failed_before(held)
        else:
            record.failures = max(record.failures, held.failures)
            if record.exhausted() and record.state != ASSIGNED:
                self._outcomes.give_up(record)

    def unpark(self, record: TaskRecord) -> None:
        """All nodes are back or dead, so nobody has it: it can start."""
        if not record.parked or record.state != WAITING:
            return
        record.parked = False
        if record.spec is None or record.template is None:
            return  # it waits for them
        record.failures += self._members.may_have_run(record.template.needs)
        if record.exhausted():
            text = "a node that may have run the task did not return after the head's restart"
            self._outcomes.fail(record.spec.task_id, record, NodeDiedError, text)
        else:
            self.advance(record)
