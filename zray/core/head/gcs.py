"""The GCS actor: owns the cluster's state and changes it only by messages from its mailbox.

This module is the composition: which machines there are, what each is made with, and what a turn
consists of. Which message goes to which of them is the table in `traffic_controller`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zray import limits
from zray.core import failures
from zray.core.head import actors as actors_module
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_table import ActorTable
from zray.core.head.actors import Actors
from zray.core.head.catalog import Catalog
from zray.core.head.definitions import Definitions
from zray.core.head.dispatch import Dispatch
from zray.core.head.holders import Holders
from zray.core.head.journal import Journal
from zray.core.head.lineage import Lineage
from zray.core.head.members import Member, Members
from zray.core.head.object_table import PENDING, ObjectRecord, ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.transfers import Transfers
from zray.core.incidents import Incidents
from zray.core.machine import NEVER, Outbox
from zray.core.offers import Offers
from zray.core.prints import Prints
from zray.errors import MessageTooLargeError
from zray.ids import task_of
from zray.protocol.messages import ERROR, Free, Hold, Message, Outcome, Result, Tasks

T = TypeVar("T")


class Gcs:
    """``rows``: of the store, by table. ``incidents``: where faults are recorded."""

    def __init__(
        self,
        epoch: int,
        rows: dict[str, dict[bytes, bytes]],
        now: float,
        incidents: Incidents | None = None,
    ) -> None:
        self.epoch = epoch
        self.incidents = incidents or Incidents()
        self.later_epoch = 0  # the latest that a peer knows, where that is later than this one
        self.store_trouble = ""  # why nothing becomes durable just now
        self.notices: list[str] = []
        counted = ("finished", "retried", "stale", "lost", "rebuilt", "reclaimed")
        self.counters = dict.fromkeys(counted, 0)
        self._now = now  # of the last turn

        self._make_tables(rows, now)
        self._make_machines_of_objects()
        actors = ActorTable()
        self._make_machines_of_tasks(actors)
        self._make_actors(actors, rows.get(actors_module.TABLE, {}), now)
        self._steps: tuple[tuple[str, Callable[[float], None]], ...] = (
            ("recovering", self._recover),
            ("tending actors", self.actors.step),
            ("scheduling", self.dispatch.assign),
            ("reclaiming tasks", self.dispatch.reclaim),
            ("telling outcomes", self.results.flush),
            ("freeing objects", self._free),
            ("forgetting functions", self.definitions.settle),
            ("acknowledging", self.acknowledgements.send),
        )

    # ---- composition -------------------------------------------------------------------------

    def _make_tables(self, rows: dict[str, dict[bytes, bytes]], now: float) -> None:
        """What is known, and what leaves: they use each other, and no machine."""
        self.outbox: Outbox[bytes] = Outbox()  # by process id
        self.journal = Journal()
        self.prints = Prints()
        self.offers = Offers()
        self.members = Members(rows, now)
        self.processes = Processes(self.members, self.outbox)
        self.catalog = Catalog(rows, self.journal.persist)
        self.scheduler = TaskScheduler()
        self.objects = ObjectTable()
        restarted = bool(rows.get(actors_module.TABLE))
        self.recovery = Recovery(self.objects, self.members, restarted=restarted)

    def _make_machines_of_objects(self) -> None:
        """Whatever a machine needs of a later one is a callback."""
        self.results = Results(self.outbox, self.objects, self.members, self.processes.workers)
        self.transfers = Transfers(
            *(self.outbox, self.objects, self.members, self.recovering),
            lambda oid: self.lineage.rebuild(oid, self._now),
        )
        self.definitions = Definitions(
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            catalog=self.catalog,
            recovery=self.recovery,
            hold=lambda holder, oid, now: self.holders.hold(holder, oid, now),
            wake=lambda task: self.task_manager.advance(task),
        )
        self.tasks = TaskTable(self.definitions.unused)
        self.holders = Holders(
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            wake=lambda task: self.task_manager.advance(task),
        )
        self.lineage = Lineage(
            counters=self.counters,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            definitions=self.definitions,
            begin=lambda task, spec, now: self.task_manager.begin(task, spec, now),
        )

    def _make_machines_of_tasks(self, actors: ActorTable) -> None:
        self.acknowledgements = Acknowledgements(self.outbox, self.journal.persist)
        self.task_manager = TaskManager(
            outbox=self.outbox,
            journal=self.journal,
            incidents=self.incidents,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=actors,
            offers=self.offers,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            lineage=self.lineage,
            acknowledgements=self.acknowledgements,
        )
        self.dispatch = Dispatch(
            outbox=self.outbox,
            members=self.members,
            objects=self.objects,
            actors=actors,
            catalog=self.catalog,
            scheduler=self.scheduler,
            assignment=lambda task_id, task: self.actors.assignment(task_id, task),
            fault=self.task_manager.fault,
        )

    def _make_actors(self, actors: ActorTable, rows: dict[bytes, bytes], now: float) -> None:
        directory = ActorDirectory(
            epoch=self.epoch,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=actors,
        )
        self.actors = Actors(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=actors,
            scheduler=self.scheduler,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            directory=directory,
            acknowledgements=self.acknowledgements,
            begin=self.task_manager.begin,
            rows=rows,
            now=now,
        )
        self.task_manager.creations = self.actors

    # ---- durability and faults ---------------------------------------------------------------

    def committed(self, number: int, now: float) -> None:
        """An entry of the journal is durable."""
        then = self.journal.stored(number)
        self.attempt("going on after a commit", "", lambda: then(now))

    def attempt(self, what: str, whom: str, action: Callable[[], T]) -> T | None:
        """Do a part of the work of many; if it fails, that is recorded, and the rest goes on."""
        try:
            return action()
        except Exception as error:
            self.incidents.record(what, whom, error, self._now)
            return None

    # ---- what concerns several machines --------------------------------------------------------

    def on_hold(self, sender: Member, message: Hold, now: float) -> None:
        """Who tells all that it holds has told all functions that it needs."""
        self.holders.on_hold(sender, message, now)
        if message.full:
            self.definitions.confirmed(message.holder)

    def note(self, text: str) -> None:
        """Remember something that whoever runs the cluster should know."""
        self.notices.append(text)
        del self.notices[: -limits.NOTES_MAX]

    def recovering(self) -> bool:
        """Whether something of before the head's restart may still turn up."""
        return self.recovery.active

    def too_large(self, target: Member, message: Message, text: str) -> None:
        """A message, of one thing, is too large for its receiver: that thing fails alone."""
        for assignment in message.tasks if isinstance(message, Tasks) else ():
            task_id = assignment.spec.task_id
            record = self.tasks.get(task_id)
            if record is not None and record.node is not None:
                record.node.sent -= 1
                self.scheduler.release(task_id, record)
                self.task_manager.fail(task_id, record, MessageTooLargeError, text)
        if isinstance(message, Result):
            value = failures.encode(MessageTooLargeError, text)
            for oid in [outcome.object_id for outcome in message.outcomes]:
                self.results.tell(message.target, Outcome(oid, ERROR, len(value), value))
        self.note(text)

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: assign, reclaim, tell outcomes, free."""
        self._now = now
        for what, step in self._steps:
            try:
                step(now)
            except Exception as error:
                self.incidents.record(what, "", error, now)

    def _recover(self, now: float) -> None:
        """Go on: all nodes of before are back or dead; then, everybody has told what it holds."""
        recovery = self.recovery
        if not recovery.active:
            if self.holders.unknown:
                self.holders.forget_unknown(now)
            return
        if not self.members.recovering():
            for record in recovery.take_parked():
                self.task_manager.unpark(record)
            if recovery.nodes_are_back():
                self.actors.nodes_are_back(now)
        if not self.members.resynced():
            return
        recovery.end()
        self.transfers.retry()
        self.holders.postpone(now)
        self.actors.owners_are_back(now)
        self.definitions.recovered()
        for task_id, record in [*self.tasks.items()]:
            if record.spec is None:  # whoever submitted it is gone
                self.task_manager.cancel(task_id, record, force=False)

    def _free(self, _now: float) -> None:
        swept = self.objects.sweep(self._is_needed)
        if not swept:
            return
        freed: dict[bytes, list[bytes]] = {}
        nodes, actors, origins = self.members.nodes, self.actors.records, self.lineage.origins
        while swept:
            for oid, known in swept:
                task_id = task_of(oid)
                self.holders.forget_freed(oid)
                if task_id in origins:
                    self.lineage.freed(task_id)  # which may let go of others
                if task_id in actors:
                    self.actors.handle_gone(task_id)
                self.transfers.serve(oid)
                for place in known.locations:
                    if known.served or place in nodes:
                        freed.setdefault(place, []).append(oid)
            swept = self.objects.sweep(self._is_needed)
        for place, ids in freed.items():
            self.outbox.send(place, Free(0, b"".join(ids)))

    def _is_needed(self, oid: bytes, record: ObjectRecord) -> bool:
        if record.kind == PENDING:
            return task_of(oid) in self.tasks
        return self.results.is_owed(oid, record)

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        soonest = NEVER if self.recovery.active else self.holders.unknown.soonest()
        soonest = min(soonest, self.acknowledgements.deadline())
        return min(soonest, self.scheduler.steal_deadline(), self.actors.deadline())
