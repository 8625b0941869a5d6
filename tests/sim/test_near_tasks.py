"""Tasks that start on the node of whoever submits them, told on purpose: each way in and out."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import failure, runs, started, until_done, workers
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Ref, Sleep
from zray.testing.processes.worker import SimWorker
from zray.testing.programs.near_workloads import calls

CANCELLED = "ZR-3002"


def cluster_of(seed: int, **options: Any) -> SimCluster:
    return SimCluster(seed, **{"nodes": [{"CPU": 2}], "eager": True, **options})


def recursion(driver: Any, seconds: float, number: int, **options: Any) -> list[Ref]:
    refs = driver.submit("recursion", [seconds, number], **options)
    driver.expect(refs, calls(number))
    return refs  # type: ignore[no-any-return]


def one_recursion(seconds: float, number: int) -> Any:
    def story(driver: Any, random: Random) -> Program:
        yield Get(recursion(driver, seconds, number))

    return story


def tasks_at_the_head(cluster: SimCluster) -> list[int]:
    """How many tasks the head is told of from now on, in a list of one number."""
    count = [0]

    def counts(link: Any, upwards: bool, messages: list[m.Message]) -> bool:
        told = [msg for msg in messages if isinstance(msg, m.Submit | m.Begun)]
        count[0] += sum(len(message.tasks) for message in told)
        return False

    cluster.network.traps.append((counts, False))
    return count


def near(cluster: SimCluster, raylet: int = 0) -> dict[bytes, Any]:
    return cluster.raylets[raylet].raylet.near_tasks.tasks


def runner_of_near(cluster: SimCluster) -> SimWorker | None:
    """A worker that runs a near task."""
    for worker in workers(cluster):
        if worker.delivered is not None:
            for raylet in range(len(cluster.raylets)):
                if worker.delivered.assignment.spec.task_id in near(cluster, raylet):
                    return worker
    return None


# ---- the way in and out --------------------------------------------------------------------


def test_a_recursion_passes_by_the_head() -> None:
    with cluster_of(1) as cluster:
        told = tasks_at_the_head(cluster)
        cluster.run(one_recursion(0.0005, 12))
        until_done(cluster)
        assert runs(cluster, "recursion") == [1] * calls(12)
        assert told[0] < calls(12) / 10
        cluster.finish()


@pytest.mark.parametrize("seed", range(4))
def test_a_recursion_of_short_tasks_does_not_stand_still(seed: int) -> None:
    """Each submits before the end of the one before it is told, and is as deep as it is."""
    with cluster_of(seed) as cluster:
        cluster.run(one_recursion(0.00001, 14))
        until_done(cluster, 2.0)
        cluster.finish()


def test_two_nodes_share_it() -> None:
    with cluster_of(2, nodes=[{"CPU": 1}, {"CPU": 1}], latency_s=0.0002) as cluster:
        cluster.run(one_recursion(0.002, 12))
        until_done(cluster)
        places = [
            run.worker.raylet.name for deed in cluster.ledger.tasks.values() for run in deed.runs
        ]
        shares = sorted(places.count(raylet.name) for raylet in cluster.raylets)
        assert shares[0] >= calls(12) / 4, shares
        cluster.finish()


def test_tasks_that_take_long_are_spread_at_once() -> None:
    """Eight of a second on four CPUs take two, wherever they were submitted."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("tree", [0.0, 1, 8]))
        began = driver.clock.now
        yield Get(driver.submit("gives", [1.0, 8]))
        took.append(driver.clock.now - began)

    took: list[float] = []
    with cluster_of(3, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert took[0] < 2.2
        cluster.finish()


@pytest.mark.parametrize("seed", [0, 5, 7, 12])
def test_two_programs_get_alike(seed: int) -> None:
    """A second one is not kept waiting by what the first one's tasks submit, nor by those of them
    that wait and have all workers which the node may have."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("tree", [0.002, 2, 40]))

    with cluster_of(seed, nodes=[{"CPU": 4}], drivers=2) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "tree", 100), 60.0)
        cluster.run(story, 1)
        cluster.run_for(0.7)
        jobs = [driver.process_id for driver in cluster.drivers]
        busy = dict.fromkeys(jobs, 0.0)
        since = cluster.clock.now - 0.5
        for deed in cluster.ledger.tasks.values():
            for run in deed.runs:
                if run.began > since:
                    busy[deed.job_id] += 1
        assert min(busy.values()) > 0.7 * max(busy.values()), busy
        until_done(cluster, 300.0)
        cluster.finish()


# ---- what goes wrong -----------------------------------------------------------------------


def test_a_worker_dies_with_a_near_task() -> None:
    with cluster_of(5) as cluster:
        cluster.run(one_recursion(0.002, 10))
        for _ in range(3):
            cluster.run_until(lambda: runner_of_near(cluster) is not None, 10.0)
            worker = runner_of_near(cluster)
            assert worker is not None
            cluster.kill_worker(worker)
            cluster.run_for(0.01)
        until_done(cluster)
        cluster.finish()


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
def test_the_head_is_started_again(after_s: float) -> None:
    """What runs goes on meanwhile, and nothing runs twice."""
    with cluster_of(6, nodes=[{"CPU": 2}, {"CPU": 1}]) as cluster:
        cluster.run(one_recursion(0.002, 12))
        cluster.run_until(started(cluster, "recursion", 20), 10.0)
        cluster.run_for(after_s)
        before = sum(runs(cluster, "recursion"))
        cluster.restart_head(after_s=1.0)
        cluster.run_for(0.9)
        assert sum(runs(cluster, "recursion")) > before + 50
        until_done(cluster)
        assert runs(cluster, "recursion") == [1] * calls(12)
        cluster.finish()


def test_the_link_is_cut_again_and_again() -> None:
    with cluster_of(7, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(one_recursion(0.003, 12))
        for _ in range(8):
            cluster.run_for(0.11)
            for raylet in cluster.raylets:
                if raylet.link is not None:
                    cluster.network.sever(raylet.link)
        until_done(cluster)
        assert runs(cluster, "recursion") == [1] * calls(12)
        cluster.finish()


def test_a_node_dies_with_near_tasks() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield Get(recursion(driver, 0.003, 11, max_retries=5))

    with cluster_of(8, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: bool(near(cluster, 0) and near(cluster, 1)), 10.0)
        cluster.lose_machine(cluster.raylets[0], back_after_s=5.0)
        until_done(cluster, 120.0)
        cluster.finish()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.004, 0.02, 0.2])
def test_it_is_cancelled_with_all_below(after_s: float, force: bool) -> None:
    """Whatever of it has not started never does."""

    def story(driver: Any, random: Random) -> Program:
        refs = recursion(driver, 0.002, 14)
        yield Sleep(0.05 + after_s)
        driver.cancel(refs[0], force=force, recursive=True)
        error = yield from failure(refs)
        assert error.code == CANCELLED

    with cluster_of(9, nodes=[{"CPU": 2}, {"CPU": 1}]) as cluster:
        cluster.excuse(CANCELLED)
        cluster.run(story)
        until_done(cluster, 30.0)
        cluster.finish()


def test_with_its_program_ends_what_its_tasks_have_submitted() -> None:
    with cluster_of(10, drivers=2) as cluster:
        cluster.run(one_recursion(0.005, 16))
        cluster.run_until(lambda: len(near(cluster)) > 4, 10.0)
        cluster.drivers[0].die()
        cluster.run_for(60.0)
        assert not near(cluster)
        cluster.run(one_recursion(0.001, 5), 1)
        until_done(cluster)
        cluster.finish()


def test_results_outlive_whoever_submitted_them() -> None:
    """References in results, to tasks that run and to those that have ended."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(5):
            refs = [driver.submit("child_ref", [0.002, n])[0] for n in range(6)]
            values = yield Get(refs)
            for ref in refs:
                ref.drop()
            yield Sleep(0.5)
            inner = yield Get([one for value in values for one in value.refs])
            assert [value.number for value in inner] == [*range(6)]

    with cluster_of(11, nodes=[{"CPU": 2}, {"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()
