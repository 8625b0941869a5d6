"""Tasks that are to end in time, told on purpose: each way that they go, and what does not stop."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import Way, both_ways
from tests.sim.stories import failure, leased, runs, until_done
from zray import limits
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep
from zray.testing.world.errors import TIMED_OUT


def too_long(driver: Any, took: list[float], **options: Any) -> Program:
    began = driver.clock.now
    error = yield from failure(driver.submit("add", [1000.0, 0, 1], timeout_s=0.5, **options))
    assert error.code == TIMED_OUT
    took.append(driver.clock.now - began)


def in_time(took: list[float]) -> bool:
    """One of five swallows its interrupt, and is killed with its worker."""
    most = 0.5 + limits.CANCEL_GRACE_S + 1.0
    return all(0.5 <= seconds <= most for seconds in took) and min(took) < 1.0 < max(took)


@both_ways(near=31, far=32)
def test_leased_tasks_end_in_time_and_others_are_not_harmed(way: Way, seed: int) -> None:
    took: list[float] = []

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        for _ in range(20):
            yield from too_long(driver, took)
            short = [driver.submit("add", [0.1, 0, n], timeout_s=0.5)[0] for n in range(4)]
            yield Get([*short, *driver.submit("add", [0.9, 0, 7], max_retries=0)])

    with way.cluster(seed) as cluster:
        cluster.excuse(TIMED_OUT)
        cluster.run(story)
        until_done(cluster, 300.0)
        assert cluster.drivers[0].threads[0].error is None
        assert in_time(took), took
        assert leased(cluster) >= 100
        assert set(runs(cluster, "add")) == {1}
        cluster.finish()


@pytest.mark.parametrize("seed", [3, 4])
def test_so_do_those_that_go_by_way_of_the_head(seed: int) -> None:
    took: list[float] = []
    needs = {"gadget": limits.RESOURCE_UNIT}

    def story(driver: Any, random: Random) -> Program:
        for _ in range(20):
            yield from too_long(driver, took, resources=needs)
            yield Get(driver.submit("add", [0.9, 0, 7], resources=needs))

    with SimCluster(seed, nodes=[{"CPU": 2, "gadget": 1}]) as cluster:
        cluster.excuse(TIMED_OUT)
        cluster.run(story)
        until_done(cluster, 300.0)
        assert cluster.drivers[0].threads[0].error is None
        assert in_time(took), took
        assert set(runs(cluster, "add")) == {1} and not leased(cluster)
        cluster.finish()


@pytest.mark.parametrize("seed", [5, 6])
def test_a_node_that_is_cut_off_ends_them_by_itself(seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        error = yield from failure(driver.submit("add", [1000.0, 0, 1], timeout_s=1.0))
        assert error.code == TIMED_OUT
        yield Sleep(0.1)

    with SimCluster(seed, nodes=[{"CPU": 1}]) as cluster:
        cluster.excuse(TIMED_OUT)
        cluster.run(story)
        cluster.run_until(lambda: runs(cluster, "add") == [1], 5.0)
        cluster.restart_head(after_s=9.0)
        cluster.run_for(8.0)
        assert not any(worker.delivered for worker in cluster.workers.values())
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        cluster.finish()
