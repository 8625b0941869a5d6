"""What raylets say of actors that live with them, against what the head believes.

In doubt are the actors of before a head's restart, until their node has told of them or is dead.
"""

from __future__ import annotations

from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import ActorRecord
from zray.core.head.actor_table import ActorTable
from zray.core.head.incarnations import Incarnations
from zray.core.head.members import NodeMember
from zray.core.head.processes import Processes
from zray.core.head.task_records import ASSIGNED, TaskRecord
from zray.core.head.task_table import TaskTable
from zray.core.machine import Outbox
from zray.protocol import messages as m


class ActorReconciliation:
    """For actors, what `reconciliation` is for tasks and objects."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        processes: Processes,
        tasks: TaskTable,
        records: ActorTable,
        directory: ActorDirectory,
        incarnations: Incarnations,
    ) -> None:
        self._outbox = outbox
        self._processes = processes
        self._tasks = tasks
        self._records = records
        self._directory = directory
        self._incarnations = incarnations

    def announced(self, node: NodeMember, held: list[m.HeldActor]) -> None:
        """A raylet's account of the actors that live there."""
        living = {(actor.actor_id, actor.incarnation) for actor in held}
        for actor_id in [*node.actors]:
            record = self._records[actor_id]
            if (actor_id, record.incarnation) not in living:
                self._incarnations.left(record, node)
                text = "its worker ended while its node was out of reach"
                self._incarnations.lost(record, text)
                continue
            record.link += 1
            self._directory.tell(record)
            if record.kill_text:
                self._incarnations.end_process(record)
        for actor in held:
            found = self._records.get(actor.actor_id)
            if found is not None and self._confirm(found, node, actor):
                continue
            reason = "the head has given this actor up"
            if found is not None and found.state == m.ACTOR_DEAD:
                found.part(node.process_id, actor.incarnation, reason)
            else:
                stop = m.StopActor(0, actor.actor_id, actor.incarnation, False, reason)
                self._outbox.send(node.process_id, stop)
        for record in self._records.doubtful(node.process_id):
            if record.state == m.ACTOR_ALIVE and record.actor_id not in self._tasks:
                self._records.confirm(record)
                self._incarnations.lost(record, "its worker ended while the head was away")

    def _confirm(self, record: ActorRecord, node: NodeMember, actor: m.HeldActor) -> bool:
        """Whether an incarnation that a raylet tells of is the one that counts."""
        if self._incarnations.at(actor.actor_id, node, actor.incarnation) is not None:
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
            self._incarnations.forget_task(record, task)
        self._incarnations.lives_at(record, node, actor.incarnation, actor.worker_id)
        return True

    def has_made(self, node: NodeMember, held: m.HeldTask) -> bool:
        """Whether this attempt's end is known already: the actor lives, or is about to be ended."""
        record = self._records.get(held.task_id)
        if record is not None and record.state == m.ACTOR_DEAD:
            record.part(node.process_id, held.attempt, record.text)
            return True
        if record is None or record.state != m.ACTOR_ALIVE:
            return False
        return record.incarnation == held.attempt and record.node_id == node.process_id

    def adopt_creation(self, node: NodeMember, held: m.HeldTask) -> TaskRecord | None:
        """A raylet says that it runs a constructor; the task, if that is to go on."""
        record = self._records.get(held.task_id)
        if record is None or not record.unconfirmed or held.attempt <= record.incarnation:
            return None
        if record.state in (m.ACTOR_ALIVE, m.ACTOR_DEAD):
            return None
        self._records.confirm(record)
        task = TaskRecord(record.spec, record.template, record.job_id, b"")
        self._tasks.add(record.actor_id, task)
        return task

    def nodes_are_back(self, now: float) -> None:
        """Every node of before the restart has told what lives there, or is dead."""
        for record in self._records.all_doubtful():
            self._records.confirm(record)
            if record.state == m.ACTOR_ALIVE:
                text = "its node did not return after the head's restart"
                self._incarnations.lost(record, text)
            elif record.state != m.ACTOR_DEAD:
                self._incarnations.launch(record, now)

    def owners_are_back(self, now: float) -> None:
        """Everybody of before the restart has told what it holds: who did not is gone."""
        for record in [*self._records.values()]:
            if not record.info.detached and not self._processes.lives(record.owner):
                self._incarnations.end(record, "the process that made it has ended")
        self._directory.wait_for_creators(now)
