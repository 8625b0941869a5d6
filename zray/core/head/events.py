"""What has happened in the cluster: events, and the things that are no more, within bounds.

Owns what is remembered of nodes, workers, actors and jobs that have ended, which workers there are,
and the time of day. Of tasks that is `task_history`. Nobody decides anything by what is here.
"""

from __future__ import annotations

from msgspec.structs import replace

from zray import limits
from zray.core.head.actor_records import ActorRecord
from zray.core.head.history import History
from zray.core.head.members import JobMember, NodeMember
from zray.core.head.notices import Notices
from zray.core.head.task_history import TaskHistory
from zray.protocol import messages as m

INFO = "INFO"
WARNING = "WARNING"
ERROR = "ERROR"
EXITS = ("INTENDED_SYSTEM_EXIT", "INTENDED_USER_EXIT", "SYSTEM_ERROR", "USER_ERROR")


class Events:
    """``started_s``: the time of day when the head started, which was ``now``. ``notices``: gets
    what whoever runs the cluster should know. ``number``: how many events there were."""

    def __init__(self, started_s: float, now: float, notices: Notices) -> None:
        self._notices = notices
        self._offset_s = started_s - now
        self.now = now  # of the last turn
        self.tasks = TaskHistory()
        bytes_max = limits.THINGS_ENDED_BYTES
        self.happened = History(m.ListedEvent, bytes_max)
        self.actors = History(m.ListedActor, bytes_max)
        self.nodes = History(m.ListedNode, bytes_max)
        self.workers = History(m.ListedWorker, bytes_max)
        self.jobs = History(m.ListedJob, bytes_max)
        self.alive: dict[bytes, m.ListedWorker] = {}  # workers
        self._at: dict[bytes, dict[bytes, None]] = {}  # these, by node
        self.number = 0
        self.node_deaths = {"planned": 0, "lost": 0}
        self.worker_deaths = dict.fromkeys((*EXITS, "OTHER"), 0)
        self.actor_deaths = {"planned": 0, "failed": 0}
        self.actor_restarts_seen = 0

    def day_time(self, now: float) -> float:
        """A moment of the head's clock, in seconds since 1970."""
        return now + self._offset_s

    def now_s(self) -> float:
        """The time of the last turn, in seconds since 1970."""
        return self.now + self._offset_s

    def step(self, now: float) -> None:
        """A turn ends."""
        self.now = now

    def add(
        self, severity: str, source: str, label: str, message: str, subject: bytes = b""
    ) -> None:
        """Something has happened."""
        self.number += 1
        text = message[: limits.BRIEF_TEXT_MAX]
        what = (self.number, self.now_s(), severity, source, label, text, subject)
        self.happened.add(m.ListedEvent(*what))

    # ---- nodes -----------------------------------------------------------------------------

    def node_joined(self, node: NodeMember) -> None:
        """A node takes part."""
        text = f"node {node.info.name} ({node.info.host}) has joined"
        self.add(INFO, "NODE", "NODE_JOINED", text, node.process_id)

    def node_died(self, node: NodeMember, why: str) -> None:
        """A node is dead, and so is every worker that it had."""
        text = f"node {node.info.name} ({node.info.host}) is dead: {why}"
        self._notices.add(text)
        peaceful = why.startswith("it left")
        self.node_deaths["planned" if peaceful else "lost"] += 1
        self.add(INFO if peaceful else ERROR, "NODE", "NODE_DIED", text, node.process_id)
        info = node.info
        self.nodes.add(
            m.ListedNode(
                *(node.process_id, info.name, "DEAD", why[: limits.BRIEF_TEXT_MAX], info.host),
                *(info.pid, node.is_of_head(), node.incarnation, info.resources),
                labels=info.labels,
                finished=node.view.finished,
                started_s=self.day_time(node.joined),
                ended_s=self.now_s(),
            )
        )
        for worker_id in [*self._at.get(node.process_id, ())]:
            exit_type = "INTENDED_SYSTEM_EXIT" if peaceful else "SYSTEM_ERROR"
            self._worker_ended(worker_id, exit_type, f"its node is dead: {why}")

    def never_returned(self, node_id: bytes, name: str, why: str) -> None:
        """A node of before the head's restart is dead."""
        text = f"node {name} is dead: {why}"
        self._notices.add(text)
        self.add(ERROR, "NODE", "NODE_DIED", text, node_id)
        self.node_deaths["lost"] += 1

    def tasks_wait(self, reason: str) -> None:
        """Tasks wait for what no node has."""
        self._notices.add(reason)
        self.add(WARNING, "TASK", "TASKS_INFEASIBLE", reason)

    # ---- workers ---------------------------------------------------------------------------

    def on_task_report(self, node: NodeMember, message: m.TaskReport, now: float) -> None:
        """A node tells what has ended there, what runs, and which workers there are."""
        self.now = now
        self.tasks.report(message)
        for row in message.workers:
            row = replace(row, node_id=node.process_id, started_s=self.now_s())
            known = self.alive.get(row.worker_id)
            if row.alive and known is None and len(self.alive) < limits.WORKERS_KNOWN_MAX:
                self.alive[row.worker_id] = row
                self._at.setdefault(node.process_id, {})[row.worker_id] = None
            elif not row.alive:
                self.alive.setdefault(row.worker_id, row)
                self._worker_ended(row.worker_id, row.exit_type, row.exit_detail)

    def _worker_ended(self, worker_id: bytes, exit_type: str, text: str) -> None:
        row = self.alive.pop(worker_id)
        there = self._at.get(row.node_id, {})
        there.pop(worker_id, None)
        if not there:
            self._at.pop(row.node_id, None)
        text = text[: limits.BRIEF_TEXT_MAX]
        over = replace(
            row, alive=False, ended_s=self.now_s(), exit_type=exit_type, exit_detail=text
        )
        self.workers.add(over)
        self.worker_deaths[exit_type if exit_type in EXITS else "OTHER"] += 1
        self.tasks.worker_ended(worker_id, text, self.now_s())
        if exit_type in ("SYSTEM_ERROR", "USER_ERROR"):
            said = f"worker {row.pid} on {row.host} died: {text}"
            self.add(WARNING, "WORKER", "WORKER_DIED", said, worker_id)

    def workers_at(self, node_id: bytes) -> int:
        """How many workers a node has."""
        return len(self._at.get(node_id, ()))

    # ---- actors ----------------------------------------------------------------------------

    def actor_lives(self, record: ActorRecord) -> None:
        """An incarnation has been made, in a worker."""
        worker = self.alive.get(record.worker_id)
        if worker is not None:
            self.alive[record.worker_id] = replace(worker, actor_id=record.actor_id)

    def actor_restarts(self, record: ActorRecord) -> None:
        """An incarnation died, and another follows."""
        self.actor_restarts_seen += 1
        text = f"{record.text}; it starts again (restart {record.restarts})"
        self.add(WARNING, "ACTOR", "ACTOR_RESTARTING", text, record.actor_id)

    def actor_died(self, record: ActorRecord, why: str) -> None:
        """An actor is dead for good."""
        failed = bool(record.error) or " died" in why
        self.actor_deaths["failed" if failed else "planned"] += 1
        self.add(ERROR if failed else INFO, "ACTOR", "ACTOR_DIED", record.text, record.actor_id)
        info, worker = record.info, self.alive.get(record.worker_id)
        self.actors.add(
            m.ListedActor(
                actor_id=record.actor_id,
                class_name=info.class_name,
                state="DEAD",
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
                started_s=self.day_time(record.made),
                ended_s=self.now_s(),
                death_cause=why[: limits.BRIEF_TEXT_MAX],
            )
        )

    # ---- jobs ------------------------------------------------------------------------------

    def job_joined(self, job: JobMember) -> None:
        """A driver has connected."""
        program = job.info.entrypoint or "a program"
        text = f"job of {program} (pid {job.info.pid} on {job.info.host}) has started"
        self.add(INFO, "JOB", "JOB_STARTED", text, job.process_id)

    def job_ended(self, job: JobMember, status: str, why: str) -> None:
        """A driver has left, or is given up."""
        info = job.info
        program = info.entrypoint or "a program"
        said = f"job of {program} (pid {info.pid} on {info.host}) has ended{why and ': '}{why}"
        severity = ERROR if status == "FAILED" else INFO
        self.add(severity, "JOB", "JOB_ENDED", said, job.process_id)
        self.jobs.add(
            m.ListedJob(
                job_id=job.process_id,
                status=status,
                entrypoint=info.entrypoint[: limits.BRIEF_TEXT_MAX],
                host=info.host,
                pid=info.pid,
                user=info.user,
                detached=job.driverless,
                finished=job.finished,
                started_s=self.day_time(job.joined),
                ended_s=self.now_s(),
                message=why[: limits.BRIEF_TEXT_MAX],
                submission_id=info.submission_id,
            )
        )
