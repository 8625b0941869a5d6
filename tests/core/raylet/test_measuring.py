"""Figures of a node's processes: who is asked about, who hears of it, and how often is looked."""

from __future__ import annotations

from typing import Any

from tests.core.benches import RayletBench, identity, spec, template
from zray import limits
from zray.core.raylet.effects import ReadUsage
from zray.protocol import messages as m

WORK = template()
ME, NODE = identity("observer"), identity("n1")
MACHINE = m.MachineUsage(8, 100.0, 1 << 30, 1 << 29, 0.5)
STORE = m.StoreUsage(1 << 20)


def looks(bench: RayletBench) -> list[ReadUsage]:
    found = [one for one in bench.effects if isinstance(one, ReadUsage)]
    bench.effects.clear()
    return found


def found(bench: RayletBench, look: ReadUsage, missing: tuple[int, ...] = ()) -> Any:
    """The shell has looked; the answer."""
    of = {pid: m.Usage(pid, 1.5, 100, 50, 2, "S", 5.0) for pid in look.pids if pid not in missing}
    bench.raylet.inspection.measuring.measured(look.message, MACHINE, STORE, of, bench.now, 5e8)
    bench.turn()
    (answer,) = bench.told(m.Measured)
    return answer


def bench_with(workers: int, busy: int) -> tuple[RayletBench, list[bytes]]:
    bench = RayletBench(cpus=workers)
    bench.head(WORK)
    bench.give(*(spec(f"t{number}", WORK) for number in range(workers)))
    ids = bench.workers()
    for place, worker in enumerate(ids):
        bench.raylet.workers.started(worker, 4711 + place, int)
    for place in range(busy, workers):
        name = bench.running()[ids[place]][0]
        bench.worker(ids[place], m.Done(0, [m.TaskDone(identity(name), 1, 0, [])]))
    bench.told(m.Message)
    bench.effects.clear()
    return bench, ids


def test_each_process_of_the_node_is_looked_at_and_told_with_what_it_is() -> None:
    bench, (first, second) = bench_with(2, busy=1)
    bench.head(m.Measure(7, ME, NODE, 99))
    (look,) = looks(bench)
    assert look.pids == [1, 99, 4711, 4712]
    answer = found(bench, look)
    assert (answer.target, answer.about, answer.at_s) == (ME, 7, bench.now)
    node, head, busy, idle = answer.processes
    assert (node.kind, node.usage.pid) == (m.NODE_PROCESS, 1)
    assert (head.kind, head.usage.pid) == (m.HEAD_PROCESS, 99)
    assert (busy.worker_id, busy.title, busy.busy) == (first, "work", True)
    assert (idle.worker_id, idle.title, idle.busy) == (second, "", False)
    assert busy.job_id == identity("job")


def test_who_asks_at_once_again_gets_the_same_without_another_look() -> None:
    bench, _ = bench_with(1, busy=1)
    bench.head(m.Measure(7, ME, NODE))
    found(bench, *looks(bench))
    bench.head(m.Measure(3, identity("other"), NODE))
    assert not looks(bench)
    (again,) = bench.told(m.Measured)
    assert (again.target, again.about) == (identity("other"), 3)
    bench.now += limits.MEASURED_FRESH_S
    bench.head(m.Measure(4, ME, NODE))
    assert looks(bench)


def test_a_process_that_ends_meanwhile_is_left_out() -> None:
    bench, (_, second) = bench_with(2, busy=2)
    bench.head(m.Measure(7, ME, NODE))
    answer = found(bench, *looks(bench), missing=(4711,))
    assert [one.worker_id for one in answer.processes] == [b"", second]
