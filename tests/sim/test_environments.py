"""Tasks whose environment a node has to build first, told on purpose: each way, and who dies."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import leased, runs, until_done
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Ref

TWO = [{"CPU": 2}, {"CPU": 2}]


def many(driver: Any, count: int, **options: Any) -> list[Ref]:
    refs = [driver.submit("add", [0.002, 0, n], **options)[0] for n in range(count)]
    for number, ref in enumerate(refs):
        driver.expect([ref], number)
    return refs


def builders(cluster: SimCluster) -> list[Any]:
    """The nodes that build something now."""
    return [one for one in cluster.raylets if one.alive and one.raylet.environments._busy]


@pytest.mark.parametrize("seed", range(4))
def test_they_wait_are_built_and_then_leased_as_all_others(seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(many(driver, 40, environment="built y"))
        yield Get(many(driver, 400, environment="built y"))

    with SimCluster(seed, nodes=TWO, machines=1, eager=True) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert set(runs(cluster, "add")) == {1}
        assert leased(cluster) > 20
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_others_run_meanwhile_on_all_cpus(seed: int) -> None:
    over: list[float] = []

    def story(driver: Any, random: Random) -> Program:
        waiting = many(driver, 8, environment="built y")
        yield Get(many(driver, 8))
        over.append(driver.clock.now)
        yield Get(waiting)
        over.append(driver.clock.now)

    with SimCluster(seed, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        cluster.finish()
    assert over[0] <= over[1]


@pytest.mark.parametrize("seed", range(4))
def test_two_that_do_not_fit_beside_each_other_take_turns(seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        for turn in range(6):
            yield Get(many(driver, 6, environment=f"built {'yz'[turn % 2]}"))

    with SimCluster(seed, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster, 120.0)
        assert cluster.drivers[0].threads[0].error is None
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fault", ["node", "head"])
def test_a_node_or_the_head_dies_while_they_wait(seed: int, fault: str) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(many(driver, 4))
        yield Get(many(driver, 30, environment="built y"))

    with SimCluster(seed, nodes=TWO) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: bool(builders(cluster)), 30.0)
        if fault == "head":
            cluster.restart_head()
        else:
            cluster.replace(builders(cluster)[0], 1.0, same_id=True)
        until_done(cluster, 120.0)
        assert cluster.drivers[0].threads[0].error is None
        cluster.finish()
