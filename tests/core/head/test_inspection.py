"""What operators ask a head: what a word stands for, whom a question goes to, what is ended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import VERSIONS, HeadBench, identity, spec, template
from zray import limits
from zray.core.head.roles import FORBIDDEN
from zray.errors import AmbiguousError, BusyError, NotFoundError
from zray.protocol import messages as m

WORK = template()
ME = identity("operator")
N1, N2 = identity("n1"), identity("n2")


def head() -> HeadBench:
    bench = HeadBench()
    bench.node("n1", **{"node:__internal_head__": 1})
    bench.node("n2")
    bench.driver("d1", WORK)
    hello = m.Hello(0, 1, m.ROLE_OBSERVER, ME, 0, b"", VERSIONS)
    bench.say("me", hello)
    for name in ("n1", "n2", "d1", "me"):
        bench.taken(name)
    return bench


def locate(bench: HeadBench, word: str, kind: int = m.SOMETHING) -> Any:
    bench.say("me", m.Locate(3, ME, word, kind))
    (answer,) = bench.taken("me")
    assert (answer.target, answer.about) == (ME, 3)
    return answer


# ---- what is it ----------------------------------------------------------------------------


def test_a_node_is_found_by_its_name_and_by_the_digits_that_its_id_begins_with() -> None:
    bench = head()
    for word in ("n2", N2.hex(), N2.hex()[:8]):
        found = locate(bench, word)
        assert (found.kind, found.subject, found.node_id, found.code) == (m.A_NODE, N2, N2, "")
    assert locate(bench, N2.hex()[:4]).code == NotFoundError.code  # too few to mean it


def test_a_task_is_found_with_the_node_that_has_it() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK), spec("t2", WORK), spec("t3", WORK))
    where = {locate(bench, identity(name).hex()).node_id for name in ("t1", "t2")}
    assert where == {N1, N2}
    waits = locate(bench, identity("t3").hex(), m.A_TASK)
    assert (waits.title, waits.code) == ("work", "")


def test_what_nobody_is_says_so() -> None:
    bench = head()
    for word in ("nobody", "ff" * 16, "4711", "\x1b[31m", "\xfc", "F" * 32):
        answer = locate(bench, word)
        assert answer.code == NotFoundError.code and answer.text


def test_several_of_one_name_are_all_named() -> None:
    bench = head()
    bench.say("x", bench.hello_node("x1"))
    bench.say("y", bench.hello_node("y1"))
    for name in ("x1", "y1"):
        info = bench.gcs.members.nodes[identity(name)].info
        bench.gcs.members.nodes[identity(name)].info = m.NodeInfo(
            "same", info.host, 1, info.resources, [], ""
        )
    answer = locate(bench, "same")
    assert answer.code == AmbiguousError.code
    assert identity("x1").hex() in answer.text and identity("y1").hex() in answer.text


def test_the_head_is_asked_about_at_its_own_node() -> None:
    found = locate(head(), "head")
    assert (found.kind, found.node_id) == (m.THE_HEAD, N1)


# ---- questions to nodes ----------------------------------------------------------------------


def test_a_question_goes_to_the_node_and_its_answer_to_who_has_asked() -> None:
    bench = head()
    bench.say("me", m.ReadLog(9, identity("somebody else"), N2, "node", 4, 5))
    (asked,) = bench.taken("n2", m.ReadLog)
    assert (asked.source, asked.name, asked.offset, asked.head_pid) == (ME, "node", 5, 0)
    bench.say("n2", m.LogPart(0, ME, 9, 1, 0, 3, b"abc"))
    assert bench.taken("me") == [m.LogPart(0, ME, 9, 1, 0, 3, b"abc")]
    bench.say("n2", m.LogPart(0, ME, 9, 1, 0, 3, b"abc"))
    assert not bench.taken("me")  # that question is answered


def test_what_nobody_has_asked_is_passed_on_to_nobody() -> None:
    bench = head()
    bench.say("n2", m.Examined(0, ME, 1, b"?"), m.LogFiles(0, identity("d1"), 1, []))
    assert not bench.taken("me") and not bench.taken("d1")


def test_a_node_that_is_not_there_is_told_at_once() -> None:
    bench = head()
    bench.say("me", m.Examine(4, ME, identity("n9")))
    assert bench.taken("me")[0].code == NotFoundError.code


def test_an_observer_has_so_many_questions_open_and_no_more() -> None:
    bench = head()
    for number in range(1, limits.OPEN_QUESTIONS_MAX + 2):
        bench.say("me", m.ReadLog(number, ME, N2))
    assert len(bench.taken("n2", m.ReadLog)) == limits.OPEN_QUESTIONS_MAX
    assert bench.taken("me")[0].code == BusyError.code
    bench.after(limits.QUESTION_S + limits.EXAMINE_S + 1)
    bench.say("me", m.ReadLog(999, ME, N2))
    assert len(bench.taken("n2", m.ReadLog)) == 1


def test_those_that_have_left_are_forgotten() -> None:
    bench = head()
    for number in range(limits.OPEN_QUESTIONS_MAX + 20):
        who = identity(f"o{number}")
        route = f"r{number}"
        bench.say(route, m.Hello(0, 1, m.ROLE_OBSERVER, who, 0, b"", VERSIONS))
        bench.say(route, m.ReadLog(1, who, N2))
        bench.say(route, m.Goodbye(0, ""))
    assert len(bench.gcs.inspection._open) <= limits.OPEN_QUESTIONS_MAX + 1


@pytest.mark.parametrize(
    "message",
    [
        m.Locate(1, identity("d1"), "n1"),
        m.ReadLog(1, identity("d1"), N2),
        m.Examine(1, identity("d1"), N2),
        m.Kill(1, identity("d1"), m.A_WORKER, identity("w1"), N2),
        m.Drain(1, identity("d1"), N2),
    ],
)
def test_a_program_may_ask_none_of_that(message: m.Message) -> None:
    bench = head()
    bench.say("d1", message)
    assert [one.code for one in bench.taken("d1", m.Rejected)] == [FORBIDDEN]
    assert not bench.taken("n2")


# ---- ends ------------------------------------------------------------------------------------


def kill(bench: HeadBench, kind: int, subject: bytes, target: bytes = b"") -> Any:
    bench.say("me", m.Kill(5, ME, kind, subject, target))
    return bench.taken("me")


def test_a_task_that_a_node_has_is_cancelled_there_with_force() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK))
    node = locate(bench, identity("t1").hex()).node
    bench.taken(node)
    assert kill(bench, m.A_TASK, identity("t1"))[0].title == "work"
    (cancel,) = bench.taken(node, m.CancelTask)
    assert (cancel.task_id, cancel.force) == (identity("t1"), True)


def test_a_task_that_the_head_does_not_know_is_its_drivers() -> None:
    bench = head()
    mine = identity("d1")[:8] + bytes([0, 0, 0, 0, 0, 0, 0, 9])
    (answer,) = kill(bench, m.A_TASK, mine)
    assert not answer.code and "driver" in answer.text
    (cancel,) = bench.taken("d1", m.Cancel)
    assert (cancel.task_id, cancel.target, cancel.force) == (mine, identity("d1"), True)


def test_a_task_of_nobody_is_an_error() -> None:
    assert kill(head(), m.A_TASK, b"\xff" * 16)[0].code == NotFoundError.code
    assert kill(head(), m.AN_ACTOR, b"\xff" * 16)[0].code == NotFoundError.code


def test_a_worker_is_ended_by_its_node() -> None:
    bench = head()
    assert kill(bench, m.A_WORKER, identity("w1"), N2) == []
    (asked,) = bench.taken("n2", m.Kill)
    assert asked.subject == identity("w1")


# ---- what they hold ------------------------------------------------------------------------


def test_drivers_are_asked_themselves_what_they_hold_and_nodes_for_their_workers() -> None:
    bench = head()
    bench.say("me", m.AskHeld(4, identity("a lie"), identity("d1")), m.AskHeld(5, ME, N2))
    (asked,) = bench.taken("d1", m.AskHeld)
    assert (asked.seq, asked.source) == (4, ME)
    (asked,) = bench.taken("n2", m.AskHeld)
    assert (asked.seq, asked.source) == (5, ME)
    bench.say("d1", m.Held(0, ME, 4, []))
    bench.say("n2", m.Held(0, ME, 5, []))
    assert [one.about for one in bench.taken("me", m.Held)] == [4, 5]
    bench.say("d1", m.Held(0, ME, 4, []))  # nobody asks any more
    assert not bench.taken("me")


def test_who_is_not_there_is_not_asked_what_he_holds() -> None:
    bench = head()
    bench.say("me", m.AskHeld(4, ME, identity("nobody")))
    (answer,) = bench.taken("me")
    assert (answer.about, answer.code) == (4, NotFoundError.code)
    bench.say("d1", m.AskHeld(1, ME, N2))
    assert bench.taken("d1")[0].code == FORBIDDEN


# ---- failed attempts -----------------------------------------------------------------------


def kept(node_id: bytes = b"") -> m.KeepRun:
    run = m.KeptRun(identity("t1"), 1, "work", b"", 0.0, "it died")
    return m.KeepRun(0, run, identity("f"), b"code", b"data", node_id)


def test_a_driver_reads_what_a_node_keeps_of_a_failed_attempt_and_an_observer_may_not() -> None:
    bench = head()
    driver = identity("d1")
    question = m.ReadRun(9, b"-" * 16, N2, identity("t1"))

    bench.say("d1", question)
    (asked,) = bench.taken("n2")
    assert isinstance(asked, m.ReadRun) and asked.source == driver
    bench.say("n2", m.RunPart(0, driver, 9, 4, 4, b"code"))
    (answer,) = bench.taken("d1")
    assert isinstance(answer, m.RunPart) and answer.data == b"code"

    for forbidden in (question, m.ListRuns(10, ME, N2), kept()):
        bench.say("me", forbidden)
        (refusal,) = bench.taken("me")
        assert isinstance(refusal, m.Rejected) and refusal.code == FORBIDDEN
    assert not bench.taken("n2")


def test_what_a_driver_knows_of_a_dead_worker_s_task_a_node_keeps() -> None:
    bench = head()
    bench.say("d1", kept(N2))
    assert [type(one) for one in bench.taken("n2")] == [m.KeepRun]

    bench.say("d1", kept(identity("gone")))
    assert [type(one) for one in bench.taken("n1")] == [m.KeepRun]  # the head's own node


# ---- figures ---------------------------------------------------------------------------------


def test_a_node_that_is_silent_is_not_waited_for_when_metrics_are_read() -> None:
    bench = head()
    bench.say("me", m.Scrape(5, ME, N2))
    assert len(bench.taken("n2", m.Scrape)) == 1
    bench.say(
        "n2", m.Scraped(0, ME, 5, "", "", "n2", [m.Figure("zray_workers", 1, ["n2", "IDLE"])])
    )
    (answer,) = bench.taken("me")
    assert answer.figures[0].labels == ["n2", "IDLE"]
    bench.gcs.members.nodes[N2].view.live = False
    bench.say("me", m.Scrape(6, ME, N2))
    (answer,) = bench.taken("me")
    assert (answer.about, answer.code) == (6, NotFoundError.code) and not bench.taken("n2")


def test_what_drivers_record_is_told_with_the_cluster_s_figures_and_nobody_else_s() -> None:
    bench = head()
    told = m.UserMetric("n", m.COUNTER, "", [], [], [m.UserSeries([], 3.0)])
    bench.say("d1", m.Recorded(0, [told]))
    bench.say("n1", m.Recorded(0, [told]))  # a node does not record
    bench.say("me", m.Recorded(0, [told]))
    bench.taken("me")
    bench.say("me", m.Scrape(5, ME))
    (answer,) = bench.taken("me", m.Scraped)
    assert [one.value for one in answer.programs[0].series] == [3.0] and len(answer.programs) == 1
    bench.say("d1", m.Goodbye(0, "over"))
    bench.say("me", m.Scrape(6, ME))
    (answer,) = bench.taken("me", m.Scraped)
    assert answer.programs[0].series[0].value == 3.0
    bench.after(limits.SERIES_KEPT_S + 1)
    bench.say("me", m.Scrape(7, ME))
    assert bench.taken("me", m.Scraped)[0].programs == []
