"""A task in a leased worker does all that any task can: nobody can tell which way it went."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

import zray
from tests.cluster.leasing import leased
from zray.errors import TaskError


def test_values_of_all_sizes_come_and_go(connected: Any) -> None:
    @zray.task
    def echo(value: bytes, count: int) -> tuple[int, bytes]:
        return len(value), b"r" * count

    leased(echo, b"", 0)
    sizes = [0, 1, 1000, 4096, 60_000, 65_000, 65_536, 65_537, 70_000, 1 << 20, 10_000_000]
    for size in sizes:
        assert zray.get(echo.remote(b"a" * size, 0), timeout=20) == (size, b"")
        length, result = zray.get(echo.remote(b"a", size), timeout=20)
        assert (length, len(result)) == (1, size)
        kept = zray.put(b"a" * size)
        assert zray.get(echo.remote(kept, size), timeout=20)[0] == size
    refs = [echo.remote(b"a" * size, size) for size in sizes for _ in range(3)]
    for size, ref in zip((size for size in sizes for _ in range(3)), refs, strict=True):
        length, result = zray.get(ref, timeout=20)
        assert length == len(result) == size
    # Results are arguments of others, before they are there and after.
    first = [echo.remote(b"", size) for size in sizes]
    second = [echo.remote(ref, 0) for ref in first]  # of a pair, whose length is 2
    assert zray.get(second, timeout=20) == [(2, b"")] * len(sizes)


@pytest.mark.parametrize("count", [500, 900, 1500, 2500, 5000])
def test_many_arguments(connected: Any, count: int) -> None:
    """However little each of them is: a packet to a worker takes only so much."""

    @zray.task
    def one(number: int) -> int:
        return number

    @zray.task
    def total(*numbers: int) -> int:
        return sum(numbers)

    leased(one, 0)
    refs = [one.remote(number) for number in range(count)]
    expected = sum(range(count))
    assert zray.get(total.remote(*refs), timeout=10) == expected  # most are not there yet
    assert zray.get(total.remote(*refs), timeout=10) == expected
    assert zray.get(total.remote(*range(count)), timeout=10) == expected


def test_many_large_returns(connected: Any) -> None:
    @zray.task(num_returns=64)
    def many(size: int) -> list[bytes]:
        return [b"x" * size] * 64

    @zray.task
    def nothing() -> None:
        pass

    leased(nothing)
    for size in (1, 1000, 60_000, 70_000):
        for refs in [many.remote(size) for _ in range(4)]:
            assert {len(value) for value in zray.get(refs, timeout=20)} == {size}


def test_many_returns_and_none(connected: Any) -> None:
    @zray.task(num_returns=64)
    def many(number: int) -> list[int]:
        return [number * place for place in range(64)]

    @zray.task
    def nothing() -> None:
        pass

    @zray.task(num_returns=2)
    def wrong() -> list[int]:
        return [1, 2, 3]

    leased(nothing)
    rows = [many.remote(number) for number in range(50)]
    for number, refs in enumerate(rows):
        assert zray.get(refs, timeout=20) == [number * place for place in range(64)]
    assert zray.get([nothing.remote() for _ in range(50)], timeout=20) == [None] * 50
    for ref in wrong.remote():
        with pytest.raises(TaskError, match="3"):
            zray.get(ref, timeout=20)


def test_it_submits_puts_and_makes_actors(connected: Any) -> None:
    @zray.actor(num_cpus=0)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    @zray.task
    def inner(number: int) -> int:
        return 10 * number

    @zray.task
    def outer(number: int) -> Any:
        if number < 0:
            return None
        counter = Counter.remote()
        large = zray.put(b"x" * 100_000)
        small = zray.put(number)
        return {
            "nested": inner.remote(number),
            "got": zray.get(inner.remote(number)),
            "waited": len(zray.wait([inner.remote(1), inner.remote(2)], num_returns=2)[0]),
            "small": small,
            "large": large,
            "counter": counter,
            "counted": zray.get(counter.add.remote()),
        }

    leased(outer, -1)
    for number, ref in enumerate([outer.remote(number) for number in range(20)]):
        found = zray.get(ref, timeout=30)
        assert zray.get([found["nested"], found["small"]], timeout=10) == [10 * number, number]
        assert (found["got"], found["waited"], found["counted"]) == (10 * number, 2, 1)
        assert len(zray.get(found["large"], timeout=10)) == 100_000
        assert zray.get(found["counter"].add.remote(), timeout=10) == 2
    del found, ref
    connected.until(connected.at_rest, 10, "all is free again")


def test_references_that_it_keeps_stay(connected: Any) -> None:
    """In a global of its worker, after the driver has dropped its own."""

    @zray.task
    def keeps(boxes: list[Any]) -> int:
        import builtins

        kept = builtins.__dict__.setdefault("zray_test_kept", [])
        kept.extend(boxes)
        return os.getpid()

    @zray.task
    def shows() -> tuple[int, list[Any]]:
        import builtins

        return os.getpid(), [zray.get(box) for box in getattr(builtins, "zray_test_kept", [])]

    @zray.task
    def makes(number: int) -> bytes:
        return str(number).encode() * 100

    leased(keeps, [])
    for _ in range(10):
        zray.get([keeps.remote([zray.put(b"put"), makes.remote(7)]) for _ in range(5)])
    found = dict(zray.get([shows.remote() for _ in range(30)], timeout=20))
    values = [value for kept in found.values() for value in kept]
    assert values and {*values} <= {b"put", b"7" * 100}


def test_exceptions_and_retries(connected: Any, records: Any) -> None:
    write = records.write

    class NotPickled(Exception):
        def __reduce__(self) -> Any:
            raise RuntimeError("it cannot be pickled")

    @zray.task
    def fails(kind: str) -> str:
        if kind == "value":
            raise ValueError("it is bad")
        if kind == "unpickled":
            raise NotPickled("nobody can have it")
        if kind == "result":
            return threading.Lock()  # type: ignore[return-value]
        if kind == "exit":
            raise SystemExit(3)
        return kind

    @zray.task(max_retries=3, retry_exceptions=[ValueError])
    def flaky(name: str, times: int) -> int:
        write(name)
        with open(records_path) as file:
            count = file.read().split().count(name)
        if count < times:
            raise ValueError(f"attempt {count}")
        return count

    records_path = str(records.path)
    leased(fails, "")
    for _ in range(3):
        refs = [fails.remote(kind) for kind in ("", "value", "", "unpickled", "", "result", "")]
        assert zray.get(refs[::2], timeout=10) == [""] * 4
        with pytest.raises(ValueError, match="it is bad"):
            zray.get(refs[1], timeout=10)
        with pytest.raises(TaskError, match="nobody can have it"):
            zray.get(refs[3], timeout=10)
        with pytest.raises(TaskError, match="pickle"):
            zray.get(refs[5], timeout=10)
    flakies = [flaky.remote(f"n{number}", number % 4 + 1) for number in range(12)]
    assert zray.get(flakies, timeout=10) == [number % 4 + 1 for number in range(12)]
    with pytest.raises(ValueError, match="attempt 4"):
        zray.get(flaky.remote("never", 9), timeout=10)
    assert records.lines().count("never") == 4


def test_its_context_and_its_prints(connected: Any, capfd: pytest.CaptureFixture[str]) -> None:
    @zray.task
    def speaks(number: int) -> tuple[str, str, str, dict[str, float]]:
        if number >= 0:
            print(f"this is number {number}.")
        context = zray.get_runtime_context()
        return (
            *(str(context.get_job_id()), str(context.get_task_id()), str(context.get_node_id())),
            context.get_assigned_resources(),
        )

    @zray.task
    def another(number: int) -> None:
        print(f"that is number {number}.")

    leased(speaks, -1)
    found = zray.get([speaks.remote(number) for number in range(20)], timeout=10)
    zray.get([another.remote(number) for number in range(20)], timeout=10)
    own = zray.get_runtime_context()
    nodes = {node["NodeID"] for node in zray.nodes()}
    assert {job for job, _, _, _ in found} == {str(own.get_job_id())}
    assert len({task for _, task, _, _ in found}) == 20
    assert {node for _, _, node, _ in found} <= nodes
    assert all(resources == {"CPU": 1.0} for _, _, _, resources in found)
    printed = ""

    def all_printed() -> bool:
        nonlocal printed
        printed += capfd.readouterr().out
        return printed.count("number") == 40

    connected.until(all_printed, 5, "every print arrives")
    for line in printed.splitlines():
        assert ("speaks" in line) == ("this is number" in line), line
        assert ("another" in line) == ("that is number" in line), line


def test_a_task_that_blocks_lends_its_cpu_and_its_queue(connected: Any, gate: Any) -> None:
    wait = gate.wait

    @zray.task(num_cpus=0)
    def at_gate() -> int:
        wait()
        return 1

    @zray.task
    def blocks(boxes: list[Any]) -> int:
        return sum(zray.get(boxes))

    @zray.task
    def nothing() -> int:
        return 0

    leased(blocks, [])
    refs = [blocks.remote([at_gate.remote()]) for _ in range(4)]
    assert zray.get([nothing.remote() for _ in range(100)], timeout=10) == [0] * 100
    assert zray.wait(refs, num_returns=4, timeout=0)[0] == []
    gate.open()
    assert zray.get(refs, timeout=20) == [1] * 4
