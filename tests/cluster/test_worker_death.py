"""A worker that is killed costs an attempt of the task it ran, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import WorkerCrashedError
from zray.limits import PING_S


def test_a_killed_worker_is_noticed_at_once_and_its_task_runs_again(
    connected: Any, records: Any
) -> None:
    write = records.write

    @zray.task
    def work(place: int) -> int:
        write(f"{place}:{os.getpid()}")
        time.sleep(0.5)
        return 10 * place

    refs = [work.remote(place) for place in (1, 2, 3)]
    pid = int(records.until(2)[0].partition(":")[2])
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    records.until(3, 1.5)  # noticed, and a task started in a new worker
    assert time.monotonic() - killed < 1.5
    assert zray.get(refs, timeout=20) == [10, 20, 30]
    assert len(records.lines()) == 4
    connected.until(
        lambda: dict(connected.status().counters)["retried"] == 1, 2 * PING_S, "it is counted"
    )


def test_without_retries_the_error_says_how_the_worker_died(connected: Any) -> None:
    @zray.task(max_retries=0)
    def die() -> None:
        import sys

        print("these are its last words", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError) as caught:
        zray.get(die.remote(), timeout=10)
    text = str(caught.value)
    assert "SIGKILL" in text and "die" in text
    assert "node one" in text or "node two" in text
    assert "these are its last words" in text


def test_a_poison_task_ends_with_its_retries_and_the_others_go_on(
    connected: Any, records: Any
) -> None:
    write = records.write

    @zray.task(max_retries=2)
    def poison() -> None:
        write("poison")
        os._exit(7)

    @zray.task
    def work(place: int) -> int:
        time.sleep(0.02)
        return place

    bad = poison.remote()
    good = [work.remote(place) for place in range(40)]
    assert zray.get(good, timeout=20) == list(range(40))
    with pytest.raises(WorkerCrashedError, match="7"):
        zray.get(bad, timeout=10)
    assert records.lines() == ["poison"] * 3
    connected.until(connected.at_rest, 5, "all resources are free again")


def test_a_killed_zygote_is_replaced(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task
    def work(place: int) -> int:
        write(os.getpid())
        time.sleep(0.3)
        return place

    refs = [work.remote(place) for place in range(6)]
    records.until(2)
    zygotes = [zygote for node in connected.programs[1:3] for zygote in node.children()]
    workers = [worker for zygote in zygotes for worker in zygote.children()]
    assert len(zygotes) == 2 and len(workers) >= 2
    for zygote in zygotes:
        zygote.kill()
    _, alive = psutil.wait_procs(workers, 3)
    assert not alive
    assert zray.get(refs, timeout=20) == list(range(6))
    connected.until(connected.at_rest, 5, "all resources are free again")


def test_a_zygote_killed_again_and_again_is_replaced_by_one_that_is_heard(connected: Any) -> None:
    """The next one's socket may have the number of the last one's."""

    @zray.task(max_retries=0)
    def ends() -> None:
        os._exit(1)

    one, two = connected.programs[1:3]
    for _ in range(5):
        for node in (one, two):
            [zygote] = node.children()
            zygote.kill()
            connected.until(
                lambda old=zygote, node=node: node.children() not in ([], [old]), 10, "another"
            )
        for _ in range(2):
            with pytest.raises(WorkerCrashedError):
                zray.get(ends.remote(), timeout=10)


def test_a_node_on_which_no_worker_can_begin_anything_is_told_of_by_its_tasks(bare: Any) -> None:
    """The program does not wait for ever, and goes on once workers can start."""
    bare.start_head()
    node = bare.start_node("one", 1)
    bare.connect()
    (zygote,) = psutil.Process(node.pid).children()
    before = zygote.rlimit(psutil.RLIMIT_NOFILE)
    zygote.rlimit(psutil.RLIMIT_NOFILE, (5, before[1]))

    @zray.task(max_retries=0)
    def work() -> int:
        return 7

    with pytest.raises(WorkerCrashedError, match="before they began anything"):
        zray.get(work.remote(), timeout=60)
    zygote.rlimit(psutil.RLIMIT_NOFILE, before)
    assert zray.get(work.remote(), timeout=60) == 7
