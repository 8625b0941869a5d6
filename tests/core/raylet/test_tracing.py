"""What has run on a node, for a timeline: asked of workers, and answered in time."""

from __future__ import annotations

import pytest

from tests.core.benches import RayletBench, identity, spec, template
from zray import limits
from zray.protocol import messages as m

WORK = template()
ME, NODE = identity("driver"), identity("n1")


def bench_with(workers: int) -> tuple[RayletBench, list[bytes]]:
    bench = RayletBench(cpus=workers)
    bench.head(WORK)
    bench.give(*(spec(f"t{number}", WORK) for number in range(workers)))
    found = bench.workers()
    for worker in found:
        bench.raylet.workers.started(worker, 4711, int)
    bench.to_workers.clear()
    bench.told(m.Message)
    return bench, found


def spans(worker: bytes, *names: str, since: float = 0.0) -> m.WorkerSpans:
    told = [m.Span(name, identity(name), since + at, 0.5) for at, name in enumerate(names)]
    return m.WorkerSpans(NODE, worker, told)


def answer(worker: bytes, *names: str, about: int = 7) -> m.Traced:
    return m.Traced(0, worker, ME, about, [spans(worker, *names)])


def ask(bench: RayletBench, number: int = 7) -> None:
    bench.head(m.Trace(number, ME, NODE))


def answered(bench: RayletBench) -> list[list[str]]:
    """The names in each answer that the head was given, for the one who asked."""
    told = bench.told(m.Traced)
    assert all((one.source, one.target, one.about) == (NODE, ME, 7) for one in told)
    return [[span.name for one in each.workers for span in one.spans] for each in told]


def test_all_workers_are_asked_and_answer_together() -> None:
    bench, (first, second) = bench_with(2)
    ask(bench)
    for worker in (first, second):
        assert bench.to_workers[worker] == [m.Trace(7, ME, worker)]
    bench.worker(first, answer(first, "a", "b"))
    assert answered(bench) == []
    bench.worker(second, answer(second, "c"))
    assert answered(bench) == [["a", "b", "c"]]


def test_a_worker_that_is_busy_is_not_waited_for_long() -> None:
    bench, (first, second) = bench_with(2)
    ask(bench)
    bench.worker(first, answer(first, "a"))
    assert bench.raylet.deadline() <= bench.now + limits.TRACE_WAIT_S
    bench.now += limits.TRACE_WAIT_S
    bench.turn()
    assert answered(bench) == [["a"]]
    bench.worker(second, answer(second, "late"))
    assert answered(bench) == []


def test_a_worker_that_dies_is_not_waited_for() -> None:
    bench, (first, second) = bench_with(2)
    ask(bench)
    bench.worker(first, answer(first, "a"))
    bench.raylet.worker_exited(second, 1, "signal 9", bench.now)
    bench.turn()
    assert answered(bench) == [["a"]]


def test_a_node_without_workers_answers_at_once() -> None:
    bench = RayletBench()
    ask(bench)
    assert answered(bench) == [[]]


def test_what_workers_remembered_that_have_ended_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPANS_NODE_MAX", 3)
    bench, (worker,) = bench_with(1)
    for names in (("a", "b"), ("c",), ("d",)):
        bench.worker(worker, answer(worker, *names, about=0))
    bench.raylet.worker_exited(worker, 1, "exit code 0", bench.now)
    bench.turn()
    bench.told(m.Message)
    ask(bench)
    (names,) = answered(bench)
    assert names[:2] == ["c", "d"]  # with the new worker's, if there is one by now


def test_a_node_tells_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPANS_NODE_MAX", 3)
    bench, (first, second) = bench_with(2)
    ask(bench)
    early = m.Traced(0, first, ME, 7, [spans(first, "a", "b", "c")])
    late = m.Traced(0, second, ME, 7, [spans(second, "d", "e", since=1.5)])
    bench.worker(first, early)
    bench.worker(second, late)
    assert answered(bench) == [["c", "d", "e"]]
