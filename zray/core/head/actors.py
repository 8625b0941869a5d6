"""The GCS's table of actors: creation, restarts, death.

Every change is durable before anybody hears of it. Calls only pass through here; they belong to
their callers. An actor lives while its handle's object has a holder, or until it is killed. Names,
and who is told of what becomes of an actor, are `actor_directory`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray import limits
from zray.core import failures, resources
from zray.core.deadlines import Deadlines
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import ActorRecord, ActorRow
from zray.core.head.actor_table import ActorTable
from zray.core.head.definitions import Definitions
from zray.core.head.holders import Holders
from zray.core.head.journal import Persist
from zray.core.head.members import JobMember, Member, Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.task_records import ASSIGNED, GONE, READY, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.machine import NEVER, Outbox
from zray.errors import ActorAlreadyExistsError, ProtocolError
from zray.protocol import messages as m

DETACHED = b"detached"  # holds the handles of detached actors
TABLE = "actors"


class Actors:
    """``begin`` starts a constructor, as ``TaskManager.begin``. ``rows``: of the store."""

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
        recovery: Recovery,
        holders: Holders,
        definitions: Definitions,
        directory: ActorDirectory,
        acknowledgements: Acknowledgements,
        begin: Callable[[TaskRecord, m.TaskSpec, float], None],
        rows: dict[bytes, bytes],
        now: float,
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self.records = records
        self._scheduler = scheduler
        self._recovery = recovery
        self._holders = holders
        self._definitions = definitions
        self.directory = directory
        self._acknowledgements = acknowledgements
        self._begin = begin
        self.jobs_over: list[bytes] = []  # of detached actors that are dead
        self._launches = Deadlines()  # actors with a launch_at
        for actor_id, value in sorted(rows.items()):
            self._restore(actor_id, msgspec.msgpack.decode(value, type=ActorRow), now)

    def _restore(self, actor_id: bytes, row: ActorRow, now: float) -> None:
        template = self._definitions.take(row.template)
        record = ActorRecord(row.info, row.spec, template, row.job_id, row.owner)
        record.state, record.incarnation = row.state, row.incarnation
        record.restarts, record.node_id = row.restarts, row.node_id
        record.worker_id = row.worker_id
        record.text = "the head was restarted"
        record.until_stored = None
        if row.job is not None:
            self._members.jobs[row.job_id] = JobMember(row.job_id, row.job, now, driverless=True)
        self._enter(record)
        self.records.doubt(record)
        if not record.settled():
            self._hold_arguments(record, now)

    def _enter(self, record: ActorRecord) -> None:
        self.records.add(record)
        self.directory.enter(record)
        self._recovery.hold(record.handle)
        if self._objects.make(record.handle).kind == PENDING:
            self._holders.settle(m.Outcome(record.handle, m.VALUE, 0), ())
        if record.info.detached:
            self._objects.hold(DETACHED, record.handle)

    # ---- creation --------------------------------------------------------------------------

    def on_create(self, sender: Member, message: m.CreateActor, now: float) -> None:
        """Make an actor, or answer with the one that has the name, or that there is one."""
        spec, info = message.task, message.info
        self._processes.note_worker(sender, message.owner)
        template = self._definitions.templates.get(spec.template_id)
        known = self.records.get(spec.task_id)
        taken = self.directory.named(info)
        if known is not None:
            self._created(sender, message, known)
        elif spec.task_id in self.directory.dead:
            self._answer(sender, message, spec.task_id, info)
        elif template is None or message.job_id not in self._members.jobs:
            text = "the job has ended, or the class of this actor was never sent"
            self._answer(sender, message, spec.task_id, info, ProtocolError.code, text)
        elif spec.task_id in self._tasks or self._members.member(spec.task_id) is not None:
            text = "its id is that of a task or a process"
            self._answer(sender, message, spec.task_id, info, ProtocolError.code, text)
        elif taken is not None and message.get_if_exists:
            self._created(sender, message, taken)
        elif taken is not None:
            text = (
                f"The name {info.name!r} is already taken in namespace {info.namespace!r}; use "
                "another name, zray.get_actor(), or get_if_exists=True"
            )
            self._answer(sender, message, spec.task_id, info, ActorAlreadyExistsError.code, text)
        else:
            self._create(sender, message, template, now)

    def _create(
        self, sender: Member, message: m.CreateActor, template: TemplateRecord, now: float
    ) -> None:
        info, job_id = message.info, message.job_id
        if info.detached:  # it outlives its driver's job
            job_id = message.task.task_id
            of_driver = self._members.jobs[message.job_id].info
            self._members.jobs[job_id] = JobMember(job_id, of_driver, now, driverless=True)
        record = ActorRecord(info, message.task, template, job_id, message.owner)
        self._enter(record)
        self.directory.made(record)
        self._created(sender, message, record)
        self._hold_arguments(record, now)

        def durable(now: float) -> None:
            answers, record.until_stored = record.until_stored, None
            for answer in answers or ():
                answer()
            self._launch(record, now)

        self._store(record, durable)

    def _store(self, record: ActorRecord, then: Callable[[float], None]) -> None:
        """Make the present state durable; ``then`` is called, and watchers told, after that."""

        def durable(now: float) -> None:
            record.unstored -= 1
            then(now)
            self.directory.tell(record)

        record.unstored += 1
        self._persist([self._row(record)], durable)

    def _hold_arguments(self, record: ActorRecord, now: float) -> None:
        """What the constructor gets stays for as long as it may have to run."""
        for oid in record.arguments():
            self._holders.hold(record.actor_id, oid, now)

    def _drop_arguments(self, record: ActorRecord) -> None:
        for oid in record.arguments():
            self._objects.drop(record.actor_id, oid)

    def _created(self, sender: Member, message: m.CreateActor, record: ActorRecord) -> None:
        self._objects.hold(message.owner, record.handle, process=True)

        def answer() -> None:
            self._answer(sender, message, record.actor_id, record.info)

        record.when_stored(answer)

    def _answer(
        self,
        sender: Member,
        message: m.CreateActor,
        actor_id: bytes,
        info: m.ActorInfo,
        code: str = "",
        text: str = "",
    ) -> None:
        answer = m.ActorCreated(0, message.seq, actor_id, info, code, text)
        self._outbox.send(sender.process_id, answer)

    def _row(self, record: ActorRecord) -> tuple[str, bytes, bytes]:
        job = self._members.jobs.get(record.job_id)
        row = ActorRow(
            *(record.info, record.spec, record.template.message, record.job_id, record.owner),
            *(record.state, record.incarnation, record.restarts),
            *(record.node_id, record.worker_id),
            job.info if job is not None and record.info.detached else None,
        )
        return (TABLE, record.actor_id, msgspec.msgpack.encode(row))

    def _launch(self, record: ActorRecord, now: float) -> None:
        """Queue the task that runs the constructor; its next attempt is the next incarnation."""
        record.launch_at = NEVER
        self._launches.drop(record.actor_id)
        if record.state == m.ACTOR_DEAD or record.actor_id in self._tasks:
            return
        if record.job_id not in self._members.jobs:
            self._die(record, "its job has ended")
            return
        task = TaskRecord(record.spec, record.template, record.job_id, b"")
        task.attempt = record.incarnation
        self._tasks.add(record.actor_id, task)
        self._begin(task, record.spec, now)

    def assignment(self, task_id: bytes, task: TaskRecord) -> m.Assignment:
        """The creation of an actor; earlier incarnations count as failures."""
        assert task.spec is not None
        record = self.records[task_id]
        ids = (task.attempt, task.job_id, task.spec)
        return m.Assignment(*ids, record.restarts, record.info)

    # ---- what becomes of a creation ----------------------------------------------------------

    def creation_ended(self, task: TaskRecord, done: m.TaskDone, sender: NodeMember) -> None:
        """The constructor's attempt is over; the task has been released."""
        record = self.records[done.task_id]
        self._forget_task(record, task)
        record.incarnation = done.attempt
        if done.status == m.CRASHED:
            self._lost(record, failures.text_of(done.results), sender.heard)
        elif done.status == m.CANCELLED:
            self._die(record, "its creation was cancelled")
        elif any(outcome.kind & m.ERROR for outcome in done.results):
            record.error = done.results[0].value
            self._die(record, failures.of_constructor(record.error))
        else:
            self._lives_at(record, sender, done.attempt, done.worker_id)

    def _lives_at(
        self, record: ActorRecord, node: NodeMember, incarnation: int, worker_id: bytes
    ) -> None:
        record.state = m.ACTOR_ALIVE
        record.incarnation = incarnation
        self.records.confirm(record)
        record.node_id = node.process_id
        record.worker_id = worker_id
        record.text = ""
        self._processes.note_worker(node, worker_id)
        resources.take(node.view.free, record.held)
        node.actors[record.actor_id] = None
        if record.settled():
            self._drop_arguments(record)
        self._store(record, lambda _now: None)
        if record.kill_text:
            self._stop_again(record)

    def creation_lost(self, task_id: bytes, task: TaskRecord, text: str, now: float) -> None:
        """The node that ran the constructor is gone."""
        record = self.records[task_id]
        self._forget_task(record, task)
        record.incarnation = task.attempt
        self._lost(record, text, now)

    def creation_failed(self, task_id: bytes, task: TaskRecord, text: str) -> None:
        """The constructor will not run, or may have run where nobody can tell."""
        record = self.records[task_id]
        self._forget_task(record, task)
        self._lost(record, text, 0.0)

    def _forget_task(self, record: ActorRecord, task: TaskRecord) -> None:
        if task.state == READY:
            self._scheduler.withdraw(task, GONE)
        task.state = GONE
        if record.actor_id in self._tasks:
            self._tasks.remove(record.actor_id)

    # ---- death and restart -----------------------------------------------------------------

    def on_exited(self, node: NodeMember, message: m.ActorExited, now: float) -> None:
        """An incarnation has ended on its node, against its will or by its own."""
        record = self._at(message.actor_id, node, message.incarnation)
        if record is not None:
            self._left(record, node)
            if message.intended and not record.kill_text:
                self._die(record, f"it ended by itself: {message.text}")
            else:
                self._lost(record, record.kill_text or message.text, now)
        self._acknowledgements.acknowledge(node, message.seq, now, durable=False)

    def _at(self, actor_id: bytes, node: NodeMember, incarnation: int) -> ActorRecord | None:
        """The actor, if that incarnation lives on that node."""
        record = self.records.get(actor_id)
        if record is None or not record.lives(incarnation):
            return None
        return record if record.node_id == node.process_id else None

    def node_died(self, node: NodeMember, text: str, now: float) -> None:
        """All that lived there has died."""
        for actor_id in [*node.actors]:
            record = self.records[actor_id]
            self._left(record, node)
            self._lost(record, text, now)

    def _left(self, record: ActorRecord, node: NodeMember) -> None:
        node.actors.pop(record.actor_id, None)
        resources.give(node.view.free, record.held)

    def _lost(self, record: ActorRecord, text: str, now: float) -> None:
        """An incarnation died against its will: another follows, if its restarts allow."""
        allowed = record.info.max_restarts
        if 0 <= allowed <= record.restarts:
            spent = f" (restarted {record.restarts} times, as max_restarts allows)"
            self._die(record, text + (spent if allowed else ""))
            return
        record.restarts += 1
        record.state = m.ACTOR_RESTARTING
        record.kill_text = ""
        record.text = f"{record.named()} died: {text}"
        pause = 0.0
        if record.restarts > 1:
            pause = limits.ACTOR_RESTART_FIRST_S * 2 ** min(record.restarts - 2, 20)

        def durable(now: float) -> None:
            if record.state == m.ACTOR_RESTARTING:
                record.launch_at = now + min(pause, limits.ACTOR_RESTART_MAX_S)
                self._launches.put(record.actor_id, record.launch_at)

        self._store(record, durable)

    def _die(self, record: ActorRecord, text: str) -> None:
        """The end: durable, then told; the name is free from now on."""
        if record.state == m.ACTOR_DEAD:
            return
        record.state = m.ACTOR_DEAD
        record.text = f"{record.named()} is dead: {text}"
        self.directory.free_name(record)
        self._launches.drop(record.actor_id)
        self._drop_arguments(record)
        self._objects.drop(DETACHED, record.handle)

        def durable(_now: float) -> None:
            for place, stop in record.farewells:
                self._outbox.send(place, stop)
            self.directory.tell_end(record)
            self.records.remove(record)
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
            self._forget_task(record, task)
        elif record.state == m.ACTOR_ALIVE:
            node = self._members.nodes.get(record.node_id)
            if node is not None and record.actor_id in node.actors:
                self._left(record, node)
        else:
            place = b""
        if place:
            record.part(place, incarnation, text, graceful=graceful)

    def _stop_again(self, record: ActorRecord) -> None:
        """End the process of an incarnation; ACTOR_EXITED will tell that it has ended."""
        reason = record.kill_text
        stop = m.StopActor(0, record.actor_id, record.incarnation, False, reason)
        self._outbox.send(record.node_id, stop)

    def end(self, record: ActorRecord, text: str, *, graceful: bool = False) -> None:
        """End an actor for good."""
        if record.state != m.ACTOR_DEAD:
            self._stop(record, text, graceful=graceful)
            self._die(record, text)

    def on_kill(self, sender: Member, message: m.KillActor, now: float) -> None:
        """End an actor for good, or its process, after which it starts again."""
        record = self.records.get(message.actor_id)
        if record is not None and record.state != m.ACTOR_DEAD:
            if message.no_restart:
                self.end(record, "it was killed with zray.kill()")
            elif record.state == m.ACTOR_ALIVE:  # else it is about to start afresh anyway
                record.kill_text = "it was killed with zray.kill(no_restart=False)"
                self._stop_again(record)
        synced = m.Synced(0, message.seq)
        self._persist([], lambda _now: self._outbox.send(sender.process_id, synced))

    def handle_gone(self, actor_id: bytes) -> None:
        """Nobody has a handle any more."""
        record = self.records.get(actor_id)
        if record is not None:
            self.end(record, "its last handle is gone", graceful=True)

    def owner_gone(self, process_id: bytes, text: str) -> None:
        """What a process made ends with it, unless it is detached."""
        for record in self.records.of_owner(process_id):
            if not record.info.detached:
                self.end(record, text)
        self.directory.watcher_gone(process_id)

    def job_ended(self, job_id: bytes) -> None:
        """What was made in the job ends, unless it is detached."""
        for record in self.records.of_job(job_id):
            self.end(record, "its job has ended")
        self.owner_gone(job_id, "its driver has ended")

    # ---- after a head's restart --------------------------------------------------------------

    def announced(self, node: NodeMember, held: list[m.HeldActor], now: float) -> None:
        """A raylet's account of the actors that live there."""
        living = {(actor.actor_id, actor.incarnation) for actor in held}
        for actor_id in [*node.actors]:
            record = self.records[actor_id]
            if (actor_id, record.incarnation) not in living:
                self._left(record, node)
                self._lost(record, "its worker ended while its node was out of reach", now)
                continue
            record.link += 1
            self.directory.tell(record)
            if record.kill_text:
                self._stop_again(record)
        for actor in held:
            found = self.records.get(actor.actor_id)
            if found is not None and self._confirm(found, node, actor):
                continue
            reason = "the head has given this actor up"
            if found is not None and found.state == m.ACTOR_DEAD:
                found.part(node.process_id, actor.incarnation, reason)
            else:
                stop = m.StopActor(0, actor.actor_id, actor.incarnation, False, reason)
                self._outbox.send(node.process_id, stop)
        for record in self.records.doubtful(node.process_id):
            if record.state == m.ACTOR_ALIVE and record.actor_id not in self._tasks:
                self.records.confirm(record)
                self._lost(record, "its worker ended while the head was away", now)

    def _confirm(self, record: ActorRecord, node: NodeMember, actor: m.HeldActor) -> bool:
        """Whether an incarnation that a raylet tells of is the one that counts."""
        if self._at(actor.actor_id, node, actor.incarnation) is not None:
            return True
        alive = record.state == m.ACTOR_ALIVE  # else the incarnation in its row is over
        newer = actor.incarnation > record.incarnation - alive
        task = self._tasks.get(record.actor_id)
        if task is not None and task.node is node.view and task.attempt == actor.incarnation:
            return True  # its DONE follows
        if not record.unconfirmed or not newer or record.state == m.ACTOR_DEAD:
            return False
        if task is not None:
            if task.state == ASSIGNED:
                return False
            self._forget_task(record, task)
        self._lives_at(record, node, actor.incarnation, actor.worker_id)
        return True

    def has_made(self, node: NodeMember, held: m.HeldTask) -> bool:
        """Whether this attempt's end is known already: the actor lives, or is about to be ended."""
        record = self.records.get(held.task_id)
        if record is not None and record.state == m.ACTOR_DEAD:
            record.part(node.process_id, held.attempt, record.text)
            return True
        if record is None or record.state != m.ACTOR_ALIVE:
            return False
        return record.incarnation == held.attempt and record.node_id == node.process_id

    def adopt_creation(self, node: NodeMember, held: m.HeldTask) -> TaskRecord | None:
        """A raylet says that it runs a constructor; the task, if that is to go on."""
        record = self.records.get(held.task_id)
        if record is None or not record.unconfirmed or held.attempt <= record.incarnation:
            return None
        if record.state in (m.ACTOR_ALIVE, m.ACTOR_DEAD):
            return None
        self.records.confirm(record)
        task = TaskRecord(record.spec, record.template, record.job_id, b"")
        self._tasks.add(record.actor_id, task)
        return task

    def nodes_are_back(self, now: float) -> None:
        """Every node of before the restart has told what lives there, or is dead."""
        for record in self.records.all_doubtful():
            self.records.confirm(record)
            if record.state == m.ACTOR_ALIVE:
                self._lost(record, "its node did not return after the head's restart", now)
            elif record.state != m.ACTOR_DEAD:
                self._launch(record, now)

    def owners_are_back(self, now: float) -> None:
        """Everybody of before the restart has told what it holds: who did not is gone."""
        for record in [*self.records.values()]:
            if not record.info.detached and not self._processes.lives(record.owner):
                self.end(record, "the process that made it has ended")
        self.directory.wait_for_creators(now)

    # ---- calls on their way --------------------------------------------------------------------

    def on_calls(self, sender: Member, message: m.Calls | m.CancelCall, now: float) -> None:
        """Pass calls on to the actor's node; lost ones are sent again when that is back."""
        self._processes.note_worker(sender, message.caller)
        record = self.records.get(message.actor_id)
        if record is None:
            self.directory.tell_dead(message.actor_id, message.caller)
        elif record.lives(message.incarnation):
            self._outbox.send(record.node_id, message)

    def on_replies(self, sender: Member, message: m.Replies, now: float) -> None:
        """Pass answers on to their caller."""
        self._processes.send_to(message.caller, message)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Start incarnations that are due."""
        if self._launches:
            for actor_id in self._launches.due(now):
                self._launch(self.records[actor_id], now)
        if self.directory.unmade:
            self.directory.step(now)

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        return min(self._launches.soonest(), self.directory.deadline())
