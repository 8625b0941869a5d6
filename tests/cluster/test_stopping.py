"""Daemons that are told to stop, and a head to which nodes come late."""

from __future__ import annotations

import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import GetTimeoutError

STOP_S = 10.0


def test_sigterm_ends_a_busy_head_cleanly_and_its_nodes_wait_for_the_next(
    connected: Any, records: Any, gate: Any
) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def work(place: int) -> int:
        write(place)
        wait()
        return place

    refs = [work.remote(place) for place in range(4)]
    records.until(2)
    below = connected.head.below()
    began = time.monotonic()
    assert connected.head.stop(STOP_S) == 0
    assert time.monotonic() - began < STOP_S
    assert not [process for process in below if process.is_running()]
    connection = connected.home / "clusters" / "default" / "connection.json"
    assert not connection.exists()

    connected.start_head(port=-1)
    gate.open()
    assert zray.get(refs, timeout=20) == list(range(4))
    assert sorted(map(int, records.lines())) == list(range(4))


def test_sigterm_of_a_node_moves_its_tasks_at_once(connected: Any, records: Any, gate: Any) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def work(place: int) -> int:
        write(place)
        wait()
        return place

    refs = [work.remote(place) for place in range(2)]
    records.until(2)
    one = connected.programs[1]
    below = one.below()
    assert one.stop(STOP_S) == 0
    stopped = time.monotonic()
    connected.until(lambda: connected.node("one") is None, 1, "the head knows that it left")
    gate.open()
    assert zray.get(refs, timeout=5) == [0, 1]
    assert time.monotonic() - stopped < 3
    assert not [process for process in below if process.is_running()]


def test_tasks_wait_for_the_first_node_and_say_so(bare: Any) -> None:
    bare.start_head()
    bare.connect()

    @zray.task
    def double(number: int) -> int:
        return 2 * number

    refs = [double.remote(place) for place in range(10)]
    with pytest.raises(GetTimeoutError, match="NO_NODES"):
        zray.get(refs, timeout=0.3)
    reasons = [waiting.reason for waiting in bare.status().classes]
    assert len(reasons) == 1 and reasons[0].startswith("NO_NODES") and "zray-worker" in reasons[0]
    bare.start_node("late")
    assert zray.get(refs, timeout=20) == [2 * place for place in range(10)]


def test_a_task_that_fits_nowhere_says_what_is_missing(
    connected: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    @zray.task(resources={"laser": 1})
    def aim() -> str:
        return "there"

    ref = aim.remote()
    with pytest.raises(GetTimeoutError, match=r"INFEASIBLE.*laser"):
        zray.get(ref, timeout=0.3)
    told = ""

    def warned() -> bool:
        nonlocal told
        told += capfd.readouterr().err
        return "laser" in told

    connected.until(warned, 8, "a warning")
    assert "ZR-3007" in told
    connected.start_node("three", 1, "--resources", "laser=1")
    assert zray.get(ref, timeout=20) == "there"


def test_stop_ends_everything_of_the_cluster(connected: Any, gate: Any) -> None:
    wait = gate.wait

    @zray.task
    def work() -> None:
        wait()

    ref = work.remote()
    connected.until(lambda: len(_workers(connected)) > 0, 20, "a worker runs")
    below = [process for program in connected.programs for process in program.below()]
    stop = connected.start("stop", "zray", "stop")
    assert stop.wait(20) == 0, stop.text()
    for program in connected.programs:
        assert program.wait(STOP_S) == 0, program.name
    _, alive = psutil.wait_procs(below, 5)
    assert not alive
    with pytest.raises(zray.errors.ClusterShutdownError):
        zray.get(ref, timeout=5)


def _workers(cluster: Any) -> list[psutil.Process]:
    zygotes = [zygote for node in cluster.programs[1:3] for zygote in node.children()]
    return [worker for zygote in zygotes for worker in zygote.children()]
