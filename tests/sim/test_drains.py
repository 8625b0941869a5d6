"""Nodes that are emptied, each story told on purpose: what runs ends, the rest goes elsewhere."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import far, near, warm
from tests.sim.stories import burst, counter, leased, runs, started, until_done
from zray import limits
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep

TASKS = 40


def some_tasks(driver: Any, random: Random) -> Program:
    refs = [driver.submit("add", [0.2, 0, number])[0] for number in range(TASKS)]
    values = yield Get(refs)
    assert [value.number for value in values] == list(range(TASKS))


def drained(cluster: SimCluster, place: int = 0) -> bool:
    return not cluster.raylets[place].alive


def state(cluster: SimCluster, place: int = 0) -> str:
    if cluster.head is None:
        return "no head"
    node = cluster.head.gcs.members.nodes.get(cluster.raylets[place].raylet.node_id)
    return node.state() if node is not None else "gone"


@pytest.mark.parametrize("seed", range(6))
def test_what_runs_ends_and_what_waits_goes_elsewhere(seed: int) -> None:
    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(some_tasks)
        cluster.run_until(started(cluster, "add", 4), 10)
        cluster.drain(cluster.raylets[0])
        cluster.run_until(lambda: drained(cluster), 10, "the node leaves")
        until_done(cluster)
        assert runs(cluster, "add") == [1] * TASKS  # nothing was lost, nothing ran twice
        assert counter(cluster, "retried") == 0
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_a_head_that_starts_again_goes_on(seed: int) -> None:
    def long(driver: Any, random: Random) -> Program:
        refs = [driver.submit("add", [3.0, 0, number])[0] for number in range(4)]
        refs += [driver.submit("add", [0.1, 0, number])[0] for number in range(TASKS)]
        yield Get(refs)

    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(long)
        cluster.run_until(started(cluster, "add", 4), 10)
        cluster.drain(cluster.raylets[0])
        cluster.run_until(lambda: state(cluster) == "DRAINING", 5)
        cluster.restart_head(0.2)
        cluster.run_until(lambda: state(cluster) == "DRAINING", 10)
        cluster.run_until(lambda: drained(cluster), 20, "the node leaves")
        until_done(cluster)
        assert runs(cluster, "add") == [1] * (TASKS + 4)
        cluster.finish()


def test_a_node_that_dies_meanwhile_is_still_drained_when_it_is_back() -> None:
    with SimCluster(3, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(some_tasks)
        cluster.run_until(started(cluster, "add", 4), 10)
        cluster.drain(cluster.raylets[0])
        cluster.run_for(0.05)
        cluster.replace(cluster.raylets[0], 1.0, same_id=True)
        until_done(cluster)
        cluster.run_until(lambda: len(cluster.raylets) == 3 and drained(cluster, 2), 30)
        cluster.finish()


def test_where_all_nodes_are_drained_tasks_wait_for_another() -> None:
    with SimCluster(2, nodes=[{"CPU": 1}, {"CPU": 1}]) as cluster:
        cluster.run(some_tasks)
        cluster.run_until(started(cluster, "add", 2), 10)
        for raylet in cluster.raylets:
            cluster.drain(raylet)
        cluster.run_until(lambda: drained(cluster, 0) and drained(cluster, 1), 10)
        assert not all(driver.idle() for driver in cluster.drivers)
        cluster.add_node({"CPU": 2 * limits.RESOURCE_UNIT})
        until_done(cluster)
        assert runs(cluster, "add") == [1] * TASKS
        cluster.finish()


def test_the_deadline_ends_what_runs() -> None:
    def endless(driver: Any, random: Random) -> Program:
        first = driver.submit("add", [30.0, 0, 7])
        (value,) = yield Get(first)
        assert value.number == 7

    with SimCluster(4, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(endless)
        cluster.run_until(started(cluster, "add", 1), 10)
        cluster.add_node({"CPU": limits.RESOURCE_UNIT})
        cluster.run_for(1.0)
        cluster.history.nodes_died += 1
        cluster.drain(cluster.raylets[0], deadline_s=2.0)
        cluster.run_for(1.0)
        assert state(cluster) == "DRAINING"
        cluster.run_until(lambda: drained(cluster), 4, "the node leaves")
        until_done(cluster)
        assert runs(cluster, "add") == [2]  # a retry, on the other node
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_values_that_only_it_has_are_copied(seed: int) -> None:
    size = 3 * limits.INLINE_BYTES_MAX

    def large(driver: Any, random: Random) -> Program:
        refs = [driver.submit("add", [0.01, size, number])[0] for number in range(12)]
        yield Sleep(3.0)
        values = yield Get(refs)
        assert len(values) == 12

    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(large)
        cluster.run_for(1.0)
        cluster.drain(cluster.raylets[0])
        cluster.run_until(lambda: drained(cluster), 1.9, "the node leaves, before they are used")
        until_done(cluster)
        assert counter(cluster, "lost") == 0 and counter(cluster, "rebuilt") == 0
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_values_that_nobody_can_take_wait_for_a_node_or_the_deadline(seed: int) -> None:
    """Then they went with it, and are made again."""
    size = 3 * limits.INLINE_BYTES_MAX

    def large(driver: Any, random: Random) -> Program:
        refs = [driver.submit("add", [0.01, size, number])[0] for number in range(4)]
        yield Sleep(8.0)
        yield Get(refs)

    with SimCluster(seed, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(large)
        cluster.run_for(1.0)
        cluster.history.nodes_died += 1
        cluster.drain(cluster.raylets[0], deadline_s=4.0)
        cluster.run_for(3.0)
        assert state(cluster) == "DRAINING"
        cluster.run_until(lambda: drained(cluster), 3.0, "the node leaves")
        cluster.add_node({"CPU": 2 * limits.RESOURCE_UNIT})
        until_done(cluster)
        assert counter(cluster, "rebuilt") == 4
        cluster.finish()


@pytest.mark.parametrize("way", [near, far])
@pytest.mark.parametrize("seed", range(3))
def test_leased_workers_are_left_and_others_found(seed: int, way: Any) -> None:
    def burst_of(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.05)
        yield Get(burst(driver, 0.05, 200))

    with way(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(burst_of)
        cluster.run_until(lambda: leased(cluster) > 20, 20)
        cluster.drain(cluster.raylets[0])
        cluster.run_until(lambda: drained(cluster), 5, "the node leaves")
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 210
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_tasks_that_wait_for_their_own_tasks_end(seed: int) -> None:
    def trees(driver: Any, random: Random) -> Program:
        refs = [driver.submit("tree", [0.05, 3, 2])[0] for _ in range(6)]
        values = yield Get(refs)
        assert [value.number for value in values] == [15] * 6

    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(trees)
        cluster.run_until(started(cluster, "tree", 8), 10)
        cluster.drain(cluster.raylets[0])
        cluster.run_until(lambda: drained(cluster), 30, "the node leaves")
        until_done(cluster)
        assert runs(cluster, "tree") == [1] * 90
        cluster.finish()


def host(cluster: SimCluster) -> Any:
    """The node on which the only actor lives; None: it does not."""
    for raylet in cluster.raylets:
        if raylet.alive and raylet.raylet.actors.announced():
            return raylet
    return None


@pytest.mark.parametrize("seed", range(4))
def test_an_actor_that_may_restart_does_so_elsewhere(seed: int) -> None:
    def calls(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1, max_task_retries=-1)
        for _ in range(60):
            yield Get(driver.call(actor, "inc", [0.01, 1]))
            yield Sleep(0.05)

    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(calls)
        cluster.run_until(lambda: host(cluster) is not None, 10)
        first = host(cluster)
        cluster.run_for(0.5)
        cluster.drain(first)
        cluster.run_until(lambda: not first.alive, 3, "the node leaves")
        cluster.run_until(lambda: host(cluster) not in (None, first), 5, "it lives elsewhere")
        until_done(cluster)
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_an_actor_that_may_not_restart_stays_until_it_ends(seed: int) -> None:
    def calls(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        for number in range(60):
            (value,) = yield Get(driver.call(actor, "inc", [0.01, 1]))
            assert value.number == number + 1
            yield Sleep(0.05)

    with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(calls)
        cluster.run_until(lambda: host(cluster) is not None, 10)
        first = host(cluster)
        cluster.drain(first)
        cluster.run_for(2.0)
        assert first.alive and not all(driver.idle() for driver in cluster.drivers)
        until_done(cluster)
        cluster.run_until(lambda: not first.alive, 10, "the node leaves when the actor has ended")
        cluster.finish()
