"""What is told of one thing that there is now: a task, actor, object, node, worker or job.

Reads the tables, and costs the same for each. Of what is over, `events` has the rows.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from zray import limits
from zray.core import resources
from zray.core.bundles import STRATEGIES
from zray.core.head.actor_records import ActorRecord
from zray.core.head.members import ALIVE, JobMember
from zray.core.head.object_table import PENDING, ObjectRecord
from zray.core.head.placement_reasons import PlacementReasons
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.tables import Tables
from zray.core.head.task_records import ASSIGNED, READY, TaskRecord
from zray.core.head.task_table import TaskTable
from zray.ids import OBJECT_BYTES, origin_of, task_of
from zray.protocol import messages as m

HOLDERS_LOOKED_AT = 8

ACTOR_STATES = {
    m.ACTOR_PENDING: "PENDING_CREATION",
    m.ACTOR_ALIVE: "ALIVE",
    m.ACTOR_RESTARTING: "RESTARTING",
}


class StateRows:
    """Of a head. None in place of a row: there is no such thing any more."""

    def __init__(self, tables: Tables, tasks: TaskTable) -> None:
        self._members = tables.members
        self._pairs = tables.catalog.kv
        self._objects = tables.objects
        self._actors = tables.actor_table
        self._leases = tables.lease_table
        self._scheduler = tables.scheduler
        self._events = tables.events
        self._placement = tables.placement
        self._placement_reasons = PlacementReasons(tables.members, tables.scheduler)
        self._submitted = tables.job_table
        self._tasks = tasks
        self._reasons: dict[SchedulingClass, str] = {}  # looked up in this turn

    def forget_reasons(self) -> None:
        """Another turn: why classes of tasks wait may have changed."""
        self._reasons.clear()

    # ---- tasks -----------------------------------------------------------------------------

    def task(self, task_id: bytes) -> m.ListedTask | None:
        """A task without an outcome, or one of which a worker has told that it runs."""
        row = self._task(task_id)
        if row is not None and m.BREAKPOINTS + task_id in self._pairs:
            reason = "BREAKPOINT: it waits in a debugger; see zray debug"
            return msgspec.structs.replace(row, reason=reason)
        return row

    def _task(self, task_id: bytes) -> m.ListedTask | None:
        runs = self._events.tasks.runs(task_id)
        record = self._tasks.get(task_id)
        if record is None or record.template is None:
            return runs
        if not record.template.message.events:
            return None
        spec, view = record.spec, record.node
        creates = task_id in self._actors
        return m.ListedTask(
            task_id=task_id,
            attempt=record.failures,
            name=record.template.message.name,
            state=m.RUNNING if runs is not None else self.task_state(record),
            type=m.ACTOR_CREATION_TASK if creates else m.NORMAL_TASK,
            job_id=record.job_id,
            actor_id=task_id if creates else b"",
            parent_task_id=spec.parent if spec is not None else b"",
            node_id=view.node_id if view is not None else b"",
            worker_id=runs.worker_id if runs is not None else b"",
            pid=runs.pid if runs is not None else 0,
            started_s=runs.started_s if runs is not None else 0.0,
            resources=record.template.message.resources,
            reason=self._reason(record)[: limits.BRIEF_TEXT_MAX],
        )

    @staticmethod
    def task_state(record: TaskRecord) -> str:
        """As Ray calls it."""
        if record.state == ASSIGNED:
            return m.SUBMITTED_TO_WORKER
        return m.PENDING_NODE_ASSIGNMENT if record.state == READY else m.PENDING_ARGS_AVAIL

    def _reason(self, record: TaskRecord) -> str:
        if record.state == ASSIGNED:
            return ""
        if record.state == READY:
            group = self._scheduler.group_of(record)
            reason = self._reasons.get(group)
            if reason is None:
                if len(self._reasons) >= limits.REASONS_LOOKED_UP_MAX:
                    return ""
                reason = self._reasons[group] = self._scheduler.reason(group)
            return reason
        if record.parked:
            return "HEAD_RECOVERING: it may be with a node that is not back yet"
        if record.waiting:
            return f"WAIT_DEPS: it waits for {record.waiting} of its arguments"
        return "WAIT_FUNCTION: its function is being stored"

    def unlisted(self) -> int:
        """How many unfinished tasks only their submitters and nodes know."""
        near = sum(node.view.near_counts()[0] for node in self._members.nodes.values())
        leased = sum(job.leased for job in self._members.jobs.values())
        told = sum(1 for one in self._events.tasks.running() if one not in self._tasks)
        return max(0, near + leased - told)

    # ---- actors ----------------------------------------------------------------------------

    def actor(self, actor_id: bytes) -> m.ListedActor | None:
        """An actor that is not dead."""
        record = self._actors.get(actor_id)
        if record is None or record.state == m.ACTOR_DEAD:
            return None
        info, alive = record.info, record.state == m.ACTOR_ALIVE
        worker = self._events.alive.get(record.worker_id) if alive else None
        return m.ListedActor(
            actor_id=actor_id,
            class_name=info.class_name,
            state=self._actor_state(record),
            job_id=record.job_id,
            name=info.name,
            namespace=info.namespace,
            node_id=record.node_id,
            worker_id=record.worker_id,
            pid=worker.pid if worker is not None else 0,
            resources=info.held,
            detached=info.detached,
            restarts=record.restarts,
            owner_id=record.owner,
            started_s=self._events.day_time(record.made),
            reason="" if alive else self._why_no_actor(record)[: limits.BRIEF_TEXT_MAX],
        )

    def _actor_state(self, record: ActorRecord) -> str:
        creation = self._tasks.get(record.actor_id)
        if record.state == m.ACTOR_PENDING and creation is not None and creation.waiting:
            return "DEPENDENCIES_UNREADY"
        return ACTOR_STATES[record.state]

    def _why_no_actor(self, record: ActorRecord) -> str:
        creation = self._tasks.get(record.actor_id)
        return self._reason(creation) if creation is not None else record.reason(self._events.now)

    def why_pending(self, actor_id: bytes) -> str:
        """What an actor waits for that has not been made yet; empty: it is there, or dead."""
        record = self._actors.get(actor_id)
        if record is None or record.state in (m.ACTOR_ALIVE, m.ACTOR_DEAD):
            return ""
        return self._why_no_actor(record)[: limits.BRIEF_TEXT_MAX]

    # ---- objects ---------------------------------------------------------------------------

    def object(self, object_id: bytes) -> m.ListedObject | None:
        """An object that the head knows of."""
        record = self._objects.get(object_id)
        if record is None:
            return None
        holder, count = self._holder(record)
        kind, pid, host = self._process(holder)
        return m.ListedObject(
            object_id=object_id,
            size=record.size,
            state=self._object_state(object_id, record),
            task_state=self._task_state_of(object_id, record),
            reference_type=self._reference_type(object_id, holder, kind),
            places=[*record.locations][:HOLDERS_LOOKED_AT],
            holders=count,
            holder_id=holder,
            type=kind,
            pid=pid,
            host=host,
            held=self._held(object_id, record),
        )

    def _held(self, object_id: bytes, record: ObjectRecord) -> list[tuple[str, bytes, str]]:
        """The first of those that hold it, and how."""
        held = record.holders
        first = [held] if isinstance(held, bytes) else islice(held or (), HOLDERS_LOOKED_AT)
        return [self._hold(object_id, holder) for holder in first]

    def _hold(self, object_id: bytes, holder: bytes) -> tuple[str, bytes, str]:
        if len(holder) == OBJECT_BYTES:
            return m.CAPTURED_IN_OBJECT, holder, ""
        if holder in self._members.jobs or holder in self._events.alive:
            is_handle = task_of(object_id) in self._actors
            return m.ACTOR_HANDLE if is_handle else m.LOCAL_REFERENCE, holder, ""
        task = self._tasks.get(holder)
        if task is not None:
            name = task.template.message.name if task.template is not None else ""
            return m.USED_BY_PENDING_TASK, holder, name
        actor = self._actors.get(holder)
        if actor is not None:
            return m.CAPTURED_IN_ACTOR, holder, actor.info.class_name
        node = self._members.nodes.get(holder)
        if node is not None:  # for tasks of its workers, and ends on their way
            return m.USED_BY_PENDING_TASK, holder, f"node {node.info.name}"[: limits.NAME_MAX]
        return m.HELD_OTHERWISE, holder, ""

    def _holder(self, record: ObjectRecord) -> tuple[bytes, int]:
        """One that holds it, a process if one of the first is, and how many there are."""
        held = record.holders
        if held is None or isinstance(held, bytes):
            return held or b"", int(held is not None)
        first = [holder for holder, _ in zip(held, range(HOLDERS_LOOKED_AT), strict=False)]
        return next((one for one in first if self._process(one)[0]), first[0]), len(held)

    def _process(self, process_id: bytes) -> tuple[str, int, str]:
        job = self._members.jobs.get(process_id)
        if job is not None:
            return "DRIVER", job.info.pid, job.info.host
        worker = self._events.alive.get(process_id)
        return ("WORKER", worker.pid, worker.host) if worker is not None else ("", 0, "")

    def _object_state(self, object_id: bytes, record: ObjectRecord) -> str:
        if record.kind == PENDING:
            return "PENDING"
        if self._objects.is_lost(object_id, record):
            return "LOST"
        return "ERROR" if record.kind & m.ERROR else "READY"

    def _task_state_of(self, object_id: bytes, record: ObjectRecord) -> str:
        if record.kind != PENDING:
            return m.ENDED_BADLY if record.kind & m.ERROR else m.ENDED_WELL
        task = self._tasks.get(origin_of(object_id))
        return self.task_state(task) if task is not None else "NIL"

    def _reference_type(self, object_id: bytes, holder: bytes, kind: str) -> str:
        if task_of(object_id) in self._actors:
            return "ACTOR_HANDLE"
        if kind:
            return "LOCAL_REFERENCE"
        if len(holder) == OBJECT_BYTES:
            return "CAPTURED_IN_OBJECT"
        return "USED_BY_PENDING_TASK" if holder in self._tasks else "UNKNOWN_STATUS"

    # ---- nodes, workers, jobs ----------------------------------------------------------------

    def node(self, node_id: bytes) -> m.ListedNode | None:
        """A node that has joined."""
        node = self._members.nodes.get(node_id)
        if node is None:
            return None
        view, info, state = node.view, node.info, node.state()
        ahead = sum(view.ahead.values())
        near, near_waiting = view.near_counts()
        held = len(view.assigned) + self._leases.count_at(node_id)
        silent_s = max(0.0, self._events.now - node.heard)
        free = sorted((name, max(amount, 0)) for name, amount in view.free.items())
        return m.ListedNode(
            node_id=node_id,
            name=info.name,
            state="ALIVE",
            message="" if state == ALIVE else f"{state}: not heard of for {silent_s:.0f} s",
            host=info.host,
            pid=info.pid,
            is_head=node.is_of_head(),
            incarnation=node.incarnation,
            resources=info.resources,
            available=list(resources.countable(free)),
            labels=info.labels,
            running=held - ahead + max(0, near - near_waiting),
            queued=ahead + near_waiting,
            finished=view.finished,
            workers=self._events.workers_at(node_id),
            silent_s=silent_s,
            started_s=self._events.day_time(node.joined),
        )

    def worker(self, worker_id: bytes) -> m.ListedWorker | None:
        """A worker that lives, or a driver."""
        job = self._members.jobs.get(worker_id)
        if job is None or job.driverless:
            return self._events.alive.get(worker_id)
        info = job.info
        return m.ListedWorker(
            *(worker_id, job.connected, "DRIVER", b"", info.host, info.pid, worker_id),
            started_s=self._events.day_time(job.joined),
        )

    def job(self, job_id: bytes) -> m.ListedJob | None:
        """The job of a driver that has not left."""
        job = self._members.jobs.get(job_id)
        if job is None:
            return None
        info = job.info
        return m.ListedJob(
            job_id=job_id,
            status=self._job_status(job),
            entrypoint=info.entrypoint[: limits.BRIEF_TEXT_MAX],
            host=info.host,
            pid=info.pid,
            user=info.user,
            connected=job.connected,
            detached=job.driverless,
            unfinished=self._members.unfinished(job),
            finished=job.finished,
            started_s=self._events.day_time(job.joined),
            message=self._job_message(job),
            submission_id=info.submission_id,
        )

    def _job_status(self, job: JobMember) -> str:
        submitted = self._submitted.of_actor(job.process_id)
        return "RUNNING" if submitted is None else submitted.row.status

    def _job_message(self, job: JobMember) -> str:
        if self._submitted.of_actor(job.process_id) is not None:
            return self.why_pending(job.process_id)
        if job.driverless:
            return "it is that of a detached actor, which lives"
        return "" if job.connected else "its driver is not connected at the moment"

    def placement_group(self, group_id: bytes) -> m.ListedGroup | None:
        """A placement group, or one of the last that were removed."""
        record = self._placement.get(group_id)
        gone = self._placement.removed.get(group_id)
        if record is not None:
            gone = record.status(self._placement_reasons.of(record))
        if gone is None:
            return None
        return m.ListedGroup(
            *(group_id, gone.name, m.GROUP_STATES[gone.state], STRATEGIES[gone.strategy]),
            *(gone.job_id, gone.detached),
            gone.bundles,
            gone.nodes,
            *(gone.rounds, gone.reason),
        )
