"""Stories of actors: single races and losses, each told on purpose. All checkers run as they go."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from tests.sim.stories import failure, failures, until_done
from zray import limits
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Nested, Program, Ref, Sleep, TaskFailed
from zray.testing.processes.worker import SimWorker
from zray.testing.programs.actor_workloads import ENDED, gently


def hosts(cluster: SimCluster) -> list[SimWorker]:
    """The living workers that are actors."""
    return [worker for worker in cluster.workers.values() if worker.actor is not None]


def starts(cluster: SimCluster, method: str) -> list[int]:
    """How often each call of that method was started, in the order of the calls."""
    calls = cluster.ledger.calls.calls.values()
    return [len(call.starts) for call in calls if call.method == method]


def lives(cluster: SimCluster) -> list[int]:
    """How many incarnations each actor has had."""
    return [len(actor.lives) for actor in cluster.ledger.calls.actors.values()]


def in_order(cluster: SimCluster, method: str, count: int) -> Callable[[], bool]:
    return lambda: sum(starts(cluster, method)) >= count


def row(cluster: SimCluster) -> bool:
    return bool(cluster.store._rows.get("actors"))


def ends_soon(cluster: SimCluster) -> None:
    """Nobody has a handle any more: the actor ends, and nothing is left of it."""
    cluster.run_until(lambda: not hosts(cluster), 5.0, "the actor ends")
    cluster.finish()


DIRECT = pytest.mark.parametrize("machines", [0, 1], ids=["relayed", "direct"])


# ---- order -------------------------------------------------------------------------------------


@DIRECT
def test_calls_of_one_caller_run_in_their_order(machines: int) -> None:
    """Also one whose argument comes late, which keeps the others waiting."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        late = driver.submit("add", [0.5, 0, 100])
        first = driver.call(actor, "inc", [0.0, 1])
        second = driver.call(actor, "total", [0.0, 0, late[0]])
        third = driver.call(actor, "inc", [0.0, 1])
        values = yield Get([*first, *second, *third])
        assert [value.number for value in values] == [1, 100, 2]

    with SimCluster(1, machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


@DIRECT
def test_two_callers_are_interleaved_and_each_keeps_its_order(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, until = driver.create("counter", [0.01, 0], name="it", get_if_exists=True)
        created = yield until
        if created.actor_id != actor.oid[:16]:
            actor.drop()
            actor = driver.found(created.actor_id)
        counts = []
        for _ in range(20):
            counts += driver.call(actor, "inc", [0.002, 1])
            yield Sleep(0.003)
        values = yield Get(counts)
        numbers.append([value.number for value in values])
        yield Sleep(1.0)

    numbers: list[list[int]] = []
    with SimCluster(2, drivers=2, machines=machines) as cluster:
        cluster.run(story, 0)
        cluster.run(story, 1)
        until_done(cluster)
        assert sorted(numbers[0] + numbers[1]) == list(range(1, 41))
        assert all(each == sorted(each) for each in numbers)
        assert numbers[0][-1] > numbers[1][0] and numbers[1][-1] > numbers[0][0]
        cluster.finish()


# ---- restarts ----------------------------------------------------------------------------------


@DIRECT
def test_without_retries_a_death_fails_what_was_sent_and_nothing_runs_twice(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1)
        yield Get(driver.call(actor, "total", [0.0, 0, 0]))
        refs = [driver.call(actor, "inc", [0.1, 1])[0] for _ in range(6)]
        values = yield from gently(refs, ENDED)
        found.extend(value.number if value is not None else 0 for value in values)
        again = yield Get(driver.call(actor, "inc", [0.0, 1], retries=1))
        assert again[0].number == 1  # a new incarnation begins afresh

    found: list[int] = []
    with SimCluster(3, machines=machines) as cluster:
        cluster.run(story)
        cluster.run_until(in_order(cluster, "inc", 3), 10.0)
        cluster.kill_worker(hosts(cluster)[0])
        until_done(cluster)
        assert found == [1, 2, 0, 0, 0, 0]
        assert starts(cluster, "inc") == [1, 1, 1, 0, 0, 0, 1]
        assert lives(cluster) == [2]
        cluster.finish()


@DIRECT
def test_with_retries_every_call_gets_its_value_after_a_death(machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=-1, max_task_retries=-1)
        refs = [driver.call(actor, "total", [0.1, 0, n])[0] for n in range(6)]
        driver.expect(refs, *range(6))
        yield Get(refs)

    with SimCluster(4, machines=machines) as cluster:
        cluster.run(story)
        cluster.run_until(in_order(cluster, "total", 3), 10.0)
        cluster.kill_worker(hosts(cluster)[0])
        until_done(cluster)
        assert starts(cluster, "total") == [1, 1, 2, 1, 1, 1]
        cluster.finish()


def test_restarts_end_with_their_budget() -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=2)
        for _ in range(3):
            values = yield from gently(driver.call(actor, "crash", [0.0]), ENDED)
            assert values == [None]
            yield Sleep(1.0)
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == "ZR-3402"
        assert "restarted 2 times" in str(error) and "signal 11" in str(error)
        assert "did not run" in str(error)

    with SimCluster(5) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(story)
        until_done(cluster)
        assert lives(cluster) == [3]
        cluster.finish()


def test_a_kill_with_restart_waits_for_the_old_process() -> None:
    """Its node is out of reach: only when it is back, the next incarnation starts."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1, max_task_retries=1)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        yield driver.kill(actor, no_restart=False)
        yield Sleep(1.0)
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 1

    with SimCluster(6, nodes=[{"CPU": 1}, {"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.cut_at(m.StopActor)
        until_done(cluster)
        assert not cluster.network.traps
        assert lives(cluster) == [2]
        cluster.finish()


def test_who_leaves_is_not_restarted_even_if_nobody_heard_it() -> None:
    """exit_actor() while the raylet has no session: the wish is told later."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=-1)
        refs = driver.call(actor, "inc", [0.0, 1])
        refs += driver.call(actor, "leave", [1.0])
        yield Get(refs[:1])
        cluster.network.sever(cluster.raylets[0].link)
        error = yield from failure(refs[1:])
        assert error.code == "ZR-3402" and "exit_actor" in str(error)

    with SimCluster(7) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(m.ActorExited)
        cluster.run(story)
        until_done(cluster)
        assert lives(cluster) == [1]
        cluster.finish()


# ---- the head is restarted -------------------------------------------------------------------


MOMENTS: dict[str, Callable[[SimCluster], bool]] = {
    "before the row is durable": lambda c: bool(c.head and c.head.gcs.actor_table),
    "after the row is durable": row,
    "in the constructor": lambda c: lives(c) == [1],
    "after the constructor": lambda c: bool(hosts(c)),
    "when it is known to live": lambda c: bool(
        c.head and any(a.lives(1) for a in c.head.gcs.actor_table.values())
    ),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("after_s", [0.01, 1.0])
def test_the_head_is_restarted_during_creation(moment: str, after_s: float) -> None:
    """The constructor runs once, and calls made before and after come to it in order."""

    def story(driver: Any, random: Random) -> Program:
        argument = driver.put(5)
        actor, _ = driver.create("counter", [0.3, 0, argument], name="it")
        argument.drop()
        refs = [driver.call(actor, "inc", [0.0, 1])[0] for _ in range(3)]
        yield Sleep(3.0)
        refs += driver.call(actor, "inc", [0.0, 1])
        values = yield Get(refs)
        assert [value.number for value in values] == [6, 7, 8, 9]

    with SimCluster(8, nodes=[{"CPU": 1}, {"CPU": 1}], commit_s=0.05) as cluster:
        cluster.run_for(1.0)
        cluster.run(story)
        cluster.run_until(lambda: MOMENTS[moment](cluster), 10.0)
        cluster.restart_head(after_s)
        until_done(cluster)
        assert lives(cluster) == [1]
        cluster.finish()


def test_a_kill_that_was_answered_outlives_the_head() -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, until = driver.create("counter", [0.01, 0], name="it", max_restarts=-1)
        yield until
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        yield driver.kill(actor)
        cluster.restart_head(0.1)
        found = yield driver.find("it")
        assert found.info is None
        values = yield from gently(driver.call(actor, "inc", [0.0, 1]), ENDED)
        assert values == [None]

    for seed in range(5):
        with SimCluster(seed, commit_s=0.1) as cluster:
            cluster.run(story)
            until_done(cluster)
            assert lives(cluster) == [1]
            cluster.finish()


def test_an_actor_lives_on_while_the_head_is_away() -> None:
    """Callers on its machine do not even notice."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        cluster.restart_head(5.0)
        began = cluster.clock.now
        for number in range(10):
            values = yield Get(driver.call(actor, "inc", [0.0, 1]))
            assert values[0].number == number + 2
        assert cluster.clock.now < began + 1.0

    with SimCluster(9, machines=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


# ---- handles -----------------------------------------------------------------------------------


def by_task(driver: Any, actor: Ref) -> Program:
    """As an argument of a task that keeps it."""
    yield Get(driver.submit("keep", [0.01, Nested([actor])]))
    return None


def by_call(driver: Any, actor: Ref) -> Program:
    """As an argument of a call, kept by another actor, which is then asked for it."""
    friend, _ = driver.create("counter", [0.01, 0])
    yield Get(driver.call(friend, "retain", [0.01, Nested([actor])]))
    return friend


def by_value(driver: Any, actor: Ref) -> Program:
    """Inside a value."""
    boxed = driver.put(0, [actor])
    yield Sleep(0.01)
    return boxed


def by_result(driver: Any, actor: Ref) -> Program:
    """In the result of one of its own methods."""
    result = driver.call(actor, "introduce", [0.01])
    yield Get(result)
    return result[0]


@DIRECT
@pytest.mark.parametrize("way", [by_call, by_value, by_result], ids=lambda way: way.__name__)
def test_a_handle_travels_and_the_original_is_dropped(way: Any, machines: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        carrier = yield from way(driver, actor)
        actor.drop()
        driver.sweep([carrier])
        yield Sleep(3.0)
        if way is by_call:
            carrier = driver.call(carrier, "give_back", [0.0, True])[0]
        values = yield Get([carrier])
        counts = yield Get(driver.call(values[0].refs[0], "inc", [0.0, 1]))
        assert counts[0].number == 2

    with SimCluster(10, nodes=[{"CPU": 2}], machines=machines) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


def test_an_actor_ends_soon_after_its_last_handle_and_not_before() -> None:
    """A task's process keeps a handle that nobody else has."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield from by_task(driver, actor)
        actor.drop()
        yield Sleep(5.0)

    with SimCluster(11, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert len(hosts(cluster)) == 1
        for worker in [*cluster.workers.values()]:
            worker.let_go()
        ends_soon(cluster)


def test_calls_outlive_the_handle_they_were_made_with() -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.5, 0])
        refs = [driver.call(actor, "inc", [0.1, 1])[0] for _ in range(5)]
        actor.drop()
        values = yield Get(refs)
        assert [value.number for value in values] == [1, 2, 3, 4, 5]

    with SimCluster(12) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


def test_a_task_that_waits_in_the_driver_may_be_an_argument() -> None:
    """The window is full: neither creation nor call overtakes the task that it needs."""

    def story(driver: Any, random: Random) -> Program:
        first = driver.submit("add", [15.0, 0, 1])
        yield Sleep(0.1)
        part = driver.submit("add", [0.01, 0, 2])
        actor, _ = driver.create("counter", [0.01, 0, part[0]])
        other, _ = driver.create("counter", [0.01, 0])
        refs = driver.call(actor, "inc", [0.0, 1])
        refs += driver.call(other, "total", [0.0, 0, part[0]])
        refs += driver.call(other, "ask_other", [0.0, 7, Nested([actor]), True])
        values = yield Get([*refs, *first])
        assert [value.number for value in values] == [3, 2, 7, 1]

    with SimCluster(13, bounds={"CLIENT_WINDOW_TASKS": 1}, machines=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


# ---- ends --------------------------------------------------------------------------------------


def test_an_actor_ends_with_the_driver_that_made_it() -> None:
    def owner(driver: Any, random: Random) -> Program:
        yield driver.create("counter", [0.01, 0], name="it", max_restarts=-1)[1]
        yield Sleep(100.0)

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(1.0)
        found = yield driver.find("it")
        actor = driver.found(found.actor_id)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        cluster.drivers[0].leaving = True
        cluster.drivers[0].wake()
        yield Sleep(1.0)
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == "ZR-3402"
        assert "its job has ended" in str(error) and "did not run" in str(error)
        found = yield driver.find("it")
        assert found.info is None

    with SimCluster(14, drivers=2) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(owner, 0)
        thread = cluster.run(other, 1)
        cluster.run_until(lambda: thread.done, 30.0)
        assert not hosts(cluster)
        cluster.finish()


def test_an_actor_ends_with_the_worker_that_made_it() -> None:
    def story(driver: Any, random: Random) -> Program:
        made = yield Get(driver.submit("makes_actor", [0.01, 5], max_retries=0))
        actor = made[0].refs[0]
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 7
        maker = next(w for w in cluster.workers.values() if w.actor is None)
        cluster.kill_worker(maker)
        yield Sleep(1.0)
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == "ZR-3402" and "the worker that made it has ended" in str(error)

    with SimCluster(15) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_detached_actor_outlives_its_driver_until_it_is_killed() -> None:
    def owner(driver: Any, random: Random) -> Program:
        actor, until = driver.create("counter", [0.01, 0], name="it", detached=True)
        yield until
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        driver.leaving = True

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(30.0)
        found = yield driver.find("it")
        actor = driver.found(found.actor_id)
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 2
        yield driver.kill(actor)

    with SimCluster(16, drivers=2) as cluster:
        cluster.run(owner, 0)
        thread = cluster.run(other, 1)
        cluster.run_until(lambda: thread.done, 60.0)
        cluster.finish()


@pytest.mark.parametrize("restarts", [0, 1])
def test_the_node_of_an_actor_dies(restarts: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=restarts)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        raylet = next(r for r in cluster.raylets if hosts(cluster)[0].raylet is r)
        refs = driver.call(actor, "inc", [5.0, 1])
        yield Sleep(0.5)
        cluster.lose_machine(raylet)
        error = yield from failure(refs)  # as soon as the node is missed
        assert error.code == "ZR-3403"
        assert f"node {raylet.name}" in str(error) and "may have run" in str(error)
        last = driver.call(actor, "inc", [0.0, 1], retries=1)
        if restarts:
            values = yield Get(last)
            assert values[0].number == 1
        else:
            error = yield from failure(last)
            assert error.code == "ZR-3402" and f"node {raylet.name}" in str(error)

    with SimCluster(17, nodes=[{"CPU": 1}, {"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster, 60.0)
        assert lives(cluster) == [1 + restarts]
        cluster.finish()


def test_a_node_that_was_given_up_returns_without_its_actor() -> None:
    """It was stopped for long; the actor lives elsewhere by then."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1, max_task_retries=1)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        cluster.freeze(hosts(cluster)[0].raylet, 45.0)
        yield Sleep(1.0)
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 1
        yield Sleep(40.0)

    with SimCluster(18, nodes=[{"CPU": 1}, {"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster, 120.0)
        assert len(hosts(cluster)) == 1
        cluster.finish()


@pytest.mark.parametrize("away_s", [10.0, 45.0])
def test_an_actor_whose_raylet_is_stopped_serves_no_longer_than_it_is_the_only_one(
    away_s: float,
) -> None:
    """Its callers' direct sockets still reach it, and they do not hear from the head either."""
    served: list[float] = []

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1, max_task_retries=1)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        stopped = cluster.clock.now
        cluster.freeze(hosts(cluster)[0].raylet, away_s)
        values = []
        while cluster.clock.now < stopped + 60.0:
            left = stopped + away_s - cluster.clock.now
            if driver.link is not None and left > 0:
                cluster.network.hold(driver.link, left)
            values += yield Get(driver.call(actor, "inc", [0.0, 1]))
            served.append(cluster.clock.now - stopped)
            yield Sleep(0.5)
        numbers = [value.number for value in values]
        first_of_next = next((n for n, value in enumerate(numbers) if value == 1), len(numbers))
        assert numbers[:first_of_next] == [*range(2, first_of_next + 2)]
        assert numbers[first_of_next:] == [*range(1, len(numbers) - first_of_next + 1)]
        assert (first_of_next == len(numbers)) == (away_s < limits.DEAD_S)

    with SimCluster(18, nodes=[{"CPU": 1}, {"CPU": 1}], machines=1, direct=1.0) as cluster:
        cluster.run(story)
        until_done(cluster, 200.0)
        assert lives(cluster) == [1 if away_s < limits.DEAD_S else 2]
        cluster.finish()
    gap = max(b - a for a, b in pairwise(served))
    assert gap < 1.0 if away_s < limits.ACTOR_LEASE_S else 5.0 < gap < 8.0


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.1])
def test_a_kill_during_creation(delay: float) -> None:
    """Before it has begun, on its way, and in the constructor: no call has run."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [5.0, 0], max_restarts=-1, max_task_retries=-1)
        refs = driver.call(actor, "inc", [0.0, 1])
        yield Sleep(delay)
        yield driver.kill(actor)
        error = yield from failure(refs)
        assert error.code == "ZR-3402" and "did not run" in str(error)

    with SimCluster(19) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(story)
        until_done(cluster, 3.0)
        cluster.finish()


@pytest.mark.parametrize("name", ["", "it"], ids=["owned", "detached"])
def test_a_kill_that_the_next_head_knows_nothing_of(name: str) -> None:
    """The head that got it ends before the end is durable: nothing is made a second time."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [20.0, 0], name=name, detached=bool(name))
        yield Sleep(6.0)
        assert lives(cluster) == [1]
        done = driver.kill(actor)
        yield Sleep(0.05)
        cluster.restart_head()
        cluster.freeze(driver, 1.0)  # the nodes are back before it says so again
        yield done
        with pytest.raises(TaskFailed):
            yield Get(driver.call(actor, "inc", [0.0, 1]))

    with SimCluster(19, commit_s=1.0) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(story)
        until_done(cluster)
        assert lives(cluster) == [1]
        cluster.finish()


def test_a_farewell_that_the_next_head_knows_nothing_of() -> None:
    """The same for a driver that leaves: its actor ends, and is not made a second time."""

    def story(driver: Any, random: Random) -> Program:
        driver.create("counter", [60.0, 0])
        yield Sleep(6.0)
        assert lives(cluster) == [1]
        driver.leaving = True

    with SimCluster(19, commit_s=1.0) as cluster:
        thread = cluster.run(story)
        cluster.run_until(lambda: thread.done, 10.0)
        cluster.run_for(0.05)
        cluster.restart_head()
        cluster.run_until(lambda: not hosts(cluster) and not row(cluster), 60.0)
        assert lives(cluster) == [1]
        cluster.finish()


def test_a_name_is_free_as_soon_as_its_actor_is_dead() -> None:
    def story(driver: Any, random: Random) -> Program:
        for number in range(3):
            actor, until = driver.create("counter", [0.01, number], name="it", max_restarts=-1)
            created = yield until
            assert not created.code
            refused, until = driver.create("counter", [0.01, 9], name="it")
            answer = yield until
            assert answer.code == "ZR-3405" and "already taken" in answer.text
            failed = driver.call(refused, "inc", [0.0, 1])
            values = yield from gently(failed, ENDED)
            assert values == [None]
            values = yield Get(driver.call(actor, "inc", [0.0, 1]))
            assert values[0].number == number + 1
            yield driver.kill(actor)

    with SimCluster(20) as cluster:
        cluster.excuse(*ENDED)
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_result_outlives_an_actor_that_leaves() -> None:
    """Large ones, and references inside, that the caller has yet to fetch."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        large = driver.call(actor, "total", [0.0, 5000, 4])
        stored = driver.call(actor, "store", [0.0, 5, 5000])
        driver.call(actor, "leave", [0.0])
        values = yield Get([*large, *stored])
        yield Sleep(2.0)
        inner = yield Get(values[1].refs)
        assert [values[0].number, inner[0].number] == [4, 5]

    for machines in (0, 1):
        with SimCluster(21, machines=machines, bounds={"INLINE_BYTES_MAX": 1000}) as cluster:
            cluster.excuse(*ENDED)
            cluster.run(story)
            until_done(cluster)
            cluster.finish()


def test_a_caller_that_died_leaves_nothing_with_the_actor() -> None:
    """Its answers, and what they refer to, are let go after a while."""

    def owner(driver: Any, random: Random) -> Program:
        actor, until = driver.create("counter", [0.01, 0], name="it")
        yield until
        yield Sleep(100.0)
        yield Get(driver.call(actor, "inc", [0.0, 1]))

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(0.5)
        found = yield driver.find("it")
        driver.call(driver.found(found.actor_id), "store", [0.1, 5, 10])
        yield Sleep(0.05)
        cluster.freeze(driver, 0.2)
        cluster.clock.after(0.15, driver.die)
        yield Sleep(10.0)

    with SimCluster(22, drivers=2) as cluster:
        cluster.run(owner, 0)
        cluster.run(other, 1)
        cluster.run_for(99.0)
        assert cluster.head is not None
        host = hosts(cluster)[0]
        assert host.actor is not None and not host.actor.inbox.owes(None)
        assert len(cluster.head.gcs.objects.records) == 1  # the handle's
        until_done(cluster)
        cluster.finish()


# ---- cuts --------------------------------------------------------------------------------------


def test_a_direct_socket_is_lost_while_the_actor_lives() -> None:
    """Calls that may be retried are sent again, and none runs twice; the others fail at once."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        refs = [driver.call(actor, "inc", [0.05, 1], retries=n % 2)[0] for n in range(10)]
        yield Get(refs[:3])
        next(iter(driver.wires.values())).sever()
        refs += [driver.call(actor, "inc", [0.05, 1], retries=1)[0] for _ in range(3)]
        began = cluster.clock.now
        errors = yield from failures([*refs[4:10:2]])
        assert cluster.clock.now - began < 0.05
        assert [error.code for error in errors] == ["ZR-3403"] * 3
        assert all("may have run" in str(error) for error in errors)
        refs += driver.call(actor, "inc", [0.05, 1])
        values = yield Get([ref for n, ref in enumerate(refs) if n not in (4, 6, 8)])
        numbers = [value.number for value in values]
        assert numbers == sorted(numbers)
        assert numbers[-1] == sum(starts(cluster, "inc"))

    for seed in range(5):
        with SimCluster(seed, machines=1) as cluster:
            cluster.run(story)
            until_done(cluster)
            counts = starts(cluster, "inc")
            assert set(counts) <= {0, 1} and set(counts[1::2]) == {1}
            cluster.finish()


@pytest.mark.parametrize(
    "kind", [m.CreateActor, m.ActorCreated, m.ActorWatch, m.ActorState, m.Calls, m.Replies]
)
@pytest.mark.parametrize("of", ["driver", "raylet"])
def test_a_message_about_calls_is_lost_at_a_cut(kind: type[m.Message], of: str) -> None:
    """Whoever calls, and whoever hosts, tells it again; every call runs once, in order."""

    def story(driver: Any, random: Random) -> Program:
        kept = driver.put(3)
        actor, _ = driver.create("keeper", [0.01, Nested([kept])])
        other, _ = driver.create("parent", [0.01, 1])
        kept.drop()
        refs = [driver.call(actor, "inc", [0.01, 1])[0] for _ in range(5)]
        stored = driver.call(actor, "store", [0.01, 8, 10])
        asked = driver.call(other, "ask_other", [0.01, 6, Nested([actor]), True])
        values = yield Get([*refs, *stored, *asked])
        inner = yield Get(values[5].refs)
        assert [value.number for value in [*values, *inner]] == [1, 2, 3, 4, 5, 8, 6, 8]
        back = yield Get(driver.call(actor, "give_back", [0.01, True]))
        values = yield Get(back[0].refs)
        assert values[0].number == 3

    with SimCluster(23, nodes=[{"CPU": 4}]) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(kind, cluster.drivers[0] if of == "driver" else cluster.raylets[0])
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert set(starts(cluster, "inc") + starts(cluster, "total")) == {1}
        assert lives(cluster) == [1, 1, 1]
        cluster.finish()


@pytest.mark.parametrize("kind", [m.Done, m.ActorExited, m.WorkerDied, m.StopActor, m.Calls])
def test_the_node_of_an_actor_is_cut_off_and_back(kind: type[m.Message]) -> None:
    """An actor whose end got lost is no ghost; one that lives is called on."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], max_restarts=1)
        other, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        values = yield from gently(driver.call(actor, "crash", [0.0]), ENDED)
        assert values == [None]
        calls = [driver.call(actor, "inc", [0.0, 1], retries=1)[0] for _ in range(3)]
        values = yield Get(calls)
        assert [value.number for value in values] == [1, 2, 3]
        yield driver.kill(other)

    with SimCluster(24) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(kind, cluster.raylets[0])
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert lives(cluster) == [2, 1]
        cluster.finish()


def test_the_end_of_a_constructor_that_died_at_once_is_no_ghost() -> None:
    """Its DONE and its process's end both wait for the next session, and for another head."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [1.0, 0], max_restarts=1, max_task_retries=1)
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 1

    with SimCluster(25) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: lives(cluster) == [1], 5.0)
        cluster.restart_head(4.0)
        cluster.run_until(lambda: bool(hosts(cluster)), 5.0)
        cluster.kill_worker(hosts(cluster)[0])
        until_done(cluster)
        assert lives(cluster) == [2]
        cluster.finish()
