"""The incarnations of actors: each is launched, lives on a node, is lost, and may be followed.

Its constructor is a task, whose id is the actor's and whose attempt the incarnation. Every change
is durable before anybody hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray import limits
from zray.core import failures
from zray.core.deadlines import Deadlines
from zray.core.depth_queue import AWAITED
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import DETACHED, TABLE, ActorRecord, ActorRow
from zray.core.head.actor_table import ActorTable
from zray.core.head.definitions import Definitions
from zray.core.head.events import Events
from zray.core.head.journal import Persist
from zray.core.head.members import Members, NodeMember
from zray.core.head.object_table import ObjectTable
from zray.core.head.placement_table import PlacementTable
from zray.core.head.processes import Processes
from zray.core.head.task_records import GONE, READY, TaskRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.machine import NEVER, Outbox
from zray.errors import ActorPlacementGroupRemoved, ActorUnschedulableError
from zray.protocol import messages as m


class Incarnations:
    """``begin`` starts a constructor, as ``TaskManager.begin``.

    Attributes:
        lives, died: told of an incarnation that can be called, and of an actor's end with its
            cause, in the same turn.
    """

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        persist: Persist,
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        objects: ObjectTable,
        records: ActorTable,
        scheduler: TaskScheduler,
        definitions: Definitions,
        directory: ActorDirectory,
        events: Events,
        placement: PlacementTable,
        begin: Callable[[TaskRecord, m.TaskSpec, float], None],
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._records = records
        self._scheduler = scheduler
        self._definitions = definitions
        self._directory = directory
        self._events = events
        self._placement = placement
        self._begin = begin
        self.lives: Callable[[ActorRecord], None] = lambda record: None
        self.died: Callable[[ActorRecord, str], None] = lambda record, text: None
        self.jobs_over: list[bytes] = []  # of detached actors that are dead
        self._launches = Deadlines()  # actors with a launch_at

    # ---- launch ----------------------------------------------------------------------------

    def store(self, record: ActorRecord, then: Callable[[float], None]) -> None:
        """Make the present state durable; ``then`` is called, and watchers told, after that."""

        def durable(now: float) -> None:
            record.unstored -= 1
            if record.state != record.stored_state:
                record.stored_state, record.since = record.state, now
            then(now)
            self._directory.tell(record)

        record.unstored += 1
        self._persist([self._row(record)], durable)

    def _row(self, record: ActorRecord) -> tuple[str, bytes, bytes]:
        job = self._members.jobs.get(record.job_id)
        row = ActorRow(
            *(record.info, record.spec, record.template.message, record.job_id, record.owner),
            *(record.state, record.incarnation, record.restarts),
            *(record.node_id, record.worker_id),
            job.info if job is not None and record.info.detached else None,
            record.packages,
        )
        return (TABLE, record.actor_id, msgspec.msgpack.encode(row))

    def launch(self, record: ActorRecord, now: float) -> None:
        """Queue the task that runs the constructor; its next attempt is the next incarnation."""
        record.launch_at = NEVER
        self._launches.drop(record.actor_id)
        if record.state == m.ACTOR_DEAD or record.actor_id in self._tasks:
            return
        if record.job_id not in self._members.jobs:
            self.die(record, "its job has ended")
            return
        task = TaskRecord(record.spec, record.template, record.job_id, b"")
        task.attempt = record.incarnation
        task.since = now
        if not record.held:  # calls wait for it, and it takes nothing from tasks
            task.depth = AWAITED
        self._tasks.add(record.actor_id, task)
        self._begin(task, record.spec, now)

    def assignment(self, task_id: bytes, task: TaskRecord) -> m.Assignment:
        """The creation of an actor; earlier incarnations count as failures."""
        assert task.spec is not None
        record = self._records[task_id]
        ids = (task.attempt, task.job_id, task.spec)
        return m.Assignment(*ids, record.restarts, record.info)

    # ---- what becomes of a creation ----------------------------------------------------------

    def creation_ended(self, task: TaskRecord, done: m.TaskDone, sender: NodeMember) -> None:
        """The constructor's attempt is over; the task has been released."""
        record = self._records[done.task_id]
        self.forget_task(record, task)
        record.incarnation = done.attempt
        if done.status == m.CRASHED:
            self.lost(record, failures.text_of(done.results))
        elif done.status == m.CANCELLED:
            self.die(record, "its creation was cancelled")
        elif any(outcome.kind & m.ERROR for outcome in done.results):
            record.error = done.results[0].value
            self.die(record, failures.of_constructor(record.error))
        else:
            self.lives_at(record, sender, done.attempt, done.worker_id)

    def lives_at(
        self, record: ActorRecord, node: NodeMember, incarnation: int, worker_id: bytes
    ) -> None:
        """The constructor has returned in that worker: the actor can be called there."""
        record.state = m.ACTOR_ALIVE
        record.incarnation = incarnation
        self._records.confirm(record)
        record.node_id = node.process_id
        record.worker_id = worker_id
        record.text = ""
        self._processes.note_worker(node, worker_id)
        self._events.actor_lives(record)
        self.lives(record)
        node.view.take(record.held, record.template.group)
        node.actors[record.actor_id] = None
        if record.settled():
            self._drop_arguments(record)
        self.store(record, lambda _now: None)
        if record.kill_text:
            self.end_process(record)

    def creation_lost(self, task_id: bytes, task: TaskRecord, text: str) -> None:
        """The node that ran the constructor is gone."""
        record = self._records[task_id]
        self.forget_task(record, task)
        record.incarnation = task.attempt
        self.lost(record, text)

    def creation_failed(
        self, task_id: bytes, task: TaskRecord, text: str, *, never: bool = False
    ) -> None:
        """The constructor will not run (``never``: anywhere), or may have run where nobody can
        tell."""
        record = self._records[task_id]
        self.forget_task(record, task)
        if never:
            record.error = failures.encode(ActorUnschedulableError, text)
            self.die(record, text)
        else:
            self.lost(record, text)

    def forget_task(self, record: ActorRecord, task: TaskRecord) -> None:
        """The task that ran the constructor, or was to, is over."""
        if task.state == READY:
            self._scheduler.withdraw(task, GONE)
        task.state = GONE
        if record.actor_id in self._tasks:
            self._tasks.remove(record.actor_id)

    # ---- death and restart -----------------------------------------------------------------

    def at(self, actor_id: bytes, node: NodeMember, incarnation: int) -> ActorRecord | None:
        """The actor, if that incarnation lives on that node."""
        record = self._records.get(actor_id)
        if record is None or not record.lives(incarnation):
            return None
        return record if record.node_id == node.process_id else None

    def left(self, record: ActorRecord, node: NodeMember) -> None:
        """It does not live on that node any more, which has its resources back."""
        node.actors.pop(record.actor_id, None)
        node.view.give(record.held, record.template.group)

    def lost(self, record: ActorRecord, text: str) -> None:
        """An incarnation died against its will: another follows, if its restarts allow."""
        group_id = record.template.group
        if group_id and group_id not in self._placement:
            gone = self._placement.why_gone(group_id)
            record.error = failures.encode(ActorPlacementGroupRemoved, gone)
            self.die(record, gone)
            return
        allowed = record.info.max_restarts
        if 0 <= allowed <= record.restarts:
            spent = f" (restarted {record.restarts} times, as max_restarts allows)"
            self.die(record, text + (spent if allowed else ""))
            return
        record.restarts += 1
        record.state = m.ACTOR_RESTARTING
        record.kill_text = ""
        record.text = f"{record.named()} died: {text}"
        self._events.actor_restarts(record)
        pause = 0.0
        if record.restarts > 1:
            pause = limits.ACTOR_RESTART_FIRST_S * 2 ** min(record.restarts - 2, 20)

        def durable(now: float) -> None:
            if record.state == m.ACTOR_RESTARTING:
                record.launch_at = now + min(pause, limits.ACTOR_RESTART_MAX_S)
                self._launches.put(record.actor_id, record.launch_at)

        self.store(record, durable)

    def die(self, record: ActorRecord, text: str) -> None:
        """The end: durable, then told; the name is free from now on."""
        if record.state == m.ACTOR_DEAD:
            return
        record.state = m.ACTOR_DEAD
        record.text = f"{record.named()} is dead: {text}"
        self._events.actor_died(record, text)
        self.died(record, text)
        self._directory.free_name(record)
        self._launches.drop(record.actor_id)
        self._drop_arguments(record)
        self._objects.drop(DETACHED, record.handle)

        def durable(_now: float) -> None:
            for place, stop in record.farewells:
                self._outbox.send(place, stop)
            self._directory.tell_end(record)
            self._records.remove(record)
            self._definitions.unused(record.template)
            if record.info.detached:
                self.jobs_over.append(record.job_id)

        self._persist([(TABLE, record.actor_id, None)], durable)

    def _stop(self, record: ActorRecord, text: str, *, graceful: bool = False) -> None:
        """Take an actor off its node, or out of the queue.

        The node hears of it when the end is durable: a head that starts before that knows the
        actor, finds it where it is, and does not make it a second time.
        """
        task = self._tasks.get(record.actor_id)
        incarnation, place = record.incarnation, record.node_id
        if task is not None:
            if task.node is not None:
                incarnation, place = task.attempt, task.node.node_id
                self._scheduler.release(record.actor_id, task)
                record.incarnation = task.attempt
            else:
                place = b""
            self.forget_task(record, task)
        elif record.state == m.ACTOR_ALIVE:
            node = self._members.nodes.get(record.node_id)
            if node is not None and record.actor_id in node.actors:
                self.left(record, node)
        else:
            place = b""
        if place:
            record.part(place, incarnation, text, graceful=graceful)

    def end_process(self, record: ActorRecord) -> None:
        """End the process of an incarnation; ACTOR_EXITED will tell that it has ended."""
        reason = record.kill_text
        graceful = record.kill_gracefully
        stop = m.StopActor(0, record.actor_id, record.incarnation, graceful, reason)
        self._outbox.send(record.node_id, stop)

    def end(self, record: ActorRecord, text: str, *, graceful: bool = False) -> None:
        """End an actor for good."""
        if record.state != m.ACTOR_DEAD:
            self._stop(record, text, graceful=graceful)
            self.die(record, text)

    def _drop_arguments(self, record: ActorRecord) -> None:
        for oid in record.arguments():
            self._objects.drop(record.actor_id, oid)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Start incarnations that are due."""
        if self._launches:
            for actor_id in self._launches.due(now):
                self.launch(self._records[actor_id], now)

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        return self._launches.soonest()
