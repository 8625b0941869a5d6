"""What waits at workers behind the tasks that run there: given early, and taken back in time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, RayletBench, done, identity, object_of, spec, template, value
from zray import limits
from zray.protocol import messages as m

WORK = template("work")
LONG = template("long")
TWO = template("two", resources=[("CPU", 2)])


def bench(cpus: int = 1, *made_of: m.Template, **more: Any) -> RayletBench:
    raylet = RayletBench(cpus, **more)
    raylet.head(*(made_of or (WORK, LONG, TWO)))
    return raylet


def given(raylet: RayletBench, count: int, made_of: m.Template = WORK, **more: Any) -> None:
    raylet.give(*(spec(f"t{number}", made_of) for number in range(count)), **more)


def measured(raylet: RayletBench, made_of: m.Template, seconds: float) -> None:
    raylet.raylet.tasks.templates[made_of.template_id].seconds = seconds


def ends(name: str, seconds: float = 0.0, **more: Any) -> m.Done:
    return m.Done(0, [done(identity(name), seconds=seconds, **more)])


def runs(raylet: RayletBench) -> list[list[str]]:
    return sorted(raylet.running().values())


def waits(raylet: RayletBench) -> list[list[str]]:
    return sorted(raylet.waiting().values())


def queued(raylet: RayletBench) -> int:
    return raylet.raylet.scheduler.queued


@pytest.mark.parametrize("seconds", [None, 0.003, 0.03])
def test_the_next_task_is_there_when_one_ends(seconds: float | None) -> None:
    raylet = bench(2)
    if seconds is not None:
        measured(raylet, WORK, seconds)
    given(raylet, 5)
    assert runs(raylet) == [["t0"], ["t1"]] and waits(raylet) == [["t2"], ["t3"]]
    assert raylet.raylet.scheduler.free == {"CPU": 0}
    first = raylet.workers()[0]
    raylet.worker(first, ends("t0", seconds or 0.003))
    assert raylet.running()[first] == ["t2"] and raylet.waiting()[first] == ["t4"]
    assert raylet.raylet.scheduler.free == {"CPU": 0}, "it took over what the other had"


def test_of_a_millisecond_some_wait_each_in_a_packet_of_its_own() -> None:
    raylet = bench()
    measured(raylet, WORK, 0.0013)
    given(raylet, 9)
    (worker,) = raylet.workers()
    assert [len(packet.tasks) for packet in raylet.queues[worker]] == [1, 1, 1]


def test_of_short_ones_half_as_many_more_come_in_a_packet() -> None:
    raylet = bench()
    measured(raylet, WORK, 0.0004)
    given(raylet, 30)
    (worker,) = raylet.workers()
    assert len(raylet.running()[worker]) == 10
    (packet,) = raylet.queues[worker]
    assert [task.spec.task_id for task in packet.tasks] == [
        identity(f"t{number}") for number in range(10, 15)
    ]
    raylet.worker(worker, *(ends(f"t{number}", 0.0004) for number in range(5)))
    assert [len(packet.tasks) for packet in raylet.queues[worker]] == [5, 5]


def test_what_a_worker_has_not_read_comes_before_what_is_in_its_queue() -> None:
    raylet = bench()
    given(raylet, 3)
    (worker,) = raylet.workers()
    (packet,) = raylet.queues[worker]
    assert packet.seq == 1, "it was given one to start at once"
    raylet.worker(worker, ends("t0"), ends("t1"), ends("t2"))
    raylet.give(spec("again", WORK), spec("behind", WORK))
    (packet,) = raylet.queues[worker]
    assert packet.seq == 2


# ---- moved ---------------------------------------------------------------------------------


def test_where_a_cpu_is_free_it_starts_at_once() -> None:
    raylet = bench(2)
    given(raylet, 4)
    one, _ = raylet.workers()
    raylet.worker(one, ends("t0"), ends("t2"))
    assert runs(raylet) == [["t1"], ["t3"]] and not waits(raylet)
    assert raylet.running()[one] == ["t3"]


def test_of_several_that_could_be_moved_the_one_goes_that_would_wait_longest() -> None:
    raylet = bench(3)
    measured(raylet, LONG, 0.03)
    raylet.give(spec("a", WORK), spec("b", LONG), spec("c", WORK))
    given(raylet, 3)
    workers = {names[0]: worker for worker, names in raylet.running().items()}
    assert raylet.waiting()[workers["b"]] == ["t2"], "it was the last to get one"
    raylet.worker(workers["c"], ends("c"), ends("t1"))
    assert raylet.running()[workers["c"]] == ["t2"] and raylet.waiting() == {workers["a"]: ["t0"]}


def test_it_does_not_wait_for_long_behind_one_of_which_nobody_knows_how_long_it_takes() -> None:
    raylet = bench(2)
    given(raylet, 6)
    one, _ = raylet.workers()
    begun = raylet.now
    assert raylet.raylet.deadline() <= begun + limits.RECALL_S
    raylet.now += limits.RECALL_S / 2
    raylet.worker(one, ends("t0", 0.005))
    assert waits(raylet) == [["t3"], ["t4"]]
    raylet.now = raylet.raylet.behind.deadline()
    assert raylet.now == begun + 2 * 0.005 + limits.RECALL_S
    raylet.turn()
    assert raylet.waiting() == {one: ["t4"]} and queued(raylet) == 2
    raylet.worker(one, ends("t2", 0.005))
    assert raylet.running()[one] == ["t4"] and raylet.waiting() == {one: ["t3"]}, "the oldest"


def test_behind_a_long_one_it_waits_again_when_that_should_end() -> None:
    raylet = bench()
    measured(raylet, LONG, 1.0)
    raylet.give(spec("first", LONG), spec("next", LONG))
    begun = raylet.now
    raylet.now = raylet.raylet.behind.deadline()
    assert raylet.now == begun + limits.RECALL_S
    raylet.turn()
    assert not waits(raylet)
    raylet.now = raylet.raylet.behind.deadline()
    assert raylet.now == begun + 1.0 - limits.BEHIND_S
    raylet.turn()
    assert waits(raylet) == [["next"]]
    raylet.now = raylet.raylet.behind.deadline()
    assert raylet.now >= begun + 2.0
    raylet.turn()
    assert not waits(raylet), "it takes much longer than it should"


def test_the_head_hears_which_long_ones_should_end_soon() -> None:
    raylet = bench(2)
    measured(raylet, LONG, 1.0)
    raylet.give(spec("first", LONG))
    raylet.to_head.clear()
    raylet.now = raylet.raylet.behind.deadline()
    raylet.turn()
    assert [credit.ending for credit in raylet.told(m.Credit)] == [UNIT]
    raylet.worker(raylet.workers()[0], ends("first", 1.0))
    assert [credit.ending for credit in raylet.told(m.Credit)] == [0]


def test_what_only_the_worker_can_give_back_is_asked_back_sooner_where_a_cpu_is_idle() -> None:
    raylet = bench(2)
    measured(raylet, WORK, 0.00001)
    given(raylet, 8)
    one, other = raylet.workers()
    while rest := raylet.running().get(other):
        raylet.worker(other, *(ends(name) for name in rest))
    assert not waits(raylet) and len(raylet.running()[one]) > 1
    raylet.to_workers.clear()
    raylet.now += limits.RECALL_IDLE_S
    raylet.turn()
    assert [type(message) for message in raylet.to_workers[one]] == [m.Recall]


# ---- taken back ----------------------------------------------------------------------------


def test_behind_a_blocked_one_nothing_waits() -> None:
    raylet = bench()
    raylet.give(spec("parent", WORK), spec("child", WORK), spec("other", WORK))
    (parent,) = raylet.workers()
    assert waits(raylet) == [["child"]]
    raylet.worker(parent, m.Returned(0, b""), m.Blocked(0))
    assert runs(raylet) == [["child"], ["parent"]] and parent not in raylet.waiting()


def test_nothing_starts_behind_another_while_more_runs_than_should() -> None:
    raylet = bench()
    raylet.give(spec("parent", WORK))
    raylet.give(spec("child", WORK), spec("other", WORK), depth=1)
    (parent,) = raylet.workers()
    raylet.worker(parent, m.Blocked(0))
    assert waits(raylet) == [["other"]]
    raylet.worker(parent, m.Unblocked(0))
    assert not waits(raylet) and queued(raylet) == 1
    raylet.worker(parent, ends("parent"))
    assert waits(raylet) == [["other"]]


def test_what_the_blocked_cannot_wait_for_starts_when_it_is_clear_that_nothing_else_is_there() -> (
    None
):
    raylet = bench()
    raylet.give(spec("parent", WORK), spec("second", WORK), spec("third", WORK))
    (parent,) = raylet.workers()
    raylet.worker(parent, m.Blocked(0))
    assert runs(raylet) == [["parent"], ["second"]] and not waits(raylet)
    raylet.give(spec("child", WORK), spec("next", WORK), depth=1)
    assert waits(raylet) == [["child"]]


def test_a_deeper_one_goes_first() -> None:
    raylet = bench()
    raylet.give(spec("first", WORK), spec("second", WORK))
    raylet.give(spec("deep", WORK), depth=1)
    assert waits(raylet) == [["deep"]] and queued(raylet) == 1


def test_one_that_makes_an_actor_waits_behind_nobody_and_goes_first() -> None:
    raylet = bench()
    raylet.give(spec("first", WORK), spec("second", WORK))
    raylet.give(spec("actor", WORK), actor=m.ActorInfo("Actor", bytes(16), []))
    assert not waits(raylet) and queued(raylet) == 2
    raylet.worker(raylet.workers()[0], ends("first", 0.003))
    assert runs(raylet) == [["actor"]]


def test_those_that_need_something_else_are_not_kept_out() -> None:
    raylet = bench(2)
    given(raylet, 4)
    assert len(raylet.waiting()) == 2
    raylet.give(spec("wide", TWO))
    assert not waits(raylet)


def test_a_task_of_another_job_is_not_overtaken_and_has_a_worker_of_its_own() -> None:
    raylet = bench()
    given(raylet, 1)
    raylet.head(m.Job(0, identity("other"), m.JobInfo("p", "/", [], "machine", "host", 1)))
    theirs = m.Assignment(1, identity("other"), spec("theirs", WORK))
    ours = m.Assignment(1, identity("job"), spec("ours", WORK))
    raylet.head(m.Tasks(0, [theirs, ours], []))
    assert not waits(raylet)
    raylet.worker(raylet.workers()[0], ends("t0"))
    assert runs(raylet) == [["theirs"]] and not waits(raylet)


def test_at_the_bound_on_workers_nothing_waits_that_is_not_to_start() -> None:
    raylet = bench(max_workers=2)
    raylet.give(spec("parent", WORK), depth=3)
    (parent,) = raylet.workers()
    raylet.give(spec("child", WORK), spec("deep", WORK), depth=4)
    raylet.worker(parent, m.Blocked(0))
    assert waits(raylet) == [["deep"]]
    raylet.give(spec("same", WORK), depth=3)
    assert waits(raylet) == [["deep"]]
    assert [names(one.task_ids) for one in raylet.told(m.Returned)] == [["same"]]


def names(task_ids: bytes) -> list[str]:
    return [task_ids[at : at + 16].rstrip(b"\0").decode() for at in range(0, len(task_ids), 16)]


def test_the_head_gets_back_what_is_behind_the_last_first() -> None:
    raylet = bench(2)
    given(raylet, 5)
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 2))
    (returned,) = raylet.told(m.Returned)
    assert names(returned.task_ids) == ["t4", "t3"]
    assert waits(raylet) == [["t2"]]
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 9))
    (returned,) = raylet.told(m.Returned)
    assert names(returned.task_ids) == ["t2"] and not waits(raylet)


def test_one_that_is_cancelled_behind_another_ends_at_once_and_the_other_goes_on() -> None:
    raylet = bench()
    given(raylet, 3)
    raylet.to_workers.clear()
    raylet.head(m.CancelTask(0, identity("t1"), 1, True))
    (told,) = raylet.told(m.Done)
    assert [(end.task_id, end.status) for end in told.tasks] == [(identity("t1"), m.CANCELLED)]
    assert runs(raylet) == [["t0"]] and waits(raylet) == [["t2"]]
    assert not raylet.to_workers and not any("Kill" in str(one) for one in raylet.effects)


def test_one_that_its_worker_has_taken_is_cancelled_there() -> None:
    raylet = bench()
    given(raylet, 2)
    (worker,) = raylet.workers()
    raylet.take(worker)  # its end of the first has not been heard of
    raylet.to_workers.clear()
    raylet.head(m.CancelTask(0, identity("t1"), 1, True))
    assert raylet.to_workers == {worker: [m.CancelTask(0, identity("t1"), 1, False)]}
    raylet.worker(worker, ends("t0"))
    assert any("Kill" in type(one).__name__ for one in raylet.effects), "it has started"


def test_one_that_nobody_wants_any_more_costs_no_worker() -> None:
    raylet = bench()
    given(raylet, 2)
    held = m.HeldTask(identity("t1"), 1, identity("job"), WORK.template_id, 0)
    raylet.head(m.Discard(0, [held]))
    assert not waits(raylet) and runs(raylet) == [["t0"]]
    assert not any("Kill" in type(one).__name__ for one in raylet.effects)


def test_a_worker_that_dies_costs_what_is_behind_no_attempt() -> None:
    raylet = bench()
    given(raylet, 2)
    (worker,) = raylet.workers()
    raylet.raylet.worker_exited(worker, 1, "signal 11", raylet.now)
    raylet.turn()
    (told,) = raylet.told(m.Done)
    assert [(end.task_id, end.status) for end in told.tasks] == [(identity("t0"), m.CRASHED)]
    assert runs(raylet) == [["t1"]]


def test_a_worker_that_has_taken_nothing_yet_is_idle_without_what_was_behind() -> None:
    """The end of the first was heard of before the worker has taken the next."""
    raylet = bench(2)
    raylet.give(spec("a", WORK), spec("b", WORK))
    one, _ = raylet.workers()
    raylet.give(spec("c", WORK), spec("d", WORK))
    raylet.raylet.worker_message(one, ends("a"), raylet.now)
    raylet.head(m.Reclaim(0, [("CPU", UNIT)], 2))
    assert runs(raylet) == [["b"]]
    assert raylet.raylet.scheduler.free == {"CPU": UNIT}
    raylet.give(spec("e", WORK))
    assert raylet.running()[one] == ["e"]


def test_a_function_that_is_forgotten_is_not_looked_for_in_the_queue() -> None:
    raylet = bench()
    given(raylet, 2)
    (worker,) = raylet.workers()
    raylet.to_workers.clear()
    raylet.head(m.Forget(0, WORK.function_id))
    kinds = [type(message) for message in raylet.to_workers[worker]]
    assert kinds == [m.Forget, m.Export, m.Template] and waits(raylet) == [["t1"]]


def test_large_ones_wait_until_they_can_start() -> None:
    raylet = bench()
    raylet.give(spec("a", WORK))
    argument = object_of(identity("argument"))
    large = value(identity("argument"), b"x" * limits.PACKET_TASKS_BYTES_MAX)
    raylet.give(spec("b", WORK, dependencies=[argument]), values=[large])
    assert not waits(raylet) and queued(raylet) == 1
    raylet.worker(raylet.workers()[0], ends("a"))
    assert runs(raylet) == [["b"]]


def test_what_a_queue_has_no_room_for_waits_here_until_something_ends() -> None:
    raylet = bench()
    given(raylet, 3)
    (worker,) = raylet.workers()
    (packet,) = raylet.queues.pop(worker)
    raylet.raylet.behind.refused(worker, packet)
    raylet.turn()
    assert not waits(raylet) and queued(raylet) == 2
    raylet.worker(worker, ends("t0", 0.003))
    assert runs(raylet) == [["t1"]] and waits(raylet) == [["t2"]]
