"""A head that is killed and started again: nobody but the clock notices."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from typing import Any

import pytest

import zray
from zray.protocol import messages as m

LARGE = 1 << 20


def restart(cluster: Any) -> None:
    """``kill -9``, and the next start on the same port and data directory."""
    cluster.head.kill()
    cluster.start_head(port=-1)


def test_every_kind_of_task_and_reference_outlives_the_head(
    connected: Any, records: Any, gate: Any
) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def small(place: int) -> int:
        return place

    @zray.task
    def large(place: int) -> bytes:
        return bytes([place]) * LARGE

    @zray.task
    def held(place: int) -> int:
        write(f"held-{place}")
        wait()
        return 10 * place

    @zray.task
    def size(value: bytes) -> int:
        return len(value)

    known = small.remote(7)
    assert zray.get(known, timeout=20) == 7
    unseen = [small.remote(8), large.remote(9)]
    zray.wait(unseen, num_returns=2, timeout=20, fetch_local=False)
    stored = zray.put(b"z" * LARGE)
    assert zray.get(size.remote(stored), timeout=20) == LARGE
    waiting = [held.remote(place) for place in range(6)]
    records.until(2)
    epoch = connected.epoch()

    restart(connected)

    assert connected.epoch() > epoch
    later = [size.remote(unseen[1]), size.remote(stored), small.remote(known), held.remote(6)]
    assert zray.get(unseen[0], timeout=20) == 8
    assert zray.get(unseen[1], timeout=20) == bytes([9]) * LARGE
    gate.open()
    assert zray.get(waiting, timeout=20) == [10 * place for place in range(6)]
    assert zray.get(later, timeout=20) == [LARGE, LARGE, 7, 60]
    assert sorted(records.lines()) == [f"held-{place}" for place in range(7)]
    assert zray.get(known, timeout=20) == 7
    del known, unseen, stored, waiting, later
    connected.until(connected.at_rest, 10, "all resources are free")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


def test_nested_tasks_in_flight_outlive_the_head(connected: Any, records: Any, gate: Any) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def child(place: int) -> int:
        write(f"child-{place}")
        wait()
        return place

    @zray.task
    def parent() -> int:
        write("parent")
        return sum(zray.get([child.remote(place) for place in range(5)]))

    result = parent.remote()
    records.until(3)  # the parent waits; a child runs on each node

    restart(connected)

    gate.open()
    assert zray.get(result, timeout=20) == 10
    lines = [f"child-{place}" for place in range(5)]
    assert sorted(records.lines()) == [*lines, "parent"]


def test_a_blocked_get_goes_on_while_the_head_is_away(connected: Any, gate: Any) -> None:
    wait = gate.wait

    @zray.task
    def held() -> str:
        wait()
        return "done"

    result = held.remote()
    found: list[Any] = []
    getter = threading.Thread(target=lambda: found.append(zray.get(result, timeout=30)))
    getter.start()
    connected.head.kill()
    gate.open()  # the task ends while there is no head
    connected.start_head(port=-1)
    getter.join(20)
    assert found == ["done"]


def test_a_driver_outlives_everybody_else(connected: Any, records: Any, gate: Any) -> None:
    """Nodes that were killed while the head was away are not waited for: their ports refuse."""
    write, wait = records.write, gate.wait

    @zray.task
    def held(place: int) -> int:
        write(place)
        wait()
        return place

    refs = [held.remote(place) for place in range(4)]
    records.until(2)
    connected.until(lambda: _known_ports(connected) == 3, 5, "it is stored where to knock")
    for program in connected.programs:
        program.kill()
    connected.start_head(port=-1)
    connected.start_node("one", wait=False)
    connected.start_node("two", wait=False)
    gate.open()
    assert zray.get(refs, timeout=10) == list(range(4))
    assert len(records.lines()) == 6


def _known_ports(cluster: Any) -> int:
    """How many nodes' own ports the store knows to have answered."""
    path = cluster.home / "clusters" / "default" / "gcs.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        rows = store.execute("SELECT value FROM rows WHERE kind = 'nodes'").fetchall()
    return sum(b"127.0.0.1:" in value for (value,) in rows)


@pytest.mark.slow_limit(90)
def test_a_stream_of_tasks_outlives_kills_at_random_moments(connected: Any, records: Any) -> None:
    write = records.write

    @zray.task
    def work(place: int) -> int:
        write(place)
        time.sleep(0.003)
        return place

    @zray.task
    def add(left: int, right: int) -> int:
        return left + right

    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    refs = []
    for kill in range(4):
        refs += [work.remote(place) for place in range(125 * kill, 125 * kill + 125)]
        time.sleep(chance.uniform(0.0, 0.3))
        restart(connected)
    sums = [add.remote(refs[place], refs[-1 - place]) for place in range(50)]
    assert zray.get(refs, timeout=30) == list(range(500))
    assert zray.get(sums, timeout=30) == [499] * 50
    assert sorted(map(int, records.lines())) == list(range(500))
    connected.until(connected.at_rest, 10, "all resources are free")


def test_a_clean_stop_keeps_functions_and_key_values(connected: Any) -> None:
    @zray.task
    def double(number: int) -> int:
        return 2 * number

    assert zray.get(double.remote(1), timeout=20) == 2
    peer = connected.peer(m.ROLE_DRIVER)
    peer.send(m.Kv(1, "put", b"colour", b"blue"))
    assert not peer.receive(m.KvReply).found
    peer.send(m.Goodbye(0, "done"))
    peer.close()

    assert connected.head.stop() == 0
    connected.start_head(port=-1)

    # The driver was told that the function is durable, so it does not send it again.
    assert zray.get(double.remote(2), timeout=20) == 4
    peer = connected.peer(m.ROLE_DRIVER)
    peer.send(m.Kv(1, "get", b"colour"))
    assert peer.receive(m.KvReply).value == b"blue"
    peer.send(m.Goodbye(0, "done"))
    peer.close()
