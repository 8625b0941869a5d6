"""Which leases are granted, to whom, and what ends them, without the rest of a head."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, identity, spec, template
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.lease_shares import Claim, LeaseShares
from zray.core.head.leases import ANY_NUMBER, UNKNOWN
from zray.core.head.members import JobMember, Member, NodeMember
from zray.core.head.task_records import READY, TaskRecord
from zray.core.machine import NEVER
from zray.protocol import messages as m

WORK, WIDE = template(), template("wide", resources=[("CPU", 2)])
WORKER = identity("w")
CPU = (("CPU", UNIT),)
PAUSE = limits.LEASE_PAUSE_S


class Bench(Tables):
    """A driver, and what it has been granted by name of node."""

    def __init__(self, cpus: float = 2, awaited: str = "") -> None:
        super().__init__(awaited)
        self.leases = self.make_leases()
        self.now = 10.0
        self.n1 = self.node("n1", cpus=cpus)
        self.job = self.driver("d")

    def turn(self, after: float = 0.0) -> None:
        self.now += after
        self.leases.step(self.now)

    def demand(
        self, count: int, job: JobMember | None = None, cpus: float = 1, **more: Any
    ) -> None:
        job = job or self.job
        amounts = [("CPU", round(cpus * UNIT))] if cpus else []
        ids = (job.process_id, job.process_id)
        self.leases.on_demand(job, m.Demand(0, *ids, amounts, count, **more), self.now)
        self.turn()

    def granted(self, node: NodeMember | None = None) -> list[m.Grant]:
        """What a node was sent; the rest is forgotten."""
        return self.sent(m.Grant).get((node or self.n1).process_id, [])

    def lease(self, grant: m.Grant, node: NodeMember | None = None) -> bytes:
        """The worker is ready."""
        node = node or self.n1
        self.leases.on_leased(node, m.Leased(0, held(grant), "machine", "n1"), self.now)
        return grant.lease_id

    def leased(self, count: int, job: JobMember | None = None) -> list[bytes]:
        """A job has that many leases."""
        self.demand(count, job)
        found = [self.lease(grant) for grant in self.granted()]
        assert len(found) == count
        self.outbox.take()
        return found

    def end(self, lease_id: bytes, begun: int = 0, text: str = "", seq: int = 1) -> None:
        ended = m.LeaseEnded(seq, lease_id, begun, text)
        self.leases.on_ended(self.n1, ended, self.now)

    def ready(self, name: str, job: JobMember | None = None, made_of: m.Template = WORK) -> Any:
        """A task that waits at the head."""
        record: TaskRecord = self.task(spec(name, made_of), made_of, job or self.job)
        self.scheduler.push(record)
        return record

    def open(self, job: JobMember | None = None) -> list[bool]:
        """What a driver is told; the rest is forgotten."""
        return [one.open for one in self.sent(m.Leasing).get((job or self.job).process_id, [])]

    def free(self) -> float:
        return self.n1.view.free["CPU"] / UNIT


def held(grant: m.Grant) -> m.HeldLease:
    return m.HeldLease(grant.lease_id, grant.job_id, grant.submitter, grant.resources, WORKER)


# ---- grants --------------------------------------------------------------------------------


def test_a_node_has_finished_what_its_leased_workers_have() -> None:
    """As their submitter says now and then, and the node when a lease is over."""
    bench = Bench(2)
    first, second = bench.leased(2)
    ids = first + second
    view = bench.n1.view
    bench.demand(0, lease_ids=ids, served=[5, 7])
    bench.demand(0, lease_ids=ids, served=[6, 7])
    assert view.finished == 13
    bench.end(first, 6)
    bench.end(second, 9, "it died", seq=2)  # with its last one
    bench.demand(1, retried=1)
    bench.demand(1, retried=1)
    assert bench.counters["retried"] == 1
    assert view.finished == 14
    bench.demand(0, lease_ids=ids, served=[6, 8])
    assert view.finished == 14


def test_what_is_free_is_granted_and_taken() -> None:
    bench = Bench(cpus=2)
    bench.demand(3)
    grants = bench.granted()
    assert len({grant.lease_id for grant in grants}) == 2 and bench.free() == 0
    assert grants[0].submitter == grants[0].job_id == bench.job.process_id
    bench.turn()
    assert bench.granted() == []
    bench.node("n2", cpus=4)
    bench.turn()
    (sent,) = bench.sent(m.Grant).values()
    assert len(sent) == 1


def test_tasks_whose_function_is_stored_just_now_come_first() -> None:
    """Else the leases had what the first task of a burst needs."""
    bench = Bench(cpus=2)
    bench.start_soon = True
    bench.demand(3)
    assert bench.granted() == []
    bench.start_soon = False
    bench.turn()
    assert len(bench.granted()) == 2


def test_a_demand_is_what_is_wanted_now_and_not_in_addition() -> None:
    bench = Bench(cpus=8)
    bench.demand(2)
    first, _ = bench.granted()
    bench.demand(2)
    assert bench.granted() == []
    bench.demand(3)
    assert len(bench.granted()) == 1
    bench.lease(first)
    bench.turn()
    assert bench.granted() == []  # the demand has been met by one
    bench.demand(3)
    assert len(bench.granted()) == 1
    bench.demand(0)
    assert bench.granted() == [] and len(bench.lease_table.leases) == 4


def test_demands_are_met_in_turn() -> None:
    bench = Bench(cpus=3)
    other = bench.driver("e").process_id
    said = m.Demand(0, other, other, [("CPU", UNIT)], 5)
    bench.leases.on_demand(bench.members.jobs[other], said, bench.now)
    bench.demand(5)
    grants = bench.granted()
    assert [grant.job_id for grant in grants] == [other, bench.job.process_id, other]
    bench.demand(0)
    bench.lease(grants[2])
    bench.end(grants[2].lease_id)
    bench.turn()
    assert [grant.job_id for grant in bench.granted()] == [other]


def test_the_emptiest_node_of_the_machine_is_taken() -> None:
    bench = Bench(cpus=1)
    n2 = bench.node("n2", cpus=3)
    bench.demand(2)
    assert len(bench.granted(n2)) == 2


def test_nothing_is_granted_where_others_come_first() -> None:
    bench = Bench(cpus=2)
    bench.n1.view.set_floors([m.JobFloors(identity("d"), 0, 0)])
    bench.demand(1)
    assert bench.granted() == []
    bench.n1.view.set_floors([])
    bench.scheduler._class((("CPU", UNIT),)).ahead = 1
    bench.turn()
    assert bench.granted() == []
    bench.scheduler._class((("CPU", UNIT),)).ahead = 0
    bench.turn()
    assert len(bench.granted()) == 1


def test_what_a_node_does_not_take_goes_by_way_of_the_head_for_a_while() -> None:
    """At last: a worker, or a CPU, may be there a moment later."""
    bench = Bench(cpus=1)
    bench.demand(1)
    for _ in range(limits.LEASE_REFUSALS - 1):
        (grant,) = bench.granted()
        bench.end(grant.lease_id)
        assert bench.free() == 1
        bench.turn()
        assert not bench.outbox
        bench.turn(bench.leases.deadline() - bench.now)
    (grant,) = bench.granted()
    bench.end(grant.lease_id)
    bench.turn()
    sent = bench.outbox.take()[bench.job.process_id]
    few = limits.LEASE_WINDOW_TASKS
    assert sent == [m.Leasing(0, bench.job.process_id, [("CPU", UNIT)], False, few)]
    assert bench.leases.deadline() == pytest.approx(bench.now + PAUSE)
    bench.turn(PAUSE)
    assert bench.open() == [True] and bench.leases.deadline() == NEVER
    bench.demand(1)
    assert len(bench.granted()) == 1


def test_what_cannot_be_leased_is_refused() -> None:
    bench = Bench()
    for amounts in ([("GPU", UNIT)], [("CPU", -UNIT)]):
        ids = (bench.job.process_id, bench.job.process_id)
        bench.leases.on_demand(bench.job, m.Demand(5, *ids, amounts, 1), bench.now)
        ((rejected,),) = bench.sent(m.Rejected).values()
        assert rejected.about == 5
    bench.demand(1, cpus=0)
    assert bench.open() == [False]  # they wait for nothing, so they go by way of the head


def test_a_demand_of_a_job_that_has_ended_is_nothing() -> None:
    bench = Bench()
    del bench.members.jobs[bench.job.process_id]
    bench.demand(1)
    assert not bench.outbox and not bench.lease_table


def test_tasks_that_workers_ended_count_once() -> None:
    bench = Bench()
    bench.demand(0, finished=5)
    bench.demand(0, finished=7)
    bench.leases.session_begins(bench.job)
    bench.demand(0, finished=7)
    bench.demand(0, finished=2, cpus=2)
    assert bench.job.finished == bench.counters["finished"] == 9


def test_tasks_that_only_their_driver_knows_are_unfinished_all_the_same() -> None:
    bench = Bench()
    bench.demand(0, unfinished=5)
    bench.demand(0, unfinished=4, cpus=2)
    assert bench.members.unfinished(bench.job) == 4  # each time of all classes


# ---- a lease's life ------------------------------------------------------------------------


def test_the_submitter_hears_of_its_lease_and_of_its_end_once() -> None:
    bench = Bench(cpus=1)
    bench.demand(1)
    (grant,) = bench.granted()
    message = m.Leased(0, held(grant), "machine", "n1")
    for _ in range(2):
        bench.leases.on_leased(bench.n1, message, bench.now)
    assert bench.sent(m.Leased) == {bench.job.process_id: [message]}
    for seq in (3, 3):
        bench.end(grant.lease_id, 4, "(pid 1, node n1)\nit died", seq=seq)
    ((ended,),) = bench.sent(m.LeaseEnded).values()
    assert (ended.begun, ended.text) == (4, "(pid 1, node n1)\nit died")
    assert bench.free() == 1 and not bench.lease_table.leases


def test_a_lease_that_nobody_knows_is_to_end() -> None:
    bench = Bench()
    (grant,) = (bench.demand(1), bench.granted())[1]
    other = bench.node("n2")
    bench.leases.on_leased(other, m.Leased(0, held(grant), "machine", "n2"), bench.now)
    assert [one.lease_id for one in bench.sent(m.Revoke)[other.process_id]] == [grant.lease_id]
    bench.leases.on_ended(other, m.LeaseEnded(1, grant.lease_id), bench.now)
    assert grant.lease_id in bench.lease_table.leases


def test_a_cancel_goes_to_the_node_and_again_in_its_new_session() -> None:
    bench = Bench(cpus=1)
    (lease_id,) = bench.leased(1)
    cancel = m.CancelLeased(0, lease_id, identity("t"), 1, False)
    bench.leases.on_cancel(bench.driver("e"), cancel, bench.now)
    assert not bench.outbox
    bench.leases.on_cancel(bench.job, cancel, bench.now)
    assert bench.sent(m.CancelLeased) == {bench.n1.process_id: [cancel]}
    announced = m.HeldLease(lease_id, *(bench.job.process_id,) * 2, [("CPU", UNIT)], WORKER)
    bench.leases.announced(bench.n1, [announced], bench.now)
    assert bench.sent(m.CancelLeased) == {bench.n1.process_id: [cancel]}


def test_whoever_comes_too_late_for_a_lease_that_was_to_end_may_have_others() -> None:
    """The worker may have ended it before: that says nothing of whether workers can be reached."""
    bench = Bench(cpus=2)
    (first, _) = bench.leased(2)
    bench.leases.revoke(bench.lease_table.leases[first])
    bench.outbox.take()
    bench.leases.on_revoke(bench.job, m.Revoke(0, first), bench.now)
    bench.end(first)
    bench.turn()
    bench.turn(PAUSE)
    assert bench.open() == [True]  # who could not connect waits for this
    bench.demand(1)
    assert len(bench.granted()) == 1


def test_whoever_cannot_reach_a_worker_gets_none_for_a_while() -> None:
    bench = Bench(cpus=2)
    (first, _) = bench.leased(2)
    bench.leases.on_revoke(bench.job, m.Revoke(0, first), bench.now)
    bench.turn()
    sent = bench.outbox.take()
    assert sent[bench.n1.process_id] == [m.Revoke(0, first)]
    assert [one.open for one in sent[bench.job.process_id]] == [False]  # type: ignore[attr-defined]
    bench.end(first)
    bench.demand(2)
    bench.turn(10 * PAUSE)
    assert bench.granted() == []
    assert bench.leases.deadline() < bench.now + limits.LEASE_BAR_S
    bench.turn(limits.LEASE_BAR_S)
    bench.turn(PAUSE)
    assert bench.open() == [True]
    bench.demand(1)
    (grant,) = bench.granted()
    second = bench.lease(grant)
    bench.leases.on_revoke(bench.job, m.Revoke(0, second), bench.now)
    bench.turn()
    bench.leases.session_lost(bench.job)
    bench.leases.session_begins(bench.job)  # in another session it may reach them
    bench.turn()
    bench.turn(PAUSE)
    assert bench.open() == [False, True]


def test_that_a_worker_is_not_reached_whose_lease_is_over_means_nothing() -> None:
    bench = Bench(cpus=2)
    (first, second) = bench.leased(2)
    bench.end(first)
    bench.leases.on_revoke(bench.job, m.Revoke(0, first), bench.now)
    bench.demand(1)
    assert bench.open() == []
    assert second in bench.lease_table.leases


def test_nothing_is_granted_to_a_driver_that_is_away() -> None:
    bench = Bench(cpus=2)
    bench.demand(1)
    (grant,) = bench.granted()
    bench.leases.session_lost(bench.job)
    bench.end(grant.lease_id)
    bench.turn(PAUSE)
    assert not bench.outbox
    bench.leases.session_begins(bench.job)
    bench.demand(1)
    assert len(bench.granted()) == 1


# ---- others wait ---------------------------------------------------------------------------


def test_tasks_of_another_job_get_its_share_of_what_leases_hold() -> None:
    bench = Bench(cpus=4)
    leases = bench.leased(4)
    other = bench.driver("e")
    tasks = [bench.ready(f"t{number}", other) for number in range(6)]
    bench.turn()
    sent = bench.outbox.take()
    revoked = {one.lease_id for one in sent[bench.n1.process_id] if not one.spare}  # type: ignore[attr-defined]
    assert len(revoked) == 2 and revoked < {*leases}
    assert bench.job.process_id not in sent  # what it has goes on
    bench.turn()
    assert not bench.outbox  # all is said
    for lease_id in revoked:
        bench.end(lease_id)
    assert bench.scheduler.schedule(bench.now)
    assert sum(task.state != READY for task in tasks) >= 2
    bench.demand(4)
    bench.turn(10 * PAUSE)
    assert not bench.granted() and bench.leases.deadline() == NEVER


def test_tasks_of_the_same_job_end_as_many_leases_as_they_need() -> None:
    bench = Bench(cpus=4)
    bench.leased(4)
    bench.ready("t", made_of=WIDE)
    bench.turn()
    sent = bench.outbox.take()
    assert len(sent[bench.n1.process_id]) == 2
    assert [one.open for one in sent[bench.job.process_id]] == [False]  # type: ignore[attr-defined]
    bench.ready("u")
    bench.turn()
    assert len(bench.sent(m.Revoke)[bench.n1.process_id]) == 1


@pytest.mark.parametrize("resources", [[("CPU", 3)], [("CPU", 1), ("GPU", 1)]])
def test_leases_stay_where_their_end_would_not_help(resources: list[tuple[str, float]]) -> None:
    bench = Bench(cpus=2)
    bench.leased(2)
    bench.ready("t", bench.driver("e"), template("other", resources=resources))
    bench.turn()
    assert not bench.outbox


def test_tasks_that_lack_more_than_a_cpu_close_nothing() -> None:
    bench = Bench(cpus=2)
    bench.n1.view.total["GPU"] = UNIT  # in use
    bench.leased(1)
    bench.ready("t", bench.driver("e"), template("g", resources=[("CPU", 1), ("GPU", 1)]))
    bench.turn()
    assert not bench.outbox


def test_a_lease_comes_before_the_tasks_of_a_job_that_has_its_share() -> None:
    bench = Bench(cpus=2)
    other = bench.driver("e")
    first, second, _, _ = [bench.ready(name, other) for name in ("t1", "t2", "t3", "t4")]
    bench.n1.view.reserved = True  # nothing is sent ahead
    bench.scheduler.schedule(bench.now)
    assert first.state == second.state != READY
    bench.demand(3)
    assert bench.open() == [] and bench.granted() == []
    bench.scheduler.release(identity("t1"), first)
    bench.leases.take_turns(bench.now)
    assert len(bench.granted()) == 1
    bench.turn()
    bench.scheduler.release(identity("t2"), second)
    bench.leases.take_turns(bench.now)
    assert bench.granted() == []  # it has its share, too


def test_ones_own_tasks_close_leasing_when_they_wait_for_long() -> None:
    bench = Bench(cpus=1)
    bench.n1.view.free["CPU"] = 0
    bench.ready("t")
    bench.demand(1)
    stall = limits.STALL_S
    assert bench.open() == [] and bench.leases.deadline() == pytest.approx(bench.now + stall)
    bench.turn(stall)
    assert bench.open() == [False]
    bench.demand(1)  # said before it heard that: what waited there is at the head by now
    bench.turn()
    bench.turn(PAUSE)
    assert bench.open() == [True]  # for the tasks that come from now on
    bench.n1.view.free["CPU"] = UNIT
    bench.turn()
    assert bench.granted() == []


def test_a_cpu_that_two_jobs_want_goes_from_one_to_the_other() -> None:
    bench = Bench(cpus=1)
    (lease_id,) = bench.leased(1)
    job, other = bench.job, bench.driver("e")
    turns = []
    for _ in range(8):
        bench.demand(1, job)
        bench.demand(1, other)
        began = bench.now
        while lease_id not in (
            one.lease_id
            for one in bench.sent(m.Revoke).get(bench.n1.process_id, [])
            if not one.spare
        ):
            assert bench.leases.deadline() < bench.now + PAUSE
            bench.turn(bench.leases.deadline() - bench.now)
        turns.append(bench.now - began)
        bench.turn(0.002)
        bench.end(lease_id)
        bench.turn(0.002)
        (grant,) = bench.granted()
        assert grant.job_id == other.process_id
        lease_id = bench.lease(grant)
        job, other = other, job
    assert turns[0] == 0.0  # who comes has a turn at once
    assert all(0.4 * limits.LEASE_TURN_S < turn < 1.3 * limits.LEASE_TURN_S for turn in turns[1:])


def test_a_task_that_needs_all_of_a_node_has_its_turn() -> None:
    bench = Bench(cpus=2)
    leases = bench.leased(2)
    other = bench.driver("e")
    task = bench.ready("t", other, WIDE)
    bench.demand(2)
    sent = bench.sent(m.Revoke)[bench.n1.process_id]
    assert {one.lease_id for one in sent if not one.spare} == {*leases}
    bench.end(leases[0])
    bench.turn()
    assert bench.granted() == []  # what is free is for the task
    bench.end(leases[1])
    bench.leases.take_turns(bench.now)
    bench.scheduler.schedule(bench.now)
    assert task.state != READY
    bench.turn()
    bench.ready("u", other, WIDE)
    bench.turn(2 * limits.LEASE_TURN_S)
    assert bench.granted() == []
    bench.scheduler.release(identity("t"), task)
    bench.leases.take_turns(bench.now)
    assert [grant.job_id for grant in bench.granted()] == [bench.job.process_id]


def test_a_job_that_ends_before_its_turn_leaves_no_node_waiting_for_it() -> None:
    bench = Bench(cpus=2)
    leases = bench.leased(2)
    other = bench.driver("e")
    bench.ready("t", other, WIDE)
    bench.demand(2)
    for lease_id in leases:
        bench.end(lease_id)
    bench.scheduler.schedule(bench.now)
    bench.turn()
    for number in range(4):
        bench.ready(f"u{number}", other, WIDE)
    bench.turn(2 * limits.LEASE_TURN_S)
    assert bench.scheduler.schedule(bench.now) == []
    bench.leases.job_ended(bench.job.process_id)
    bench.turn()
    assert bench.scheduler.schedule(bench.now), "some are sent ahead"


def test_what_was_sent_ahead_to_where_leases_stay_is_taken_back() -> None:
    """Else it waits for as long as the job that has the leases, while what came later starts."""
    bench = Bench(cpus=1)
    bench.leased(1)
    n2, other = bench.node("n2", cpus=3), bench.driver("e")
    bench.demand(1)
    (grant,) = bench.granted(n2)
    bench.lease(grant, n2)
    bench.outbox.take()
    for number in range(64):
        bench.ready(f"t{number}", other)
    bench.scheduler.schedule(bench.now)
    assert n2.view.free["CPU"] == 0, "the other job has as much"
    sent_ahead = bench.n1.view.ahead[CPU]
    bench.turn()
    assert not any(one.revoked for one in bench.lease_table.leases.values())
    ((view, _, count),) = bench.scheduler.reclaims(bench.now)
    assert (view, count) == (bench.n1.view, sent_ahead)
    assert not any(view is bench.n1.view for view, _ in bench.scheduler.schedule(bench.now))


def test_what_ended_jobs_have_had_is_forgotten() -> None:
    bench = Bench(cpus=1)
    bench.leased(1)
    node = bench.n1.view
    shares = LeaseShares(bench.lease_table)

    def kept() -> int:
        return sum(len(each) for each in vars(shares).values() if isinstance(each, dict))

    sizes = []
    for number in range(1000):
        claim = Claim(identity(f"job {number}"), CPU, 1, [node])
        shares.divide([claim], bench.now)
        bench.now += 0.1
        sizes.append(kept())
    assert max(sizes[500:]) <= max(sizes[:100]) < 50


def test_nobody_counts_on_the_end_of_a_lease_whose_task_takes_long() -> None:
    """Another gives its own in turn, though there are only two CPUs for three jobs."""
    bench = Bench(cpus=2)
    long, other, third = bench.leased(1)[0], bench.driver("e"), bench.driver("f")
    (short,) = bench.leased(1, other)
    bench.demand(1, other)
    bench.demand(1, third)
    revoked: dict[bytes, float] = {}
    began = bench.now
    while bench.now < began + limits.LEASE_STARVED_S:
        bench.turn(limits.LEASE_TURN_S)
        for one in (long, short):
            if bench.lease_table.leases[one].revoked:
                revoked.setdefault(one, bench.now - began)
    assert revoked.keys() == {long, short}, "neither has ended"
    assert limits.LEASE_PAUSE_S <= max(revoked.values()) < 3 * limits.LEASE_PAUSE_S


def test_who_takes_long_and_gives_nothing_does_not_keep_others_from_their_turns() -> None:
    """Of two that share what is left, each is behind it by more and more."""
    bench = Bench(cpus=2)
    bench.ready("going on", bench.driver("e"))
    bench.scheduler.schedule(bench.now)
    (lease_id,) = bench.leased(1)
    lease, third = bench.lease_table.leases[lease_id], bench.driver("f")
    shares = LeaseShares(bench.lease_table)
    turns = 0
    for number in range(1000):
        bench.now += limits.LEASE_TURN_S / 6
        lease.leased = bool(number % 2)  # the rest of the time it has none
        shares.divide([Claim(third.process_id, CPU, 1, [bench.n1.view])], bench.now)
        turns += number >= 500 and lease_id in shares.due
    assert turns == 500


def test_what_a_lease_leaves_is_for_whom_it_ended_and_not_for_who_waits_for_a_task() -> None:
    """Else it was granted anew to the same job, revoked again, and so on."""
    bench = Bench(cpus=2)
    bench.ready("going on", bench.driver("e"))
    bench.scheduler.schedule(bench.now)
    (lease_id,) = bench.leased(1)
    bench.demand(1)
    (demand,) = bench.lease_table.of_submitter(bench.job.process_id)
    third, view, turn_s = bench.driver("f"), bench.n1.view, limits.LEASE_TURN_S
    shares = LeaseShares(bench.lease_table)

    def divide(after_s: float, *, leased: bool) -> None:
        bench.now += after_s
        bench.lease_table.leases[lease_id].leased = leased
        mine = Claim(bench.job.process_id, CPU, 1, [view], demand)
        shares.divide([Claim(third.process_id, CPU, 1, [view]), mine], bench.now)

    divide(0.0, leased=True)
    divide(turn_s, leased=False)
    divide(turn_s, leased=False)
    assert lease_id in shares.due and shares.first == [demand]
    assert shares.is_promised(view, CPU)
    view.free["CPU"] = UNIT
    assert shares.is_promised(view, CPU)
    view.free["CPU"] = 2 * UNIT
    assert not shares.is_promised(view, CPU), "the task has ended"


def test_leases_that_others_could_use_do_not_rest_for_long() -> None:
    bench = Bench(cpus=2)
    leases = bench.leased(1)
    other = bench.driver("e")
    leases += bench.leased(1, other)
    bench.demand(1)
    sent = bench.sent(m.Revoke)[bench.n1.process_id]
    assert [(one.lease_id, one.spare) for one in sent] == [(one, True) for one in leases]
    bench.turn()
    assert not bench.outbox


def test_jobs_that_have_their_shares_keep_them() -> None:
    bench = Bench(cpus=3)
    other = bench.driver("e")
    bench.leased(2)
    bench.leased(1, other)
    bench.demand(1, other)
    bench.demand(1)
    bench.outbox.take()
    for _ in range(20):  # but for one of the three, which they have in turn
        bench.turn(limits.LEASE_TURN_S / 8)
        if revoked := bench.sent(m.Revoke):
            ((one,),) = revoked.values()
            assert bench.lease_table.leases[one.lease_id].job_id == bench.job.process_id
    assert not bench.sent(m.Leasing)


@pytest.mark.parametrize("same", [True, False])
def test_tasks_sent_ahead_do_not_wait_behind_leases(same: bool) -> None:
    bench = Bench(cpus=1)
    other = bench.job if same else bench.driver("e")
    running, ahead, _, _ = [bench.ready(name, other) for name in ("t1", "t2", "t3", "t4")]
    bench.scheduler.schedule(bench.now)
    assert running.state == ahead.state != READY
    bench.n1.view.free["CPU"] = UNIT
    group = bench.scheduler.classes[CPU]
    ahead_then, group.ahead = group.ahead, 0  # as if the lease had been there first
    bench.leased(1)
    group.ahead = ahead_then
    bench.turn()
    revoked = bench.sent(m.Revoke).get(bench.n1.process_id, [])
    assert len([one for one in revoked if not one.spare]) == 1


def test_leases_give_way_where_a_task_goes_on_with_what_it_had_lent() -> None:
    bench = Bench(cpus=1)
    (first,) = bench.leased(1)
    bench.n1.view.report(0, {"CPU": UNIT})
    (second,) = bench.leased(1)
    bench.turn()
    assert not bench.outbox
    bench.n1.view.report(0, {})
    bench.turn()
    assert bench.sent(m.Revoke)[bench.n1.process_id] == [m.Revoke(0, second)]
    assert first in bench.lease_table.leases


def test_tasks_held_back_by_the_bound_on_workers_end_leases() -> None:
    bench = Bench(cpus=4)
    bench.leased(2)
    bench.n1.view.set_floors([m.JobFloors(identity("d"), 0, 0)])
    bench.ready("t")
    bench.turn()
    assert len(bench.sent(m.Revoke)[bench.n1.process_id]) == 1


def test_without_a_node_few_tasks_go_by_way_of_the_head_until_one_joins() -> None:
    bench = Bench(cpus=2)
    bench.n1.view.live = False
    bench.members.remove(bench.n1)
    bench.demand(1)
    ((told,),) = bench.sent(m.Leasing).values()
    assert (told.open, told.window) == (False, limits.LEASE_WINDOW_TASKS)
    bench.turn(limits.LEASE_HOLD_S / 2)
    assert not bench.outbox
    bench.n1 = bench.node("n2", cpus=8)
    bench.turn()
    assert bench.open() == [True]  # at once: nobody else waits
    bench.demand(8)
    assert len(bench.granted()) == 8


def test_as_many_tasks_go_by_way_of_the_head_as_keep_all_cpus_busy() -> None:
    bench = Bench(cpus=2)
    bench.node("far", cpus=30, machine="another")
    bench.demand(1)
    ((told,),) = bench.sent(m.Leasing).values()
    assert (told.open, told.window) == (False, 32 * limits.LEASE_WINDOW_LANES)


# ---- where ---------------------------------------------------------------------------------


def test_leasing_is_for_the_machine_of_the_driver() -> None:
    bench = Bench(cpus=1)
    far = bench.node("far", cpus=1, machine="another")
    bench.demand(1)
    assert bench.open() == [False]  # by way of the head a task could start there
    far.view.free["CPU"] = 0
    bench.turn()
    bench.turn(PAUSE)
    assert bench.open() == [True]
    bench.n1.view.live = False  # for now: its leases go on
    bench.demand(1)
    assert not bench.outbox
    bench.n1.ended = True
    bench.turn()
    assert bench.open() == [False]


# ---- who goes ------------------------------------------------------------------------------


def test_a_job_takes_its_leases_with_it() -> None:
    bench = Bench(cpus=2)
    bench.leased(2)
    bench.leases.job_ended(bench.job.process_id)
    assert bench.free() == 2 and not bench.lease_table
    assert bench.lease_table.of_job(bench.job.process_id) == []


def test_leases_of_a_worker_stay_until_its_node_says_that_they_have_ended() -> None:
    bench = Bench(cpus=2)
    ids = (bench.job.process_id, WORKER)
    message = m.Demand(0, WORKER, bench.job.process_id, [("CPU", UNIT)], 1)
    bench.leases.on_demand(bench.n1, message, bench.now)
    bench.turn()
    (grant,) = bench.granted()
    assert (grant.job_id, grant.submitter) == ids
    bench.lease(grant)
    assert list(bench.sent(m.Leased)) == [bench.n1.process_id]  # by way of its node
    bench.leases.submitter_gone(WORKER)
    assert bench.free() == 1
    bench.end(grant.lease_id)
    assert bench.free() == 2 and not bench.sent(m.LeaseEnded)


def test_a_dead_node_takes_its_leases_with_it_but_not_those_of_its_next_incarnation() -> None:
    bench = Bench(cpus=2)
    first, second = bench.leased(2)
    bench.leases.announced(bench.n1, [], bench.now)  # and the ends are yet to come
    dead, bench.n1 = bench.n1, bench.node("n1", cpus=2)
    bench.demand(1)
    (grant,) = bench.granted()
    bench.leases.node_died(dead, "node n1 (host) died: of old age")
    ended = bench.sent(m.LeaseEnded)[bench.job.process_id]
    assert {one.lease_id for one in ended} == {first, second}
    assert {(one.begun, one.text) for one in ended} == {
        (ANY_NUMBER, "(node n1)\nnode n1 (host) died: of old age")
    }
    assert [*bench.lease_table.leases] == [grant.lease_id]


# ---- sessions and restarts -----------------------------------------------------------------


def announced(lease_id: bytes, job: Member) -> m.HeldLease:
    return m.HeldLease(lease_id, *(job.process_id,) * 2, [("CPU", UNIT)], WORKER)


def test_what_a_node_does_not_announce_has_ended_as_it_then_says() -> None:
    bench = Bench(cpus=4)
    kept, told, silent = bench.leased(3)
    bench.demand(1)
    (lost,) = bench.granted()
    bench.leases.announced(bench.n1, [announced(kept, bench.job)], bench.now)
    assert bench.free() == 3 and not bench.outbox
    assert lost.lease_id not in bench.lease_table.leases
    bench.end(told, 2, "(pid 1, node n1)\nit died")
    bench.turn()
    ((ended,),) = bench.sent(m.LeaseEnded).values()
    assert (ended.lease_id, ended.begun) == (told, 2)
    bench.turn(PAUSE)
    ((ended,),) = bench.sent(m.LeaseEnded).values()
    assert (ended.lease_id, ended.begun, ended.text) == (silent, ANY_NUMBER, UNKNOWN)
    assert ended.told == ANY_NUMBER  # what the worker has answered its node may know
    assert kept in bench.lease_table.leases


def test_a_revoke_is_said_again_in_a_new_session_of_the_node() -> None:
    bench = Bench(cpus=1)
    (lease_id,) = bench.leased(1)
    bench.ready("t", bench.driver("e"))
    bench.turn()
    bench.outbox.take()
    bench.leases.announced(bench.n1, [announced(lease_id, bench.job)], bench.now)
    assert bench.sent(m.Revoke)[bench.n1.process_id] == [m.Revoke(0, lease_id)]


def test_a_driver_that_missed_the_end_of_a_lease_hears_it_again() -> None:
    bench = Bench(cpus=2)
    died, lives = bench.leased(2)
    bench.leases.session_lost(bench.job)
    bench.end(died, 3, "(pid 1, node n1)\nit died")
    bench.outbox.take()
    bench.leases.session_begins(bench.job)
    never = identity("never")
    bench.demand(0, lease_ids=died + lives + never)
    ended = bench.sent(m.LeaseEnded)[bench.job.process_id]
    assert [(one.lease_id, one.begun) for one in ended] == [(died, 3), (never, ANY_NUMBER)]
    assert (ended[1].text, ended[1].told) == (UNKNOWN, ANY_NUMBER)


def test_leases_of_before_a_restart_go_on() -> None:
    bench = Bench(cpus=2, awaited="n1")
    one, two, three = (identity(name) for name in ("1", "2", "3"))
    bench.demand(2, lease_ids=one + two + three)
    assert bench.open() == [False]
    bench.leases.announced(bench.n1, [announced(one, bench.job)], bench.now)
    bench.end(two, 5, "(pid 1, node n1)\nit died")  # the head of before was not there to hear it
    assert bench.free() == 1
    bench.turn()
    assert not bench.outbox  # nodes may be to come
    bench.recovery.end()
    bench.turn()
    ended = bench.sent(m.LeaseEnded)[bench.job.process_id]
    assert [(gone.lease_id, gone.begun) for gone in ended] == [(two, 5), (three, ANY_NUMBER)]
    bench.turn(PAUSE)
    assert bench.open() == [True]
    bench.end(one)
    assert bench.free() == 2 and list(bench.sent(m.LeaseEnded)) == [bench.job.process_id]


def test_leases_of_a_job_that_is_not_known_are_not_adopted() -> None:
    bench = Bench(cpus=2)
    lease = m.HeldLease(identity("1"), *(identity("x"),) * 2, [("CPU", UNIT)], WORKER)
    bench.leases.announced(bench.n1, [lease], bench.now)
    assert bench.free() == 2 and not bench.lease_table
