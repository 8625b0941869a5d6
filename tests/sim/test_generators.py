"""Generators on every way and under every fault: each item once, in order, and freed at the end."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import NEAR, Way, both_ways
from tests.sim.stories import counter, failures, leased, runs, started, until_done, workers
from zray import limits
from zray.ids import item_id, task_of
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Ref, Sleep
from zray.testing.programs.stream_workloads import Read, read

LARGE = 2 * limits.INLINE_BYTES_MAX


def one(count: int, seconds: float, size: int = 0, crash: int = 0, **options: Any) -> Any:
    """A story: a generator that is read to its end, and yields so many items."""

    def story(driver: Any, random: Random) -> Program:
        yield from whole(driver, [seconds, count, size, crash], **options)

    return story


def whole(driver: Any, arguments: list[Any], **options: Any) -> Program:
    options.setdefault("unread_max", 0)
    (end,) = driver.submit("yields", arguments, **options)
    found = yield from read(driver, end)
    end.drop()
    assert found == Read([*range(arguments[1])], "")


@pytest.mark.parametrize("size", [0, 500, LARGE])
def test_items_by_way_of_the_head(size: int) -> None:
    with SimCluster(701, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(one(30, 0.001, size))
        until_done(cluster)
        cluster.finish()


@both_ways(near=702, far=703)
@pytest.mark.parametrize("size", [0, 500, LARGE])
def test_items_of_leased_tasks(way: Way, seed: int, size: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        for _ in range(5):
            yield from whole(driver, [0.0, 20, size])

    with way.cluster(seed) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert leased(cluster, "yields") > 0
        cluster.finish()


def test_items_of_a_task_that_a_task_reads() -> None:
    def story(driver: Any, random: Random) -> Program:
        refs = driver.submit("reads_child", [0.001, 10])
        driver.expect(refs, 10)
        yield Get(refs)

    with SimCluster(704, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


@pytest.mark.parametrize("direct", [0.0, 1.0])
@pytest.mark.parametrize("size", [0, LARGE])
def test_items_of_calls(direct: float, size: int) -> None:
    """By a socket of the actor's, or by way of the head."""

    def story(driver: Any, random: Random) -> Program:
        handle, _ = driver.create("counter", [0.0, 0])
        for _ in range(2):
            (end,) = driver.call(handle, "yields", [0.001, 12, size], unread_max=0)
            found = yield from read(driver, end)
            end.drop()
            assert found == Read([*range(12)], "")

    with SimCluster(705, nodes=[{"CPU": 1}], machines=1, direct=direct) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_items_with_references() -> None:
    def story(driver: Any, random: Random) -> Program:
        (end,) = driver.submit("yields_references", [0.01, 9], unread_max=0)
        found = yield from read(driver, end)
        end.drop()
        assert found == Read([*range(9)], "")

    with SimCluster(706, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


@pytest.mark.parametrize("lost", [m.Items, m.Taken, m.Done, m.Result])
def test_what_a_cut_loses_is_said_again(lost: type[m.Message]) -> None:
    with SimCluster(707, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(one(20, 0.05, unread_max=3))
        cluster.run_until(started(cluster, "yields"), 5.0)
        cluster.run_for(0.2)
        cluster.cut_at(lost)
        until_done(cluster)
        assert not cluster.network.traps
        cluster.finish()


@pytest.mark.parametrize("unread_max", [0, 2])
@pytest.mark.parametrize("size", [0, 500])
def test_a_head_that_restarts_loses_no_item(unread_max: int, size: int) -> None:
    with SimCluster(708, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(one(30, 0.05, size, unread_max=unread_max))
        cluster.run_until(started(cluster, "yields"), 5.0)
        cluster.run_for(0.3)
        cluster.restart_head(0.5)
        until_done(cluster)
        assert sum(len(deed.runs) for deed in cluster.ledger.tasks.values()) == 1
        cluster.finish()


@pytest.mark.parametrize("size", [0, 500])
def test_a_worker_that_dies_yields_nothing_twice(size: int) -> None:
    with SimCluster(709, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(one(12, 0.02, size, crash=2, max_retries=3))
        until_done(cluster)
        assert sum(len(deed.runs) for deed in cluster.ledger.tasks.values()) == 3
        cluster.finish()


@both_ways(near=710, far=711)
def test_a_leased_worker_that_dies_yields_nothing_twice(way: Way, seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        for _ in range(3):
            yield from whole(driver, [0.001, 8, 0, 1], max_retries=3)

    with way.cluster(seed) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_worker_that_dies_for_good_leaves_what_it_has_yielded() -> None:
    reads: list[Read] = []

    def story(driver: Any, random: Random) -> Program:
        arguments = [0.05, 10, 0, 9]
        (end,) = driver.submit("yields", arguments, max_retries=0, unread_max=0)
        reads.append((yield from read(driver, end)))
        end.drop()

    with SimCluster(712, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert reads == [Read([*range(5)], "ZR-3003")]
        cluster.finish()


@pytest.mark.parametrize("unread_max", [0, 1])
def test_a_generator_that_nobody_reads_goes_on_to_its_end(unread_max: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        (end,) = driver.submit("yields", [0.01, 10, 500], unread_max=unread_max)
        yield Sleep(0.05)
        driver.client.streams.close(task_of(end.oid))
        yield Get([end])
        end.drop()

    with SimCluster(713, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_generator_ends_with_its_driver() -> None:
    with SimCluster(714, nodes=[{"CPU": 1}], drivers=2) as cluster:
        cluster.run(one(1000, 0.05, 500, unread_max=1))
        cluster.run_until(started(cluster, "yields"), 5.0)
        cluster.run_for(0.3)
        cluster.drivers[0].die()
        cluster.run_for(limits.CANCEL_GRACE_S + 25.0)
        assert not [worker for worker in workers(cluster) if worker.delivered is not None]
        cluster.finish()


def test_items_of_an_actor_that_is_restarted() -> None:
    def story(driver: Any, random: Random) -> Program:
        handle, _ = driver.create("counter", [0.0, 0], max_restarts=-1, max_task_retries=-1)
        (end,) = driver.call(handle, "yields", [0.05, 20, 0], unread_max=0)
        found = yield from read(driver, end)
        end.drop()
        assert found == Read([*range(20)], "")

    with SimCluster(715, nodes=[{"CPU": 1}], machines=1) as cluster:
        cluster.run(story)
        cluster.run_for(0.5)
        (actor,) = [worker for worker in workers(cluster) if worker.actor is not None]
        cluster.kill_worker(actor)
        until_done(cluster)
        cluster.finish()


# ---- items that go with their node ---------------------------------------------------------


def taken(driver: Any, end: Any, count: int) -> Any:
    """The references of the first items, so many, without asking for their values."""
    task_id, refs = task_of(end.oid), []
    while len(refs) < count:
        oid = driver.client.streams.take(task_id)
        if oid is None:
            yield Sleep(0.01)
        else:
            refs.append(Ref(driver, oid))
    return refs


def numbers(values: Any) -> list[int]:
    return [value.number for value in values]


@pytest.mark.parametrize("size", [0, LARGE])
def test_lost_items_are_made_again_by_another_run(size: int) -> None:
    """Small ones are their consumer's. Of large ones, what was let go of does not come again."""
    stored: list[list[bytes]] = []

    def story(driver: Any, random: Random) -> Program:
        (end,) = driver.submit("yields", [0.01, 6, size], unread_max=0)
        refs = yield from taken(driver, end, 6)
        refs.pop(3).drop()
        yield Sleep(5.0)
        assert numbers((yield Get(refs))) == [0, 1, 2, 4, 5]
        assert cluster.head is not None
        stored.append([*cluster.head.gcs.objects.records])
        assert item_id(task_of(end.oid), 4) not in stored[0]
        for ref in (*refs, end):
            ref.drop()
        driver.client.streams.close(task_of(end.oid))

    with SimCluster(720, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        cluster.replace(cluster.raylets[0], 0.2, same_id=False)
        until_done(cluster)
        assert runs(cluster, "yields") == [2 if size else 1]
        assert counter(cluster, "rebuilt") == (1 if size else 0)
        cluster.finish()


@both_ways(near=721, far=722)
def test_lost_items_of_a_leased_task_are_made_again(way: Way, seed: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        (end,) = driver.submit("yields", [0.01, 6, LARGE], unread_max=0)
        refs = yield from taken(driver, end, 6)
        yield Get([end])
        marks.append(driver)
        yield Sleep(5.0)
        assert numbers((yield Get(refs))) == [*range(6)]
        for ref in (*refs, end):
            ref.drop()
        driver.client.streams.close(task_of(end.oid))

    marks: list[Any] = []
    with way.cluster(seed) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: bool(marks), 20.0)
        assert leased(cluster, "yields") > 0
        cluster.run_for(0.5)
        raylet = next(one for one in cluster.raylets if one.alive)
        cluster.replace(raylet, 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert counter(cluster, "rebuilt") == 1
        cluster.finish()


@both_ways(near=723, far=724)
@pytest.mark.parametrize("cut", [False, True])
def test_items_that_are_lost_while_their_leased_task_runs_come_with_its_next_attempt(
    way: Way, seed: int, cut: bool
) -> None:
    """Though the connection is cut by which the head hears how they are made."""

    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        (end,) = driver.submit("yields", [0.2, 10, LARGE], unread_max=0, max_retries=5)
        refs = yield from taken(driver, end, 4)
        marks.append(driver)
        yield Sleep(1.0)
        assert numbers((yield Get(refs))) == [*range(4)]
        refs += yield from taken(driver, end, 6)
        assert numbers((yield Get(refs))) == [*range(10)]
        yield Get([end])
        for ref in (*refs, end):
            ref.drop()
        driver.client.streams.close(task_of(end.oid))

    marks: list[Any] = []
    with way.cluster(seed) as cluster:
        if cut:
            cluster.cut_at(m.Made)
        cluster.run(story)
        cluster.run_until(lambda: bool(marks), 20.0)
        raylet = next(one for one in cluster.raylets if one.alive)
        cluster.replace(raylet, 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert runs(cluster, "yields") == [2] and not cluster.network.traps
        cluster.finish()


@both_ways(near=726, far=727)
def test_items_of_a_leased_task_of_whose_end_a_cut_has_lost_word_are_made_again(
    way: Way, seed: int
) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from way.warm(driver, 0.001)
        (end,) = driver.submit("yields", [0.1, 4, LARGE], unread_max=0)
        refs = yield from taken(driver, end, 3)
        cluster.cut_at(m.Made)
        yield Get([end])
        marks.append(driver)
        yield Sleep(3.0)
        assert numbers((yield Get(refs))) == [*range(3)]
        for ref in (*refs, end):
            ref.drop()
        driver.client.streams.close(task_of(end.oid))

    marks: list[Any] = []
    with way.cluster(seed) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: bool(marks), 20.0)
        cluster.run_for(1.0)
        assert not cluster.network.traps
        raylet = next(one for one in cluster.raylets if one.alive)
        cluster.replace(raylet, 0.2, same_id=False)
        until_done(cluster, 200.0)
        assert counter(cluster, "rebuilt") == 1
        cluster.finish()


def test_items_that_are_not_yielded_again_are_lost_and_the_others_are_not() -> None:
    def story(driver: Any, random: Random) -> Program:
        (end,) = driver.submit("yields_less", [6, LARGE], unread_max=0, max_retries=-1)
        refs = yield from taken(driver, end, 6)
        yield Sleep(5.0)
        assert numbers((yield Get(refs[:4]))) == [*range(4)]
        errors = yield from failures(refs)
        assert [error.code for error in errors] == ["ZR-3005"] * 2
        assert "did not yield as many items" in str(errors[0])
        for ref in (*refs, end):
            ref.drop()
        driver.client.streams.close(task_of(end.oid))

    with SimCluster(725, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        cluster.replace(cluster.raylets[0], 0.2, same_id=False)
        until_done(cluster)
        assert runs(cluster, "yields_less") == [2]
        cluster.finish()


@pytest.mark.parametrize("seed", range(40))
def test_items_survive_the_loss_of_nodes_at_any_moment(seed: int) -> None:
    """And what was made of some of them, which were let go of."""
    random = Random(seed)

    def story(driver: Any, _random: Random) -> Program:
        if random.random() < 0.5:
            yield from NEAR.warm(driver, 0.001)
        ends, refs, sums = [], [], []
        for count in (random.randrange(1, 8), 5):
            arguments = [random.choice([0.0, 0.02, 0.3]), count, LARGE]
            options = {"max_retries": -1, "unread_max": random.choice([0, 0, 3])}
            (end,) = driver.submit("yields", arguments, **options)
            ends.append(end)
            refs.append((yield from taken(driver, end, count)))
        for items in refs:
            sums += driver.submit("add", [0.01, LARGE, *items[:3]], max_retries=-1)
        for items in refs:
            while len(items) > 1 and random.random() < 0.5:
                items.pop(random.randrange(len(items))).drop()
        yield Sleep(random.uniform(0.1, 8.0))
        expected = [int.from_bytes(ref.oid[16:], "big") - 1 for items in refs for ref in items]
        found = yield Get([ref for items in refs for ref in items])
        assert numbers(found) == expected
        yield Get(sums)
        for ref in (*ends, *sums, *[ref for items in refs for ref in items]):
            ref.drop()
        for end in ends:
            driver.client.streams.close(task_of(end.oid))

    nodes = [{"CPU": 1}, {"CPU": 2}, {"CPU": 1}]
    with SimCluster(seed, nodes=nodes) as cluster:
        cluster.run(story)
        for _ in range(random.randint(1, 4)):
            cluster.run_for(random.uniform(0.01, 2.0))
            living = [raylet for raylet in cluster.raylets if raylet.alive]
            cluster.replace(random.choice(living), random.uniform(0.1, 1.0), same_id=False)
        until_done(cluster, 300.0)
        cluster.finish()
