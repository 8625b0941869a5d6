"""What this node knows of its tasks and workers, for a head that is asked why they are not done."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core import causes, resources
from zray.core.causes import BLOCKED, READY, cause
from zray.core.raylet.actors import HostedActors
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.tasks import LocalTasks
from zray.ids import OBJECT_BYTES, object_id, origin_of, task_of
from zray.protocol import messages as m


class LocalCauses:
    """``node``: its name. ``of_lease``: the worker that serves it. ``tell_head``: as
    ``HeadSession.tell``."""

    def __init__(
        self,
        node: str,
        tasks: LocalTasks,
        near_tasks: NearTasks,
        scheduler: LocalScheduler,
        actors: HostedActors,
        of_lease: Callable[[bytes], WorkerSlot | None],
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._node = node
        self._tasks = tasks
        self._near_tasks = near_tasks
        self._scheduler = scheduler
        self._actors = actors
        self._of_lease = of_lease
        self._tell_head = tell_head

    def on_ask(self, message: m.AskWhy, now: float) -> None:
        """The head asks."""
        found: list[m.Cause] = []
        if message.lease_id:
            slot = self._of_lease(message.lease_id)
            found = [self._leased(slot, message)] if slot is not None else []
            child = self._near_tasks.child(task_of(message.id))
            then = object_id(child) if child and found and found[0].code == BLOCKED else b""
        else:
            then = message.id
        more, then = self._of(then, now) if then else ([], b"")
        found = [*found, *more][: limits.WHY_CHAIN_MAX]
        self._tell_head(m.ToldWhy(0, message.seq, found, then))

    def _leased(self, slot: WorkerSlot, message: m.AskWhy) -> m.Cause:
        """Of the task that a leased worker runs, as its submitter says."""
        where = f"in worker pid {slot.pid} of node {self._node}"
        if slot.blocked:
            return self._blocked("attempt", message.id, message.name, where)
        text = f"{message.name} runs {where}"
        return cause("attempt", message.id, message.name, "RUNNING", text)

    @staticmethod
    def _blocked(
        kind: str, task_id: bytes, name: str, where: str, since_s: float = -1.0
    ) -> m.Cause:
        text = f"{name} waits {where} in get or wait; its CPU is free for others meanwhile"
        return cause(kind, task_id, name, BLOCKED, text, since_s=since_s)

    def _of(self, thing_id: bytes, now: float) -> tuple[list[m.Cause], bytes]:
        """What is known of it, and on what that depends; nothing: it is not here."""
        is_object = len(thing_id) == OBJECT_BYTES
        found: list[m.Cause] = []
        task_id = origin_of(thing_id) if is_object else thing_id
        then = b""
        while task_id and len(found) < limits.WHY_CHAIN_MAX:
            task = self._tasks.held.get(task_id)
            if task is None or any(one.id == task_id for one in found):
                break
            one, then = self._task(task_id, task, now)
            found.append(one)
            task_id = task_of(then) if then and self._is_near(then) else b""
        if found:
            return found, then
        actor_id = task_of(thing_id)
        slot = self._scheduler.workers.get(thing_id) or self._actors.process_of(actor_id)
        if slot is not None:
            return [self._worker(slot, now)], b""
        outcome = self._near_tasks.results.outcome(thing_id if is_object else object_id(thing_id))
        return ([self._ended(outcome)] if outcome is not None else []), b""

    def _is_near(self, oid: bytes) -> bool:
        return task_of(oid) in self._near_tasks.tasks

    # ---- tasks -----------------------------------------------------------------------------

    def _task(self, task_id: bytes, task: LocalTask, now: float) -> tuple[m.Cause, bytes]:
        name, kind = task.template.message.name, "attempt" if task.near is None else "task"
        slot = task.worker
        if slot is None:
            return self._unstarted(kind, task_id, task, name)
        if slot.current() is not task:
            first = slot.current()
            before = first.template.message.name if first is not None else "another task"
            text = f"waits in worker pid {slot.pid} of node {self._node}, behind {before}"
            advice = "where it has to wait for long, it goes to another worker"
            return cause(kind, task_id, name, "QUEUED", text, advice=advice), b""
        since_s = max(0.0, now - slot.progress)
        if not slot.pid:
            text = f"a worker of node {self._node} is being started for {name}"
            return cause(kind, task_id, name, "STARTING", text, since_s=since_s), b""
        where = f"in worker pid {slot.pid} of node {self._node}"
        if slot.blocked:
            then = self._near_tasks.child(task_id)
            found = self._blocked(kind, task_id, name, where, since_s)
            return found, object_id(then) if then else b""
        text = f"{name} runs {where}"
        if task_id in slot.condemned:
            text = f"{text}; it was cancelled, and is ended soon if it does not end by itself"
        return cause(kind, task_id, name, "RUNNING", text, since_s=since_s), b""

    def _unstarted(
        self, kind: str, task_id: bytes, task: LocalTask, name: str
    ) -> tuple[m.Cause, bytes]:
        scheduler, needs = self._scheduler, task.template.needs
        if task.waiting:
            missing = [oid for oid in task.assignment.spec.dependencies if oid not in task.values]
            if task.near is not None:
                text = f"{name} waits for {task.waiting} of its arguments"
                found = cause(kind, task_id, name, "WAIT_DEPS", text)
                return found, missing[0] if missing else b""
            text = f"{name} waits on node {self._node} for {task.waiting} arguments to be fetched"
            return cause(kind, task_id, name, "FETCHING", text), b""
        wanted = resources.in_words(needs)
        lacking = resources.missing(scheduler.free, needs)
        told = [(self._node, resources.shortage(scheduler.free, scheduler.total, lacking))]
        if not lacking and scheduler.bound.holds(task.assignment.job_id):
            text = (
                f"needs {wanted}; node {self._node} has as many workers as it may "
                "(zray-worker --max-workers)"
            )
            return cause(kind, task_id, name, "WAIT_WORKERS", text), b""
        text = f"needs {wanted}; {scheduler.queued:,} tasks wait on node {self._node}"
        return cause(
            kind, task_id, name, "WAIT_RESOURCES", text, details=told if lacking else ()
        ), b""

    @staticmethod
    def _ended(outcome: m.Outcome) -> m.Cause:
        oid = outcome.object_id
        if outcome.kind & m.ERROR and outcome.value:
            return causes.failed("task", task_of(oid), "", bytes(outcome.value))
        text = f"its value ({outcome.size:,} bytes) is there, and waits for nothing"
        return cause("object", oid, "", READY, text)

    # ---- workers ---------------------------------------------------------------------------

    def _worker(self, slot: WorkerSlot, now: float) -> m.Cause:
        first = slot.current()
        pid = f"pid {slot.pid} of node {self._node}"
        since_s = max(0.0, now - slot.progress)
        if slot.class_name:
            text, code = f"{pid} is the process of an actor, {slot.class_name}", "RUNNING"
            since_s = -1.0
        elif slot.lease is not None:
            text, code = f"{pid} is leased, and runs {slot.leased_name or 'no task yet'}", "LEASED"
        elif first is not None:
            code = BLOCKED if slot.blocked else "RUNNING"
            text = f"{pid} runs {first.template.message.name}"
            text += ", which waits in get or wait" if slot.blocked else ""
        else:
            text, code = f"{pid} has nothing to do", "IDLE"
        return cause("worker", slot.worker_id, "", code, text, since_s=since_s)
