"""Tasks with priorities, told on purpose: in which order they start, and who else has what."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import Way, both_ways
from tests.sim.stories import burst, runs, until_done
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep


def starts(cluster: SimCluster, priority: int) -> list[float]:
    """When tasks of that priority have started."""
    deeds = cluster.ledger.tasks.values()
    return [run.began for deed in deeds if deed.template.priority == priority for run in deed.runs]


def many(driver: Any, count: int, priority: int) -> list[Any]:
    return [driver.submit("add", [0.02, 0, n], priority=priority)[0] for n in range(count)]


@both_ways(near=41, far=42)
def test_they_come_before_what_waits_for_leases(way: Way, seed: int) -> None:
    """The first of them ends the leases of their class; then the head has all, in order."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.02)
        refs = many(driver, 60, 0)
        yield Sleep(0.1)  # they run, on leases
        refs += [*many(driver, 5, -3), *many(driver, 5, 2), *many(driver, 5, 9)]
        yield Get(refs)

    with way.cluster(seed) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert set(runs(cluster, "add")) == {1}
        high, mean, low = starts(cluster, 9), starts(cluster, 2), starts(cluster, -3)
        plain = starts(cluster, 0)
        assert max(high) <= min(mean) and max(mean) <= min(low) and max(plain) <= min(low)
        # Some had begun, or were with workers; but for those all others come later.
        assert sum(began < max(mean) for began in plain) < way.warmed + 30
        cluster.finish()


@pytest.mark.parametrize("seed", [43, 44])
def test_other_programs_have_their_share_all_the_same(seed: int) -> None:
    def urgent(driver: Any, random: Random) -> Program:
        yield Get(many(driver, 100, 9))

    def plain(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.02, 40))

    with SimCluster(4 * seed, nodes=[{"CPU": 2}], drivers=2, eager=True) as cluster:
        cluster.run(urgent)
        cluster.run(plain, 1)
        until_done(cluster)
        assert all(driver.threads[0].error is None for driver in cluster.drivers)
        assert max(starts(cluster, 0)) < max(starts(cluster, 9))  # it has half of the CPUs
        cluster.finish()
