"""Actors where nobody shares a machine: the driver reaches the head's port and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest

import zray
from zray.errors import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorError,
    ActorUnavailableError,
    TaskCancelledError,
)

pytestmark = pytest.mark.system

GET_S = 30.0
CUT_S = 4.0  # shorter than DEAD_S: nothing may be lost


def store_class(records: Any) -> Any:
    write = records.write

    @zray.actor(num_cpus=0)
    class Store:
        def __init__(self, start: Any = 0) -> None:
            self.values: list[Any] = []
            self.start = start

        def append(self, value: Any) -> int:
            self.values.append(value)
            return len(self.values)

        def all(self) -> list[Any]:
            return self.values

        def echo(self, value: Any) -> Any:
            return value

        def pop(self) -> Any:
            return self.values.pop()

        def pid(self) -> int:
            return os.getpid()

        def fail(self) -> None:
            raise KeyError("its own")

        def record(self, caller: str, number: int) -> int:
            write(f"{caller}:{number}")
            return number

        def hold(self) -> None:
            write("hold")
            time.sleep(1000)

        def leave(self) -> None:
            zray.exit_actor()

        def call(self, other: Any, count: int) -> list[int]:
            return list(zray.get([other.append.remote(number) for number in range(count)]))

    return Store


def test_calls_values_and_references(apart: Any, records: Any) -> None:
    cluster, _ = apart
    cls = store_class(records)
    one = cls.options(resources={"one": 1}).remote(zray.put(1))
    two = cls.options(resources={"two": 1}, name="two").remote()
    assert zray.get([two.append.remote(n) for n in range(1000)], timeout=GET_S) == [*range(1, 1001)]
    assert zray.get(two.all.remote(), timeout=GET_S) == list(range(1000))
    for size in (100, 70_000, 1 << 20, 20 << 20):
        value = os.urandom(size)
        stored = zray.put(value)
        chain = two.echo.remote(one.echo.remote(stored))
        assert zray.get([one.echo.remote(value), chain], timeout=GET_S) == [value, value]
        # A reference stays with the actor while nobody else has one, and comes back.
        zray.get(two.append.remote([stored, one.echo.remote(value)]), timeout=GET_S)
        del stored, chain
        for ref in zray.get(two.pop.remote(), timeout=GET_S):
            assert zray.get(ref, timeout=GET_S) == value

    @zray.task(num_cpus=0)
    def use(store: Any, value: bytes) -> int:
        return len(zray.get(store.echo.remote(value)))

    large = one.echo.remote(b"v" * (2 << 20))
    sizes = [use.options(resources={at: 1}).remote(two, large) for at in ("one", "two")]
    assert zray.get(sizes, timeout=GET_S) == [2 << 20] * 2
    assert zray.get(one.call.remote(two, 100), timeout=GET_S) == list(range(1001, 1101))
    with pytest.raises(KeyError, match="its own"):
        zray.get(two.fail.remote(), timeout=GET_S)
    assert zray.get_actor("two") == two
    with pytest.raises(ActorAlreadyExistsError):
        cls.options(name="two").remote()
    assert cls.options(name="two", get_if_exists=True).remote() == two
    del one, two, ref, large, sizes
    cluster.until(cluster.at_rest, 10, "all resources are free")
    cluster.until(lambda: cluster.status().objects == 0, 10, "all objects are free")


def test_ends_and_restarts(apart: Any, records: Any) -> None:
    cluster, _ = apart
    cls = store_class(records).options(resources={"two": 1})
    held = cls.remote()
    pid = zray.get(held.pid.remote(), timeout=GET_S)
    running, waiting = held.hold.remote(), held.pid.remote()
    records.until(1)
    zray.cancel(waiting)
    with pytest.raises(TaskCancelledError):
        zray.get(waiting, timeout=GET_S)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorDiedError, match="SIGKILL") as caught:
        zray.get(running, timeout=GET_S)
    assert caught.value.maybe_executed

    again = store_class(records).options(max_restarts=-1, max_task_retries=-1).remote()
    refs = []
    for part in range(3):
        pid = zray.get(again.pid.remote(), timeout=GET_S)
        refs += [again.record.remote("driver", 50 * part + number) for number in range(50)]
        os.kill(pid, signal.SIGKILL)
    assert zray.get(refs, timeout=GET_S) == list(range(150))
    seen = list(dict.fromkeys(line for line in records.lines() if line != "hold"))
    assert seen == [f"driver:{number}" for number in range(150)]
    pid = zray.get(again.pid.remote(), timeout=GET_S)
    cut_off = again.hold.options(max_task_retries=0).remote()
    cluster.until(lambda: records.lines().count("hold") == 2, 20, "it is running")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorUnavailableError):
        zray.get(cut_off, timeout=GET_S)
    assert zray.get(again.pid.remote(), timeout=GET_S) != pid

    value = os.urandom(300_000)
    leaves = cls.remote()
    before = [leaves.echo.remote(value) for _ in range(20)]
    gone = leaves.leave.remote()
    with pytest.raises(ActorDiedError, match="exit_actor"):
        zray.get(gone, timeout=GET_S)
    assert zray.get(before, timeout=GET_S) == [value] * 20
    last = cls.remote()
    pid = zray.get(last.pid.remote(), timeout=GET_S)
    zray.kill(last)
    cluster.until(lambda: not psutil.pid_exists(pid), 5, "it has ended")
    with pytest.raises(ActorDiedError, match="kill"):
        zray.get(last.pid.remote(), timeout=GET_S)
    del last, leaves, again, held
    cluster.until(cluster.at_rest, 10, "all resources are free")


def test_async_calls(apart: Any) -> None:
    @zray.actor(num_cpus=0)
    class Async:
        def __init__(self) -> None:
            self.event: Any = None

        async def wait(self, number: int) -> int:
            import asyncio

            self.event = self.event or asyncio.Event()
            await self.event.wait()
            return number

        async def open(self) -> None:
            self.event.set()

        async def value(self, box: list[Any]) -> Any:
            return await box[0]

    one, two = (Async.options(resources={at: 1}).remote() for at in ("one", "two"))
    refs = [two.wait.remote(number) for number in range(100)]
    zray.cancel(refs[50])
    with pytest.raises(TaskCancelledError):
        zray.get(refs.pop(50), timeout=GET_S)
    asked = one.value.remote([refs[3]])  # the result of a call that nobody has answered
    zray.get(two.open.remote(), timeout=GET_S)
    assert zray.get(refs, timeout=GET_S) == [number for number in range(100) if number != 50]
    assert zray.get(asked, timeout=GET_S) == 3


@pytest.mark.slow_limit(120)
def test_a_cut_of_seconds_loses_no_call_and_a_long_one_ends_the_incarnation(
    apart: Any, records: Any
) -> None:
    cluster, network = apart
    cls = store_class(records)
    store = cls.options(resources={"one": 1}).remote()
    moves = cls.options(num_cpus=1, max_restarts=1, max_task_retries=-1)
    refs: list[Any] = []
    stop = threading.Event()

    def drive() -> None:
        while not stop.wait(0.02):
            refs.append(store.record.remote("driver", len(refs)))

    @zray.task(num_cpus=0, resources={"two": 1})
    def call(store: Any, seconds: float) -> int:
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            zray.get(store.record.remote("task", count))
            count += 1
        return count

    thread = threading.Thread(target=drive)
    thread.start()
    elsewhere = call.remote(store, CUT_S)
    try:
        records.until(20)
        network.set("one", "down")
        time.sleep(CUT_S)  # the length of the fault
        network.set("one", "up")
        count = zray.get(elsewhere, timeout=GET_S)
    finally:
        stop.set()
        thread.join()
    assert zray.get(refs, timeout=GET_S) == list(range(len(refs)))
    lines = records.lines()
    for caller, calls in (("driver", len(refs)), ("task", count)):
        mine = [line for line in lines if line.startswith(caller)]
        assert mine == [f"{caller}:{number}" for number in range(calls)]

    zray.kill(store)
    cluster.await_node("one")
    blocks = cls.options(num_cpus=1, resources={"two": 1}).remote()
    zray.get(blocks.pid.remote(), timeout=GET_S)
    moved = moves.remote()
    old = zray.get(moved.pid.remote(), timeout=GET_S)
    assert zray.get(moved.append.remote("lost with it"), timeout=GET_S) == 1
    del blocks
    network.set("one", "down")
    flying = [moved.append.remote(number) for number in range(5)]
    cluster.until(lambda: cluster.node("one") is None, 35, "the node is dead")
    assert zray.get(flying, timeout=GET_S) == [1, 2, 3, 4, 5]
    network.set("one", "up")
    cluster.await_node("one", 30)
    cluster.until(lambda: not psutil.pid_exists(old), 5, "the old incarnation has ended")
    assert zray.get(moved.all.remote(), timeout=GET_S) == list(range(5))
    try:
        zray.get(moved.leave.remote(), timeout=GET_S)
    except ActorError as error:
        assert "exit_actor" in str(error)
    cluster.until(cluster.at_rest, 10, "all resources are free")
