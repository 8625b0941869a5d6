"""Stories of calls that are made again, overtake others or have a group, under faults."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import failure, until_done
from tests.sim.test_actor_scenarios import DIRECT, ends_soon, hosts, lives, starts
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Nested, Program, Sleep
from zray.testing.programs.actor_workloads import ENDED, gently

# ---- retries of what has failed ----------------------------------------------------------------


@DIRECT
def test_a_call_that_fails_is_made_again_as_often_as_it_may_be(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_task_retries=3)
        refs = [driver.call(actor, "wobble", [0.01, number, number])[0] for number in range(6)]
        counts = driver.call(actor, "inc", [0.0, 1])
        values = yield from gently(refs, ("ZR-3001",))
        assert [value.number if value else None for value in values] == [0, 1, 2, 3, None, None]
        yield Get(counts)

    with SimCluster(31, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert starts(cluster, "wobble") == [1, 2, 3, 4, 4, 4]
        ends_soon(cluster)


@DIRECT
def test_ends_of_the_actor_and_failures_use_the_same_retries(machines: int) -> None:
    """The process dies while the call runs for the second time."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=-1, max_task_retries=2)
        refs = driver.call(actor, "wobble", [0.5, 1, 1])
        yield Sleep(0.8)
        cluster.kill_worker(hosts(cluster)[0])
        error = yield from failure(refs)  # for the next life it fails for the first time
        assert error.code == "ZR-3001"
        values = yield Get(driver.call(actor, "wobble", [0.0, 2, 2]))
        assert values[0].number == 2

    with SimCluster(32, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert starts(cluster, "wobble") == [3, 3] and lives(cluster) == [2]
        ends_soon(cluster)


def test_what_failed_is_made_again_after_a_restart_of_the_head() -> None:
    """Its caller alone knows of it."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_task_retries=-1)
        refs = [driver.call(actor, "wobble", [0.1, number, 3])[0] for number in range(5)]
        yield Sleep(0.35)
        cluster.restart_head()
        values = yield Get(refs)
        assert [value.number for value in values] == [0, 1, 2, 3, 4]

    with SimCluster(33) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert starts(cluster, "wobble") == [4] * 5 and lives(cluster) == [1]
        cluster.finish()


@DIRECT
def test_a_cancel_ends_the_retries(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_task_retries=-1)
        refs = driver.call(actor, "wobble", [0.1, 1, 1000])
        yield Sleep(0.55)
        driver.cancel_call(refs[0])
        error = yield from failure(refs)
        assert error.code in ("ZR-3002", "ZR-3001"), error.code
        before = starts(cluster, "wobble")
        yield Sleep(1.0)
        assert starts(cluster, "wobble") == before

    with SimCluster(34, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@DIRECT
@pytest.mark.parametrize("behind", [False, True], ids=["running", "queued"])
def test_whoever_has_a_reference_cancels_the_call(machines: int, behind: bool) -> None:
    """Its caller alone knows of the call: the head asks that."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_concurrency=1)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        before = driver.call(actor, "total", [1.0, 0, 5]) if behind else []
        refs = driver.call(actor, "total", [3.0, 0, 7])
        done = driver.submit("cancels_call", [0.1, Nested([refs[0]])])
        yield Get(done)
        error = yield from failure(refs)
        assert error.code == "ZR-3002"
        yield Get([*before, *driver.call(actor, "inc", [0.0, 1])])

    with SimCluster(35, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert starts(cluster, "total") == ([1, 0] if behind else [1])
        ends_soon(cluster)


@DIRECT
def test_a_cancel_without_a_head_is_made_again(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_concurrency=1)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        before = driver.call(actor, "total", [20.0, 0, 5])
        refs = driver.call(actor, "total", [3.0, 0, 7])
        yield Sleep(0.5)
        cluster.restart_head(after_s=2.0)
        yield Sleep(1.0)
        driver.cancel_call(refs[0])
        error = yield from failure(refs)
        assert error.code == "ZR-3002"
        yield Get(before)

    with SimCluster(36, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster, 60.0)
        assert starts(cluster, "total") == [1, 0]
        ends_soon(cluster)


# ---- order and groups --------------------------------------------------------------------------


@DIRECT
def test_where_order_does_not_matter_a_late_argument_holds_up_its_own_call_only(
    machines: int,
) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], out_of_order=True)
        late = driver.submit("add", [2.0, 0, 100])
        first = driver.call(actor, "total", [0.0, 0, late[0]])
        second = driver.call(actor, "inc", [0.0, 1])
        values = yield Get(second)
        assert values[0].number == 1 and cluster.clock.now < 1001.5
        values = yield Get(first)
        assert values[0].number == 100

    with SimCluster(35, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@DIRECT
def test_a_group_has_a_limit_and_an_order_of_its_own_through_a_restart(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create(
            *("counter", [0.01, 0]), max_restarts=1, max_task_retries=-1, groups=[("io", 2)]
        )
        yield Get(driver.call(actor, "total", [0.0, 0, 0]))
        slow = driver.call(actor, "total", [3.0, 0, 7])
        quick = [driver.call(actor, "total", [0.2, 0, n], group="io")[0] for n in range(6)]
        began = cluster.clock.now
        values = yield Get(quick[:2])
        assert cluster.clock.now < began + 0.35  # two at once
        cluster.kill_worker(hosts(cluster)[0])
        values = yield Get([*quick, *slow])
        assert [value.number for value in values] == [0, 1, 2, 3, 4, 5, 7]

    with SimCluster(36, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert lives(cluster) == [2]
        ends_soon(cluster)


# ---- restarts ----------------------------------------------------------------------------------


@DIRECT
def test_a_call_that_may_not_be_repeated_does_not_wait_for_a_restart(machines: int) -> None:
    """It fails at once, and it is certain that it did not run; one that may waits."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [5.0, 0], max_restarts=1)
        yield Get(driver.call(actor, "total", [0.0, 0, 0]))
        running = driver.call(actor, "total", [9.0, 0, 0])
        yield Sleep(0.5)
        cluster.kill_worker(hosts(cluster)[0])
        error = yield from failure(running)
        assert error.code == "ZR-3403" and "may have run" in str(error)
        began = cluster.clock.now
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == "ZR-3403" and "did not run" in str(error)
        assert cluster.clock.now < began + 0.5
        values = yield Get(driver.call(actor, "inc", [0.0, 1], retries=1))
        assert values[0].number == 1 and cluster.clock.now > began + 4.0

    with SimCluster(37, machines=machines) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@pytest.mark.parametrize("seed", range(6))
def test_calls_that_fail_and_overtake_keep_their_promises_while_actors_die(seed: int) -> None:
    """All that the ledger checks holds: how often each runs, and what is said of that."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(3):
            actor, _ = driver.create(
                *("counter", [0.05, 0]),
                max_restarts=-1,
                max_task_retries=random.choice([0, 1, -1]),
                max_concurrency=random.choice([1, 3]),
                out_of_order=random.random() < 0.5,
                groups=[("io", 2)],
            )
            refs = []
            for number in range(20):
                times = random.choice([0, 0, 1, 2])
                late = driver.submit("add", [random.random(), 0, number])
                some = random.random()
                group = random.choice(["", "io"])
                if some < 0.5:
                    refs += driver.call(actor, "wobble", [0.05, number, times], group=group)
                elif some < 0.8:
                    refs += driver.call(actor, "total", [0.02, 0, late[0]], group=group)
                else:
                    refs += driver.call(actor, "inc", [0.01, 1])
                if random.random() < 0.1:
                    driver.cancel_call(refs[-1])
            yield Sleep(random.random())
            for host in hosts(cluster)[:1]:
                cluster.kill_worker(host)
            yield from gently(refs, (*ENDED, "ZR-3001", "ZR-3002"))

    with SimCluster(40 + seed, drivers=2, machines=seed % 2) as cluster:
        cluster.excuse(*ENDED, "ZR-3001", "ZR-3002")
        for number in range(2):
            cluster.run(story, number)
        cluster.clock.after(1.0, cluster.restart_head)
        until_done(cluster, 120.0)
        cluster.finish()
