"""The one outcome of each task: committed, told to its submitter, and the task is no more.

Whatever is told of a task later is stale. What ends a task without its function is an outcome, too:
an error that says why.
"""

from __future__ import annotations

from collections.abc import Iterable

from zray.core import failures
from zray.core.head.actor_table import ActorTable
from zray.core.head.events import Events
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.lineage import Lineage
from zray.core.head.members import Members
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_records import GONE, READY, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.transfers import Transfers
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.errors import (
    InternalFaultError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
    ZrayError,
)
from zray.ids import object_id
from zray.protocol.messages import LOCATED, Free, Outcome, TaskSpec


class TaskOutcomes:
    """``actors``: their ids are those of the tasks that make them, which have no outcome."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        incidents: Incidents,
        events: Events,
        counters: dict[str, int],
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        objects: ObjectTable,
        actors: ActorTable,
        scheduler: TaskScheduler,
        results: Results,
        transfers: Transfers,
        recovery: Recovery,
        holders: Holders,
        lineage: Lineage,
        incarnations: Incarnations,
    ) -> None:
        self._outbox = outbox
        self._incidents = incidents
        self._events = events
        self._counters = counters
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._actors = actors
        self._scheduler = scheduler
        self._results = results
        self._transfers = transfers
        self._recovery = recovery
        self._holders = holders
        self._lineage = lineage
        self._incarnations = incarnations

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
            self._scheduler.withdraw(record, GONE)
        record.state = GONE
        self._tasks.remove(task_id)
        job = self._members.jobs.get(record.job_id)
        if job is not None:
            job.unfinished -= 1
            job.finished += 1
        self._counters["finished"] += 1
        submitter = record.submitter
        is_driver = submitter in self._members.jobs
        owned = is_driver or submitter in self._processes.workers
        template = record.template
        has_returns = template is not None and template.message.num_returns > 0
        for outcome in outcomes:
            oid = outcome.object_id
            known = self._objects.get(oid)
            if known is not None and known.kind != PENDING:  # it came ahead of its task, or again
                stands = not record.rebuilds or self._lineage.again(outcome)
                for place in locations:
                    if stands:
                        self._holders.found(outcome, place)
                    else:
                        self._outbox.send(place, Free(0, oid))
                if owned:
                    self._results.tell_owner(submitter, self._objects.outcome(oid, known), known)
                continue
            if self._recovery.active:
                self._recovery.hold(oid)  # who holds it may have yet to return
            if record.spec is not None and known is None and owned and has_returns:
                self._objects.hold(submitter, oid, process=True)
            places = locations
            if is_driver and locations and not outcome.kind & LOCATED:
                places = (*locations, submitter)  # the driver gets the value itself
            settled = self._holders.settle(outcome, places)
            if owned:
                self._results.tell_owner(submitter, outcome, settled)
        if record.spec is not None:
            for oid in record.spec.dependencies:
                self._objects.drop(task_id, oid)
            for oid in record.spec.nested:
                self._objects.drop(task_id, oid)
        if record.rebuilds or (template is not None and template.message.yields):
            self._lineage.ended(task_id, record)
            if record.rebuilds or task_id in self._objects.items:
                self._transfers.retry()  # others wait for it

    # ---- errors of the cluster's own ---------------------------------------------------------

    def fail(
        self, task_id: bytes, record: TaskRecord, error: type[ZrayError], text: str, node: str = ""
    ) -> None:
        """Commit an error of the cluster's own as a task's outcome."""
        if task_id in self._actors:
            never = error is TaskUnschedulableError
            self._incarnations.creation_failed(task_id, record, text, never=never)
            return
        self._events.tasks.failed_here(task_id, record, error.code, text, self._events.now_s())
        name = record.template.message.name if record.template is not None else ""
        returns = record.template.message.num_returns if record.template is not None else 1
        value = failures.encode(error, f"{text} (task {name} {task_id.hex()})", name, node)
        self.commit(task_id, record, failures.outcomes(task_id, returns, value), ())

    def cancelled(self, task_id: bytes, record: TaskRecord) -> None:
        """The task ends because somebody wants that."""
        self.fail(task_id, record, TaskCancelledError, "the task was cancelled")

    def give_up(self, record: TaskRecord) -> None:
        """Its retries were used up under the head of before, which did not live to tell."""
        assert record.spec is not None
        failure, record.failure = record.failure, None
        if failure is not None:
            self.commit(record.spec.task_id, record, failure, ())
            return
        text = "its worker or node died when the head was about to be restarted"
        self.fail(record.spec.task_id, record, WorkerCrashedError, text)

    def fault(self, task_id: bytes, what: str, error: Exception, now: float) -> None:
        """One task could not be dealt with: it ends with an error, and the others go on."""
        said = self._incidents.record(what, f"task {task_id.hex()}", error, now)
        record = self._tasks.get(task_id)
        if record is not None:
            if record.node is not None:
                self._scheduler.release(task_id, record)
            text = f"the head failed while {what}: {said}; its log has more"
            try:
                self.fail(task_id, record, InternalFaultError, text)
            except Exception as again:
                whom = f"task {task_id.hex()}"
                self._incidents.record("failing a task", whom, again, now)

    # ---- told again --------------------------------------------------------------------------

    def resend(self, spec: TaskSpec, template: TemplateRecord, submitter: bytes) -> bool:
        """A resubmitted task that has its outcome: tell it again. False: not such a one."""
        found = False
        returns = template.message.num_returns
        if returns <= 1 and object_id(spec.task_id) not in self._objects.records:
            return found
        for index in range(max(returns, 1)):
            oid = object_id(spec.task_id, index)
            record = self._objects.get(oid)
            if record is None:
                continue
            if record.kind != PENDING:
                found = True
                self._results.tell_owner(submitter, self._objects.outcome(oid, record), record)
            elif self._processes.lives(submitter):  # somebody has named it before its submitter did
                self._objects.hold(submitter, oid, process=True)
        return found
