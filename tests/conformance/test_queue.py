"""Contracts of Queue: order, room, timeouts, batches, coroutines, and its end."""

from __future__ import annotations

import asyncio
import queue
import time

import pytest
import ray
from ray.util.queue import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def made():
    """Makes queues, which end with the test."""
    queues = []

    def make(*args, **kwargs):
        queues.append(Queue(*args, **{"actor_options": {"num_cpus": 0}, **kwargs}))
        return queues[-1]

    yield make
    for one in queues:
        one.shutdown(force=True)


def test_first_in_first_out(made) -> None:
    """In the order of one putter."""
    items = made()
    for number in range(20):
        items.put(number)
    assert [items.get() for _ in range(20)] == list(range(20))


def test_sizes(made) -> None:
    """``len``, ``size``, ``qsize``, ``empty`` and ``full``."""
    items = made(maxsize=2)
    assert items.empty() and not items.full() and items.maxsize == 2
    items.put("a")
    items.put("b")
    assert len(items) == items.size() == items.qsize() == 2
    assert items.full() and not items.empty()


def test_errors_are_those_of_the_standard_queue() -> None:
    """``Empty`` and ``Full`` are subclasses of ``queue``'s."""
    assert issubclass(Empty, queue.Empty) and issubclass(Full, queue.Full)


def test_what_does_not_wait(made) -> None:
    """Raises at once."""
    items = made(1)
    with pytest.raises(Empty):
        items.get_nowait()
    with pytest.raises(Empty):
        items.get(block=False)
    items.put_nowait(1)
    with pytest.raises(Full):
        items.put_nowait(2)
    with pytest.raises(Full):
        items.put(2, block=False)
    assert items.get_nowait() == 1


def test_timeouts(made) -> None:
    """``Empty`` and ``Full`` after that time."""
    items = made(1)
    began = time.monotonic()
    with pytest.raises(Empty):
        items.get(timeout=0.3)
    assert time.monotonic() - began >= 0.3
    items.put(1)
    with pytest.raises(Full):
        items.put(2, timeout=0.2)
    assert items.size() == 1


def test_a_negative_timeout(made) -> None:
    """It is a ValueError, whatever the queue has."""
    items = made()
    with pytest.raises(ValueError, match="timeout"):
        items.put(1, timeout=-1)
    with pytest.raises(ValueError, match="timeout"):
        items.get(timeout=-1)
    assert items.empty()


def test_batches(made) -> None:
    """All or nothing."""
    items = made(maxsize=3)
    items.put_nowait_batch([1, 2])
    with pytest.raises(Full):
        items.put_nowait_batch([3, 4])
    assert items.size() == 2
    with pytest.raises(Empty):
        items.get_nowait_batch(3)
    assert items.get_nowait_batch(2) == [1, 2]
    assert items.get_nowait_batch(0) == []


def test_wrong_batches(made) -> None:
    """Not iterable, no number, negative."""
    items = made()
    with pytest.raises(TypeError):
        items.put_nowait_batch(1)
    with pytest.raises(TypeError):
        items.get_nowait_batch("1")
    with pytest.raises(ValueError, match="nonnegative"):
        items.get_nowait_batch(-1)


def test_coroutines(made) -> None:
    """``put_async`` and ``get_async``, with their errors."""
    items = made(1)

    async def run():
        with pytest.raises(Empty):
            await items.get_async(block=False)
        with pytest.raises(Empty):
            await items.get_async(timeout=0.05)
        await items.put_async("a")
        with pytest.raises(Full):
            await items.put_async("b", block=False)
        with pytest.raises(Full):
            await items.put_async("b", timeout=0.05)
        with pytest.raises(ValueError, match="timeout"):
            await items.put_async("b", timeout=-1)
        waiting = asyncio.ensure_future(items.put_async("c"))
        first = await items.get_async()
        await waiting
        return first, await items.get_async()

    assert asyncio.run(run()) == ("a", "c")


def test_it_is_shared_by_tasks(made) -> None:
    """A queue can be an argument; each item comes to one of those who take."""
    items, taken = made(5), made()

    @ray.remote(num_cpus=0)
    def produce(items, count):
        for number in range(count):
            items.put(number)

    @ray.remote(num_cpus=0)
    def consume(items, taken, count):
        for _ in range(count):
            taken.put(items.get(timeout=30))

    ray.get([produce.remote(items, 20), *(consume.remote(items, taken, 10) for _ in range(2))])
    assert sorted(taken.get_nowait_batch(20)) == list(range(20))
    assert items.empty()


def test_whoever_waits_gets_what_is_put_later(made) -> None:
    """A blocking ``get`` goes on with the next ``put``."""
    items = made()

    @ray.remote(num_cpus=0)
    def wait(items):
        return items.get()

    ref = wait.remote(items)
    assert not ray.wait([ref], timeout=0.5)[0]
    items.put("late")
    assert ray.get(ref, timeout=20) == "late"


def test_actor_options(made) -> None:
    """Those of the actor that keeps the items, such as its name."""
    items = made(actor_options={"num_cpus": 0, "name": "kept"})
    items.put(7)
    assert ray.get(ray.get_actor("kept").qsize.remote()) == 1


def test_shutdown_ends_the_actor(made) -> None:
    """Gracefully or by force; it may be called again."""
    for force in (False, True):
        items = made()
        items.put(1)
        actor = items.actor
        items.shutdown(force=force)
        assert items.actor is None
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.qsize.remote(), timeout=20)
        items.shutdown()


def test_items_may_be_references(made) -> None:
    """What is put comes out as it is."""
    items = made()
    items.put([ray.put("inner")])
    assert ray.get(items.get()[0]) == "inner"
