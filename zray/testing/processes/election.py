"""The simulated shell of the shipped machine that says who of several heads leads.

Turns what that asks into requests to the shared store, and tells the machine the time of a clock of
the process's own, which runs while the process is stopped, and at a rate of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


class _Asking:
    """Requests to the store, those of a stage at once; ``over`` is called after the last answer."""

    def __init__(
        self,
        link: StoreLink,
        stages: list[list[Request]],
        deadline: float,
        over: Callable[[_Asking], None],
    ) -> None:
        self._link = link
        self._stages = stages
        self._deadline = deadline
        self._over = over
        self.failed = self.lease_gone = False
        self.looked: Answer | None = None
        self._begin()

    def _begin(self) -> None:
        requests = self._stages.pop(0)
        self._left = len(requests)
        for request in requests:
            left_s = max(self._deadline - self._link.clock.now, 0.01)
            self._link.ask(request, left_s, partial(self._answered, request))

    def _answered(self, request: Request, answer: Answer | None) -> None:
        if self.failed or self.lease_gone:
            return
        self._left -= 1
        if answer is None:
            self.failed = True
        elif answer.refusal or (isinstance(request, KeepAlive) and not answer.succeeded):
            self.lease_gone = True
        elif isinstance(request, Get):
            self.looked = answer
        if self.failed or self.lease_gone or not (self._left or self._stages):
            self._over(self)
        elif not self._left:
            self._begin()


class SimElection:
    """``rate``: of its clock. ``is_gone``: whether a process was seen to have ended, which only
    those of its own machine can be. ``news``: the head is to look."""

    def __init__(
        self,
        clock: Clock,
        random: Random,
        link: StoreLink,
        layout: Layout,
        me: HeadInfo,
        rate: float,
        is_gone: Callable[[HeadRecord], bool],
        news: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._link = link
        self._layout = layout
        self._rate = rate
        self._offset = random.uniform(0.0, 1e6)
        self._is_gone = is_gone
        self._news = news
        self._record = HeadRecord.of(me)
        self.machine = Contender(self._record, LeaseTerms(), lambda: random.getrandbits(62) | 1)
        self.machine.campaign(None)
        self._asking: _Asking | None = None
        self._armed = float("inf")
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

    def waits(self) -> bool:
        """Whether it waits for an answer to a renewal."""
        return isinstance(self.machine._pending, leadership.Keep)

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
        if self._asking is not None:
            self._asking = None
            self.machine.dropped(self.now())
        self.tend()

    def _ask(self, request: leadership.Request) -> None:
        within_s = max((self.machine.deadline() - self.now()) / self._rate, 0.01)
        stages = self._stages(request)
        self._asking = _Asking(self._link, stages, self._clock.now + within_s, self._answered)

    def _answered(self, asking: _Asking) -> None:
        if asking is not self._asking:
            return
        self._asking = None
        if asking.failed:
            self.machine.failed("the shared store does not answer", self.now())
        elif asking.lease_gone:
            self.machine.answered(Plain.LEASE_GONE, self.now())
        elif asking.looked is not None:
            self.machine.answered(self._sight(asking.looked), self.now())
        else:
            self.machine.answered(Plain.DONE, self.now())
        self.tend()

    def _stages(self, request: leadership.Request) -> list[list[Request]]:
        """What is to be asked of the store, at once, and after that."""
        layout = self._layout
        look = Get((layout.leader, layout.heads, layout.halted))
        if isinstance(request, leadership.Grant):
            return [[Grant(request.lease, request.ttl_s)]]
        if isinstance(request, leadership.Revoke):
            return [[Revoke(request.lease)]]
        if isinstance(request, leadership.Keep):
            return [[KeepAlive(request.lease), look]]
        if isinstance(request, leadership.Register):
            return [[self._put(layout.head(self._record.head_id), (), request.lease)], [look]]
        if isinstance(request, leadership.Campaign):
            vacant = (Created(layout.leader, 0),)
            return [[self._put(layout.leader, vacant, request.lease)], [look]]
        if isinstance(request, leadership.Clear):
            ours = (Created(layout.leader, request.revision),)
            return [[Transact(ours, ((layout.leader, None),), ())], [look]]
        if isinstance(request, leadership.Halt):
            ours = (Created(layout.leader, request.revision),)
            told = Transact(ours, ((layout.halted, request.reason.encode()),), ())
            return [[told], [look]]
        return [[look]]

    def _put(self, key: bytes, terms: tuple[Created, ...], lease: int) -> Transact:
        return Transact(terms, ((key, self._record.encode()),), (), lease)

    def _sight(self, answer: Answer) -> Sight:
        leader, heads, own_lease, halted, reason = None, [], 0, 0, ""
        for pair in answer.pairs:
            record = HeadRecord.decode(pair.value)
            if pair.key == self._layout.leader:
                gone = record is not None and self._is_gone(record)
                leader = Holder(record, pair.created, pair.lease, gone)
            elif pair.key == self._layout.halted:
                halted, reason = pair.created, pair.value.decode()
            elif record is not None:
                heads.append(record)
                if record.head_id == self._record.head_id:
                    own_lease = pair.lease
        return Sight(answer.revision, leader, own_lease, tuple(heads), halted, reason)
