"""Tasks that go straight to workers that are leased, told on purpose: each way in and out."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import (
    failure,
    leased,
    lessees,
    runs,
    until_done,
    workers,
)
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Nested, Program, Ref, Sleep, TaskFailed, Wait
from zray.testing.world.errors import LOSSES

CRASHED, CANCELLED = "ZR-3003", "ZR-3002"


def near(seed: int, **options: Any) -> SimCluster:
    """A cluster on one machine: only there are leases. Its nodes may have 4 workers or more."""
    chosen = {"nodes": [{"CPU": 2}], "machines": 1, "eager": True, **options}
    return SimCluster(4 * seed + (len(chosen["nodes"]) > 1) * 3, **chosen)


def burst(driver: Any, seconds: float, count: int, **options: Any) -> list[Ref]:
    return [driver.submit("add", [seconds, 0, n], **options)[0] for n in range(count)]


def warm(driver: Any, seconds: float) -> Program:
    """Tasks until there are leases, and one knows how long the function takes."""
    for _ in range(10):
        yield Get(burst(driver, seconds, 1, max_retries=0))


def ends_through_head(cluster: SimCluster) -> list[int]:
    """How many ends of tasks pass the head from now on, in a list of one number."""
    count = [0]

    def counts(link: Any, upwards: bool, messages: list[m.Message]) -> bool:
        count[0] += sum(len(msg.tasks) for msg in messages if isinstance(msg, m.Done))
        return False

    cluster.network.traps.append((counts, False))
    return count


# ---- the way in ----------------------------------------------------------------------------


def test_a_burst_goes_by_leases() -> None:
    """But for what came before there was a lease, no end passes the head."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.0001)
        for _ in range(3):
            values = yield Get(burst(driver, 0.0001, 100, max_retries=0))
            assert [value.number for value in values] == list(range(100))

    with near(1) as cluster:
        passed = ends_through_head(cluster)
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 310
        assert leased(cluster) >= 300
        assert passed == [310 - leased(cluster)]
        cluster.finish()


def test_one_task_after_the_other_goes_by_lease() -> None:
    def story(driver: Any, random: Random) -> Program:
        for number in range(50):
            values = yield Get(driver.submit("add", [0.0005, 0, number], max_retries=0))
            assert values[0].number == number

    with near(2) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert leased(cluster) >= 45
        cluster.finish()


def test_results_that_are_not_there_yet_are_arguments() -> None:
    """They never leave the driver's hands: the head hears of none."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        last = driver.submit("add", [0.001, 0, 1])
        for _ in range(20):
            last = driver.submit("add", [0.001, 0, last[0], 1])
        values = yield Get(last)
        assert values[0].number == 21

    with near(3) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert leased(cluster) >= 21
        cluster.finish()


def test_a_driver_elsewhere_has_no_leases() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        yield Get(burst(driver, 0.001, 50))

    with SimCluster(4, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert not leased(cluster) and runs(cluster, "add") == [1] * 60
        cluster.finish()


def test_a_worker_that_cannot_be_reached_is_given_back() -> None:
    """There are no descriptors left: tasks go by way of the head, for good."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(3):
            yield Get(burst(driver, 0.001, 30, max_retries=0))
            yield Sleep(0.3)

    with near(5, direct=0.0) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert not leased(cluster) and runs(cluster, "add") == [1] * 90
        cluster.finish()


def test_a_full_queue_keeps_nothing_waiting_for_ever() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.00005)
        yield Get(burst(driver, 0.00005, 300, max_retries=0))

    with near(6, packets_max=1) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 310 and leased(cluster) >= 290
        cluster.finish()


# ---- what a worker has not begun -----------------------------------------------------------


def test_what_a_stopped_worker_has_not_taken_runs_elsewhere() -> None:
    """SIGSTOP in the middle of a burst: what waits in its queue is taken back, without it."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        yield Get(burst(driver, 0.01, 40, max_retries=0))

    with near(7) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 4, 5.0)
        stopped = lessees(cluster)[0]
        stopped.frozen_until = cluster.clock.now + 10.0
        cluster.run_for(3.0)
        ended = [
            run
            for deed in cluster.ledger.tasks.values()
            for run in deed.runs
            if run.ended is not None
        ]
        assert len(ended) >= 50 - 2  # what it runs, and what it had read
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 50
        cluster.finish()


def test_a_task_that_waits_keeps_nothing_behind_it() -> None:
    """One CPU: parents whose children go by way of the head, and siblings in their queue."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(10):
            yield Get(driver.submit("tree", [0.00005, 0, 0]))
        parents = [driver.submit("tree", [0.00005, 2, 2])[0] for _ in range(20)]
        values = yield Get(parents)
        assert [value.number for value in values] == [7] * 20

    with near(8, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert set(runs(cluster, "tree")) == {1}
        assert leased(cluster) >= 9
        cluster.finish()


# ---- ends of leases ------------------------------------------------------------------------


def test_a_worker_without_work_is_nobodys() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        yield Get(burst(driver, 0.001, 20))
        yield Sleep(1.0)

    with near(9) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 2, 5.0)
        cluster.run_until(lambda: not lessees(cluster), 1.0)
        cluster.run_for(0.1)
        scheduler = cluster.raylets[0].raylet.scheduler
        assert scheduler.free == scheduler.total
        assert cluster.head is not None
        for node in cluster.head.gcs.scheduler.nodes.values():
            assert node.free == node.total
        assert not cluster.drivers[0].leased.wires
        cluster.finish()


def test_another_job_does_not_wait_for_one_that_has_all_leases() -> None:
    def greedy(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.005)
        for _ in range(8):
            yield Get(burst(driver, 0.005, 200, max_retries=0))
            yield Sleep(0.2)

    def modest(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("several", [0.02, 5], num_returns=2, max_retries=0))

    with near(10, drivers=2) as cluster:
        cluster.run(greedy)
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 100, 5.0)
        before = cluster.clock.now
        cluster.run(modest, 1)
        cluster.run_until(cluster.drivers[1].idle, 1.0)
        assert cluster.clock.now - before < 0.1
        assert not cluster.drivers[0].idle()
        until_done(cluster)
        assert leased(cluster) > 1200  # nobody waits any more: by leases again
        assert runs(cluster, "add") == [1] * 1610
        cluster.finish()


def test_two_bursts_of_two_jobs_both_go_on() -> None:
    def greedy(driver: Any, random: Random) -> Program:
        yield Get(burst(driver, 0.002, 300, max_retries=0))

    with near(11, drivers=2) as cluster:
        cluster.run(greedy)
        cluster.run_for(0.05)
        cluster.run(greedy, 1)
        cluster.run_for(0.3)
        ends = [
            sum(run.ended is not None for deed in deeds for run in deed.runs)
            for deeds in (
                [deed for deed in cluster.ledger.tasks.values() if deed.job_id == who.process_id]
                for who in cluster.drivers
            )
        ]
        assert min(ends) > 40, ends
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 600
        cluster.finish()


@pytest.mark.parametrize("cpus", [0.5, 1.0])
def test_a_task_with_other_needs_does_not_wait_for_ever(cpus: float) -> None:
    """Loops of the same job keep all leases busy, with nothing that would be seen to wait."""

    def loop(driver: Any, random: Random) -> Program:
        for _ in range(100):
            yield Get(driver.submit("add", [0.02, 0, 1], max_retries=0))

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(0.5)
        options = {"cpus": cpus, "num_returns": 2, "max_retries": 0}
        yield Get(driver.submit("several", [0.02, 5], **options))
        assert not driver.threads[0].done

    with near(12, nodes=[{"CPU": 2}]) as cluster:
        cluster.run(loop)
        cluster.run(loop)
        cluster.run(other)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 200
        assert leased(cluster) > 50
        cluster.finish()


# ---- deaths --------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "most"), [(0.0001, 25), (0.002, 1)])
def test_a_dead_worker_is_charged_with_what_it_had_begun(seconds: float, most: int) -> None:
    """Nothing may be retried: what had not begun runs elsewhere. Ends of short tasks that it had
    not told yet are lost with it."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, seconds)
        failed = 0
        for ref in burst(driver, seconds, 500, max_retries=0):
            try:
                yield Get([ref])
            except TaskFailed as error:
                assert error.code == CRASHED
                assert "the worker (pid" in str(error) and "that ran add died" in str(error)
                failed += 1
        assert failed <= most, failed

    for seed in range(5):
        with near(seed) as cluster:
            cluster.run(story)
            cluster.run_until(lambda: leased(cluster) > 50, 5.0)
            cluster.run_until(lambda: any(w.delivered for w in lessees(cluster)), 1.0)
            cluster.kill_worker(next(w for w in lessees(cluster) if w.delivered is not None))
            until_done(cluster)
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add") == [1] * 510
            cluster.finish()


def test_a_task_that_its_worker_took_with_it_is_tried_again() -> None:
    def story(driver: Any, random: Random) -> Program:
        for _ in range(11):
            yield Get(driver.submit("crashes", [0.001, 0]))
        dying = driver.submit("crashes", [0.001, 2], max_retries=2)
        hopeless = driver.submit("crashes", [0.001, 9], max_retries=1)
        others = burst(driver, 0.001, 40, max_retries=0)
        values = yield Get(dying)
        assert values[0].number == 8
        error = yield from failure(hopeless)
        assert error.code == CRASHED
        yield Get(others)

    with near(13) as cluster:
        cluster.excuse(CRASHED)
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "crashes") == [1] * 11 + [3, 2]
        assert runs(cluster, "add") == [1] * 40
        assert leased(cluster, "crashes") > 12
        cluster.finish()


@pytest.mark.parametrize("after_s", [0.01, 1.0, 30.0])
def test_leases_go_on_while_the_head_restarts(after_s: float) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        values = yield Get(burst(driver, 0.01, 400, max_retries=0))
        assert [value.number for value in values] == list(range(400))

    with near(14) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 20, 5.0)
        cluster.restart_head(after_s)
        before = leased(cluster)
        cluster.run_for(min(after_s, 1.0))
        if after_s >= 1.0:
            assert leased(cluster) > before + 100
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 410
        cluster.finish()


def test_a_submitter_that_dies_leaves_nothing() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        yield Get(burst(driver, 0.01, 1000))

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(2.0)
        yield Get(burst(driver, 0.001, 10, max_retries=0))

    with near(15, drivers=2) as cluster:
        cluster.run(story)
        cluster.run(other, 1)
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        cluster.drivers[0].die()
        before = leased(cluster)
        cluster.run_for(0.3)
        assert leased(cluster) <= before + 4 and not lessees(cluster)
        until_done(cluster)
        cluster.finish()


def test_a_node_that_dies_takes_what_it_ran() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        values = yield Get(burst(driver, 0.01, 200, max_retries=1))
        assert [value.number for value in values] == list(range(200))

    with near(16, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: len(lessees(cluster)) == 4 and leased(cluster) > 40, 5.0)
        cluster.replace(cluster.raylets[0], 5.0, same_id=False)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert sum(runs(cluster, "add")) <= 210 + 4
        cluster.finish()


# ---- cancelling ----------------------------------------------------------------------------


def test_a_cancel_reaches_a_task_wherever_it_is() -> None:
    """In the driver, in a queue, behind a running task in its worker, and running."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        refs = burst(driver, 0.3, 12, max_retries=0)
        yield Sleep(0.1)
        for number, ref in enumerate(refs):
            driver.cancel(ref, force=number % 3 == 0)
        swallowed = 0
        for ref in refs:
            try:
                yield Get([ref])
            except TaskFailed as error:
                assert error.code == CANCELLED
            else:
                swallowed += 1
        assert swallowed <= 2, swallowed
        yield Get(burst(driver, 0.01, 10, max_retries=0))

    for seed in range(6):  # some of the running ones swallow it
        with near(seed) as cluster:
            cluster.excuse(CANCELLED)
            cluster.run(story)
            until_done(cluster)
            assert cluster.drivers[0].threads[0].error is None
            assert sum(runs(cluster, "add")) <= 10 + 4 + 10
            cluster.finish()


def test_the_grace_of_a_cancel_does_not_kill_the_task_after_it() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        refs = burst(driver, 3.0, 2, max_retries=0)
        yield Sleep(0.1)
        for ref in refs:
            driver.cancel(ref, force=False)
        others = burst(driver, 4.0, 4, max_retries=0)
        for ref in refs:
            try:
                yield Get([ref])
            except TaskFailed as error:
                assert error.code == CANCELLED
        yield Get(others)

    for seed in range(6):
        with near(seed) as cluster:
            cluster.excuse(CANCELLED)
            cluster.run(story)
            until_done(cluster)
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add")[12:] == [1] * 4
            cluster.finish()


# ---- values --------------------------------------------------------------------------------


def test_a_large_result_stays_with_its_node() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        large = [driver.submit("add", [0.001, 5000, n])[0] for n in range(20)]
        sums = [driver.submit("add", [0.001, 0, ref, 1])[0] for ref in large]
        values = yield Get(sums)
        assert [value.number for value in values] == list(range(1, 21))
        yield Sleep(1.0)
        values = yield Get(large)
        assert [value.number for value in values] == list(range(20))

    with near(17, bounds={"INLINE_BYTES_MAX": 1000}) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert set(runs(cluster, "add")) == {1}
        cluster.finish()


def test_references_in_arguments_and_results_live() -> None:
    """Kept by workers beyond their tasks, returned by tasks that forget them, dropped at once."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.0005)
        for number in range(10):
            mine = driver.put(30)
            made = driver.submit("child_ref", [0.0005, 11])
            kept = driver.submit("keep", [0.0005, Nested([mine, made[0]])])
            passed = driver.submit("pass_on", [0.0005, Nested([mine])])
            mine.drop()
            values = yield Get([*made, *passed])
            assert [value.number for value in values] == [11, 30]
            made[0].drop()
            if number % 2:
                yield Sleep(0.2)  # leases end meanwhile
            inner = yield Get(values[0].refs)
            assert inner[0].number == 11
            yield Get(kept)
            driver.submit("let_go", [0.0005])

    with near(18, nodes=[{"CPU": 4}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert leased(cluster) > 10
        cluster.finish()


def test_a_large_result_that_is_lost_is_made_again() -> None:
    """Its node is replaced: the head has heard how it was made."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.001)
        large = [driver.submit("add", [0.001, 5000, n], max_retries=3)[0] for n in range(4)]
        yield Wait(large, 5.0)
        yield Sleep(30.0)
        values = yield Get(large)
        assert [value.number for value in values] == list(range(4))

    with near(19, bounds={"INLINE_BYTES_MAX": 1000}) as cluster:
        cluster.excuse(*LOSSES)
        cluster.run(story)
        cluster.run_for(2.0)
        assert leased(cluster) > 10
        cluster.replace(cluster.raylets[0], 0.5, same_id=False)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert runs(cluster, "add")[10:] == [2] * 4
        cluster.finish()


# ---- races ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_lease_that_is_revoked_as_tasks_begin(seed: int) -> None:
    """Whatever the worker has begun it ends, and nothing else; it may be stopped in between."""

    def greedy(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.0002)
        for _ in range(6):
            yield Get(burst(driver, 0.0002, 60, max_retries=0))
            yield Sleep(0.12)

    def modest(driver: Any, random: Random) -> Program:
        for _ in range(12):
            yield Sleep(random.uniform(0.0, 0.12))
            yield Get(driver.submit("several", [0.0001, 5], num_returns=2, max_retries=0))

    with near(seed, drivers=2) as cluster:
        cluster.run(greedy)
        cluster.run(modest, 1)
        for number in range(20):
            cluster.run_for(0.03)
            for worker in lessees(cluster)[: number % 2]:
                worker.frozen_until = cluster.clock.now + 0.03
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 370
        assert runs(cluster, "several") == [1] * 12
        cluster.finish()


@pytest.mark.parametrize("seconds", [1.0, 12.0, 40.0])
def test_a_submitter_that_stops_for_a_while(seconds: float) -> None:
    """Its workers end what they have; it hears of all that when it goes on, or its job is lost."""

    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        yield Get(burst(driver, 0.01, 100, max_retries=0))

    with near(20, drivers=2) as cluster:
        cluster.excuse("stopped")
        cluster.run(story)
        cluster.run_until(lambda: leased(cluster) > 20, 5.0)
        cluster.freeze(cluster.drivers[0], seconds)
        until_done(cluster, 120.0)
        if seconds < 20.0:
            assert cluster.drivers[0].threads[0].error is None
            assert runs(cluster, "add") == [1] * 110
        cluster.finish()


@pytest.mark.parametrize("same_id", [True, False])
def test_a_raylet_that_starts_again_has_no_leases(same_id: bool) -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from warm(driver, 0.01)
        values = yield Get(burst(driver, 0.01, 100, max_retries=1))
        assert [value.number for value in values] == list(range(100))

    with near(21) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: leased(cluster) > 20, 5.0)
        cluster.replace(cluster.raylets[0], 0.05, same_id=same_id)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert sum(runs(cluster, "add")) <= 110 + 2
        cluster.finish()


# ---- words that are lost -------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [m.Demand, m.Grant, m.Leased, m.LeaseEnded, m.Leasing, m.Revoke, m.CancelLeased]
)
@pytest.mark.parametrize("upwards", [True, False])
def test_a_word_about_a_lease_is_lost_at_a_cut(kind: type[m.Message], upwards: bool) -> None:
    """Nothing runs twice for that, nothing hangs, and nothing is left."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(3):
            values = yield Get(burst(driver, 0.002, 40, max_retries=0))
            assert [value.number for value in values] == list(range(40))
            late = driver.submit("add", [5.0, 0, 1], max_retries=0)
            yield Sleep(0.05)
            driver.cancel(late[0], force=True)
            yield Sleep(0.3)

    def other(driver: Any, random: Random) -> Program:
        yield Sleep(0.05)
        yield Get(burst(driver, 0.002, 10, max_retries=0))

    with near(19, drivers=2) as cluster:
        cluster.run_for(0.1)
        peer = cluster.raylets[0] if upwards else cluster.drivers[0]
        cluster.cut_at(kind, peer)
        cluster.run(story)
        cluster.run(other, 1)
        until_done(cluster)
        assert all(count <= 1 for count in runs(cluster, "add"))
        cluster.finish()


def test_no_worker_is_left_over() -> None:
    """Of leases that ended while others began, workers are neither lost nor too many."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(20):
            yield Get(burst(driver, 0.001, 10, max_retries=0))
            yield Sleep(random.uniform(0.05, 0.15))

    with near(20) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert len(workers(cluster)) <= 4
        cluster.finish()
