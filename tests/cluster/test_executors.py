"""Executors and pools while heads and nodes go down."""

from __future__ import annotations

import concurrent.futures
import os
import time
from itertools import accumulate
from typing import Any

import pytest

import zray
from zray.util.multiprocessing import Pool


def nap(x: int) -> int:
    time.sleep(0.02)
    return x * x


def test_maps_and_calls_outlive_the_head(connected: Any) -> None:
    with zray.Executor() as executor, Pool(2) as pool:
        values = executor.map(nap, range(200))
        calls = [executor.submit(nap, x) for x in range(50)]
        mapped = pool.map_async(nap, range(100), chunksize=2)
        assert next(values) == 0

        connected.head.kill()
        connected.start_head(port=-1)

        assert [*values] == [x * x for x in range(1, 200)]
        assert [call.result(timeout=40) for call in calls] == [x * x for x in range(50)]
        assert mapped.get(timeout=40) == [x * x for x in range(100)]
        assert executor.submit(nap, 3).result(timeout=40) == 9


def test_with_retries_an_executor_outlives_a_node(connected: Any, records: Any) -> None:
    executor = zray.Executor(max_retries=3)
    write = records.write

    def noted(x: int) -> int:
        write(x)
        return nap(x)

    values = executor.map(noted, range(150), chunksize=1)
    records.until(10)

    connected.programs[-1].kill()

    assert [*values] == [x * x for x in range(150)]
    executor.shutdown()


def test_a_node_that_dies_breaks_an_executor_without_retries(connected: Any, records: Any) -> None:
    executor = zray.Executor()
    write = records.write

    def stay() -> None:
        write(os.getpid())
        time.sleep(60)

    calls = [executor.submit(stay) for _ in range(2)]
    records.until(2)

    connected.programs[-1].kill()

    for call in calls:
        with pytest.raises(concurrent.futures.BrokenExecutor):
            call.result(timeout=40)


def test_an_executor_uses_nodes_that_join_later(
    connected: Any, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zray.util.parallel.crews.LOOK_S", 0.0)
    path, write = records.path, records.write

    def stay(count: int) -> int:
        """Return once so many run at a time."""
        write("here")
        deadline = time.monotonic() + 30
        while len(path.read_text().split()) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(path.read_text().split())

    with zray.Executor() as executor:
        assert executor.submit(nap, 2).result(timeout=20) == 4
        connected.start_node("more", 6)
        calls = [executor.submit(stay, 8) for _ in range(8)]
        assert min(call.result(timeout=40) for call in calls) == 8


def test_max_workers_is_kept_when_the_cluster_grows(
    connected: Any, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zray.util.parallel.crews.LOOK_S", 0.0)
    write = records.write

    def stay() -> None:
        write(1)
        time.sleep(0.3)
        write(-1)

    with zray.Executor(max_workers=2) as executor:
        assert executor.submit(nap, 2).result(timeout=20) == 4
        connected.start_node("more", 6)
        for call in [executor.submit(stay) for _ in range(8)]:
            call.result(timeout=40)
    running = [*accumulate(map(int, records.lines()))]
    assert max(running) == 2 and running[-1] == 0
