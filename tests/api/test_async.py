"""Awaiting references, and futures of both kinds."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import Any

import pytest

import zray
from zray.errors import TaskError

pytestmark = pytest.mark.usefixtures("cluster")


@zray.remote
def after(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@zray.remote
def fail() -> None:
    raise KeyError("k")


def test_await() -> None:
    async def main() -> list[Any]:
        ready = zray.put("ready")
        return [await after.remote(0.05, 1), await ready, await ready]

    assert asyncio.run(main()) == [1, "ready", "ready"]


def test_gather_and_wait_for() -> None:
    async def main() -> None:
        refs = [after.remote(0, i) for i in range(50)]
        assert await asyncio.gather(*refs) == list(range(50))
        slow = after.remote(30)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(slow, 0.1)
        zray.cancel(slow, force=True)
        futures = [after.remote(0.01 * i, i).as_future() for i in range(3)]
        done, _ = await asyncio.wait(futures)
        assert {future.result() for future in done} == {0, 1, 2}

    asyncio.run(main())


def test_the_loop_runs_meanwhile() -> None:
    async def main() -> int:
        ticks = 0
        future = after.remote(0.3).as_future()
        while not future.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(main()) > 5


def test_errors_are_raised_by_await() -> None:
    async def main() -> None:
        with pytest.raises(KeyError) as caught:
            await fail.remote()
        assert isinstance(caught.value, TaskError)
        results = await asyncio.gather(after.remote(0, 1), fail.remote(), return_exceptions=True)
        assert results[0] == 1 and isinstance(results[1], KeyError)

    asyncio.run(main())


def test_thousands_of_awaits() -> None:
    async def main() -> None:
        total = sum(await asyncio.gather(*[after.remote(0, i) for i in range(3000)]))
        assert total == 4_498_500

    asyncio.run(main())


def test_a_loop_closed_before_the_value_comes() -> None:
    async def main() -> zray.ObjectRef[Any]:
        ref = after.remote(0.3, 1)
        ref.as_future()
        return ref

    assert zray.get(asyncio.run(main())) == 1
    assert zray.get(after.remote(0, 2)) == 2


def test_as_future_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        zray.put(1).as_future()


def test_several_loops_at_once() -> None:
    found: list[int] = []

    async def main(n: int) -> None:
        found.extend(await asyncio.gather(*[after.remote(0, n) for _ in range(100)]))

    threads = [threading.Thread(target=asyncio.run, args=(main(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([*range(4)] * 100)


# ---- concurrent.futures --------------------------------------------------------------------


def test_futures() -> None:
    futures = [after.remote(0, i).future() for i in range(500)]
    done, others = concurrent.futures.wait(futures, timeout=20)
    assert not others and sorted(f.result() for f in done) == list(range(500))


def test_future_of_a_ready_value_an_error_and_large_ones() -> None:
    assert zray.put(5).future().result(10) == 5
    assert isinstance(fail.remote().future().exception(10), KeyError)
    assert len(after.remote(0, bytes(300_000)).future().result(10)) == 300_000


def test_callbacks_may_use_the_api() -> None:
    done = threading.Event()
    found: list[int] = []

    def then(future: concurrent.futures.Future[int]) -> None:
        found.append(zray.get(after.remote(0, future.result() + 1)))
        done.set()

    after.remote(0.05, 1).future().add_done_callback(then)
    assert done.wait(10) and found == [2]


def test_futures_keep_their_reference_alive() -> None:
    future = after.remote(0.1, "kept").future()
    assert future.result(10) == "kept"


# ---- in tasks ------------------------------------------------------------------------------


def test_await_in_a_task() -> None:
    @zray.remote(num_cpus=0)
    def gather() -> int:
        async def main() -> int:
            return sum(await asyncio.gather(*[after.remote(0, i) for i in range(100)]))

        return asyncio.run(main())

    assert zray.get([gather.remote(), gather.remote()], timeout=20) == [4950, 4950]


def test_future_in_a_task() -> None:
    @zray.remote
    def futures() -> int:
        refs = [after.options(num_cpus=0).remote(0, i) for i in range(20)]
        return sum(ref.future().result(20) for ref in refs)

    assert zray.get([futures.remote() for _ in range(4)], timeout=20) == [190] * 4
