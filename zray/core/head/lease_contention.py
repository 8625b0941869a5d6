"""Who waits for what leases hold: which leases are to end, and which demands are out of turn.

Tasks that go by way of the head are placed fairly among jobs. Leases are for when nobody else
waits: else a submitter with leases would keep what it has for as long as it has tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from zray.core import resources
from zray.core.head.lease_table import Lease, LeaseDemand, LeaseTable
from zray.core.head.members import Members
from zray.core.head.processes import Processes
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.resources import CPU, Needs

ANY_JOB = b""  # of tasks that were sent ahead it is not known whose they are


class LeaseContention:
    """What ``look`` has found in this turn, once the scheduler has placed what it could."""

    def __init__(
        self, table: LeaseTable, scheduler: TaskScheduler, members: Members, processes: Processes
    ) -> None:
        self._table = table
        self._scheduler = scheduler
        self._members = members
        self._processes = processes
        self._waiting: dict[tuple[bytes, Needs], None] = {}  # job and class
        self._places: dict[tuple[Needs, str], bool] = {}

    def look(self) -> list[Lease]:
        """Which leases are to end because others wait for what they hold."""
        self._waiting.clear()
        self._places.clear()
        due: dict[bytes, Lease] = {}
        for node in self._table.nodes():
            if node.free.get(CPU, 0) < 0:  # more runs there than should since a task goes on
                self._end_some(node, -node.free[CPU], due)
        for group in self._scheduler.groups():
            if group.ready:
                self._look_at(group, due)
            if group.ahead and self._table.leases:
                self._look_behind(group, due)
        return list(due.values())

    def _look_at(self, group: SchedulingClass, due: dict[bytes, Lease]) -> None:
        """Ready tasks that no node could take: for want of a CPU, or of a worker."""
        jobs = [job_id for job_id, queue in group.queues.items() if queue]
        one = max(dict(group.needs).get(CPU, 0), 1)
        own = group.ready * one
        for node in self._usable(group):
            bounded = node.floor_for(group.takes_cpu) >= 0
            lacking = {name for name, _ in resources.missing(node.free, group.needs)}
            if not (bounded or lacking) or lacking - {CPU}:
                continue  # not for what leases hold
            self._waiting.update(((job_id, group.needs), None) for job_id in jobs)
            leases = self._leases_at(node)
            if not (bounded or self._helps(node, leases, group.needs)):
                continue
            for lease in leases:
                if len(jobs) > 1 or lease.job_id not in jobs:
                    due[lease.lease_id] = lease
                elif own > 0 and lease.lease_id not in due:  # not for another class
                    due[lease.lease_id] = lease
                    own -= one if bounded else lease.amount()

    def _leases_at(self, node: NodeView) -> list[Lease]:
        """First those that are to end already, then the last ones."""
        leases = [*self._table.of_node(node.node_id)]
        leases.reverse()
        leases.sort(key=lambda lease: not lease.revoked)
        return leases

    @staticmethod
    def _helps(node: NodeView, leases: list[Lease], needs: Needs) -> bool:
        """Whether one more task fits once these have ended."""
        wanted = dict(needs).get(CPU, 0)
        return node.free.get(CPU, 0) + sum(lease.amount() for lease in leases) >= wanted

    def _look_behind(self, group: SchedulingClass, due: dict[bytes, Lease]) -> None:
        """Tasks that were sent ahead to a node whose CPUs are leased since."""
        for node in self._usable(group):
            count = node.ahead.get(group.needs, 0)
            if count and self._end_some(node, count * dict(group.needs).get(CPU, 0), due):
                self._waiting[ANY_JOB, group.needs] = None

    def _end_some(self, node: NodeView, left: int, due: dict[bytes, Lease]) -> bool:
        """So much of a node's CPU is to be had of leases; whether there are any."""
        leases = self._leases_at(node)
        for lease in leases:
            if left > 0:
                due[lease.lease_id] = lease
                left -= lease.amount()
        return bool(leases)

    def _usable(self, group: SchedulingClass) -> Iterator[NodeView]:
        for node in self._scheduler.nodes.values():
            there = node.usable and group.near in (b"", node.node_id)
            if there and resources.fits(node.total, group.needs):
                yield node

    # ---- what it means for a demand ----------------------------------------------------------

    def bars(self, demand: LeaseDemand) -> bool:
        """Whether tasks of this demand are not to wait for leases now."""
        if not demand.takes_cpu or not self._is_place(demand):
            return True
        waiting = self._waiting
        if len(waiting) > self.own_wait(demand):
            return True
        # Tasks of its own come before it all the same, unless its leases are in their way.
        return bool(waiting) and any(lease.revoked for lease in demand.leases.values())

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
            and node.floor_for(demand.takes_cpu) >= 0
            and resources.fits(node.total, demand.needs)
            for node in self._scheduler.nodes.values()
        )

    def is_starved(self, demand: LeaseDemand) -> bool:
        """Whether others have so many leases that this one should have some of those."""
        leases = self._table.leases
        if demand.wanting() <= 0 or len(leases) == len(demand.leases):
            return False
        if not demand.leases:
            return True
        held: dict[bytes, int] = {}
        for lease in leases.values():
            held[lease.job_id] = held.get(lease.job_id, 0) + lease.amount()
        fair = held.get(demand.job_id, 0) + 2 * dict(demand.needs)[CPU]
        return max(held.values()) >= fair

    def _is_place(self, demand: LeaseDemand) -> bool:
        """Whether its tasks have their place on the submitter's machine, and there alone."""
        machine = self.machine_of(demand.submitter)
        found = self._places.get((demand.needs, machine))
        if found is None:
            found = self._places[demand.needs, machine] = self._find_place(demand, machine)
        return found

    def _find_place(self, demand: LeaseDemand, machine: str) -> bool:
        here = False
        for node in self._members.nodes.values():
            view = node.view
            if node.ended or not resources.fits(view.total, demand.needs):
                continue
            if machine and node.info.machine == machine:
                here = True  # or will be again, if it has no session just now
            elif self.has_room(view, demand) and view.credit() > 0:
                return False  # by way of the head it could start there
        return here

    @staticmethod
    def has_room(node: NodeView, demand: LeaseDemand) -> bool:
        """Whether one more lease, or task, of this class could start there now."""
        return (
            node.usable
            and resources.fits(node.free, demand.needs)
            and node.floor_for(demand.takes_cpu) < 0
        )

    def machine_of(self, submitter: bytes) -> str:
        """On which machine a driver or worker runs; empty: nobody has said."""
        job = self._members.jobs.get(submitter)
        if job is not None:
            return job.info.machine
        node = self._members.nodes.get(self._processes.workers.get(submitter, b""))
        return node.info.machine if node is not None else ""
