"""What the head answers when people ask for its state."""

from __future__ import annotations

from msgspec.structs import replace

from tests.core.benches import UNIT, HeadBench, identity, spec, template
from zray.protocol import messages as m

WORK = template()


def status(head: HeadBench) -> m.Status:
    head.say("d", m.Query(7, m.STATUS))
    (found,) = head.taken("d", m.Status)
    assert found.about == 7
    return found


def test_what_waits_is_told_by_class_with_what_it_asks_for_and_why() -> None:
    named = replace(WORK, by_name=True, template_id=identity("named"))
    head = HeadBench()
    head.node("n1", offers=[named.name])
    head.driver("d", WORK, named)
    head.submit("d", *(spec(f"t{number}", WORK) for number in range(5)))
    head.submit("d", *(spec(f"n{number}", named) for number in range(4)))
    codes, names = status(head).classes
    for found in (codes, names):
        assert (found.resources, found.example) == ([("CPU", UNIT)], "work")
        assert found.waiting >= 3 and found.reason.startswith("WAIT_RESOURCES")


def test_a_node_is_told_with_what_it_has_free() -> None:
    head = HeadBench()
    head.node("n1", cpus=2, offers=["other"])
    head.driver("d", WORK)
    head.submit("d", spec("t0", WORK))
    (node,) = status(head).nodes
    assert (node.info.name, node.state, node.available) == ("n1", "ALIVE", [("CPU", UNIT)])
    assert (node.running, node.queued) == (1, 0)


def test_what_has_failed_and_what_has_happened_is_counted() -> None:
    head = HeadBench()
    head.driver("d", WORK)
    before = dict(status(head).counters)
    head.node("n1")
    told = [m.Tally("f", m.NORMAL_TASK, m.ENDED_BADLY, 3), m.Tally("g", m.ACTOR_TASK, "FAILED", 2)]
    head.say("n1", m.TaskReport(0, tallies=[*told, m.Tally("f", m.NORMAL_TASK, m.ENDED_WELL, 9)]))
    after = dict(status(head).counters)
    assert after["failed"] - before["failed"] == 5
    assert after["events"] > before["events"]
