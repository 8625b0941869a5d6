"""Stories of single races and losses, each told on purpose. All checkers run as they go."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.stories import counter, failure, runs, started, until_done, workers
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Ask, Get, Nested, Program, Sleep, TaskFailed

# ---- blocking, reclaiming, starting --------------------------------------------------------


@pytest.mark.parametrize(("seed", "bound"), [(1, 1), (2, 2), (3, 4)])
def test_chains_that_wait_make_few_workers(seed: int, bound: int) -> None:
    def story(driver: Any, random: Random) -> Program:
        chains = [driver.submit("tree", [0.001, 3, 1])[0] for _ in range(200)]
        values = yield Get(chains)
        assert [value.number for value in values] == [4] * 200

    with SimCluster(seed, nodes=[{"CPU": 1}]) as cluster:
        scheduler = cluster.raylets[0].raylet.scheduler
        assert scheduler.max_workers == bound
        most = 0
        cluster.run(story)
        while not all(driver.idle() for driver in cluster.drivers):
            cluster.run_for(0.001)
            most = max(most, len(scheduler.active))
            assert cluster.clock.now < 1060  # it begins at 1000
        assert bound <= most <= bound + 4  # a chain below the deepest, and its CPU's next
        cluster.finish()


def test_a_child_is_not_stuck_behind_its_blocked_parent() -> None:
    """One CPU; parents that are known to be short share a worker's inbox, and each blocks."""

    def story(driver: Any, random: Random) -> Program:
        first = driver.submit("tree", [0.00005, 0, 0])
        yield Get(first)
        parents = [driver.submit("tree", [0.00005, 2, 2])[0] for _ in range(20)]
        values = yield Get(parents)
        assert [value.number for value in values] == [7] * 20

    with SimCluster(1, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "tree") == [1] * 141
        cluster.finish()


def test_a_reclaim_that_races_with_a_start_loses_or_takes_the_task_whole() -> None:
    """A node that joins late gets what another was sent ahead; whatever had started stays."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("add", [0.02, 0, 1]))
        refs = [driver.submit("add", [0.02, 0, number])[0] for number in range(60)]
        values = yield Get(refs)
        assert [value.number for value in values] == list(range(60))

    for seed in range(5):
        with SimCluster(seed, nodes=[{"CPU": 1}, {"CPU": 1}, {"CPU": 1}]) as cluster:
            cluster.run(story)
            for raylet in cluster.raylets[1:]:
                cluster.freeze(raylet, 0.5)
            until_done(cluster)
            assert runs(cluster, "add") == [1] * 61
            cluster.finish()


def test_what_was_not_started_when_its_worker_died_has_not_failed() -> None:
    """Short tasks share an inbox; the worker dies in the sixth: none of the later ones ran."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("crashes", [0.00002, 0], max_retries=0))
        deaths = [int(number == 5) for number in range(30)]
        refs = [driver.submit("crashes", [0.00002, n], max_retries=0)[0] for n in deaths]
        failed = []
        for number, ref in enumerate(refs):
            try:
                yield Get([ref])
            except TaskFailed as error:
                assert error.code == "ZR-3003"
                failed.append(number)
        assert 5 in failed and max(failed) == 5

    with SimCluster(2, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "crashes") == [1] * 31
        cluster.finish()


def test_the_grace_of_a_cancelled_task_does_not_kill_the_task_after_it() -> None:
    """A soft cancel succeeds; what its worker runs when the grace is over goes on."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("add", [0.0001, 0, 1]))
        first = driver.submit("add", [3.0, 0, 1])
        others = [driver.submit("add", [4.0, 0, number])[0] for number in range(3)]
        yield Sleep(0.1)
        driver.cancel(first[0], force=False)
        try:
            yield Get(first)
        except TaskFailed as error:
            assert error.code == "ZR-3002"
        yield Get(others)

    for seed in range(6):  # some of the cancelled tasks swallow it
        with SimCluster(seed, nodes=[{"CPU": 1}]) as cluster:
            cluster.run(story)
            until_done(cluster)
            assert runs(cluster, "add") == [1] * 5
            cluster.finish()


# ---- messages lost at a cut ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [m.Tasks, m.Done, m.Ack, m.Credit, m.Announce, m.Welcome, m.Hello])
def test_a_message_between_head_and_raylet_is_lost_at_a_cut(kind: type[m.Message]) -> None:
    """Nothing runs twice for that, and nothing fails."""

    def story(driver: Any, random: Random) -> Program:
        for _ in range(2):
            refs = [driver.submit("add", [0.05, 0, n], max_retries=0)[0] for n in range(6)]
            values = yield Get(refs)
            assert [value.number for value in values] == list(range(6))

    with SimCluster(3, nodes=[{"CPU": 2}]) as cluster:
        cluster.run_for(0.1)
        raylet = cluster.raylets[0]
        if kind in (m.Announce, m.Welcome, m.Hello, m.Credit):
            assert raylet.link is not None
            cluster.network.sever(raylet.link)
        cluster.cut_at(kind, raylet)
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert runs(cluster, "add") == [1] * 12
        cluster.finish()


@pytest.mark.parametrize(
    "kind", [m.Submit, m.Result, m.ResultAck, m.Drop, m.Put, m.Template, m.Export, m.Exported]
)
def test_a_message_between_head_and_driver_is_lost_at_a_cut(kind: type[m.Message]) -> None:
    """The driver tells its full state again; nothing runs twice, nothing is left."""

    def story(driver: Any, random: Random) -> Program:
        value = driver.put(5)
        refs = driver.submit("add", [0.01, 0, value, 1], max_retries=0)
        unwanted = driver.submit("add", [0.01, 0, 2], max_retries=0)
        value.drop()
        unwanted[0].drop()
        values = yield Get(refs)
        assert values[0].number == 6
        refs[0].drop()
        yield Sleep(0.1)

    with SimCluster(4) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(kind, cluster.drivers[0])
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert runs(cluster, "add") == [1, 1]
        cluster.finish()


@pytest.mark.parametrize("kind", [m.Submit, m.Result, m.Watch, m.Put, m.Drop, m.Hold, m.Kv])
def test_a_message_of_a_worker_is_lost_between_raylet_and_head(kind: type[m.Message]) -> None:
    """The raylet keeps its workers' redo log."""

    def story(driver: Any, random: Random) -> Program:
        made = driver.submit("child_ref", [0.01, 11], max_retries=0)
        stored = driver.submit("put_ref", [0.01, 20, 10], max_retries=0)
        unpacked = driver.submit("unpack", [0.01, made[0]], max_retries=0)
        asked = driver.submit("asks", [0.01], max_retries=0)
        values = yield Get([*made, *stored, *unpacked, *asked])
        inner = yield Get([ref for value in values for ref in value.refs])
        assert [value.number for value in inner] == [11, 20]

    with SimCluster(12, nodes=[{"CPU": 2}]) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(kind, cluster.raylets[0])
        cluster.run(story)
        until_done(cluster)
        assert not cluster.network.traps
        assert set(runs(cluster, "child_ref") + runs(cluster, "add")) == {1}
        cluster.finish()


@pytest.mark.parametrize("kind", [m.Kv, m.KvReply, m.Cancel])
def test_a_request_that_is_lost_is_made_again(kind: type[m.Message]) -> None:
    def story(driver: Any, random: Random) -> Program:
        answer = yield Ask(lambda number: m.Kv(number, "put", b"key", b"value"))
        assert isinstance(answer, m.KvReply)
        refs = driver.submit("add", [30.0, 0, 1])
        yield Sleep(0.1)
        driver.cancel(refs[0], force=True)
        error = yield from failure(refs)
        assert error.code == "ZR-3002"

    with SimCluster(6) as cluster:
        cluster.run_for(0.1)
        cluster.cut_at(kind, cluster.drivers[0])
        cluster.run(story)
        until_done(cluster, 15.0)
        assert not cluster.network.traps
        cluster.finish()


def test_a_cancel_that_the_raylet_did_not_get_reaches_it_later() -> None:
    def story(driver: Any, random: Random) -> Program:
        refs = driver.submit("add", [30.0, 0, 1])
        yield Sleep(0.1)
        driver.cancel(refs[0], force=True)
        error = yield from failure(refs)
        assert error.code == "ZR-3002"

    with SimCluster(7) as cluster:
        cluster.run(story)
        cluster.cut_at(m.CancelTask, cluster.raylets[0])
        until_done(cluster, 15.0)
        cluster.finish()


def test_a_result_that_nobody_wants_is_lost_and_the_task_does_not_run_again() -> None:
    """The driver dropped the reference, but asks again until it knows how the task ended."""

    def story(driver: Any, random: Random) -> Program:
        driver.submit("add", [0.5, 0, 1], max_retries=0)[0].drop()
        yield Sleep(3.0)

    with SimCluster(27) as cluster:
        cluster.run(story)
        cluster.cut_at(m.Result, cluster.drivers[0])
        until_done(cluster)
        assert not cluster.network.traps
        assert runs(cluster, "add") == [1]
        cluster.finish()


def test_an_attempt_that_failed_and_one_that_was_lost_are_told_apart() -> None:
    """The end of attempt 1 is not acknowledged and attempt 2 is lost on its way: 3 is needed."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("flaky", [0.01, 1]))
        assert values[0].number == 7

    with SimCluster(8) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "flaky"), 5.0)
        cluster.cut_at(m.Tasks, cluster.raylets[0])
        until_done(cluster)
        assert runs(cluster, "flaky") == [2]
        cluster.finish()


def test_a_done_that_is_told_twice_counts_once() -> None:
    """Its acknowledgement is lost, so the raylet tells it again in the next session."""

    def story(driver: Any, random: Random) -> Program:
        refs = driver.submit("add", [0.01, 0, 3])
        values = yield Get(refs)
        yield Sleep(1.0)
        assert values[0].number == 3

    with SimCluster(9) as cluster:
        cluster.run(story)
        cluster.cut_at(m.Ack, cluster.raylets[0])
        until_done(cluster)
        assert counter(cluster, "stale") == 1
        assert counter(cluster, "finished") == 1
        cluster.finish()


# ---- references ----------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [None, m.Done, m.Drop, m.Ack])
def test_a_drop_does_not_overtake_a_borrow(lost: type[m.Message] | None) -> None:
    """A task keeps a reference from its arguments; its submitter dropped it long before."""

    def story(driver: Any, random: Random) -> Program:
        value = driver.put(5, size=10)
        kept = driver.submit("keep", [0.05, Nested([value])])
        value.drop()
        yield Get(kept)
        yield Sleep(1.0)

    with SimCluster(10, nodes=[{"CPU": 1}]) as cluster:
        cluster.run_for(0.1)
        if lost is not None:
            peer = cluster.drivers[0] if lost is m.Drop else cluster.raylets[0]
            cluster.cut_at(lost, peer)
        cluster.run(story)
        until_done(cluster)
        keeper = next(worker for worker in workers(cluster) if worker.kept)
        assert cluster.head is not None
        assert keeper.kept[0].oid in cluster.head.gcs.objects.records
        cluster.finish()
        assert keeper.kept == []


@pytest.mark.parametrize("lost", [None, m.Done, m.Ack])
def test_a_drop_does_not_overtake_what_a_result_contains(lost: type[m.Message] | None) -> None:
    """A task returns a reference to its child's result and forgets it at once itself."""

    def story(driver: Any, random: Random) -> Program:
        values = yield Get(driver.submit("child_ref", [0.0001, 11]))
        yield Sleep(2.0)
        inner = yield Get(values[0].refs)
        assert inner[0].number == 11

    with SimCluster(11, nodes=[{"CPU": 2}]) as cluster:
        cluster.run_for(0.1)
        if lost is not None:
            cluster.cut_at(lost, cluster.raylets[0])
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_short_task_s_delayed_end_still_comes_before_the_drop() -> None:
    """Ends of short tasks wait for others; those that hand references on must not."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("child_ref", [0.00001, 1]))
        made = [driver.submit("child_ref", [0.00001, number])[0] for number in range(20)]
        values = yield Get(made)
        inner = yield Get([ref for value in values for ref in value.refs])
        assert [value.number for value in inner] == list(range(20))

    with SimCluster(12, nodes=[{"CPU": 1}]) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_arguments_are_held_while_their_task_waits_in_the_driver() -> None:
    """The window is full, and the reference is dropped right after the call."""

    def story(driver: Any, random: Random) -> Program:
        refs = []
        for number in range(12):
            value = driver.put(number, size=3000)
            refs += driver.submit("add", [0.01, 0, value, 1])
            value.drop()
        values = yield Get(refs)
        assert [value.number for value in values] == list(range(1, 13))

    with SimCluster(13, bounds={"CLIENT_WINDOW_TASKS": 1, "INLINE_BYTES_MAX": 1000}) as cluster:
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_what_is_cancelled_before_it_was_submitted_ends_at_once() -> None:
    def story(driver: Any, random: Random) -> Program:
        first = driver.submit("add", [0.5, 0, 1])
        second = driver.submit("several", [0.5, 1], num_returns=2)
        third = driver.submit("add", [0.01, 0, second[0], 1])
        second[1].drop()
        driver.client.flush()
        driver.cancel(second[0], force=False)
        for refs in (second[:1], third):
            error = yield from failure(refs)
            assert error.code == "ZR-3002"
        yield Get(first)

    with SimCluster(14, bounds={"CLIENT_WINDOW_TASKS": 1}) as cluster:
        cluster.run_for(0.1)
        cluster.run(story)
        until_done(cluster)
        assert runs(cluster, "several") == [0]
        cluster.finish()


def test_a_task_outlives_its_submitter_if_others_have_its_reference() -> None:
    """A worker dies after its task handed on the reference of a child that still runs."""

    with SimCluster(15, nodes=[{"CPU": 2}]) as cluster:

        def story(driver: Any, random: Random) -> Program:
            values = yield Get(driver.submit("child_ref", [1.0, 11]))
            for worker in workers(cluster):
                if worker.delivered is None:
                    cluster.kill_worker(worker)
            inner = yield Get(values[0].refs)
            assert inner[0].number == 11

        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        cluster.finish()


# ---- the head restarts ---------------------------------------------------------------------


def long_tasks(driver: Any, random: Random) -> Program:
    refs = [driver.submit("add", [2.0, 0, n], max_retries=0)[0] for n in range(6)]
    unwanted = driver.submit("add", [1.0, 0, 7], max_retries=0)
    unwanted[0].drop()
    values = yield Get(refs)
    assert [value.number for value in values] == list(range(6))


@pytest.mark.parametrize("after_s", [0.01, 1.0, 30.0])
def test_running_tasks_go_on_while_the_head_restarts(after_s: float) -> None:
    with SimCluster(16, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(long_tasks)
        cluster.run_until(started(cluster, "add", 4), 5.0)
        cluster.run_for(0.3)
        cluster.restart_head(after_s)
        until_done(cluster, 90.0)
        assert runs(cluster, "add") == [1] * 7
        cluster.finish()


def test_outcomes_that_come_back_before_their_holders_are_kept() -> None:
    """Raylets return at once and tell of results; the driver that waits for them is late."""
    with SimCluster(17, nodes=[{"CPU": 4}, {"CPU": 4}]) as cluster:
        cluster.run(long_tasks)
        cluster.run_until(started(cluster, "add", 7), 5.0)
        cluster.freeze(cluster.drivers[0], 8.0)
        cluster.restart_head(0.5)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 7
        cluster.finish()


def test_a_value_is_awaited_until_all_who_may_have_it_are_back() -> None:
    """After a restart the driver is first; the node that has the value takes its time."""

    def story(driver: Any, random: Random) -> Program:
        big = driver.submit("add", [0.01, 5000, 3], max_retries=0)
        yield Sleep(2.0)
        values = yield Get(big)
        more = yield Get(driver.submit("add", [0.01, 0, big[0], 1]))
        assert (values[0].number, more[0].number) == (3, 4)

    bounds = {"INLINE_BYTES_MAX": 1000}
    with SimCluster(18, nodes=[{"CPU": 1}, {"CPU": 1}], bounds=bounds) as cluster:
        cluster.run(story)
        cluster.run_for(1.0)
        cluster.restart_head(0.1)
        for raylet in cluster.raylets:
            cluster.freeze(raylet, 12.0)
        until_done(cluster)
        assert runs(cluster, "add") == [1, 1]
        cluster.finish()


def test_a_crash_is_not_forgotten_with_the_head_that_knew_of_it() -> None:
    """max_retries=0: the head dies between the raylet's report and the driver's knowledge."""

    def story(driver: Any, random: Random) -> Program:
        error = yield from failure(driver.submit("crashes", [0.01, 1], max_retries=0))
        assert error.code == "ZR-3003"

    with SimCluster(19) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "crashes"), 5.0)
        link = cluster.drivers[0].link
        assert link is not None
        cluster.network.go_silent(link)
        cluster.run_until(lambda: counter(cluster, "finished") == 1, 5.0)
        cluster.run_until(lambda: not cluster.raylets[0].raylet.completions.unacked, 5.0)
        cluster.restart_head(0.1)
        until_done(cluster)
        assert runs(cluster, "crashes") == [1]
        cluster.finish()


def test_a_driver_that_was_stored_and_not_yet_welcome_is_no_burden() -> None:
    """The head dies after the job's row is durable and before WELCOME goes out."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("add", [0.01, 0, 1]))

    with SimCluster(20) as cluster:
        cluster.cut_at(m.Welcome, cluster.drivers[0])
        cluster.run_until(lambda: not cluster.network.traps, 5.0)
        cluster.restart_head(0.1)
        cluster.run(story)
        until_done(cluster)
        cluster.finish()


def test_a_death_counts_once_it_is_durable() -> None:
    """The head declares a node dead and dies before its store has that: the node goes on."""
    with SimCluster(21, nodes=[{"CPU": 1}, {"CPU": 1}], commit_s=30.0) as cluster:
        cluster.run_until(lambda: all(r.linked() for r in cluster.raylets), 200.0)
        cluster.run_until(lambda: cluster.drivers[0].linked(), 200.0)
        cluster.run(long_tasks)
        cluster.run_until(started(cluster, "add", 2), 200.0)
        frozen = cluster.raylets[0]
        cluster.freeze(frozen, 26.0)
        assert cluster.head is not None
        node = cluster.head.gcs.members.nodes[frozen.raylet.node_id]
        cluster.run_until(lambda: node.ended, 30.0)
        cluster.run_for(3.0)
        cluster.restart_head(0.01)
        until_done(cluster, 300.0)
        assert frozen.raylet.incarnation == 1
        assert runs(cluster, "add") == [1] * 7
        cluster.finish()


# ---- death and return ----------------------------------------------------------------------


def test_a_raylet_that_was_declared_dead_returns_as_another() -> None:
    """Its tasks ran again elsewhere; what it says of them later is refused with its session."""

    def story(driver: Any, random: Random) -> Program:
        refs = [driver.submit("add", [5.0, 0, n], cpus=1)[0] for n in range(4)]
        values = yield Get(refs)
        assert [value.number for value in values] == list(range(4))
        yield Sleep(40.0)

    with SimCluster(22, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add", 4), 5.0)
        frozen = cluster.raylets[0]
        cluster.freeze(frozen, 45.0)
        cluster.run_for(44.0)
        assert cluster.head is not None
        assert frozen.raylet.node_id not in cluster.head.gcs.members.nodes
        until_done(cluster, 100.0)
        assert sorted(runs(cluster, "add")) == [1, 1, 2, 2]
        assert frozen.raylet.incarnation == 2
        view = cluster.head.gcs.members.nodes[frozen.raylet.node_id].view
        assert view.free == view.total
        cluster.finish()


def test_a_stopped_head_declares_nobody_dead_when_it_wakes() -> None:
    with SimCluster(23, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(long_tasks)
        cluster.run_until(started(cluster, "add", 4), 5.0)
        assert cluster.head is not None
        cluster.freeze(cluster.head, 60.0)
        until_done(cluster, 120.0)
        assert runs(cluster, "add") == [1] * 7
        assert [raylet.raylet.incarnation for raylet in cluster.raylets] == [1, 1]
        cluster.finish()


def test_a_driver_that_was_out_of_reach_for_too_long_is_told_so() -> None:
    def story(driver: Any, random: Random) -> Program:
        error = yield from failure(driver.submit("add", [100.0, 0, 1]))
        assert error.code == "stopped"
        assert "disconnected for 20 s, so its job was ended, with 1 unfinished" in str(error)

    with SimCluster(24) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add"), 5.0)
        cluster.freeze(cluster.drivers[0], 60.0)
        cluster.run_for(55.0)
        assert cluster.head is not None
        assert not cluster.head.gcs.members.jobs and not cluster.head.gcs.tasks
        until_done(cluster)
        assert runs(cluster, "add") == [1]
        cluster.finish()


def test_a_job_that_ended_while_a_node_was_away_leaves_no_worker_there() -> None:
    with SimCluster(25, drivers=2) as cluster:
        cluster.run(long_tasks)
        cluster.run_until(started(cluster, "add"), 5.0)
        cluster.cut_at(m.JobEnded)
        cluster.drivers[0].die()
        cluster.run_for(40.0)
        assert not cluster.network.traps
        assert not cluster.workers
        assert not cluster.raylets[0].raylet.jobs
        cluster.finish()


def test_a_restarted_raylet_s_port_proves_the_death_of_the_one_before() -> None:
    """kill -9 and a start under the same id: within seconds, not after 20."""

    def story(driver: Any, random: Random) -> Program:
        yield Get(driver.submit("add", [1.0, 0, 1]))

    with SimCluster(26) as cluster:
        cluster.run(story)
        cluster.run_until(started(cluster, "add"), 5.0)
        cluster.replace(cluster.raylets[0], 0.5, same_id=True)
        until_done(cluster, 6.0)
        assert runs(cluster, "add") == [2]
        cluster.finish()
