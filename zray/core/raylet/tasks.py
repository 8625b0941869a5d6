"""The part of the Raylet that has its tasks, from when the head gives them until they end here.

Owns the tasks held on this node and what they are made of: templates and functions. Where and when
they run is `local_scheduler`; ends that the head has not acknowledged are `completions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core import failures, resources
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.raylet.actors import HostedActors
from zray.core.raylet.behind import Behind
from zray.core.raylet.completions import Completions
from zray.core.raylet.environments import Environments
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import LocalTask, LocalTemplate, PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.worker_requests import WorkerRequests
from zray.errors import (
    InternalFaultError,
    MessageTooLargeError,
    ObjectLostError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    WorkerCrashedError,
    ZrayError,
)
from zray.ids import split_tasks
from zray.protocol import messages as m
from zray.protocol.codec import Unsent


class LocalTasks:
    """Of one incarnation of the raylet.

    Args:
        node: its name, for texts.
        outbox: messages to workers.
        tell_head: as ``HeadSession.tell``.
        kill: ends a worker, for a reason.
        let_go: lets a worker end by itself.
        near_ended: an attempt of a near task has; with the worker that ran it, or empty.
        near_returned: near tasks are not to start here now.
        near_withdrawn: nobody wants a near task any more.
    """

    def __init__(
        self,
        *,
        node: str,
        outbox: Outbox[bytes],
        incidents: Incidents,
        objects: LocalObjects,
        scheduler: LocalScheduler,
        behind: Behind,
        completions: Completions,
        lending: Lending,
        environments: Environments,
        worker_requests: WorkerRequests,
        actors: HostedActors,
        tell_head: Callable[[m.Message], None],
        kill: Callable[[WorkerSlot, str], None],
        let_go: Callable[[WorkerSlot], None],
        near_ended: Callable[[LocalTask, m.TaskDone, bytes], None],
        near_returned: Callable[[list[LocalTask]], None],
        near_withdrawn: Callable[[LocalTask], None],
        crashed: Callable[[LocalTask, int, bytes], None],
        has_group: Callable[[bytes], bool],
    ) -> None:
        self._node = node
        self._outbox = outbox
        self._incidents = incidents
        self._objects = objects
        self._scheduler = scheduler
        self._behind = behind
        self._completions = completions
        self._lending = lending
        self._environments = environments
        environments.again = self._environment_lost
        self._worker_requests = worker_requests
        self._actors = actors
        self._tell_head = tell_head
        self._kill = kill
        self._let_go = let_go
        self._near_ended = near_ended
        self._near_returned = near_returned
        self._near_withdrawn = near_withdrawn
        self._crashed = crashed
        self._has_group = has_group
        self.held: dict[bytes, LocalTask] = {}
        self.templates: dict[bytes, LocalTemplate] = {}
        self.functions: dict[bytes, m.Export] = {}
        self._by_function: dict[bytes, dict[bytes, LocalTemplate]] = {}
        self.received = 0  # tasks in this session
        # What the head says of tasks, as a part of the raylet's table.
        self.handlers: dict[type[m.Message], Callable[[Any, float], None]] = {
            m.Template: lambda msg, now: self.on_template(msg),
            m.Export: lambda msg, now: self.on_export(msg),
            m.Forget: lambda msg, now: self.on_forget(msg),
            m.Tasks: self.on_tasks,
            m.Reclaim: lambda msg, now: self.on_reclaim(msg),
            m.CancelTask: self.on_cancel,
            m.Discard: lambda msg, now: self.on_discard(msg),
            m.StopActor: lambda msg, now: self.on_stop_actor(msg),
        }

    def new_session(self) -> None:
        """The head counts the tasks that it sends in each session from 0."""
        self.received = 0

    # ---- tasks from the head ---------------------------------------------------------------

    def on_template(self, message: m.Template) -> None:
        """A template, which precedes its first task."""
        if message.template_id not in self.templates:
            template = LocalTemplate(message)
            template.function = self.functions.get(message.function_id)
            self.templates[message.template_id] = template
            named = self._by_function.setdefault(message.function_id, {})
            named[message.template_id] = template

    def on_export(self, message: m.Export) -> None:
        """A function, for the templates that name it."""
        self.functions[message.function_id] = message
        for template in self._by_function.get(message.function_id, {}).values():
            template.function = message

    def on_forget(self, message: m.Forget) -> None:
        """Nobody needs these functions any more; what runs of them here counts for nobody."""
        named = self._worker_requests.definitions.is_named
        for function_id in split_tasks(message.function_ids):
            if named(function_id):
                continue  # by a worker here, of which the head had not heard
            self.functions.pop(function_id, None)
            forgotten = self._by_function.pop(function_id, {})
            for template_id in forgotten:
                del self.templates[template_id]
            for slot in self._scheduler.workers.values():
                if function_id in slot.known or slot.was_leased:
                    self._behind.recall(slot)  # it reads of this before it takes those
                    slot.known.discard(function_id)
                    slot.known.difference_update(forgotten)
                    self._outbox.send(slot.worker_id, m.Forget(0, function_id))

    def on_tasks(self, message: m.Tasks, now: float) -> None:
        """The head has given this node tasks, with values of small arguments."""
        values = {outcome.object_id: outcome for outcome in message.values}
        for assignment in message.tasks:
            self.received += 1
            spec = assignment.spec
            template = self.templates.get(spec.template_id)
            if template is None or spec.task_id in self.held:
                continue  # cannot be: templates precede their tasks, and a task has one holder
            task = LocalTask(assignment, template)
            self.held[spec.task_id] = task
            try:
                self._take(task, values, now)
            except Exception as error:
                said = self._incidents.record(
                    "taking a task", f"task {spec.task_id.hex()}", error, now
                )
                text = f"its node failed at the task: {said}; the node's log has more"
                self._scheduler.remove(task)
                self._fail(task, m.FINISHED, InternalFaultError, text)

    def _take(self, task: LocalTask, values: dict[bytes, m.Outcome], now: float) -> None:
        """The task is held now: get what it lacks, or queue it."""
        for oid in task.assignment.spec.dependencies:
            outcome = values.get(oid) or self._objects.stored.get(oid)
            if outcome is not None:
                task.values[oid] = outcome
            elif oid not in task.values:
                task.waiting += 1
                self._objects.fetch(oid, self._arrival(task, oid))
        if task.waiting:
            self._lending.waits(task.task_id, task.template.needs, now)
        else:
            self.ready(task)

    def _arrival(self, task: LocalTask, oid: bytes) -> Callable[[m.Outcome | None, str], None]:
        def arrived(outcome: m.Outcome | None, text: str) -> None:
            if self.held.get(task.task_id) is not task:
                return
            task.waiting -= 1
            if outcome is None:
                self._fail(task, m.FINISHED, ObjectLostError, text)
                return
            task.values[oid] = outcome
            if not task.waiting:
                self._lending.waits_no_more(task.task_id)
                self.ready(task)

        return arrived

    def ready(self, task: LocalTask) -> None:
        """All arguments are here. A failed argument fails the task with the same error."""
        for outcome in task.values.values():
            if outcome.kind & m.ERROR:
                template = task.template.message
                value = failures.of_argument(outcome.value, template.name)
                results = failures.outcomes(task.task_id, template.num_returns, value)
                self._end(task, m.FINISHED, results)
                return
        builds, job_id = task.template.builds, task.assignment.job_id
        if builds and not self._environments.is_ready(job_id, builds):
            task.waiting += 1
            self._environments.wait(task, lambda text: self._environment_there(task, text))
            return
        self._queue(task, front=task.assignment.actor is not None)

    def _queue(self, task: LocalTask, *, front: bool) -> None:
        if task.template.group and not self._has_group(task.template.group):
            self._return([task])  # its bundle has gone meanwhile
        else:
            self._scheduler.push(task, front=front)

    def _environment_there(self, task: LocalTask, text: str) -> None:
        """The environment of its process is built, or cannot be."""
        if self.held.get(task.task_id) is not task:
            return
        task.waiting -= 1
        self._lending.waits_no_more(task.task_id)
        if text:
            self._fail(task, m.FINISHED, RuntimeEnvSetupError, text)
        else:
            self.ready(task)

    def _environment_lost(self, job_id: bytes, name: str) -> None:
        """No worker can start there until it is built again."""
        for task in self._scheduler.take_in(job_id, name):
            self.ready(task)

    def on_reclaim(self, message: m.Reclaim) -> None:
        """The head wants some back that have not started."""
        wanted = tuple(message.resources)
        self._behind.surrender(wanted, message.count)
        tasks = self._scheduler.reclaim(wanted, message.count)
        self._return(tasks)

    def give_back(self, tasks: list[LocalTask]) -> None:
        """Let the head find another place, or a better time, for tasks that do not start here."""
        if tasks:
            self._return(tasks)

    def _return(self, tasks: list[LocalTask]) -> None:
        for task in tasks:
            del self.held[task.task_id]
        self._tell_head(m.Returned(0, b"".join(task.task_id for task in tasks)))
        near = [task for task in tasks if task.near is not None]
        if near:  # of which the head hears after that: it may send them here again
            self._near_returned(near)

    def on_discard(self, message: m.Discard) -> None:
        """These attempts count no more: somebody else has the task, or nobody wants it."""
        for held in message.tasks:
            task = self.held.get(held.task_id)
            if task is not None and task.assignment.attempt == held.attempt:
                self._abandon(task)
            else:  # it may have become an actor meanwhile
                self._actors.discard(held)

    def abandon(self, task_id: bytes) -> None:
        """The head will not hear of the task."""
        task = self.held.get(task_id)
        if task is not None:
            self._abandon(task)

    def _abandon(self, task: LocalTask) -> None:
        """The task is nobody's any more: no result is wanted."""
        self.held.pop(task.task_id, None)
        self._lending.waits_no_more(task.task_id)
        self._behind.withdraw(task)
        removed = self._scheduler.remove(task)
        if task.near is not None:
            self._near_withdrawn(task)
        if not removed and task.worker is not None:
            self._kill(task.worker, "a task of it was withdrawn")

    def hopeless(self, key: PoolKey, why: str) -> None:
        """If no worker of that pool can begin anything, what waits for one has crashed, as far as
        its retries go: another node may do better."""
        for task in self._scheduler.take_in(key[0], key[3]) if why else ():
            self._fail(task, m.CRASHED, WorkerCrashedError, why)

    def job_ended(self, job_id: bytes) -> None:
        """Nobody wants its tasks any more."""
        for task in [task for task in self.held.values() if task.assignment.job_id == job_id]:
            self._abandon(task)

    def on_stop_actor(self, message: m.StopActor) -> None:
        """An incarnation is to end, though its constructor may still run."""
        task = self.held.get(message.actor_id)
        if task is not None and task.assignment.attempt == message.incarnation:
            self._abandon(task)  # its constructor has not returned
        else:
            self._actors.on_stop(message)

    def on_cancel(self, message: m.CancelTask, now: float) -> None:
        """Cancel an attempt: in the queue, at its worker, by an interrupt, or with its worker."""
        task = self.held.get(message.task_id)
        if task is None or task.assignment.attempt != message.attempt:
            return
        task.cancelled = True
        task.forced = task.forced or message.force
        self._behind.withdraw(task)
        if task.worker is None:
            self._scheduler.remove(task)
            self._fail(task, m.CANCELLED, TaskCancelledError, "the task was cancelled")
        elif task.worker.current() is not task:  # the worker gives it back, as it has not started
            self._outbox.send(task.worker.worker_id, replace(message, force=False))
        else:
            if not message.force:
                self._outbox.send(task.worker.worker_id, message)
            self._end_running(task.worker, task, now)

    def _end_running(self, slot: WorkerSlot, task: LocalTask, now: float) -> None:
        """A cancelled task runs: with force its worker ends now, else if the grace is over."""
        if task.forced:
            self._kill(slot, "the task was cancelled with force")
        else:
            slot.condemn(task.task_id, now + limits.CANCEL_GRACE_S)

    # ---- ends of tasks ---------------------------------------------------------------------

    def _fail(self, task: LocalTask, status: int, error: type[ZrayError], text: str) -> None:
        name = task.template.message.name
        self._end_in_error(task, status, failures.encode(error, text, name, self._node))

    def _end_in_error(self, task: LocalTask, status: int, value: bytes) -> None:
        results = failures.outcomes(task.task_id, task.template.message.num_returns, value)
        self._end(task, status, results)

    def _end(self, task: LocalTask, status: int, results: list[m.Outcome]) -> None:
        self.held.pop(task.task_id, None)
        self._lending.waits_no_more(task.task_id)
        assignment = task.assignment
        if task.near is not None:
            done = m.TaskDone(task.task_id, assignment.attempt, status, results)
            self._near_ended(task, done, b"")
            return
        if status == m.FINISHED and assignment.actor is None:
            results = self._objects.put_all(results)
        done = m.TaskDone(task.task_id, assignment.attempt, status, results)
        self._completions.add(assignment, done)

    def too_large(self, found: list[Unsent]) -> None:
        """Messages, each of one thing, are too large for the head: that thing fails alone."""
        for message, text in found:
            if isinstance(message, m.Done):
                for done in message.tasks:
                    self.end_too_large(done, text)
            elif isinstance(message, m.Submit):
                for spec in message.tasks:
                    self._worker_requests.too_large(message.submitter, spec, text)
            elif isinstance(message, m.Begun):
                for task in message.tasks:
                    self.abandon(task.spec.task_id)
                    self._worker_requests.too_large(message.submitter, task.spec, text)

    def end_too_large(self, done: m.TaskDone, text: str) -> None:
        """An end is too large to be told: the task has this error instead of its results."""
        value = failures.encode(MessageTooLargeError, text, node=self._node)
        results = failures.outcomes(done.task_id, len(done.results), value)
        for outcome in results:
            self._objects.put(outcome)
        status = m.FINISHED if done.status == m.FAILED else done.status
        self._completions.replace(replace(done, status=status, results=results, borrowed=[]))

    def on_worker_done(self, slot: WorkerSlot, message: m.Done, now: float) -> None:
        """A worker has ended attempts, in the order in which it had them."""
        for done in message.tasks:
            slot.finished += 1
            creation = slot.inflight.get(done.task_id)
            if done.borrowed:
                self._worker_requests.borrowed(slot.worker_id, [*done.borrowed])
            if creation is not None and creation.assignment.actor is not None:
                self._on_actor_made(slot, creation, creation.assignment.actor, done, now)
                continue
            task = self._scheduler.ended(slot, done.task_id, now)
            slot.recalled = False
            if task is None or self.held.get(done.task_id) is not task:
                self._objects.discard(done.results, slot.worker_id)
                continue
            del self.held[done.task_id]
            task.template.measured(done.seconds)
            if task.near is not None:
                self._near_ended(task, done, slot.worker_id)
                continue
            if done.status != m.FINISHED:
                self._completions.add(task.assignment, done)
                continue
            results = self._objects.put_all(done.results, slot.worker_id)
            if any(new is not old for new, old in zip(results, done.results, strict=True)):
                done = replace(done, results=results)
            self._completions.add(task.assignment, done)
        self._behind.runs(slot)
        following = slot.current()
        if following is not None and following.cancelled:  # it has started before it was told
            self._end_running(slot, following, now)

    def _on_actor_made(
        self, slot: WorkerSlot, task: LocalTask, actor: m.ActorInfo, done: m.TaskDone, now: float
    ) -> None:
        """A constructor has returned, or raised: its process then is of no use any more."""
        failed = done.status != m.FINISHED or any(r.kind & m.ERROR for r in done.results)
        if failed:
            self._scheduler.ended(slot, task.task_id, now)
            self._let_go(slot)
        else:
            self._scheduler.keep(slot, task.task_id, resources.needs(actor.held))
            self._actors.made(slot, task.task_id, done.attempt)
        if self.held.get(task.task_id) is task:
            del self.held[task.task_id]
            self._completions.add(task.assignment, replace(done, worker_id=slot.worker_id))

    def on_worker_blocked(self, slot: WorkerSlot) -> None:
        """The worker's task waits for others, which may be those behind it."""
        self._scheduler.block(slot)
        self._behind.recall(slot)

    def on_worker_returned(self, slot: WorkerSlot, message: m.Returned, now: float) -> None:
        """Tasks that did not start, in the order in which they were delivered."""
        for start in reversed(range(0, len(message.task_ids), 16)):
            task = self._scheduler.ended(slot, message.task_ids[start : start + 16], now)
            if task is None or task.task_id not in self.held:
                continue
            if task.cancelled:
                self._fail(task, m.CANCELLED, TaskCancelledError, "the task was cancelled")
            else:
                self._queue(task, front=True)
        self._behind.runs(slot)
        if len(slot.inflight) > 1:  # some were on their way to it: ask again after a while
            slot.recalled = False
            slot.progress = now

    def worker_died(
        self,
        slot: WorkerSlot,
        left: list[LocalTask],
        begun: int,
        cause: str,
        late: m.Deadline | None = None,
    ) -> None:
        """Of the tasks that a worker had ``left``, in order, so many had ``begun``.

        ``late``: the one that had to stop, and did not.
        """
        self._behind.runs(slot)
        for place, task in reversed([*enumerate(left)]):
            if task.task_id not in self.held:
                continue
            if task.cancelled:
                self._fail(task, m.CANCELLED, TaskCancelledError, "the task was cancelled")
            elif place < begun and late is not None and late.task_id == task.task_id:
                how = f"did not stop: its worker (pid {slot.pid}, node {self._node}) was killed"
                name = task.template.message.name
                value = failures.of_timeout(name, late.timeout_s, how, self._node)
                self._crashed(task, slot.pid, value)
                self._end_in_error(task, m.FAILED if late.retried else m.FINISHED, value)
            elif place < begun:
                text = slot.obituary(task, self._node, cause)
                name = task.template.message.name
                value = failures.encode(WorkerCrashedError, text, name, self._node)
                self._crashed(task, slot.pid, value)
                self._end_in_error(task, m.CRASHED, value)
            else:
                self._queue(task, front=True)
