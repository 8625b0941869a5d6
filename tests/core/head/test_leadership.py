"""Who leads, for how long, and what a head asks the store for: decided without a store or clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from zray import limits
from zray.core.head.head_record import HeadRecord
from zray.core.head.leadership import (
    Answer,
    Campaign,
    Clear,
    Contender,
    Grant,
    Halt,
    Holder,
    Keep,
    Leadership,
    LeaseTerms,
    Look,
    Plain,
    Register,
    Request,
    Revoke,
    Sight,
    State,
)

TERMS = LeaseTerms(ttl_s=10, renew_s=2.5, retry_s=0.25, fence_s=7.5)
ID = b"i" * 16


# ---- a term ----------------------------------------------------------------------------------


def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    term = Leadership(TERMS, 1, 100.0)
    assert (term.renew_at(), term.fence_at()) == (102.5, 107.5)
    assert not term.fenced(107.4)
    term.proved(102.5, 107.4)
    assert (term.renew_at(), term.fence_at()) == (105.0, 110.0)


def test_without_a_renewal_it_ends_before_the_lease_does() -> None:
    term = Leadership(TERMS, 1, 100.0)
    assert "7.5 s" in term.fenced(107.5)
    assert term.fence_at() < 100.0 + TERMS.ttl_s


def test_an_end_is_for_ever() -> None:
    term = Leadership(TERMS, 1, 100.0)
    assert term.fenced(120.0)
    term.proved(119.0, 120.0)
    assert term.fenced(120.0)
    assert term.fenced(100.0), "though the clock went back"


def test_an_answer_that_comes_too_late_saves_nothing() -> None:
    """Whoever looks first, the head's loop or the thread that renews."""
    term = Leadership(TERMS, 1, 100.0)
    term.proved(105.0, 108.0)
    assert term.fenced(108.0)


def test_an_older_answer_takes_nothing_back() -> None:
    term = Leadership(TERMS, 1, 100.0)
    term.proved(104.0, 104.1)
    term.proved(102.0, 104.2)
    assert term.fence_at() == 111.5


def test_a_failed_renewal_is_repeated_soon_and_changes_nothing_else() -> None:
    term = Leadership(TERMS, 1, 100.0)
    term.unproved(103.0)
    assert (term.renew_at(), term.fence_at()) == (103.25, 107.5)


def test_the_store_ends_a_term_at_once() -> None:
    term = Leadership(TERMS, 1, 100.0)
    term.ended("another does")
    term.ended("a second reason")
    assert term.fenced(100.0) == "another does"


def test_renewals_are_sent_in_time_whatever_answers_take() -> None:
    """One after the other: two of them take less than the fence, or it ends."""
    for takes, ends in ((0.0, False), (2.0, False), (3.7, False), (3.8, True), (7.6, True)):
        term, now = Leadership(TERMS, 1, 0.0), 0.0
        for _ in range(20):
            sent = max(now, term.renew_at())
            now = sent + takes
            if term.fenced(now):
                break
            term.proved(sent, now)
        assert bool(term.fenced(now)) == ends, takes


# ---- heads and a store -----------------------------------------------------------------------


class Store:
    """What the requests mean: keys with leases, and revisions that rise with each change.

    Attributes:
        now: the clock of the store, and in these tests of the heads.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.revision = 1
        self.leases: dict[int, float] = {}
        self.heads: dict[str, tuple[HeadRecord, int]] = {}
        self.leader: Holder | None = None
        self.halted, self.reason, self.cluster_id = 0, "", b""

    def answer(self, me: HeadRecord, request: Request) -> Answer:
        self.expire()
        if isinstance(request, Register | Campaign | Keep) and request.lease not in self.leases:
            return Plain.LEASE_GONE
        match request:
            case Grant(lease, ttl_s):
                self.leases[lease] = self.now + ttl_s
                return Plain.DONE
            case Revoke(lease):
                self.leases.pop(lease, None)
                self.expire()
                return Plain.DONE
            case Register(lease):
                self.heads[me.head_id] = (me, lease)
                self.revision += 1
            case Campaign(lease):
                if self.leader is None:
                    self.revision += 1
                    self.leader = Holder(me, self.revision, lease)
            case Keep(lease):
                self.leases[lease] = self.now + TERMS.ttl_s
            case Clear(revision):
                if self.leader is not None and self.leader.revision == revision:
                    self.leader = None
                    self.revision += 1
            case Halt(revision, reason):
                if self.leader is not None and self.leader.revision == revision:
                    self.revision += 1
                    self.halted, self.reason = self.revision, reason
        return self.sight(me)

    def sight(self, me: HeadRecord) -> Sight:
        heads = tuple(record for record, _ in self.heads.values())[: limits.HEADS_MAX]
        own = self.heads.get(me.head_id, (me, 0))[1]
        stopped = (self.halted, self.reason, self.cluster_id)
        return Sight(self.revision, self.leader, own, heads, *stopped)

    def expire(self) -> None:
        for lease in [lease for lease, until in self.leases.items() if until <= self.now]:
            del self.leases[lease]
        for name in [name for name, (_, lease) in self.heads.items() if lease not in self.leases]:
            del self.heads[name]
            self.revision += 1
        if self.leader is not None and self.leader.lease not in {0, *self.leases}:
            self.leader = None
            self.revision += 1


class Cluster:
    """Heads that ask ``store`` in turn, each as soon as it wants to."""

    def __init__(self) -> None:
        self.store = Store()
        self.heads: list[Contender] = []
        self.asked: list[tuple[int, Request]] = []
        self._leases = itertools.count(1)
        self.lost: Callable[[int, Request], str] = lambda head, request: ""

    @property
    def now(self) -> float:
        return self.store.now

    def add(self, *, key_id: bytes | None = None, campaigns: bool = True) -> Contender:
        number = len(self.heads)
        record = HeadRecord(f"{number:032x}", [f"h{number}:1"], f"h{number}", 7, "1", 1.0)
        head = Contender(record, TERMS, lambda: next(self._leases))
        if campaigns:
            head.campaign(key_id)
        self.heads.append(head)
        return head

    def ask(self, head: Contender) -> Request | None:
        """One question, if it has one now: "request" is lost, or the "answer" is."""
        request = head.request(self.now)
        if request is None:
            return None
        number = self.heads.index(head)
        self.asked.append((number, request))
        lost = self.lost(number, request)
        answer = None if lost == "request" else self.store.answer(head.me, request)
        if lost:
            head.failed("nobody answers", self.now)
        else:
            assert answer is not None
            head.answered(answer, self.now)
        return request

    def settle(self) -> None:
        """Until nobody has anything to ask at this moment."""
        while any(self.ask(head) for head in self.heads):
            pass

    def pass_time(self, seconds: float, *, watched: bool = True) -> None:
        """In small steps, with all heads awake."""
        until = self.now + seconds
        while self.now < until:
            self.store.now = min(self.now + 0.125, until)
            self.store.expire()
            if watched:
                for head in self.heads:
                    head.changed(self.now)
            self.settle()

    def states(self) -> list[State]:
        return [head.view(self.now).state for head in self.heads]

    def leaders(self) -> list[int]:
        found = [number for number, state in enumerate(self.states()) if state is State.LEADING]
        assert len(found) <= 1
        return found


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_head_that_is_alone_leads_after_three_questions(cluster: Cluster) -> None:
    head = cluster.add()
    assert head.view(cluster.now).state is State.STANDBY
    cluster.settle()
    view = head.view(cluster.now)
    assert [type(request) for _, request in cluster.asked] == [Grant, Register, Campaign]
    assert view.state is State.LEADING and view.leader == head.me.head(leads=True)
    leadership = head.leadership()
    assert leadership is not None and view.epoch == leadership.revision == cluster.store.revision
    cluster.asked.clear()
    cluster.pass_time(60.0, watched=False)
    assert {type(request) for _, request in cluster.asked} == {Keep}
    assert len(cluster.asked) == 24 and cluster.leaders() == [0]


def test_of_several_one_leads_and_all_know_all(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.add()
    cluster.settle()
    cluster.pass_time(30.0)
    assert cluster.leaders() == [0]
    for head in cluster.heads:
        view = head.view(cluster.now)
        assert [one.leads for one in view.heads] == [True, False, False]
        assert view.leader == view.heads[0] and view.epoch == cluster.store.leader.revision  # type: ignore[union-attr]


def test_a_leader_that_is_gone_is_followed_once_its_lease_has_ended(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    cluster.settle()
    epoch = first.view(cluster.now).epoch
    cluster.heads.remove(first)  # it asks no more
    began = cluster.now
    while not cluster.leaders():
        cluster.pass_time(0.125)
    assert TERMS.fence_s < cluster.now - began <= TERMS.ttl_s + 0.5
    assert cluster.heads[0].view(cluster.now).epoch > epoch
    assert first.view(cluster.now).state is State.FENCED


def test_a_leader_that_slept_knows_it_before_it_asks_anybody(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    term = head.leadership()
    assert term is not None
    cluster.store.now += 30.0
    assert term.fenced(cluster.now) and head.view(cluster.now).state is State.FENCED
    cluster.settle()
    assert head.view(cluster.now).state is State.LEADING, "again, and by a term of its own"
    assert head.leadership() is not term and term.fenced(cluster.now)


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    cluster.settle()
    cluster.heads.remove(first)
    cluster.store.leader = cluster.store.leader._replace(gone=True)  # type: ignore[union-attr]
    cluster.pass_time(TERMS.renew_s, watched=False)
    assert second.view(cluster.now).state is State.LEADING


def test_every_answer_may_be_lost(cluster: Cluster) -> None:
    """Whether what was asked for was done or not."""
    for nth, how in itertools.product(range(8), ("request", "answer")):
        cluster = Cluster()
        counted = itertools.count()
        cluster.lost = lambda head, request: how if next(counted) == nth else ""  # noqa: B023
        cluster.add()
        cluster.add()
        cluster.pass_time(3 * TERMS.ttl_s)
        assert len(cluster.leaders()) == 1, (nth, how)
        assert all(not head.view(cluster.now).trouble for head in cluster.heads)


def test_a_lost_answer_to_the_campaign_is_found_by_its_lease(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.lost = lambda number, request: "answer" if isinstance(request, Campaign) else ""
    cluster.settle()
    assert head.view(cluster.now).state is State.STANDBY
    cluster.lost = lambda number, request: ""
    cluster.pass_time(TERMS.retry_s)
    view = head.view(cluster.now)
    assert view.state is State.LEADING
    assert view.epoch == cluster.store.leader.revision == cluster.store.revision  # type: ignore[union-attr]


def test_a_late_copy_of_a_campaign_counts_for_no_later_term(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    campaign = next(request for _, request in cluster.asked if isinstance(request, Campaign))
    cluster.store.now += 30.0
    assert head.view(cluster.now).state is State.FENCED
    assert cluster.store.answer(head.me, campaign) is Plain.LEASE_GONE


def test_a_leader_that_the_store_does_not_answer_is_fenced_and_returns(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    began = cluster.now
    cluster.lost = lambda number, request: "request"
    while head.view(cluster.now).state is State.LEADING:
        cluster.pass_time(0.125, watched=False)
    assert cluster.now - began == TERMS.fence_s
    cluster.pass_time(60.0)
    view = head.view(cluster.now)
    assert view.state is State.FENCED and view.leader is None
    assert view.trouble == "nobody answers" and view.trouble_s == began + TERMS.renew_s
    cluster.lost = lambda number, request: ""
    cluster.pass_time(1.0)
    assert head.view(cluster.now).state is State.LEADING and not head.view(cluster.now).trouble


def test_a_renewal_that_succeeds_after_the_fence_saves_nothing(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    term = head.leadership()
    assert term is not None
    cluster.store.now += TERMS.renew_s
    request = head.request(cluster.now)
    assert isinstance(request, Keep) and head.deadline() == term.fence_at()
    answer = cluster.store.answer(head.me, request)
    cluster.store.now = term.fence_at()
    head.answered(answer, cluster.now)
    assert head.view(cluster.now).state is State.FENCED
    cluster.settle()
    asked = [request for _, request in cluster.asked[3:]]
    assert [type(request) for request in asked] == [Revoke, Grant, Register, Campaign]
    view = head.view(cluster.now)
    assert view.state is State.LEADING and view.epoch > term.revision


def test_nothing_that_is_sent_in_vain_keeps_a_leader_from_renewing(cluster: Cluster) -> None:
    """As where etcd is full: it renews leases, and stores no record."""
    head = cluster.add()
    cluster.settle()
    cluster.store.heads.clear()
    cluster.lost = lambda number, request: "request" if isinstance(request, Register) else ""
    cluster.pass_time(60.0)
    assert head.view(cluster.now).state is State.LEADING
    cluster.lost = lambda number, request: ""
    cluster.pass_time(1.0)
    assert len(cluster.store.heads) == 1


def test_a_key_that_an_operator_has_deleted_ends_the_term(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    cluster.settle()
    term = first.leadership()
    assert term is not None
    cluster.store.leader = None
    first.changed(cluster.now)
    cluster.store.now += limits.LEADER_LOOK_S
    assert isinstance(cluster.ask(first), Look)
    assert term.fenced(cluster.now) == "its key is gone"
    cluster.pass_time(1.0)
    assert len(cluster.leaders()) == 1


def test_who_has_followed_is_said(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    cluster.settle()
    term = first.leadership()
    assert term is not None
    cluster.store.leases[98] = float("inf")
    cluster.store.leader = Holder(second.me, 99, 98)
    cluster.pass_time(TERMS.renew_s)
    assert term.fenced(cluster.now) == "another does: pid 7 on host h1"


def test_a_key_without_a_lease_is_no_head_s_and_is_removed_after_a_while(cluster: Cluster) -> None:
    cluster.store.leader = Holder(None, 1, 0)
    head = cluster.add()
    cluster.pass_time(TERMS.ttl_s - 1)
    view = head.view(cluster.now)
    assert view.state is State.STANDBY and "no head's" in view.trouble and view.leader is None
    cluster.pass_time(2.0)
    assert head.view(cluster.now).state is State.LEADING and not head.view(cluster.now).trouble


def test_a_leader_whose_key_was_overwritten_begins_anew(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    leader = cluster.store.leader
    assert leader is not None
    cluster.store.leader = Holder(None, leader.revision, 0)
    cluster.pass_time(1.0)
    view = head.view(cluster.now)
    assert view.state is State.LEADING and view.epoch > leader.revision


def test_stepping_down_another_leads(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    cluster.settle()
    term = first.leadership()
    assert term is not None
    first.step_down("it was asked to", cluster.now)
    assert term.fenced(cluster.now) == "it was asked to"
    assert first.view(cluster.now).state is State.STANDBY
    cluster.settle()
    for head in cluster.heads:
        head.changed(cluster.now)
    cluster.pass_time(0.125)
    assert cluster.leaders() == [1]
    cluster.heads.remove(second)
    cluster.pass_time(TERMS.ttl_s + 1)
    assert cluster.leaders() == [0], "it follows as any other"


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_stepping_down_with_nobody_there_it_leads_again(cluster: Cluster, lost: str) -> None:
    head = cluster.add()
    cluster.settle()
    losses = [lost]
    cluster.lost = lambda number, request: losses.pop() if losses else ""
    head.step_down("it was asked to", cluster.now)
    cluster.pass_time(limits.STEP_DOWN_S - 0.25)
    assert cluster.store.leader is None and cluster.leaders() == []
    cluster.pass_time(0.5)
    assert cluster.leaders() == [0]


def test_all_are_told_to_stop_and_a_later_head_is_not(cluster: Cluster) -> None:
    heads = [cluster.add() for _ in range(3)]
    cluster.settle()
    heads[0].halt("zray stop")
    cluster.pass_time(0.25)
    assert [head.view(cluster.now).stopped for head in heads] == ["zray stop"] * 3
    assert cluster.leaders() == [0], "it ends once it has settled"
    later = cluster.add()
    for head in heads:
        head.end()
    cluster.pass_time(1.0)
    assert all(head.over for head in heads)
    assert later.view(cluster.now).state is State.LEADING and not later.view(cluster.now).stopped


def test_ending_it_stops_the_others_first(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    cluster.settle()
    term = first.leadership()
    assert term is not None
    first.halt("zray stop")
    first.end()
    cluster.pass_time(0.25)
    assert first.over and term.fenced(cluster.now)
    view = second.view(cluster.now)
    assert (view.stopped, view.state) == ("zray stop", State.STANDBY)


def test_one_that_ends_is_followed_at_once(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    cluster.settle()
    first.end()
    cluster.pass_time(0.25)
    assert first.over and cluster.leaders() == [1]
    assert len(cluster.store.leases) == 1
    assert first.due() == float("inf") and first.request(cluster.now) is None


def test_it_leads_only_a_cluster_whose_key_it_has(cluster: Cluster) -> None:
    cluster.store.cluster_id = ID
    stranger = cluster.add(key_id=b"o" * 16)
    cluster.pass_time(1.0)
    view = stranger.view(cluster.now)
    assert view.state is State.STANDBY and view.cluster_id == ID and "key" in view.trouble
    cluster.add(key_id=ID)
    cluster.pass_time(1.0)
    assert cluster.leaders() == [1]


def test_one_that_does_not_campaign_knows_who_leads(cluster: Cluster) -> None:
    head = cluster.add(campaigns=False)
    cluster.pass_time(5.0)
    assert head.view(cluster.now).state is State.STANDBY and head.view(cluster.now).revision
    head.campaign(None)
    cluster.settle()
    assert cluster.leaders() == [0]


def test_more_heads_than_may_be_wait_for_a_place(cluster: Cluster) -> None:
    for _ in range(limits.HEADS_MAX + 1):
        cluster.add()
    cluster.settle()
    cluster.pass_time(1.0)
    last = cluster.heads[-1]
    assert "16 heads already" in last.view(cluster.now).trouble
    assert len(last.view(cluster.now).heads) == limits.HEADS_MAX
    for head in cluster.heads[:-1]:
        head.end()
    cluster.pass_time(1.0)
    assert cluster.leaders() == [limits.HEADS_MAX] and not last.view(cluster.now).trouble


def test_a_store_that_was_put_back_is_lived_with(cluster: Cluster) -> None:
    """Revisions count from an older one; leases and records since are not there."""
    cluster.store.revision = 1000
    first, second = cluster.add(), cluster.add()
    cluster.settle()
    old = Store()
    old.now, old.revision, old.halted = cluster.now, 50, 40
    cluster.store = old
    cluster.pass_time(2 * TERMS.ttl_s)
    assert len(cluster.leaders()) == 1 and not first.view(cluster.now).stopped
    leader = cluster.heads[cluster.leaders()[0]]
    leader.halt("zray stop")
    cluster.pass_time(1.0)
    assert second.view(cluster.now).stopped == "zray stop"


def test_changes_cause_a_bounded_number_of_looks(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    cluster.asked.clear()
    for step in range(1000):
        cluster.store.now = 1000.0 + step / 1000
        head.changed(cluster.now)
        cluster.settle()
    assert len(cluster.asked) <= 1.0 / limits.LEADER_LOOK_S + 2


def test_what_was_dropped_is_asked_again(cluster: Cluster) -> None:
    head = cluster.add()
    cluster.settle()
    cluster.store.now += TERMS.renew_s
    assert isinstance(head.request(cluster.now), Keep)
    head.dropped(cluster.now)
    assert isinstance(cluster.ask(head), Keep) and not head.view(cluster.now).trouble


def test_a_thousand_random_faults_never_make_two_leaders(cluster: Cluster) -> None:
    """The simulator does that with whole heads; this is the machine alone."""
    source = random.Random(5)
    for _ in range(3):
        cluster.add()
    asleep: dict[int, float] = {}
    terms: dict[int, Any] = {}
    for _ in range(5000):
        cluster.store.now += source.random() * 0.3
        cluster.store.expire()
        for number, head in enumerate(cluster.heads):
            if asleep.get(number, 0.0) > cluster.now:
                continue
            if source.random() < 0.01:
                asleep[number] = cluster.now + source.random() * 2 * TERMS.ttl_s
            if source.random() < 0.01:
                head.step_down("asked", cluster.now)
            fault = source.random()
            cluster.lost = lambda _, request: (
                "request" if fault < 0.1 else "answer" if fault < 0.2 else ""  # noqa: B023
            )
            cluster.ask(head)
            term = head.leadership()
            if term is not None:
                terms[term.revision] = head
        assert len([n for n in cluster.leaders() if asleep.get(n, 0.0) <= cluster.now]) <= 1
        held = cluster.store.leader
        for number in cluster.leaders():
            term = cluster.heads[number].leadership()
            assert held is not None and term is not None and held.revision == term.revision
    assert len(terms) > 20
