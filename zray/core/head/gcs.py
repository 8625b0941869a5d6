"""The GCS actor: owns the cluster's state and changes it only by messages from its mailbox.

This module is the table of messages, which says what goes to which machine, and the composition:
which machines there are, what each is made with, and what a turn consists of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from zray.core.head import actors as actors_module
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_table import ActorTable
from zray.core.head.actors import Actors
from zray.core.head.admission import Admission
from zray.core.head.catalog import Catalog
from zray.core.head.control_store import ControlStore
from zray.core.head.definitions import Definitions
from zray.core.head.departures import Departures
from zray.core.head.dispatch import Dispatch
from zray.core.head.garbage_collector import GarbageCollector
from zray.core.head.holders import Holders
from zray.core.head.identity import HeadIdentity
from zray.core.head.journal import Journal
from zray.core.head.lineage import Lineage
from zray.core.head.members import Members
from zray.core.head.membership import Membership
from zray.core.head.notices import Notices
from zray.core.head.object_table import ObjectTable
from zray.core.head.print_relay import PrintRelay
from zray.core.head.processes import Processes
from zray.core.head.reconciliation import Reconciliation
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.resumption import Resumption
from zray.core.head.sessions import Sessions
from zray.core.head.state_queries import StateQueries
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.traffic_controller import Handler, TrafficController
from zray.core.head.transfers import Transfers
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.offers import Offers
from zray.core.prints import Prints
from zray.protocol import messages as m
from zray.protocol.codec import Unsent

T = TypeVar("T")
CHECK_S = 1.0


class Gcs:
    """``rows``: of the store, by table. ``incidents``: where faults are recorded.

    The shell hands payloads to ``controller``, connections that are cut to ``sessions``, rows that
    are durable to ``committed``; it calls ``settle`` once per turn, and sends what is ``routed``.
    """

    def __init__(
        self,
        identity: HeadIdentity,
        rows: dict[str, dict[bytes, bytes]],
        now: float,
        incidents: Incidents | None = None,
    ) -> None:
        self.epoch = identity.epoch
        self.incidents = incidents or Incidents()
        counted = ("finished", "retried", "stale", "lost", "rebuilt", "reclaimed")
        self.counters = dict.fromkeys(counted, 0)
        self._now = now  # of the last turn
        self._next_check = now + CHECK_S

        self._make_tables(identity, rows, now)
        self._make_machines_of_objects()
        self._make_machines_of_tasks()
        self._make_actors(rows.get(actors_module.TABLE, {}), now)
        self._make_machines_of_members()
        self._make_door(identity)
        self._steps: tuple[tuple[str, Callable[[float], None]], ...] = (
            ("recovering", self.resumption.step),
            ("forgetting unknown objects", self.holders.forget_unknown),
            ("tending actors", self.actors.step),
            ("scheduling", self.dispatch.assign),
            ("reclaiming tasks", self.dispatch.reclaim),
            ("telling outcomes", self.results.flush),
            ("freeing objects", self.garbage.collect),
            ("forgetting functions", self.definitions.settle),
            ("acknowledging", self.acknowledgements.send),
        )

    # ---- messages --------------------------------------------------------------------------

    def _table(self) -> dict[type[m.Message], Handler]:
        """Which message goes to which machine. Who may say it is in `roles`."""
        actors, directory, transfers = self.actors, self.actors.directory, self.transfers
        return {
            # sessions
            m.Hello: self.sessions.on_hello,
            m.Goodbye: self.sessions.on_goodbye,
            m.Shutdown: self.sessions.on_shutdown,
            # nodes and drivers
            m.Announce: self.reconciliation.on_announce,
            m.Credit: self.reconciliation.on_credit,
            m.Returned: self.reconciliation.on_returned,
            m.Have: self.reconciliation.on_have,
            m.WorkerDied: self.departures.on_worker_died,
            m.DriverEnded: self.membership.on_driver_ended,
            m.AskGone: self.processes.on_ask_gone,
            # functions and tasks
            m.Export: self.definitions.on_export,
            m.Template: self.definitions.on_template,
            m.Forget: self.definitions.on_forget,
            m.Submit: self.task_manager.on_submit,
            m.Cancel: self.task_manager.on_cancel,
            m.Done: self.task_manager.on_done,
            m.ResultAck: lambda s, msg, now: self.results.acked(msg.target, msg.upto),
            # objects
            m.Hold: self.holders.on_hold,
            m.Drop: self.holders.on_drop,
            m.Watch: self.holders.on_watch,
            m.Put: self.holders.on_put,
            m.Promise: self.holders.on_promise,
            m.Pull: self.holders.on_pull,
            m.Chunk: lambda s, msg, now: transfers.chunk(s.process_id, msg),
            m.ChunkAck: lambda s, msg, now: transfers.acknowledge(s.process_id, msg),
            m.PullFailed: lambda s, msg, now: transfers.failed(s.process_id, msg),
            # actors
            m.CreateActor: actors.on_create,
            m.KillActor: actors.on_kill,
            m.ActorExited: actors.on_exited,
            m.Calls: actors.on_calls,
            m.CancelCall: actors.on_calls,
            m.Replies: actors.on_replies,
            m.ActorWatch: directory.on_watch,
            m.FindActor: directory.on_find,
            m.ListActors: directory.on_list,
            # everything else
            m.Ping: self.queries.on_ping,
            m.Query: self.queries.on_query,
            m.Kv: lambda s, msg, now: self.catalog.operate(
                msg, partial(self.outbox.send, s.process_id)
            ),
            m.Log: PrintRelay(self.outbox, self.members, self.prints).on_log,
            m.Sync: lambda s, msg, now: self.outbox.send(s.process_id, m.Synced(0, msg.seq)),
        }

    # ---- composition -------------------------------------------------------------------------

    def _make_tables(
        self, identity: HeadIdentity, rows: dict[str, dict[bytes, bytes]], now: float
    ) -> None:
        """What is known, and what leaves: they use each other, and no machine."""
        self.outbox: Outbox[bytes] = Outbox()  # by process id
        self.routed: Outbox[bytes] = Outbox()  # by route
        self.journal = Journal()
        self.store = ControlStore(identity.epoch)
        self.notices = Notices()
        self.prints = Prints()
        self.offers = Offers()
        self.members = Members(rows, now)
        self.processes = Processes(self.members, self.outbox, self.recovering)
        self.catalog = Catalog(rows, self.journal.persist)
        self.scheduler = TaskScheduler()
        self.objects = ObjectTable()
        self.actor_table = ActorTable()
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
            told_all=self.definitions.confirmed,
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

    def _make_machines_of_tasks(self) -> None:
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
            actors=self.actor_table,
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
            actors=self.actor_table,
            catalog=self.catalog,
            scheduler=self.scheduler,
            tasks=self.tasks,
            assignment=lambda task_id, task: self.actors.assignment(task_id, task),
            fail=self.task_manager.fail,
            fault=self.task_manager.fault,
        )

    def _make_actors(self, rows: dict[bytes, bytes], now: float) -> None:
        directory = ActorDirectory(
            epoch=self.epoch,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=self.actor_table,
        )
        self.actors = Actors(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actor_table,
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

        self.resumption = Resumption(
            recovery=self.recovery,
            members=self.members,
            tasks=self.tasks,
            transfers=self.transfers,
            holders=self.holders,
            definitions=self.definitions,
            task_manager=self.task_manager,
            actors=self.actors,
        )
        self.garbage = GarbageCollector(
            outbox=self.outbox,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            results=self.results,
            transfers=self.transfers,
            holders=self.holders,
            lineage=self.lineage,
            actors=self.actors,
        )

    def _make_machines_of_members(self) -> None:
        self.departures = Departures(
            outbox=self.outbox,
            persist=self.journal.persist,
            notices=self.notices,
            prints=self.prints,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            holders=self.holders,
            definitions=self.definitions,
            lineage=self.lineage,
            task_manager=self.task_manager,
            actors=self.actors,
        )
        self.membership = Membership(
            outbox=self.outbox,
            persist=self.journal.persist,
            notices=self.notices,
            prints=self.prints,
            members=self.members,
            offers=self.offers,
            scheduler=self.scheduler,
            transfers=self.transfers,
            definitions=self.definitions,
            departures=self.departures,
        )
        self.reconciliation = Reconciliation(
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            scheduler=self.scheduler,
            recovery=self.recovery,
            transfers=self.transfers,
            holders=self.holders,
            definitions=self.definitions,
            task_manager=self.task_manager,
            actors=self.actors,
            worker_ended=self.departures.worker_ended,
        )

    def _make_door(self, identity: HeadIdentity) -> None:
        """What is between the peers and all others."""
        self.queries = StateQueries(
            identity=identity,
            store=self.store,
            notices=self.notices,
            incidents=self.incidents,
            counters=self.counters,
            outbox=self.outbox,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actor_table,
            scheduler=self.scheduler,
            recovery=self.recovery,
            transfers=self.transfers,
        )
        self.sessions = Sessions(
            identity=identity,
            store=self.store,
            notices=self.notices,
            outbox=self.outbox,
            routed=self.routed,
            members=self.members,
            admission=Admission(identity, self.members, self.store),
            membership=self.membership,
            departures=self.departures,
        )
        self.handlers = self._table()
        self.controller = TrafficController(
            epoch=self.epoch,
            handlers=self.handlers,
            routed=self.routed,
            members=self.members,
            sessions=self.sessions,
            prints=self.prints,
            incidents=self.incidents,
        )

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

    def recovering(self) -> bool:
        """Whether something of before the head's restart may still turn up."""
        return self.recovery.active

    def too_large(self, route: bytes, found: list[Unsent]) -> None:
        """Messages for this peer are too large to be sent: what they are of fails."""
        for message, text in found if route in self.sessions.by_route else ():
            if isinstance(message, m.Tasks):
                self.dispatch.too_large(message, text)
            elif isinstance(message, m.Result):
                self.results.too_large(message, text)
            self.notices.add(text)

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: decide everything, then hand messages over from process to route."""
        self._now = now
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            self.attempt("looking who is alive", "", partial(self.membership.check, now))
            self.attempt("ending dead sessions", "", self.sessions.drop_dead)
        if now >= self.membership.look_at:
            look = partial(self.membership.look_for_drivers, now)
            self.attempt("looking for drivers", "", look)
        for what, step in self._steps:
            try:
                step(now)
            except Exception as error:
                self.incidents.record(what, "", error, now)
        while self.actors.jobs_over:
            job_id = self.actors.jobs_over.pop()
            self.attempt("ending a job", f"job {job_id.hex()}", partial(self._end_job, job_id))
        self.sessions.hand_over()

    def _end_job(self, job_id: bytes) -> None:
        job = self.members.jobs.get(job_id)
        if job is not None:
            self.departures.job_ended(job)

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        soonest = min(self._next_check, self.membership.look_at, self.holders.deadline())
        soonest = min(soonest, self.acknowledgements.deadline(), self.actors.deadline())
        return min(soonest, self.scheduler.steal_deadline())
