"""Leases on a node: which worker gets which, what they hold, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, RayletBench, identity, reports, spec, template, value
from zray import limits
from zray.core.machine import Outbox
from zray.core.raylet.completions import Completions
from zray.core.raylet.effects import KillWorker, StartWorker
from zray.core.raylet.leases import HostedLeases
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.workers import Workers
from zray.ids import IdSource
from zray.protocol import messages as m

JOB, DRIVER = identity("job"), identity("driver")
INFO = m.NodeInfo("n1", "host", 1, [("CPU", 4 * UNIT)], [], "machine-7")


class Requests:
    """Workers that nobody waits for."""

    def employ(self, worker_id: bytes, job_id: bytes) -> None: ...

    def idle(self, worker_id: bytes) -> bool:
        return True


class Bench:
    def __init__(self, cpus: int = 2, max_workers: int | None = None) -> None:
        self.now = 10.0
        self.effects: list[Any] = []
        self.told: list[m.Message] = []
        self.outbox: Outbox[bytes] = Outbox()
        self.scheduler = LocalScheduler({"CPU": cpus * UNIT}, 0, max_workers)
        self.completions = Completions(self.told.append, iter(range(1, 1000)))
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        self.workers = Workers(
            node="n1",
            ids=IdSource(b"raylet00"),
            outbox=self.outbox,
            scheduler=self.scheduler,
            worker_requests=Requests(),  # type: ignore[arg-type]
            effect=self.effects.append,
            setup=lambda key: m.Setup(0, key[0], job, bytes(16), "n1", True, "machine", [], ""),
            tell_head=self.told.append,
            reports=reports(),
        )
        self.built: list[str] = []
        self.leases = HostedLeases(
            *(identity("n1"), INFO, self.outbox, self.scheduler, self.workers, self.completions),
            *(self.told.append, {JOB}, lambda lease_id: 0),
            *(reports(), lambda job_id, name: name in ("", *self.built)),
        )

    def grant(self, name: str, resources: Any = (("CPU", UNIT),), job: bytes = JOB) -> m.Grant:
        grant = m.Grant(0, identity(name), job, DRIVER, [*resources])
        self.leases.on_grant(grant, self.now)
        return grant

    def slot(self, name: str) -> WorkerSlot:
        """The worker that has the lease."""
        found = [s for s in self.scheduler.workers.values() if s.lease is not None]
        return next(s for s in found if s.lease and s.lease.lease_id == identity(name))

    def idle(self) -> WorkerSlot:
        """A worker that waits for work."""
        slot = self.workers.start((JOB, (), 1, ""))
        self.scheduler.rest(slot, self.now)
        return slot

    def ends(self, name: str, begun: int = 0) -> WorkerSlot:
        slot = self.slot(name)
        self.leases.on_ended(slot, m.LeaseEnded(0, identity(name), begun), self.now)
        return slot

    def dies(self, name: str, begun: int, cause: str) -> WorkerSlot:
        slot = self.slot(name)
        self.scheduler.remove_worker(slot)
        self.leases.exited(slot, begun, cause)
        return slot

    def refused(self, name: str) -> bool:
        ends = [one for one in self.told if isinstance(one, m.LeaseEnded)]
        return any(one.lease_id == identity(name) and not one.text for one in ends)


# ---- grants ----------------------------------------------------------------------------------


def test_an_idle_worker_is_taken_before_one_is_forked() -> None:
    bench = Bench()
    first, last = bench.idle(), bench.idle()
    bench.effects.clear()
    bench.outbox.take()
    grant = bench.grant("l1")
    assert bench.slot("l1") is last and not bench.effects
    assert bench.outbox.take() == {last.worker_id: [grant]}
    assert [*bench.scheduler.idle[JOB, (), 1, ""].values()] == [first]
    assert bench.leases.announced() == [
        m.HeldLease(identity("l1"), JOB, DRIVER, [("CPU", UNIT)], last.worker_id)
    ]


def test_a_forked_one_hears_who_it_is_and_then_of_its_lease() -> None:
    bench = Bench()
    grant = bench.grant("l1", [("CPU", 2 * UNIT)])
    slot = bench.slot("l1")
    assert bench.effects == [StartWorker(slot.worker_id, (JOB, (), 2, ""))]
    setup, told = bench.outbox.take()[slot.worker_id]
    assert isinstance(setup, m.Setup) and told is grant


def test_a_lease_holds_its_resources_until_it_ends() -> None:
    bench = Bench(cpus=2)
    bench.grant("l1")
    bench.grant("l2")
    bench.grant("l3")
    assert bench.scheduler.free == {"CPU": 0}
    assert bench.refused("l3") and len(bench.leases.announced()) == 2
    slot = bench.ends("l1")
    assert bench.scheduler.free == {"CPU": UNIT} and bench.refused("l1")
    assert slot.lease is None and not slot.busy
    assert bench.scheduler.idle[JOB, (), 1, ""] == {slot.worker_id: slot}
    bench.grant("l4")
    assert bench.slot("l4") is slot


@pytest.mark.parametrize(
    ("resources", "job"),
    [
        ([("CPU", UNIT)], identity("other")),
        ([("CPU", 5 * UNIT)], JOB),
        ([("CPU", UNIT), ("GPU", UNIT)], JOB),
    ],
    ids=["unknown job", "too much", "not CPU alone"],
)
def test_what_cannot_be_is_over_at_once(resources: Any, job: bytes) -> None:
    bench = Bench()
    bench.grant("l1", resources, job)
    assert bench.refused("l1") and not bench.effects
    assert bench.scheduler.free == {"CPU": 2 * UNIT}
    assert not bench.completions.held_leases()  # it has never begun


def test_no_lease_is_begun_past_the_bound_on_workers() -> None:
    bench = Bench(cpus=4, max_workers=1)
    bench.grant("l1")
    bench.grant("l2")
    assert bench.refused("l2")


def test_no_lease_is_begun_while_workers_cannot_be_forked() -> None:
    bench = Bench()
    slot = bench.workers.start((JOB, (), 1, ""))
    bench.workers.exited(slot, 0, "exit code 1", bench.now)
    bench.grant("l1")
    assert bench.refused("l1")


def test_a_grant_that_comes_twice_is_one() -> None:
    bench = Bench()
    bench.grant("l1")
    bench.grant("l1")
    assert bench.scheduler.free == {"CPU": UNIT} and not bench.refused("l1")


# ---- what passes through -----------------------------------------------------------------------


def test_the_head_hears_where_the_worker_is() -> None:
    bench = Bench()
    bench.grant("l1")
    slot = bench.slot("l1")
    assert slot.lease is not None
    bench.leases.on_leased(slot, m.Leased(0, slot.lease))
    assert bench.told == [m.Leased(0, slot.lease, "machine-7", "n1", identity("n1"))]
    bench.ends("l1")
    bench.told.clear()
    bench.leases.on_leased(slot, m.Leased(0, bench.completions.held_leases()[0]))
    assert not bench.told


def test_a_revoke_goes_to_the_worker_that_has_the_lease() -> None:
    bench = Bench()
    bench.grant("l1")
    bench.outbox.take()
    revoke = m.Revoke(0, identity("l1"))
    bench.leases.on_revoke(revoke)
    assert bench.outbox.take() == {bench.slot("l1").worker_id: [revoke]}
    bench.leases.on_revoke(m.Revoke(0, identity("l9")))
    assert not bench.outbox.take()


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_task_that_goes_on_costs_its_worker(force: bool) -> None:
    bench = Bench()
    bench.grant("l1")
    bench.outbox.take()
    bench.effects.clear()
    slot = bench.slot("l1")
    cancel = m.CancelLeased(0, identity("l1"), identity("t0"), 3, force)
    bench.leases.on_cancel(cancel, bench.now)
    assert bench.outbox.take() == {slot.worker_id: [m.CancelTask(0, identity("t0"), 3, force)]}
    grace = limits.LEASE_FORCE_S if force else limits.CANCEL_GRACE_S
    bench.workers.tend(bench.now + 0.9 * grace)
    assert not bench.effects
    bench.workers.tend(bench.now + grace)
    assert bench.effects == [KillWorker(slot.worker_id)]


def test_a_cancelled_task_that_is_over_costs_nothing() -> None:
    bench = Bench()
    bench.grant("l1")
    slot = bench.slot("l1")
    bench.leases.on_cancel(m.CancelLeased(0, identity("l1"), identity("t0"), 1, False), bench.now)
    bench.scheduler.ended(slot, identity("t0"), bench.now)
    assert not slot.condemned
    assert slot.lease is not None and bench.scheduler.free == {"CPU": UNIT}  # the lease goes on


# ---- ends ------------------------------------------------------------------------------------


def test_an_end_is_told_until_the_head_has_it() -> None:
    bench = Bench()
    bench.grant("l1")
    held = bench.leases.announced()
    bench.ends("l1", begun=7)
    (ended,) = bench.told
    assert ended == m.LeaseEnded(1, identity("l1"), 7)
    assert bench.completions.held_leases() == held and not bench.leases.announced()
    bench.told.clear()
    bench.completions.tell_again()
    assert bench.told == [ended]
    bench.completions.acked(1)
    assert not bench.completions.held_leases() and not bench.completions.unacked


def test_a_death_is_told_with_what_had_begun() -> None:
    bench = Bench()
    bench.grant("l1")
    bench.slot("l1").pid = 4711
    bench.dies("l1", 3, "signal 9")
    assert bench.told == [m.LeaseEnded(1, identity("l1"), 3, "(pid 4711, node n1)\nsignal 9")]
    assert bench.scheduler.free == {"CPU": 2 * UNIT} and not bench.leases.announced()


def test_an_end_that_the_head_refuses_is_told_in_other_words() -> None:
    bench = Bench()
    bench.grant("l1")
    bench.dies("l1", 3, "signal 9")
    held = bench.completions.held_leases()
    assert bench.completions.refused(m.Rejected(0, 1, "ZR-1", "no")) == []
    ended = bench.told[-1]
    assert isinstance(ended, m.LeaseEnded) and (ended.seq, ended.begun) == (2, 3)
    assert ended.text == "(pid 0, node n1)\nhow it ended could not be told: no"
    assert bench.completions.held_leases() == held


# ---- in the raylet ---------------------------------------------------------------------------


WORK = template()


def raylet(cpus: float = 1) -> RayletBench:
    found = RayletBench(cpus)
    found.head(WORK)
    found.head(m.Grant(0, identity("l1"), JOB, DRIVER, [("CPU", UNIT)]))
    return found


def test_a_blocked_lease_lends_its_cpu() -> None:
    bench = raylet()
    (worker,) = bench.workers()
    bench.give(spec("t0", WORK))
    assert not bench.running()
    bench.worker(worker, m.Blocked(0))
    assert [*bench.running().values()] == [["t0"]]
    assert bench.told(m.Credit)[-1].released == [("CPU", UNIT)]
    bench.worker(worker, m.Unblocked(0))
    assert bench.raylet.scheduler.free == {"CPU": -UNIT}


def test_a_leased_worker_gets_no_tasks_from_its_raylet() -> None:
    bench = raylet(cpus=2)
    bench.give(spec("first", WORK))
    (busy,) = [worker for worker, names in bench.running().items() if names]
    done = m.TaskDone(identity("first"), 1, m.FINISHED, [value(identity("first"))], 0.00001)
    bench.worker(busy, m.Done(0, [done]))
    bench.give(*(spec(f"t{number}", WORK) for number in range(20)))
    assert [*bench.running()] == [busy]


def test_its_prints_are_of_the_function_that_it_runs() -> None:
    bench = raylet()
    (worker,) = bench.workers()
    assert bench.raylet.is_leased(worker)
    bench.worker(worker, m.Runs(0, "work"))
    bench.raylet.output.log(worker, False, ["hello"])
    bench.turn()
    assert [(log.name, log.lines) for log in bench.told(m.Log)] == [("work", ["hello"])]


def test_a_worker_that_dies_after_a_lease_has_begun_only_what_it_began_since() -> None:
    bench = raylet()
    (worker,) = bench.workers()
    bench.worker(worker, m.LeaseEnded(0, identity("l1"), 5))
    bench.give(spec("t0", WORK))
    assert bench.running() == {worker: ["t0"]}
    bench.raylet.worker_exited(worker, 5, "signal 9", bench.now)  # it had not begun that one
    bench.turn()
    assert not [done for done in bench.told(m.Done) if done.tasks[0].status == m.CRASHED]


def test_a_new_session_hears_of_leases_and_of_those_whose_end_it_may_not_know() -> None:
    bench = raylet(cpus=2)
    bench.head(m.Grant(0, identity("l2"), JOB, DRIVER, [("CPU", UNIT)]))
    first = bench.workers()[0]
    bench.worker(first, m.LeaseEnded(0, identity("l1"), 0))
    bench.to_head.clear()
    bench.raylet.session.disconnected()
    bench.welcome()
    told = bench.told(m.Message)
    (announce,) = [one for one in told if isinstance(one, m.Announce)]
    assert [held.lease_id for held in announce.leases] == [identity("l2"), identity("l1")]
    ended = [one for one in told if isinstance(one, m.LeaseEnded)]
    assert [one.lease_id for one in ended] == [identity("l1")]


def test_with_its_job_a_leased_worker_ends() -> None:
    bench = raylet()
    (worker,) = bench.workers()
    bench.head(m.JobEnded(0, JOB))
    assert KillWorker(worker) in bench.effects
    bench.raylet.worker_exited(worker, 2, "signal 9", bench.now)
    bench.turn()
    (ended,) = bench.told(m.LeaseEnded)
    assert (ended.begun, ended.text.partition("\n")[2]) == (2, "signal 9: its job has ended")
