"""A node says what its store and its workers hold: these are asked, and waited for a while."""

from __future__ import annotations

from typing import Any

from tests.core.benches import RayletBench, identity, object_of, spec, template
from zray import limits
from zray.protocol import messages as m

WORK = template()
ME, NODE = identity("observer"), identity("n1")


def bench_with(workers: int) -> tuple[RayletBench, list[bytes]]:
    bench = RayletBench(cpus=workers)
    bench.head(WORK)
    bench.give(*(spec(f"t{number}", WORK) for number in range(workers)))
    found = bench.workers()
    for place, worker in enumerate(found):
        bench.raylet.workers.started(worker, 4711 + place, int)
    bench.to_workers.clear()
    bench.told(m.Message)
    return bench, found


def holds(worker: bytes, number: int) -> m.Held:
    row = m.HeldObject(object_of(identity(f"o{number}")), 10 + number, "READY", local=1)
    return m.Held(0, ME, 7, [m.HeldBy(worker, [row])])


def answers(bench: RayletBench) -> list[Any]:
    return bench.told(m.Held)


def test_all_workers_are_asked_and_the_answer_has_who_they_are() -> None:
    bench, (first, second) = bench_with(2)
    bench.head(m.AskHeld(7, ME, NODE, 500))
    for worker in (first, second):
        (asked,) = [one for one in bench.to_workers[worker] if isinstance(one, m.AskHeld)]
        assert (asked.source, asked.seq, asked.target, asked.most) == (ME, 7, worker, 500)
    bench.worker(first, holds(first, 1))
    assert not answers(bench)
    bench.worker(second, holds(identity("somebody else"), 2))
    (answer,) = answers(bench)
    assert (answer.target, answer.about, answer.silent) == (ME, 7, [])
    told = {one.process_id: (one.pid, one.title) for one in answer.holders}
    assert told == {first: (4711, "work"), second: (4712, "work")}


def test_who_is_silent_is_named_and_not_waited_for_long() -> None:
    bench, (first, second) = bench_with(2)
    bench.head(m.AskHeld(7, ME, NODE))
    bench.worker(first, holds(first, 1))
    assert bench.raylet.deadline() <= bench.now + limits.HELD_WAIT_S
    bench.now += limits.HELD_WAIT_S
    bench.turn()
    (answer,) = answers(bench)
    assert answer.silent == [4712] and [one.pid for one in answer.holders] == [4711]
    bench.worker(second, holds(second, 2))  # too late
    assert not answers(bench)


def test_one_that_has_ended_is_not_waited_for() -> None:
    bench, (first, second) = bench_with(2)
    bench.head(m.AskHeld(7, ME, NODE))
    bench.worker(first, holds(first, 1))
    bench.raylet.worker_exited(second, 1, "signal 9", bench.now)
    bench.turn()
    (answer,) = answers(bench)
    assert answer.silent == []


def test_many_workers_tell_less_each() -> None:
    bench, workers = bench_with(100)
    bench.head(m.AskHeld(7, ME, NODE))
    asked = [one for sent in bench.to_workers.values() for one in sent if type(one) is m.AskHeld]
    assert len(asked) == len(workers)
    assert sum(one.most for one in asked) <= limits.HELD_NODE_ROWS_MAX


def test_a_worker_that_tells_more_than_it_was_asked_for_is_cut_short() -> None:
    bench, (first,) = bench_with(1)
    bench.head(m.AskHeld(7, ME, NODE, 3))
    rows = [m.HeldObject(object_of(identity(f"o{n}")), 1, "READY") for n in range(100)]
    both = [m.HeldBy(first, rows), m.HeldBy(identity("somebody else"), rows)]
    bench.worker(first, m.Held(0, ME, 7, both))
    (answer,) = answers(bench)
    assert [(one.process_id, len(one.objects)) for one in answer.holders] == [(first, 3)]


def test_a_node_without_workers_answers_at_once() -> None:
    bench = RayletBench()
    bench.head(m.AskHeld(7, ME, NODE))
    (answer,) = answers(bench)
    assert answer.holders == [] and answer.stored == []
