"""The GCS actor: owns the cluster's state and changes it only by messages from its mailbox.

This module is the table of messages, which says what goes to which machine, and the composition:
which machines there are, and what each is made with. What a turn consists of is `turn`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_reconciliation import ActorReconciliation
from zray.core.head.actor_records import TABLE as ACTORS
from zray.core.head.actors import Actors
from zray.core.head.admission import Admission
from zray.core.head.definitions import Definitions
from zray.core.head.departures import Departures
from zray.core.head.dispatch import Dispatch
from zray.core.head.drains import Drains
from zray.core.head.garbage_collector import GarbageCollector
from zray.core.head.holders import Holders
from zray.core.head.identity import HeadIdentity
from zray.core.head.incarnations import Incarnations
from zray.core.head.inspection import Inspection
from zray.core.head.jobs import Jobs
from zray.core.head.leases import Leases
from zray.core.head.lineage import Lineage
from zray.core.head.listings import Listings
from zray.core.head.membership import Membership
from zray.core.head.placement_groups import PlacementGroups
from zray.core.head.print_relay import PrintRelay
from zray.core.head.questions import Questions
from zray.core.head.reconciliation import Reconciliation
from zray.core.head.results import Results
from zray.core.head.resumption import Resumption
from zray.core.head.sessions import Sessions
from zray.core.head.state_queries import StateQueries
from zray.core.head.state_rows import StateRows
from zray.core.head.tables import Tables
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_table import TaskTable
from zray.core.head.tasks import TaskManager
from zray.core.head.traffic_controller import Handler, TrafficController
from zray.core.head.transfers import Transfers
from zray.core.head.turn import Turn
from zray.core.incidents import Incidents
from zray.ids import IdSource
from zray.protocol import messages as m
from zray.protocol.codec import Unsent

if TYPE_CHECKING:  # loaded when somebody asks
    from zray.core.head.causes import HeadCauses


class Gcs(Tables):
    """``rows``: of the store, by table. ``incidents``: where faults are recorded.

    The shell hands payloads to ``controller`` and connections that are cut to ``sessions``. Then it
    has a ``turn``, stores what is in the ``journal``, and sends what is ``routed``.
    """

    turn: Turn

    def __init__(
        self,
        identity: HeadIdentity,
        rows: dict[str, dict[bytes, bytes]],
        now: float,
        incidents: Incidents | None = None,
    ) -> None:
        super().__init__(identity, rows, now)
        self.incidents = incidents or Incidents()
        self._make_machines_of_objects()
        self._make_ends_of_tasks()
        self._make_machines_of_tasks()
        self._make_leases(identity)
        self.placement_groups = PlacementGroups(self, rows, self.task_manager.end_in_group)
        self._make_actors(rows.get(ACTORS, {}), now)
        self._make_machines_of_members(now)
        self._make_door(identity)
        self._make_turn(now)

    # ---- messages --------------------------------------------------------------------------

    def _table(self) -> dict[type[m.Message], Handler]:
        """Which message goes to which machine. Who may say it is in `roles`."""
        return {
            # sessions
            **self.sessions.handlers,
            # nodes and drivers
            **self.reconciliation.handlers,
            m.Near: self.near_tasks.on_near,
            m.WorkerDied: self.departures.on_worker_died,
            m.DriverEnded: self.membership.on_driver_ended,
            **self.processes.handlers,
            # functions and tasks
            **self.definitions.handlers,
            **self.task_manager.handlers,
            m.ResultAck: self.results.on_ack,
            # leases
            m.Demand: self.leases.on_demand,
            m.Leased: self.leases.on_leased,
            m.LeaseEnded: self.leases.on_ended,
            m.Revoke: self.leases.on_revoke,
            m.CancelLeased: self.leases.on_cancel,
            m.Reaches: self.leases.on_reaches,
            **dict.fromkeys((m.Relay, m.RelayRefused), self.leases.on_relay),
            m.Made: self.lineage.on_made,
            # objects
            **self.holders.handlers,
            **self.transfers.handlers,
            # actors
            **self.actors.handlers,
            **self.actor_directory.handlers,
            **self.jobs.handlers,
            # everything else
            **self.placement_groups.handlers,
            **self.queries.handlers,
            **self.questions.handlers,
            m.Kv: self.catalog.on_kv,
            **self.print_relay.handlers,
            **self.listings.handlers,
            **self.inspection.handlers,
            m.Drain: self.drains.on_drain,
        }

    # ---- composition -------------------------------------------------------------------------

    def _make_machines_of_objects(self) -> None:
        """Whatever a machine needs of a later one is a callback."""
        self.actor_directory = ActorDirectory(
            epoch=self.epoch,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=self.actor_table,
        )
        self.results = Results(self.outbox, self.objects, self.members, self.processes.workers)
        self.transfers = Transfers(
            *(self.outbox, self.objects, self.members, self.recovery),
            lambda oid: self.lineage.rebuild(oid, self.turn.now),
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
            rebuild=lambda oid: self.lineage.rebuild(oid, self.turn.now),
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
            retry=self.transfers.retry,
        )

    def _make_ends_of_tasks(self) -> None:
        self.acknowledgements = Acknowledgements(self.outbox, self.journal.persist)
        self.incarnations = Incarnations(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actor_table,
            scheduler=self.scheduler,
            definitions=self.definitions,
            directory=self.actor_directory,
            events=self.events,
            placement=self.placement,
            begin=lambda task, spec, now: self.task_manager.begin(task, spec, now),
        )
        self.task_outcomes = TaskOutcomes(
            outbox=self.outbox,
            incidents=self.incidents,
            events=self.events,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actor_table,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            holders=self.holders,
            lineage=self.lineage,
            incarnations=self.incarnations,
        )

    def _make_machines_of_tasks(self) -> None:
        self.task_manager = TaskManager(
            outbox=self.outbox,
            journal=self.journal,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actor_table,
            offers=self.offers,
            scheduler=self.scheduler,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            lineage=self.lineage,
            acknowledgements=self.acknowledgements,
            incarnations=self.incarnations,
            outcomes=self.task_outcomes,
            near_tasks=self.near_tasks,
            placement=self.placement,
            events=self.events,
        )
        self.dispatch = Dispatch(
            outbox=self.outbox,
            members=self.members,
            objects=self.objects,
            actors=self.actor_table,
            catalog=self.catalog,
            scheduler=self.scheduler,
            tasks=self.tasks,
            assignment=self.incarnations.assignment,
            fail=self.task_outcomes.fail,
            fault=self.task_outcomes.fault,
        )

    def _make_leases(self, identity: HeadIdentity) -> None:
        self.leases = Leases(
            ids=IdSource(identity.of_term()),
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            scheduler=self.scheduler,
            recovery=self.recovery,
            table=self.lease_table,
            acknowledgements=self.acknowledgements,
            tell_job=self.dispatch.tell_job,
            start_soon=self.definitions.start_soon,
        )

    def _make_actors(self, rows: dict[bytes, bytes], now: float) -> None:
        self.actors = Actors(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actor_table,
            recovery=self.recovery,
            holders=self.holders,
            definitions=self.definitions,
            directory=self.actor_directory,
            acknowledgements=self.acknowledgements,
            incarnations=self.incarnations,
            rows=rows,
            now=now,
        )
        self.actor_reconciliation = ActorReconciliation(
            *(self.outbox, self.processes, self.tasks, self.actor_table),
            *(self.actor_directory, self.incarnations),
        )
        self.resumption = Resumption(
            *(self.recovery, self.members, self.tasks, self.transfers, self.holders),
            *(self.definitions, self.task_manager, self.actor_reconciliation),
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
            actor_table=self.actor_table,
        )

    def _make_machines_of_members(self, now: float) -> None:
        self.departures = Departures(
            outbox=self.outbox,
            persist=self.journal.persist,
            events=self.events,
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
            task_outcomes=self.task_outcomes,
            actors=self.actors,
            incarnations=self.incarnations,
            actor_table=self.actor_table,
            leases=self.leases,
            placement_groups=self.placement_groups,
        )
        self.drains = Drains(self, self.leases.revoke)
        self.membership = Membership(
            *(self.outbox, self.journal.persist, self.events, self.prints, self.members),
            *(self.offers, self.scheduler, self.transfers, self.definitions, self.departures),
            self.leases,
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
            task_outcomes=self.task_outcomes,
            actors=self.actor_reconciliation,
            leases=self.leases,
            placement_groups=self.placement_groups,
            worker_ended=self.departures.worker_ended,
        )
        self.jobs = Jobs(
            *(self, self.definitions, self.actors, self.incarnations),
            *(self.membership, self.departures, now),
        )

    def _make_turn(self, now: float) -> None:
        self.turn = Turn(
            journal=self.journal,
            incidents=self.incidents,
            sessions=self.sessions,
            membership=self.membership,
            drains=self.drains,
            departures=self.departures,
            resumption=self.resumption,
            holders=self.holders,
            incarnations=self.incarnations,
            directory=self.actor_directory,
            scheduler=self.scheduler,
            dispatch=self.dispatch,
            leases=self.leases,
            placement_groups=self.placement_groups,
            near_tasks=self.near_tasks,
            results=self.results,
            garbage=self.garbage,
            definitions=self.definitions,
            acknowledgements=self.acknowledgements,
            listings=self.listings,
            questions=self.questions,
            jobs=self.jobs,
            now=now,
        )

    def _make_door(self, identity: HeadIdentity) -> None:
        """What is between the peers and all others, and who is asked about these."""
        self.questions = Questions(*(self.outbox, self.members, lambda: self.causes, self.events))
        self.queries = StateQueries(
            *(identity, self.store, self.notices, self.incidents, self.counters, self.outbox),
            *(self.members, self.objects, self.actor_table, self.lease_table, self.scheduler),
            *(self.recovery, self.transfers, self.events, self.succession, self.placement),
            lambda oid, now: self.causes.why(oid, now),
        )
        rows = StateRows(self, self.tasks)
        self.jobs.why_pending = rows.why_pending
        self.listings = Listings(self, self.tasks, rows)
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
            succession=self.succession,
        )
        self.inspection = Inspection(
            *(identity, self, self.tasks, self.actor_directory.dead, self.incarnations),
            *(self.task_manager.cancel, self.sessions.routes.__contains__),
        )
        self.print_relay = PrintRelay(self.outbox, self.members, self.prints)
        self.controller = TrafficController(
            epoch=self.epoch,
            handlers=self._table(),
            routed=self.routed,
            members=self.members,
            sessions=self.sessions,
            prints=self.prints,
            incidents=self.incidents,
        )

    @cached_property
    def causes(self) -> HeadCauses:
        """What the head knows of why something is as it is; made when somebody asks."""
        from zray.core.head.causes import HeadCauses

        machines = (self.actor_directory, self.holders, self.placement_groups)
        return HeadCauses(self, self.tasks, *machines)

    # ---- what concerns several machines --------------------------------------------------------

    def too_large(self, route: bytes, found: list[Unsent]) -> None:
        """Messages for this peer are too large to be sent: what they are of fails."""
        for message, text in found if route in self.sessions.by_route else ():
            if isinstance(message, m.Tasks):
                self.dispatch.too_large(message, text)
            elif isinstance(message, m.Result):
                self.results.too_large(message, text)
            self.notices.add(text)
