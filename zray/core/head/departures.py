"""What the end of a node, a worker or a driver means for tasks, objects and actors.

What a dead node had moves to others once its death is durable: no process of that incarnation
can come back after that.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.head.actor_table import ActorTable
from zray.core.head.actors import Actors
from zray.core.head.definitions import Definitions
from zray.core.head.events import Events
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.journal import Persist
from zray.core.head.leases import Leases
from zray.core.head.lineage import Lineage
from zray.core.head.members import JobMember, Members, NodeMember, NodeRow
from zray.core.head.object_table import ObjectTable
from zray.core.head.placement_groups import PlacementGroups
from zray.core.head.processes import Processes
from zray.core.head.results import Results
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_records import GONE, READY, TaskRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.transfers import Transfers
from zray.core.machine import Outbox
from zray.core.prints import Prints
from zray.errors import NodeDiedError
from zray.ids import object_id
from zray.protocol.messages import JobEnded, WorkerDied


class Departures:
    """Each is told to all who may have something of whoever has left."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        persist: Persist,
        events: Events,
        prints: Prints,
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        objects: ObjectTable,
        scheduler: TaskScheduler,
        results: Results,
        transfers: Transfers,
        holders: Holders,
        definitions: Definitions,
        lineage: Lineage,
        task_manager: TaskManager,
        task_outcomes: TaskOutcomes,
        actors: Actors,
        incarnations: Incarnations,
        actor_table: ActorTable,
        leases: Leases,
        placement_groups: PlacementGroups,
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._events = events
        self.how_ended: Callable[[JobMember], tuple[str, str]] = lambda job: ("SUCCEEDED", "")
        self._prints = prints
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._scheduler = scheduler
        self._results = results
        self._transfers = transfers
        self._holders = holders
        self._definitions = definitions
        self._lineage = lineage
        self._task_manager = task_manager
        self._task_outcomes = task_outcomes
        self._actors = actors
        self._incarnations = incarnations
        self._actor_table = actor_table
        self._leases = leases
        self._placement_groups = placement_groups

    # ---- workers ---------------------------------------------------------------------------

    def on_worker_died(self, node: NodeMember, message: WorkerDied, now: float) -> None:
        """A worker has ended: what it held is dropped, what it made ends."""
        self.worker_ended(node, message.worker_id)

    def worker_ended(self, node: NodeMember, worker_id: bytes) -> None:
        """The same, whoever has noticed."""
        node.workers.pop(worker_id, None)
        self._processes.workers.pop(worker_id, None)
        self._actors.owner_gone(worker_id, "the worker that made it has ended")
        self._holders.broken(worker_id)
        self._definitions.process_gone(worker_id)
        self._objects.vanish(worker_id)
        self._results.forget(worker_id)
        self._leases.submitter_gone(worker_id)
        self._cancel_tasks_of(worker_id)

    def _cancel_tasks_of(self, submitter: bytes) -> None:
        """Tasks whose submitter is gone end, unless somebody else has their references."""
        for task_id, record in self._tasks.of_submitter(submitter):
            if record.state == GONE:
                continue
            if not self._is_wanted(task_id, record):
                self._task_manager.cancel(task_id, record, force=False)

    def _is_wanted(self, task_id: bytes, record: TaskRecord) -> bool:
        count = record.template.message.num_returns if record.template is not None else 1
        returns = [self._objects.get(object_id(task_id, index)) for index in range(count)]
        return any(known is not None and known.holders is not None for known in returns)

    # ---- nodes -----------------------------------------------------------------------------

    def node_died(self, node: NodeMember, why: str) -> None:
        """Fence the incarnation; what it had moves once its death is durable."""
        if not node.ended:
            node.ended = True
            node.view.live = False
            known = self._members.node_rows.get(node.process_id)
            row = (known or NodeRow(0, True, node.info.name)).dead(node.incarnation)
            stored = self._members.row(node.process_id, row)
            self._persist([stored], lambda now: self._bury(node, why, now))

    def _bury(self, node: NodeMember, why: str, now: float) -> None:
        """Move the tasks of a dead incarnation, void its copies and its workers' holds."""
        self._members.bury(node.process_id, why, now)
        self._members.remove(node)
        self._outbox.discard(node.process_id)
        self._transfers.session_lost(node.process_id)
        # It may be one of before the restart that said HELLO and no more.
        row = NodeRow(node.incarnation, False, node.info.name, node.info.resources)
        self._members.gone(node.process_id, row)
        held = self._scheduler.remove_node(node.view)
        lost = f"node {node.info.name} ({node.info.host}) died: {why}"
        self._actors.node_died(node, lost)
        self._leases.node_died(node, lost)
        self._placement_groups.node_died(node.process_id, node.view, lost)
        for task_id, record in held.items():
            self._task_lost(task_id, record, node, lost)
        for worker_id in [*node.workers]:
            self.worker_ended(node, worker_id)
        self._objects.vanish(node.process_id)
        self._objects.forget_place(node.process_id)
        self._transfers.retry()
        self._task_manager.node_gone(node.process_id)
        self._events.node_died(node, why)

    def _task_lost(self, task_id: bytes, record: TaskRecord, node: NodeMember, lost: str) -> None:
        record.node = None
        if task_id in self._actor_table:
            self._incarnations.creation_lost(task_id, record, lost)
        elif record.cancelled:
            record.state = GONE
            self._task_manager.cancel(task_id, record, force=False)
        elif not self._task_manager.retry(task_id, record):
            text = f"{lost}; it held the task"
            self._task_outcomes.fail(task_id, record, NodeDiedError, text, node.info.name)

    def process_ended(self, node_id: bytes, why: str) -> None:
        """It is proved that no process is that node any more."""
        node = self._members.nodes.get(node_id)
        if node is not None:
            self.node_died(node, why)
        elif node_id in self._members.awaited:
            self.never_returned(node_id, why)

    def never_returned(self, node_id: bytes, why: str) -> None:
        """A node of before the restart is dead: its incarnation must not come back."""
        old = self._members.node_rows[node_id]

        def then(now: float) -> None:
            self._members.bury(node_id, why, now)
            self._placement_groups.node_died(node_id, None, "")
            if self._members.gone(node_id, old):
                self._events.never_returned(node_id, old.name, why)

        row = old.dead(old.incarnation)
        self._persist([self._members.row(node_id, row)], then)

    # ---- jobs ------------------------------------------------------------------------------

    def job_lost(self, job: JobMember, why: str) -> None:
        """A driver is given up that may come back, and then is told what it has lost."""
        self._members.job_lost(job.process_id, self._belongings(job, why))
        self.job_ended(job, why)

    def _belongings(self, job: JobMember, why: str) -> str:
        """What ends with a job, in words."""
        actors = len(self._actor_table.of_job(job.process_id))
        objects = len(self._objects.held_by.get(job.process_id, ()))
        unfinished = self._members.unfinished(job)
        counted = [(unfinished, "unfinished task"), (actors, "actor"), (objects, "object")]
        words = [f"{count:,} {what}{'s' if count > 1 else ''}" for count, what in counted if count]
        return f"{why}, so its job was ended, with {', '.join(words) or 'nothing left in it'}"

    def job_ended(self, job: JobMember, lost: str = "") -> None:
        """A driver is gone: its tasks end, its objects go, its workers stop.

        ``lost``: why it was given up; empty: it has left.
        """
        job_id = job.process_id
        job.ended = True
        self._events.job_ended(job, *(("FAILED", lost) if lost else self.how_ended(job)))
        self._actors.job_ended(job_id)
        self._holders.broken(job_id)
        self._lineage.job_ended(job_id)
        self._leases.job_ended(job_id)
        self._placement_groups.job_ended(job_id)
        self._scheduler.ranked.pop(job_id, None)
        del self._members.jobs[job_id]
        self._outbox.discard(job_id)
        self._prints.gone(job_id)
        self._transfers.session_lost(job_id)
        for task_id, record in self._tasks.of_job(job_id):
            if task_id in self._tasks:
                self._withdraw(task_id, record)
                self._task_manager.cancel(task_id, record, force=False)
        self._objects.vanish(job_id)
        self._results.forget(job_id)
        self._objects.forget_place(job_id)
        self._transfers.retry()
        for node in self._members.nodes.values():
            node.known.discard(job_id)

        def durable(_now: float) -> None:  # else another head might start some of it again
            for node in self._members.nodes.values():
                self._outbox.send(node.process_id, JobEnded(0, job_id))
            self._definitions.process_gone(job_id)  # FORGET comes after that

        self._persist([("jobs", job_id, None)], durable)

    def detached_ended(self, job_id: bytes) -> None:
        """A detached actor is dead, durably; its job ends with it."""
        job = self._members.jobs.get(job_id)
        if job is not None:
            self.job_ended(job)

    def _withdraw(self, task_id: bytes, record: TaskRecord) -> None:
        """No node has the task any more, and no queue."""
        if record.node is not None:
            self._scheduler.release(task_id, record)
        if record.state == READY:
            self._scheduler.withdraw(record, GONE)
        record.state = GONE
        record.node = None
