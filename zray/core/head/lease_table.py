"""The head's records of leases and of the demands for them, and what each lease takes of its node.

GRANTED (to the raylet) -> LEASED: a worker serves the submitter -> forgotten, once it has ended
"""

from __future__ import annotations

from collections.abc import Iterable

from zray.core import resources
from zray.core.head.task_records import NodeView
from zray.core.machine import NEVER
from zray.core.resources import CPU, Needs
from zray.protocol.messages import Amounts, CancelLeased, LeaseEnded

DemandKey = tuple[bytes, Needs]  # submitter and class
WORDS_MAX = 4096  # on leases that have ended, the last ones
CANCELS_MAX = 256  # that are kept for one lease


class LeaseDemand:
    """How many workers a submitter could use now for the tasks of one class, beyond those it has.

    ``count`` is as the submitter has stated it last, less what it got since.
    """

    __slots__ = (
        *("amounts", "calm_at", "claimed", "count", "expected", "finished", "granted"),
        *("hold_until", "job_id", "leases", "needs", "open", "pause_until", "refusals"),
        *("retried", "submitter", "takes_cpu", "waits_since"),
    )

    def __init__(self, submitter: bytes, job_id: bytes, needs: Needs) -> None:
        self.submitter = submitter
        self.job_id = job_id
        self.needs = needs
        self.amounts: Amounts = list(needs)  # the same, as the submitter puts it
        self.takes_cpu = bool(dict(needs).get(CPU))
        self.count = 0
        self.expected = False  # nothing waits yet, but may soon
        self.finished = 0  # tasks, as the submitter has said last
        self.retried = 0  # the same
        self.granted = 0  # leases that are on their way to it
        self.leases: dict[bytes, Lease] = {}
        self.open: bool | None = True  # as the submitter was told; None: it may not have heard
        self.calm_at: float | None = None  # when it opens again, unless something is in the way
        self.hold_until: float | None = None  # it is closed, and its tasks go up a few at a time
        self.waits_since: float | None = None  # behind others that it comes after
        self.refusals = 0  # in a row, of a node that could not take a lease
        self.pause_until = 0.0  # for a moment after one
        self.claimed: dict[bytes, None] = {}  # leases that the submitter has, yet to be looked at

    @property
    def key(self) -> DemandKey:
        """What there is one of."""
        return self.submitter, self.needs

    def wanting(self) -> int:
        """How many more leases it could use."""
        return self.count - self.granted

    def idles(self) -> bool:
        """Whether nothing can become of it by itself."""
        return bool(
            self.open and self.wanting() <= 0 and not (self.granted or self.leases or self.claimed)
        )


class Lease:
    """A worker of a node for one submitter. ``demand``: None once that has gone."""

    __slots__ = (
        *("cancels", "demand", "gone", "job_id", "lease_id", "leased", "needs", "node"),
        *("late_at", "own", "revoked", "served"),
    )

    def __init__(self, lease_id: bytes, node: NodeView, demand: LeaseDemand) -> None:
        self.lease_id = lease_id
        self.node = node
        self.job_id = demand.job_id
        self.needs = demand.needs
        self.demand: LeaseDemand | None = demand
        self.leased = False  # the submitter was told
        self.revoked = False
        self.late_at = NEVER  # once it is revoked: its task takes long, nobody counts on its end
        self.own = False  # that is for tasks of the same job
        self.served = 0  # tasks, as far as is known
        self.cancels: dict[bytes, CancelLeased] = {}  # of its tasks, which may not have arrived
        self.gone = False  # the node does not have it any more, and has yet to say how it ended

    def cancel(self, message: CancelLeased) -> None:
        """The submitter wants one of its tasks stopped."""
        self.cancels[message.task_id] = message
        if len(self.cancels) > CANCELS_MAX:
            del self.cancels[next(iter(self.cancels))]

    def has_served(self, count: int) -> None:
        """It has ended so many tasks in all."""
        if count > self.served:
            self.node.finished += count - self.served
            self.served = count

    def amount(self) -> int:
        """What it has of the node's CPU."""
        return dict(self.needs).get(CPU, 0)


class LeaseTable:
    """By lease, node, submitter and job. ``active``: the demands that a turn looks at."""

    def __init__(self) -> None:
        self.leases: dict[bytes, Lease] = {}
        self.active: dict[DemandKey, LeaseDemand] = {}
        self.words: dict[bytes, LeaseEnded] = {}  # on leases that have ended, by their ids
        self.unspared: dict[bytes, Lease] = {}  # whose worker was not told that others wait
        self._by_node: dict[bytes, dict[bytes, Lease]] = {}
        self._by_submitter: dict[bytes, dict[Needs, LeaseDemand]] = {}
        self._submitters: dict[bytes, dict[bytes, None]] = {}  # by job

    def __bool__(self) -> bool:
        return bool(self.leases or self.active)

    # ---- demands ---------------------------------------------------------------------------

    def demand(self, submitter: bytes, job_id: bytes, needs: Needs) -> LeaseDemand:
        """The record of a submitter and a class, a new one if there is none."""
        classes = self._by_submitter.get(submitter)
        if classes is None:
            classes = self._by_submitter[submitter] = {}
            self._submitters.setdefault(job_id, {})[submitter] = None
        found = classes.get(needs)
        if found is None:
            found = classes[needs] = LeaseDemand(submitter, job_id, needs)
        return found

    def of_submitter(self, submitter: bytes) -> list[LeaseDemand]:
        """All that a process has demanded."""
        return [*self._by_submitter.get(submitter, {}).values()]

    def of_job(self, job_id: bytes) -> list[LeaseDemand]:
        """All that the processes of a job have demanded."""
        submitters = self._submitters.get(job_id, ())
        return [one for submitter in submitters for one in self.of_submitter(submitter)]

    def note(self, demand: LeaseDemand) -> None:
        """It has changed: whether a turn is to look at it."""
        if demand.idles():
            self.active.pop(demand.key, None)
        else:
            self.active.setdefault(demand.key, demand)

    def forget(self, demand: LeaseDemand) -> None:
        """Its submitter has ended. Its leases stay until they end."""
        self.active.pop(demand.key, None)
        classes = self._by_submitter.get(demand.submitter, {})
        classes.pop(demand.needs, None)
        if not classes:
            self._by_submitter.pop(demand.submitter, None)
            submitters = self._submitters.get(demand.job_id, {})
            submitters.pop(demand.submitter, None)
            if not submitters:
                self._submitters.pop(demand.job_id, None)
        for lease in demand.leases.values():
            lease.demand = None
        demand.leases = {}

    # ---- leases ----------------------------------------------------------------------------

    def of_node(self, node_id: bytes) -> Iterable[Lease]:
        """Those that a node has, as far as is known."""
        return self._by_node.get(node_id, {}).values()

    def count_at(self, node_id: bytes) -> int:
        """How many those are."""
        return len(self._by_node.get(node_id, ()))

    def nodes(self) -> list[NodeView]:
        """Those that have any."""
        return [next(iter(leases.values())).node for leases in self._by_node.values()]

    def add(self, lease: Lease) -> None:
        """A lease takes what it needs of its node, as a running task does."""
        assert lease.demand is not None
        resources.take(lease.node.free, lease.needs)
        self.leases[lease.lease_id] = self.unspared[lease.lease_id] = lease
        self._by_node.setdefault(lease.node.node_id, {})[lease.lease_id] = lease
        lease.demand.leases[lease.lease_id] = lease
        lease.demand.granted += 1
        self.note(lease.demand)

    def told(self, lease: Lease) -> None:
        """The submitter hears of it."""
        assert lease.demand is not None
        lease.leased = True
        lease.demand.granted -= 1

    def free(self, lease: Lease) -> None:
        """Its node has it no more."""
        if lease.gone:
            return
        lease.gone = True
        lease.node.give(lease.needs)
        there = self._by_node[lease.node.node_id]
        del there[lease.lease_id]
        if not there:
            del self._by_node[lease.node.node_id]

    def remove(self, lease: Lease) -> None:
        """It has ended."""
        self.free(lease)
        del self.leases[lease.lease_id]
        self.unspared.pop(lease.lease_id, None)
        demand = lease.demand
        if demand is not None:
            del demand.leases[lease.lease_id]
            demand.granted -= not lease.leased
            self.note(demand)

    def keep(self, ended: LeaseEnded) -> None:
        """Its submitter may be away just now, and ask again."""
        self.words[ended.lease_id] = ended
        if len(self.words) > WORDS_MAX:
            del self.words[next(iter(self.words))]
