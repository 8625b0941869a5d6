"""Who joins, whose session begins or is lost, and who is looked for: nodes and drivers.

That somebody has joined is durable before anybody hears of it. What it means that one is dead is
`departures`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray import limits
from zray.core.head.definitions import Definitions
from zray.core.head.departures import Departures
from zray.core.head.events import Events
from zray.core.head.journal import Persist
from zray.core.head.leases import Leases
from zray.core.head.members import JobMember, Member, Members, NodeMember, NodeRow
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.transfers import Transfers
from zray.core.machine import NEVER, Outbox
from zray.core.offers import Offers
from zray.core.prints import Prints
from zray.protocol.messages import DriverEnded, FindDriver, Hello, Notice


class Membership:
    """``offers``: names that nodes offer, learned as these join.

    Attributes:
        driver_joined: told of each driver that is new.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        persist: Persist,
        events: Events,
        prints: Prints,
        members: Members,
        offers: Offers,
        scheduler: TaskScheduler,
        transfers: Transfers,
        definitions: Definitions,
        departures: Departures,
        leases: Leases,
    ) -> None:
        self._outbox = outbox
        self._persist = persist
        self._events = events
        self._prints = prints
        self._members = members
        self._offers = offers
        self._scheduler = scheduler
        self._transfers = transfers
        self._definitions = definitions
        self._departures = departures
        self._leases = leases
        self.driver_joined: Callable[[JobMember], None] = lambda job: None
        self._joining: dict[bytes, int] = {}  # node -> incarnation being made durable
        self.look_at = 0.0  # when nodes are asked next for drivers that are away

    # ---- joining ---------------------------------------------------------------------------

    def node_joins(self, hello: Hello, now: float, welcome: Callable[[float], None]) -> None:
        """A raylet said HELLO and is not fenced; ``welcome`` is called once that is durable."""
        members, info = self._members, hello.node
        assert info is not None
        node = members.nodes.get(hello.process_id)
        if node is not None and node.incarnation == hello.incarnation:
            welcome(now)
            return
        if node is not None:
            self._departures.node_died(node, "a new incarnation of the node has joined")
        known = members.node_rows.get(hello.process_id)
        drain = (known.draining, known.drain_reason, known.drain_s) if known is not None else ()
        row = NodeRow(hello.incarnation, True, info.name, info.resources, "", *drain)
        stored = known is not None and known.alive and known.incarnation == hello.incarnation

        def then(now: float) -> None:
            if self._joining.get(hello.process_id) == hello.incarnation:
                del self._joining[hello.process_id]
            if members.fenced(hello.process_id, hello.incarnation):
                return
            if known is not None and known.incarnation != hello.incarnation:
                members.gone(hello.process_id, known)  # the incarnation of before the restart
            joined = members.nodes.get(hello.process_id)
            if joined is None or joined.incarnation != hello.incarnation:
                joined = NodeMember(hello, info, now)
                members.add(joined)
                self._scheduler.add_node(joined.view)
                self._offers.learn(info.offers)
                self._events.node_joined(joined)
            welcome(now)

        if stored and self._joining.get(hello.process_id) != hello.incarnation:
            then(now)
        else:
            self._joining[hello.process_id] = hello.incarnation
            self._persist([members.row(hello.process_id, row)], then)

    def job_joins(self, hello: Hello, now: float, welcome: Callable[[float], None]) -> None:
        """A driver said HELLO."""
        info = hello.job
        assert info is not None
        if hello.process_id in self._members.jobs:
            welcome(now)
            return

        def then(now: float) -> None:
            job = JobMember(hello.process_id, info, now)
            if self._members.jobs.setdefault(hello.process_id, job) is job:
                self._events.job_joined(job)
                self.driver_joined(job)
            welcome(now)

        self._persist([("jobs", hello.process_id, msgspec.msgpack.encode(info))], then)

    # ---- sessions --------------------------------------------------------------------------

    def session_begins(self, member: Member, now: float) -> None:
        """The peer is welcome under a route of its own; nothing of an earlier session counts."""
        self._outbox.discard(member.process_id)
        self._prints.heard(member.process_id)
        self._definitions.session_begins(member)
        self._leases.session_begins(member)
        member.begin_session(now)
        self._transfers.retry()

    def session_lost(self, member: Member, now: float) -> None:
        """The link is cut. Nothing is decided by that: only that no new work is sent."""
        if not member.connected:
            return
        member.connected = False
        member.lost = now
        self._outbox.discard(member.process_id)
        self._transfers.session_lost(member.process_id)
        self._leases.session_lost(member)
        if isinstance(member, NodeMember):
            member.view.live = False
        else:
            self.look_at = now

    # ---- drivers that are away -------------------------------------------------------------

    def look_for_drivers(self, now: float) -> None:
        """Ask a node of each driver that is away, on its machine, whether the process has ended."""
        away = self._members.away()
        self.look_at = now + limits.FIND_DRIVER_S if away else NEVER
        if not away:
            return
        there: dict[str, NodeMember] = {}  # of each machine the node that was heard of last
        for node in sorted(self._members.nodes.values(), key=lambda node: node.heard):
            if node.announced and node.connected:
                there[node.info.machine] = node
        for job in away:
            if job.info.machine in there:
                question = FindDriver(0, job.process_id, job.info.pid)
                self._outbox.send(there[job.info.machine].process_id, question)

    def on_driver_ended(self, node: NodeMember, message: DriverEnded, now: float) -> None:
        """A node has seen that the driver's process is gone."""
        job = self._members.jobs.get(message.job_id)
        if job is not None and not job.connected and job.info.machine == node.info.machine:
            self._departures.job_ended(job, "its process ended without a word")

    # ---- time ------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Once a second: who is dead, and who should be warned."""
        members = self._members
        for member, why in members.check(now):
            if isinstance(member, NodeMember):
                self._departures.node_died(member, why)
            elif isinstance(member, JobMember):
                self._departures.job_lost(member, why)
            elif isinstance(member, bytes):
                self._departures.never_returned(member, why)
        proven, members.proven = members.proven, []
        for node in proven:
            if not node.ended:
                info, known = node.info, members.node_rows[node.process_id]
                told = (node.incarnation, True, info.name, info.resources, info.liveness)
                row = NodeRow(*told, known.draining, known.drain_reason, known.drain_s)
                self._persist([members.row(node.process_id, row)], lambda _now: None)
        for group, reason in self._scheduler.warnings(now):
            self._events.tasks_wait(reason)
            for job_id in group.queues:
                self._outbox.send(job_id, Notice(0, "ZR-3007", reason))
