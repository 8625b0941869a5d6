"""The GCS's Lineage: how large results were made, so that a lost one can be made again.

Kept for tasks whose retries allow it, while a result of theirs, or of a task that needs one of
these, is held by anybody; bounded, the oldest go first. Specs are kept and small puts, but no other
values: what a task needs and was freed since is made again in its turn. Larger puts, calls of
actors, and tasks of before a head's restart have none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from zray import limits
from zray.core.head.definitions import Definitions
from zray.core.head.members import Member, Members
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.task_records import TaskRecord, TemplateRecord
from zray.core.head.task_table import TaskTable
from zray.ids import object_id, task_of
from zray.protocol.messages import ERROR, LOCATED, Made, Outcome, TaskSpec

_ENTRY_BYTES = 700  # of the head's memory, besides the arguments


class Origin:
    """How a task's results were made. ``dependents``: other tasks here that need one of them."""

    __slots__ = ("attempt", "dependents", "failures", "job_id", "pinned", "spec", "template")

    def __init__(self, record: TaskRecord, spec: TaskSpec, template: TemplateRecord) -> None:
        self.spec = spec
        self.template = template
        self.job_id = record.job_id
        self.attempt = record.attempt
        self.failures = record.failures
        self.dependents = 0
        self.pinned: list[bytes] = []  # small puts that it needs, kept for it

    def needs(self) -> dict[bytes, None]:
        """The tasks that made its arguments."""
        return dict.fromkeys(map(task_of, (*self.spec.dependencies, *self.spec.nested)))

    def size(self) -> int:
        """About as many bytes of the head's memory."""
        return _ENTRY_BYTES + len(self.spec.arguments)


class Lineage:
    """``begin`` starts a task that runs again, as ``TaskManager.begin``."""

    def __init__(
        self,
        *,
        counters: dict[str, int],
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        definitions: Definitions,
        begin: Callable[[TaskRecord, TaskSpec, float], None],
    ) -> None:
        self._counters = counters
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._definitions = definitions
        self._begin = begin
        self.origins: OrderedDict[bytes, Origin] = OrderedDict()  # by task, the oldest first
        self._of_jobs: dict[bytes, dict[bytes, None]] = {}
        self._bytes = 0

    # ---- what is kept ----------------------------------------------------------------------

    def on_made(self, sender: Member, message: Made, now: float) -> None:
        """Tasks that workers have run which were leased to their submitter."""
        for spec in message.tasks:
            template = self._definitions.templates.get(spec.template_id)
            if template is not None and message.job_id in self._members.jobs:
                record = TaskRecord(spec, template, message.job_id, message.submitter)
                record.attempt += 1
                returns = range(template.message.num_returns)
                oids = [object_id(spec.task_id, index) for index in returns]
                self.finished(record, [Outcome(oid, LOCATED, 0) for oid in oids])

    def finished(self, record: TaskRecord, outcomes: list[Outcome]) -> None:
        """A task has its outcomes: remember how they were made, if they could get lost."""
        spec, template = record.spec, record.template
        if spec is None or template is None or not template.message.max_retries:
            return
        large = any(o.kind & LOCATED and not o.kind & ERROR for o in outcomes)
        if not large:
            return
        old = self.origins.pop(spec.task_id, None)
        origin = self.origins[spec.task_id] = Origin(record, spec, template)
        if old is not None:
            origin.dependents, origin.pinned = old.dependents, old.pinned
            self._definitions.use(template)
            self._definitions.unuse(old.template)
            return
        self._definitions.use(template)
        self._of_jobs.setdefault(origin.job_id, {})[spec.task_id] = None
        self._bytes += origin.size()
        for task_id in origin.needs():
            needed = self.origins.get(task_id)
            if needed is not None:
                needed.dependents += 1
        self._pin(origin)
        while self._bytes > limits.LINEAGE_BYTES_MAX:
            self._forget(next(iter(self.origins)))

    def _pin(self, origin: Origin) -> None:
        """Small arguments that nothing could make again stay, such as those that were boxed."""
        task_id = origin.spec.task_id
        for oid in (*origin.spec.dependencies, *origin.spec.nested):
            record = self._objects.get(oid)
            small = record is not None and record.size <= limits.LINEAGE_PIN_BYTES_MAX
            if small and task_of(oid) not in self.origins:
                origin.pinned.append(oid)
                self._objects.hold(_holder(task_id), oid)

    def freed(self, task_id: bytes) -> None:
        """Nobody holds a result of the task any more."""
        if self._is_over(task_id):
            self._forget(task_id)

    def _is_over(self, task_id: bytes) -> bool:
        """Whether no result of the task is held, nor needed to make others."""
        origin = self.origins.get(task_id)
        if origin is None or origin.dependents or task_id in self._tasks:
            return False
        count = origin.template.message.num_returns
        returns = [object_id(task_id, index) for index in range(count)]
        return not any(oid in self._objects.records for oid in returns)

    def _forget(self, task_id: bytes) -> None:
        """With all that was kept for this one alone; a chain of them may be long."""
        left = [task_id]
        while left:
            task_id = left.pop()
            origin = self.origins.pop(task_id, None)
            if origin is None:
                continue
            self._bytes -= origin.size()
            of_job = self._of_jobs[origin.job_id]
            del of_job[task_id]
            if not of_job:
                del self._of_jobs[origin.job_id]
            self._definitions.unuse(origin.template)
            for oid in origin.pinned:
                self._objects.drop(_holder(task_id), oid)
            for needed_id in origin.needs():
                needed = self.origins.get(needed_id)
                if needed is not None and needed.dependents:
                    needed.dependents -= 1
                    if self._is_over(needed_id):
                        left.append(needed_id)

    def job_ended(self, job_id: bytes) -> None:
        """Nothing of it will be made again."""
        for task_id in [*self._of_jobs.get(job_id, ())]:
            if task_id in self.origins:
                self._forget(task_id)

    # ---- making again ----------------------------------------------------------------------

    def rebuild(self, oid: bytes, now: float) -> str:
        """Make a lost object again; empty: that is under way. Else why it cannot be."""
        task_id = task_of(oid)
        if task_id in self._tasks:
            return ""
        plan: dict[bytes, Origin] = {}
        trouble = self._plan(oid, plan)
        if not trouble:
            for origin in plan.values():  # what is needed comes before what needs it
                self._run_again(origin, now)
        return trouble

    def _plan(self, oid: bytes, plan: dict[bytes, Origin]) -> str:
        """Which tasks are to run again for the object; why not, if they cannot."""
        path = [oid]  # objects to be made, each for the one before; it may be long
        while path:
            wanted = path[-1]
            task_id = task_of(wanted)
            if task_id in plan or task_id in self._tasks:
                path.pop()
                continue
            origin = self.origins.get(task_id)
            trouble = self._objection(origin)
            if origin is None or trouble:
                needed = f"object {wanted.hex()} is needed for that: " if len(path) > 1 else ""
                return needed + trouble
            missing = [dep for dep in origin.spec.dependencies if not self._is_here(dep)]
            missing = [dep for dep in missing if task_of(dep) not in plan]
            if missing:
                path += missing
            else:
                plan[task_id] = origin
                path.pop()
        return ""

    def _objection(self, origin: Origin | None) -> str:
        """Why a task cannot run again, if it cannot."""
        if origin is None:
            return (
                "it cannot be made again: it was put, made by an actor or a task without retries, "
                "the head was restarted since, or a task that was run again for it failed"
            )
        name = origin.template.message.name
        retries = origin.template.message.max_retries
        if 0 <= retries <= origin.failures:
            return f"{name}, which made it, has used up its {retries} retries"
        if origin.job_id not in self._members.jobs:
            return f"the job of {name}, which made it, has ended"
        for needed in origin.spec.nested:
            if needed not in self._objects.records:
                return f"{name}, which made it, refers to object {needed.hex()}, which was freed"
        return ""

    def _is_here(self, oid: bytes) -> bool:
        record = self._objects.get(oid)
        if record is None:
            return False
        known = record.kind == PENDING or bool(record.locations)
        return known or self._objects.value(oid) is not None

    def _run_again(self, origin: Origin, now: float) -> None:
        spec = origin.spec
        record = TaskRecord(spec, origin.template, origin.job_id, b"")
        record.attempt = origin.attempt
        record.failures = origin.failures = origin.failures + 1
        record.rebuilds = True
        self._tasks.add(spec.task_id, record)
        self._members.jobs[origin.job_id].unfinished += 1
        self._counters["rebuilt"] += 1
        self._begin(record, spec, now)

    def again(self, outcome: Outcome) -> bool:
        """A task has run again: whether its outcome stands for what was lost."""
        record = self._objects.get(outcome.object_id)
        if record is None or (record.kind ^ outcome.kind) & ERROR:
            self._forget(task_of(outcome.object_id))
            return False
        inner = tuple(outcome.contained)
        if inner != record.contained:
            before, record.contained = record.contained, ()
            self._objects.contain(outcome.object_id, record, outcome.contained)
            for oid in before:
                if oid not in inner:
                    self._objects.drop(outcome.object_id, oid)
        record.size = outcome.size
        return True


def _holder(task_id: bytes) -> bytes:
    """As which the lineage holds what a task needs; the task itself may be another holder."""
    return b"lineage " + task_id
