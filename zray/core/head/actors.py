"""How actors are made, and what ends them: a kill, their last handle, their owner, job or node.

An actor lives while its handle's object has a holder, or until it is killed. Its processes, one
after the other, are `incarnations`; names, and who is told of what becomes of an actor,
`actor_directory`. Calls only pass through here; they belong to their callers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zray import limits
from zray.core.environments import packages_of
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import DETACHED, ActorRecord, ActorRow
from zray.core.head.actor_table import ActorTable
from zray.core.head.definitions import Definitions
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.journal import Persist
from zray.core.head.members import JobMember, Member, Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.task_records import TemplateRecord
from zray.core.head.task_table import TaskTable
from zray.core.machine import Outbox
from zray.errors import ActorAlreadyExistsError, ProtocolError
from zray.protocol import messages as m


class Actors:
    """``rows``: of the store, of the actors that the head of before has left."""

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
        recovery: Recovery,
        holders: Holders,
        definitions: Definitions,
        directory: ActorDirectory,
        acknowledgements: Acknowledgements,
        incarnations: Incarnations,
        rows: dict[bytes, bytes],
        now: float,
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._records = records
        self._recovery = recovery
        self._holders = holders
        self._definitions = definitions
        self._directory = directory
        self._acknowledgements = acknowledgements
        self._incarnations = incarnations
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.CreateActor: self.on_create,
            m.KillActor: self.on_kill,
            m.ActorExited: self.on_exited,
            **dict.fromkeys((m.Calls, m.CancelCall), self.on_calls),
            m.Replies: self.on_replies,
        }
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
        record.made = now
        if row.job is not None:
            self._members.jobs[row.job_id] = JobMember(row.job_id, row.job, now, driverless=True)
        self._enter(record)
        record.packages = row.packages
        for oid, data in row.packages:
            if self._objects.make(oid).kind == PENDING:  # else another actor has it, too
                self._holders.settle(m.Outcome(oid, m.VALUE, len(data), data), ())
        self._records.doubt(record)
        if not record.settled():
            self._hold_arguments(record, now)

    def _enter(self, record: ActorRecord) -> None:
        self._records.add(record)
        self._directory.enter(record)
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
        known = self._records.get(spec.task_id)
        taken = self._directory.named(info)
        if known is not None:
            self._created(sender, message, known)
        elif spec.task_id in self._directory.dead:
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
        self._directory.made(record)
        self._created(sender, message, record)
        self._begin(record, now)

    def is_free(self, actor_id: bytes) -> bool:
        """Whether nothing that there is has this id."""
        known = actor_id in self._records or actor_id in self._directory.dead
        return not known and actor_id not in self._tasks and not self._members.member(actor_id)

    def make_unowned(
        self,
        spec: m.TaskSpec,
        info: m.ActorInfo,
        template: TemplateRecord,
        job: m.JobInfo,
        now: float,
    ) -> None:
        """Make a detached actor that no process has asked for, in a job of its own."""
        job_id = spec.task_id
        self._members.jobs[job_id] = JobMember(job_id, job, now, driverless=True)
        record = ActorRecord(info, spec, template, job_id, job_id)
        self._enter(record)
        self._begin(record, now)

    def _begin(self, record: ActorRecord, now: float) -> None:
        record.made = now
        self._hold_arguments(record, now)
        if record.info.detached:
            self._keep_packages(record)

        def durable(now: float) -> None:
            answers, record.until_stored = record.until_stored, None
            for answer in answers or ():
                answer()
            self._incarnations.launch(record, now)

        self._incarnations.store(record, durable)

    def _keep_packages(self, record: ActorRecord) -> None:
        """What its sender alone has is in the actor's row: it outlives sender and head."""
        room = limits.ACTOR_PACKAGES_BYTES_MAX
        for oid in dict.fromkeys(packages_of(record.template.message.environment)):
            data = self._objects.value(oid)
            if data is not None and len(data) <= room:
                record.packages.append((oid, data))
                room -= len(data)

    def _hold_arguments(self, record: ActorRecord, now: float) -> None:
        """What the constructor gets stays for as long as it may have to run."""
        for oid in record.arguments():
            self._holders.hold(record.actor_id, oid, now)

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

    # ---- end -------------------------------------------------------------------------------

    def on_exited(self, node: NodeMember, message: m.ActorExited, now: float) -> None:
        """An incarnation has ended on its node, against its will or by its own."""
        record = self._incarnations.at(message.actor_id, node, message.incarnation)
        if record is not None:
            self._incarnations.left(record, node)
            if message.intended and not record.kill_text:
                self._incarnations.die(record, f"it ended by itself: {message.text}")
            else:
                self._incarnations.lost(record, record.kill_text or message.text)
        self._acknowledgements.acknowledge(node, message.seq, now, durable=False)

    def node_died(self, node: NodeMember, text: str) -> None:
        """All that lived there has died."""
        for actor_id in [*node.actors]:
            record = self._records[actor_id]
            self._incarnations.left(record, node)
            self._incarnations.lost(record, text)

    def on_kill(self, sender: Member, message: m.KillActor, now: float) -> None:
        """End an actor for good, or its process, after which it starts again."""
        record = self._records.get(message.actor_id)
        if record is not None and record.state != m.ACTOR_DEAD:
            if message.no_restart:
                self._incarnations.end(record, "it was killed with zray.kill()")
            elif record.state == m.ACTOR_ALIVE:  # else it is about to start afresh anyway
                record.kill_text = "it was killed with zray.kill(no_restart=False)"
                self._incarnations.end_process(record)
        synced = m.Synced(0, message.seq)
        self._persist([], lambda _now: self._outbox.send(sender.process_id, synced))

    def handle_gone(self, actor_id: bytes) -> None:
        """Nobody has a handle any more."""
        record = self._records.get(actor_id)
        if record is not None:
            self._incarnations.end(record, "its last handle is gone", graceful=True)

    def owner_gone(self, process_id: bytes, text: str) -> None:
        """What a process made ends with it, unless it is detached."""
        for record in self._records.of_owner(process_id):
            if not record.info.detached:
                self._incarnations.end(record, text)
        self._directory.watcher_gone(process_id)

    def job_ended(self, job_id: bytes) -> None:
        """What was made in the job ends, unless it is detached."""
        for record in self._records.of_job(job_id):
            self._incarnations.end(record, "its job has ended")
        self.owner_gone(job_id, "its driver has ended")

    # ---- calls on their way --------------------------------------------------------------------

    def on_calls(self, sender: Member, message: m.Calls | m.CancelCall, now: float) -> None:
        """Pass calls on to the actor's node; lost ones are sent again when that is back."""
        self._processes.note_worker(sender, message.caller)
        record = self._records.get(message.actor_id)
        if record is None:
            self._directory.tell_dead(message.actor_id, message.caller)
        elif record.lives(message.incarnation):
            self._outbox.send(record.node_id, message)

    def on_replies(self, sender: Member, message: m.Replies, now: float) -> None:
        """Pass answers on to their caller."""
        self._processes.send_to(message.caller, message)
