"""Workers leased to drivers on their own machine, told on purpose: what only these have."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import NEAR, near, one_burst, warm
from tests.sim.stories import burst, failures, leased, lessees, runs, until_done, workers
from zray import limits
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep, Wait
from zray.testing.world.errors import LOSSES

CANCELLED = "ZR-3002"


# ---- the way in ----------------------------------------------------------------------------


def test_a_burst_before_there_is_a_node_goes_by_leases_once_it_joins() -> None:
    """All but a few: the others wait where they were submitted."""

    def story(driver: Any, random: Random) -> Program:
        for count in (200, 1000):
            values = yield Get(burst(driver, 0.0005, count, max_retries=0))
            assert [value.number for value in values] == list(range(count))

    with near(22, nodes=[]) as cluster:
        cluster.run(story)
        cluster.run_for(0.2)
        cluster.add_node({"CPU": 2 * limits.RESOURCE_UNIT})
        until_done(cluster)
        assert leased(cluster) >= 1200 - 40
        cluster.finish()


def test_one_task_after_the_other_goes_by_lease() -> None:
    def story(driver: Any, random: Random) -> Program:
        for number in range(50):
            values = yield Get(driver.submit("add", [0.0005, 0, number], max_retries=0))
            assert values[0].number == number

    with near(2) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert leased(cluster) >= 45
        cluster.finish()


def test_results_that_are_not_there_yet_are_arguments() -> None:
    """They never leave the driver's hands: the head hears of none."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        last = driver.submit("add", [0.001, 0, 1])
        for _ in range(20):
            last = driver.submit("add", [0.001, 0, last[0], 1])
        values = yield Get(last)
        assert values[0].number == 21

    with near(3) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert leased(cluster) >= 21
        cluster.finish()


def test_a_driver_elsewhere_has_no_leases() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        yield Get(burst(driver, 0.001, 50))

    with SimCluster(4, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert not leased(cluster) and runs(cluster, "add") == [1] * 60
        cluster.finish()


# ---- what a worker has not begun -----------------------------------------------------------


def test_what_a_stopped_worker_has_not_taken_runs_elsewhere() -> None:
    """SIGSTOP in the middle of a burst: what waits in its queue is taken back, without it."""

    with near(7) as cluster:
        cluster.run(one_burst(NEAR, 0.01, 40))
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 4, 5.0)
        stopped = lessees(cluster)[0]
        stopped.frozen_until = cluster.clock.now + 10.0
        cluster.run_for(3.0)
        ended = [
            run
            for deed in cluster.ledger.tasks.values()
            for run in deed.runs
            if run.ended is not None
        ]
        assert len(ended) >= 50 - 2  # what it runs, and what it had read
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 50
        cluster.finish()


def test_a_task_that_waits_keeps_nothing_behind_it() -> None:
    """One CPU: parents whose children go by way of the head, and siblings in their queue."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(10):
            yield Get(driver.submit("tree", [0.00005, 0, 0]))
        parents = [driver.submit("tree", [0.00005, 2, 2])[0] for _ in range(20)]
        values = yield Get(parents)
        assert [value.number for value in values] == [7] * 20

    with near(8, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert set(runs(cluster, "tree")) == {1}
        assert leased(cluster) >= 9
        cluster.finish()


# ---- ends of leases ------------------------------------------------------------------------


def test_a_worker_without_work_is_nobodys() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        yield Get(burst(driver, 0.001, 20))
        yield Sleep(1.0)

    with near(9) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 2, 5.0)
        cluster.run_until(lambda: not lessees(cluster), 1.0)
        cluster.run_for(0.1)
        scheduler = cluster.raylets[0].raylet.scheduler
        assert scheduler.free == scheduler.total
        assert cluster.head is not None
        for node in cluster.head.gcs.scheduler.nodes.values():
            assert node.free == node.total
        assert not cluster.drivers[0].leased.wires
        cluster.finish()


def keeps(seconds: float, cpus: float = 1.0) -> Any:
    """A program that always has some tasks under way."""

    def story(driver: Any, random: Random) -> Program:
        options = {"max_retries": 0, "cpus": cpus}
        refs = burst(driver, seconds, 30, **options)
        while True:
            yield Get(refs[:10])
            refs = refs[10:] + burst(driver, seconds, 10, **options)

    return story


def loops(seconds: float) -> Any:
    """A program that waits for each of its tasks."""

    def story(driver: Any, random: Random) -> Program:
        while True:
            yield Get(driver.submit("add", [seconds, 0, 1], max_retries=0))

    return story


def shares(cluster: SimCluster, seconds: float) -> list[float]:
    """CPU time that each driver's tasks get from now on."""
    began = cluster.clock.now
    cluster.run_for(seconds)
    ended = cluster.clock.now
    used = dict.fromkeys((driver.process_id for driver in cluster.drivers), 0.0)
    for deed in cluster.ledger.tasks.values():
        for run in deed.runs:
            until = min(run.ended or ended, ended)
            cpus = dict(deed.template.resources)["CPU"] / limits.RESOURCE_UNIT
            used[deed.job_id] += max(0.0, until - max(run.began, began)) * cpus
    return [*used.values()]


def words(cluster: SimCluster, kind: type[m.Message]) -> list[int]:
    """How many of a kind the head says to nodes, or hears, from now on."""
    count = [0]

    def counts(link: Any, upwards: bool, messages: list[m.Message]) -> bool:
        count[0] += sum(isinstance(message, kind) for message in messages)
        return False

    cluster.network.traps.append((counts, False))
    return count


@pytest.mark.parametrize(
    ("cpus", "programs", "least"),
    [
        (2, [keeps(0.001), keeps(0.001)], 1.9),
        (2, [keeps(0.001), keeps(0.02)], 1.9),
        (2, [keeps(0.001), keeps(0.005), keeps(0.01)], 1.8),
        (1, [keeps(0.005), keeps(0.005)], 0.9),
        (3, [keeps(0.005), keeps(0.001)], 2.8),
        (2, [keeps(0.005), keeps(0.02, 2.0)], 1.8),
        (2, [loops(0.002), loops(0.002), loops(0.002)], 1.2),
        (2, [keeps(0.002) for _ in range(7)], 1.7),
    ],
)
def test_jobs_that_want_the_same_get_the_same(cpus: int, programs: list[Any], least: float) -> None:
    """In CPU time, whatever their tasks are like, and little of that is lost."""
    with near(23, drivers=len(programs), nodes=[{"CPU": cpus}]) as cluster:
        for number, program in enumerate(programs):
            cluster.run(program, number)
            cluster.run_for(0.1)
        cluster.run_for(1.0)
        revoked = words(cluster, m.Revoke)
        used = shares(cluster, 2.0)
        assert sum(used) >= least * 2.0, used
        assert max(used) - min(used) < 0.1 * (max(used) + min(used)), used
        assert revoked[0] < 2.0 * 100


def test_equal_shares_of_leases_stay_as_they_are() -> None:
    with near(24, drivers=2, nodes=[{"CPU": 4}]) as cluster:
        cluster.run(keeps(0.005))
        cluster.run_for(0.3)
        cluster.run(keeps(0.001), 1)
        cluster.run_for(0.3)
        counts = [words(cluster, kind) for kind in (m.Grant, m.Revoke, m.Submit, m.Leasing)]
        used = shares(cluster, 1.0)
        assert min(used) > 1.9 and counts == [[0]] * 4


@pytest.mark.parametrize("seed", range(24, 30))
def test_a_task_that_needs_more_than_the_part_of_its_job_has_its_turn(seed: int) -> None:
    """Also where a driver comes too late for a lease that is to end by then."""

    def both(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.002)
        for _ in range(5):
            refs = burst(driver, 0.002, 50, max_retries=0)
            wide = driver.submit("add", [0.02, 0, 1], max_retries=0, cpus=2.0)
            yield Get([*refs, *wide])

    with near(seed, drivers=2) as cluster:
        cluster.run(keeps(0.002))
        cluster.run(both, 1)
        cluster.run_until(cluster.drivers[1].idle, 2.5)


def test_who_comes_later_has_a_part_at_once() -> None:
    def one(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.002, 1))

    with near(25, drivers=3) as cluster:
        cluster.run(keeps(0.002))
        cluster.run(keeps(0.002), 1)
        cluster.run_for(1.0)
        for _ in range(5):
            began = cluster.clock.now
            cluster.run(one, 2)
            cluster.run_until(cluster.drivers[2].idle, 1.0)
            assert cluster.clock.now - began < 0.02
            cluster.run_for(0.05)


@pytest.mark.parametrize("cpus", [0.5, 1.0])
def test_a_task_with_other_needs_does_not_wait_for_ever(cpus: float) -> None:
    """Loops of the same job keep all leases busy, with nothing that would be seen to wait."""

    def loop(driver: Any, random: Random) -> Program:
        for _ in range(100):
            yield Get(driver.submit("add", [0.02, 0, 1], max_retries=0))

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(0.5)
        options = {"cpus": cpus, "num_returns": 2, "max_retries": 0}
        yield Get(driver.submit("several", [0.02, 5], **options))
        assert not driver.threads[0].done

    with near(12, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(loop)
        cluster.run(loop)
        cluster.run(other)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 200
        assert leased(cluster) > 50
        cluster.finish()


# ---- cancelling ----------------------------------------------------------------------------


def test_the_grace_of_a_cancel_does_not_kill_the_task_after_it() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        refs = burst(driver, 3.0, 2, max_retries=0)
        yield Sleep(0.1)
        for ref in refs:
            driver.cancel(ref, force=False)
        others = burst(driver, 4.0, 4, max_retries=0)
        errors = yield from failures(refs)
        assert {error.code for error in errors} <= {CANCELLED}
        yield Get(others)

    for seed in range(6):
        with near(seed) as cluster:
            cluster.excuse(CANCELLED)
            cluster.run(story)
            until_done(cluster)
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add")[12:] == [1] * 4
            cluster.finish()


# ---- values --------------------------------------------------------------------------------


def test_a_large_result_that_is_lost_is_made_again() -> None:
    """Its node is replaced: the head has heard how it was made."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        large = [driver.submit("add", [0.001, 5000, n], max_retries=3)[0] for n in range(4)]
        yield Wait(large, 5.0)
        yield Sleep(30.0)
        values = yield Get(large)
        assert [value.number for value in values] == list(range(4))

    with near(19, bounds={"INLINE_BYTES_MAX": 1000}) as cluster:
        cluster.excuse(*LOSSES)
        cluster.run(story)
        cluster.run_for(2.0)
        assert leased(cluster) > 10
        cluster.replace(cluster.raylets[0], 0.5, same_id=False)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert runs(cluster, "add")[10:] == [2] * 4
        cluster.finish()


# ---- races ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1.0, 12.0, 40.0])
def test_a_submitter_that_stops_for_a_while(seconds: float) -> None:
    """Its workers end what they have; it hears of all that when it goes on, or its job is lost."""

    with near(20, drivers=2) as cluster:
        cluster.excuse("stopped")
        cluster.run(one_burst(NEAR, 0.01, 100))
        cluster.run_until(lambda: leased(cluster) > 20, 5.0)
        cluster.freeze(cluster.drivers[0], seconds)
        until_done(cluster, 120.0)
        if seconds < 20.0:
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add") == [1] * 110
        cluster.finish()


@pytest.mark.parametrize("same_id", [True, False])
def test_a_raylet_that_starts_again_has_no_leases(same_id: bool) -> None:
    with near(21) as cluster:
        cluster.run(one_burst(NEAR, 0.01, 100, max_retries=1))
        cluster.run_until(lambda: leased(cluster) > 20, 5.0)
        cluster.replace(cluster.raylets[0], 0.05, same_id=same_id)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert sum(runs(cluster, "add")) <= 110 + 2
        cluster.finish()


# ---- words that are lost -------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [m.Demand, m.Grant, m.Leased, m.LeaseEnded, m.Leasing, m.Revoke, m.CancelLeased]
)
@pytest.mark.parametrize("upwards", [True, False])
def test_a_word_about_a_lease_is_lost_at_a_cut(kind: type[m.Message], upwards: bool) -> None:
    """Nothing runs twice for that, nothing hangs, and nothing is left."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(3):
            values = yield Get(burst(driver, 0.002, 40, max_retries=0))
            assert [value.number for value in values] == list(range(40))
            late = driver.submit("add", [5.0, 0, 1], max_retries=0)
            yield Sleep(0.05)
            driver.cancel(late[0], force=True)
            yield Sleep(0.3)

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(0.05)
        yield Get(burst(driver, 0.002, 10, max_retries=0))

    with near(19, drivers=2) as cluster:
        cluster.run_for(0.1)
        peer = cluster.raylets[0] if upwards else cluster.drivers[0]
        cluster.cut_at(kind, peer)
        cluster.run(story)
        cluster.run(other, 1)
        until_done(cluster)
        assert all(count <= 1 for count in runs(cluster, "add"))
        cluster.finish()


def test_no_worker_is_left_over() -> None:
    """Of leases that ended while others began, workers are neither lost nor too many."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(20):
            yield Get(burst(driver, 0.001, 10, max_retries=0))
            yield Sleep(random.uniform(0.05, 0.15))

    with near(20) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert len(workers(cluster)) <= 4
        cluster.finish()
