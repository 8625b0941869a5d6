"""What a new head may take for granted of tasks from before its start."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from tests.core.benches import (
    FUNCTION,
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
from zray.core import bundles, resources
from zray.core.head.members import NodeRow
from zray.errors import NodeDiedError
from zray.protocol import messages as m

ONCE = template(retries=0)
AGAIN = template(retries=3)


@pytest.mark.parametrize("once", [ONCE, replace(ONCE, by_name=True)], ids=["code", "by name"])
def test_what_a_late_driver_submits_again_may_have_run_on_a_node_that_is_dead_by_then(
    once: m.Template,
) -> None:
    node = msgspec.msgpack.encode(NodeRow(1, True, "n1", [("CPU", UNIT)]))
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    head = HeadBench({"nodes": {identity("n1"): node}, "jobs": {identity("d"): job}}, epoch=2)
    head.node("n2", offers=[once.name])
    head.say("d", head.hello_driver("d"))
    head.after(limits.DEAD_S + 1)
    head.taken("d")
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), once)
    head.submit("d", spec("old", once))
    head.say("d", m.Hold(0, identity("d"), b"", True))
    head.submit("d", spec("new", once))
    assert head.assigned("n2") == ["new"]
    (result,) = head.taken("d", m.Result)
    assert NodeDiedError.code.encode() in result.outcomes[0].value


def restarted(*nodes: str) -> HeadBench:
    """A head of which these nodes and the driver ``d`` have known the one before."""
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    row = msgspec.msgpack.encode(NodeRow(1, True, "n", [("CPU", UNIT)]))
    rows = {"nodes": {identity(name): row for name in nodes}, "jobs": {identity("d"): job}}
    head = HeadBench(rows, epoch=2)
    for name in nodes:
        head.say(name, head.hello_node(name))
    return head


def held(attempt: int) -> m.Announce:
    task = m.HeldTask(identity("t"), attempt, identity("d"), AGAIN.template_id, attempt - 1, False)
    return m.Announce(0, [task], [], [])


def resubmitted(head: HeadBench) -> m.Result:
    head.say("d", head.hello_driver("d"))
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), AGAIN)
    head.submit("d", spec("t", AGAIN))
    head.say("d", m.Hold(0, identity("d"), object_of(identity("t")), True))
    assert head.assigned("n1") == head.assigned("n2") == []
    (result,) = head.taken("d", m.Result)
    assert isinstance(result, m.Result)
    return result


def test_an_earlier_attempt_that_is_announced_after_the_end_of_a_later_one_is_void() -> None:
    head = restarted("n1", "n2")
    head.say("n2", held(3), m.Done(1, [done(identity("t"), 3)]), m.Credit(0, 10))
    head.say("n1", held(2), m.Done(1, [done(identity("t"), 2, m.CRASHED)]), m.Credit(0, 10))
    assert resubmitted(head).outcomes == [value(identity("t"))]


def test_a_later_attempt_counts_though_an_earlier_one_was_announced_before_it() -> None:
    head = restarted("n1", "n2")
    head.say("n1", held(2), m.Credit(0, 10))
    head.say("n2", held(3), m.Credit(0, 10))
    assert not head.taken("n2", m.Discard)
    head.say("n1", m.Done(1, [done(identity("t"), 2, m.CRASHED)]))
    head.say("n2", m.Done(1, [done(identity("t"), 3)]))
    assert resubmitted(head).outcomes == [value(identity("t"))]


def test_a_task_that_a_node_told_of_takes_its_share_of_it_once_its_template_is_known() -> None:
    head = restarted("n1")
    head.say("n1", held(1), m.Credit(0, 10))
    head.say("d", head.hello_driver("d"))
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), AGAIN)
    head.submit("d", spec("t", AGAIN), spec("other", AGAIN))
    head.say("d", m.Hold(0, identity("d"), object_of(identity("t")), True))
    view = head.gcs.members.nodes[identity("n1")].view
    assert view.free == {"CPU": 0}
    head.say("n1", m.Done(1, [done(identity("t"), 1)]))
    assert head.assigned("n1") == ["other"]
    head.say("n1", m.Done(2, [done(identity("other"), 1)]))
    assert view.free == {"CPU": UNIT}


def test_a_task_of_before_waits_only_for_nodes_that_could_have_it() -> None:
    """As that of a head that conducts only, and was lost with its machine."""
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    nodes = {"worker": [("CPU", UNIT)], "old": [("memory", UNIT)], "unknown": []}
    for missing, expected in (("old", ["t"]), ("worker", []), ("unknown", [])):
        rows = {
            identity(name): msgspec.msgpack.encode(NodeRow(1, True, name, nodes[name]))
            for name in ("worker", missing)
        }
        head = HeadBench({"nodes": rows, "jobs": {identity("d"): job}}, epoch=2)
        head.say("d", head.hello_driver("d"))
        head.say("d", m.Export(0, FUNCTION, "work", b"code"), AGAIN)
        head.submit("d", spec("t", AGAIN))
        if missing != "worker":
            assert head.assigned("worker") == [], "it may have the task"
            head.node("worker")
        else:
            head.node("other")
        head.after(0.1)
        assert head.assigned("worker" if missing != "worker" else "other") == expected


def test_a_task_in_a_group_may_be_wherever_its_bundle_may_be() -> None:
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    row = msgspec.msgpack.encode(NodeRow(1, True, "worker", [("CPU", UNIT)]))
    head = HeadBench({"nodes": {identity("n1"): row}, "jobs": {identity("d"): job}}, epoch=2)
    reserved = bundles.needed([("CPU", UNIT)], identity("g"), 0)
    assert head.gcs.members.may_be_held(resources.needs(reserved))
    head.after(limits.DEAD_S + 1)
    assert head.gcs.members.may_have_run(resources.needs(reserved))


def test_what_a_dead_node_may_have_run_counts_while_others_are_awaited() -> None:
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    rows = {
        identity("dead"): msgspec.msgpack.encode(NodeRow(1, True, "", [("CPU", UNIT)], "h:1")),
        identity("old"): msgspec.msgpack.encode(NodeRow(1, True, "old", [("memory", UNIT)])),
    }
    head = HeadBench({"nodes": rows, "jobs": {identity("d"): job}}, epoch=2)
    head.node("other")
    head.gcs.members.probed(identity("dead"), True, head.now)
    head.after(limits.REFUSED_S + 0.1)
    assert [*head.gcs.members.awaited] == [identity("old")]
    head.say("d", head.hello_driver("d"))
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), ONCE)
    head.submit("d", spec("t", ONCE))
    head.after(0.1)
    assert head.assigned("other") == []
    (result,) = head.taken("d", m.Result)
    assert isinstance(result, m.Result)
    assert NodeDiedError.code.encode() in result.outcomes[0].value
