"""What the bounds of the protocol, as they are, let through."""

from __future__ import annotations

from zray import limits
from zray.protocol import codec
from zray.protocol import messages as m


def test_one_task_may_have_more_values_than_a_message_has_items() -> None:
    count = limits.PAYLOAD_ITEMS_MAX + 1
    spec = m.TaskSpec(bytes(16), bytes(16), b"", [b"%020d" % number for number in range(count)])
    values = [m.Outcome(oid, m.VALUE, 1, b"x") for oid in spec.dependencies]
    sent = m.Tasks(0, [m.Assignment(1, bytes(16), spec)], values)
    for payloads in (codec.encode(0, [sent]), codec.encode_local([sent])):
        assert [codec.decode(payload).messages for payload in payloads] == [[sent]]
