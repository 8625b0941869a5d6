"""How nodes, jobs and workers are, since when, and what the unfinished tasks of a job wait for."""

from __future__ import annotations

from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.causes import Link, age, cause
from zray.core.head.lease_table import LeaseTable
from zray.core.head.members import ALIVE, JobMember, Members, NodeMember
from zray.core.head.processes import Processes
from zray.core.head.shortages import Shortages, job_in_words
from zray.core.head.task_records import ASSIGNED, READY, TaskRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable

DEAD = "DEAD"
AWAY = "AWAY"


class MemberCauses:
    """Reads the tables."""

    def __init__(
        self,
        *,
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        leases: LeaseTable,
        scheduler: TaskScheduler,
        shortages: Shortages,
    ) -> None:
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._leases = leases
        self._scheduler = scheduler
        self._shortages = shortages

    def of(self, process_id: bytes, now: float) -> Link | None:
        """A node, a job by its driver, or a worker; None: there is no such process."""
        node = self._members.nodes.get(process_id)
        if node is not None:
            return self._node(node, now)
        job = self._members.jobs.get(process_id)
        if job is not None:
            return self._job(job, now)
        if process_id in self._members.node_rows:
            return self._former_node(process_id, now)
        place = self._processes.workers.get(process_id)
        if place is None:
            return None
        where = self._members.nodes.get(place)
        name = where.info.name if where is not None else place.hex()
        known = cause("worker", process_id, "", "WORKER", f"a worker of node {name}")
        return Link(known, asks=(place,)) if where is not None else Link(known, place)

    # ---- nodes -----------------------------------------------------------------------------

    def _node(self, node: NodeMember, now: float) -> Link:
        view, name = node.view, node.info.name
        state = node.state()
        silent = max(0.0, now - node.heard)
        if state == ALIVE:
            text = f"node {name} ({node.info.host}) is alive, and was heard of {age(silent)} ago"
            advice, since_s = "", -1.0
        else:
            text = f"node {name} ({node.info.host}) is {self._shortages.silence(node, now)}"
            since_s = silent
            advice = (
                f"see whether its process (pid {node.info.pid}) runs and reaches the head; at "
                f"{limits.DEAD_S:g} s it is declared dead, and its tasks run elsewhere"
            )
        if node.trouble:
            text = f"{text}; in trouble: {node.trouble}"
        near, near_waiting = view.near_counts()
        leased = self._leases.count_at(node.process_id)
        ahead = sum(view.ahead.values())
        free = ", ".join(
            f"{resources.figure(kind, max(0, view.free.get(kind, 0)))} of "
            f"{resources.figure(kind, amount)} {kind}"
            for kind, amount in islice(node.info.resources, limits.WHY_DETAILS_MAX)
            if not kind.startswith("node:")
        )
        details = [
            ("free", free),
            ("tasks", f"{max(0, len(view.assigned) - ahead + near - near_waiting):,} run"),
            ("queued", f"{ahead + near_waiting:,} wait there"),
            ("leased workers", f"{leased:,}"),
            ("actors", f"{len(node.actors):,}"),
        ]
        found = cause(
            *("node", node.process_id, name, state, text),
            since_s=since_s,
            details=details,
            advice=advice,
        )
        return Link(found)

    def _former_node(self, node_id: bytes, now: float) -> Link:
        row = self._members.node_rows[node_id]
        if row.alive:
            text = f"node {row.name} is not back since the head's restart"
            advice = f"it is given up {limits.DEAD_S:g} s after that"
            since_s = max(0.0, now - self._members.started)
            found = cause(*("node", node_id, row.name, AWAY, text), since_s=since_s, advice=advice)
            return Link(found)
        why, when = self._members.buried.get(node_id, ("", None))
        text = f"node {row.name} is dead{f': {why}' if why else ''}"
        since_s = max(0.0, now - when) if when is not None else -1.0
        advice = "start it again with zray-worker"
        return Link(cause("node", node_id, row.name, DEAD, text, since_s=since_s, advice=advice))

    # ---- jobs ------------------------------------------------------------------------------

    def _job(self, job: JobMember, now: float) -> Link:
        unfinished = self._members.unfinished(job)
        name = job_in_words(job)
        counts = f"{unfinished:,} unfinished tasks, {job.finished:,} finished"
        if job.driverless:
            code, text, since_s = "DETACHED", f"{name} is a detached actor's: {counts}", -1.0
            advice = ""
        elif job.connected:
            code = "RUNNING" if unfinished else "IDLE"
            text = f"{name}, pid {job.info.pid} on {job.info.host}: {counts}"
            since_s, advice = -1.0, ""
            silent = now - job.heard
            if silent >= limits.SILENT_S:
                code, since_s = AWAY, silent
                text = f"{text}; its program is connected and says nothing"
                advice = "it is stopped, or Python code that does not return holds its thread"
        else:
            lost_after_s = job.info.lost_after_s or self._members.driver_lost_s
            code, since_s = AWAY, max(0.0, now - job.lost)
            text = f"{name}: its program is not connected; {counts}"
            advice = f"without it the job ends after {lost_after_s:g} s"
        details, more = self._waiting(job)
        found = cause(
            *("job", job.process_id, name, code, text),
            since_s=since_s,
            details=details,
            more=more,
            advice=advice,
        )
        asks = (job.process_id,) if job.connected and not job.driverless else ()
        return Link(found, asks=asks)

    def _waiting(self, job: JobMember) -> tuple[list[tuple[str, str]], int]:
        """What its tasks wait for, by reason and count; and how many reasons are left out."""
        found: list[tuple[int, str]] = []
        more = 0
        for number, group in enumerate(self._scheduler.all_groups()):
            queue = group.queues.get(job.process_id)
            if not queue or not group.ready:
                continue
            if number >= limits.WHY_NODES_MAX or len(found) >= limits.WHY_DETAILS_MAX:
                more += 1
                continue
            count = len(queue)
            if group.left:
                count = sum(one.state == READY for one in islice(queue, limits.WHY_SCAN_MAX))
            template = queue.first().template
            example = template.message.name if template is not None else "a task"
            found.append((count, f"{self._scheduler.reason(group)} (such as {example})"))
        nodes = [*islice(self._members.nodes.values(), limits.WHY_NODES_MAX)]
        near = sum(
            told.waiting
            for node in nodes
            for told in node.view.near_waiting.values()
            if told.job_id == job.process_id
        )
        of_nodes = [node.view.near.get(job.process_id) for node in nodes]
        others = sum(told.unfinished for told in of_nodes if told is not None) - near
        where = "the nodes of the tasks that have submitted them"
        if near:
            found.append((near, f"WAIT_RESOURCES: on {where}"))
        if others > 0:
            found.append((others, f"RUNNING: or waiting for arguments, on {where}"))
        if job.leased:
            reason = "LEASED: with the program, which gives them to workers, as it said last"
            found.append((job.leased, reason))
        found += self._others(job)
        found.sort(key=lambda one: -one[0])
        return [(f"{count:,}", reason) for count, reason in found], more

    def _others(self, job: JobMember) -> list[tuple[int, str]]:
        """Those of its tasks at the head that are not ready; of many, of the first."""
        some = self._tasks.some_of_job(job.process_id, limits.WHY_SCAN_MAX)
        counts: dict[str, int] = {}
        for task in some:
            if task.state != READY:
                reason = self._state(task)
                counts[reason] = counts.get(reason, 0) + 1
        of_first = f" (of the first {len(some):,})" if len(some) == limits.WHY_SCAN_MAX else ""
        return [(count, f"{reason}{of_first}") for reason, count in counts.items()]

    def _state(self, task: TaskRecord) -> str:
        if task.state == ASSIGNED and task.node is not None:
            node = self._members.nodes.get(task.node.node_id)
            return f"LEASED: with node {node.info.name if node is not None else 'that is gone'}"
        if task.parked or task.spec is None:
            return "HEAD_RECOVERING: until all nodes of before are back, or dead"
        if task.waiting:
            return "WAIT_DEPS: for their arguments"
        return "WAIT_FUNCTION: their function is being stored"
