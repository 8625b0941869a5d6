"""In which order ready tasks that need the same are taken."""

from __future__ import annotations

import pytest

from tests.core.benches import FUNCTION, identity, spec, template
from zray import limits
from zray.core.depth_queue import DepthQueue
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import (
    GONE,
    READY,
    FunctionUse,
    NodeView,
    TaskRecord,
    TemplateRecord,
)
from zray.protocol import messages as m

WORK = template()
MADE = TemplateRecord(WORK, FunctionUse(FUNCTION, ready=True))


def waiting(**jobs: list[int]) -> SchedulingClass:
    """Tasks of these jobs, with these depths, named a0, a1 ... for job a."""
    group = SchedulingClass(MADE.needs)
    for job, depths in jobs.items():
        queue = group.queues[identity(job)] = DepthQueue()
        for number, depth in enumerate(depths):
            record = TaskRecord(spec(f"{job}{number}", WORK), MADE, identity(job), b"")
            record.state, record.depth = READY, depth
            queue.push(record, depth)
            group.ready += 1
    return group


def taken(group: SchedulingClass, count: int, **floors: int) -> list[str]:
    """``floors``: of jobs, on the node for which they are taken."""
    node = NodeView(identity("n1"), 1, {})
    node.set_floors([m.JobFloors(identity(job), floor, -1) for job, floor in floors.items()])
    found = group.pop(count, node)
    return [one.spec.task_id.rstrip(b"\0").decode() for one in found if one.spec is not None]


def test_jobs_are_served_in_turn_however_much_each_has() -> None:
    group = waiting(a=[0] * 100, b=[0] * 3)
    assert taken(group, 2) == ["a0", "b0"]
    assert sorted(taken(group, 4)) == ["a1", "a2", "b1", "b2"]
    assert taken(group, 3) == ["a3", "a4", "a5"]
    assert group.ready == 94


def test_what_one_job_leaves_of_its_share_is_the_others() -> None:
    assert sorted(taken(waiting(a=[0], b=[0] * 9), 6)) == ["a0", "b0", "b1", "b2", "b3", "b4"]


def test_the_deepest_go_first_and_below_a_floor_none() -> None:
    group = waiting(a=[0, 2, 1, 2])
    assert taken(group, 10, a=1) == ["a1", "a3"]
    assert taken(group, 10, a=1) == [] and group.ready == 2
    assert taken(group, 10) == ["a2", "a0"]
    assert not group.queues


def test_a_floor_is_of_one_job_alone() -> None:
    group = waiting(a=[0, 2], b=[0] * 3)
    assert taken(group, 3, a=1) == ["a1", "b0", "b1"]
    assert taken(group, 3, a=1) == ["b2"]
    assert taken(group, 3) == ["a0"]


def test_a_floor_of_no_job_is_of_all_that_have_none() -> None:
    node = NodeView(identity("n1"), 1, {})
    node.set_floors([m.JobFloors(b"", 1, 2), m.JobFloors(identity("a"), -1, 0)])
    assert [node.floor_for(identity(job), True) for job in ("a", "b")] == [-1, 1]
    assert [node.floor_for(identity(job), False) for job in ("a", "b")] == [0, 2]


@pytest.mark.parametrize("count", [1, 150])
def test_what_was_withdrawn_is_skipped_and_not_counted(count: int) -> None:
    group = waiting(a=[0] * 200)
    for record in [*group.queues[identity("a")]][:count]:
        record.state = GONE
        group.withdrawn()
    assert group.ready == 200 - count
    assert taken(group, 300) == [f"a{number}" for number in range(count, 200)]
    assert (group.ready, group.left) == (0, 0)


def test_what_was_withdrawn_does_not_stay_in_memory() -> None:
    group = waiting(a=[0] * 500)
    queue = group.queues[identity("a")]
    for record in [*queue][:499]:
        record.state = GONE
        group.withdrawn()
    assert len(queue) < 200 and group.ready == 1


def test_a_class_is_brief_when_its_next_task_is() -> None:
    group = waiting(a=[0])
    assert not group.is_brief()  # nobody has measured it
    made = group.first().template = TemplateRecord(WORK, FunctionUse(FUNCTION, ready=True))
    made.measured(limits.STEAL_IDLE_S / 2)
    assert group.is_brief()
    made.measured(100 * limits.STEAL_IDLE_S)
    assert not group.is_brief()
