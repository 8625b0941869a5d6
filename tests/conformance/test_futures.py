"""Contracts of references in asyncio, futures and threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

from tests.conformance.functions import fail, same, slow

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Async:
    async def ask(self, refs):
        return await asyncio.gather(*refs)

    async def first(self, refs):
        tasks = [asyncio.ensure_future(ref) for ref in refs]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    async def submit(self, count):
        return await asyncio.gather(*[same.remote(i) for i in range(count)])

    async def fails(self, ref):
        try:
            await ref[0]
        except ValueError as error:
            return isinstance(error, RayTaskError)


# ---- get of many ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
def test_get_of_many_raises_wherever_the_failed_one_stands(place) -> None:
    """The error comes at once, whether the failed task stands first or last."""
    refs = [slow.remote(8.0), slow.remote(8.0)]
    refs.insert(place, fail.remote())
    began = time.monotonic()

    with pytest.raises(ValueError, match="failed"):
        ray.get(refs)
    assert time.monotonic() - began < 6.0


def test_get_of_many_raises_when_an_actor_dies() -> None:
    """A call whose actor is dead ends the wait for all."""

    @ray.remote
    class Actor:
        def go(self):
            pass

    actor = Actor.remote()
    ray.get(actor.go.remote())
    ray.kill(actor)
    began = time.monotonic()

    with pytest.raises(ActorDiedError):
        ray.get([slow.remote(8.0), actor.go.remote()])
    assert time.monotonic() - began < 6.0


def test_get_of_many_that_fail_later() -> None:
    """The same for one that fails while it is waited for."""
    began = time.monotonic()

    with pytest.raises(ValueError, match="failed"):
        ray.get([slow.remote(10.0), fail.remote(0.3)])
    assert time.monotonic() - began < 8.0


def test_a_timeout_of_many_says_so() -> None:
    """One that is not there in time is a GetTimeoutError for all; the others stay."""
    quick, late = same.remote(1), slow.remote(1.5, 2)

    with pytest.raises(GetTimeoutError):
        ray.get([quick, late], timeout=0.2)
    assert ray.get([quick, late]) == [1, 2]


def test_ten_thousand_references_in_one_get() -> None:
    """All come, in order."""
    assert ray.get([ray.put(i) for i in range(10_000)]) == [*range(10_000)]


def test_one_reference_ten_thousand_times() -> None:
    """The same reference may stand in the list as often as you like."""
    ref = same.remote("x")

    assert ray.get([ref] * 10_000) == ["x"] * 10_000


# ---- asyncio -------------------------------------------------------------------------------


def test_gather_of_references_made_before_the_loop() -> None:
    """References do not care which loop they are awaited in."""
    refs = [slow.remote(0.1, i) for i in range(5)]

    async def main():
        return await asyncio.gather(*refs)

    assert asyncio.run(main()) == [*range(5)]
    assert asyncio.run(main()) == [*range(5)]  # and again in another loop


def test_gather_with_exceptions() -> None:
    """``return_exceptions=True`` gives the errors as values."""

    async def main():
        return await asyncio.gather(same.remote(1), fail.remote(), return_exceptions=True)

    one, error = asyncio.run(main())
    assert one == 1
    assert isinstance(error, ValueError)
    assert isinstance(error, RayTaskError)


def test_gather_raises_the_first_error() -> None:
    """Without it the error is raised, though the others still run."""

    async def main():
        await asyncio.gather(slow.remote(6.0), fail.remote())

    began = time.monotonic()
    with pytest.raises(ValueError, match="failed"):
        asyncio.run(main())
    assert time.monotonic() - began < 5.0


def test_run_until_complete_of_a_reference() -> None:
    """A loop that does not run yet takes a reference."""
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(asyncio.ensure_future(same.remote(2), loop=loop)) == 2
        assert loop.run_until_complete(same.remote(3)) == 3
    finally:
        loop.close()


def test_a_task_of_a_reference() -> None:
    """``asyncio.ensure_future`` in a running loop."""

    async def main():
        task = asyncio.ensure_future(slow.remote(0.1, 4))
        assert not task.done()
        return await task

    assert asyncio.run(main()) == 4


def test_wait_for_the_first() -> None:
    """``asyncio.wait`` with FIRST_COMPLETED."""

    async def main():
        tasks = [asyncio.ensure_future(ref) for ref in [slow.remote(5.0, 1), same.remote(2)]]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.result() for task in done]

    assert asyncio.run(main()) == [2]


def test_as_completed_gives_the_quick_ones_first() -> None:
    """``asyncio.as_completed`` in the order in which they end."""

    async def main():
        refs = [slow.remote(seconds, seconds) for seconds in (1.2, 0.0, 0.6)]
        return [await found for found in asyncio.as_completed(refs)]

    assert asyncio.run(main()) == [0.0, 0.6, 1.2]


def test_a_timeout_of_asyncio() -> None:
    """``asyncio.timeout`` ends the wait."""

    async def main():
        ref = slow.remote(1.0, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ref
        return await ref

    assert asyncio.run(main()) == 1


def test_a_task_group() -> None:
    """References in coroutines of a TaskGroup."""

    async def main():
        async def value(ref):
            return await ref

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(value(same.remote(i))) for i in range(5)]
        return [task.result() for task in tasks]

    assert asyncio.run(main()) == [*range(5)]


def test_two_loops_in_two_threads_await_one_reference() -> None:
    """Both get the value."""
    ref = slow.remote(0.3, "v")
    found = []

    def run():
        async def main():
            found.append(await ref)

        asyncio.run(main())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["v", "v"]


def test_awaiting_from_several_coroutines() -> None:
    """One reference is awaited by many coroutines of a loop."""

    async def main():
        ref = slow.remote(0.2, 6)

        async def value():
            return await ref

        return await asyncio.gather(*[value() for _ in range(10)])

    assert asyncio.run(main()) == [6] * 10


def test_wrap_future() -> None:
    """``asyncio.wrap_future(ref.future())`` is awaited as the reference is."""

    async def main():
        return await asyncio.wrap_future(same.remote(8).future())

    assert asyncio.run(main()) == 8


def test_awaiting_a_thousand_references() -> None:
    """All come."""

    async def main():
        return await asyncio.gather(*[same.remote(i) for i in range(1000)])

    assert asyncio.run(main()) == [*range(1000)]


def test_awaiting_what_was_put() -> None:
    """A value that is there is awaited, too."""

    async def main():
        return await ray.put("there")

    assert asyncio.run(main()) == "there"


def test_get_in_a_coroutine_blocks_and_gives() -> None:
    """``get`` works in a driver's coroutine, though it blocks the loop."""

    async def main():
        return ray.get(same.remote(1))

    assert asyncio.run(main()) == 1


def test_run_in_executor() -> None:
    """``get`` in a thread of the loop's executor."""

    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, ray.get, same.remote(1))

    assert asyncio.run(main()) == 1


# ---- in actors and tasks -------------------------------------------------------------------


def test_an_async_actor_gathers() -> None:
    """``gather`` in a coroutine of an actor."""
    assert ray.get(Async.remote().ask.remote([same.remote(1), slow.remote(0.2, 2)])) == [1, 2]


def test_an_async_actor_takes_the_first() -> None:
    """``asyncio.wait`` in a coroutine of an actor."""
    actor = Async.remote()

    assert ray.get(actor.first.remote([slow.remote(5.0, 1), same.remote(2)]), timeout=30) == 2


def test_an_async_actor_submits_and_gathers() -> None:
    """Many tasks of one coroutine."""
    assert ray.get(Async.remote().submit.remote(50)) == [*range(50)]


def test_an_async_actor_catches_an_error() -> None:
    """``await`` of a failed task raises in the coroutine."""
    assert ray.get(Async.remote().fails.remote([fail.remote()])) is True


def test_a_loop_of_a_tasks_own() -> None:
    """A task may run a loop and await in it."""

    @ray.remote
    def f():
        async def main():
            return await asyncio.gather(*[same.remote(i) for i in range(5)])

        return asyncio.run(main())

    assert ray.get(f.remote()) == [*range(5)]


def test_threads_of_a_task() -> None:
    """Threads of a task submit and get."""

    @ray.remote
    def f():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda i: ray.get(same.remote(i)), range(8)))

    assert ray.get(f.remote()) == [*range(8)]


def test_threads_of_an_actor() -> None:
    """Threads that an actor has started use the API, also after the call."""

    @ray.remote
    class Actor:
        def begin(self):
            self.found = []
            self.thread = threading.Thread(
                target=lambda: self.found.extend(ray.get([slow.remote(0.3, 1), same.remote(2)]))
            )
            self.thread.start()

        def end(self):
            self.thread.join()
            return self.found

    actor = Actor.remote()
    ray.get(actor.begin.remote())
    assert ray.get(actor.end.remote()) == [1, 2]


@pytest.mark.parametrize("way", ["get", "wait"])
def test_a_task_that_waits_gives_its_cpu_to_others(way, tmp_path) -> None:
    """Four tasks that have all CPUs wait for others that need one."""

    @ray.remote(num_cpus=1)
    def inner(i):
        return i

    @ray.remote(num_cpus=1)
    def outer(i, way, begun):
        (begun / str(i)).touch()
        while len([*begun.iterdir()]) < 4:
            time.sleep(0.01)
        ref = inner.remote(i)
        if way == "wait":
            ray.wait([ref])
        return ray.get(ref)

    assert ray.get([outer.remote(i, way, tmp_path) for i in range(4)], timeout=40) == [*range(4)]


# ---- concurrent.futures --------------------------------------------------------------------


def test_futures_wait_first_completed() -> None:
    """``concurrent.futures.wait`` takes ``ref.future()``."""
    futures = [slow.remote(5.0).future(), same.remote(1).future()]
    done, pending = concurrent.futures.wait(
        futures, timeout=30, return_when=concurrent.futures.FIRST_COMPLETED
    )

    assert [future.result() for future in done] == [1]
    assert len(pending) == 1


def test_a_futures_timeout() -> None:
    """``result(timeout=)`` raises TimeoutError, and the value comes later."""
    future = slow.remote(0.6, 1).future()

    with pytest.raises(TimeoutError):
        future.result(timeout=0.05)
    assert future.result(timeout=30) == 1


def test_a_future_keeps_the_object() -> None:
    """The value comes though the reference itself is gone."""
    future = slow.remote(0.4, "kept").future()

    assert future.result(timeout=30) == "kept"


def test_many_futures_of_one_reference() -> None:
    """Each is a future of its own."""
    ref = slow.remote(0.2, 1)
    first, second = ref.future(), ref.future()

    assert first is not second
    assert [first.result(timeout=30), second.result(timeout=30)] == [1, 1]


def test_a_futures_exception() -> None:
    """``exception()`` is the error, of the user's type."""
    found = fail.remote().future().exception(timeout=30)

    assert isinstance(found, ValueError)
    assert isinstance(found, RayTaskError)
