"""Stories of actors that live and cannot be reached: what waits for them, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.sim.stories import failure, failures, until_done
from tests.sim.test_actor_scenarios import ends_soon, hosts, lives, starts
from zray import limits
from zray.ids import object_id
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.raylet import SimRaylet
from zray.testing.processes.steps import Get, Nested, Program, Ref, Sleep
from zray.testing.programs.stream_workloads import read

UNAVAILABLE = "ZR-3403"
SOON_S = limits.AWAY_S + 3.0  # looks once a second, and a PING may have come late

Away = Callable[[SimCluster, SimRaylet, float], None]


def stopped(cluster: SimCluster, raylet: SimRaylet, seconds: float) -> None:
    cluster.freeze(raylet, seconds)


def silent(cluster: SimCluster, raylet: SimRaylet, seconds: float) -> None:
    assert raylet.link is not None
    cluster.network.hold(raylet.link, seconds)


def unlinked(cluster: SimCluster, raylet: SimRaylet, seconds: float) -> None:
    """What was on the way is lost, and there is no session for a while."""
    assert raylet.link is not None
    cluster.network.sever(raylet.link)
    raylet.frozen_until = cluster.clock.now + seconds


AWAY = pytest.mark.parametrize("away", [stopped, silent, unlinked])


def home(cluster: SimCluster) -> SimRaylet:
    return next(raylet for raylet in cluster.raylets if hosts(cluster)[0].raylet is raylet)


def is_back(cluster: SimCluster) -> Program:
    """Steps: wait until the head says that every node is there."""
    head = cluster.head
    while head is None or not all(
        node.announced and not node.away for node in head.gcs.members.nodes.values()
    ):
        yield Sleep(0.25)
        head = cluster.head
    yield Sleep(0.25)


@AWAY
@pytest.mark.parametrize("seed", range(3))
def test_calls_that_may_not_be_made_again_do_not_wait_for_a_node(away: Away, seed: int) -> None:
    """Those that were sent may have run, others did not; what may be retried waits, and runs once.

    Afterwards everything is as before: the order of calls, what the actor has counted.
    """

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        flying = [driver.call(actor, "inc", [0.3, 1])[0] for _ in range(4)]
        waits = driver.call(actor, "inc", [0.0, 1], retries=1)
        flying += driver.call(actor, "inc", [0.0, 1])
        yield Get(flying[:1])
        began = cluster.clock.now
        away(cluster, home(cluster), 12.0)
        flying += driver.call(actor, "inc", [0.0, 1])
        waits += driver.call(actor, "inc", [0.0, 1], retries=1)
        errors = yield from failures(flying[1:])
        assert cluster.clock.now - began < SOON_S
        assert errors and {error.code for error in errors} == {UNAVAILABLE}
        assert all("may have run" in str(e) and "n1" in str(e) for e in errors), errors
        began = cluster.clock.now
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == UNAVAILABLE and "did not run" in str(error)
        assert cluster.clock.now - began < 0.1
        waits += driver.call(actor, "inc", [0.0, 1], retries=-1)
        values = yield Get(waits)
        numbers = [value.number for value in values]
        yield from is_back(cluster)
        value = (yield Get(driver.call(actor, "inc", [0.0, 1])))[0]
        assert numbers == sorted(numbers) and value.number == numbers[-1] + 1
        assert value.number == sum(starts(cluster, "inc"))

    with SimCluster(800 + seed, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert set(starts(cluster, "inc")) <= {0, 1}
        assert lives(cluster) == [1]
        ends_soon(cluster)


@AWAY
def test_a_short_cut_loses_no_call(away: Away) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        calls = [driver.call(actor, "inc", [0.1, 1])[0] for _ in range(10)]
        yield Get(calls[:2])
        away(cluster, home(cluster), 2.0)
        calls += [driver.call(actor, "inc", [0.1, 1])[0] for _ in range(10)]
        values = yield Get(calls)
        assert [value.number for value in values] == list(range(1, 21))

    with SimCluster(803, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@pytest.mark.parametrize("seconds", [3.0, 12.0, 40.0])
def test_a_head_that_was_stopped_takes_nobody_for_away(seconds: float) -> None:
    """It has not read what nodes have said meanwhile."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        calls = [driver.call(actor, "inc", [0.3, 1])[0] for _ in range(10)]
        yield Get(calls[:2])
        cluster.freeze(cluster.head, seconds)
        calls += [driver.call(actor, "inc", [0.3, 1])[0] for _ in range(10)]
        values = yield Get(calls)
        assert [value.number for value in values] == list(range(1, 21))

    for seed in range(5):
        with SimCluster(seed, nodes=[{"CPU": 1}]) as cluster:
            cluster.run(story)
            until_done(cluster, 120.0)
            ends_soon(cluster)


@pytest.mark.parametrize("away_s", [9.5, 14.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_comes_and_goes(away_s: float, seed: int) -> None:
    """Nothing runs twice, and each caller's calls stay in their order, whatever gets lost."""

    def story(driver: Any, random: Random) -> Program:
        if handles:
            actor = driver.borrow(handles[0].oid)
        else:
            actor, _ = driver.create("counter", [0.01, 0])
            handles.append(actor)
            yield Get(driver.call(actor, "inc", [0.0, 1]))
        calls, sure = [], []
        until = cluster.clock.now + 60.0
        while cluster.clock.now < until:
            for _ in range(random.randint(1, 20)):
                calls += driver.call(actor, "inc", [random.choice([0.0, 0.02]), 1])
                if random.random() < 0.3:
                    sure += driver.call(actor, "inc", [0.0, 1], retries=random.choice([1, -1]))
            yield Sleep(random.choice([0.001, 0.3, 2.0]))
        values = yield Get(sure)
        numbers = [value.number for value in values]
        assert numbers == sorted(set(numbers))
        errors = yield from failures(calls)
        assert {error.code for error in errors} <= {UNAVAILABLE}
        failed.append(len(errors))
        yield from is_back(cluster)
        yield Sleep(1.0)
        value = (yield Get(driver.call(actor, "total", [0.0, 0, 0])))[0]
        assert value.number == 0

    handles: list[Ref] = []
    failed: list[int] = []
    with SimCluster(810 + seed, nodes=[{"CPU": 1}], drivers=3) as cluster:
        cluster.run(story, 0)
        cluster.run_until(lambda: bool(hosts(cluster)), 5.0)
        cluster.run(story, 1)
        cluster.run(story, 2)
        for number in range(4):
            cluster.run_for(3.0)
            (stopped, silent, unlinked)[number % 3](cluster, home(cluster), away_s)
            cluster.run_for(away_s)
        until_done(cluster, 200.0)
        assert all(failed)
        assert set(starts(cluster, "inc")) <= {0, 1}
        ends_soon(cluster)


def test_a_caller_with_a_socket_to_the_actor_does_not_need_its_raylet() -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        cluster.freeze(home(cluster), 14.0)
        for number in range(26):
            values = yield Get(driver.call(actor, "inc", [0.0, 1]))
            assert values[0].number == number + 2
            yield Sleep(0.5)

    with SimCluster(820, machines=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


def test_its_socket_breaks_while_the_raylet_is_away() -> None:
    """There is another at once; by way of the head nothing would come."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        cluster.freeze(home(cluster), 14.0)
        yield Sleep(11.0)
        flying = driver.call(actor, "inc", [0.5, 1])
        waits = driver.call(actor, "inc", [0.5, 1], retries=1)
        yield Sleep(0.1)
        next(iter(driver.wires.values())).sever()
        error = yield from failure(flying)
        assert error.code == UNAVAILABLE and "may have run" in str(error)
        values = yield Get([*waits, *driver.call(actor, "inc", [0.0, 1])])
        assert [value.number for value in values] == [3, 4]
        yield Sleep(8.0)

    with SimCluster(821, machines=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("returns", [True, False])
def test_the_head_is_killed_while_the_node_is_away(told: bool, returns: bool) -> None:
    """Whether callers had been told before it, or hear it from the next one: they do not wait."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        raylet = home(cluster)
        flying = driver.call(actor, "inc", [1.0, 1])
        yield Sleep(0.2)
        unlinked(cluster, raylet, 18.0 if returns else 200.0)
        yield Sleep(11.0 if told else 1.0)
        cluster.restart_head(after_s=0.5)
        began = cluster.clock.now
        error = yield from failure(flying)
        assert error.code == UNAVAILABLE and "may have run" in str(error)
        assert cluster.clock.now - began < limits.AWAY_S + 3.0
        waits = driver.call(actor, "inc", [0.0, 1], retries=1)
        error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
        assert error.code == UNAVAILABLE and "did not run" in str(error)
        if returns:
            values = yield Get(waits)
            assert values[0].number == 3
            values = yield Get(driver.call(actor, "inc", [0.0, 1]))
            assert values[0].number == 4
        else:
            error = yield from failure(waits)
            assert error.code == "ZR-3402"
            error = yield from failure(driver.call(actor, "inc", [0.0, 1]))
            assert error.code == "ZR-3402" and "did not run" in str(error)

    with SimCluster(822, nodes=[{"CPU": 1}]) as cluster:
        if not returns:
            cluster.history.nodes_died += 1
        cluster.run(story)
        until_done(cluster)
        assert lives(cluster) == [1]


@AWAY
@pytest.mark.parametrize("size", [0, 3 * limits.INLINE_BYTES_MAX])
def test_what_failed_calls_refer_to_is_kept_as_long_as_they_may_run(away: Away, size: int) -> None:
    """And no longer: their results are freed though nobody asked for them, large ones as well."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        own, large = driver.put(7), "x" * size
        flying = driver.call(actor, "total", [1.0, size, 1, large])
        flying += driver.call(actor, "retain", [0.1, Nested([own])])
        flying += driver.call(actor, "store", [0.1, 3, size])
        flying += driver.call(actor, "total", [0.1, size, own, large])
        own.drop()
        yield Sleep(0.5)
        away(cluster, home(cluster), 12.0)
        errors = yield from failures(flying)
        assert {error.code for error in errors} == {UNAVAILABLE}
        if random.random() < 0.5:
            for ref in flying:
                ref.drop()
        kept = driver.call(actor, "give_back", [0.0, True], retries=1)
        values = yield Get(kept)
        inner = yield Get(values[0].refs)
        assert [value.number for value in inner] == [7]

    for seed in range(3):
        with SimCluster(830 + seed, nodes=[{"CPU": 1}]) as cluster:
            cluster.run(story)
            until_done(cluster)
            ends_soon(cluster)


@AWAY
def test_a_result_that_others_wait_for_is_the_same_error_for_them(away: Away) -> None:
    """It was passed on before it was there."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        flying = driver.call(actor, "total", [1.0, 0, 1])
        passed = driver.submit("add", [0.0, 0, *flying, 1])
        yield Sleep(0.5)
        away(cluster, home(cluster), 12.0)
        error = yield from failure(passed)
        assert "may have run" in str(error)
        yield Sleep(8.0)

    with SimCluster(840, nodes=[{"CPU": 1}, {"CPU": 1}]) as cluster:
        cluster.excuse("ZR-3001")
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@AWAY
@pytest.mark.parametrize("count", [20, 200])
def test_a_generator_ends_with_the_error_after_what_has_come(away: Away, count: int) -> None:
    """The actor hears that nobody reads on, and serves other calls when it is through."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        (end,) = driver.call(actor, "yields", [0.1, count, 10], unread_max=5)
        yield Sleep(1.0)
        away(cluster, home(cluster), 11.0)
        found = yield from read(driver, end)
        end.drop()
        if found.code:
            assert found.code == UNAVAILABLE
            assert found.numbers == [*range(len(found.numbers))]
        values = yield Get(driver.call(actor, "inc", [0.0, 1], retries=-1))
        assert values[0].number == 1
        yield from is_back(cluster)

    with SimCluster(841, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster, 90.0)
        ends_soon(cluster)


@pytest.mark.parametrize("unread_max", [0, 3])
def test_a_generator_ends_with_the_socket_that_its_items_come_by(unread_max: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        (end,) = driver.call(actor, "yields", [0.1, 30, 10], unread_max=unread_max)
        yield Sleep(1.0)
        next(iter(driver.wires.values())).sever()
        found = yield from read(driver, end)
        end.drop()
        assert found.code == UNAVAILABLE and found.numbers == [*range(len(found.numbers))]
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 1

    with SimCluster(846, machines=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


def test_callers_in_tasks_and_actors_are_told_as_well() -> None:
    """Those on the actor's own node go on."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0], cpus=0)
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        raylet = home(cluster)
        near, _ = driver.create("counter", [0.01, 0], resources=dict(raylet.raylet.info.resources))
        far, _ = driver.create("counter", [0.01, 0], resources=other(raylet))
        asked = [
            driver.call(who, "ask_other", [0.1, 1, Nested([actor]), True])[0] for who in (near, far)
        ]
        yield Get(asked)
        cluster.freeze(raylet, 12.0)
        began = cluster.clock.now
        error = yield from failure(
            driver.call(far, "ask_other", [0.1, 1, Nested([actor]), True], retries=1)
        )
        assert "may have run" in str(error) and cluster.clock.now - began < SOON_S
        yield Sleep(15.0)
        yield Get([driver.call(far, "ask_other", [0.0, 1, Nested([actor]), True])[0]])

    def other(raylet: SimRaylet) -> dict[str, int]:
        (found,) = [one for one in cluster.raylets if one is not raylet]
        return {name: 1 for name, _ in found.raylet.info.resources if name != "CPU"}

    nodes = [{"CPU": 2, "one": 1}, {"CPU": 2, "two": 1}]
    with SimCluster(842, nodes=nodes) as cluster:
        cluster.excuse("ZR-3001")
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


def test_a_cancelled_call_does_not_wait_for_a_node_either() -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        running = driver.call(actor, "inc", [1.0, 1], retries=-1)
        behind = driver.call(actor, "inc", [0.0, 1], retries=-1)
        yield Sleep(0.1)
        unlinked(cluster, home(cluster), 12.0)
        for refs in (running, behind):
            driver.cancel_call(refs[0])
        began = cluster.clock.now
        for refs in (running, behind):
            error = yield from failure(refs)
            assert error.code == "ZR-3002"
        assert cluster.clock.now - began < SOON_S
        values = yield Get(driver.call(actor, "total", [0.0, 0, 0], retries=1))
        assert values[0].number == 0

    with SimCluster(843, nodes=[{"CPU": 1}]) as cluster:
        cluster.excuse("ZR-3002")
        cluster.run(story)
        until_done(cluster)
        ends_soon(cluster)


@pytest.mark.parametrize("kind", [m.Calls, m.Replies, m.ActorState, m.ActorWatch, m.Announce])
def test_more_is_lost_when_the_node_is_back(kind: type[m.Message]) -> None:
    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        unlinked(cluster, home(cluster), 12.0)
        flying = [driver.call(actor, "inc", [0.0, 1])[0] for _ in range(5)]
        waits = [driver.call(actor, "inc", [0.0, 1], retries=1)[0] for _ in range(5)]
        flying += [driver.call(actor, "inc", [0.0, 1])[0] for _ in range(5)]
        errors = yield from failures(flying)
        assert len(errors) == 10
        cluster.cut_at(kind)
        values = yield Get(waits)
        assert [value.number for value in values] == [2, 3, 4, 5, 6]
        yield from is_back(cluster)
        values = yield Get(driver.call(actor, "inc", [0.0, 1]))
        assert values[0].number == 7

    with SimCluster(844, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert sorted(starts(cluster, "inc")) == [0] * 10 + [1] * 7
        ends_soon(cluster)


def test_the_node_dies_after_all() -> None:
    """What had its error keeps it; what has waited for the node gets the last word."""

    def story(driver: Any, random: Random) -> Program:
        actor, _ = driver.create("counter", [0.01, 0])
        yield Get(driver.call(actor, "inc", [0.0, 1]))
        flying = driver.call(actor, "inc", [9.0, 1])
        waits = driver.call(actor, "inc", [0.0, 1], retries=1)
        yield Sleep(0.5)
        cluster.lose_machine(home(cluster))
        error = yield from failure(flying)
        assert error.code == UNAVAILABLE
        error = yield from failure(waits)
        assert error.code == "ZR-3402"
        assert driver.client.outcomes[object_id(flying[0].oid[:16])].kind & m.ERROR

    with SimCluster(845, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()
