"""Generators on one node and their consumers on another, and a head that is killed meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zray
from tests.cluster.leasing import leased

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


def squares(count: int) -> Iterator[Any]:
    """Large items, and in each the name of the node."""
    node = zray.get_runtime_context().get_node_name()
    for number in range(count):
        yield node, np.full(LARGE, number * number, np.uint16)


def slow_squares(count: int) -> Iterator[Any]:
    for item in squares(count):
        time.sleep(0.2)
        yield item


def squares_or_less(count: int, path: str) -> Iterator[Any]:
    """Two items less when it runs again."""
    if os.path.exists(path):
        count -= 2
    Path(path).touch()
    yield from squares(count)


def node_gone(cluster: Any, name: str) -> None:
    """The node is killed, and the head knows."""
    next(program for program in cluster.programs if program.name == name).kill()
    cluster.until(lambda: cluster.node(name) is None, 35, f"node {name} is dead")


@pytest.mark.parametrize("num_returns", ["streaming", "dynamic"])
@pytest.mark.filterwarnings("ignore:num_returns='dynamic'")
def test_items_that_went_with_their_node_are_made_again(sites: Any, num_returns: str) -> None:
    made = zray.remote(num_cpus=1, num_returns=num_returns)(squares).remote(5)
    refs = [*(made if num_returns == "streaming" else zray.get(made, timeout=GET_S))]
    zray.wait(refs, num_returns=5, fetch_local=False, timeout=GET_S)
    node, _ = zray.get(refs[1], timeout=GET_S)
    del refs[1], made
    node_gone(sites, node)
    for ref, square in zip(refs, (0, 4, 9, 16), strict=True):
        where, value = zray.get(ref, timeout=GET_S)
        assert where != node and value[-1] == square
        del value
    assert dict(sites.status().counters)["rebuilt"] == 1
    del ref, refs
    sites.until(sites.at_rest, 10, "all resources are free")
    sites.until(lambda: sites.status().objects == 0, 10, "all objects are free")


def test_items_of_a_leased_task_are_made_again_while_it_runs_and_after(sites: Any) -> None:
    """It is in its second attempt when the first half of its items is asked for."""
    leased(zray.task(lambda: time.sleep(0.005)))
    made = zray.task(slow_squares).remote(8)
    refs = [next(made) for _ in range(4)]
    node, _ = zray.get(refs[0], timeout=GET_S)
    node_gone(sites, node)
    assert [zray.get(ref, timeout=GET_S)[1][0] for ref in refs] == [0, 1, 4, 9]
    refs += [*made]
    other, _ = zray.get(refs[-1], timeout=GET_S)
    assert other != node and dict(sites.status().counters)["rebuilt"] == 0
    sites.start_node("three")
    node_gone(sites, other)
    squares = [zray.get(ref, timeout=GET_S)[1][0] for ref in refs]
    assert squares == [number * number for number in range(8)]
    assert dict(sites.status().counters)["rebuilt"] == 1


def test_an_item_that_is_not_yielded_again_is_lost(sites: Any, tmp_path: Path) -> None:
    made = zray.remote(num_cpus=1)(squares_or_less).remote(5, str(tmp_path / "ran"))
    refs = [*made]
    node, _ = zray.get(refs[0], timeout=GET_S)
    node_gone(sites, node)
    assert [zray.get(ref, timeout=GET_S)[1][0] for ref in refs[:3]] == [0, 1, 4]
    for ref in refs[3:]:
        with pytest.raises(zray.errors.ObjectLostError, match="did not yield as many items"):
            zray.get(ref, timeout=GET_S)
