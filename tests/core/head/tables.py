"""The tables of a head, and the machines that need nothing else, for tests of one machine above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tests.core.benches import EVERY, UNIT, VERSIONS, Fatal, identity
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_reconciliation import ActorReconciliation
from zray.core.head.actor_table import ActorTable
from zray.core.head.actors import Actors
from zray.core.head.catalog import Catalog
from zray.core.head.definitions import Definitions
from zray.core.head.events import Events
from zray.core.head.holders import Holders
from zray.core.head.incarnations import Incarnations
from zray.core.head.journal import Journal
from zray.core.head.lease_table import LeaseTable
from zray.core.head.leases import Leases
from zray.core.head.lineage import Lineage
from zray.core.head.members import JobMember, Members, NodeMember, NodeRow
from zray.core.head.near_tasks import NearTasks
from zray.core.head.notices import Notices
from zray.core.head.object_table import ObjectTable
from zray.core.head.placement_table import PlacementTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_records import FunctionUse, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.transfers import Transfers
from zray.core.machine import Outbox
from zray.core.offers import Offers
from zray.ids import IdSource
from zray.protocol import messages as m

COUNTED = (
    *("finished", "retried", "stale", "lost", "rebuilt", "reclaimed"),
    *("submitted", "resubmitted"),
)


class Tables:
    """``awaited``: a node of before a restart, so that the head recovers."""

    def __init__(self, awaited: str = "") -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.journal = Journal()
        self.notices = Notices()
        self.events = Events(0.0, 0.0, self.notices)
        self.counters = dict.fromkeys(COUNTED, 0)
        row = msgspec.msgpack.encode(NodeRow(1, True, awaited))
        rows = {"nodes": {identity(awaited): row}} if awaited else {}
        self.members = Members(rows, 0.0)
        self.objects = ObjectTable()
        self.recovery = Recovery(self.objects, self.members, restarted=False)
        self.processes = Processes(self.members, self.outbox, self.recovery)
        self.tasks = TaskTable(lambda template: None)
        self.actors = ActorTable()
        self.scheduler = TaskScheduler()
        self.lease_table = LeaseTable()
        self.placement = PlacementTable()
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
        rebuild: Callable[[bytes], str] = lambda oid: "nobody knows how it was made",
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
            rebuild=rebuild,
            told_all=told_all,
            wake=wake,
        )

    start_soon = False

    def make_near_tasks(self) -> NearTasks:
        """The machine that hears of tasks that nodes start by themselves."""
        return NearTasks(
            *(self.outbox, self.counters, self.members, self.scheduler, self.lease_table)
        )

    def make_leases(self) -> Leases:
        """The machine of leased workers; it takes what their nodes have of ``scheduler``."""
        return Leases(
            ids=IdSource(b"leaseids"),
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            scheduler=self.scheduler,
            recovery=self.recovery,
            table=self.lease_table,
            acknowledgements=Acknowledgements(self.outbox, self.journal.persist),
            tell_job=lambda node, job_id: None,
            start_soon=lambda job_id: self.start_soon,
        )

    # ---- members ---------------------------------------------------------------------------

    def node(self, name: str, cpus: float = 1, **more: Any) -> NodeMember:
        """A node that has announced all, and takes tasks; ``liveness``: its own port."""
        liveness, machine = more.pop("liveness", ""), more.pop("machine", "machine")
        amounts = [("CPU", int(cpus * UNIT))]
        amounts += [(key, int(amount * UNIT)) for key, amount in more.items()]
        info = m.NodeInfo(name, "host", 1, amounts, [], machine, liveness)
        versions = (b"", VERSIONS, ["tasks"])
        hello = m.Hello(0, 1, m.ROLE_NODE, identity(name), 1, *versions, info)
        node = NodeMember(hello, info, 0.0)
        node.begin_session(0.0)
        node.resynced = True
        node.view.new_session()
        node.view.granted = EVERY
        self.members.add(node)
        self.members.row(node.process_id, NodeRow(1, True, name))
        self.scheduler.add_node(node.view)
        return node

    def driver(self, name: str, *, resumed: bool = False) -> JobMember:
        """A driver that is connected; ``resumed``: it has yet to tell what it holds."""
        info = m.JobInfo("program", "/", [], "machine", "host", 1)
        job = JobMember(identity(name), info, 0.0, resumed=resumed)
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


class Machines(Tables):
    """And the machines that make up the life of a task, each with the real ones below it.

    ``made_of``: templates whose function is durable. ``functions``: rows that the head of before
    has left.
    """

    def __init__(
        self,
        *made_of: m.Template,
        awaited: str = "",
        functions: dict[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(awaited)
        rows = {"functions": functions or {}}
        self.offers = Offers()
        self.acknowledgements = Acknowledgements(self.outbox, self.journal.persist)
        self.holders = self.make_holders(wake=lambda task: self.task_manager.advance(task))
        self.directory = ActorDirectory(
            epoch=1,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=self.actors,
        )
        self.definitions = Definitions(
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            catalog=Catalog(rows, self.journal.persist, self.outbox),
            recovery=self.recovery,
            hold=self.holders.hold,
            wake=lambda task: self.task_manager.advance(task),
        )
        for one in made_of:
            self.definitions.take(one).function.ready = True
        self.lineage = Lineage(
            counters=self.counters,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            definitions=self.definitions,
            begin=lambda task, spec, now: self.task_manager.begin(task, spec, now),
            retry=self.transfers.retry,
        )
        self._make_ends()

    def _make_ends(self) -> None:
        self.incarnations = Incarnations(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actors,
            scheduler=self.scheduler,
            definitions=self.definitions,
            directory=self.directory,
            events=self.events,
            placement=self.placement,
            begin=lambda task, spec, now: self.task_manager.begin(task, spec, now),
        )
        self.outcomes = TaskOutcomes(
            outbox=self.outbox,
            incidents=Fatal(),
            events=self.events,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actors,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            holders=self.holders,
            lineage=self.lineage,
            incarnations=self.incarnations,
        )
        self.task_manager = TaskManager(
            outbox=self.outbox,
            journal=self.journal,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actors,
            offers=self.offers,
            scheduler=self.scheduler,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            lineage=self.lineage,
            acknowledgements=self.acknowledgements,
            incarnations=self.incarnations,
            outcomes=self.outcomes,
            near_tasks=self.make_near_tasks(),
            placement=self.placement,
            events=self.events,
        )

    def make_actors(self, rows: dict[bytes, bytes] | None = None) -> Actors:
        """The machine of actors; ``rows``: of those that the head of before has left."""
        return Actors(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actors,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            directory=self.directory,
            acknowledgements=self.acknowledgements,
            incarnations=self.incarnations,
            rows=rows or {},
            now=0.0,
        )

    def make_actor_reconciliation(self) -> ActorReconciliation:
        """The machine that knows which actors of before are in doubt."""
        return ActorReconciliation(
            outbox=self.outbox,
            processes=self.processes,
            tasks=self.tasks,
            records=self.actors,
            directory=self.directory,
            incarnations=self.incarnations,
        )

    def starts(self, now: float = 0.0) -> list[tuple[bytes, int]]:
        """Tasks that are given to nodes now, with their attempts."""
        return [
            (record.spec.task_id, record.attempt)
            for _, records in self.scheduler.schedule(now)
            for record in records
            if record.spec is not None
        ]

    def acknowledged(self, node: NodeMember) -> list[int]:
        """Up to which of its ends a node is told, after a while, that they are known."""
        self.outbox.take()
        self.acknowledgements.send(self.acknowledgements.deadline())
        return [ack.upto for ack in self.sent(m.Ack).get(node.process_id, [])]
