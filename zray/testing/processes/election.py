"""The simulated shell of the shipped machine that says who of several heads leads.

Turns what that asks into requests to the shared store, and tells the machine the time of a clock of
the process's own, which runs while the process is stopped, and at a rate of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zray.core.head import leadership
from zray.core.head.head_record import HeadRecord
from zray.core.head.leadership import Contender, Holder, LeaseTerms, Plain, Sight, View
from zray.protocol.head_messages import HeadInfo
from zray.store.etcd_layout import Layout
from zray.testing.world.clock import Clock
from zray.testing.world.shared_store import (
    Answer,
    Created,
    Get,
    Grant,
    KeepAlive,
    Request,
    Revoke,
    SharedStore,
    Transact,
)
from zray.testing.world.store_link import StoreLink

WATCH_LOST = 0.2  # of what changes, a watch misses so much


class SimTerm:
    """One term, as the head and its store see it. ``revision``: its epoch."""

    def __init__(self, election: SimElection, held: leadership.Leadership) -> None:
        self._election = election
        self._held = held
        self.revision = held.revision

    def fenced(self) -> str:
        """Why it is over; empty: it is not. Looks at the clock."""
        return self._held.fenced(self._election.now())

    def lost(self, reason: str) -> None:
        """A write has shown that it is over."""
        self._held.ended(reason)
        self._election.tend()


class SimElection:
    """``rate``: of its clock. ``news``: the head is to look."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        shared: SharedStore,
        link: StoreLink,
        layout: Layout,
        me: HeadInfo,
        rate: float,
        news: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._link = link
        self._layout = layout
        self._rate = rate
        self._offset = random.uniform(0.0, 1e6)
        self._news = news
        self._record = HeadRecord.of(me)
        self.machine = Contender(self._record, LeaseTerms(), lambda: random.getrandbits(62) | 1)
        self.machine.campaign(None)
        self._asked = 0  # requests
        self._armed = float("inf")
        self._shared = shared
        self.tend()

    def now(self) -> float:
        """Of the clock that the machine is told."""
        return self._offset + self._clock.now * self._rate

    def view(self) -> View:
        """As of now, for the head."""
        return self.machine.view(self.now())

    def term(self) -> SimTerm:
        """The current one."""
        held = self.machine.leadership()
        assert held is not None
        return SimTerm(self, held)

    def step_down(self, reason: str) -> None:
        """Give the lead back."""
        self.machine.step_down(reason, self.now())
        self._drop()

    def changed(self, key: bytes) -> None:
        """A key is gone; the store may tell of it."""
        watched = key == self._layout.leader or key.startswith(self._layout.heads)
        if watched and not self._link.cut and self._random.random() >= WATCH_LOST:
            self._clock.after(self._random.uniform(0.0005, 0.02), self._link.when_awake, self._look)

    def _look(self) -> None:
        self.machine.changed(self.now())
        self.tend()

    # ---- its thread ------------------------------------------------------------------------

    def tend(self) -> None:
        """Ask what is to be asked, and come again when there is more."""
        request = self.machine.request(self.now())
        if request is not None:
            self._ask(request)
        self._news()
        due = (self.machine.due() - self._offset) / self._rate
        if due < self._armed or self._armed < self._clock.now:
            self._armed = max(due, self._clock.now + 1e-5)
            if self._armed < float("inf"):
                self._clock.at(self._armed, self._link.when_awake, self._ring)

    def _ring(self) -> None:
        if self._armed <= self._clock.now:
            self._armed = float("inf")
            self.tend()

    def _drop(self) -> None:
        """What waits for an answer is given up for what is more urgent."""
        if self.machine._pending is not None:
            self._asked += 1
            self.machine.dropped(self.now())
        self.tend()

    def _ask(self, request: leadership.Request) -> None:
        self._asked += 1
        asked, layout = self._asked, self._layout
        within_s = (self.machine.deadline() - self.now()) / self._rate
        deadline = self._clock.now + max(within_s, 0.01)
        steps = [*self._steps(request)]

        def done(answer: Answer | None) -> None:
            if asked != self._asked:
                return
            if answer is None:
                self.machine.failed("the shared store does not answer", self.now())
            elif answer.refusal or (isinstance(steps[0], KeepAlive) and not answer.succeeded):
                self.machine.answered(Plain.LEASE_GONE, self.now())
            elif len(steps) > 1:
                del steps[0]
                self._link.ask(steps[0], max(deadline - self._clock.now, 0.01), done)
                return
            elif isinstance(steps[0], Get):
                self.machine.answered(self._sight(answer), self.now())
            else:
                self.machine.answered(Plain.DONE, self.now())
            self.tend()

        self._link.ask(steps[0], deadline - self._clock.now, done)

    def _steps(self, request: leadership.Request) -> list[Request]:
        """What is to be asked of the store, one after the other."""
        layout = self._layout
        look = Get((layout.leader, layout.heads, layout.halted))
        if isinstance(request, leadership.Grant):
            return [Grant(request.lease, request.ttl_s)]
        if isinstance(request, leadership.Revoke):
            return [Revoke(request.lease)]
        if isinstance(request, leadership.Keep):
            return [KeepAlive(request.lease), look]
        if isinstance(request, leadership.Register):
            return [self._put(self._layout.head(self._record.head_id), (), request.lease), look]
        if isinstance(request, leadership.Campaign):
            vacant = (Created(layout.leader, 0),)
            return [self._put(layout.leader, vacant, request.lease), look]
        if isinstance(request, leadership.Clear):
            ours = (Created(layout.leader, request.revision),)
            return [Transact(ours, ((layout.leader, None),), ()), look]
        if isinstance(request, leadership.Halt):
            ours = (Created(layout.leader, request.revision),)
            return [Transact(ours, ((self._layout.halted, request.reason.encode()),), ()), look]
        return [look]

    def _put(self, key: bytes, terms: tuple[Created, ...], lease: int) -> Transact:
        return Transact(terms, ((key, self._record.encode()),), (), lease)

    def _sight(self, answer: Answer) -> Sight:
        leader, heads, own_lease, halted, reason = None, [], 0, 0, ""
        for pair in answer.pairs:
            record = HeadRecord.decode(pair.value)
            if pair.key == self._layout.leader:
                leader = Holder(record, pair.created, pair.lease)
            elif pair.key == self._layout.halted:
                halted, reason = pair.created, pair.value.decode()
            elif record is not None:
                heads.append(record)
                if record.head_id == self._record.head_id:
                    own_lease = pair.lease
        return Sight(answer.revision, leader, own_lease, tuple(heads), halted, reason)
