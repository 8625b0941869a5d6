"""Contracts of references: what they are, futures of them, and references in asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading

import pytest
import ray

from tests.conformance.functions import same, slow

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
def fail():
    raise ValueError("failed")


# ---- the reference -------------------------------------------------------------------------


def test_references_are_equal_by_object() -> None:
    """Two references to one object are equal, and of one hash."""

    @ray.remote
    def back(refs):
        return refs

    ref = ray.put(1)
    (other,) = ray.get(back.remote([ref]))

    assert ref == other
    assert hash(ref) == hash(other)
    assert len({ref, other}) == 1
    assert ref != ray.put(1)
    assert ref != 1


def test_hex_is_the_id_as_text() -> None:
    """``hex()`` shows the bytes of ``binary()``, and is in the repr."""
    ref = ray.put(1)

    assert bytes.fromhex(ref.hex()) == ref.binary()
    assert ref.hex() in repr(ref)
    assert repr(ref).startswith("ObjectRef(")


def test_a_reference_is_made_of_its_id() -> None:
    """``ObjectRef(binary)`` gives an equal reference, of the same value."""
    ref = ray.put(1)
    other = ray.ObjectRef(ref.binary())

    assert other == ref
    assert ray.get(other) == 1
    del other
    assert ray.get(ref) == 1


def test_nil_references() -> None:
    """``nil()`` is a reference to nothing; others are not nil."""
    assert ray.ObjectRef.nil().is_nil()
    assert ray.ObjectRef.nil() == ray.ObjectRef.nil()
    assert not ray.put(1).is_nil()
    assert len(ray.put(1).binary()) == ray.ObjectRef.size()


def test_random_references_differ() -> None:
    """``from_random()`` makes another one each time."""
    assert ray.ObjectRef.from_random() != ray.ObjectRef.from_random()


def test_a_reference_names_its_task_and_job() -> None:
    """``task_id()`` and ``job_id()`` are ids; two results of a task name the same one."""
    first, second = same.options(num_returns=2).remote([1, 2])

    assert first.task_id() == second.task_id()
    assert isinstance(first.task_id(), ray.TaskID)
    assert isinstance(first.job_id(), ray.JobID)
    assert first.job_id().hex() == ray.get_runtime_context().get_job_id()


def test_the_classes_names() -> None:
    """``ObjectID`` is another name of ObjectRef."""
    assert ray.ObjectID is ray.ObjectRef


def test_pickled_out_of_band_a_reference_still_works() -> None:
    """A reference pickled by ``ray.cloudpickle`` works where it is unpickled in the same job."""
    ref = ray.put(5)
    text = ray.cloudpickle.dumps(ref)

    assert ray.get(pickle.loads(text)) == 5


def test_references_can_be_types_parameters() -> None:
    """``ray.ObjectRef[int]`` is an annotation."""

    def f(ref: ray.ObjectRef[int]) -> None: ...

    assert f.__annotations__


# ---- futures -------------------------------------------------------------------------------


def test_a_future_of_a_reference() -> None:
    """``future()`` is a concurrent.futures.Future of the value."""
    future = slow.remote(0.1, 3).future()

    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=30) == 3


def test_a_future_of_a_failed_task() -> None:
    """It raises what ``get`` raises."""
    with pytest.raises(ValueError, match="failed"):
        fail.remote().future().result(timeout=30)


def test_futures_go_with_as_completed() -> None:
    """``concurrent.futures`` can wait for them."""
    futures = [slow.remote(0.05 * i, i).future() for i in range(3)]

    found = {future.result() for future in concurrent.futures.as_completed(futures, timeout=30)}
    assert found == {0, 1, 2}


def test_a_futures_callback() -> None:
    """``add_done_callback`` is called when the value is there."""
    called = threading.Event()
    slow.remote(0.1).future().add_done_callback(lambda _: called.set())

    assert called.wait(30)


# ---- asyncio -------------------------------------------------------------------------------


def test_await_gives_the_value() -> None:
    """``await ref`` in a driver's loop."""

    async def main():
        return await same.remote(4)

    assert asyncio.run(main()) == 4


def test_await_raises_what_get_raises() -> None:
    """A failed task raises its error at ``await``."""

    async def main():
        await fail.remote()

    with pytest.raises(ValueError, match="failed"):
        asyncio.run(main())


def test_await_twice() -> None:
    """A reference can be awaited again."""

    async def main():
        ref = same.remote(4)
        return await ref, await ref

    assert asyncio.run(main()) == (4, 4)


def test_gather() -> None:
    """``asyncio.gather`` takes references."""

    async def main():
        return await asyncio.gather(*[slow.remote(0.02 * i, i) for i in range(4)])

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_asyncio_wait() -> None:
    """``asyncio.wait`` takes references that are wrapped in tasks or futures."""

    async def main():
        refs = [slow.remote(0.02 * i, i) for i in range(3)]
        futures = [asyncio.wrap_future(ref.future()) for ref in refs]
        done, pending = await asyncio.wait(futures, timeout=30)
        return sorted(future.result() for future in done), pending

    assert asyncio.run(main()) == ([0, 1, 2], set())


def test_asyncio_as_completed() -> None:
    """``asyncio.as_completed`` takes references."""

    async def main():
        refs = [slow.remote(0.02 * i, i) for i in range(3)]
        return sorted([await one for one in asyncio.as_completed(refs)])

    assert asyncio.run(main()) == [0, 1, 2]


def test_as_future() -> None:
    """``as_future()`` is an asyncio future in the running loop."""

    async def main():
        future = same.remote(1).as_future()
        assert isinstance(future, asyncio.Future)
        return await future

    assert asyncio.run(main()) == 1


def test_wait_for_times_out() -> None:
    """``asyncio.wait_for`` gives up, and the task goes on."""

    async def main():
        ref = slow.remote(0.5, 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(ref.as_future()), 0.05)
        return await ref

    assert asyncio.run(main()) == 1


def test_await_in_another_thread() -> None:
    """A loop in another thread awaits references, too."""
    ref = slow.remote(0.1, 6)
    found = []

    async def main():
        found.append(await ref)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(30)

    assert found == [6]


def test_the_loop_goes_on_meanwhile() -> None:
    """Awaiting does not block the loop."""

    async def main():
        ticks = 0
        ref = asyncio.ensure_future(wrapped(slow.remote(0.5)))
        while not ref.done():
            ticks += 1
            await asyncio.sleep(0.02)
        return ticks

    async def wrapped(ref):
        return await ref

    assert asyncio.run(main()) > 5
