"""Tasks that wait for tasks: the deepest go first, and no node starts without end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.core.benches import HeadBench, RayletBench, done, identity, spec, template, value
from zray import limits
from zray.core.depth_queue import DepthQueue
from zray.ids import split_tasks
from zray.protocol import messages as m

WORK = template()
FREE = template("free", resources=())


def names(task_ids: bytes) -> list[str]:
    return [task_id.rstrip(b"\0").decode() for task_id in split_tasks(task_ids)]


def ends(name: str) -> m.Done:
    return m.Done(0, [m.TaskDone(identity(name), 1, m.FINISHED, [value(identity(name))], 1.0)])


# ---- the queue -------------------------------------------------------------------------------


def test_the_deepest_are_popped_first_and_the_shallowest_given_away_first() -> None:
    queue: DepthQueue[str] = DepthQueue()
    for name, depth in [("a", 0), ("b", 2), ("c", 0), ("d", 2), ("e", 1)]:
        queue.push(name, depth)
    queue.push_front("f", 2)
    queue.push_front("g", 7)
    assert queue.take(3) == ["g"]
    assert (queue.first(), queue.deepest, len(queue)) == ("f", 2, 6)
    assert queue.pop_last() == "c" and not queue.remove("c", 0) and queue.remove("d", 2)
    assert [queue.pop() for _ in range(4)] == ["f", "b", "e", "a"]
    assert (queue.deepest, len(queue), list(queue)) == (-1, 0, [])


def test_of_one_depth_those_with_more_priority_go_first() -> None:
    queue: DepthQueue[str] = DepthQueue()
    most = limits.PRIORITY_MAX
    for name, depth, priority in [
        *(("a", 0, 0), ("b", 0, 7), ("c", 0, -most), ("d", 0, 7), ("e", 1, -most), ("f", 0, most)),
        *(("g", 1, -most), ("h", 0, 7)),
    ]:
        queue.push(name, depth, priority)
    queue.push_front("i", 0, 7)
    assert queue.deepest == 1 and queue.take(9) == ["e", "g"] and queue.deepest == 0
    assert queue.remove("d", 0, 7) and not queue.remove("b", 0)
    queue.keep(lambda name: name != "h")
    assert queue.pop_last() == "c"
    assert [queue.pop() for _ in range(4)] == ["f", "i", "b", "a"] and queue.deepest == -1
    for name, depth, priority in [("a", 0, most), ("b", 1, -most), ("c", 2, 0)]:
        queue.push(name, depth, priority)
    assert queue.take_upto(1, bool) == ["b", "a"] and queue.take(9) == ["c"]


def test_a_part_of_a_queue_is_taken_or_kept() -> None:
    queue: DepthQueue[int] = DepthQueue()
    for number in range(10):
        queue.push(number, number // 3)
    assert queue.take_upto(1, lambda number: number % 2 == 0) == [4, 0, 2]
    queue.keep(lambda number: number != 9)
    assert ([queue.pop() for _ in range(len(queue))], queue.deepest) == ([6, 7, 8, 3, 5, 1], -1)


# ---- the raylet ------------------------------------------------------------------------------


def blocked(raylet: RayletBench, count: int, depth: int = 0) -> list[bytes]:
    """So many workers whose tasks wait for others."""
    for number in range(count):
        raylet.give(spec(f"p{depth}.{number}", WORK), depth=depth)
        worker = next(w for w, run in raylet.running().items() if run == [f"p{depth}.{number}"])
        raylet.worker(worker, m.Blocked(0))
    return list(raylet.running())


def bench(max_workers: int = 3, cpus: int = 1) -> RayletBench:
    raylet = RayletBench(cpus, max_workers=max_workers)
    raylet.head(WORK, FREE)
    return raylet


def started(raylet: RayletBench) -> set[str]:
    return {name for run in raylet.running().values() for name in run}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_free_cpu_goes_to_the_deepest(order: Sequence[int]) -> None:
    raylet = bench(max_workers=9)
    raylet.give(spec("first", WORK))
    for depth in order:
        raylet.give(spec(f"t{depth}", WORK), depth=depth)
    for depth in (2, 1, 0):
        ((worker, (name,)),) = raylet.running().items()
        raylet.worker(worker, ends(name))
        assert started(raylet) == {f"t{depth}"}


def test_past_the_bound_only_deeper_tasks_start_and_others_go_back() -> None:
    raylet = bench()
    blocked(raylet, 3)
    raylet.to_head.clear()
    raylet.give(spec("more", WORK), spec("free", FREE))
    assert len(raylet.running()) == 3
    assert sorted(names(b"".join(r.task_ids for r in raylet.told(m.Returned)))) == ["free", "more"]
    raylet.give(spec("child", WORK), depth=1)
    assert "child" in started(raylet)
    raylet.give(spec("second", WORK), depth=1)  # the CPU is in use, and not blocked
    assert "second" not in started(raylet)


def test_the_head_is_told_what_a_node_at_its_bound_takes() -> None:
    raylet = bench()
    blocked(raylet, 2)
    assert not any(c.floors for c in raylet.told(m.Credit))
    workers = blocked(raylet, 1, depth=4)
    assert [c.floors for c in raylet.told(m.Credit)][-1] == [m.JobFloors(identity("job"), 4, 4)]
    raylet.worker(workers[-1], m.Unblocked(0), ends("p4.0"))
    assert [c.floors for c in raylet.told(m.Credit)][-1] == []


def test_tasks_without_a_cpu_wait_for_each_other_at_the_bound() -> None:
    raylet = bench()
    raylet.give(*(spec(f"f{number}", FREE) for number in range(5)))
    assert len(raylet.running()) == 3
    raylet.give(spec("cpu", WORK))  # nobody is blocked: the CPU is not left idle
    assert "cpu" in started(raylet)


def test_when_nothing_moves_one_more_starts() -> None:
    """What the blocked wait for may be anything."""
    raylet = bench()
    blocked(raylet, 3)
    raylet.told(m.Credit)
    for number in range(2):
        raylet.now += limits.STALL_S / 2
        raylet.turn()
        raylet.give(spec(f"early{number}", WORK))
        assert len(raylet.running()) == 3 + number
        raylet.now = raylet.raylet.scheduler.bound.lift_deadline()
        raylet.turn()
        assert [c.floors for c in raylet.told(m.Credit)][-1] == []
        raylet.give(*(spec(f"late{number}.{more}", WORK) for more in range(3)))
        assert len(raylet.running()) == 4 + number
        worker = next(w for w, run in raylet.running().items() if run == [f"late{number}.0"])
        raylet.worker(worker, m.Blocked(0))
        assert [c.floors for c in raylet.told(m.Credit)][-1] == [m.JobFloors(identity("job"), 0, 0)]


def test_an_actor_has_a_process_whatever_the_bound() -> None:
    raylet = bench()
    blocked(raylet, 3)
    info = m.ActorInfo("C", identity("class"), [])
    raylet.give(spec("actor", WORK), actor=info)
    assert "actor" in started(raylet)


# ---- the head --------------------------------------------------------------------------------


def head_with(*parents: str, cpus: int = 2) -> HeadBench:
    """Tasks that run on n1, and children of theirs."""
    head = HeadBench()
    head.node("n1", cpus)
    head.driver("d1", WORK)
    head.submit("d1", *(spec(name, WORK) for name in parents))
    assert head.assigned("n1") == list(parents)
    return head


def test_children_of_running_tasks_go_before_others() -> None:
    head = head_with("p1", "p2")
    head.submit("d1", *(spec(f"other{number}", WORK) for number in range(5)))
    sent_ahead = head.assigned("n1")
    head.submit("d1", spec("child", WORK, parent=identity("p1")))
    head.submit("d1", spec("grandchild", WORK, parent=identity("child")))
    head.say("n1", m.Done(1, [done(identity("p2"), seconds=1.0)]))
    head.say("n1", m.Done(2, [done(identity(sent_ahead[0]), seconds=1.0)]))
    assert head.assigned("n1") == ["grandchild"]
    head.say("n1", m.Done(3, [done(identity("p1"), seconds=1.0)]))
    assert head.assigned("n1") == ["child"]


def test_a_node_at_its_bound_gets_deeper_tasks_alone_and_the_reason_says_so() -> None:
    head = head_with("p1", "p2")
    head.submit("d1", *(spec(f"other{number}", WORK) for number in range(5)))
    ahead = head.assigned("n1")
    both = [("CPU", 2 * limits.RESOURCE_UNIT)]
    head.say("n1", m.Credit(0, 100, both, [m.JobFloors(identity("d1"), 0, 0)]))
    ids = b"".join(map(identity, ahead))
    head.say("n1", m.Returned(0, ids))
    assert head.assigned("n1") == []
    head.submit("d1", spec("child", WORK, parent=identity("p1")))
    assert head.assigned("n1") == ["child"]
    group = next(iter(head.gcs.scheduler.classes.values()))
    assert head.gcs.scheduler.reason(group).startswith("WAIT_WORKERS: ")
    head.say("n1", m.Credit(0, 100, both))
    assert head.assigned("n1") != []
