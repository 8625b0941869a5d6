"""Tasks that wait for tasks, thousands of them: few processes, no deadlock, a reason."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

import zray
from tests.api.conftest import eventually

pytestmark = pytest.mark.usefixtures("disconnected")


@zray.task
def leaf(number: int) -> int:
    return number + 1


@zray.task
def middle(number: int) -> int:
    return int(zray.get(leaf.remote(number))) + 1


@zray.task
def top(number: int) -> int:
    return int(zray.get(middle.remote(number))) + 1


@zray.task
def tree(first: int, end: int) -> int:
    """How many tasks it took to come to each number by itself."""
    if end - first == 1:
        return 1
    half = (first + end) // 2
    return 1 + sum(zray.get([tree.remote(first, half), tree.remote(half, end)]))


def workers() -> int:
    """Processes of workers that this program's cluster has."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        try:
            above = process.parent()
            found += above is not None and above.name() == "zray-zygote"
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def most_workers() -> Iterator[list[int]]:
    """The most workers at a time, seen every few milliseconds."""
    most = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.03):
            most[0] = max(most[0], workers())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


@pytest.mark.slow_limit(120)
def test_a_thousand_chains_on_one_cpu_take_few_workers() -> None:
    zray.init(num_cpus=1)
    with most_workers() as most:
        found = zray.get([top.remote(number) for number in range(1000)], timeout=100)
    assert found == [number + 3 for number in range(1000)]
    assert 3 <= most[0] <= 20


@pytest.mark.slow_limit(120)
def test_a_tree_of_thousands_on_two_cpus_takes_few_workers() -> None:
    zray.init(num_cpus=2)
    with most_workers() as most:
        assert zray.get(tree.remote(0, 1500), timeout=100) == 2999
    assert 3 <= most[0] <= 40


def test_tasks_without_a_cpu_wait_at_the_bound_and_say_so() -> None:
    zray.init(num_cpus=1, max_workers=4)

    @zray.task(num_cpus=0)
    def waits(seconds: float) -> int:
        time.sleep(seconds)
        return 1

    refs = [waits.remote(30.0) for _ in range(40)]
    eventually(lambda: workers() >= 4)
    with pytest.raises(zray.exceptions.GetTimeoutError, match=r"WAIT_WORKERS.*--max-workers"):
        zray.get(refs[-1], timeout=1.0)
    assert workers() <= 6
    assert zray.get(leaf.remote(1), timeout=10) == 2  # a CPU is free for whoever takes one
    for ref in refs:
        zray.cancel(ref, force=True)


def test_what_the_blocked_wait_for_may_come_last() -> None:
    """Far more wait than there may be workers, for tasks that are submitted after them."""
    zray.init(num_cpus=1, max_workers=2)

    @zray.task
    def passes_on(refs: list[zray.ObjectRef[int]]) -> int:
        return int(zray.get(refs)[0]) + 1

    @zray.actor(num_cpus=0)
    class Desk:
        def __init__(self) -> None:
            self.value = 0

        def put(self, value: int) -> None:
            self.value = value

        def get(self) -> int:
            return self.value

    desk = Desk.remote()

    @zray.task
    def asks() -> int:
        while not (value := int(zray.get(desk.get.remote()))):
            time.sleep(0.01)
        return value

    @zray.task
    def tells() -> None:
        zray.get(desk.put.remote(7))

    asking = [asks.options(num_cpus=0).remote() for _ in range(2)]
    waiting = [passes_on.remote([asking[number % 2]]) for number in range(6)]
    told = tells.remote()
    assert zray.get([*waiting, told], timeout=60) == [8] * 6 + [None]


def in_a_thread(ref: zray.ObjectRef[int]) -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(zray.get(ref)))
    thread.start()
    thread.join()
    return found[0]


def wait_in_a_thread(ref: zray.ObjectRef[int]) -> int:
    thread = threading.Thread(target=lambda: zray.wait([ref]))
    thread.start()
    thread.join()
    return int(zray.get(ref))


def by_a_future(ref: zray.ObjectRef[int]) -> int:
    return int(ref.future().result())


def in_a_loop(ref: zray.ObjectRef[int]) -> int:
    async def main() -> int:
        return int(await ref)

    return asyncio.run(main())


@pytest.mark.parametrize("way", [in_a_thread, wait_in_a_thread, by_a_future, in_a_loop])
def test_a_task_that_waits_by_any_means_lets_others_have_its_cpu(
    way: Callable[[zray.ObjectRef[int]], int],
) -> None:
    zray.init(num_cpus=1)

    @zray.task
    def parent(number: int) -> int:
        return way(leaf.remote(number)) + way(middle.remote(number))

    numbers = range(10)
    found = zray.get([parent.remote(number) for number in numbers], timeout=30)
    assert found == [2 * number + 3 for number in numbers]
    total = zray.cluster_resources()["CPU"]
    eventually(lambda: zray.available_resources().get("CPU") == total)  # nothing stays lent


def test_a_task_that_computes_keeps_its_cpu_whatever_its_futures_wait_for() -> None:
    zray.init(num_cpus=1)

    @zray.task
    def when() -> float:
        return time.time()

    @zray.task
    def busy() -> tuple[float, float]:
        future = when.remote().future()
        end = time.time() + 1.0
        while time.time() < end:
            sum(range(1000))
        return end, future.result()

    end, began = zray.get(busy.remote(), timeout=30)
    assert began >= end


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (2**70, ValueError), ("2", TypeError)]
)
def test_a_bad_bound_on_workers(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_workers must be"):
        zray.init(max_workers=value)  # type: ignore[arg-type]


def test_tasks_that_wait_for_an_actor_of_their_submitter_do_not_keep_it_from_starting() -> None:
    @zray.remote
    class Log:
        def add(self, number: int) -> int:
            return number

    @zray.remote
    def adds(log: Any, number: int) -> int:
        return int(zray.get(log.add.remote(number)))

    @zray.remote
    def group(count: int) -> int:
        log = Log.remote()
        return sum(zray.get([adds.remote(log, number) for number in range(count)]))

    for _ in range(3):
        assert zray.get([group.remote(80) for _ in range(4)], timeout=10) == [sum(range(80))] * 4
