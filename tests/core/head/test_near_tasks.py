"""What the head hears of tasks that nodes start by themselves, and what it says of those."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.core.benches import UNIT, HeadBench, done, identity, object_of, spec, template, value
from zray import limits
from zray.protocol import messages as m

WORK = template()
CPU = [("CPU", UNIT)]
PARENT = identity("w1")


def head_with(*nodes: str) -> HeadBench:
    """Nodes of two CPUs, and two drivers; a worker of the first node has a task of ``d1``."""
    head = HeadBench()
    for name in nodes or ("n1",):
        head.node(name, cpus=2)
    for job in ("d1", "d2"):
        head.driver(job, WORK)
    head.submit("d1", spec("root", WORK))
    return head


def near(unfinished: int, finished: int = 0, job: str = "d1", waiting: int = 0) -> m.Near:
    classes = [m.NearClass(CPU, identity(job), waiting, "work")] if waiting else []
    return m.Near(0, [m.NearJob(identity(job), unfinished, finished, 0)], classes)


def crowded(head: HeadBench, name: str = "n1") -> list[bool]:
    return [message.others_wait for message in head.taken(name, m.Crowded)]


def status(head: HeadBench) -> Any:
    return head.gcs.queries.status(0, head.now)


# ---- figures -------------------------------------------------------------------------------


def test_figures_are_those_of_the_jobs_and_nodes() -> None:
    head = head_with()
    head.say("n1", near(5, 7, waiting=3))
    job = status(head).jobs[0]
    assert (job.unfinished, job.finished) == (6, 7)
    node = status(head).nodes[0]
    assert (node.running, node.queued, node.finished) == (3, 3, 7)
    (waits,) = status(head).classes
    assert (waits.waiting, waits.example) == (3, "work")
    assert waits.reason.startswith("WAIT_RESOURCES: needs CPU 1; all of it is in use on node n1")
    head.say("n1", near(0, 12))
    job = status(head).jobs[0]
    assert (job.unfinished, job.finished, head.gcs.counters["finished"]) == (1, 12, 12)
    assert status(head).classes == []


def test_figures_that_are_told_again_count_once() -> None:
    head = head_with()
    for _ in range(2):
        head.say("n1", near(1, 7))
    assert head.gcs.counters["finished"] == 7


def test_with_its_node_goes_what_it_had() -> None:
    head = head_with("n1", "n2")
    head.say("n1", near(5, waiting=4))
    head.say("n1", m.Goodbye(0, "stopped"))
    assert status(head).jobs[0].unfinished == 1
    assert not any(group.near_waits for group in head.gcs.scheduler.classes.values())


def test_what_they_have_is_not_given_to_others() -> None:
    head = head_with()
    head.say("n1", m.Credit(0, 100, [("CPU", -UNIT)]))
    head.submit("d2", spec("other", WORK))
    assert len(head.gcs.scheduler.nodes[identity("n1")].assigned) == 1
    head.say("n1", m.Credit(0, 100))
    assert len(head.gcs.scheduler.nodes[identity("n1")].assigned) == 2


# ---- begun ---------------------------------------------------------------------------------


def begun(name: str, attempt: int = 1, **fields: Any) -> m.Begun:
    task = m.BegunTask(spec(name, WORK, **fields), attempt)
    return m.Begun(0, identity("d1"), PARENT, [task])


def test_what_a_node_has_begun_is_with_it() -> None:
    head = head_with()
    head.say("n1", begun("a", 2, depth=7, parent=identity("p")))
    record = head.gcs.tasks[identity("a")]
    assert (record.attempt, record.depth, record.submitter) == (2, 7, PARENT)
    assert record.node is head.gcs.scheduler.nodes[identity("n1")]
    head.say("n1", m.Done(1, [done(identity("a"), 2)]))
    told = head.taken("n1", m.Result)
    assert [(one.target, one.outcomes) for one in told] == [(PARENT, [value(identity("a"))])]


def test_what_is_with_another_node_by_now_is_not_to_go_on() -> None:
    head = head_with("n1", "n2")
    head.submit("d1", *(spec(name, WORK) for name in "abc"))
    there = next(iter(head.gcs.scheduler.nodes[identity("n2")].assigned))
    name = there.rstrip(b"\0").decode()
    head.taken("n1")
    head.say("n1", begun(name))
    assert [task.task_id for one in head.taken("n1", m.Discard) for task in one.tasks] == [there]


def test_a_task_that_failed_before_goes_on_counting() -> None:
    head = head_with("n1", "n2")
    told = m.Submit(0, identity("d1"), PARENT, [spec("a", WORK, failures=2)])
    head.say("n1", told)
    record = head.gcs.tasks[identity("a")]
    assert (record.attempt, record.failures) == (3, 2)


# ---- who waits -------------------------------------------------------------------------------


def test_a_node_hears_when_tasks_of_another_job_wait() -> None:
    head = head_with()
    head.submit("d1", *(spec(f"own{number}", WORK) for number in range(5)))
    head.say("n1", near(2))
    assert crowded(head) == [], "its own may wait"
    head.submit("d2", spec("other", WORK))
    assert crowded(head) == [True]
    for _ in range(3):
        head.say("n1", near(2))
    assert crowded(head) == []


def test_and_when_nobody_does_any_more() -> None:
    head = head_with()
    head.say("n1", m.Credit(0, 100, [("CPU", -UNIT)]), near(2))
    head.submit("d2", spec("other", WORK))
    assert crowded(head) == [True]
    head.say("n1", m.Credit(0, 100))
    assert crowded(head) == []
    head.now += limits.LEASE_PAUSE_S
    assert head.gcs.near_tasks.deadline() <= head.now
    head.turn()
    assert crowded(head) == [False]


def test_who_waits_for_what_a_node_never_has_waits_for_none_of_these() -> None:
    head = head_with()
    large = template("large", resources=[("CPU", 8)])
    head.say("d2", large)
    head.say("n1", near(2))
    head.submit("d2", spec("other", large))
    assert crowded(head) == []


def test_a_program_that_waits_for_leases_counts() -> None:
    head = head_with()
    head.say("n1", m.Credit(0, 100, [("CPU", -UNIT)]), near(1))
    head.now += 1
    head.turn()
    head.taken("n1")
    head.say("d2", m.Demand(0, identity("d2"), identity("d2"), CPU, 3))
    assert crowded(head) == [True]


# ---- other nodes -----------------------------------------------------------------------------


def test_a_node_with_nothing_to_do_gets_what_waits_elsewhere() -> None:
    head = head_with("n1", "n2")
    head.say("n1", m.Credit(0, 100, [("CPU", -2 * UNIT)]), near(9, waiting=8))
    (reclaim,) = head.taken("n1", m.Reclaim)
    assert (reclaim.resources, reclaim.count) == (CPU, 4)
    head.say("n1", near(9, waiting=8))
    assert head.taken("n1", m.Reclaim) == [], "one at a time"
    submit = m.Submit(0, identity("d1"), PARENT, [spec("given", WORK)])
    head.say("n1", submit, m.Returned(0, identity("given")))
    assert identity("given") in head.gcs.scheduler.nodes[identity("n2")].assigned


def test_of_a_task_that_is_cancelled_with_those_below_nodes_hear() -> None:
    head = head_with("n1", "n2")
    head.say("n1", near(3))
    head.taken("n1")
    head.say("d1", m.Cancel(0, identity("root"), False, True))
    told = head.taken("n1", m.Cancel)
    assert [(each.task_id, each.recursive) for each in told] == [(identity("root"), True)]
    assert head.taken("n2", m.Cancel) == []
    head.say("d1", m.Cancel(0, identity("root"), False, False))
    assert head.taken("n1", m.Cancel) == []


def test_what_a_node_holds_for_near_tasks_and_lets_go_of_stays_where_it_is() -> None:
    head = head_with()
    oid = object_of(identity("put"))
    large = m.Outcome(oid, m.VALUE | m.LOCATED, 1 << 20)
    head.say("n1", m.Put(0, PARENT, large), m.Hold(0, identity("n1"), oid))
    head.say("n1", m.Drop(0, identity("n1"), oid))
    record = head.gcs.objects.records[oid]
    assert identity("n1") in record.locations and record.holders == {PARENT: None}


def test_an_amount_of_nothing_says_nothing() -> None:
    head = head_with("n1", "n2")
    head.say("n1", m.Near(0, [], [m.NearClass([("GPU", 0)], identity("d1"), 1, "work")]))
    head.after(1.0)
    assert head.taken("n1", m.Reclaim)  # the other node has room


def test_of_a_job_with_priorities_its_own_tasks_count_as_others() -> None:
    """What waits at the head may be to start before what waits at the node."""
    head = head_with()
    urgent = msgspec.structs.replace(WORK, template_id=identity("urgent"), priority=1)
    head.say("d1", urgent)
    head.say("n1", near(5, waiting=3))
    head.submit("d1", *(spec(f"t{number}", WORK) for number in range(8)))
    head.after(0.1)
    assert crowded(head) == []
    head.submit("d1", spec("urgent", urgent))
    head.say("n1", near(6, waiting=4))
    assert crowded(head) == [True]
