"""Real threads in the driver: everything is accounted for, whoever leads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import zray
from tests.api.conftest import eventually, objects
from zray.api import cluster as api_cluster
from zray.errors import GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")

STRESS_S = 6.0


@zray.remote
def double(x: int) -> int:
    return 2 * x


@zray.remote
def slow(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x


@zray.remote
def large(n: int) -> bytes:
    return bytes(n)


def in_threads(functions: list[Callable[[], None]]) -> None:
    """Run all at once; the first failure is raised here."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


def test_threads_get_the_same_references() -> None:
    refs = [slow.remote(0.01, i) for i in range(30)]
    in_threads([lambda: None if zray.get(refs) == list(range(30)) else pytest.fail()] * 6)


def test_threads_submit_and_get() -> None:
    def one(base: int) -> Callable[[], None]:
        def work() -> None:
            for i in range(60):
                assert zray.get(double.remote(base + i)) == 2 * (base + i)

        return work

    in_threads([one(1000 * n) for n in range(6)])


def test_a_long_wait_does_not_hold_short_ones_up() -> None:
    """The thread that waits longest leads at first; each of the others must still be woken."""
    stop = threading.Event()
    long = slow.remote(1.5, 0)
    waits = []

    def wait_long() -> None:
        assert zray.get(long) == 0
        stop.set()

    def wait_short() -> None:
        while not stop.is_set():
            began = time.monotonic()
            zray.get(double.remote(1))
            waits.append(time.monotonic() - began)

    in_threads([wait_long, wait_short, wait_short])
    assert len(waits) > 100 and sorted(waits)[len(waits) // 2] < 0.1


def test_the_lead_passes_from_thread_to_thread() -> None:
    """Each thread leaves with its value while the others go on waiting."""
    order: list[int] = []

    def wait(n: int) -> Callable[[], None]:
        ref = slow.options(num_cpus=0).remote(0.05 * n, n)

        def work() -> None:
            order.append(zray.get(ref, timeout=20))

        return work

    in_threads([wait(n) for n in range(8)])
    assert sorted(order) == list(range(8))


def test_time_limits_of_followers_hold() -> None:
    leader = slow.remote(1.0, 1)
    late: list[float] = []

    def lead() -> None:
        zray.get(leader)

    def follow() -> None:
        began = time.monotonic()
        with pytest.raises(GetTimeoutError):
            zray.get(leader, timeout=0.1)
        late.append(time.monotonic() - began)

    in_threads([lead, *[follow] * 4])
    assert max(late) < 0.9


def test_futures_complete_while_nobody_waits() -> None:
    done = threading.Event()
    slow.remote(0.05, 1).future().add_done_callback(lambda _: done.set())
    assert done.wait(5)


def test_submitted_tasks_start_while_nobody_waits(tmp_path: Any) -> None:
    @zray.remote
    def touch(n: int) -> None:
        (tmp_path / str(n)).touch()

    for n in range(300):
        touch.remote(n)
    eventually(lambda: len(list(tmp_path.iterdir())) == 300)


@pytest.mark.parametrize("after", range(0, 40, 3))
def test_none_of_many_waits_for_the_next(tmp_path: Any, after: int) -> None:
    """Most of many are left for whoever has the lock next: there is such a one for the last."""
    (tmp_path / "done").touch()

    @zray.remote
    def append(n: int) -> None:
        with open(tmp_path / "done", "a") as file:
            file.write(f"{n}\n")

    refs = [append.remote(n) for n in range(200 + after)]
    eventually(lambda: len((tmp_path / "done").read_text().splitlines()) == len(refs))


def test_what_many_tasks_need_may_be_dropped_as_soon_as_they_are_submitted() -> None:
    @zray.remote
    def total(ref: list[Any], x: int) -> int:
        return zray.get(ref[0]) + x

    def work() -> None:
        refs = [double.remote(double.remote(n)) for n in range(500)]
        nested = [total.remote([zray.put(n)], n) for n in range(100)]
        for n in range(500):
            double.remote(double.remote(n))
        assert zray.get(refs) == [4 * n for n in range(500)]
        assert zray.get(nested) == [2 * n for n in range(100)]

    before = objects()
    in_threads([work] * 4)
    eventually(lambda: objects() <= before)


def test_shared_functions_are_introduced_once_per_thread_or_more() -> None:
    for _ in range(10):

        @zray.remote
        def fresh(x: int) -> int:
            return x

        def use(function: Any = fresh) -> None:
            assert zray.get([function.remote(i) for i in range(5)]) == list(range(5))
            assert zray.get(function.options(name="other").remote(1)) == 1

        in_threads([use] * 4)


class Actor:
    """One thread of the stress test: does random things and accounts for all of them."""

    def __init__(self, seed: int, deadline: float, shared: list[Any]) -> None:
        self.random = random.Random(seed)
        self.deadline = deadline
        self.shared = shared  # references that other threads get too
        self.counts: Counter[str] = Counter()

    def __call__(self) -> None:
        actions = [
            *(self.get_one, self.get_many, self.wait, self.drop, self.put, self.futures),
            *(self.awaits, self.time_out, self.poll, self.share, self.chain, self.large),
        ]
        while time.monotonic() < self.deadline:
            action = self.random.choice(actions)
            action()
            self.counts[action.__name__] += 1

    def number(self) -> int:
        return self.random.randrange(10**9)

    def get_one(self) -> None:
        n = self.number()
        assert zray.get(double.remote(n)) == 2 * n

    def get_many(self) -> None:
        numbers = [self.number() for _ in range(self.random.randrange(1, 200))]
        refs = [double.remote(n) for n in numbers]
        assert zray.get(refs) == [2 * n for n in numbers]

    def wait(self) -> None:
        expected = {double.remote(n): 2 * n for n in range(self.random.randrange(1, 30))}
        left = list(expected)
        while left:
            some = self.random.randrange(1, len(left) + 1)
            ready, left = zray.wait(left, num_returns=some, timeout=20)
            assert ready
            for ref in ready:
                assert zray.get(ref, timeout=0) == expected.pop(ref)

    def drop(self) -> None:
        for n in range(self.random.randrange(1, 100)):
            double.remote(n)

    def put(self) -> None:
        n = self.random.randrange(20_000)
        inner = zray.put(bytes(n))
        outer = zray.put([inner])
        del inner
        assert len(zray.get(zray.get(outer)[0])) == n

    def futures(self) -> None:
        numbers = [self.number() for _ in range(10)]
        futures = [double.remote(n).future() for n in numbers]
        assert [future.result(20) for future in futures] == [2 * n for n in numbers]

    def awaits(self) -> None:
        async def main() -> None:
            numbers = [self.number() for _ in range(20)]
            found = await asyncio.gather(*[double.remote(n) for n in numbers])
            assert found == [2 * n for n in numbers]

        asyncio.run(main())

    def time_out(self) -> None:
        ref = slow.remote(0.01, 5)
        try:
            assert zray.get(ref, timeout=0.005) == 5
        except GetTimeoutError:
            assert zray.get(ref, timeout=20) == 5

    def poll(self) -> None:
        ref = double.remote(3)
        while not zray.wait([ref], timeout=0)[0]:
            pass
        assert zray.get(ref, timeout=0) == 6

    def share(self) -> None:
        index = self.random.randrange(len(self.shared))
        n = self.number()
        self.shared[index] = (double.remote(n), 2 * n)
        ref, expected = self.shared[self.random.randrange(len(self.shared))]
        assert zray.get(ref, timeout=20) == expected

    def chain(self) -> None:
        ref = double.remote(1)
        for _ in range(5):
            ref = double.remote(ref)
        assert zray.get(ref) == 64

    def large(self) -> None:
        n = self.random.choice([5_000, 70_000, 300_000])
        assert len(zray.get(large.remote(n))) == n


@pytest.mark.parametrize("seed", [1])
def test_stress(seed: int) -> None:
    zray.get([double.remote(i) for i in range(100)])
    gc.collect()
    before = api_cluster._status()
    shared = [(double.remote(n), 2 * n) for n in range(5)]
    deadline = time.monotonic() + STRESS_S
    actors = [Actor(seed * 100 + n, deadline, shared) for n in range(6)]
    in_threads(list(actors))
    counts = sum((actor.counts for actor in actors), Counter())
    assert len(counts) == 12 and sum(counts.values()) > 100
    assert zray.get([double.remote(i) for i in range(100)]) == [2 * i for i in range(100)]
    shared.clear()
    actors.clear()

    def settled() -> bool:
        gc.collect()
        now = api_cluster._status()
        return now.objects <= before.objects and now.jobs[0].unfinished == 0

    eventually(settled)


def test_stress_in_tasks() -> None:
    """The same from the threads of several workers, whose control threads take part."""

    def stress(seed: int) -> int:
        shared = [(double.remote(n), 2 * n) for n in range(5)]
        deadline = time.monotonic() + STRESS_S / 2
        actors = [Actor(seed * 100 + n, deadline, shared) for n in range(3)]
        in_threads(list(actors))
        return sum(sum(actor.counts.values()) for actor in actors)

    @zray.remote(num_cpus=0, max_retries=0)
    def work(seed: int) -> int:
        counts = stress(seed)
        gc.collect()  # asyncio leaves its references in cycles
        return counts

    gc.collect()
    before = api_cluster._status().objects
    assert sum(zray.get([work.remote(seed) for seed in range(3)], timeout=30)) > 50

    def settled() -> bool:
        zray.get([double.remote(i) for i in range(20)])  # workers tell of drops as they work
        return api_cluster._status().objects <= before + 20  # those of this check itself

    eventually(settled)
