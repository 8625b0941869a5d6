"""Prints for who does not read: bounded, and the lines that were dropped are told of."""

from __future__ import annotations

from tests.core.benches import HeadBench, RayletBench, identity, spec, template
from zray import limits
from zray.core.prints import Prints
from zray.protocol import messages as m

WORK = template()
LINE = "x" * (1 << 20)


def log(lines: list[str]) -> m.Log:
    return m.Log(0, identity("d1"), "talk", 1, "n1", False, lines)


def test_a_process_that_says_nothing_gets_lines_up_to_a_bound_and_then_their_number() -> None:
    prints = Prints()
    taken = sum(len(prints.take(b"a", [LINE])) for _ in range(50))
    assert taken == limits.LOG_UNREAD_BYTES >> 20
    assert prints.take(b"b", ["other"]) == ["other"]
    prints.heard(b"a")
    note, line = prints.take(b"a", ["next"])
    assert note == f"({50 - taken} lines before this were dropped: nobody read them)"
    assert line == "next" and prints.take(b"a", ["more"]) == ["more"]


def test_all_together_have_a_bound_and_who_is_gone_counts_no_more() -> None:
    prints = Prints()
    for number in range(20):
        for _ in range(20):
            prints.take(b"%d" % number, [LINE])
    assert prints.unread_bytes <= limits.LOG_UNREAD_ALL_BYTES + 2 * len(LINE)
    for number in range(20):
        prints.gone(b"%d" % number)
    assert prints.unread_bytes == 0 and prints.take(b"1", ["new"]) == ["new"]


def test_the_head_holds_prints_back_until_the_driver_says_something() -> None:
    head = HeadBench()
    head.node("n1", 1)
    head.driver("d1", WORK)
    job = head.gcs.members.jobs[identity("d1")]
    assert job.info.wants_logs
    for _ in range(40):
        head.say("n1", log([LINE]))
    assert len(head.taken("d1", m.Log)) == limits.LOG_UNREAD_BYTES >> 20
    head.say("d1", m.Ping(0, 1.0))
    head.say("n1", log(["last"]))
    (message,) = head.taken("d1", m.Log)
    assert message.lines[0].startswith("(24 lines before") and message.lines[1:] == ["last"]


def test_a_node_holds_prints_back_and_asks_the_head_for_a_word() -> None:
    raylet = RayletBench()
    raylet.head(WORK)
    raylet.give(spec("t", WORK))
    (worker,) = raylet.workers()
    raylet.to_head.clear()
    for _ in range(30):
        raylet.raylet.output.log(worker, False, [LINE])
        raylet.turn()
    sent = raylet.told(m.Message)
    assert sum(isinstance(message, m.Log) for message in sent) == limits.LOG_UNREAD_BYTES >> 20
    assert sum(isinstance(message, m.Ping) for message in sent) == 1
    raylet.head(m.Pong(0, 1.0, "OK"))
    raylet.raylet.output.log(worker, False, ["last"])
    raylet.turn()
    (message,) = raylet.told(m.Log)
    assert message.lines[0].startswith("(14 lines before") and message.lines[1:] == ["last"]


def test_a_node_that_is_asked_for_an_echo_has_told_what_was_printed_before() -> None:
    raylet = RayletBench()
    raylet.head(WORK)
    raylet.give(spec("t", WORK))
    (worker,) = raylet.workers()
    raylet.to_head.clear()
    raylet.raylet.output.log(worker, False, ["printed"])
    raylet.head(m.Trace(7, identity("d1"), raylet.raylet.node_id, True))
    log, echo = raylet.told(m.Message)[-2:]
    assert isinstance(log, m.Log) and log.lines == ["printed"]
    assert isinstance(echo, m.Traced) and (echo.target, echo.about) == (identity("d1"), 7)
    assert not echo.workers
