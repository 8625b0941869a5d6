"""How jobs share the CPUs that leases hold: who has, or has had, how much, and whose turn it is.

A job gives what it holds to one that would still not have more than it. So where CPUs go round,
each ends with an equal share, and keeps it. What does not divide evenly goes from job to job in
turns: to whom has had less, once the difference is worth the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from zray import limits
from zray.core.head.lease_table import Lease, LeaseDemand, LeaseTable
from zray.core.head.task_records import NodeView
from zray.core.resources import CPU, Needs

LOOKED_AT_MAX = 256  # tasks of a node, to see whose they are that run there
FEW = 64  # nodes, leases and tasks, which it costs nothing to look at again
LAG_MAX = limits.RESOURCE_UNIT  # CPU time that nobody is ahead by more: a second of one


class Claim:
    """What a job could use now and does not have: for ready tasks, or (``demand``) as leases.

    ``unit``: CPU of one; ``nodes``: where that could be.
    """

    __slots__ = ("count", "demand", "job_id", "nodes", "unit")

    def __init__(
        self,
        job_id: bytes,
        needs: Needs,
        count: int,
        nodes: list[NodeView],
        demand: LeaseDemand | None = None,
    ) -> None:
        self.job_id = job_id
        self.unit = dict(needs).get(CPU, 0)
        self.count = count
        self.nodes = nodes
        self.demand = demand


class LeaseShares:
    """What ``divide`` has found.

    Attributes:
        due: leases that are to end, and for whom.
        grants: what is free for whom, of those who want leases.
        first: demands that come before the ready tasks of all others, as soon as there is room.
        stranded: nodes of which leases have all, and keep it.
        turns: somebody waits for a turn: it is to be looked at again soon.
        denied: somebody does not get what is wanted, not even soon.
        again_at: when the next answer is due.
    """

    def __init__(self, table: LeaseTable) -> None:
        self._table = table
        self._used: dict[bytes, float] = {}  # by job, while several want the same
        self._held: dict[bytes, int] = {}  # as it was found last
        self._looked = self.again_at = 0.0
        self._using: dict[bytes, int] = {}  # the same, of workers that were there by then
        self._present: dict[bytes, None] = {}  # those that had or wanted something then
        self._seen: dict[bytes, float] = {}  # when a job last had or wanted something
        self._reserved: list[NodeView] = []
        self._room: dict[bytes, int] = {}  # by node; what is to end counts as free
        self._running: dict[bytes, dict[bytes, int]] = {}  # CPU of others' tasks, by node and job
        self._promised: dict[bytes, int] = {}  # by node, of what is free or will be soon
        self._clear()

    def _clear(self) -> None:
        while self._reserved:
            node = self._reserved.pop()
            node.reserved = False
            node.changed()
        self.due: dict[bytes, Lease] = {}
        self.grants: list[tuple[LeaseDemand, NodeView]] = []
        self.first: list[LeaseDemand] = []
        self.stranded: list[NodeView] = []
        self._promised.clear()
        self.turns = self.denied = False

    def rest(self, now: float) -> None:
        """Nobody wants what another has."""
        self._clear()
        self._using.clear()
        self._present.clear()
        if self._used and now - self._looked > limits.LEASE_MEMORY_S:
            self._used.clear()
            self._seen.clear()

    def divide(self, claims: list[Claim], now: float) -> None:
        """Who gets what, of what is free, will be, or can be taken from others.

        Where there is much to look at, that is not asked in each turn.
        """
        if now < self.again_at:
            self.due = {}
            self.grants = []
            return
        self._clear()
        using = self._using
        nodes = dict.fromkeys(self._table.nodes())  # only what jobs have there is compared
        for claim in claims:
            nodes.update(dict.fromkeys(claim.nodes))
        looked_at = self._look(nodes, now)
        self.again_at = now + looked_at * limits.LEASE_LOOK_EACH_S if looked_at > FEW else now
        waiting: dict[bytes, list[Claim]] = {}
        for claim in claims:
            waiting.setdefault(claim.job_id, []).append(claim)
        self._account(waiting, using, now)
        held, used = self._held, self._used
        while waiting:
            job_id = min(waiting, key=lambda job: (held.get(job, 0), used[job]))
            theirs = waiting[job_id]
            claim = theirs[0]
            claim.count -= 1
            if not self._met(claim) or claim.count <= 0:
                del theirs[0]
                if not theirs:
                    del waiting[job_id]
        self._strand(min((claim.unit for claim in claims if claim.unit), default=0))

    def _strand(self, unit: int) -> None:
        """Where leases have all, and keep it, no task sent ahead would ever start."""
        giving = {lease.node.node_id for lease in self.due.values()}
        for node in self._table.nodes():
            if self._running.get(node.node_id) or node.node_id in giving:
                continue
            revoked = any(lease.revoked for lease in self._table.of_node(node.node_id))
            if not revoked and node.free.get(CPU, 0) < unit:
                self._reserved.append(node)
                node.reserved = True
                self.stranded.append(node)

    # ---- who has what ----------------------------------------------------------------------

    def _look(self, nodes: Iterable[NodeView], now: float) -> int:
        """Returns how much there was to look at."""
        looked_at = 0
        self._room.clear()
        self._running.clear()
        self._held, self._using = {}, {}
        for node in nodes:
            leased = pending = 0
            looked_at += 1
            for lease in self._table.of_node(node.node_id):
                amount = lease.amount()
                leased += amount
                looked_at += 1
                if lease.leased:
                    self._uses(lease.job_id, amount)
                if lease.revoked:
                    lease.late_at = min(lease.late_at, now + limits.LEASE_PAUSE_S)
                if lease.revoked and now < lease.late_at:
                    pending += amount
                    self.turns = True
                else:
                    self._has(lease.job_id, amount)
            self._room[node.node_id] = node.free.get(CPU, 0) + pending
            theirs: dict[bytes, int] = {}
            for job_id, amount in _running(node, leased):
                looked_at += 1
                theirs[job_id] = theirs.get(job_id, 0) + amount
                self._has(job_id, amount)
                self._uses(job_id, amount)
            self._running[node.node_id] = theirs
        return looked_at

    def _has(self, job_id: bytes, amount: int) -> None:
        self._held[job_id] = self._held.get(job_id, 0) + amount

    def _uses(self, job_id: bytes, amount: int) -> None:
        self._using[job_id] = self._using.get(job_id, 0) + amount

    def _account(self, waiting: Iterable[bytes], using: dict[bytes, int], now: float) -> None:
        """What they had since is what they have used, whatever came of it."""
        used, span = self._used, now - self._looked
        present, self._present = self._present, {}
        for job_id, amount in using.items():
            if job_id in used:
                used[job_id] += amount * span
        most = max(used.values(), default=0.0)
        # One whose task goes on and on has ever more, and gives nothing: others are compared with
        # who has least.
        least = min((used.get(job, most) for job, held in self._held.items() if held), default=most)
        for job_id in {**self._held, **dict.fromkeys(waiting)}:
            if job_id in present or self._held.get(job_id):
                used[job_id] = used.get(job_id, most)
            else:  # it was away, while others had its part: its turn comes soon, or at once
                away = limits.RESOURCE_UNIT * (now - self._seen.get(job_id, 0.0))
                used[job_id] = max(used.get(job_id, least) - away, least - _difference())
            self._seen.pop(job_id, None)
            self._seen[job_id] = now  # who was seen longest ago comes first
            self._held.setdefault(job_id, 0)
            self._present[job_id] = None
        bound = min((used[job] for job in self._present), default=0.0) + LAG_MAX
        for job_id in self._present:
            used[job_id] = min(used[job_id], bound)
        self._looked = now
        while self._seen:
            job_id, when = next(iter(self._seen.items()))
            if now - when <= limits.LEASE_MEMORY_S:
                break
            del self._seen[job_id]
            self._used.pop(job_id, None)

    # ---- who gives what --------------------------------------------------------------------

    def _met(self, claim: Claim) -> bool:
        """Whether one more is free, or will be."""
        room, unit = self._room, claim.unit
        for node in sorted(claim.nodes, key=lambda node: -room[node.node_id]):
            if room[node.node_id] < unit:
                break
            room[node.node_id] -= unit
            self._held[claim.job_id] += unit
            if claim.demand is not None and node.free.get(CPU, 0) - self._granted(node) >= unit:
                self.grants.append((claim.demand, node))
            else:
                self._promise(claim, node)
            return True
        givers = {job for job in self._held if self._gives(job, claim, 0)}
        if givers and any(self._take(claim, node, givers) for node in claim.nodes):
            return True
        if claim.demand is not None:
            self._await(claim, {job for job in givers if self._gives(job, claim, unit)})
        else:
            self._give_up_own(claim)
        self.denied = True
        return False

    def _promise(self, claim: Claim, node: NodeView) -> None:
        promised = self._promised
        promised[node.node_id] = promised.get(node.node_id, 0) + claim.unit

    def is_promised(self, node: NodeView, needs: Needs) -> bool:
        """Whether what is free there is not for one of those who are ``first``."""
        promised = self._promised.get(node.node_id, 0)
        return bool(promised) and node.free.get(CPU, 0) - promised < dict(needs).get(CPU, 0)

    def _granted(self, node: NodeView) -> int:
        return sum(dict(demand.needs).get(CPU, 0) for demand, there in self.grants if there is node)

    def _gives(self, giver: bytes, claim: Claim, amount: int) -> bool:
        """Whether a job gives up so much: it keeps as much as the other gets, or has had more."""
        if giver == claim.job_id:
            return claim.demand is None  # its tasks come before its leases
        held, other = self._held[giver], self._held[claim.job_id]
        if held - amount >= other + claim.unit:
            return True
        if held <= other:
            return False
        self.turns = True
        return self._used[giver] - self._used[claim.job_id] >= _difference()

    def _take(self, claim: Claim, node: NodeView, givers: set[bytes]) -> bool:
        """Whether leases that are to end make room there."""
        missing = claim.unit - self._room[node.node_id]
        leases = [
            lease
            for lease in self._table.of_node(node.node_id)
            if lease.job_id in givers and not lease.revoked and lease.lease_id not in self.due
        ]
        leases.reverse()  # the last ones first, of who has most
        held, used = dict(self._held), self._used
        own = claim.job_id
        leases.sort(key=lambda one: (one.job_id == own, -held[one.job_id], -used[one.job_id]))
        taken: list[Lease] = []
        for lease in leases:
            if missing > 0 and self._gives(lease.job_id, claim, lease.amount()):
                taken.append(lease)
                missing -= lease.amount()
                self._held[lease.job_id] -= lease.amount()
        if missing > 0:
            self._held = held
            return False
        self._room[node.node_id] = -missing
        self._held[claim.job_id] += claim.unit
        self._promise(claim, node)
        for lease in taken:
            self.due[lease.lease_id] = lease
            lease.own = lease.job_id == claim.job_id
        return True

    def _give_up_own(self, claim: Claim) -> None:
        """A task needs more than the leases of its own job hold: without those its turn comes."""
        for node in claim.nodes:
            for lease in self._table.of_node(node.node_id):
                if lease.job_id == claim.job_id and not lease.revoked:
                    lease.own = True
                    self.due[lease.lease_id] = lease

    def _await(self, claim: Claim, givers: set[bytes]) -> None:
        """A task of another job, when it ends, makes room for a lease."""
        for node in claim.nodes:
            if not givers.isdisjoint(self._running[node.node_id]):
                assert claim.demand is not None
                self.first.append(claim.demand)
                self._reserved.append(node)
                node.reserved = True
                return


def _difference() -> float:
    """CPU time by which one job has had more than another, for it to be the other's turn."""
    return limits.LEASE_TURN_S / 2 * limits.RESOURCE_UNIT


def _running(node: NodeView, leased: int) -> Iterator[tuple[bytes, int]]:
    """Whose tasks run there, and on how much CPU: those that were sent first."""
    used = node.total.get(CPU, 0) - node.free.get(CPU, 0) - leased
    for record in islice(node.assigned.values(), LOOKED_AT_MAX):
        if used <= 0:
            return
        if record.template is not None:
            amount = min(dict(record.template.needs).get(CPU, 0), used)
            if amount:
                used -= amount
                yield record.job_id, amount
