"""Outcomes on their way: values only as long as their reader reads."""

from __future__ import annotations

import pytest

from tests.core.benches import HeadBench, done, identity, object_of, spec, template, value
from zray import limits
from zray.protocol import messages as m

WORK = template()


def test_a_driver_that_does_not_read_gets_no_more_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNREAD_BYTES", 2500)
    head = HeadBench()
    head.node("n", cpus=8)
    driver = head.driver("d", WORK)
    names = [f"t{number}" for number in range(5)]
    head.submit("d", *(spec(name, WORK) for name in names))
    for number, name in enumerate(names):
        task_id = identity(name)
        ended = done(task_id, results=[value(task_id, bytes(1000))])
        head.say("n", m.Done(number + 1, [ended]))
    told = head.taken("d", m.Result)
    sizes = [len(outcome.value) for message in told for outcome in message.outcomes]
    assert sizes == [1000, 1000, 0, 0, 0]
    assert told[4].outcomes[0].kind & m.LOCATED
    late = object_of(identity("t4"))
    head.say("d", m.ResultAck(0, driver, told[-1].seq), m.Pull(0, 1, late))
    (chunk,) = head.taken("d", m.Chunk)
    assert chunk.data == bytes(1000)
    assert head.gcs.results.unread_bytes == 0
    head.submit("d", spec("after", WORK))
    task_id = identity("after")
    head.say("n", m.Done(6, [done(task_id, results=[value(task_id, bytes(1000))])]))
    (message,) = head.taken("d", m.Result)
    assert len(message.outcomes[0].value) == 1000
    head.say("d", m.Goodbye(0, "done"))
    assert head.gcs.results.unread_bytes == 0
