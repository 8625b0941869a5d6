"""Large results that go with their nodes: whoever wants them gets them, or is told why not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import until_done
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep, TaskFailed

BOUNDS = {"INLINE_BYTES_MAX": 1000, "LINEAGE_PIN_BYTES_MAX": 100}
LARGE = 5000


def rebuilt(cluster: SimCluster) -> int:
    assert cluster.head is not None
    return cluster.head.gcs.counters["rebuilt"]


def test_what_two_dead_nodes_had_is_made_again_in_order() -> None:
    def story(driver: Any, random: Random) -> Program:
        first = driver.submit("add", [0.01, LARGE, 1])
        second = driver.submit("add", [0.01, LARGE, first[0], 1])
        third = driver.submit("add", [0.01, LARGE, second[0], 1])
        first[0].drop()
        second[0].drop()
        yield Sleep(5.0)
        values = yield Get(third)
        assert values[0].number == 3

    with SimCluster(31, nodes=[{"CPU": 1}, {"CPU": 1}], bounds=BOUNDS) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        for raylet in [*cluster.raylets]:
            cluster.replace(raylet, 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert rebuilt(cluster) == 3
        cluster.finish()


def test_what_a_waiting_task_needs_is_made_again_by_the_only_cpu() -> None:
    """The task that waits was given that CPU; it must not keep it from those it waits for."""

    def story(driver: Any, random: Random) -> Program:
        parts = [driver.submit("add", [0.2, LARGE, n])[0] for n in (1, 2)]
        yield Sleep(5.0)
        values = yield Get(driver.submit("add", [0.2, 0, *parts]))
        assert values[0].number == 3

    with SimCluster(33, nodes=[{"CPU": 1}], bounds=BOUNDS) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        cluster.replace(cluster.raylets[0], 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert rebuilt(cluster) == 2
        cluster.finish()


def test_without_retries_it_is_lost_and_says_so() -> None:
    def story(driver: Any, random: Random) -> Program:
        made = driver.submit("add", [0.01, LARGE, 1], max_retries=0)
        yield Sleep(5.0)
        with pytest.raises(TaskFailed) as raised:
            yield Get(made)
        assert raised.value.code == "ZR-3005"

    with SimCluster(32, bounds=BOUNDS) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        cluster.replace(cluster.raylets[0], 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert rebuilt(cluster) == 0
        cluster.finish()


@pytest.mark.parametrize("seed", range(40))
def test_trees_of_large_results_survive_the_loss_of_nodes(seed: int) -> None:
    """Results are kept while nodes die at random moments; every number is right in the end."""
    random = Random(seed)

    def story(driver: Any, _random: Random) -> Program:
        leaves = [driver.submit("add", [0.05, LARGE, n], max_retries=-1)[0] for n in range(6)]
        pairs = [
            driver.submit("add", [0.05, LARGE, *leaves[at : at + 2]], max_retries=-1)[0]
            for at in (0, 2, 4)
        ]
        for leaf in leaves[: random.randrange(6)]:
            leaf.drop()
        yield Sleep(random.uniform(0.5, 8.0))
        total = driver.submit("add", [0.05, 0, *pairs], max_retries=-1)
        values = yield Get([*pairs, *total])
        assert [value.number for value in values] == [1, 5, 9, 15]

    nodes = [{"CPU": 1}, {"CPU": 2}, {"CPU": 1}]
    with SimCluster(seed, nodes=nodes, bounds=BOUNDS) as cluster:
        cluster.run(story)
        for _ in range(random.randint(1, 4)):
            cluster.run_for(random.uniform(0.01, 2.0))
            living = [raylet for raylet in cluster.raylets if raylet.alive]
            cluster.replace(random.choice(living), random.uniform(0.1, 1.0), same_id=False)
        until_done(cluster, 200.0)
        cluster.finish()
