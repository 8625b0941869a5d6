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


# ---- recorded ------------------------------------------------------------------------------


def record(bench: RayletBench, seconds: float, number: int = 7) -> None:
    bench.head(m.Trace(number, ME, NODE, False, seconds))


def test_workers_that_are_there_and_those_to_come_are_told_to_note_what_they_submit() -> None:
    bench, (worker,) = bench_with(1)
    record(bench, 5.0)
    (asked,) = bench.to_workers.pop(worker)
    assert (asked.record_s, asked.target) == (5.0, worker)
    slot = bench.raylet.workers.start((identity("job"), (), 1, ""))
    bench.turn()
    told = [one for one in bench.to_workers[slot.worker_id] if isinstance(one, m.Trace)]
    assert [one.record_s for one in told] == [5.0]
    bench.worker(slot.worker_id, answer(slot.worker_id, "a", about=0))
    bench.now += 5.0
    bench.turn()
    later = bench.raylet.workers.start((identity("job"), (), 1, ""))
    bench.turn()
    assert not [one for one in bench.to_workers[later.worker_id] if isinstance(one, m.Trace)]


def test_how_long_arguments_took_to_come_is_told_once_it_was_noted() -> None:
    bench = RayletBench()
    bench.head(WORK)
    oid = identity("elsewhere") + bytes(4)

    def fetch(name: str) -> None:
        bench.give(spec(name, WORK, dependencies=[oid]))
        (pull,) = [one for one in bench.to_head if isinstance(one, m.Pull)]
        bench.to_head.clear()
        bench.now += 0.2
        bench.head(m.Chunk(0, pull.transfer, m.VALUE, 0, 5, b"value"))
        bench.head(m.Free(0, oid))

    def told() -> list[m.Fetched]:
        bench.told(m.Message)
        bench.head(m.Trace(8, ME, NODE))
        bench.now += limits.TRACE_WAIT_S
        bench.turn()
        (found,) = bench.told(m.Traced)
        return found.fetched  # type: ignore[no-any-return]

    fetch("before")
    assert told() == []
    record(bench, 60.0)
    bench.now += limits.TRACE_WAIT_S
    bench.turn()
    bench.told(m.Message)
    began = bench.now
    fetch("noted")
    (found,) = told()
    assert (found.task_id, found.began_s) == (identity("noted"), began)
    assert found.seconds == pytest.approx(0.2)
    bench.now += 60.0
    bench.turn()
    assert len(told()) == 1  # what was noted is told once more
    assert told() == []
    assert bench.raylet._lending.fetched is None


def test_what_workers_have_submitted_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SPANS_NODE_MAX", 10)
    bench, (first, second) = bench_with(2)
    ask(bench)
    for worker, count in ((first, 15), (second, 5)):
        noted = [m.Submitted(identity(f"s{at}"), "s", float(at), 0.0) for at in range(count)]
        told = m.WorkerSpans(NODE, worker, [], noted)
        bench.worker(worker, m.Traced(0, worker, ME, 7, [told]))
    (found,) = bench.told(m.Traced)
    assert [len(one.submits) for one in found.workers] == [7, 2]
    assert found.workers[0].submits[-1].at_s == 14.0  # the last ones
