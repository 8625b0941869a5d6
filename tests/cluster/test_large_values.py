"""Values of any size pass between nodes and driver; the head relays them and keeps none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import zray

HUGE = 100_000_000
HEAD_GROWTH_BYTES = 200_000_000  # at most, however large the values are


@pytest.fixture
def places(bare: Any) -> Iterator[Any]:
    """Nodes ``one`` and ``two`` with the resources ``a`` and ``b``; this process is a driver."""
    bare.start_head()
    bare.start_node("one", 1, "--resources", "a=9", wait=False)
    bare.start_node("two", 1, "--resources", "b=9", wait=False)
    bare.await_node("one")
    bare.await_node("two")
    bare.connect()
    yield bare


def peak(process: psutil.Process) -> int:
    """The most memory that a process has had, in bytes."""
    with open(f"/proc/{process.pid}/status") as status:
        found = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return int(found[0]) * 1024


def test_hundreds_of_megabytes_pass_a_head_that_stays_small(places: Any) -> None:
    head = psutil.Process(places.head.pid)
    before = head.memory_info().rss

    @zray.task(resources={"a": 1})
    def make(fill: int) -> bytes:
        return bytes([fill]) * HUGE

    @zray.task
    def ends(value: bytes) -> tuple[int, int, int]:
        return len(value), value[0], value[-1]

    on_one = ends.options(resources={"a": 1})
    on_two = ends.options(resources={"b": 1})
    result = make.remote(3)
    assert zray.get(on_two.remote(result), timeout=30) == (HUGE, 3, 3)
    value = zray.get(result, timeout=30)
    assert (len(value), value[0], value[-1]) == (HUGE, 3, 3)
    del value, result

    stored = zray.put(b"\x05" * HUGE)
    users = [on.remote(stored) for on in (on_one, on_two, on_one, on_two)]
    assert zray.get(users, timeout=30) == [(HUGE, 5, 5)] * 4
    assert peak(head) - before < HEAD_GROWTH_BYTES
    del stored, users
    places.until(lambda: places.status().objects == 0, 10, "all objects are free")


def test_a_chain_of_large_results_across_nodes(places: Any) -> None:
    @zray.task
    def grow(value: bytes, place: int) -> bytes:
        assert len(value) == 1_000_000 + place
        return value + bytes([place])

    link = zray.put(b"\xff" * 1_000_000)
    for place in range(20):
        link = grow.options(resources={"ab"[place % 2]: 1}).remote(link, place)
    assert zray.get(link, timeout=30)[-20:] == bytes(range(20))
