"""What is made of what nodes and programs have told: slices, queues, arrows, clocks put right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity
from zray.cli.trace_file import Clock, Told, clock_of, events, summary
from zray.protocol import messages as m

SAME = Clock()
N1, N2 = identity("n1"), identity("n2")
W1, W2 = identity("w1"), identity("w2")
ROW1, ROW2 = f"worker:{W1.hex()}", f"worker:{W2.hex()}"
AT = 1000.0  # when it all begins


def traced(*workers: m.WorkerSpans, **more: Any) -> m.Traced:
    return m.Traced(0, N1, identity("me"), 1, [*workers], **more)


def span(name: str, began: float, seconds: float, **more: Any) -> m.Span:
    return m.Span(name, identity(name), AT + began, seconds, **more)


def submitted(name: str, at: float, *uses: str, **more: Any) -> m.Submitted:
    return m.Submitted(identity(name), name, AT + at, 0.001, b"", [*map(identity, uses)], **more)


def driver(*submits: m.Submitted, clock: Clock = SAME) -> Told:
    me = m.WorkerSpans(bytes(16), identity("d"), [], [*submits])
    return Told("head", traced(me), clock, "driver 7")


def node(place: str, worker: bytes, *spans: m.Span, clock: Clock = SAME, **more: Any) -> Told:
    told = m.WorkerSpans(N1, worker, [*spans], more.pop("submits", []))
    return Told(place, traced(told, **more), clock, fetched_at=AT - 50)


def of(made: list[dict[str, Any]], kind: str, phase: str = "X") -> list[dict[str, Any]]:
    return [one for one in made if one.get("cat") == kind and one["ph"] == phase]


def seconds(one: dict[str, Any]) -> float:
    """When it is, from the beginning."""
    return float(one["ts"]) / 1e6 - AT


def test_a_task_has_its_submit_its_queue_its_run_and_an_arrow_to_it() -> None:
    made = events([driver(submitted("t", 1.0)), node("n1", W1, span("t", 1.5, 0.25))])
    (submit,) = of(made, "submit")
    assert (submit["pid"], submit["tid"], submit["name"]) == ("head", "driver 7", "submit t")
    assert seconds(submit) == pytest.approx(1.0)
    (run,) = of(made, "task::t")
    assert (run["pid"], run["tid"], run["dur"]) == ("n1", ROW1, 0.25e6)
    begins, ends = of(made, "queue", "b"), of(made, "queue", "e")
    assert [seconds(one) for one in (*begins, *ends)] == pytest.approx([1.001, 1.5])
    assert begins[0]["id"] == ends[0]["id"] == identity("t").hex()
    (start,), (finish,) = of(made, "submit", "s"), of(made, "submit", "f")
    assert start["id"] == finish["id"] and (start["tid"], finish["tid"]) == ("driver 7", ROW1)
    assert seconds(submit) <= seconds(start) <= seconds(submit) + 0.001
    assert finish["ts"] == run["ts"] and finish["bp"] == "e"
    assert [one["ts"] for one in made if "ts" in one] == sorted(
        one["ts"] for one in made if "ts" in one
    )
    assert summary(made) == {"tasks and calls": 1, "submits": 1, "arrows": 1}


def test_a_result_has_an_arrow_to_the_task_that_uses_it() -> None:
    made = events(
        [
            driver(submitted("make", 0.0), submitted("use", 0.1, "make", "unknown")),
            node("n1", W1, span("make", 0.2, 1.0)),
            node("n2", W2, span("use", 1.5, 0.1)),
        ]
    )
    (start,), (finish,) = of(made, "result", "s"), of(made, "result", "f")
    assert (start["pid"], start["tid"], finish["tid"]) == ("n1", ROW1, ROW2)
    assert 1.1999 < seconds(start) <= 1.2 and seconds(finish) == pytest.approx(1.5)


def test_without_a_record_a_child_has_an_arrow_from_the_task_above_it() -> None:
    child = span("child", 0.5, 0.1, parent=identity("above"))
    made = events([node("n1", W1, span("above", 0.0, 1.0)), node("n2", W2, child)])
    (start,), (finish,) = of(made, "child", "s"), of(made, "child", "f")
    assert (start["tid"], finish["tid"]) == (ROW1, ROW2)
    (run,) = of(made, "task::child")
    assert run["args"]["parent_task_id"] == identity("above").hex()
    alone = events([node("n2", W2, child)])  # the other one is forgotten
    assert not of(alone, "child", "s")


def test_arguments_that_are_loaded_and_those_that_are_fetched_before_it() -> None:
    fetched = [m.Fetched(identity("t"), 51.0, 0.25)]
    told = node("n1", W1, span("t", 1.5, 0.5, loaded_s=0.125), fetched=fetched)
    made = events([driver(submitted("t", 0.5)), told])
    (load,) = of(made, "load")
    assert (seconds(load), load["dur"]) == (pytest.approx(1.5), 0.125e6)
    begins, ends = of(made, "transfer", "b"), of(made, "transfer", "e")
    assert [seconds(one) for one in (*begins, *ends)] == pytest.approx([1.0, 1.25])


def test_clocks_that_differ_are_put_right_and_small_doubts_are_left() -> None:
    ahead, unsure = Clock(3600.0, 0.001), Clock(0.0005, 0.001)
    told = [
        driver(submitted("t", 1.0), clock=unsure),
        node("n1", W1, span("t", 3601.5, 0.25), clock=ahead),
    ]
    made = events(told)
    (run,), (submit,) = of(made, "task::t"), of(made, "submit")
    assert (seconds(submit), seconds(run)) == pytest.approx((1.0, 1.5))
    assert [seconds(one) for one in of(made, "queue", "e")] == pytest.approx([1.5])
    stated = {one["pid"]: one["args"] for one in made if one["name"] == "zray_clock"}
    assert stated == {"n1": {"ahead_s": 3600.0, "sure_s": 0.001}}


def test_a_clock_is_found_from_the_answer_that_is_least_old() -> None:
    fresh, stale = (10.0, 10.2, 15.1), (9.0, 9.1, 13.9)
    clock = clock_of([stale, fresh])
    assert (clock.ahead_s, clock.sure_s) == (pytest.approx(5.0), pytest.approx(0.1))
    same = clock_of([(10.0, 10.2, 10.05)])
    assert same.applied_s() == 0.0
    assert clock_of([]) == Clock()


def test_a_task_that_ran_twice_waited_for_the_first_and_one_that_never_did_has_a_submit() -> None:
    runs = [span("t", 1.0, 0.5), span("t", 3.0, 0.5)]
    made = events([driver(submitted("t", 0.0), submitted("never", 0.1)), node("n1", W1, *runs)])
    assert len(of(made, "task::t")) == 2 and len(of(made, "submit")) == 2
    assert [seconds(one) for one in of(made, "queue", "e")] == pytest.approx([1.0])
    assert events([]) == []
