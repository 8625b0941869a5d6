"""What the head is told of the room on a node, without the raylet."""

from __future__ import annotations

from tests.core.benches import UNIT, identity
from tests.core.raylet.task_bench import TaskBench
from zray import limits
from zray.core.raylet.head_session import HEAD
from zray.protocol import messages as m


def test_credit_is_told_in_a_session_and_when_it_has_moved_enough() -> None:
    bench = TaskBench()
    for _ in range(2):
        bench.credit.report(0.0)
    assert [credit.granted for credit in bench.told(m.Credit)] == [limits.RAYLET_UNSTARTED_TASKS]
    bench.give("a", "b")
    bench.credit.report(0.0)
    assert bench.told(m.Credit) == [], "what was received and what waits cancel out"
    bench.scheduler.released = {"CPU": UNIT}
    bench.credit.report(0.0)
    assert [credit.released for credit in bench.told(m.Credit)] == [[("CPU", UNIT)]]
    bench.session.disconnected()
    bench.credit.new_session()
    bench.credit.report(0.0)
    assert not bench.outbox


def test_what_cannot_start_past_the_bound_is_given_back() -> None:
    bench = TaskBench(max_workers=1)
    bench.give("waits", depth=1)
    bench.start()
    bench.scheduler.block(bench.slot)
    bench.give("beside", depth=1)
    bench.give("below", depth=2)
    bench.credit.report(0.0)
    messages = bench.outbox.take()[HEAD]
    assert [c.floors for c in messages if isinstance(c, m.Credit)] == [
        [m.JobFloors(identity("job"), 1, 1)]
    ]
    returned = [message.task_ids for message in messages if isinstance(message, m.Returned)]
    assert returned == [identity("beside")]
    assert identity("below") in bench.tasks.held and identity("beside") not in bench.tasks.held
