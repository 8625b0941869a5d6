"""Head and nodes as on different machines: network namespaces with links of their own.

Needs the right to make network namespaces (root); where that is missing, these tests fail and say
so, and `-m "not system"` leaves them out.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

import zray
from zray.limits import PING_S

pytestmark = pytest.mark.system

CUT_S = 5.0  # shorter than DEAD_S: nothing may be lost


def test_nodes_at_different_addresses_share_work_and_values(apart: Any) -> None:
    cluster, _ = apart
    assert {cluster.node(name).info.host for name in ("one", "two")} == {"10.231.1.2", "10.231.2.2"}

    @zray.task
    def make(place: int) -> bytes:
        time.sleep(0.05)
        return bytes([place]) * 1_000_000

    @zray.task
    def first(value: bytes) -> int:
        time.sleep(0.05)
        return value[0]

    made = [make.remote(place) for place in range(8)]
    assert zray.get([first.remote(ref) for ref in made], timeout=30) == list(range(8))
    assert all(len(value) == 1_000_000 for value in zray.get(made, timeout=30))

    def counted() -> bool:
        return all(cluster.node(name).finished for name in ("one", "two"))

    cluster.until(counted, 5 + PING_S, "both nodes have run some, and this driver has told so")


@pytest.mark.slow_limit(90)
def test_a_cut_of_seconds_loses_nothing_and_a_long_one_moves_the_task(
    apart: Any, records: Any
) -> None:
    cluster, network = apart
    write = records.write

    @zray.task
    def work(place: int, seconds: float) -> int:
        write(place)
        time.sleep(seconds)
        return place

    refs = [work.remote(place, 0.5) for place in range(16)]
    records.until(3)
    network.set("one", "down")
    time.sleep(CUT_S)  # the length of the fault
    network.set("one", "up")
    assert zray.get(refs, timeout=30) == list(range(16))
    assert sorted(map(int, records.lines())) == list(range(16))
    counters = dict(cluster.status().counters)
    assert counters["retried"] == 0
    before = cluster.await_node("one")

    refs = [work.remote(place, 3.0) for place in (16, 17)]
    records.until(18)  # one runs on each node
    network.set("one", "down")
    cluster.until(lambda: cluster.node("one") is None, 35, "the node is dead")
    assert zray.get(refs, timeout=30) == [16, 17]
    assert len(records.lines()) == 19
    network.set("one", "up")
    after = cluster.await_node("one", 30)
    assert after.node_id == before.node_id and after.incarnation > before.incarnation
    assert zray.get([work.remote(place, 0.2) for place in range(6)], timeout=20) == list(range(6))
    cluster.until(cluster.at_rest, 10, "all resources are free")
