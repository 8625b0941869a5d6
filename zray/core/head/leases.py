"""Leases: workers that serve one submitter, so that its tasks pass by the head.

Submitters demand, in absolute figures; raylets are granted what is free once all ready tasks have
their places. When others wait, leases are revoked, and the submitters' tasks come by way of the
head again, until nobody has waited for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from zray import limits
from zray.core import resources
from zray.core.head.acknowledgements import Acknowledgements
from zray.core.head.lease_contention import LeaseContention
from zray.core.head.lease_reach import LeaseReach
from zray.core.head.lease_table import Lease, LeaseDemand, LeaseTable
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.machine import NEVER, Outbox
from zray.errors import ProtocolError
from zray.ids import IdSource, split_tasks
from zray.protocol import messages as m

UNKNOWN = "the lease is not known any more"
ANY_NUMBER = 1 << 50  # of tasks that a worker may have begun, or of what its node has told


class Leases:
    """``tell_job``: a node may have to hear of a job before a lease for it. ``start_soon``: some
    of a job's tasks do, by way of the head; they come first.
    """

    def __init__(
        self,
        *,
        ids: IdSource,
        outbox: Outbox[bytes],
        counters: dict[str, int],
        members: Members,
        processes: Processes,
        scheduler: TaskScheduler,
        recovery: Recovery,
        table: LeaseTable,
        acknowledgements: Acknowledgements,
        tell_job: Callable[[NodeMember, bytes], None],
        start_soon: Callable[[bytes], bool],
    ) -> None:
        self._ids = ids
        self._outbox = outbox
        self._counters = counters
        self._members = members
        self._processes = processes
        self._scheduler = scheduler
        self._recovery = recovery
        self._table = table
        self._acknowledgements = acknowledgements
        self._tell_job = tell_job
        self._start_soon = start_soon
        self._reach = LeaseReach(outbox, members, processes, recovery)
        self._contention = LeaseContention(
            *(table, scheduler, members, processes), places=self._places, reach=self._reach
        )
        self._barred: dict[bytes, float] = {}  # submitters that could not reach a worker, until
        self._away: dict[bytes, None] = {}  # submitters without a session
        self._silent: dict[bytes, float] = {}  # leases of whose end a node has yet to tell
        self._due = NEVER

    # ---- submitters ------------------------------------------------------------------------

    def on_demand(self, sender: Member, message: m.Demand, now: float) -> None:
        """A submitter could use so many workers for a class."""
        job = self._members.jobs.get(message.job_id)
        if job is None:
            return  # it ended with its leases
        needs = resources.needs(message.resources)
        if not resources.is_cpu_only(needs) or any(amount < 0 for _, amount in needs):
            text = f"no worker can be leased that has {resources.in_words(needs)}"
            rejection = m.Rejected(0, message.seq, ProtocolError.code, text)
            self._outbox.send(sender.process_id, rejection)
            return
        self._processes.note_worker(sender, message.submitter)
        demand = self._table.demand(message.submitter, message.job_id, needs)
        demand.amounts = message.resources
        demand.count = 0 if demand.open is False else message.count
        demand.expected = message.expected
        if message.submitter == job.process_id:
            job.leased = message.unfinished
        more = message.finished - demand.finished
        if more > 0:
            demand.finished = message.finished
            job.finished += more
            self._counters["finished"] += more
        self._counters["retried"] += max(0, message.retried - demand.retried)
        demand.retried = max(demand.retried, message.retried)
        claimed = split_tasks(message.lease_ids)
        for lease_id in claimed:
            if lease_id not in self._table.leases:
                demand.claimed[lease_id] = None
        for lease_id, count in zip(claimed, message.served, strict=False):
            lease = demand.leases.get(lease_id)
            if lease is not None:
                lease.has_served(count)
        self._table.note(demand)

    def on_revoke(self, sender: Member, message: m.Revoke, now: float) -> None:
        """A submitter cannot reach the worker: it would hardly reach others there now."""
        lease = self._leased_to(sender, message.lease_id)
        if lease is not None:
            assert lease.demand is not None
            if lease.revoked:  # so its worker may have ended it before the submitter came
                lease.demand.open = None
                self._table.note(lease.demand)
                return
            self.revoke(lease)
            submitter, node_id = lease.demand.submitter, lease.node.node_id
            if self._reach.reaches(submitter, node_id):
                self._reach.bar(submitter, node_id, now + limits.LEASE_BAR_S)
            else:
                self._barred[submitter] = now + limits.LEASE_BAR_S

    def on_reaches(self, sender: Member, message: m.Reaches, now: float) -> None:
        """A submitter has connections to these nodes of other machines."""
        lost = self._reach.on_reaches(message)
        for demand in self._table.of_submitter(message.submitter):
            for lease in demand.leases.values():
                if lease.node.node_id in lost:
                    self.revoke(lease)

    def on_relay(self, sender: Member, message: m.Relay | m.RelayRefused, now: float) -> None:
        """A submitter and a node say to each other what they cannot say without the head."""
        self._reach.on_relay(sender.process_id, message)

    def on_cancel(self, sender: Member, message: m.CancelLeased, now: float) -> None:
        """A submitter wants a task stopped that a leased worker runs: its node does it."""
        lease = self._leased_to(sender, message.lease_id)
        if lease is not None and not lease.gone:
            lease.cancel(message)
            self._outbox.send(lease.node.node_id, message)

    def _leased_to(self, sender: Member, lease_id: bytes) -> Lease | None:
        lease = self._table.leases.get(lease_id)
        if lease is None or lease.demand is None:
            return None
        submitter = lease.demand.submitter
        by = self._processes.workers.get(submitter, submitter)
        return lease if by == sender.process_id else None

    def session_begins(self, member: Member) -> None:
        """A driver, or a node with its workers, states all demands anew."""
        for submitter in self._submitters_at(member):
            self._away.pop(submitter, None)
            self._barred.pop(submitter, None)
            self._reach.session_begins(submitter)
            for demand in self._table.of_submitter(submitter):
                demand.count = 0
                demand.open = demand.open or None
                demand.hold_until = None
                self._table.note(demand)

    def session_lost(self, member: Member) -> None:
        """Its leases go on; what it wants beyond those is not known."""
        for submitter in self._submitters_at(member):
            demands = self._table.of_submitter(submitter)
            if demands:
                self._away[submitter] = None
            for demand in demands:
                demand.count = 0
                self._table.note(demand)

    @staticmethod
    def _submitters_at(member: Member) -> tuple[bytes, ...]:
        workers = member.workers if isinstance(member, NodeMember) else ()
        return (member.process_id, *workers)

    def submitter_gone(self, submitter: bytes) -> None:
        """A driver or worker has ended: nobody gives tasks to its leases, so they end."""
        self._away.pop(submitter, None)
        self._barred.pop(submitter, None)
        self._reach.forget(submitter)
        for demand in self._table.of_submitter(submitter):
            self._table.forget(demand)

    def job_ended(self, job_id: bytes) -> None:
        """Its workers are stopped, those that are leased as well."""
        for demand in self._table.of_job(job_id):
            for lease in [*demand.leases.values()]:
                self._forget(lease)
            self.submitter_gone(demand.submitter)

    # ---- nodes -----------------------------------------------------------------------------

    def on_leased(self, node: NodeMember, message: m.Leased, now: float) -> None:
        """A worker waits for its submitter."""
        lease = self._table.leases.get(message.lease.lease_id)
        if lease is None or lease.node is not node.view:
            self._outbox.send(node.process_id, m.Revoke(0, message.lease.lease_id))
        elif not (lease.leased or lease.revoked or lease.demand is None):
            self._table.told(lease)
            lease.demand.count = max(0, lease.demand.count - 1)
            lease.demand.refusals = 0
            self._processes.send_to(lease.demand.submitter, message)

    def on_ended(self, node: NodeMember, message: m.LeaseEnded, now: float) -> None:
        """A lease is over, or the node did not take it."""
        lease = self._table.leases.get(message.lease_id)
        if lease is not None and lease.node is node.view:
            demand, refused = lease.demand, not (lease.leased or lease.revoked)
            lease.has_served(message.begun - bool(message.text))  # it died with the last
            self._end(lease, message.begun, message.text, message.told, message.status)
            if demand is not None and refused:
                self._refused(demand, now)
        elif lease is None:  # the head of before knew whose it was
            self._table.keep(replace(message, seq=0))
        if message.seq:
            self._acknowledgements.acknowledge(node, message.seq, now, durable=True)

    def _refused(self, demand: LeaseDemand, now: float) -> None:
        """A node knows better what can start there: at last it gets the tasks for a while."""
        demand.refusals += 1
        demand.pause_until = now + limits.LEASE_LATE_S
        if demand.refusals >= limits.LEASE_REFUSALS and demand.submitter not in self._away:
            demand.refusals = 0
            demand.calm_at = now + limits.LEASE_PAUSE_S
            if demand.open is not False:
                self._close(demand, now)
            self._table.note(demand)

    def _end(
        self, lease: Lease, begun: int, text: str, told: int = 0, status: int = m.CRASHED
    ) -> None:
        """The submitter is told, unless it has never heard of the lease."""
        demand, leased = lease.demand, lease.leased
        self._forget(lease)
        if demand is not None and leased:
            ended = m.LeaseEnded(0, lease.lease_id, begun, text, told, status)
            self._table.keep(ended)
            self._processes.send_to(demand.submitter, ended)

    def _forget(self, lease: Lease) -> None:
        self._silent.pop(lease.lease_id, None)
        self._table.remove(lease)

    def announced(self, node: NodeMember, leases: list[m.HeldLease], now: float) -> None:
        """All leases that a node has; it tells the ends of others that it had again."""
        there = {held.lease_id for held in leases}
        for lease in self._at(node):
            if lease.lease_id in there:
                for message in lease.cancels.values():
                    self._outbox.send(node.process_id, message)
                if lease.revoked:
                    self._outbox.send(node.process_id, m.Revoke(0, lease.lease_id))
            elif lease.leased:
                self._table.free(lease)
                self._silent[lease.lease_id] = now + limits.LEASE_PAUSE_S
            else:
                self._forget(lease)  # it was on its way when the link was cut
        for held in leases:
            if held.lease_id not in self._table.leases:
                self._adopt(node, held)

    def _at(self, node: NodeMember) -> list[Lease]:
        """The leases of this incarnation of a node."""
        there = self._table.of_node(node.process_id)
        return [lease for lease in there if lease.node is node.view]

    def _adopt(self, node: NodeMember, held: m.HeldLease) -> None:
        """A lease of before the head's restart goes on."""
        if held.job_id not in self._members.jobs:
            return  # the node hears that it has ended
        needs = resources.needs(held.resources)
        lease = Lease(
            *(held.lease_id, node.view, self._table.demand(held.submitter, held.job_id, needs))
        )
        self._table.add(lease)
        self._table.told(lease)

    def node_died(self, node: NodeMember, lost: str) -> None:
        """Nobody knows what its workers had begun. ``lost``: how it died."""
        silent = [self._table.leases[lease_id] for lease_id in self._silent]
        for lease in (*self._at(node), *(one for one in silent if one.node is node.view)):
            self._end(lease, ANY_NUMBER, f"(node {node.info.name})\n{lost}")

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Once the ready tasks have their places: leases are revoked, or granted."""
        self._due = NEVER
        if not self._table:
            self._contention.rest(now)
            self._scheduler.stranded = []
            return
        self._due = self._reach.look(now)
        if self._silent:
            self._end_silent(now)
        for lease in self._contention.look(now):
            self.revoke(lease)
        self._scheduler.stranded = self._contention.shares.stranded
        for lease in self._contention.unspared():
            self._outbox.send(lease.node.node_id, m.Revoke(0, lease.lease_id, True))
        if self._contention.shares.turns:
            self._due = min(self._due, now + limits.LEASE_TURN_S / 8)
        if now < self._contention.shares.again_at:
            self._due = min(self._due, self._contention.shares.again_at)
        for demand in [*self._table.active.values()]:
            if demand.claimed and not self._recovery.active:
                self._answer_claims(demand)
            if demand.submitter not in self._away:
                self._open_or_close(demand, now)
            if demand.open and demand.pause_until > now:
                self._due = min(self._due, demand.pause_until)
            self._table.note(demand)
        self._reach.tell()
        if self._contention.contended:
            for demand, node in self._contention.shares.grants:
                self._give_to(demand, [node], now)
            return
        wanting = [
            one
            for one in self._table.active.values()
            if one.open and one.wanting() > 0 and now >= one.pause_until
        ]
        if wanting:
            self._grant(wanting)

    def take_turns(self, now: float) -> None:
        """Before ready tasks get their places: those leases whose turn it is come first."""
        shares = self._contention.shares
        for demand in shares.first:
            views = [node.view for node in self._places(demand)]
            mine = [one for one in views if not shares.is_promised(one, demand.needs)]
            self._give_to(demand, mine, now)

    def deadline(self) -> float:
        """When ``step`` has something to do although nothing arrives."""
        return self._due

    def _end_silent(self, now: float) -> None:
        for lease_id, when in [*self._silent.items()]:
            if now >= when:
                self._end(self._table.leases[lease_id], ANY_NUMBER, UNKNOWN, ANY_NUMBER)
            else:
                self._due = min(self._due, when)

    def _answer_claims(self, demand: LeaseDemand) -> None:
        for lease_id in demand.claimed:
            if lease_id not in self._table.leases:
                unknown = m.LeaseEnded(0, lease_id, ANY_NUMBER, UNKNOWN, ANY_NUMBER)
                ended = self._table.words.get(lease_id, unknown)
                self._processes.send_to(demand.submitter, ended)
        demand.claimed.clear()

    def revoke(self, lease: Lease) -> None:
        """It is to end once its worker has nothing to do."""
        if not lease.revoked:
            lease.revoked = True
            self._outbox.send(lease.node.node_id, m.Revoke(0, lease.lease_id))

    # ---- open and closed ---------------------------------------------------------------------

    def _open_or_close(self, demand: LeaseDemand, now: float) -> None:
        """Whether the submitter's tasks may wait for leases; it is told of changes."""
        if self._is_barred(demand, now):
            # Nodes that come do not flutter as others' tasks do.
            demand.calm_at = NEVER if self._contention.is_served(demand) else now
            if demand.open is not False:
                self._close(demand, now)
        elif not demand.open:
            if demand.calm_at in (None, NEVER):
                demand.calm_at = now + limits.LEASE_PAUSE_S
            assert demand.calm_at is not None
            if now >= demand.calm_at:
                self._tell(demand, now_open=True)
            else:
                self._due = min(self._due, demand.calm_at)
        if demand.hold_until is not None:
            self._hold(demand, now)

    def _is_barred(self, demand: LeaseDemand, now: float) -> bool:
        contention = self._contention
        barred = self._barred.get(demand.submitter, 0.0)
        if barred > now:
            self._due = min(self._due, barred)
            return True
        if self._recovery.active or contention.bars(demand):
            return True
        starved = contention.is_starved(demand)
        behind = starved or contention.own_wait(demand) or contention.is_stuck(demand)
        if demand.wanting() <= 0 or not behind:
            demand.waits_since = None
            return False
        # Its tasks come after others, but not for as long as there are such.
        if demand.waits_since is None:
            demand.waits_since = now
        pause = limits.LEASE_PAUSE_S if starved else limits.STALL_S
        if contention.contended:  # its turn will come
            pause = limits.LEASE_STARVED_S
        when = demand.waits_since + pause
        if now < when:
            self._due = min(self._due, when)
        return now >= when

    def _close(self, demand: LeaseDemand, now: float) -> None:
        served = self._contention.is_served(demand)
        demand.hold_until = now + (limits.STALL_S if served else limits.LEASE_HOLD_S)
        self._tell(demand, now_open=False)

    def _hold(self, demand: LeaseDemand, now: float) -> None:
        """It may open soon: until then few of its tasks go by way of the head, else all."""
        assert demand.hold_until is not None
        if now >= demand.hold_until:
            demand.hold_until = None
            self._tell(demand, now_open=False)
        else:
            self._due = min(self._due, demand.hold_until)

    def _tell(self, demand: LeaseDemand, *, now_open: bool) -> None:
        demand.open = now_open
        window = 0
        if now_open:
            demand.hold_until = None
        else:
            demand.count = 0  # what waits there goes by way of the head
            if demand.hold_until is not None:
                window = self._contention.window(demand)
        told = m.Leasing(0, demand.submitter, demand.amounts, now_open, window)
        self._processes.send_to(demand.submitter, told)

    # ---- grants ----------------------------------------------------------------------------

    def _grant(self, wanting: list[LeaseDemand]) -> None:
        """One to each in turn, as long as there is room; who got one last comes last next time."""
        by_machine: dict[str, list[NodeMember]] = {}
        for node in self._members.nodes.values():
            if node.view.usable:
                by_machine.setdefault(node.info.machine, []).append(node)
        while wanting:
            again = []
            for demand in wanting:
                place = self._place(demand, by_machine)
                if place is not None:
                    self._give(demand, place)
                    if demand.wanting() > 0:
                        again.append(demand)
            wanting = again

    def _place(
        self, demand: LeaseDemand, by_machine: dict[str, list[NodeMember]]
    ) -> NodeMember | None:
        """The node that has most room: of the submitter's machine, else of those it reaches."""
        group = self._scheduler.classes.get(demand.needs)
        if group is not None and group.ahead:
            return None  # what was sent ahead of it comes first
        if self._start_soon(demand.job_id):
            return None
        near = by_machine.get(self._contention.machine_of(demand.submitter), ())
        for nodes in (near, self._reach.nodes(demand.submitter)):
            free = [node for node in nodes if self._contention.has_room(node.view, demand)]
            if free:
                return max(free, key=lambda node: resources.slots(node.view.free, demand.needs))
        return None

    def _places(self, demand: LeaseDemand) -> Iterable[NodeMember]:
        """Where a demand may be met."""
        machine = self._contention.machine_of(demand.submitter)
        near = self._members.at(machine) if machine else ()
        far = self._reach.nodes(demand.submitter)
        return (*near, *far) if far else near

    def _give_to(self, demand: LeaseDemand, nodes: list[NodeView], now: float) -> None:
        """A lease on one of these nodes, if that can be now."""
        if not demand.open or demand.wanting() <= 0 or now < demand.pause_until:
            return
        if demand.submitter in self._away or self._start_soon(demand.job_id):
            return
        for view in nodes:
            if self._contention.has_room(view, demand):
                self._give(demand, self._members.nodes[view.node_id])
                return

    def _give(self, demand: LeaseDemand, node: NodeMember) -> None:
        self._tell_job(node, demand.job_id)
        lease = Lease(self._ids.lease_id(), node.view, demand)
        self._table.add(lease)
        self._table.active[demand.key] = self._table.active.pop(demand.key)
        granted = m.Grant(*(0, lease.lease_id, demand.job_id, demand.submitter, demand.amounts))
        self._outbox.send(node.process_id, granted)
