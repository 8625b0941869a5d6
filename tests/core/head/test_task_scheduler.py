"""The head's scheduler: fair shares, how much is sent ahead, and what is taken back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import (
    UNIT,
    HeadBench,
    done,
    identity,
    object_of,
    spec,
    template,
    value,
)
from zray import limits
from zray.protocol import messages as m

WORK = template()
FREE = template("free", resources=())
GPU = template("gpu", resources=[("CPU", 1), ("GPU", 0.5)])
NAMED = msgspec.structs.replace(template("town.count"), by_name=True)
HUGE = template("huge", resources=[("CPU", 9)])


def tasks(prefix: str, count: int, made_of: m.Template = WORK) -> list[m.TaskSpec]:
    return [spec(f"{prefix}{number}", made_of) for number in range(count)]


def finish(head: HeadBench, node: str, *names: str, seconds: float = 1.0) -> None:
    head.say(node, m.Done(1, [done(identity(name), seconds=seconds) for name in names]))


def test_what_fits_starts_everywhere_and_no_more() -> None:
    head = HeadBench()
    head.node("n1", 2)
    head.node("n2", 3)
    head.driver("d1", GPU)
    head.submit("d1", *tasks("t", 20, GPU))
    assert head.assigned("n1") == head.assigned("n2") == []
    head.node("n3", 8, GPU=2)
    head.turn()
    assert len(head.assigned("n3")) == 4


def test_two_jobs_share_alike_whoever_came_first() -> None:
    head = HeadBench()
    head.driver("d1", GPU)
    head.driver("d2", GPU)
    head.submit("d1", *tasks("a", 100, GPU))
    head.submit("d2", *tasks("b", 10, GPU))
    head.node("n1", 10, GPU=5)
    head.turn()
    names = head.assigned("n1")
    assert sum(name.startswith("a") for name in names) == 5
    assert sum(name.startswith("b") for name in names) == 5
    finish(head, "n1", *names)
    names = head.assigned("n1")
    assert sum(name.startswith("b") for name in names) == 5


def test_a_job_alone_gets_everything() -> None:
    head = HeadBench()
    head.driver("d1", GPU)
    head.submit("d1", *tasks("a", 3, GPU))
    head.driver("d2", GPU)
    head.submit("d2", *tasks("b", 30, GPU))
    head.node("n1", 10, GPU=5)
    head.turn()
    assert len(head.assigned("n1")) == 10


def test_few_tasks_spread_over_the_nodes() -> None:
    head = HeadBench()
    for name in ("n1", "n2", "n3"):
        head.node(name, 4)
    head.driver("d1", WORK)
    head.submit("d1", *tasks("t", 6))
    assert [len(head.assigned(name)) for name in ("n1", "n2", "n3")] == [2, 2, 2]


def test_of_an_unknown_function_one_is_sent_ahead() -> None:
    head = HeadBench()
    head.node("n1", 2)
    head.driver("d1", WORK)
    head.submit("d1", *tasks("t", 50))
    assert len(head.assigned("n1")) == 2 + limits.PREFETCH_UNKNOWN_TASKS


def test_only_classes_of_cpu_alone_are_sent_ahead() -> None:
    head = HeadBench()
    head.node("n1", 2, GPU=1)
    head.driver("d1", GPU)
    head.submit("d1", *tasks("t", 50, GPU))
    assert len(head.assigned("n1")) == 2


@pytest.mark.parametrize(
    ("seconds", "ahead"),
    [
        (1.0, 0),
        (0.05, 2),  # one per lane, so that none idles for a round trip
        (0.0005, 20),  # 5 ms of work for two lanes
        (0.000001, 1024),
    ],
)
def test_what_is_sent_ahead_is_measured_in_time(seconds: float, ahead: int) -> None:
    head = HeadBench()
    head.node("n1", 2)
    head.driver("d1", WORK)
    head.submit("d1", spec("first", WORK))
    head.assigned("n1")
    finish(head, "n1", "first", seconds=seconds)
    head.submit("d1", *tasks("t", 5000))
    assert len(head.assigned("n1")) == 2 + ahead


def test_what_is_sent_ahead_leaves_half_to_others() -> None:
    head = HeadBench()
    head.node("n1", 1)
    head.node("n2", 1)
    head.driver("d1", WORK)
    head.submit("d1", spec("first", WORK))
    sent = head.assigned("n1") + head.assigned("n2")
    finish(head, "n1" if not head.gcs.scheduler.nodes[identity("n2")].assigned else "n2", *sent)
    head.gcs.definitions.templates[WORK.template_id].seconds = 0.000001
    head.submit("d1", *tasks("t", 102))
    counts = [len(head.assigned("n1")), len(head.assigned("n2"))]
    assert counts[0] <= 1 + 25 and counts[1] <= 1 + 25


def test_credit_is_never_exceeded() -> None:
    head = HeadBench()
    head.node("n1", 100, credit=7)
    head.driver("d1", FREE)
    head.submit("d1", *tasks("t", 50, FREE))
    assert len(head.assigned("n1")) == 7
    head.say("n1", m.Credit(0, 10))
    assert len(head.assigned("n1")) == 3


def test_blocked_tasks_lend_what_they_gave_back() -> None:
    head = HeadBench()
    node = head.node("n1", 1)
    head.driver("d1", GPU)
    big = template("cpu", resources=[("CPU", 1), ("special", 0)])
    head.say("d1", big)
    head.submit("d1", *tasks("t", 4, GPU))
    assert head.assigned("n1") == []
    head.say("n1", m.Credit(0, 1 << 40, [("CPU", UNIT)]))
    assert node.view.free["CPU"] == 2 * UNIT
    head.say("n1", m.Credit(0, 1 << 40, [("CPU", UNIT // 2)]))
    assert node.view.free["CPU"] == UNIT + UNIT // 2
    head.say("n1", m.Credit(0, 1 << 40, []))
    assert node.view.free["CPU"] == UNIT


# ---- taking back ---------------------------------------------------------------------------


def reclaiming(made_of: m.Template = WORK, **more: Any) -> HeadBench:
    """n1 has 2 tasks that run and many ahead; nothing is left in the queue; n2 is done."""
    head = HeadBench()
    head.driver("d1", made_of)
    head.node("n1", 2, **more)
    head.submit("d1", spec("first", made_of))
    head.assigned("n1")
    finish(head, "n1", "first", seconds=0.0001)
    head.submit("d1", *tasks("t", 40, made_of))
    assert len(head.assigned("n1")) == 2 + 19
    head.say("n2", head.hello_node("n2", 1, 2, **more))
    head.say("n2", m.Announce(0, [], [], []), m.Credit(0, 1 << 40))
    while names := head.assigned("n2"):
        finish(head, "n2", *names, seconds=0.0001)
    assert not any(group.ready for group in head.gcs.scheduler.groups())
    return head


def test_an_idle_node_gets_what_another_has_too_much_of() -> None:
    head = reclaiming()
    assert not head.taken("n1", m.Reclaim)
    head.now = head.gcs.scheduler.steal_deadline()
    head.turn()
    (reclaim,) = head.taken("n1", m.Reclaim)
    ahead = head.gcs.scheduler.nodes[identity("n1")].ahead[(("CPU", UNIT),)]
    assert reclaim.count == ahead // 2 > 1
    head.turn()
    assert not head.taken("n1", m.Reclaim)  # one at a time
    back = [*head.gcs.scheduler.nodes[identity("n1")].assigned][-reclaim.count :]
    head.say("n1", m.Returned(0, b"".join(back)))
    moved = [identity(name) for name in head.assigned("n2")]
    assert moved == back[:2] or set(moved) <= set(back)
    assert head.gcs.counters["reclaimed"] == reclaim.count


def test_tasks_that_take_no_time_are_left_alone_for_a_while() -> None:
    head = reclaiming()
    soon = head.gcs.scheduler.steal_deadline()
    assert soon == head.now + limits.STEAL_IDLE_S
    head.now += limits.STEAL_IDLE_S / 2
    finish(head, "n1", "t0")
    assert head.gcs.scheduler.steal_deadline() == soon, "though it still finishes some"


def test_others_are_taken_back_at_once_as_many_as_can_start() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.node("n1", 4)
    head.submit("d1", spec("first", WORK))
    finish(head, "n1", *head.assigned("n1"), seconds=0.05)
    head.submit("d1", *tasks("t", 12))
    sent = head.assigned("n1")
    for name in {f"t{number}" for number in range(12)}.difference(sent):
        head.say("d1", m.Cancel(0, identity(name), False, False))
    assert len(sent) == 8
    head.say("n2", head.hello_node("n2", 1, 3))
    head.say("n2", m.Announce(0, [], [], []), m.Credit(0, 1 << 40))
    assert [reclaim.count for reclaim in head.taken("n1", m.Reclaim)] == [3]


def test_of_long_ones_as_many_are_sent_ahead_as_should_end_soon() -> None:
    head = HeadBench()
    head.node("n1", 4)
    head.driver("d1", WORK)
    head.submit("d1", spec("first", WORK))
    finish(head, "n1", *head.assigned("n1"), seconds=10.0)
    head.submit("d1", *tasks("t", 40))
    assert len(head.assigned("n1")) == 4
    head.say("n1", m.Credit(0, 1 << 40, ending=2 * UNIT))
    assert len(head.assigned("n1")) == 2
    head.say("n1", m.Credit(0, 1 << 40, ending=2 * UNIT))
    assert not head.assigned("n1"), "they are there"


def test_a_node_that_gave_nothing_is_not_asked_again_at_once() -> None:
    head = reclaiming()
    head.now = head.gcs.scheduler.steal_deadline()
    head.turn()
    assert head.taken("n1", m.Reclaim)
    head.say("n1", m.Returned(0, b""))
    assert not head.taken("n1", m.Reclaim)
    assert head.gcs.scheduler.steal_deadline() == head.now + limits.STEAL_PAUSE_S


def test_a_task_that_its_node_has_started_stays_there() -> None:
    head = reclaiming()
    last = [*head.gcs.scheduler.nodes[identity("n1")].assigned][-1]
    head.say("n1", m.Returned(0, last))
    assert [identity(name) for name in head.assigned("n2")] == [last]
    head.say("n1", m.Returned(0, last))  # told twice: it is somebody else's by now
    holders = [view for view in head.gcs.scheduler.nodes.values() if last in view.assigned]
    assert [view.node_id for view in holders] == [identity("n2")]


# ---- estimates and reasons -----------------------------------------------------------------


def test_the_estimate_returns_to_the_total() -> None:
    head = HeadBench()
    node = head.node("n1", 2)
    head.driver("d1", WORK)
    head.submit("d1", *tasks("t", 4))
    assert len(head.assigned("n1")) == 3
    assert node.view.free["CPU"] == 0
    finish(head, "n1", "t0")
    assert node.view.free["CPU"] == 0 and not any(node.view.ahead.values())
    finish(head, "n1", "t1", "t2")
    assert node.view.free["CPU"] == UNIT
    finish(head, "n1", "t3")
    assert node.view.free == node.view.total


def test_a_task_that_fits_nowhere_says_what_is_missing_and_warns_once() -> None:
    head = HeadBench()
    head.node("n1", 4)
    head.driver("d1", HUGE)
    head.submit("d1", spec("t1", HUGE))
    reason = head.gcs.causes.why(object_of(identity("t1")), head.now)
    assert reason.startswith("INFEASIBLE: needs CPU 9; no node ever has CPU 9 (the nearest has")
    head.after(4.0)
    assert not head.taken("d1", m.Notice)
    head.after(4.0)
    assert [notice.code for notice in head.taken("d1", m.Notice)] == ["ZR-3007"]
    head.after(20.0)
    assert not head.taken("d1", m.Notice)
    head.node("n2", 9)
    head.turn()
    assert head.assigned("n2") == ["t1"]


def test_without_nodes_the_reason_says_so() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.submit("d1", spec("t1", WORK))
    assert "NO_NODES" in head.gcs.causes.why(object_of(identity("t1")), head.now)


def test_a_task_that_was_withdrawn_is_not_sent() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.submit("d1", *tasks("t", 3))
    head.say("d1", m.Cancel(0, identity("t1"), False, False))
    head.node("n1", 4)
    head.turn()
    assert head.assigned("n1") == ["t0", "t2"]


def test_a_task_goes_when_its_argument_is_there() -> None:
    head = HeadBench()
    head.node("n1", 4)
    head.driver("d1", WORK)
    first, second = spec("t1", WORK), spec("t2", WORK, dependencies=[identity("t1") + bytes(4)])
    head.submit("d1", second, first)
    assert head.assigned("n1") == ["t1"]
    reason = head.gcs.causes.why(object_of(identity("t2")), head.now)
    assert reason.startswith("WAIT_DEPS: work waits for 1 of its arguments")
    head.say("n1", m.Done(1, [done(identity("t1"), results=[value(identity("t1"))])]))
    (sent,) = head.taken("n1", m.Tasks)
    assert [assignment.spec for assignment in sent.tasks] == [second]
    assert sent.values == []  # its node has the value already


def with_large_object(head: HeadBench) -> bytes:
    """Nodes n1 and n2 with a CPU each, and an object of 10 MB on n1; its id."""
    head.node("n1", 1)
    head.driver("d1", WORK)
    head.submit("d1", spec("maker", WORK))
    assert head.assigned("n1") == ["maker"]
    maker = identity("maker")
    large = m.Outcome(object_of(maker), m.VALUE | m.LOCATED, 10_000_000)
    head.say("n1", m.Done(1, [m.TaskDone(maker, 1, m.FINISHED, [large], 0.5)]))
    head.node("n2", 1)
    head.turn()
    return large.object_id


def two(large: bytes) -> list[m.TaskSpec]:
    return [spec(name, WORK, dependencies=[large]) for name in ("first", "second")]


def test_a_task_goes_where_its_large_argument_is() -> None:
    head = HeadBench()
    large = with_large_object(head)
    for turn in range(4):
        head.submit("d1", spec(f"t{turn}", WORK, dependencies=[large]))
        assert head.assigned("n1") == [f"t{turn}"] and not head.assigned("n2")
        finish(head, "n1", f"t{turn}")


def test_short_tasks_are_sent_ahead_to_where_their_large_argument_is() -> None:
    head = HeadBench()
    large = with_large_object(head)
    head.submit("d1", spec("first", WORK, dependencies=[large]))
    for number in range(60):  # until it is known that they are short
        finish(head, "n1", *head.assigned("n1"), seconds=0.0001)
        head.submit("d1", spec(f"again{number}", WORK, dependencies=[large]))
    finish(head, "n1", *head.assigned("n1"), seconds=0.0001)
    head.submit("d1", *(spec(f"t{i}", WORK, dependencies=[large]) for i in range(40)))
    assert len(head.assigned("n1")) > 10 and not head.assigned("n2")


def test_it_waits_a_while_for_that_node_and_then_goes_to_another() -> None:
    head = HeadBench()
    large = with_large_object(head)
    head.submit("d1", *two(large))
    assert head.assigned("n1") == ["first"] and not head.assigned("n2")
    assert "WAIT_LOCALITY" in head.gcs.causes.why(object_of(identity("second")), head.now)
    assert head.gcs.turn.deadline() <= head.now + limits.LOCALITY_WAIT_S
    head.after(limits.LOCALITY_WAIT_S + 0.01)
    head.turn()
    assert head.assigned("n2") == ["second"]


def test_it_goes_to_another_at_once_when_that_node_is_dead() -> None:
    head = HeadBench()
    large = with_large_object(head)
    head.submit("d1", *two(large))
    assert head.assigned("n1") == ["first"]
    head.say("n1", m.Goodbye(0, "stopped"))
    head.turn()
    assert set(head.assigned("n2")) <= {"first", "second"} and head.gcs.scheduler.local == {}


# ---- by name -------------------------------------------------------------------------------


def test_what_runs_by_name_goes_to_nodes_that_offer_the_name() -> None:
    head = HeadBench()
    head.node("n1", 8)
    head.node("n2", 1, offers=["town.split", "town.count"])
    head.driver("d1", NAMED)
    head.submit("d1", *tasks("t", 5, NAMED))
    sent = head.assigned("n2")
    assert head.assigned("n1") == [] and sent[0] == "t0"
    while sent:
        finish(head, "n2", sent.pop(0))
        sent += head.assigned("n2")
    assert not head.gcs.tasks
    view = head.gcs.members.nodes[identity("n2")].view
    assert view.free == view.total


def test_a_name_that_nobody_has_offered_is_an_error_at_once() -> None:
    head = HeadBench()
    head.driver("d1", NAMED)
    head.submit("d1", *tasks("early", 1, NAMED))  # with no node yet, there may be one
    assert not head.taken("d1", m.Result)
    head.node("n1", 8, offers=["town.split"])
    head.submit("d1", *tasks("t", 1, NAMED))
    (result,) = head.taken("d1", m.Result)
    (outcome,) = result.outcomes
    assert outcome.kind & m.ERROR and b"ZR-3008" in outcome.value
    assert b"offers 'town.count' (offered: town.split)" in outcome.value
    assert head.assigned("n1") == []


def test_a_name_that_was_offered_is_waited_for() -> None:
    head = HeadBench()
    head.node("n1", offers=["town.count"])
    head.node("n2", 8)
    head.driver("d1", NAMED)
    head.say("n1", m.Goodbye(0, "stopped"))
    head.submit("d1", *tasks("t", 1, NAMED))
    assert head.assigned("n2") == [] and not head.taken("d1", m.Result)
    reason = head.gcs.causes.why(object_of(identity("t0")), head.now)
    assert reason is not None and 'no node ever has an offer of "town.count"' in reason
    head.node("n3", offers=["town.count"])
    head.turn()
    assert head.assigned("n3") == ["t0"]


def test_tasks_by_name_are_taken_back_as_their_node_counts_them() -> None:
    head = reclaiming(NAMED, offers=["town.count"])
    head.now = head.gcs.scheduler.steal_deadline()
    head.turn()
    (reclaim,) = head.taken("n1", m.Reclaim)
    assert reclaim.resources == [("CPU", UNIT)]


# ---- many nodes ----------------------------------------------------------------------------


def many_nodes(cpus: int = 2) -> tuple[HeadBench, list[str]]:
    """Three times as many as are compared, all busy, with as many tasks ahead."""
    head = HeadBench()
    names = [f"n{number}" for number in range(3 * limits.NODES_COMPARED)]
    for name in names:
        head.node(name, cpus)
    head.driver("d1", WORK)
    head.submit("d1", spec("first", WORK))
    (node,) = [name for name in names if head.assigned(name)]
    finish(head, node, "first", seconds=0.05)  # one ahead for each that runs
    return head, names


def test_what_many_nodes_have_room_for_starts_at_once() -> None:
    head, names = many_nodes()
    head.submit("d1", *tasks("a", len(names)))
    counts = [len(head.assigned(name)) for name in names]
    assert sum(counts) == len(names)
    head.submit("d1", *tasks("b", len(names)))
    more = [len(head.assigned(name)) for name in names]
    assert [a + b for a, b in zip(counts, more, strict=True)] == [2] * len(names)
    head.submit("d1", *tasks("c", 1000 * len(names)))
    for _ in range(4):  # these may be sent ahead, and not all nodes are looked at in a turn
        head.turn()
    assert [len(head.assigned(name)) for name in names] == [2] * len(names)


def test_of_many_full_nodes_each_is_used_again_once_it_has_room() -> None:
    head, names = many_nodes()
    head.submit("d1", *tasks("a", 1000 * len(names)))
    for _ in range(4):
        head.turn()
    sent = {name: head.assigned(name) for name in names}
    for name in (*names, names[0], names[-1]):
        finish(head, name, sent[name].pop(0), seconds=0.05)
        (following,) = head.assigned(name)
        sent[name].append(following)


def test_an_idle_one_of_many_nodes_gets_what_another_has_ahead() -> None:
    head, names = many_nodes()
    head.submit("d1", *tasks("a", 5 * len(names)))
    for _ in range(4):
        head.turn()
    sent = {name: head.assigned(name) for name in names}
    gone = {f"a{number}" for number in range(5 * len(names))}.difference(*sent.values())
    head.say("d1", *(m.Cancel(0, identity(name), False, False) for name in gone))
    idle = names[50]
    finish(head, idle, *sent[idle], seconds=0.05)
    head.now += limits.STEAL_IDLE_S
    head.turn()
    asked = [reclaim.count for name in names for reclaim in head.taken(name, m.Reclaim)]
    assert asked == [1, 1], "it has two CPUs"
    head.turn()
    assert not any(head.taken(name, m.Reclaim) for name in names), "they are on their way"


# ---- priorities ------------------------------------------------------------------------------


def ranked(priority: int, made_of: m.Template = WORK) -> m.Template:
    name = identity(f"{made_of.name} {priority}")
    return msgspec.structs.replace(made_of, template_id=name, priority=priority)


HIGH, LOW = ranked(5), ranked(-5)


def one_cpu(*made_of: m.Template) -> HeadBench:
    head = HeadBench()
    head.node("n1", 1)
    for job in ("d1", "d2"):
        head.driver(job, WORK, *made_of)
    head.submit("d1", spec("first", WORK))
    assert head.assigned("n1") == ["first"]
    return head


def order(head: HeadBench, count: int, first: str = "first") -> list[str]:
    """So many that start, one after the other."""
    found = []
    for _ in range(count):
        finish(head, "n1", first)
        (first,) = head.assigned("n1")
        found.append(first)
    return found


def test_of_one_job_those_with_more_priority_start_first() -> None:
    head = one_cpu(HIGH, LOW)
    head.submit("d1", spec("l1", LOW), spec("h1", HIGH), spec("n1", WORK), spec("h2", HIGH))
    assert order(head, 4) == ["h1", "h2", "n1", "l1"]


def test_what_was_sent_ahead_comes_back_for_them_and_nothing_more_is() -> None:
    head = one_cpu(HIGH)
    head.submit("d1", spec("a", WORK), spec("b", WORK))
    assert head.assigned("n1") == ["a"]
    head.submit("d1", spec("h", HIGH))
    assert head.taken("n1", m.Reclaim) == [m.Reclaim(0, [("CPU", UNIT)], 1)]
    head.say("n1", m.Returned(0, identity("a")))
    assert order(head, 2) == ["h", "a"]


def test_other_jobs_get_what_they_would_get() -> None:
    head, urgent = HeadBench(), ranked(5, GPU)
    head.driver("d1", urgent)
    head.driver("d2", GPU)
    head.submit("d1", *tasks("a", 20, urgent))
    head.submit("d2", *tasks("b", 20, GPU))
    head.node("n1", 10, GPU=5)
    head.turn()
    names = head.assigned("n1")
    assert sum(name.startswith("b") for name in names) == 5 and len(names) == 10


def test_depth_comes_before_priority() -> None:
    """Who waits for what a running task has submitted has begun."""
    head = one_cpu(HIGH)
    head.submit("d1", spec("h", HIGH), spec("child", WORK, parent=identity("first")))
    assert order(head, 2) == ["child", "h"]


def test_an_actor_comes_before_what_is_urgent_or_deep_since_that_may_call_it() -> None:
    head = one_cpu(HIGH)
    head.submit("d1", spec("h", HIGH), spec("child", WORK, parent=identity("first")))
    for name, held in [("keeps", [("CPU", UNIT)]), ("actor", [])]:
        info = m.ActorInfo(name, WORK.function_id, [], held=held)
        ids = identity("d1"), identity("d1")
        head.say("d1", m.CreateActor(7, *ids, spec(name, WORK), info))
    assert order(head, 1) == ["actor"]
    end = done(identity("actor"), results=[m.Outcome(object_of(identity("actor")), m.VALUE, 0)])
    head.say("n1", m.Done(1, [end]))
    assert head.assigned("n1") == ["child"]
    assert order(head, 2, "child") == ["h", "keeps"]


def test_the_node_of_large_arguments_does_not_change_the_order() -> None:
    head = one_cpu(HIGH)
    large = m.Outcome(object_of(identity("p")), m.VALUE | m.LOCATED, 4 * limits.LOCALITY_BYTES_MIN)
    head.say("d1", m.Put(0, identity("d1"), large, identity("n1")))
    head.submit("d1", spec("h0", HIGH))
    head.submit("d1", spec("a", WORK, dependencies=[large.object_id]), spec("h", HIGH))
    assert order(head, 3) == ["h0", "h", "a"]


def test_a_job_that_has_ended_is_forgotten() -> None:
    head = one_cpu(HIGH)
    head.submit("d1", spec("h", HIGH))
    assert [*head.gcs.scheduler.ranked] == [identity("d1")]
    head.say("d1", m.Goodbye(0, "over"))
    assert not head.gcs.scheduler.ranked
