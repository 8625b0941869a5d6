"""What processes say to one another by way of the head, which looks only at whom it is for."""

from __future__ import annotations

from tests.core.benches import VERSIONS, HeadBench, identity
from zray.core.head.roles import FORBIDDEN
from zray.protocol import messages as m

DRIVER, NODE, WORKER = identity("d1"), identity("n1"), identity("w1")


def head() -> HeadBench:
    made = HeadBench()
    made.node("n1")
    made.node("n2")
    made.driver("d1")
    made.taken("n1"), made.taken("n2")
    return made


def test_a_node_answers_the_driver_that_asks_what_has_run_there() -> None:
    bench = head()
    bench.say("d1", m.Trace(3, DRIVER, NODE))
    assert bench.taken("n1") == [m.Trace(3, DRIVER, NODE)] and not bench.taken("n2")
    answer = m.Traced(0, NODE, DRIVER, 3, [m.WorkerSpans(NODE, WORKER, [])])
    bench.say("n1", answer)
    assert bench.taken("d1", m.Traced) == [answer]


def test_a_worker_that_asks_is_answered_by_way_of_its_node() -> None:
    bench = head()
    bench.say("n1", m.Trace(3, WORKER, identity("n2")))
    assert bench.taken("n2") == [m.Trace(3, WORKER, identity("n2"))]
    bench.say("n2", m.Traced(0, identity("n2"), WORKER, 3))
    assert bench.taken("n1", m.Traced) == [m.Traced(0, identity("n2"), WORKER, 3)]


def test_nobody_asks_or_answers_in_the_name_of_others() -> None:
    bench = head()
    bench.driver("d2")
    bench.say("d2", m.Trace(3, DRIVER, NODE), m.Traced(0, NODE, DRIVER, 3))
    assert not bench.taken("n1") and not bench.taken("d1")
    assert [one.code for one in bench.taken("d2", m.Rejected)] == [FORBIDDEN] * 2


def test_only_an_observer_has_others_note_what_they_submit() -> None:
    bench = head()
    me = identity("me")
    bench.say("me", m.Hello(0, 1, m.ROLE_OBSERVER, me, 0, b"", VERSIONS))
    bench.say("d1", m.Trace(3, DRIVER, NODE, False, 60.0))
    assert [one.record_s for one in bench.taken("n1", m.Trace)] == [0.0]
    bench.say("n1", m.Trace(3, WORKER, DRIVER, False, 60.0))
    assert [one.record_s for one in bench.taken("d1", m.Trace)] == [0.0]
    bench.taken("me")
    bench.say("me", m.Trace(4, me, NODE, False, 60.0), m.Trace(5, me, DRIVER, False, 60.0))
    told = [*bench.taken("n1", m.Trace), *bench.taken("d1", m.Trace)]
    assert [one.record_s for one in told] == [60.0, 60.0]
    bench.say("d1", m.Traced(0, DRIVER, me, 5, [], 1.0))
    (answer,) = bench.taken("me", m.Traced)
    assert (answer.source, answer.about, answer.clock_s) == (DRIVER, 5, 1.0)
