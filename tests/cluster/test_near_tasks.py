"""Tasks that tasks submit, and that start on their node without the head."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import zray
from zray.errors import GetTimeoutError, TaskCancelledError, TaskError, WorkerCrashedError


def calls(number: int) -> int:
    return 1 if number < 2 else 1 + calls(number - 1) + calls(number - 2)


@zray.task
def recursion(number: int) -> int:
    if number < 2:
        return 1
    return 1 + sum(zray.get([recursion.remote(number - less) for less in (1, 2)]))


def test_results_of_any_size_and_number_outlive_whoever_submitted_them(connected: Any) -> None:
    @zray.task
    def large(number: int) -> bytes:
        return bytes([number]) * 1_000_000

    @zray.task(num_returns=40)
    def many(size: int) -> list[bytes]:
        return [b"x" * size] * 40

    @zray.task
    def makes() -> list[Any]:
        inner = [large.remote(number) for number in range(5)]
        zray.get(inner[:2])
        return [inner, many.remote(60_000), zray.get(many.remote(60_000))]

    larges, manies, values = zray.get(makes.remote(), timeout=30)
    assert [len(value) for value in values] == [60_000] * 40
    connected.until(connected.at_rest, 20, "all resources are free")
    assert [value[0] for value in zray.get(larges, timeout=20)] == [*range(5)]
    assert [len(value) for value in zray.get(manies, timeout=20)] == [60_000] * 40
    del larges, manies, values
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


def test_results_are_passed_on_and_references_are(connected: Any) -> None:
    @zray.task
    def one(number: int) -> int:
        return number

    @zray.task
    def add(*numbers: int) -> int:
        return sum(numbers)

    @zray.task
    def opens(refs: list[Any]) -> int:
        return sum(zray.get(refs))

    @zray.task
    def passes(put: Any) -> int:
        parts = [one.remote(number) for number in range(10)]
        total = add.remote(*parts)
        both = [add.remote(total, total), opens.remote([total, put[0]])]
        raised = add.remote(one.remote(1), "a")
        with pytest.raises(TaskError):
            zray.get(raised)
        return sum(zray.get(both))

    assert zray.get(passes.remote([zray.put(1000)]), timeout=20) == 90 + 1045


def test_what_ends_its_worker_is_retried_and_told_as_it_is(connected: Any, records: Any) -> None:
    @zray.task(max_retries=2)
    def dies(write: Any, count: Any) -> int:
        write("started")
        if len(count()) < 3:
            os._exit(9)
        return 5

    @zray.task(max_retries=0)
    def once() -> None:
        os._exit(7)

    @zray.task
    def parent(write: Any, count: Any) -> tuple[int, str]:
        with pytest.raises(WorkerCrashedError) as caught:
            zray.get(once.remote())
        return zray.get(dies.remote(write, count)), str(caught.value)

    path = str(records.path)

    def count() -> list[str]:
        with open(path) as file:
            return file.read().split()

    value, text = zray.get(parent.remote(records.write, count), timeout=30)
    assert value == 5 and len(records.lines()) == 3
    assert "that ran once died: exit code 7" in text


def test_an_exception_is_retried_with_its_attempts_counted(connected: Any) -> None:
    @zray.task(max_retries=2, retry_exceptions=True)
    def flaky() -> int:
        attempt = zray.get_runtime_context().get_attempt()
        if attempt < 3:
            raise ValueError(attempt)
        return attempt

    @zray.task
    def parent() -> int:
        return zray.get(flaky.remote())

    assert zray.get(parent.remote(), timeout=20) == 3


@pytest.mark.parametrize("force", [False, True])
def test_all_below_a_cancelled_task_end(connected: Any, records: Any, force: bool) -> None:
    @zray.task(max_retries=0)
    def leaf(write: Any) -> None:
        write("leaf")
        time.sleep(60)

    @zray.task(max_retries=0)
    def middle(write: Any) -> None:
        zray.get([leaf.remote(write) for _ in range(3)])

    @zray.task(max_retries=0)
    def root(write: Any) -> None:
        zray.get([middle.remote(write) for _ in range(2)])

    ref = root.remote(records.write)
    records.until(1)
    zray.cancel(ref, force=force)
    with pytest.raises((TaskCancelledError, WorkerCrashedError)):
        zray.get(ref, timeout=20)
    connected.until(connected.at_rest, 20, "all resources are free")


def test_a_task_cancels_what_it_has_submitted(connected: Any) -> None:
    @zray.task
    def sleeps() -> None:
        time.sleep(60)

    @zray.task
    def parent() -> int:
        refs = [sleeps.remote() for _ in range(6)]
        time.sleep(0.2)
        for ref in refs:
            zray.cancel(ref)
        ended = 0
        for ref in refs:
            try:
                zray.get(ref)
            except TaskCancelledError:
                ended += 1
        return ended

    assert zray.get(parent.remote(), timeout=30) == 6
    connected.until(connected.at_rest, 10, "all resources are free")


def test_a_timeout_says_what_a_task_waits_for(connected: Any) -> None:
    @zray.task
    def sleeps() -> int:
        time.sleep(1.0)
        return 1

    @zray.task
    def parent() -> tuple[str, int]:
        ref = sleeps.remote()
        try:
            zray.get(ref, timeout=0.2)
        except GetTimeoutError as error:
            return str(error), zray.get(ref)
        return "", 0

    text, value = zray.get(parent.remote(), timeout=20)
    assert value == 1 and "RUNNING: sleeps runs in worker pid" in text


def test_it_goes_on_while_the_head_is_stopped(connected: Any, records: Any) -> None:
    @zray.task
    def steps(write: Any, count: int) -> int:
        @zray.task
        def step(number: int) -> int:
            return number

        for number in range(count):
            assert zray.get(step.remote(number)) == number
            write(number)
        return count

    ref = steps.remote(records.write, 500)
    records.until(5)
    connected.head.signal(signal.SIGSTOP)
    try:
        records.until(len(records.lines()) + 100)
    finally:
        connected.head.signal(signal.SIGCONT)
    assert zray.get(ref, timeout=30) == 500


RECURS = """
    import sys, time, zray

    zray.init()

    @zray.task
    def tree(depth):
        time.sleep(0.002)
        print(f"at {depth}", flush=True)
        return 1 + sum(zray.get([tree.remote(depth - 1) for _ in range(3)])) if depth else 1

    ref = tree.remote(int(sys.argv[1]))
    print("submitted", flush=True)
    print("ended", zray.get(ref), flush=True)
"""


def test_another_job_need_not_wait_until_a_recursion_is_over(bare: Any) -> None:
    """Tasks of one that wait have all workers that the node may have, and more below it start."""
    bare.start_head()
    bare.start_node("one", 2, "--max-workers", "4")
    first = bare.run("first", RECURS, "8")
    first.says("at 0", 20)  # it has come down to its last tasks, and others wait above those
    second = bare.run("second", RECURS, "4")
    second.says("ended", 20)
    assert "ended" not in first.text(), "that was too short to tell"
    first.kill()


def test_what_has_ended_is_counted(connected: Any) -> None:
    before = dict(connected.status().counters)["finished"]
    assert zray.get(recursion.remote(9), timeout=30) == calls(9)

    def counted() -> bool:
        status = connected.status()
        same = dict(status.counters)["finished"] - before == calls(9)
        return same and status.jobs[-1].unfinished == 0

    connected.until(counted, 10, "each task is counted once")
