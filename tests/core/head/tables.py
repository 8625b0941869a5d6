"""The tables of a head, and the machines that need nothing else, for tests of one machine above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tests.core.benches import EVERY, UNIT, VERSIONS, identity
from zray.core.head.actor_table import ActorTable
from zray.core.head.holders import Holders
from zray.core.head.journal import Journal
from zray.core.head.members import JobMember, Members, NodeMember, NodeRow
from zray.core.head.object_table import ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_records import FunctionUse, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.transfers import Transfers
from zray.core.machine import Outbox
from zray.protocol import messages as m


class Tables:
    """``awaited``: a node of before a restart, so that the head recovers."""

    def __init__(self, awaited: str = "") -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.journal = Journal()
        self.counters = dict.fromkeys(("finished", "retried", "stale", "lost", "reclaimed"), 0)
        row = msgspec.msgpack.encode(NodeRow(1, True, awaited))
        rows = {"nodes": {identity(awaited): row}} if awaited else {}
        self.members = Members(rows, 0.0)
        self.objects = ObjectTable()
        self.recovery = Recovery(self.objects, self.members, restarted=False)
        self.processes = Processes(self.members, self.outbox, self.recovery)
        self.tasks = TaskTable(lambda template: None)
        self.actors = ActorTable()
        self.scheduler = TaskScheduler()
        self.results = Results(self.outbox, self.objects, self.members, self.processes.workers)
        self.lost: list[bytes] = []  # objects that were to be made again
        self.trouble = ""  # why none can be
        self.transfers = Transfers(
            *(self.outbox, self.objects, self.members, self.recovery), self._rebuild
        )

    def _rebuild(self, object_id: bytes) -> str:
        self.lost.append(object_id)
        return self.trouble

    def make_holders(
        self,
        told_all: Callable[[bytes], None] = lambda process: None,
        wake: Callable[[TaskRecord], None] = lambda task: None,
    ) -> Holders:
        """The machine of what processes say of objects, over these tables."""
        return Holders(
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            told_all=told_all,
            wake=wake,
        )

    # ---- members ---------------------------------------------------------------------------

    def node(self, name: str, cpus: float = 1, **more: Any) -> NodeMember:
        """A node that has announced all, and takes tasks; ``liveness``: its own port."""
        liveness = more.pop("liveness", "")
        amounts = [("CPU", int(cpus * UNIT))]
        amounts += [(key, int(amount * UNIT)) for key, amount in more.items()]
        info = m.NodeInfo(name, "host", 1, amounts, [], "machine", liveness)
        versions = (b"", VERSIONS, ["tasks"])
        hello = m.Hello(0, 1, m.ROLE_NODE, identity(name), 1, *versions, info)
        node = NodeMember(hello, info, 0.0)
        node.begin_session(0.0)
        node.resynced = True
        node.view.new_session()
        node.view.granted = EVERY
        self.members.nodes[node.process_id] = node
        self.members.row(node.process_id, NodeRow(1, True, name))
        self.scheduler.add_node(node.view)
        return node

    def driver(self, name: str) -> JobMember:
        """A driver that is connected."""
        job = JobMember(identity(name), m.JobInfo("program", "/", [], "machine", "host", 1), 0.0)
        job.begin_session(0.0)
        self.members.jobs[job.process_id] = job
        return job

    # ---- tasks -----------------------------------------------------------------------------

    def task(self, spec: m.TaskSpec, template: m.Template, job: JobMember) -> TaskRecord:
        """A task that its driver has submitted; nobody has it yet."""
        made_of = TemplateRecord(template, FunctionUse(template.function_id, ready=True))
        record = TaskRecord(spec, made_of, job.process_id, job.process_id)
        self.tasks.add(spec.task_id, record)
        return record

    # ---- what leaves -----------------------------------------------------------------------

    def sent(self, kind: type[m.Message]) -> dict[bytes, list[Any]]:
        """What of a kind was sent since the last call, by process; the rest is forgotten."""
        found: dict[bytes, list[Any]] = {}
        for process, messages in self.outbox.take().items():
            for message in messages:
                if isinstance(message, kind):
                    found.setdefault(process, []).append(message)
        return found

    def told(self, target: bytes) -> list[m.Outcome]:
        """The outcomes that a driver is told in this turn."""
        self.results.flush(0.0)
        return [one for result in self.sent(m.Result).get(target, []) for one in result.outcomes]

    def commit(self, now: float = 0.0) -> list[Any]:
        """Everything becomes durable; the rows."""
        rows = []
        while self.journal:
            for number, entry in self.journal.take():
                rows += entry
                self.journal.stored(number)(now)
        return rows
