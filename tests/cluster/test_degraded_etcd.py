"""An etcd that is not well under two heads: what runs goes on, the rest waits, and all returns.

No head, node or program has to be started again in any case.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.cluster.test_degraded_store import SINCE, Counter, Work
from tests.etcd_cluster import Etcd
from tests.real_cluster import until
from tests.several_heads import Heads
from zray import limits
from zray.errors import GetTimeoutError

pytestmark = pytest.mark.system

GET_S = 30.0
WHY = re.compile("stands by: (no head leads now|.* led when that was last known): etcd at")


class Cluster:
    """Two heads on ``etcd``, the first of which leads, and node ``one`` with 2 CPUs."""

    def __init__(self, etcd: Etcd, heads: Heads) -> None:
        self.etcd = etcd
        self.heads = heads
        assert heads.start(1) == "READY"
        assert heads.start(2) == "STANDBY"
        heads.cluster.start_node("one", 2)
        heads.cluster.connect()
        self._pids = self._processes()

    def health(self) -> str:
        return self.heads.status().health

    def _processes(self) -> list[int]:
        nodes = sorted(node.info.pid for node in self.heads.status().nodes if node.state == "ALIVE")
        return [*nodes, *(program.process.pid for program in self.heads.programs.values())]

    def is_well(self) -> None:
        """Again, with the processes that it had, and an epoch of any head."""
        until(lambda: self.health() == "OK", GET_S, "all is well again")
        until(lambda: self._processes() == self._pids, GET_S, "all nodes are back")
        assert all(one.process.poll() is None for one in self.heads.programs.values())


@pytest.fixture
def cluster(bare: Any, tmp_path: Path) -> Iterator[Any]:
    """``cluster(*options)``: a ``Cluster`` on an ``Etcd`` with these."""
    made: list[Cluster] = []

    def make(*options: Any) -> Cluster:
        etcd = Etcd(tmp_path / "etcd", *options)
        made.append(Cluster(etcd, Heads(bare, etcd.url, tmp_path)))
        return made[-1]

    yield make
    if zray.is_initialized():
        zray.shutdown()
    bare.close()
    for one in made:
        one.heads.close()
        one.etcd.close()


def test_no_majority_for_longer_than_a_lease(cluster: Any) -> None:
    found = cluster(3)
    work = Work()
    epoch = found.heads.cluster.epoch()
    found.etcd.kill(0)
    found.etcd.kill(1)
    asked = Counter.remote().add.remote()
    began = time.monotonic()
    while time.monotonic() < began + 2 * limits.LEADER_TTL_S:
        work.calls_go_on()
    for head in found.heads.programs.values():
        assert WHY.search(head.text())
        assert SINCE.search(head.text()), "and since when"
    with pytest.raises(GetTimeoutError):
        zray.get(asked, timeout=0.1)
    found.etcd.start(0, wait=False)
    found.etcd.start(1)
    assert zray.get(asked, timeout=GET_S) == 1
    found.is_well()
    assert found.heads.cluster.epoch() > epoch
    work.goes_on()


def test_a_full_etcd(cluster: Any) -> None:
    found = cluster(1, "--quota-backend-bytes", str(16 << 20))
    work = Work()
    epoch = found.heads.cluster.epoch()
    with pytest.raises(OSError):
        for number in range(100):
            found.etcd.put(b"other%d" % number, b"x" * 1_000_000)
    asked = Counter.remote().add.remote()
    until(lambda: "is full" in found.health(), GET_S, "the health says so")
    assert found.health().startswith("DEGRADED: the") and SINCE.search(found.health())
    time.sleep(limits.LEADER_TTL_S)
    work.goes_on()
    found.etcd.make_room(b"other")
    assert zray.get(asked, timeout=GET_S) == 1
    found.is_well()
    assert found.heads.cluster.epoch() == epoch, "its lease needs no room"


def test_slow_disks(cluster: Any) -> None:
    found = cluster(3)
    work = Work()
    found.etcd.slow(0.5)
    assert zray.get(Counter.remote().add.remote(), timeout=GET_S) == 1
    work.goes_on()
    found.etcd.fast()
    found.etcd.slow(4.0)
    asked = Counter.remote().add.remote()
    began = time.monotonic()
    while time.monotonic() < began + 2 * limits.LEADER_TTL_S:
        work.calls_go_on()
    found.etcd.fast()
    assert zray.get(asked, timeout=GET_S) == 1
    found.is_well()
    work.goes_on()
