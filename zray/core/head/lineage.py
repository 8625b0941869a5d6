"""The GCS's Lineage: how large results were made, so that a lost one can be made again.

Kept for tasks whose retries allow it, while a result of theirs, or of a task that needs one of
these, is held by anybody; bounded, the oldest go first. Specs are kept and small puts, but no other
values: what a task needs and was freed since is made again in its turn. Larger puts, calls of
actors, and tasks of before a head's restart have none.

What a task yields is as its results are. It may be lost while the task still runs, or is to run
again anyway: then that is waited for. A task that has ended runs for its lost items alone, and
nobody hears of the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from zray import limits
from zray.core.head.definitions import Definitions
from zray.core.head.members import Member, Members
from zray.core.head.object_table import ObjectTable
from zray.core.head.task_records import TaskRecord, TemplateRecord
from zray.core.head.task_table import TaskTable
from zray.ids import index_of, is_item, item_id, object_id, origin_of, split_tasks
from zray.protocol.messages import ERROR, ITEMS, LOCATED, Made, Outcome, TaskSpec

_ENTRY_BYTES = 700  # of the head's memory, besides the arguments


class Origin:
    """How a task's results were made.

    ``runs``: its submitter has it, and says how it ends. ``unmade``: items that it did not yield
    when it ran again for them.
    """

    __slots__ = (
        *("attempt", "failures", "job_id", "pinned", "runs", "spec", "template"),
        "unmade",
    )

    def __init__(self, record: TaskRecord, spec: TaskSpec, template: TemplateRecord) -> None:
        self.spec = spec
        self.template = template
        self.job_id = record.job_id
        self.attempt = record.attempt
        self.failures = record.failures
        self.runs = False
        self.unmade: dict[bytes, None] = {}
        self.pinned: list[bytes] = []  # small puts that it needs, kept for it

    def needs(self) -> dict[bytes, None]:
        """The tasks that made its arguments."""
        return dict.fromkeys(map(origin_of, (*self.spec.dependencies, *self.spec.nested)))

    def size(self) -> int:
        """About as many bytes of the head's memory."""
        return _ENTRY_BYTES + len(self.spec.arguments)


class Lineage:
    """Args:
    begin: starts a task that runs again, as ``TaskManager.begin``.
    retry: looks again for what others wait for, as ``Transfers.retry``.
    """

    def __init__(
        self,
        *,
        counters: dict[str, int],
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        definitions: Definitions,
        begin: Callable[[TaskRecord, TaskSpec, float], None],
        retry: Callable[[], None],
    ) -> None:
        self._counters = counters
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._definitions = definitions
        self._begin = begin
        self._retry = retry
        self.origins: OrderedDict[bytes, Origin] = OrderedDict()  # by task, the oldest first
        self._of_jobs: dict[bytes, dict[bytes, None]] = {}
        self._dependents: dict[bytes, int] = {}  # by task: how many origins need what it has made
        self._bytes = 0

    # ---- what is kept ----------------------------------------------------------------------

    def on_made(self, sender: Member, message: Made, now: float) -> None:
        """Tasks that workers have run which were leased to their submitter."""
        if message.runs and not message.tasks:
            self._ended_but(message.job_id, {*split_tasks(message.running)})
        for spec in message.tasks:
            template = self._definitions.templates.get(spec.template_id)
            if template is not None and message.job_id in self._members.jobs:
                record = TaskRecord(spec, template, message.job_id, message.submitter)
                record.attempt += 1
                if template.message.yields == ITEMS:
                    self._yielded(record, runs=message.runs)
                    continue
                returns = range(template.message.num_returns)
                oids = [object_id(spec.task_id, index) for index in returns]
                self.finished(record, [Outcome(oid, LOCATED, 0) for oid in oids])

    def _ended_but(self, job_id: bytes, running: set[bytes]) -> None:
        """Of the tasks that the job was running these have not ended."""
        for task_id in [*self._of_jobs.get(job_id, ())]:
            origin = self.origins.get(task_id)  # it may have gone with another one
            if origin is None or task_id in running or task_id in self._tasks:
                continue
            if origin.runs:
                origin.runs = False
                self.freed(task_id)
        self._retry()

    def _yielded(self, record: TaskRecord, *, runs: bool) -> None:
        """A leased task has yielded large items, and runs or has ended."""
        assert record.spec is not None
        task_id = record.spec.task_id
        if runs or task_id in self.origins or self._may_miss(task_id):
            self._remember(record)
            if task_id in self.origins:
                self.origins[task_id].runs = runs
        if not runs:
            self.freed(task_id)
            if task_id in self._objects.items:
                self._retry()

    def finished(self, record: TaskRecord, outcomes: list[Outcome]) -> None:
        """A task has its outcomes: remember how they were made, if they could get lost."""
        large = any(o.kind & LOCATED and not o.kind & ERROR for o in outcomes)
        template = record.template
        if large or (
            record.spec is not None
            and template is not None
            and template.message.yields
            and self._may_miss(record.spec.task_id)
        ):
            self._remember(record)

    def _may_miss(self, task_id: bytes) -> bool:
        """Whether something that the task has yielded could be wanted again."""
        items = self._objects.items.get(task_id, ())
        lacks = any(self._objects.value(oid) is None for oid in items)
        return lacks or task_id in self._dependents

    def _remember(self, record: TaskRecord) -> None:
        spec, template = record.spec, record.template
        if spec is None or template is None or not template.message.max_retries:
            return
        old = self.origins.pop(spec.task_id, None)
        origin = self.origins[spec.task_id] = Origin(record, spec, template)
        if old is not None:
            origin.pinned, origin.unmade = old.pinned, old.unmade
            self._definitions.use(template)
            self._definitions.unuse(old.template)
            return
        self._definitions.use(template)
        self._of_jobs.setdefault(origin.job_id, {})[spec.task_id] = None
        self._bytes += origin.size()
        for task_id in origin.needs():
            self._dependents[task_id] = self._dependents.get(task_id, 0) + 1
        self._pin(origin)
        while self._bytes > limits.LINEAGE_BYTES_MAX:
            self._forget(next(iter(self.origins)))

    def _pin(self, origin: Origin) -> None:
        """Small arguments that nothing could make again stay, such as those that were boxed."""
        task_id = origin.spec.task_id
        for oid in (*origin.spec.dependencies, *origin.spec.nested):
            record = self._objects.get(oid)
            small = record is not None and record.size <= limits.LINEAGE_PIN_BYTES_MAX
            if small and origin_of(oid) not in self.origins:
                origin.pinned.append(oid)
                self._objects.hold(_holder(task_id), oid)

    def freed(self, task_id: bytes) -> None:
        """Nobody holds a result of the task any more."""
        if self._is_over(task_id):
            self._forget(task_id)

    def _is_over(self, task_id: bytes) -> bool:
        """Whether no result of the task is held, nor needed to make others."""
        origin = self.origins.get(task_id)
        if origin is None or origin.runs or task_id in self._dependents or task_id in self._tasks:
            return False
        if task_id in self._objects.items:
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
                others = self._dependents.pop(needed_id, 1) - 1
                if others:
                    self._dependents[needed_id] = others
                elif self._is_over(needed_id):
                    left.append(needed_id)

    def job_ended(self, job_id: bytes) -> None:
        """Nothing of it will be made again."""
        for task_id in [*self._of_jobs.get(job_id, ())]:
            if task_id in self.origins:
                self._forget(task_id)

    # ---- making again ----------------------------------------------------------------------

    def rebuild(self, oid: bytes, now: float) -> str:
        """Make a lost object again; empty: that is under way. Else why it cannot be."""
        if self._is_under_way(origin_of(oid)):
            return ""
        plan: dict[bytes, Origin] = {}
        items: dict[bytes, dict[int, None]] = {}
        trouble = self._plan(oid, plan, items)
        if not trouble:
            for task_id, origin in plan.items():  # what is needed comes before what needs it
                self._run_again(origin, items.get(task_id, {}), now)
        return trouble

    def _is_under_way(self, task_id: bytes) -> bool:
        if task_id in self._tasks:
            return True
        origin = self.origins.get(task_id)
        return origin is not None and origin.runs

    def _plan(
        self, oid: bytes, plan: dict[bytes, Origin], items: dict[bytes, dict[int, None]]
    ) -> str:
        """Which tasks are to run again for the object; why not, if they cannot.

        ``items``: of these, which numbers are wanted.
        """
        path = [oid]  # objects to be made, each for the one before; it may be long
        while path:
            wanted = path[-1]
            task_id = origin_of(wanted)
            if is_item(wanted):
                items.setdefault(task_id, {})[index_of(wanted)] = None
            if task_id in plan or self._is_under_way(task_id):
                path.pop()
                continue
            origin = self.origins.get(task_id)
            trouble = self._objection(origin, wanted)
            if origin is None or trouble:
                needed = f"object {wanted.hex()} is needed for that: " if len(path) > 1 else ""
                return needed + trouble
            missing = [dep for dep in origin.spec.dependencies if not self._is_here(dep)]
            missing = [dep for dep in missing if not self._is_coming(dep, plan, items)]
            if missing:
                path += missing
            else:
                plan[task_id] = origin
                path.pop()
        return ""

    def _is_coming(
        self, oid: bytes, plan: dict[bytes, Origin], items: dict[bytes, dict[int, None]]
    ) -> bool:
        task_id = origin_of(oid)
        if task_id not in plan:
            return self._is_under_way(task_id)
        return not is_item(oid) or index_of(oid) in items.get(task_id, ())

    def _objection(self, origin: Origin | None, oid: bytes) -> str:
        """Why a task cannot run again for an object, if it cannot."""
        if origin is None:
            return (
                "it cannot be made again: it was put, made by an actor or a task without retries, "
                "the head was restarted since, or a task that was run again for it failed"
            )
        name = origin.template.message.name
        retries = origin.template.message.max_retries
        if oid in origin.unmade:
            return f"{name}, which made it, ran again and did not yield as many items as before"
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
        return record is not None and not self._objects.is_lost(oid, record)

    def _has_copy(self, oid: bytes) -> bool:
        return bool(self._objects.records[oid].locations) or self._objects.value(oid) is not None

    def _run_again(self, origin: Origin, asked: dict[int, None], now: float) -> None:
        """``asked``: items that are wanted now; with them come all others that are lost."""
        spec = origin.spec
        if origin.template.message.yields == ITEMS:
            spec = replace(spec, consumer=b"", wanted=self._wanted(spec.task_id, asked))
        record = TaskRecord(spec, origin.template, origin.job_id, b"")
        record.attempt = origin.attempt
        record.failures = origin.failures = origin.failures + 1
        record.rebuilds = True
        record.since = now
        self._tasks.add(spec.task_id, record)
        self._members.jobs[origin.job_id].unfinished += 1
        self._counters["rebuilt"] += 1
        self._begin(record, spec, now)

    def _wanted(self, task_id: bytes, asked: dict[int, None]) -> list[int]:
        wanted = dict(asked)
        for oid in self._objects.items.get(task_id, ()):
            if len(wanted) >= limits.LINEAGE_ITEMS_MAX:
                break
            if self._objects.is_lost(oid, self._objects.records[oid]):
                wanted[index_of(oid)] = None
        return [*wanted][: limits.LINEAGE_ITEMS_MAX]

    def again(self, outcome: Outcome) -> bool:
        """A task has run again: whether its outcome stands for what was lost."""
        record = self._objects.get(outcome.object_id)
        if record is None or (record.kind ^ outcome.kind) & ERROR:
            self._forget(origin_of(outcome.object_id))
            return False
        self._objects.made_again(outcome.object_id, record, outcome)
        return True

    def ended(self, task_id: bytes, record: TaskRecord) -> None:
        """A task has its outcome that has run again, or yields.

        What it was to yield again and did not, it will not yield the next time.
        """
        origin = self.origins.get(task_id)
        if origin is None or record.spec is None:
            return
        origin.runs = False
        origin.failures = max(origin.failures, record.failures)
        if record.rebuilds:
            items = self._objects.items.get(task_id, {})
            asked = [item_id(task_id, number) for number in record.spec.wanted]
            everything = origin.template.message.yields != ITEMS
            for oid in items if everything else asked:
                if oid in items and not self._has_copy(oid):
                    origin.unmade[oid] = None
        self.freed(task_id)


def _holder(task_id: bytes) -> bytes:
    """As which the lineage holds what a task needs; the task itself may be another holder."""
    return b"lineage " + task_id
