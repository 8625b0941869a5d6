"""Who waits for what leases hold: which leases are to end, and which demands are out of turn.

Tasks that go by way of the head are placed fairly among jobs, and what jobs hold as leases is
shared among them (`lease_shares`): what each waits for is found here, and where that could be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.head.lease_reach import LeaseReach
from zray.core.head.lease_shares import Claim, LeaseShares
from zray.core.head.lease_table import Lease, LeaseDemand, LeaseTable
from zray.core.head.members import Members, NodeMember
from zray.core.head.processes import Processes
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.resources import CPU, Needs

SOME = 4  # nodes out of reach that are looked for at a time


class LeaseContention:
    """What ``look`` has found in this turn, once the scheduler has placed what it could.

    ``places``: the nodes where a demand may be met. ``contended``: several jobs want the same.
    """

    def __init__(
        self,
        table: LeaseTable,
        scheduler: TaskScheduler,
        members: Members,
        processes: Processes,
        places: Callable[[LeaseDemand], Iterable[NodeMember]],
        reach: LeaseReach,
    ) -> None:
        self._table = table
        self._scheduler = scheduler
        self._members = members
        self._processes = processes
        self._nodes_for = places
        self.shares = LeaseShares(table)
        self.contended = False
        self._waiting: dict[tuple[bytes, Needs], None] = {}  # job and class, at the head
        self._bounded: dict[tuple[bytes, Needs], None] = {}  # the same, for want of a worker
        self._reach = reach
        self._places: dict[tuple[Needs, str, bytes], tuple[bool, list[NodeMember]]] = {}

    def look(self, now: float) -> list[Lease]:
        """Which leases are to end because others wait for what they hold."""
        self._waiting.clear()
        self._bounded.clear()
        self._places.clear()
        due: dict[bytes, Lease] = {}
        for node in self._table.nodes():
            if node.free.get(CPU, 0) < 0:  # more runs there than should since a task goes on
                self._end_some(node, -node.free[CPU], due)
        claims: list[Claim] = []
        for group in self._scheduler.groups():
            if group.ready:
                self._look_at(group, due, claims)
            if group.ahead and self._table.leases:
                self._look_behind(group, claims)
        wanting = [demand for demand in self._table.active.values() if _wants(demand)]
        if claims or wanting:
            jobs = {claim.job_id for claim in claims}
            jobs.update(one.job_id for one in wanting)
            jobs.update(one.job_id for one in self._table.active.values() if one.leases)
            self.contended = len(jobs) > 1
        else:
            self.contended = False
        demanded = self.contended and bool(wanting)
        if demanded and now >= self.shares.again_at:
            claims += self._demanded(wanting, now)
        if claims or demanded:
            self.shares.divide(claims, now)
            due.update(self.shares.due)
        else:
            self.shares.rest(now)
        return list(due.values())

    def rest(self, now: float) -> None:
        """Nobody has or wants a lease."""
        if self.contended:
            self.contended = False
            self.shares.rest(now)

    def unspared(self) -> list[Lease]:
        """Leases whose workers have yet to hear that others could use them."""
        if not (self.contended and self.shares.denied and self._table.unspared):
            return []
        found = [lease for lease in self._table.unspared.values() if not lease.revoked]
        self._table.unspared.clear()
        return found

    # ---- what is wanted ----------------------------------------------------------------------

    def _look_at(
        self, group: SchedulingClass, due: dict[bytes, Lease], claims: list[Claim]
    ) -> None:
        """Ready tasks that no node could take: for want of a CPU, or of a worker."""
        if not any(self._waits_for(node, group) for node in self._scheduler.nodes.values()):
            return
        jobs = [job_id for job_id, queue in group.queues.items() if queue]
        self._waiting.update(((job_id, group.needs), None) for job_id in jobs)
        lacking_cpu: list[NodeView] = []
        for node in self._table.nodes():
            if not self._waits_for(node, group):
                continue
            bounded = [job_id for job_id in jobs if node.bounds((job_id,), group.takes_cpu)]
            if bounded:
                self._end_bounded(group, bounded, node, due)
            if len(bounded) < len(jobs):
                lacking_cpu.append(node)
        most = sum(resources.slots(node.total, group.needs) for node in lacking_cpu)
        for job_id in jobs:
            count = min(len(group.queues[job_id]), max(most, 1))
            claims.append(Claim(job_id, group.needs, count, lacking_cpu))

    @staticmethod
    def _waits_for(node: NodeView, group: SchedulingClass) -> bool:
        """Whether tasks could start there if it had more of what leases hold: workers, CPU."""
        there = node.usable and group.near in (b"", node.node_id)
        if not (there and resources.fits(node.total, group.needs)):
            return False
        lacking = {name for name, _ in resources.missing(node.free, group.needs)}
        bounded = node.bounds(group.queues, group.takes_cpu)
        return (bounded or bool(lacking)) and lacking <= {CPU}

    def _end_bounded(
        self, group: SchedulingClass, jobs: list[bytes], node: NodeView, due: dict[bytes, Lease]
    ) -> None:
        """It has as many workers as it may: leases end, so that one is for these."""
        found = dict.fromkeys((job_id, group.needs) for job_id in jobs)
        self._waiting.update(found)
        self._bounded.update(found)
        own = group.ready
        for lease in self._leases_at(node):
            if len(jobs) > 1 or lease.job_id not in jobs:
                due[lease.lease_id] = lease
            elif own > 0 and lease.lease_id not in due:  # not for another class
                due[lease.lease_id] = lease
                lease.own = True
                own -= 1

    def _leases_at(self, node: NodeView) -> list[Lease]:
        """First those that are to end already, then the last ones."""
        leases = [*self._table.of_node(node.node_id)]
        leases.reverse()
        leases.sort(key=lambda lease: not lease.revoked)
        return leases

    def _end_some(self, node: NodeView, left: int, due: dict[bytes, Lease]) -> None:
        """So much of a node's CPU is to be had of leases."""
        for lease in self._leases_at(node):
            if left > 0:
                due[lease.lease_id] = lease
                left -= lease.amount()

    def _look_behind(self, group: SchedulingClass, claims: list[Claim]) -> None:
        """Tasks that were sent ahead to a node whose CPUs are leased since."""
        for node in group.ahead_at:
            if node.usable and node.assigned and self._table.count_at(node.node_id):
                last = next(reversed(node.assigned.values()))
                claims.append(Claim(last.job_id, group.needs, 1, [node]))

    def _demanded(self, wanting: list[LeaseDemand], now: float) -> list[Claim]:
        """What submitters could use beyond the leases that they have."""
        claims = []
        for demand in wanting:
            if now >= demand.pause_until:
                nodes = [
                    node.view
                    for node in self._nodes_for(demand)
                    if self._scheduler.nodes.get(node.process_id) is node.view
                    and node.view.usable
                    and node.view.floor_for(demand.job_id, demand.takes_cpu) < 0
                    and resources.fits(node.view.total, demand.needs)
                ]
                most = sum(resources.slots(node.total, demand.needs) for node in nodes)
                if most:
                    count = min(demand.wanting(), most)
                    claims.append(Claim(demand.job_id, demand.needs, count, nodes, demand))
        return claims

    # ---- what it means for a demand ----------------------------------------------------------

    def bars(self, demand: LeaseDemand) -> bool:
        """Whether tasks of this demand are not to wait for leases now."""
        if not demand.takes_cpu or not self._is_place(demand):
            return True
        own = (demand.job_id, demand.needs) in self._bounded
        if len(self._bounded) > own:
            return True
        # Tasks of its own come before it all the same, unless its leases are in their way.
        if not any(lease.revoked and lease.own for lease in demand.leases.values()):
            return False
        return any(job_id == demand.job_id for job_id, _ in self._waiting)

    def is_served(self, demand: LeaseDemand) -> bool:
        """Whether there is a node on which its tasks can start, sooner or later."""
        nodes = self._scheduler.nodes.values()
        return any(node.usable and resources.fits(node.total, demand.needs) for node in nodes)

    def window(self, demand: LeaseDemand) -> int:
        """How many of its tasks are of use at the head: so many that no CPU waits for the next."""
        nodes = self._scheduler.nodes
        some = [*islice(nodes.values(), limits.NODES_COMPARED)]
        each = [resources.slots(node.total, demand.needs) for node in some if node.usable]
        slots = sum(each) * len(nodes) // max(len(some), 1)
        useful = max(limits.LEASE_WINDOW_TASKS, limits.LEASE_WINDOW_LANES * slots)
        return min(useful, limits.CLIENT_WINDOW_TASKS)

    def own_wait(self, demand: LeaseDemand) -> bool:
        """Whether tasks of its class and job wait that went by way of the head."""
        return (demand.job_id, demand.needs) in self._waiting

    def is_stuck(self, demand: LeaseDemand) -> bool:
        """Whether what waits at the submitter may be what others wait for, and cannot start.

        By way of the head it can at last: a bound on workers is lifted there.
        """
        if not demand.leases:
            return True
        return any(
            node.usable
            and node.floor_for(demand.job_id, demand.takes_cpu) >= 0
            and resources.fits(node.total, demand.needs)
            for node in self._scheduler.nodes.values()
        )

    def is_starved(self, demand: LeaseDemand) -> bool:
        """Whether other classes of its job have all the leases that this has."""
        if demand.wanting() <= 0 or demand.leases:
            return False
        return any(one.leases for one in self._table.of_job(demand.job_id))

    def _is_place(self, demand: LeaseDemand) -> bool:
        """Whether its tasks have a place where its submitter reaches workers, and only there."""
        submitter, machine = demand.submitter, self.machine_of(demand.submitter)
        key = (demand.needs, machine, submitter if self._reach.any(submitter) else b"")
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = self._find_place(demand, machine)
        here, elsewhere = found
        for node in elsewhere:
            self._reach.want(submitter, node)
        return here and not elsewhere

    def _find_place(self, demand: LeaseDemand, machine: str) -> tuple[bool, list[NodeMember]]:
        """Whether there is one, and some nodes out of reach on which one could start now."""
        submitter, needs, nodes = demand.submitter, demand.needs, self._members.nodes
        near = self._members.at(machine) if machine else ()
        here = any(  # or there will be again, if it has no session just now
            not node.ended and resources.fits(node.view.total, needs)
            for node in (*near, *self._reach.nodes(submitter))
        )
        elsewhere: list[NodeMember] = []
        for view in self._scheduler.with_room(needs):  # by way of the head it could start there
            node = nodes[view.node_id]
            at_hand = bool(machine) and node.info.machine == machine
            if not (at_hand or self._reach.reaches(submitter, view.node_id)):
                elsewhere.append(node)
                if len(elsewhere) == SOME:
                    break  # others come first next time
        return here, elsewhere

    @staticmethod
    def has_room(node: NodeView, demand: LeaseDemand) -> bool:
        """Whether one more lease, or task, of this class could start there now."""
        return (
            node.usable
            and resources.fits(node.free, demand.needs)
            and node.floor_for(demand.job_id, demand.takes_cpu) < 0
        )

    def machine_of(self, submitter: bytes) -> str:
        """On which machine a driver or worker runs; empty: nobody has said."""
        job = self._members.jobs.get(submitter)
        if job is not None:
            return job.info.machine
        node = self._members.nodes.get(self._processes.workers.get(submitter, b""))
        return node.info.machine if node is not None else ""


def _wants(demand: LeaseDemand) -> bool:
    """Whether it could use a lease that another has: not for a task that nothing may follow."""
    waits = demand.takes_cpu and not demand.expected
    return waits and bool(demand.open) and demand.wanting() > 0
