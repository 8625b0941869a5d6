"""Tasks that go straight to leased workers, near and far: what holds for both, told on purpose."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import FAR, Way, both_ways, each_way, kill_in_a_task, linked, one_burst
from tests.sim.stories import burst, failure, failures, leased, lessees, runs, until_done
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Nested, Program, Sleep

CRASHED, CANCELLED = "ZR-3003", "ZR-3002"


def ends_through_head(cluster: SimCluster) -> list[int]:
    """How many ends of tasks pass the head from now on, in a list of one number."""
    count = [0]

    def counts(link: Any, upwards: bool, messages: list[m.Message]) -> bool:
        count[0] += sum(len(msg.tasks) for msg in messages if isinstance(msg, m.Done))
        return False

    cluster.network.traps.append((counts, False))
    return count


# ---- the way in ----------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "nodes"), [(0.0001, 1), (0.0005, 2)])
@both_ways(near=1, far=1)
def test_a_burst_goes_by_leases(way: Way, seed: int, seconds: float, nodes: int) -> None:
    """But for what came before there was a lease, no end passes the head."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, seconds)
        for _ in range(3):
            values = yield Get(burst(driver, seconds, 100, max_retries=0))
            assert [value.number for value in values] == list(range(100))

    with way.cluster(seed, nodes=[{"CPU": 2} for _ in range(nodes)]) as cluster:
        passed = ends_through_head(cluster)
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * (way.warmed + 300)
        assert leased(cluster) >= 300
        assert passed == [way.warmed + 300 - leased(cluster)]
        # One to each node elsewhere, whatever the number of leases.
        assert len(linked(cluster)) == (nodes if way is FAR else 0)
        cluster.finish()


@both_ways(near=5, far=4)
def test_a_worker_that_cannot_be_reached_is_given_back(way: Way, seed: int) -> None:
    """There are no descriptors left: tasks go by way of the head, for good."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(3):
            yield Get(burst(driver, 0.001, 30, max_retries=0))
            yield Sleep(0.3)

    with way.cluster(seed, direct=0.0) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert not leased(cluster) and runs(cluster, "add") == [1] * 90
        cluster.finish()


@both_ways(near=6, far=5)
def test_a_full_queue_keeps_nothing_waiting_for_ever(way: Way, seed: int) -> None:
    with way.cluster(seed, packets_max=1) as cluster:
        cluster.run(one_burst(way, 0.00005, 300))
        until_done(cluster)
        assert runs(cluster, "add") == [1] * (way.warmed + 300)
        assert leased(cluster) >= 290
        cluster.finish()


# ---- deaths --------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "most"), [(0.0001, 25), (0.002, 1)])
@each_way
def test_a_dead_worker_is_charged_with_what_it_had_begun(
    way: Way, seconds: float, most: int
) -> None:
    """Nothing may be retried: what had not begun runs elsewhere. Ends of short tasks that it had
    not told yet are lost with it."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, seconds)
        errors = yield from failures(burst(driver, seconds, 500, max_retries=0))
        for error in errors:
            assert error.code == CRASHED
            assert "the worker (pid" in str(error) and "that ran add died" in str(error)
        assert len(errors) <= most, errors

    for seed in range(5):
        with way.cluster(seed) as cluster:
            cluster.run(story)
            cluster.run_until(lambda: leased(cluster) > 50, 5.0)
            kill_in_a_task(cluster)
            until_done(cluster)
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add") == [1] * (way.warmed + 500)
            cluster.finish()


@both_ways(near=13, far=18)
def test_a_task_that_its_worker_took_with_it_is_tried_again(way: Way, seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001, "crashes")
        dying = driver.submit("crashes", [0.001, 2], max_retries=2)
        hopeless = driver.submit("crashes", [0.001, 9], max_retries=1)
        others = burst(driver, 0.001, 40, max_retries=0)
        values = yield Get(dying)
        assert values[0].number == 8
        error = yield from failure(hopeless)
        assert error.code == CRASHED
        yield Get(others)

    with way.cluster(seed) as cluster:
        cluster.excuse(CRASHED)
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "crashes") == [1] * way.warmed + [3, 2]
        assert runs(cluster, "add") == [1] * 40
        assert leased(cluster, "crashes") > 12
        cluster.finish()


@pytest.mark.parametrize("same_id", [True, False])
@both_ways(near=16, far=11)
def test_a_node_that_dies_takes_what_it_ran(way: Way, seed: int, same_id: bool) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from one_burst(way, 0.01, 200, max_retries=1)(driver, random)
        yield Sleep(1.0)
        yield Get(burst(driver, 0.01, 100, max_retries=1))

    with way.cluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 4 and leased(cluster) > 40, 5.0)
        cluster.replace(cluster.raylets[0], 5.0, same_id=same_id)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert sum(runs(cluster, "add")) <= way.warmed + 300 + 4
        cluster.finish()


@both_ways(near=15, far=12)
def test_a_submitter_that_dies_leaves_nothing(way: Way, seed: int) -> None:
    def other(driver: Any, random: Random) -> Program:
        yield Sleep(2.0)
        yield Get(burst(driver, 0.001, 10, max_retries=0))

    with way.cluster(seed, drivers=2) as cluster:
        cluster.run(one_burst(way, 0.01, 1000, max_retries=3))
        cluster.run(other, 1)
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        cluster.drivers[0].die()
        before = leased(cluster)
        cluster.run_for(0.3)
        assert leased(cluster) <= before + 4 and not lessees(cluster)
        until_done(cluster)
        cluster.finish()


@pytest.mark.parametrize("after_s", [0.01, 1.0, 30.0])
@both_ways(near=14, far=13)
def test_leases_go_on_while_the_head_restarts(way: Way, seed: int, after_s: float) -> None:
    with way.cluster(seed) as cluster:
        cluster.run(one_burst(way, 0.01, 400))
        enough = way.warmed + 10
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > enough, 5.0)
        cluster.restart_head(after_s)
        before = leased(cluster)
        cluster.run_for(min(after_s, 1.0))
        if after_s >= 1.0:
            assert leased(cluster) > before + 100
        until_done(cluster)
        assert runs(cluster, "add") == [1] * (way.warmed + 400)
        cluster.finish()


# ---- who waits, and what is cancelled -------------------------------------------------------


@both_ways(near=10, far=15)
def test_another_job_does_not_wait_for_one_that_has_all_leases(way: Way, seed: int) -> None:
    def greedy(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.005)
        for _ in range(8):
            yield Get(burst(driver, 0.005, 200, max_retries=0))
            yield Sleep(0.2)

    def modest(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("several", [0.02, 5], num_returns=2, max_retries=0))

    with way.cluster(seed, drivers=2) as cluster:
        cluster.run(greedy)
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 100, 5.0)
        before = cluster.clock.now
        cluster.run(modest, 1)
        cluster.run_until(cluster.drivers[1].idle, 1.0)
        assert cluster.clock.now - before < 0.1
        assert not cluster.drivers[0].idle()
        until_done(cluster)
        assert leased(cluster) > 1200  # nobody waits any more: by leases again
        assert runs(cluster, "add") == [1] * (way.warmed + 1600)
        cluster.finish()


@pytest.mark.parametrize("seed", range(8))
@each_way
def test_a_lease_that_is_revoked_as_tasks_begin(way: Way, seed: int) -> None:
    """Whatever the worker has begun it ends, and nothing else; it may be stopped in between."""

    def greedy(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.0002)
        for _ in range(6):
            yield Get(burst(driver, 0.0002, 60, max_retries=0))
            yield Sleep(0.12)

    def modest(driver: Any, random: Random) -> Program:
        for _ in range(12):
            yield Sleep(random.uniform(0.0, 0.12))
            yield Get(driver.submit("several", [0.0001, 5], num_returns=2, max_retries=0))

    with way.cluster(seed, drivers=2) as cluster:
        cluster.run(greedy)
        cluster.run(modest, 1)
        for number in range(20):
            cluster.run_for(0.03)
            for worker in lessees(cluster)[: number % 2]:
                worker.frozen_until = cluster.clock.now + 0.03
        until_done(cluster)
        assert runs(cluster, "add") == [1] * (way.warmed + 360)
        assert runs(cluster, "several") == [1] * 12
        cluster.finish()


@pytest.mark.parametrize("after_s", [0.0, 0.0003, 0.001, 0.1])
@pytest.mark.parametrize("seed", range(6))  # some of the running ones swallow it
@each_way
def test_a_cancel_reaches_a_task_wherever_it_is(way: Way, seed: int, after_s: float) -> None:
    """In the driver, on its way, in a queue, behind a running task in its worker, and running."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.01)
        refs = burst(driver, 0.3, 12, max_retries=0)
        yield Sleep(after_s)
        for number, ref in enumerate(refs):
            driver.cancel(ref, force=number % 3 == 0)
        errors = yield from failures(refs)
        assert {error.code for error in errors} == {CANCELLED}
        assert len(errors) >= 12 - 2, errors
        yield Get(burst(driver, 0.01, 10, max_retries=0))

    with way.cluster(seed) as cluster:
        cluster.excuse(CANCELLED)
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert sum(runs(cluster, "add")) <= way.warmed + 4 + 10
        cluster.finish()


# ---- values --------------------------------------------------------------------------------


@both_ways(near=17, far=16)
def test_a_large_result_stays_with_its_node(way: Way, seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        large = [driver.submit("add", [0.001, 5000, n])[0] for n in range(20)]
        sums = [driver.submit("add", [0.001, 0, ref, 1])[0] for ref in large]
        values = yield Get(sums)
        assert [value.number for value in values] == list(range(1, 21))
        yield Sleep(1.0)
        values = yield Get(large)
        assert [value.number for value in values] == list(range(20))

    with way.cluster(seed, bounds={"INLINE_BYTES_MAX": 1000}) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert set(runs(cluster, "add")) == {1} and leased(cluster) > 10
        cluster.finish()


@both_ways(near=18, far=17)
def test_references_in_arguments_and_results_live(way: Way, seed: int) -> None:
    """Kept by workers beyond their tasks, returned by tasks that forget them, dropped at once."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.0005)
        for number in range(10):
            mine = driver.put(30)
            made = driver.submit("child_ref", [0.0005, 11])
            kept = driver.submit("keep", [0.0005, Nested([mine, made[0]])])
            passed = driver.submit("pass_on", [0.0005, Nested([mine])])
            mine.drop()
            values = yield Get([*made, *passed])
            assert [value.number for value in values] == [11, 30]
            made[0].drop()
            if number % 2:
                yield Sleep(0.2)  # leases end meanwhile
            inner = yield Get(values[0].refs)
            assert inner[0].number == 11
            yield Get(kept)
            driver.submit("let_go", [0.0005])

    with way.cluster(seed, nodes=[{"CPU": 4}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert leased(cluster) > 10
        cluster.finish()
