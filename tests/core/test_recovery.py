"""What a new head may take for granted of tasks from before its start."""

from __future__ import annotations

import msgspec

from tests.core.benches import FUNCTION, UNIT, HeadBench, identity, spec, template
from zray import limits
from zray.core.members import NodeRow
from zray.errors import NodeDiedError
from zray.protocol import messages as m

ONCE = template(retries=0)


def test_what_a_late_driver_submits_again_may_have_run_on_a_node_that_is_dead_by_then() -> None:
    node = msgspec.msgpack.encode(NodeRow(1, True, "n1", [("CPU", UNIT)]))
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    head = HeadBench({"nodes": {identity("n1"): node}, "jobs": {identity("d"): job}}, epoch=2)
    head.node("n2")
    head.say("d", head.hello_driver("d"))
    head.after(limits.DEAD_S + 1)
    head.taken("d")
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), ONCE)
    head.submit("d", spec("old", ONCE))
    head.say("d", m.Hold(0, identity("d"), b"", True))
    head.submit("d", spec("new", ONCE))
    assert head.assigned("n2") == ["new"]
    (result,) = head.taken("d", m.Result)
    assert NodeDiedError.code.encode() in result.outcomes[0].value
