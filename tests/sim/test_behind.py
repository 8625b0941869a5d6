"""What waits at workers behind running tasks, by way of the head: how soon it starts, and where."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from tests.sim.stories import Story, burst, runs, started, until_done, workers
from zray.limits import RESOURCE_UNIT as UNIT
from zray.testing.cluster import SimCluster
from zray.testing.judgement.ledger import Deed, Run
from zray.testing.processes.steps import Get, Program, Sleep
from zray.testing.processes.worker import SimWorker

MOVED_S = 0.005  # from when it could start elsewhere


def told(story: Story, **options: Any) -> SimCluster:
    """The cluster after that story."""
    with SimCluster(7, **options) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()
    return cluster


def last(cluster: SimCluster, count: int) -> list[Deed]:
    """The tasks that were submitted last."""
    return [*cluster.ledger.tasks.values()][-count:]


def wall_s(deeds: list[Deed]) -> float:
    return max(deed.runs[-1].ended or 0.0 for deed in deeds) - min(d.submitted for d in deeds)


def gaps(deeds: list[Deed]) -> list[float]:
    """For how long each worker had nothing to do between two of these tasks."""
    found: dict[bytes, list[Run]] = {}
    for run in sorted((run for deed in deeds for run in deed.runs), key=lambda run: run.began):
        found.setdefault(run.worker.worker_id, []).append(run)
    return [
        after.began - (before.ended or 0.0)
        for ran in found.values()
        for before, after in pairwise(ran)
    ]


@pytest.mark.parametrize(("seconds", "count"), [(0.001, 400), (0.01, 80), (0.06, 24), (0.3, 24)])
def test_a_worker_does_not_wait_for_its_next_task(seconds: float, count: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, seconds, 8))  # how long they take is known
        yield Sleep(0.5)
        yield Get(burst(driver, seconds, count))

    cluster = told(story, nodes=[{"CPU": 4}])
    between = gaps(last(cluster, count))
    waited = [gap for gap in between if gap > 1e-6]
    assert len(waited) <= 16, "only where there was none: at the ends of the burst"


@pytest.mark.parametrize("nodes", [[{"CPU": 4}], [{"CPU": 2}] * 2, [{"CPU": 1}] * 4])
@pytest.mark.parametrize("known", [False, True])
def test_the_tail_is_fair(nodes: list[dict[str, float]], known: bool) -> None:
    def story(driver: Any, random: Random) -> Program:
        if known:
            yield Get(burst(driver, 1.0, 4))
        yield Get(burst(driver, 1.0, 8))

    cluster = told(story, nodes=nodes)
    assert wall_s(last(cluster, 8)) < 2.1


@pytest.mark.parametrize("nodes", [[{"CPU": 4}], [{"CPU": 2}] * 2])
def test_no_short_one_waits_behind_a_long_one_while_a_cpu_is_free(
    nodes: list[dict[str, float]],
) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.005, 8))
        mixed = [0.5 if number % 10 == 0 else 0.005 for number in range(40)]
        yield Get([driver.submit("add", [seconds, 0, 1])[0] for seconds in mixed])

    cluster = told(story, nodes=nodes)
    assert idle_s(last(cluster, 40), 4) < MOVED_S


def idle_s(deeds: list[Deed], cpus: int) -> float:
    """The longest time for which fewer ran than could while some had not begun."""
    ran = [run for deed in deeds for run in deed.runs]
    begins, ends = sorted(run.began for run in ran), sorted(run.ended or 0.0 for run in ran)
    moments = [moment for moment in sorted({*begins, *ends}) if moment <= begins[-1]]
    longest, since = 0.0, begins[0]
    for moment, after in pairwise(moments):
        running = sum(run.began <= moment < (run.ended or 0.0) for run in ran)
        if running >= cpus:
            since = after
        longest = max(longest, after - since)
    return longest


def test_what_is_behind_a_stopped_worker_starts_elsewhere() -> None:
    """Nobody asks the worker for it."""
    moved: list[float] = []

    def story(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.05, 6))

    with SimCluster(7, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)

        def crowded() -> list[SimWorker]:
            return [one for one in workers(cluster) if one.packets and one.delivered is not None]

        cluster.run_until(lambda: bool(crowded()), 10.0)
        victim = crowded()[0]
        cluster.freeze(victim, 10.0)
        began = cluster.clock.now
        cluster.run_until(started(cluster, "add", 6), 20.0)
        moved.append(cluster.clock.now - began)
        until_done(cluster)
        cluster.finish()
    assert moved[0] < 0.5


def test_a_worker_that_dies_costs_one_attempt() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get([driver.submit("crashes", [0.05, 1], max_retries=1)[0] for _ in range(20)])

    cluster = told(story, nodes=[{"CPU": 2}])
    assert runs(cluster, "crashes") == [2] * 20


def test_a_node_that_joins_gets_what_waits_behind_others() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.05, 4))
        yield Sleep(0.5)
        yield Get(burst(driver, 0.05, 2))
        yield Get(burst(driver, 4.0, 3, max_retries=0))

    with SimCluster(7, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add", 7), 20.0)
        cluster.add_node({"CPU": UNIT})
        until_done(cluster)
        cluster.finish()
    deeds = last(cluster, 3)
    assert wall_s(deeds) < 9.0
