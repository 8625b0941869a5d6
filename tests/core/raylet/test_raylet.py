"""The raylet and its scheduler: exact resources, over-commit, batches, and giving back."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from tests.core.benches import UNIT, RayletBench, identity, object_of, spec, template, value
from zray import limits
from zray.core.raylet.effects import KillWorker, StartWorker
from zray.ids import split_tasks
from zray.protocol import messages as m

WORK = template()


def bench(*made_of: m.Template, cpus: float = 1, **more: float) -> RayletBench:
    found = RayletBench(cpus, **more)
    found.head(*made_of)
    return found


def ends(name: str, seconds: float = 1.0, status: int = m.FINISHED) -> m.Done:
    results = [value(identity(name))]
    return m.Done(0, [m.TaskDone(identity(name), 1, status, results, seconds)])


def short(raylet: RayletBench, made_of: m.Template, seconds: float = 0.00001) -> None:
    """Make a function known to be short, by running it once."""
    raylet.give(spec("first", made_of))
    (worker,) = raylet.workers()
    raylet.worker(worker, ends("first", seconds))
    raylet.to_head.clear()


# ---- resources -----------------------------------------------------------------------------


def test_tasks_start_while_their_resources_last() -> None:
    raylet = bench(WORK, cpus=2)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(5)))
    assert sorted(raylet.running().values()) == [["t0"], ["t1"]]
    assert raylet.raylet.scheduler.free == {"CPU": 0}
    raylet.worker(raylet.workers()[0], ends("t0"))
    assert sorted(raylet.running().values()) == [["t1"], ["t2"]]


def test_fractions_of_a_ten_thousandth_add_up_exactly() -> None:
    tiny = template("tiny", resources=[("CPU", 0), ("special", Fraction(1, 10_000))])
    raylet = bench(tiny, special=0.0003)
    raylet.give(*(spec(f"t{number}", tiny) for number in range(5)))
    assert len(raylet.running()) == 3
    for worker, names in [*raylet.running().items()]:
        raylet.worker(worker, ends(names[0]))
    assert len(raylet.running()) == 2
    for worker, names in [*raylet.running().items()]:
        raylet.worker(worker, ends(names[0]))
    assert raylet.raylet.scheduler.free == raylet.raylet.scheduler.total


def test_a_class_that_waits_does_not_hold_up_another() -> None:
    big = template("big", resources=[("CPU", 2)])
    raylet = bench(WORK, big, cpus=2)
    raylet.give(spec("t0", WORK), spec("b0", big), spec("t1", WORK))
    assert sorted(raylet.running().values()) == [["t0"], ["t1"]]


def test_gpus_are_given_whole_and_their_indices_named() -> None:
    gpu = template("gpu", resources=[("CPU", 0), ("GPU", 1)])
    raylet = bench(gpu, cpus=4, GPU=3)
    raylet.give(*(spec(f"g{number}", gpu) for number in range(4)))
    keys = [effect.key[1] for effect in raylet.effects if isinstance(effect, StartWorker)]
    assert sorted(keys) == [(0,), (1,), (2,)]


def test_pieces_of_gpus_share_one_before_they_break_another() -> None:
    half = template("half", resources=[("CPU", 0), ("GPU", 0.5)])
    two = template("two", resources=[("CPU", 0), ("GPU", 2)])
    raylet = bench(half, two, cpus=4, GPU=3)
    raylet.give(spec("h0", half), spec("h1", half), spec("p0", two))
    slots = raylet.raylet.scheduler.workers.values()
    assert sorted(tuple(slot.gpus.items()) for slot in slots) == [
        ((0, 5000),),
        ((0, 5000),),
        ((1, UNIT), (2, UNIT)),
    ]


def test_gpus_that_are_free_only_in_pieces_do_not_make_a_whole_one() -> None:
    most = template("most", resources=[("CPU", 0), ("GPU", 0.6)])
    whole = template("whole", resources=[("CPU", 0), ("GPU", 1)])
    raylet = bench(most, whole, cpus=4, GPU=3)
    raylet.give(*(spec(f"m{number}", most) for number in range(3)), spec("w0", whole))
    assert len(raylet.running()) == 3
    raylet.worker(raylet.workers()[0], ends("m0"))
    assert ["w0"] in raylet.running().values()


def test_a_blocked_worker_lends_its_cpu_and_takes_it_back_at_once() -> None:
    raylet = bench(WORK)
    raylet.give(spec("parent", WORK), spec("child", WORK), spec("other", WORK))
    (parent,) = raylet.workers()
    raylet.worker(parent, m.Returned(0, b""), m.Blocked(0))
    assert sorted(raylet.running().values()) == [["child"], ["parent"]]
    assert raylet.told(m.Credit)[-1].released == [("CPU", UNIT)]
    raylet.worker(parent, m.Unblocked(0))
    assert raylet.raylet.scheduler.free == {"CPU": -UNIT}  # over-committed until one ends
    child = next(worker for worker in raylet.workers() if worker != parent)
    raylet.worker(child, ends("child"))
    assert raylet.raylet.scheduler.free == {"CPU": 0}
    assert list(raylet.running().values()) == [["parent"]]
    raylet.worker(parent, ends("parent"))
    assert list(raylet.running().values()) == [["other"]]
    assert raylet.told(m.Credit)[-1].released == []


def test_a_blocked_worker_keeps_its_gpu() -> None:
    gpu = template("gpu", resources=[("CPU", 1), ("GPU", 1)])
    raylet = bench(gpu, cpus=2, GPU=1)
    raylet.give(spec("g0", gpu), spec("g1", gpu))
    raylet.worker(raylet.workers()[0], m.Blocked(0))
    assert list(raylet.running().values()) == [["g0"]]
    assert raylet.raylet.scheduler.free == {"CPU": 2 * UNIT, "GPU": 0}


@pytest.mark.parametrize("how", ["done", "died"])
def test_a_blocked_worker_s_end_settles_its_account(how: str) -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK))
    (worker,) = raylet.workers()
    raylet.worker(worker, m.Blocked(0))
    if how == "done":
        raylet.worker(worker, ends("t0"))
    else:
        raylet.raylet.worker_exited(worker, 1, "signal 9", raylet.now)
        raylet.turn()
    scheduler = raylet.raylet.scheduler
    assert scheduler.free == scheduler.total
    assert not any(scheduler.released.values())


# ---- batches -------------------------------------------------------------------------------


def test_only_functions_known_to_be_short_share_an_inbox() -> None:
    raylet = bench(WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(10)))
    assert list(raylet.running().values()) == [["t0"]]
    raylet = bench(WORK)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(10)))
    (names,) = raylet.running().values()
    assert len(names) >= 5
    assert names == [f"t{number}" for number in range(len(names))]


def test_a_batch_that_overruns_is_recalled_once_and_its_rest_goes_elsewhere() -> None:
    raylet = bench(WORK, cpus=2)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(8)))
    first, names = max(raylet.running().items(), key=lambda pair: len(pair[1]))
    assert len(names) > 1
    raylet.now += limits.RECALL_S
    raylet.turn()
    assert [type(msg) for msg in raylet.to_workers[first]].count(m.Recall) == 1
    rest = b"".join(identity(name) for name in names[1:])
    raylet.worker(first, m.Returned(0, rest))
    assert raylet.running()[first] == names[:1]
    raylet.now += 10 * limits.RECALL_S
    raylet.turn()
    assert raylet.running()[first] == names[:1]  # it is not short after all: nothing is added
    assert [type(msg) for msg in raylet.to_workers[first]].count(m.Recall) == 1


def test_what_is_given_back_keeps_its_order() -> None:
    raylet = bench(WORK)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(6)))
    (worker,) = raylet.workers()
    names = raylet.running()[worker]
    rest = b"".join(identity(name) for name in names[1:])
    raylet.worker(worker, m.Returned(0, rest), m.Blocked(0))
    order: list[str] = []
    while others := {key: tasks for key, tasks in raylet.running().items() if key != worker}:
        ((other, tasks),) = others.items()
        order += tasks
        for name in tasks:
            raylet.worker(other, ends(name, 0.00001))
    assert order == ["t1", "t2", "t3", "t4", "t5"]


def test_values_and_functions_are_sent_to_a_worker_once() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK))
    (worker,) = raylet.workers()
    raylet.worker(worker, ends("t0"))
    argument = object_of(identity("a"))
    held = [value(identity("a"))]
    raylet.give(spec("t1", WORK, dependencies=[argument]), values=held)
    kinds = [type(message) for message in raylet.to_workers[worker]]
    assert kinds == [m.Setup, m.Export, m.Template, m.Tasks, m.Tasks]
    assert raylet.to_workers[worker][-1].values == held


# ---- reclaim, cancel, death ----------------------------------------------------------------


def test_a_reclaim_takes_from_the_end_of_what_has_not_started() -> None:
    raylet = bench(WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(5)))
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 2))
    (returned,) = raylet.told(m.Returned)
    assert split_tasks(returned.task_ids) == [identity("t4"), identity("t3")]
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 10))
    (returned,) = raylet.told(m.Returned)
    assert split_tasks(returned.task_ids) == [identity("t2"), identity("t1")]
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 10))
    assert [message.task_ids for message in raylet.told(m.Returned)] == [b""]
    assert list(raylet.running().values()) == [["t0"]]


def test_a_cancel_of_what_waits_at_a_worker_leaves_the_task_before_it_alone() -> None:
    raylet = bench(WORK)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(3)))
    ((worker, names),) = raylet.running().items()
    assert names == ["t0", "t1", "t2"]
    for name, force in (("t1", True), ("t2", False)):
        raylet.head(m.CancelTask(0, identity(name), 1, force))
        assert raylet.to_workers[worker][-1] == m.CancelTask(0, identity(name), 1, False)
    raylet.now += limits.CANCEL_GRACE_S + 1
    raylet.turn()
    assert not [effect for effect in raylet.effects if isinstance(effect, KillWorker)]
    raylet.worker(worker, m.Returned(0, identity("t2")))
    (end,) = raylet.told(m.Done)
    assert [(task.task_id, task.status) for task in end.tasks] == [(identity("t2"), m.CANCELLED)]
    raylet.worker(worker, ends("t0"))  # t1 has started before the worker was told
    assert [effect for effect in raylet.effects if isinstance(effect, KillWorker)]


def test_a_cancel_of_what_waits_here_ends_it_here() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK), spec("t1", WORK))
    raylet.head(m.CancelTask(0, identity("t1"), 1, False))
    (end,) = raylet.told(m.Done)
    assert [(task.task_id, task.status) for task in end.tasks] == [(identity("t1"), m.CANCELLED)]


def test_a_cancel_of_another_attempt_is_ignored() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK), spec("t1", WORK), attempt=2)
    raylet.head(m.CancelTask(0, identity("t1"), 1, True))
    raylet.head(m.CancelTask(0, identity("t0"), 1, True))
    assert not raylet.told(m.Done)
    assert not [effect for effect in raylet.effects if isinstance(effect, KillWorker)]


def test_a_soft_cancel_kills_only_past_its_grace_and_only_that_task() -> None:
    for obeys in (True, False):
        raylet = bench(WORK)
        raylet.give(spec("t0", WORK), spec("t1", WORK))
        (worker,) = raylet.workers()
        raylet.head(m.CancelTask(0, identity("t0"), 1, False))
        assert raylet.raylet.deadline() <= raylet.now + limits.CANCEL_GRACE_S
        if obeys:
            raylet.worker(worker, ends("t0", status=m.CANCELLED))
        raylet.now += limits.CANCEL_GRACE_S + 1
        raylet.turn()
        kills = [effect for effect in raylet.effects if isinstance(effect, KillWorker)]
        assert len(kills) == int(not obeys)


def test_a_task_that_its_worker_gives_back_cancelled_is_no_start() -> None:
    """The worker had not begun it: what it began is what its counter says."""
    raylet = bench(WORK)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(3)))
    (worker,) = raylet.workers()
    raylet.head(m.CancelTask(0, identity("t1"), 1, False))
    raylet.worker(worker, m.Returned(0, identity("t1")))
    raylet.told(m.Done)
    raylet.raylet.worker_exited(worker, 2, "signal 9", raylet.now)
    raylet.turn()
    (end,) = raylet.told(m.Done)
    assert [(task.task_id, task.status) for task in end.tasks] == [(identity("t0"), m.CRASHED)]
    assert list(raylet.running().values()) == [["t2"]]


def test_of_a_dead_worker_s_tasks_only_those_it_began_have_crashed() -> None:
    raylet = bench(WORK)
    short(raylet, WORK)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(10)))
    (worker,) = raylet.workers()
    raylet.worker(worker, ends("t0", 0.00001))
    names = raylet.running()[worker]
    assert names[:2] == ["t1", "t2"]
    raylet.to_head.clear()
    raylet.raylet.worker_exited(worker, 3, "signal 11", raylet.now)
    raylet.turn()
    (end,) = raylet.told(m.Done)
    crashed = [(task.task_id, task.status) for task in end.tasks]
    assert crashed == [(identity("t1"), m.CRASHED)]
    assert b"signal 11" in end.tasks[0].results[0].value
    (running,) = raylet.running().values()
    assert running[:2] == ["t2", "t3"]


def test_an_end_is_told_before_what_its_worker_drops_and_before_its_death() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK))
    (worker,) = raylet.workers()
    oid = object_of(identity("child"))
    result = value(identity("t0"), contained=[oid])
    end = m.Done(0, [m.TaskDone(identity("t0"), 1, m.FINISHED, [result])])
    raylet.raylet.worker_message(worker, end, raylet.now)
    raylet.raylet.worker_message(worker, m.Drop(0, worker, oid), raylet.now)
    raylet.raylet.worker_exited(worker, 1, "exit code 0", raylet.now)
    raylet.turn()
    kinds = [type(message) for message in raylet.to_head]
    assert kinds[:3] == [m.Done, m.Drop, m.WorkerDied]


def test_a_job_that_ends_takes_its_tasks_and_workers() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK), spec("t1", WORK))
    raylet.head(m.JobEnded(0, identity("job")))
    kills = [effect for effect in raylet.effects if isinstance(effect, KillWorker)]
    assert [kill.worker_id for kill in kills] == raylet.workers()
    raylet.raylet.worker_exited(kills[0].worker_id, 1, "signal 9", raylet.now)
    raylet.turn()
    assert not raylet.told(m.Done) and not raylet.raylet.tasks.held
    assert raylet.raylet.scheduler.free == raylet.raylet.scheduler.total


# ---- sessions ------------------------------------------------------------------------------


def test_a_new_session_tells_the_full_state() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK), spec("t1", WORK), spec("t2", WORK))
    (worker,) = raylet.workers()
    kept = object_of(identity("kept"))
    raylet.worker(worker, m.Hold(0, worker, kept), ends("t0"))
    raylet.raylet.session.disconnected()
    raylet.to_head.clear()
    raylet.welcome()
    (announce,) = [msg for msg in raylet.to_head if isinstance(msg, m.Announce)]
    held = {task.task_id: task.attempt for task in announce.tasks}
    assert held == {identity(name): 1 for name in ("t0", "t1", "t2")}
    assert [outcome.object_id for outcome in announce.objects] == [object_of(identity("t0"))]
    assert all(outcome.kind & m.LOCATED and not outcome.value for outcome in announce.objects)
    assert [(holds.holder, holds.object_ids) for holds in announce.holds] == [(worker, kept)]
    assert announce.jobs == [identity("job")]
    kinds = [type(message) for message in raylet.to_head]
    assert kinds.index(m.Template) < kinds.index(m.Announce) < kinds.index(m.Done)
    raylet.to_head.clear()
    raylet.head(m.Ack(0, 1))
    raylet.raylet.session.disconnected()
    raylet.welcome()
    assert not raylet.told(m.Done)


def test_what_an_untold_end_refers_to_is_held_until_it_is_told() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK))
    (worker,) = raylet.workers()
    child = object_of(identity("child"))
    raylet.raylet.session.disconnected()
    result = value(identity("t0"), contained=[child])
    raylet.worker(worker, m.Done(0, [m.TaskDone(identity("t0"), 1, m.FINISHED, [result])]))
    raylet.worker(worker, m.Drop(0, worker, child))
    raylet.welcome()
    (announce,) = [msg for msg in raylet.to_head if isinstance(msg, m.Announce)]
    assert (raylet.raylet.node_id, child) in [(h.holder, h.object_ids) for h in announce.holds]
    last = [message for message in raylet.to_head if isinstance(message, m.Done | m.Hold)][-1]
    assert isinstance(last, m.Hold)
    assert (last.holder, last.object_ids, last.full) == (raylet.raylet.node_id, b"", True)


def test_an_old_head_is_refused() -> None:
    raylet = bench(WORK)
    raylet.raylet.session.disconnected()
    raylet.welcome(epoch=5)
    raylet.give(spec("ignored", WORK))  # the bench's head is of epoch 1
    assert raylet.raylet.session.refused is not None
    assert not raylet.raylet.tasks.held
    raylet.raylet.session.disconnected()
    raylet.raylet.session.refused = None
    raylet.welcome(epoch=4)
    assert raylet.raylet.session.refused is not None and not raylet.raylet.session.linked


def test_a_fenced_raylet_starts_over_as_another_incarnation() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t0", WORK), spec("t1", WORK))
    workers = raylet.workers()
    raylet.raylet.session.disconnected()
    raylet.head(m.Refused(0, m.FENCED, "declared dead"))
    kills = [effect.worker_id for effect in raylet.effects if isinstance(effect, KillWorker)]
    assert kills == workers
    assert raylet.raylet.incarnation == 2 == raylet.raylet.hello().incarnation
    assert not raylet.raylet.tasks.held and not raylet.raylet.scheduler.workers
    raylet.worker(workers[0], ends("t0"))  # what is left of the old one says nothing any more
    raylet.raylet.worker_exited(workers[0], 1, "signal 9", raylet.now)
    raylet.welcome()
    (announce,) = raylet.told(m.Announce)
    assert not announce.tasks and not announce.objects and not announce.holds


def test_credit_is_absolute_and_shrinks_with_the_queue() -> None:
    raylet = RayletBench(1)
    raylet.head(WORK)
    raylet.raylet.session.disconnected()
    raylet.to_head.clear()
    raylet.welcome()
    (credit,) = raylet.told(m.Credit)
    assert credit.granted == limits.RAYLET_UNSTARTED_TASKS
    raylet.give(*(spec(f"t{number}", WORK) for number in range(3000)))
    assert not raylet.told(m.Credit)  # 3000 came, and all but two wait: the sum is the same
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 2000))
    (credit,) = raylet.told(m.Credit)
    assert credit.granted == 3000 + limits.RAYLET_UNSTARTED_TASKS - 998


# ---- spare workers -------------------------------------------------------------------------

ACTOR = m.ActorInfo("Counter", b"f" * 16, [("inc", 1)])


def test_an_actor_leaves_spare_workers_for_the_next_ones() -> None:
    made = template("Counter", resources=[("CPU", 0)])
    raylet = bench(made, cpus=4)
    raylet.give(spec("a1", made), actor=ACTOR)
    first, second = raylet.workers()
    assert [*raylet.running()] == [first]
    raylet.give(spec("a2", made), actor=ACTOR)
    assert [*raylet.running()] == [first, second]
    third, _ = raylet.workers()[2:]  # now that they come in a row
    raylet.give(spec("a3", made), actor=ACTOR)
    assert [*raylet.running()] == [first, second, third]  # it has had the time to start
    assert len([one for one in raylet.effects if isinstance(one, StartWorker)]) == 5


def test_workers_that_are_idle_anyway_are_spare_enough() -> None:
    made = template("Counter", resources=[("CPU", 0)])
    raylet = bench(WORK, made, cpus=3)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(3)))
    for worker, names in [*raylet.running().items()]:
        raylet.worker(worker, ends(names[0]))
    raylet.give(spec("a1", made), actor=ACTOR)
    assert len(raylet.workers()) == 3


def test_there_are_not_more_spare_workers_than_cpus() -> None:
    made = template("Counter", resources=[("CPU", 0)])
    raylet = bench(made, cpus=1)
    raylet.give(spec("a1", made), actor=ACTOR)
    assert len(raylet.workers()) == 2


def test_no_gpu_is_kept_ready_for_an_actor() -> None:
    made = template("Counter", resources=[("CPU", 0), ("GPU", 1)])
    raylet = bench(made, cpus=2, GPU=2)
    raylet.give(spec("a1", made), actor=ACTOR)
    assert len(raylet.workers()) == 1


# ---- workers that cannot start -------------------------------------------------------------


def test_after_workers_that_end_at_once_the_next_is_started_later_and_later() -> None:
    raylet = bench(WORK)
    raylet.give(spec("t1", WORK))
    starts = []
    for _ in range(4):
        (worker,) = raylet.workers()
        starts.append(raylet.now)
        raylet.raylet.worker_exited(worker, 0, "it could not be started: no pid", raylet.now)
        raylet.turn()
        assert raylet.workers() == []
        (log,) = raylet.told(m.Log)
        assert log.is_error and "it could not be started: no pid" in log.lines[0]
        raylet.now = raylet.raylet.deadline()
        raylet.turn()
    pauses = [later - sooner for sooner, later in pairwise(starts)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4])
    (worker,) = raylet.workers()
    raylet.worker(worker, ends("t1"))
    assert raylet.told(m.Done)


def test_workers_that_end_together_count_once() -> None:
    raylet = bench(WORK, cpus=8)
    raylet.give(*(spec(f"t{number}", WORK) for number in range(8)))
    for worker in raylet.workers():
        raylet.raylet.worker_exited(worker, 0, "it ended with its zygote", raylet.now)
    raylet.turn()
    assert len(raylet.told(m.Log)) == 1
    raylet.now += limits.FORK_RETRY_FIRST_S
    raylet.turn()
    assert len(raylet.workers()) == 8


def test_meanwhile_workers_that_live_go_on() -> None:
    raylet = bench(WORK, cpus=2)
    raylet.give(spec("t1", WORK), spec("t2", WORK), spec("t3", WORK))
    first, second = raylet.workers()
    raylet.raylet.worker_exited(first, 0, "it could not be started", raylet.now)
    raylet.worker(second, ends("t2"))
    assert raylet.running() == {second: ["t1"]}
    raylet.worker(second, ends("t1"))
    assert raylet.running() == {second: ["t3"]}
