"""What waits behind a running task in its worker's queue, by way of the head, on real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually
from zray.core.client.leased_tasks import LeasedTasks
from zray.errors import TaskCancelledError

SOON_S = 1.0  # much less than what it would have to wait for, and enough on a busy machine


@pytest.fixture(autouse=True)
def no_leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every task of this driver goes by way of the head."""
    monkeypatch.setattr(LeasedTasks, "submit", lambda self, spec, num_returns: None)
    yield


@pytest.fixture
def pair(bare: Any) -> Any:
    """A node with two CPUs, and a driver."""
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()
    return bare


def known(work: Any, *arguments: Any) -> None:
    """It is known how long this takes, and there are workers."""
    zray.get([work.remote(*arguments) for _ in range(8)], timeout=20)


def test_a_task_is_there_before_the_one_that_runs_has_ended(pair: Any, records: Any) -> None:
    """While the node is stopped, its workers go on with what is behind.

    But at a moment at which one has just begun that: then a stop some tasks later shows it.
    """
    write = records.write

    @zray.task
    def work(seconds: float) -> None:
        time.sleep(seconds)
        write(os.getpid())

    known(work, 0.015)
    done = len(records.lines())
    refs = [work.remote(0.015) for _ in range(120)]
    pid, found = pair.node("one").info.pid, 0
    while found < 4 and len(records.lines()) < done + 80:
        records.until(len(records.lines()) + 2)
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = len(records.lines())
            with contextlib.suppress(TimeoutError):
                records.until(begun + 4, 1.0)
            found = len(records.lines()) - begun
        finally:
            os.kill(pid, signal.SIGCONT)
    assert found >= 4
    zray.get(refs, timeout=20)
    assert len(records.lines()) == done + 120


def test_eight_of_a_second_take_two_on_four_cpus(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2, wait=False)
    bare.start_node("two", 2, wait=False)
    bare.await_node("one")
    bare.await_node("two")
    bare.connect()

    @zray.task
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    known(nap, 0.01)
    began = time.monotonic()
    zray.get([nap.remote(1.0) for _ in range(8)], timeout=20)
    assert time.monotonic() - began < 2.9


def test_behind_a_call_into_c_that_keeps_the_interpreter_nothing_waits(
    pair: Any, records: Any
) -> None:
    write = records.write

    @zray.task
    def work(hold: bool) -> None:
        import ctypes

        write("hold" if hold else "short")
        if hold:
            ctypes.PyDLL(None).usleep(3_000_000)
        else:
            time.sleep(0.005)

    known(work, False)
    before = len(records.lines())
    began = time.monotonic()
    refs = [work.remote(number == 0) for number in range(12)]
    records.until(before + 12, 2.5)
    assert time.monotonic() - began < 2.5, "none has waited for it"
    zray.get(refs, timeout=20)


def test_what_is_behind_a_stopped_worker_runs_elsewhere(pair: Any, records: Any) -> None:
    write = records.write

    @zray.task(max_retries=0)
    def work(seconds: float) -> int:
        write(os.getpid())
        time.sleep(seconds)
        return os.getpid()

    known(work, 0.01)
    before = len(records.lines())
    refs = [work.remote(0.2) for _ in range(6)]
    pid = int(records.until(before + 2)[before])
    os.kill(pid, signal.SIGSTOP)
    try:
        records.until(before + 6, 5.0)
        ready, waiting = zray.wait(refs, num_returns=5, timeout=5.0)
        assert len(ready) >= 5 and len(waiting) <= 1
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(zray.get(refs, timeout=20)) == 6
    assert len(records.lines()) == before + 6, "each ran once"


def test_a_killed_worker_costs_what_is_behind_no_attempt(pair: Any, records: Any) -> None:
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        write(f"{number}:{os.getpid()}")
        time.sleep(0.02)
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    known(work, 0)
    refs = [work.remote(number) for number in range(20)]
    failed = []
    for number, ref in enumerate(refs):
        try:
            assert zray.get(ref, timeout=20) == number
        except zray.errors.WorkerCrashedError:
            failed.append(number)
    assert failed == [4]


def test_one_that_is_cancelled_behind_another_ends_at_once(pair: Any) -> None:
    @zray.task
    def work(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    known(work, 0.01)
    running = [work.remote(1.5) for _ in range(2)]
    behind = [work.remote(0.01) for _ in range(8)]
    eventually(lambda: sum(one.running + one.queued for one in pair.status().nodes) > 2)
    for ref in behind:
        zray.cancel(ref)
    began = time.monotonic()
    for ref in behind:
        with pytest.raises(TaskCancelledError):
            zray.get(ref, timeout=10)
    assert time.monotonic() - began < SOON_S
    assert zray.get(running, timeout=20) == [1.5, 1.5]


def test_short_ones_do_not_wait_behind_long_ones(pair: Any) -> None:
    @zray.task
    def work(seconds: float) -> tuple[float, float]:
        began = time.monotonic()
        time.sleep(seconds)
        return began, time.monotonic()

    known(work, 0.005)
    began = time.monotonic()
    refs = [work.remote(2.0 if number == 3 else 0.005) for number in range(40)]
    spans = zray.get(refs, timeout=20)
    assert max(start for start, _ in spans) - began < 1.8, "nobody has waited for the long one"


def test_a_node_that_is_killed_under_many_tasks_loses_none(cluster: Any) -> None:
    cluster.connect()

    @zray.task
    def work(number: int) -> int:
        time.sleep(0.001)
        return number

    known(work, 1)
    refs = [work.remote(number) for number in range(3000)]
    zray.get(refs[:300], timeout=60)
    os.kill(cluster.node("two").info.pid, signal.SIGKILL)
    assert zray.get(refs, timeout=100) == [*range(3000)]
