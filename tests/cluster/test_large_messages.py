"""What is too large for one message, on real processes: no daemon ends, and all of it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import zray

KB = 1000


def test_a_task_of_many_returns(connected: Any) -> None:
    @zray.task(num_returns=1200)
    def many() -> list[bytes]:
        return [bytes([number % 256]) * 60 * KB for number in range(1200)]

    values = zray.get(many.remote(), timeout=60)
    assert [len(value) for value in values] == [60 * KB] * 1200
    assert [value[0] for value in values] == [number % 256 for number in range(1200)]


def test_a_large_error_of_many_returns(connected: Any) -> None:
    @zray.task(num_returns=1200)
    def fails() -> list[int]:
        raise ValueError("x" * 58 * KB)

    refs = fails.remote()
    with pytest.raises(ValueError, match="x" * 1000):
        zray.get(refs[0], timeout=60)
    with pytest.raises(zray.errors.TaskError, match="the first of the task's returns"):
        zray.get(refs[-1], timeout=60)


def test_one_large_error_with_thousands_of_dependents(sites: Any) -> None:
    @zray.task
    def fails() -> None:
        raise ValueError("x" * 58 * KB)

    @zray.task(num_cpus=0, resources={"one": 0.001})  # so that all are there at once
    def takes(_value: None) -> None:
        raise AssertionError("it has no argument")

    first = fails.remote()
    others = [takes.remote(first) for _ in range(1500)]
    assert zray.wait(others, num_returns=1500, timeout=60)[1] == []
    for ref in (others[0], others[-1]):
        with pytest.raises(ValueError, match="xxx"):
            zray.get(ref, timeout=10)
    assert all(program.process.poll() is None for program in sites.programs)


def test_a_task_gets_ten_thousand_references(connected: Any) -> None:
    @zray.task
    def total(refs: list[zray.ObjectRef[int]]) -> int:
        return sum(zray.get(refs))

    refs = [zray.put(number) for number in range(10_000)]
    assert zray.get(total.remote(refs), timeout=60) == sum(range(10_000))


def test_a_task_of_seventy_thousand_arguments(connected: Any) -> None:
    @zray.task
    def count(*arguments: int) -> int:
        return len(arguments)

    refs = [zray.put(number) for number in range(70_000)]
    assert zray.get(count.remote(*refs), timeout=60) == 70_000


def test_the_children_of_a_task_are_submitted_again_to_the_next_head(
    connected: Any, gate: Any, records: Any
) -> None:
    wait, write = gate.wait, records.write

    @zray.task(num_cpus=0)
    def parent() -> int:
        write("begins")

        @zray.task
        def child(data: bytes) -> int:
            wait()
            return len(data)

        return sum(zray.get([child.remote(bytes(3 * KB)) for _ in range(30_000)]))

    ref = parent.remote()

    def submitted() -> bool:
        return sum(job.unfinished for job in connected.status().jobs) > 30_000

    connected.until(submitted, 60, "all children are submitted")
    connected.head.kill()
    connected.start_head(port=-1)
    gate.open()
    assert zray.get(ref, timeout=60) == 30_000 * 3 * KB
    assert records.lines() == ["begins"]  # its node was not lost


def test_a_value_goes_along_with_many_relayed_calls(apart: Any, gate: Any) -> None:
    """The calls leave all at once, when the actor is there."""
    wait = gate.wait

    @zray.actor(num_cpus=0, resources={"two": 1})
    class Sizes:
        def __init__(self) -> None:
            wait()

        def of(self, value: bytes) -> int:
            return len(value)

    sizes = Sizes.remote()
    value = zray.put(bytes(60 * KB))
    refs = [sizes.of.remote(value) for _ in range(1500)]
    gate.open()
    assert zray.get(refs, timeout=60) == [60 * KB] * 1500
    assert zray.get(sizes.of.remote(b"abc"), timeout=10) == 3


def test_many_answers_are_relayed_at_once(apart: Any) -> None:
    @zray.actor(num_cpus=0, resources={"two": 1}, max_concurrency=2000)
    class Slow:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def large(self, number: int) -> bytes:
            await self.opened.wait()
            return b"%06d" % number * 10 * KB

        async def open(self) -> None:
            self.opened.set()

    slow = Slow.remote()
    refs = [slow.large.remote(number) for number in range(1500)]
    zray.get(slow.open.remote(), timeout=30)
    for number, value in enumerate(zray.get(refs, timeout=60)):
        assert value == b"%06d" % number * 10 * KB
    several = slow.large.options(num_returns=1).remote(1)
    assert len(zray.get(several, timeout=10)) == 60 * KB


def test_a_relayed_call_of_many_returns(apart: Any) -> None:
    @zray.actor(num_cpus=0, resources={"two": 1})
    class Maker:
        @zray.method(num_returns=1200)
        def many(self) -> list[bytes]:
            return [bytes([number % 256]) * 60 * KB for number in range(1200)]

    maker = Maker.remote()
    values = zray.get(maker.many.remote(), timeout=60)
    assert [value[0] for value in values] == [number % 256 for number in range(1200)]
