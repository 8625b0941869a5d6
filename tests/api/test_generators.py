"""Tasks and methods that yield, on every way of one machine: what is freed, and who dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zray
from tests.api.conftest import Run, eventually, objects
from zray.errors import SerializationError, TaskCancelledError
from zray.runtime import session

pytestmark = pytest.mark.usefixtures("cluster")

LARGE = 200_000


@zray.remote
def yields(count: int, size: int = 1, seconds: float = 0.0) -> Iterator[bytes]:
    for number in range(count):
        time.sleep(seconds)
        yield bytes([number % 256]) * size


@zray.remote(num_cpus=0)
class Maker:
    def yields(self, count: int, size: int = 1, seconds: float = 0.0) -> Iterator[bytes]:
        for number in range(count):
            time.sleep(seconds)
            yield bytes([number % 256]) * size

    def ping(self) -> int:
        return os.getpid()


@pytest.fixture
def frees() -> Any:
    """All objects made in the test are freed after it, and nothing of a stream is left."""
    before = objects()
    yield
    eventually(lambda: objects() <= before, 10)
    client = session.current().client
    eventually(lambda: not len(client.streams), 5)
    eventually(lambda: not client.call_results.awaited, 5)


def read(generator: Any) -> list[Any]:
    return [zray.get(ref) for ref in generator]


@pytest.mark.usefixtures("frees")
@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("cpus", [1, 0])
def test_items_of_tasks(size: int, cpus: int) -> None:
    """With a CPU, the later ones go to leased workers, without by way of the head."""
    task = yields.options(num_cpus=cpus)
    for _ in range(4):
        found = read(task.remote(5, size))
        assert [(value[0], len(value)) for value in found] == [(n, size) for n in range(5)]


@pytest.mark.usefixtures("frees")
@pytest.mark.parametrize("size", [1, LARGE])
def test_items_of_calls(size: int) -> None:
    actor = Maker.remote()
    zray.get(actor.ping.remote())
    for _ in range(3):
        found = read(actor.yields.remote(5, size))
        assert [(value[0], len(value)) for value in found] == [(n, size) for n in range(5)]
    zray.kill(actor)


@pytest.mark.usefixtures("frees")
@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("reads", [0, 2])
def test_what_is_not_read_is_freed(size: int, reads: int) -> None:
    generator = yields.remote(6, size)
    for _ in range(reads):
        next(generator)
    zray.get(generator.completed())
    del generator


@pytest.mark.usefixtures("frees")
def test_a_generator_that_is_dropped_while_it_runs() -> None:
    generator = yields.remote(20, LARGE, 0.01)
    end = generator.completed()
    next(generator)
    del generator
    assert zray.get(end, timeout=20) is None


@pytest.mark.usefixtures("frees")
def test_backpressure_of_a_generator_that_is_dropped() -> None:
    generator = yields.options(_generator_backpressure_num_objects=1).remote(20, LARGE)
    end = generator.completed()
    next(generator)
    del generator
    assert zray.get(end, timeout=20) is None


def test_arrays_are_shared() -> None:
    @zray.remote
    def arrays() -> Iterator[Any]:
        for number in range(3):
            yield np.full(LARGE, number)

    found = [zray.get(ref) for ref in arrays.remote()]
    assert [int(array[-1]) for array in found] == [0, 1, 2]
    assert not any(array.flags.writeable for array in found)


def test_many_small_items_of_two_generators_at_once() -> None:
    first, second = yields.remote(3000), yields.remote(3000)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert zray.get([one, other]) == [bytes([number % 256])] * 2


def test_a_generator_that_waits_for_its_reader_lends_its_cpu() -> None:
    """As many as there are CPUs wait, and another task runs."""
    limited = yields.options(_generator_backpressure_num_objects=1)
    waiting = [limited.remote(3) for _ in range(2)]
    for generator in waiting:
        next(generator)
    assert zray.get(yields.options(num_returns=1).remote(1), timeout=20) == b"\0"
    assert [len(read(generator)) for generator in waiting] == [2, 2]


def test_a_task_reads_and_computes() -> None:
    """Items reach a process that does not wait for them."""

    @zray.remote
    def busy() -> int:
        generator = yields.options(num_cpus=0).remote(50, 10_000)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        return sum(len(zray.get(ref)) for ref in generator)

    assert zray.get(busy.remote(), timeout=30) == 500_000


def test_generators_are_for_their_process_alone() -> None:
    with pytest.raises(SerializationError, match="Serializing a ObjectRefGenerator"):
        yields.remote(yields.remote(1))


def test_cancel_leaves_what_was_yielded() -> None:
    generator = yields.remote(1000, 1, 0.05)
    first = next(generator)
    zray.cancel(generator)
    with pytest.raises(TaskCancelledError):
        read(generator)
    assert zray.get(first) == b"\0"
    assert generator.is_finished()


def test_an_actors_worker_that_dies_yields_nothing_twice() -> None:
    actor = Maker.options(max_restarts=1, max_task_retries=1).remote()
    pid = zray.get(actor.ping.remote())
    generator = actor.yields.remote(10, 1, 0.05)
    first = zray.get(next(generator))
    os.kill(pid, signal.SIGKILL)
    assert [first, *read(generator)] == [bytes([number]) for number in range(10)]
    zray.kill(actor)


def test_an_actor_goes_on_when_a_reader_dies(run: Run, tmp_path: Path) -> None:
    """The generator waits for a caller that is killed; the actor serves others all the same."""
    actor = Maker.options(name="maker").remote()
    zray.get(actor.ping.remote())
    address = zray.get_runtime_context().gcs_address
    namespace = zray.get_runtime_context().namespace
    run(
        f"""
        import signal
        zray.init({address!r}, namespace={namespace!r})
        actor = zray.get_actor("maker")
        method = actor.yields.options(_generator_backpressure_num_objects=1)
        generator = method.remote(10)
        next(generator)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        code=-signal.SIGKILL,
    )
    assert zray.get(actor.ping.remote(), timeout=40)
    zray.kill(actor)
