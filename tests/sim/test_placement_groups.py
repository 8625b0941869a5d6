"""Placement groups of whole clusters, told on purpose: nodes die or are silent, heads go."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest

from zray import limits
from zray.core import bundles
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import Ask, Get, Program
from zray.testing.programs.group_workloads import grouping, holding
from zray.testing.world.errors import DEATHS

UNIT = limits.RESOURCE_UNIT
GROUP = b"group".ljust(16, b"\0")


def create(driver: SimDriver, wanted: list[m.Bundle], strategy: int, seq: int) -> m.Message:
    return m.CreateGroup(seq, GROUP, driver.process_id, strategy, wanted)


def placed(seq: int) -> m.Message:
    return m.AskGroups(seq, GROUP, placed=True)


def remove(seq: int) -> m.Message:
    return m.RemoveGroup(seq, GROUP)


def one_group(count: int, strategy: int) -> Any:
    """A program that makes a group, runs a task in each bundle, and removes it."""

    def one_group(driver: SimDriver, random: Random) -> Program:
        wanted = [m.Bundle([("CPU", UNIT)]) for _ in range(count)]
        yield Ask(partial(create, driver, wanted, strategy))
        yield Ask(placed)
        refs = []
        for index in range(count):
            needed = dict(bundles.needed([("CPU", UNIT)], GROUP, index))
            refs += driver.submit("add", [3.0, 0, index], cpus=0, resources=needed)
        values = yield Get(refs)
        assert [value.number for value in values] == list(range(count))
        yield Ask(remove)

    return one_group


def places(cluster: SimCluster) -> list[int | None]:
    """Of each bundle, the number of the raylet that has it, as the head has decided."""
    assert cluster.head is not None
    record = cluster.head.gcs.placement.get(GROUP)
    if record is None:
        return []
    ids = [raylet.raylet.node_id for raylet in cluster.raylets]
    return [
        ids.index(place.node_id) if place is not None and index in record.placed else None
        for index, place in enumerate(record.places)
    ]


def whole(cluster: SimCluster) -> bool:
    found = places(cluster) if cluster.head is not None else []
    return bool(found) and None not in found


@pytest.mark.parametrize("seed", range(4))
def test_bundles_of_a_dead_node_get_another_and_their_tasks_run(seed: int) -> None:
    with SimCluster(seed, nodes=[{"CPU": 1}] * 3) as cluster:
        cluster.run(one_group(2, bundles.STRICT_SPREAD))
        cluster.run_until(lambda: whole(cluster), 10)
        first, second = places(cluster)
        assert first is not None
        cluster.replace(cluster.raylets[first], 60.0, same_id=False)
        cluster.run_until(lambda: whole(cluster) and places(cluster)[0] != first, 60)
        assert places(cluster)[1] == second
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_a_node_that_is_silent_for_long_is_no_place_and_comes_back_with_nothing(
    seed: int,
) -> None:
    with SimCluster(seed, nodes=[{"CPU": 1}] * 3) as cluster:
        cluster.run(one_group(2, bundles.SPREAD))
        cluster.run_until(lambda: whole(cluster), 10)
        first = places(cluster)[0]
        assert first is not None
        cluster.excuse(*DEATHS)
        cluster.freeze(cluster.raylets[first], limits.DEAD_S + 10)
        cluster.run_until(lambda: whole(cluster) and places(cluster)[0] != first, 60)
        cluster.finish()  # it looks whether anything is left reserved there


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("after_s", [0.0005, 0.003, 0.006, 0.01, 1.0])
def test_a_head_that_is_started_again_goes_on_with_what_was_decided(
    seed: int, after_s: float
) -> None:
    with SimCluster(seed, nodes=[{"CPU": 1}] * 3) as cluster:
        cluster.run(one_group(3, bundles.STRICT_SPREAD))
        cluster.run_until(lambda: bool(cluster.head and len(cluster.head.gcs.placement)), 10)
        cluster.run_for(after_s)
        cluster.restart_head()
        cluster.finish()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("program", [grouping, holding])
def test_programs_with_groups_on_a_peaceful_cluster(program: Any, seed: int) -> None:
    with SimCluster(seed, nodes=[{"CPU": 2, "GPU": 1, "special": 1}, {"CPU": 2}]) as cluster:
        cluster.run(program)
        cluster.finish()
