"""How many failed attempts of a worker are kept: a burst, and then as fast as a node could want."""

from __future__ import annotations

from zray import limits
from zray.core.worker.kept_runs import KeptRuns, remembered
from zray.protocol import messages as m


def test_a_burst_is_kept_and_then_so_many_each_second() -> None:
    kept = KeptRuns()
    most, rate = limits.REPLAY_WORKER_RUNS, limits.REPLAY_WORKER_RUNS_PER_S

    assert sum(kept.admits(1000.0) for _ in range(2 * most)) == most
    assert sum(kept.admits(1001.0) for _ in range(2 * most)) == rate
    assert sum(kept.admits(5000.0) for _ in range(2 * most)) == most


def test_each_is_told_once() -> None:
    kept = KeptRuns()
    run = m.KeptRun(bytes(16), 1, "f", b"", 0.0, "")
    message = m.KeepRun(0, run, bytes(16), b"", b"")
    kept.add(message)
    assert kept.take() == [message] and kept.take() == []


def test_of_a_constructor_s_values_only_small_ones_stay_in_memory() -> None:
    def value(number: int, size: int, kind: int = m.VALUE) -> m.Outcome:
        data = b"" if kind & m.LOCATED else bytes(size)
        return m.Outcome(bytes([number]) * 20, kind, size, data)

    half = limits.REPLAY_CREATION_BYTES // 2
    given = [value(1, half), value(2, half), value(3, half), value(4, 1 << 20, m.LOCATED)]
    found = remembered(given)

    assert [one.object_id for one in found] == [one.object_id for one in given]
    assert [len(one.value) for one in found] == [half, half, 0, 0]
    assert [bool(one.kind & m.LOCATED) for one in found] == [False, False, True, True]
    assert [one.size for one in found] == [half, half, half, 1 << 20]
