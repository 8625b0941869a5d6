"""Stories of what a cut, a death or a restart must not make anybody forget, or count twice."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import near, warm
from tests.sim.stories import counter, failure, leased, lessees, runs, started, until_done, workers
from zray.errors import WorkerCrashedError
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Nested, Program, Sleep
from zray.testing.processes.worker import SimWorker


def held_objects(cluster: SimCluster) -> int:
    assert cluster.head is not None
    return len(cluster.head.gcs.objects.records)


@pytest.mark.parametrize("lost", [m.Done, m.Ack])
def test_what_a_worker_drops_while_its_end_is_not_known_is_not_borrowed_later(
    lost: type[m.Message],
) -> None:
    """The end is told again to the next session, in which the worker holds nothing any more."""

    def story(driver: Any, random: Random) -> Program:
        value = driver.put(5, size=10)
        kept = driver.submit("keep_briefly", [0.05, 0.5, Nested([value])])
        value.drop()
        yield Get(kept)

    with SimCluster(31, nodes=[{"CPU": 1}]) as cluster:
        cluster.run_for(0.1)
        cluster.run(story)
        cluster.cut_at(lost, cluster.raylets[0])
        cluster.run_until(lambda: not cluster.network.traps, 5.0)
        assert cluster.head is not None
        cluster.freeze(cluster.head, 2.0)
        until_done(cluster)
        cluster.run_for(4.0)
        assert workers(cluster), "its death would do away with what it holds"
        assert held_objects(cluster) == 0
        cluster.finish()


def test_a_worker_that_dies_while_its_node_is_away_is_buried_when_that_is_back() -> None:
    """What it held is freed, and what it had submitted does not go on."""

    def story(driver: Any, random: Random) -> Program:
        value = driver.put(5, size=10)
        yield Get(driver.submit("keep", [0.01, Nested([value])]))
        value.drop()
        error = yield from failure(driver.submit("tree", [0.01, 1, 2], max_retries=0, cpus=0.5))
        assert error.code == "ZR-3003"

    with SimCluster(32, nodes=[{"CPU": 1}, {"CPU": 8}]) as cluster:
        cluster.freeze(cluster.raylets[1], 1.0)  # the tasks start on the other one
        cluster.run_for(0.1)
        cluster.run(story)
        cluster.run_until(started(cluster, "tree"), 5.0)
        away = cluster.raylets[0]
        assert away.link is not None
        cluster.network.sever(away.link)
        for worker in workers(cluster):
            cluster.kill_worker(worker)
        until_done(cluster, 10.0)
        cluster.run_for(2.0)
        assert held_objects(cluster) == 0
        cluster.finish()


def long_children(driver: Any, random: Random) -> Program:
    error = yield from failure(driver.submit("abandons", [0.2, 60.0], max_retries=0))
    assert error.code == "ZR-3003"


@pytest.mark.parametrize("unseen", [False, True])
def test_tasks_of_a_worker_that_is_gone_end(unseen: bool) -> None:
    """``unseen``: its node has no session when it dies."""
    with SimCluster(33, nodes=[{"CPU": 4}]) as cluster:
        cluster.run(long_children)
        cluster.run_until(started(cluster, "add", 4), 5.0)
        if unseen:
            assert cluster.head is not None
            cluster.freeze(cluster.head, 1.0)
            cluster.cut_at(m.Pong)
            link = cluster.raylets[0].link
            assert link is not None
            cluster.network.sever(link)
        until_done(cluster, 10.0)
        cluster.run_for(7.0)  # some of them swallow the cancel, and are killed
        assert cluster.head is not None
        cluster.network.traps.clear()
        assert not cluster.head.gcs.tasks and not cluster.raylets[0].raylet.tasks.held
        cluster.finish()


# ---- attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0.0, 2.0])
@pytest.mark.parametrize("known", [False, True])
def test_a_crash_that_a_restarted_head_is_told_of_counts_once(known: bool, late: float) -> None:
    """``known``: to the head of before. ``late``: the node is back after the driver."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("crashes", [0.3, 1], max_retries=1))
        assert values[0].number == 8
        error = yield from failure(driver.submit("crashes", [0.3, 9], max_retries=1))
        assert error.code == "ZR-3003"

    with SimCluster(35, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        for number in (1, 3):
            cluster.run_until(started(cluster, "crashes", number), 5.0)
            if known:
                cluster.run_until(started(cluster, "crashes", number + 1), 5.0)
            else:
                cluster.cut_at(m.Done, cluster.raylets[0])
                cluster.run_until(lambda: not cluster.network.traps, 5.0)
            if late:
                cluster.freeze(cluster.raylets[0], late)
            cluster.restart_head(0.01)
            cluster.run_for(0.02)
        until_done(cluster)
        assert runs(cluster, "crashes") == [2, 2]
        cluster.finish()


def test_the_end_of_an_earlier_attempt_says_nothing_of_the_one_that_runs() -> None:
    """The node has got the second attempt, and not heard that the first one's end is known."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("crashes", [1.0, 1], cpus=0, max_retries=1))
        assert values[0].number == 8

    with SimCluster(31, latency_s=0.05, bounds={"PAYLOAD_ITEMS_MAX": 1}) as cluster:
        cluster.run(story)
        raylet = cluster.raylets[0]

        def both() -> bool:
            attempts = [task.assignment.attempt for task in raylet.raylet.tasks.held.values()]
            return 2 in attempts and bool(raylet.raylet.completions.unacked)

        cluster.run_until(both, 5.0)
        assert raylet.link is not None
        cluster.network.sever(raylet.link)
        until_done(cluster, 5.0)
        assert runs(cluster, "crashes") == [2]
        assert counter(cluster, "stale") == 1
        cluster.finish()


def test_an_end_is_kept_until_it_is_acknowledged_itself() -> None:
    """The acknowledgement of the one before arrives; the crash that follows is lost at a cut."""

    def story(driver: Any, random: Random) -> Program:
        short = driver.submit("add", [0.01, 0, 1], max_retries=0)
        crash = driver.submit("add", [30.0, 0, 1], max_retries=0)
        yield Get(short)
        error = yield from failure(crash)
        assert error.code == "ZR-3003"

    with SimCluster(40, nodes=[{"CPU": 2}], latency_s=0.05) as cluster:
        cluster.run(story)
        raylet = cluster.raylets[0]
        ends = raylet.raylet.completions
        cluster.run_until(lambda: bool(ends.unacked), 5.0)
        link = raylet.link
        assert link is not None
        cluster.run_until(lambda: bool(link.under_way[False]), 5.0)  # the acknowledgement
        cluster.kill_worker(next(w for w in workers(cluster) if w.delivered is not None))
        cluster.run_until(lambda: [*ends.unacked] == [1, 2], 1.0)
        cluster.run_until(lambda: 1 not in ends.unacked, 1.0)
        assert link.under_way[True], "its end has arrived"
        cluster.network.sever(link)
        until_done(cluster, 10.0)
        assert runs(cluster, "add") == [1, 1]
        cluster.finish()


def test_an_attempt_of_before_a_restart_is_not_made_again_while_a_later_one_may_run() -> None:
    """The node of the first is back, and tells its end again; that of the second takes its time."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("crashes", [3.0, 1], max_retries=1))
        assert values[0].number == 8

    told = 0
    for seed in range(12):
        with SimCluster(seed, nodes=[{"CPU": 1}, {"CPU": 1}], latency_s=0.02) as cluster:
            cluster.run(story)
            cluster.run_until(started(cluster, "crashes", 2), 10.0)
            first, second = cluster.raylets
            if first.raylet.tasks.held:
                first, second = second, first
            told += bool(first.raylet.completions.unacked)
            cluster.freeze(second, 1.0)
            cluster.restart_head(0.01)
            until_done(cluster, 30.0)
            assert runs(cluster, "crashes") == [2]
            cluster.finish()
    assert told, "no end was told again"


def test_a_node_that_dies_over_a_restart_may_have_run_what_it_held() -> None:
    """max_retries=0: the task does not run again; with one retry it does, once."""

    def story(driver: Any, random: Random) -> Program:
        never = driver.submit("add", [5.0, 0, 1], max_retries=0)
        once = driver.submit("add", [5.0, 0, 1], max_retries=1)
        error = yield from failure(never)
        assert error.code == "ZR-3004"
        yield Get(once)
        yield Sleep(0.1)

    with SimCluster(37, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add", 2), 5.0)
        cluster.restart_head(0.5)
        cluster.lose_machine(cluster.raylets[0], 1.0)
        until_done(cluster, 60.0)
        assert runs(cluster, "add") == [1, 2]
        cluster.finish()


def test_a_node_s_death_is_a_failure_of_what_it_held() -> None:
    def story(driver: Any, random: Random) -> Program:
        error = yield from failure(driver.submit("add", [5.0, 0, 1], max_retries=0))
        assert error.code == "ZR-3004"

    with SimCluster(38, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add"), 5.0)
        cluster.replace(cluster.raylets[0], 0.5, same_id=True)
        until_done(cluster, 30.0)
        assert runs(cluster, "add") == [1]
        cluster.finish()


def test_a_cancelled_task_that_comes_back_does_not_run() -> None:
    """It was on its way to its node when the link was cut, and is cancelled before that is back."""

    def story(driver: Any, random: Random) -> Program:
        refs = driver.submit("add", [0.1, 0, 1])
        yield Sleep(0.1)
        driver.cancel(refs[0], force=False)
        error = yield from failure(refs)
        assert error.code == "ZR-3002"

    with SimCluster(41) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(m.Tasks, cluster.raylets[0])
        cluster.run(story)
        cluster.run_until(lambda: not cluster.network.traps, 5.0)
        cluster.freeze(cluster.raylets[0], 1.0)
        until_done(cluster)
        assert runs(cluster, "add") == [0]
        cluster.finish()


def test_a_part_of_a_result_does_not_settle_a_task_of_a_worker() -> None:
    """The rest is lost at a cut, and told once the node has asked again."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("gathers", [0.01, 10]))
        assert values[0].number == 18

    bounds = {"PAYLOAD_ITEMS_MAX": 3, "NEAR_TASKS": 0}  # of those the head tells nothing
    with SimCluster(42, nodes=[{"CPU": 2}], bounds=bounds) as cluster:
        cluster.cut_at(m.Result, cluster.raylets[0], behind=True, like=lambda msg: bool(msg.seq))
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert runs(cluster, "numbers") == [1, 1, 1]
        cluster.finish()


# ---- epochs --------------------------------------------------------------------------------


def test_what_was_said_under_an_earlier_head_has_no_effect() -> None:
    """Everything of before the restart arrives once more, at both ends."""

    def story(driver: Any, random: Random) -> Program:
        refs = [driver.submit("add", [0.05, 0, n], max_retries=0)[0] for n in range(8)]
        values = yield Get(refs)
        assert [value.number for value in values] == list(range(8))
        yield Sleep(2.0)
        values = yield Get(driver.submit("add", [0.05, 0, *refs], max_retries=0))
        assert values[0].number == sum(range(8))

    with SimCluster(39, nodes=[{"CPU": 2}, {"CPU": 1}]) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add", 6), 5.0)
        cluster.restart_head(0.01)
        cluster.run_for(1.0)
        assert cluster.head is not None
        for _ in range(5):
            cluster.network.replay(cluster.head.gcs.epoch, cluster.random)
            cluster.run_for(0.3)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 9
        cluster.finish()


def test_an_old_head_that_still_answers_is_not_followed_again() -> None:
    """It goes on for a while after another has taken its store, and some peers find it again."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(10):
            refs = [driver.submit("add", [0.3, 0, n], max_retries=0)[0] for n in range(4)]
            values = yield Get(refs)
            assert [value.number for value in values] == list(range(4))

    for seed in range(4):
        with SimCluster(seed, nodes=[{"CPU": 2}, {"CPU": 2}], drivers=2) as cluster:
            for driver in (0, 1):
                cluster.run(story, driver)
            cluster.run_until(started(cluster, "add", 3), 5.0)
            cluster.usurp_head(6.0)
            for _ in range(10):
                cluster.run_for(0.5)
                for link in [*cluster.network.links.values()]:
                    cluster.network.sever(link)
            until_done(cluster)
            assert set(runs(cluster, "add")) == {1}
            cluster.finish()


@pytest.mark.parametrize("stalls_s", [2.5, 8.0])
def test_a_large_result_comes_though_its_node_is_not_heard_for_a_while(stalls_s: float) -> None:
    """The driver asks the head for it, which hears of it from the node's connection alone."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        (link,) = [raylet.link for raylet in cluster.raylets]
        assert link is not None
        cluster.network.hold(link, stalls_s)
        values = yield Get(driver.submit("add", [0.001, 100_000, 7], max_retries=0))
        assert values[0].number == 7

    with near(23) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert [run.leased for run in [*cluster.ledger.tasks.values()][-1].runs] == [True]
        cluster.finish()


def test_a_task_does_not_wait_for_ever_for_a_large_result_that_went_with_its_node() -> None:
    """The head knows it as promised by the driver alone, which has let go of it."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        large = driver.submit("add", [0.05, 100_000, 7])
        last = driver.submit("add", [0.001, 0, large[0], 1], resources={"GPU": 1})
        large[0].drop()
        yield Sleep(0.01)
        lost = lessees(cluster)[0].raylet
        cluster.network.hold(lost.link, 30.0)
        yield Sleep(0.5)
        cluster.lose_machine(lost)
        values = yield Get(last)
        assert values[0].number == 8

    with near(24, nodes=[{"CPU": 1}, {"GPU": 1, "CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster, 100.0)
        cluster.finish()


@pytest.mark.parametrize("resources", [{}, {"GPU": 1}])
def test_where_no_worker_can_begin_anything_the_program_hears_of_it(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, int]
) -> None:
    """Each dies as soon as it is there: a task has crashed then, as often as it may, and the next
    one runs once workers live again. Leased or by the head."""
    begins = SimWorker.begin
    monkeypatch.setattr(SimWorker, "begin", lambda worker: worker.die("exit code 1"))
    took = []

    def story(driver: Any, random: Random) -> Program:
        for retries in (0, 3):
            began = cluster.clock.now
            ref = driver.submit("add", [0.01, 0, 1], max_retries=retries, resources=resources)
            error = yield from failure(ref)
            took.append(cluster.clock.now - began)
            assert error.code == WorkerCrashedError.code, error
        monkeypatch.setattr(SimWorker, "begin", begins)
        values = yield Get(driver.submit("add", [0.01, 0, 7], resources=resources))
        assert values[0].number == 7
        yield Sleep(1.0)
        for _ in range(20):
            yield Get(driver.submit("add", [0.01, 0, 1], resources=resources))

    with near(25, nodes=[{"CPU": 2, "GPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster, 200.0)
        assert bool(leased(cluster, "add")) == (not resources)
        cluster.finish()
    assert took[0] < 20 and took[1] < 40, took
