"""Who dies, is stopped or comes back while workers are leased, and what that costs whom."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest

import zray
from tests.cluster.leasing import leased
from zray.errors import NodeDiedError, TaskCancelledError, WorkerCrashedError

LOAD = """
    import os, sys, time
    import zray

    zray.init()

    @zray.task
    def work(number):
        time.sleep(0.005)
        return os.getpid()

    refs = [work.remote(number) for number in range(40)]
    told = 0.0
    while True:
        ready, refs = zray.wait(refs, num_returns=1)
        pids = zray.get(ready)
        refs += [work.remote(0) for _ in ready]
        if time.monotonic() > told:
            told = time.monotonic() + 0.1
            print("pid", *pids, flush=True)
"""


def test_killed_workers_cost_retries_and_nothing_else(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task
    def work(number: int) -> int:
        time.sleep(0.005)
        if number >= 0:
            write(f"{number}:{os.getpid()}")
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(400)]
    for kill in range(1, 6):
        os.kill(int(records.until(50 * kill)[-1].split(":")[1]), signal.SIGKILL)
    assert zray.get(refs, timeout=30) == list(range(400))
    began = [int(line.split(":")[0]) for line in records.lines()]
    assert len(began) <= 405 and len({*began}) == 400
    connected.until(connected.at_rest, 5, "all is free again")


@pytest.mark.parametrize("milliseconds", [0, 5, 50])
def test_without_retries_exactly_what_had_begun_fails(
    connected: Any, records: Any, milliseconds: int
) -> None:
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        import sys

        if number >= 0:
            write(number)
        time.sleep(milliseconds / 1000)
        if number == 20:
            print("these are its last words", file=sys.stderr)
            os._exit(7)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(100)]
    failed = []
    for number, ref in enumerate(refs):
        try:
            assert zray.get(ref, timeout=20) == number
        except WorkerCrashedError as error:
            failed.append(number)
            text = str(error)
            assert "that ran" in text and "work" in text and "node" in text and "pid" in text
            assert "exit code 7" in text and "these are its last words" in text
    # The ends of very short tasks before it, which had not been told, are lost with their worker.
    assert 20 in failed and max(failed) == 20 and (not milliseconds or failed == [20])
    began = [int(line) for line in records.lines()]
    assert sorted(began) == list(range(100))  # none twice


def test_a_dead_node_fails_what_it_had_and_the_others_go_on(connected: Any) -> None:
    @zray.task
    def work(number: int) -> int:
        time.sleep(0.02)
        return number

    @zray.task(max_retries=0)
    def once(number: int) -> int:
        time.sleep(0.02)
        return number

    leased(work, 0)
    leased(once, 0)
    refs = [work.remote(number) for number in range(150)]
    others = [once.remote(number) for number in range(150)]
    zray.get([refs[20], others[5]], timeout=20)
    connected.programs[1].kill()
    assert zray.get(refs, timeout=60) == list(range(150))
    failed = []
    for number, ref in enumerate(others):
        try:
            assert zray.get(ref, timeout=60) == number
        except (NodeDiedError, WorkerCrashedError) as error:
            failed.append(number)
            assert "node one" in str(error)
    assert len(failed) <= 2


def test_a_head_that_is_killed_does_not_stop_leased_tasks(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task
    def work(number: int) -> int:
        time.sleep(0.02)
        if number >= 0:
            write(number)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(500)]
    records.until(20)
    connected.head.kill()
    before = len(records.lines())
    records.until(before + 60, 5)  # nobody has started another head
    zray.get(refs[before + 10], timeout=5)
    connected.start_head(port=-1)
    more = [work.remote(number) for number in range(500, 600)]
    assert zray.get(refs + more, timeout=60) == list(range(600))
    assert len(records.lines()) == 600  # none twice
    leased(work, -1)
    connected.until(connected.at_rest, 10, "all is free again")


def test_leases_are_gone_with_their_killed_driver(cluster: Any) -> None:
    driver = cluster.run("driver", LOAD)
    pid = int(driver.says("pid").split()[1])
    assert psutil.pid_exists(pid)
    driver.kill()
    cluster.until(lambda: not psutil.pid_exists(pid), 5, "its worker has ended")
    cluster.until(cluster.at_rest, 5, "all is free again")
    workers = [
        worker
        for node in cluster.programs[1:3]
        for zygote in node.children()
        for worker in zygote.children()
    ]
    assert not workers


def test_a_stopped_driver_keeps_no_cpu(cluster: Any) -> None:
    driver = cluster.run("driver", LOAD)
    driver.says("pid")
    driver.signal(signal.SIGSTOP)
    try:
        cluster.connect()

        @zray.task
        def here(number: int) -> int:
            time.sleep(0.01)
            return number

        began = time.monotonic()
        assert zray.get([here.remote(number) for number in range(60)], timeout=10) == [*range(60)]
        assert time.monotonic() - began < 3
    finally:
        driver.signal(signal.SIGCONT)
    said = len(driver.text())
    cluster.until(lambda: driver.text().count("pid", said) > 3, 10, "the driver goes on")


def test_cancelled_tasks_end_wherever_they_are(connected: Any, records: Any, gate: Any) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def work(number: int) -> int:
        if number >= 0:
            write(f"{number}:{os.getpid()}")
            wait()
        return number

    @zray.task
    def stuck(number: int) -> int:
        import ctypes

        write(f"stuck:{os.getpid()}")
        ctypes.PyDLL(None).sleep(30)  # in C, and with the GIL
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(6)]
    running = {int(line.split(":")[0]) for line in records.until(2)}
    first = sorted(range(5), key=lambda number: number in running)
    for number in first:  # else one of those that wait may begin when one that runs has ended
        zray.cancel(refs[number])
    for ref in refs[:-1]:
        with pytest.raises(TaskCancelledError):
            zray.get(ref, timeout=10)
    gate.open()
    assert zray.get(refs[-1], timeout=10) == 5
    began = {int(line.split(":")[0]) for line in records.lines()}
    assert began == running | {5}
    # With force, the worker ends with it.
    leased(work, -1)
    before = len(records.lines())
    ref = stuck.remote(1)
    pid = int(records.until(before + 1)[-1].split(":")[1])
    zray.cancel(ref, force=True)
    with pytest.raises(TaskCancelledError):
        zray.get(ref, timeout=10)
    connected.until(lambda: not psutil.pid_exists(pid), 5, "its worker has ended")
    assert zray.get([work.remote(-1) for _ in range(20)], timeout=10) == [-1] * 20
    connected.until(connected.at_rest, 5, "all is free again")


def test_a_driver_and_its_leases_end_together_in_any_order(cluster: Any) -> None:
    """Many short lives: nothing is left of the leases of any."""
    for kill in (True, False, True):
        drivers = [cluster.run(f"driver{number}", LOAD) for number in range(3)]
        for driver in drivers:
            driver.says("pid")
        for driver in drivers:
            if kill:
                driver.kill()
            else:
                with suppress(ProcessLookupError):
                    driver.signal(signal.SIGINT)
                driver.wait(10)
        cluster.until(cluster.at_rest, 10, "all is free again")
