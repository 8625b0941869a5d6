"""Generators on one node and their consumers on another, and a head that is killed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import zray

GET_S = 40.0
ITEMS = 120
SMALL, LARGE = 10, 100_000  # bytes of an item; the larger ones are objects of the producer's node


@zray.task(num_cpus=0, resources={"two": 1})
def produce(write: Any, name: str, size: int) -> Iterator[bytes]:
    for number in range(ITEMS):
        time.sleep(0.01)
        write(f"yields:{name}:{number}")
        yield number.to_bytes(2, "big") * (size // 2)


@zray.actor
class Producer:
    def produce(self, write: Any, name: str, size: int) -> Iterator[bytes]:
        for number in range(ITEMS):
            time.sleep(0.01)
            write(f"yields:{name}:{number}")
            yield number.to_bytes(2, "big") * (size // 2)


def consume(write: Any, name: str, generator: Any, size: int) -> int:
    """How many items came; each is the one that is next."""
    count = 0
    for ref in generator:
        value = zray.get(ref, timeout=GET_S)
        assert value == count.to_bytes(2, "big") * (size // 2), (name, count, value[:2])
        write(f"reads:{name}:{count}")
        count += 1
    return count


@zray.task(num_cpus=0, resources={"one": 1})
def consume_there(write: Any, producer: Any, name: str, size: int) -> int:
    method = produce if producer is None else producer.produce
    generator = method.remote(write, name, size)
    return consume(write, name, generator, size)


def read_across(cluster: Any, records: Any, *options: str) -> None:
    """Every way from the node ``two`` to ``one`` and to this process; the head dies amidst."""
    write = records.write
    producer = Producer.options(num_cpus=0, resources={"two": 1}, max_concurrency=4).remote()
    there = [
        consume_there.remote(write, made_by, f"{kind}-{size}", size)
        for kind, made_by in (("task", None), ("call", producer))
        for size in (SMALL, LARGE)
    ]
    mine = produce.remote(write, "mine", SMALL), producer.produce.remote(write, "called", LARGE)
    first = [next(generator) for generator in mine]
    read = [f"reads:{kind}-{size}:5" for kind in ("task", "call") for size in (SMALL, LARGE)]
    cluster.until(lambda: {*read} <= {*records.lines()}, 20, "all have begun")
    address = cluster.address
    cluster.head.kill()
    cluster.start_head(*options, port=-1)
    cluster.address = address

    assert zray.get(there, timeout=GET_S) == [ITEMS] * 4
    assert [zray.get(ref, timeout=GET_S)[:2] for ref in first] == [b"\0\0"] * 2
    for name, generator, size in zip(("mine", "called"), mine, (SMALL, LARGE), strict=True):
        rest = [zray.get(ref, timeout=GET_S) for ref in generator]
        assert [value[1] for value in rest] == [*range(1, ITEMS)], name
        assert {len(value) for value in rest} == {size}
    lines = records.lines()
    assert len(lines) == len({*lines}) == 6 * ITEMS + 4 * ITEMS  # nothing was yielded twice
    del there, mine, generator, first, rest, producer
    cluster.until(cluster.at_rest, 10, "all resources are free")
    cluster.until(lambda: cluster.status().objects == 0, 10, "all objects are free")


def test_across_nodes_while_the_head_is_killed(sites: Any, records: Any) -> None:
    read_across(sites, records)


@pytest.mark.system
def test_across_machines_while_the_head_is_killed(apart: Any, records: Any) -> None:
    cluster, _ = apart
    read_across(cluster, records, "--host", "0.0.0.0")
