"""Near tasks: those of this node's workers that start here without the head.

Whoever submits a task from a task is likely to wait for it, and has just left a CPU. What asks for
CPU alone is queued here; what does not start soon, or not fairly, is handed up to the head. Results
are their submitter's own: the cluster hears of one when its reference leaves the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count

from msgspec import structs

from zray import limits
from zray.core import failures, resources
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.local_records import LocalTask, NearTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_report import NearReport
from zray.core.raylet.near_results import NearResults
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.task_reports import TaskReports
from zray.core.raylet.tasks import LocalTasks
from zray.core.raylet.worker_requests import Principal, WorkerRequests
from zray.errors import TaskCancelledError
from zray.ids import is_item, object_id, origin_of, split_objects, task_of
from zray.protocol import messages as m


class NearTasks:
    """Of one incarnation of the raylet.

    Args:
        outbox: messages to workers.
        tell_head: as ``HeadSession.tell``.
        foreign_lease: whether a worker here is leased to another job than this one.
        is_built: as ``Environments.is_ready``.

    Attributes:
        tasks: by id; none of them has an outcome.
        results, report: those of such tasks, and what the head hears of them.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        objects: LocalObjects,
        scheduler: LocalScheduler,
        local_tasks: LocalTasks,
        worker_requests: WorkerRequests,
        node_id: bytes,
        tell_head: Callable[[m.Message], None],
        foreign_lease: Callable[[bytes], bool],
        reports: TaskReports,
        is_built: Callable[[bytes, str], bool],
    ) -> None:
        self._outbox = outbox
        self._objects = objects
        self._scheduler = scheduler
        self._local_tasks = local_tasks
        self._requests = worker_requests
        self.results = NearResults(node_id, objects, worker_requests, tell_head)
        self.report = NearReport(scheduler, tell_head)
        self._tell_head = tell_head
        self._foreign_lease = foreign_lease
        self._reports = reports
        self._is_built = is_built
        self.tasks: dict[bytes, LocalTask] = {}
        self._children: dict[bytes, dict[bytes, None]] = {}  # by parent
        self._dependents: dict[bytes, list[LocalTask]] = {}  # by result that is not there yet
        self._numbers = count()
        self._crowded = False  # the head says that others wait
        self.closed = False  # the node takes nothing more
        self._moved = 0.0  # when one has started here last, or began to wait
        self._given = 0  # to workers, by then
        self._came: deque[LocalTask] = deque()  # all that these waited for is there
        self._answering = False

    def new_session(self) -> None:
        """The head says anew whether others wait."""
        self._crowded = False
        self.report.new_session()

    def on_crowded(self, message: m.Crowded) -> None:
        """The head says whether tasks of other jobs wait."""
        self._crowded = message.others_wait

    # ---- submitted -------------------------------------------------------------------------

    def on_submit(self, slot: WorkerSlot, message: m.Submit, now: float) -> None:
        """Keep what may start here, and pass the rest on."""
        job_id = self._requests.principals[slot.worker_id].job_id
        passed = []
        for spec in message.tasks:
            self._reveal_all(spec.nested)
            task = self._kept(slot, spec, job_id)
            if task is None:
                passed.append(self._revealed(slot, spec))
            elif not task.waiting:
                self._queue(task, now)
        if passed:
            self._requests.submit(slot.worker_id, passed)

    def _kept(self, slot: WorkerSlot, spec: m.TaskSpec, job_id: bytes) -> LocalTask | None:
        """The task as one of this node; None: it goes by way of the head."""
        scheduler = self._scheduler
        template = self._local_tasks.templates.get(spec.template_id)
        if template is None or template.function is None:
            return None
        made_of = template.message
        if made_of.by_name or made_of.labels or made_of.priority:
            return None
        if (
            self.closed
            or self._crowded
            or len(self.tasks) >= limits.NEAR_TASKS
            or not scheduler.room()
        ):
            return None
        if template.builds and not self._is_built(job_id, template.builds):
            return None
        possible = template.cpu_only and resources.fits(scheduler.total, template.needs)
        if not possible or spec.task_id in self._local_tasks.held:
            return None
        values, missing = {}, []
        for oid in spec.dependencies:
            outcome = self.results.outcome(oid) or self._objects.stored.get(oid)
            if outcome is not None:
                values[oid] = outcome
            elif task_of(oid) in self.tasks:
                missing.append(oid)
            else:
                return None
        assignment = m.Assignment(1, job_id, spec, 0, None, self._depth(slot, spec))
        task = LocalTask(assignment, template)
        task.values = values
        task.near = NearTask(slot.worker_id, next(self._numbers), self.results.use(spec))
        task.waiting = len(missing)
        for oid in missing:
            self._dependents.setdefault(oid, []).append(task)
        self.results.expect(slot.worker_id, self._returns(task))
        self.tasks[spec.task_id] = self._local_tasks.held[spec.task_id] = task
        self._requests.principals[slot.worker_id].near_tasks[spec.task_id] = None
        if spec.parent:
            self._children.setdefault(spec.parent, {})[spec.task_id] = None
        self.report.begun(job_id)
        return task

    @staticmethod
    def _depth(slot: WorkerSlot, spec: m.TaskSpec) -> int:
        """How many tasks above it run, as far as is known here.

        Its submitter may be any that the worker has: ends of short ones before it come later.
        """
        above = slot.inflight.get(spec.parent)
        return above.depth + 1 if above is not None else int(bool(spec.parent))

    def _queue(self, task: LocalTask, now: float) -> None:
        if not self._scheduler.queued_near:
            self._moved = now
        self._local_tasks.ready(task)

    @staticmethod
    def _returns(task: LocalTask) -> list[bytes]:
        template = task.template.message
        return [object_id(task.task_id, index) for index in range(template.num_returns)]

    # ---- handed up -------------------------------------------------------------------------

    def _revealed(self, slot: WorkerSlot, spec: m.TaskSpec) -> m.TaskSpec:
        """A task as it goes by way of the head, which hears first of what it refers to."""
        self._reveal_all(spec.dependencies)
        if spec.parent in self.tasks and not spec.depth:
            return structs.replace(spec, depth=self._depth(slot, spec))
        return spec

    def _reveal_all(self, object_ids: Iterable[bytes]) -> None:
        """References to these leave their owner."""
        if not self.results:
            return
        pending = []
        for oid in object_ids:
            if oid not in self.results:
                continue
            task = self.tasks.get(task_of(oid))
            if task is None:
                self.results.reveal(oid)
            else:
                pending.append(task)
        if pending:
            self.hand_up(pending)

    def hand_up(self, tasks: list[LocalTask]) -> None:
        """The head hears of these, of what they need, and of what needs them."""
        found = {task.task_id: task for task in tasks}
        left = [*found.values()]
        for task in left:  # grows with those
            for oid in (*task.assignment.spec.dependencies, *self._returns(task)):
                others = [*self._dependents.pop(oid, ())]
                if (maker := self.tasks.get(task_of(oid))) is not None:
                    others.append(maker)
                for other in others:
                    if other.task_id not in found:
                        found[other.task_id] = other
                        left.append(other)
        for task in sorted(found.values(), key=_number):
            self._hand_up(task)

    def _hand_up(self, task: LocalTask) -> None:
        near, assignment, spec = task.near, task.assignment, task.assignment.spec
        if near is None or near.submitter not in self._requests.principals:
            return  # it is about to end, since its submitter has
        for oid in spec.dependencies:
            self.results.reveal(oid)
        told = structs.replace(spec, depth=task.depth, failures=assignment.failures)
        if task.worker is not None:
            self._requests.begun(near.submitter, m.BegunTask(told, assignment.attempt))
        else:
            if self._local_tasks.held.pop(task.task_id, None) is not None and not task.waiting:
                self._scheduler.remove(task)
            self._requests.submit(near.submitter, [told])
        self.results.entrusted(self._returns(task))
        if task.cancelled:
            self._tell_head(m.Cancel(0, task.task_id, task.forced, False))
        self._forget(task, finished=False)
        task.near = None

    def _forget(self, task: LocalTask, *, finished: bool) -> None:
        """It is near no more."""
        near, assignment = task.near, task.assignment
        assert near is not None
        del self.tasks[task.task_id]
        principal = self._requests.principals.get(near.submitter)
        if principal is not None:
            principal.near_tasks.pop(task.task_id, None)
        parent = assignment.spec.parent
        if parent:
            siblings = self._children[parent]
            del siblings[task.task_id]
            if not siblings:
                del self._children[parent]
        self.results.unuse(near.used)
        self.report.ended(assignment.job_id, finished=finished)

    # ---- ends ------------------------------------------------------------------------------

    def ended(self, task: LocalTask, done: m.TaskDone, maker: bytes) -> None:
        """An attempt has ended; ``maker``: the worker that ran it, or empty."""
        self._reports.near_ended(task, done)
        if done.borrowed:
            self._tell_head(m.Hold(0, maker, b"".join(done.borrowed)))
        results = done.results
        if done.status != m.FINISHED and (task.cancelled or done.status == m.CANCELLED):
            results = self._cancelled(task)
        elif done.status in (m.FAILED, m.CRASHED) and self._retry(task):
            return
        self._answer(task, results, maker)
        if not self._answering:
            self._answering = True
            while self._came:
                self._local_tasks.ready(self._came.popleft())
            self._answering = False

    def _cancelled(self, task: LocalTask) -> list[m.Outcome]:
        template = task.template.message
        text = f"the task was cancelled (task {template.name} {task.task_id.hex()})"
        value = failures.encode(TaskCancelledError, text, template.name)
        return failures.outcomes(task.task_id, template.num_returns, value)

    def _retry(self, task: LocalTask) -> bool:
        """Queue it again, if its retries allow; before all others of its depth."""
        old, most = task.assignment, task.template.message.max_retries
        if 0 <= most <= old.failures:
            return False
        task.assignment = structs.replace(old, attempt=old.attempt + 1, failures=old.failures + 1)
        self._local_tasks.held[task.task_id] = task
        self.report.retried(old.job_id)
        self._scheduler.push(task, front=True)
        return True

    def _answer(self, task: LocalTask, results: list[m.Outcome], maker: bytes) -> None:
        near = task.near
        assert near is not None
        large = any(_is_large(one) and self.results.is_wanted(one.object_id) for one in results)
        told = [self.results.came(outcome, maker) for outcome in results]
        spec = task.assignment.spec
        principal = self._requests.principals.get(near.submitter)
        if principal is not None:
            if (large or near.large) and task.template.message.max_retries:
                self._reveal_all(spec.dependencies)
                kept = structs.replace(spec, depth=task.depth, failures=task.assignment.failures)
                self._tell_head(m.Made(0, near.submitter, task.assignment.job_id, [kept]))
            self._outbox.send(near.submitter, m.Result(0, near.submitter, told))
        for outcome in told if self._dependents else ():
            oid = outcome.object_id
            for dependent in self._dependents.pop(oid, ()):
                dependent.values[oid] = self._objects.stored.get(oid) or outcome
                dependent.waiting -= 1
                if not dependent.waiting:
                    self._came.append(dependent)
        self._forget(task, finished=True)
        task.near = None

    def on_put(self, worker_id: bytes, message: m.Put) -> None:
        """A worker has a value, which may be an item of a task that it runs."""
        oid = message.outcome.object_id
        task = self.tasks.get(origin_of(oid)) if is_item(oid) else None
        if task is not None and task.near is not None:
            task.near.large = True
        self._requests.on_put(worker_id, message)

    def withdrawn(self, task: LocalTask) -> None:
        """Nobody wants it any more, nor what it makes."""
        for oid in self._returns(task):
            self._dependents.pop(oid, None)  # of the same job, which has ended
        self.results.withdrawn(self._returns(task))
        self._forget(task, finished=False)

    def dismissed(self, principal: Principal, now: float) -> None:
        """A worker has ended: nobody waits for what it has submitted, and nobody else knows it."""
        self.results.dismissed([*principal.near_results])
        for task_id in [*principal.near_tasks]:
            task = self.tasks.get(task_id)
            if task is not None:
                self._cancel(task, False, False, now)

    # ---- from workers ----------------------------------------------------------------------

    def on_drop(self, slot: WorkerSlot, message: m.Drop) -> bytes:
        """What it drops of near results ends here; returns the others."""
        if not self.results:
            return message.object_ids
        return b"".join(self.results.drop(slot.worker_id, message.object_ids))

    def on_publish(self, message: m.Publish) -> None:
        """References to results leave their owner."""
        self._reveal_all(split_objects(message.object_ids))

    def on_query(self, slot: WorkerSlot, message: m.Query) -> None:
        """Why something waits the head can tell: it hears of what is asked about."""
        self._reveal_all(message.object_ids)
        self._requests.on_request(slot.worker_id, message)

    # ---- cancelling ------------------------------------------------------------------------

    def on_cancel(self, slot: WorkerSlot, message: m.Cancel, now: float) -> None:
        """A worker cancels a task of its own, or of somebody else's."""
        if message.task_id not in self.tasks:
            self._requests.on_cancel(slot.worker_id, message)
        elif message.recursive:
            self._cancel_all(message.task_id, message.force, now)
        else:
            self._cancel(self.tasks[message.task_id], message.force, False, now)

    def child(self, parent: bytes) -> bytes:
        """The first task made by this one that is near and has not ended; empty: there is none."""
        return next(iter(self._children.get(parent, ())), b"")

    def on_cancel_below(self, message: m.Cancel, now: float) -> None:
        """The head cancels a task with all that it has submitted, or asks a worker for what that
        alone knows."""
        if message.target:
            if message.target in self._scheduler.workers:
                self._outbox.send(message.target, message)
            return
        for task_id in [*self._children.get(message.task_id, ())]:
            self._cancel_all(task_id, message.force, now)

    def _cancel_all(self, task_id: bytes, force: bool, now: float) -> None:
        """A near task and those below it; of some the head may have heard."""
        found = {task_id: None}
        left = [task_id]
        for one in left:  # grows with those
            for child in self._children.get(one, ()):
                if child not in found:
                    found[child] = None
                    left.append(child)
        for one in reversed(left):
            task = self.tasks.get(one)
            if task is not None and not (task.cancelled and task.forced >= force):
                self._tell_head(m.Cancel(0, one, force, True))
                self._cancel(task, force, True, now)

    def _cancel(self, task: LocalTask, force: bool, recursive: bool, now: float) -> None:
        attempt = task.assignment.attempt
        cancel = m.CancelTask(0, task.task_id, attempt, force, recursive)
        self._local_tasks.on_cancel(cancel, now)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Once what can start has: what is left waits a moment, if it is in nobody's way."""
        scheduler = self._scheduler
        if scheduler.given_near != self._given:
            self._given, self._moved = scheduler.given_near, now
        if scheduler.queued_near:
            job_id = next(iter(scheduler.queued_jobs))
            crowded = self._crowded or len(scheduler.queued_jobs) > 1
            late = now >= self._moved + limits.NEAR_WAIT_S
            if crowded or late or self._foreign_lease(job_id):
                tasks = scheduler.take_near()
                for task in tasks:
                    del self._local_tasks.held[task.task_id]
                self.hand_up(tasks)
        self.report.step(now)

    def deadline(self) -> float:
        """When those that wait have waited long enough, or the head is to hear of them."""
        wait = self._moved + limits.NEAR_WAIT_S if self._scheduler.queued_near else NEVER
        return min(wait, self.report.deadline())


def _number(task: LocalTask) -> int:
    assert task.near is not None
    return task.near.number


def _is_large(outcome: m.Outcome) -> bool:
    return bool(outcome.kind & m.LOCATED) and not outcome.kind & m.ERROR
