"""Head and nodes as on different machines: network namespaces with links of their own.

Needs the right to make network namespaces (root); where that is missing, these tests fail and say
so, and `-m "not system"` leaves them out.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zray

pytestmark = pytest.mark.system

CUT_S = 5.0  # shorter than DEAD_S: nothing may be lost


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    text = f"ip {' '.join(words)}: {done.stderr}; it takes root, and see the top of this file"
    assert done.returncode == 0, text


class Network:
    """A namespace ``head`` that is linked with the test's own and with one for each node.

    Link n has the network 10.231.n.0/24 and the head's end .1; nobody routes between them.
    """

    def __init__(self, *nodes: str) -> None:
        self._mark = f"zt{os.getpid() % 10_000}"
        self.nodes = nodes
        self._made: list[str] = []
        self._space("head")
        self._link(0, "")
        for number, name in enumerate(nodes, 1):
            self._space(name)
            self._link(number, name)

    def space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _space(self, name: str) -> None:
        ip("netns", "add", self.space(name))
        self._made.append(self.space(name))
        ip("-n", self.space(name), "link", "set", "lo", "up")

    def _link(self, number: int, name: str) -> None:
        near, far = f"{self._mark}h{number}", f"{self._mark}n{number}"
        ip("link", "add", near, "type", "veth", "peer", "name", far)
        ip("link", "set", near, "netns", self.space("head"))
        inside = ["-n", self.space(name)] if name else []
        if name:
            ip("link", "set", far, "netns", self.space(name))
        for where, device, host in ((["-n", self.space("head")], near, 1), (inside, far, 2)):
            ip(*where, "address", "add", f"10.231.{number}.{host}/24", "dev", device)
            ip(*where, "link", "set", device, "up")

    def inside(self, name: str) -> list[str]:
        """The words before a command that shall run in the namespace."""
        return ["ip", "netns", "exec", self.space(name)]

    def set(self, name: str, state: str) -> None:
        """``up`` or ``down``: the link between the head and a node."""
        number = self.nodes.index(name) + 1
        ip("-n", self.space("head"), "link", "set", f"{self._mark}h{number}", state)

    def close(self) -> None:
        for name in self._made:  # its links go with it
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=10)


@pytest.fixture
def apart(bare: Any) -> Iterator[tuple[Any, Network]]:
    """A head and the nodes ``one`` and ``two``, each on a machine of its own, so to speak."""
    network = Network("one", "two")
    try:
        bare.prefix = {name: network.inside(name) for name in ("head", *network.nodes)}
        bare.start_head("--host", "0.0.0.0")
        port = bare.address.rpartition(":")[2]
        for number, name in enumerate(network.nodes, 1):
            # A home of its own; the connection file has come there by a copy.
            home = bare.home / name
            home.mkdir()
            copy = home / "connection.json"
            copy.write_bytes((bare.home / "clusters/default/connection.json").read_bytes())
            copy.chmod(0o600)
            bare.address = f"10.231.{number}.1:{port}"
            variables = {"ZRAY_HOME": str(home), "ZRAY_CONNECTION_FILE": str(copy)}
            bare.start_node(name, wait=False, environment=variables)
        bare.address = f"10.231.0.1:{port}"
        for name in network.nodes:
            bare.await_node(name)
        bare.connect()
        yield bare, network
    finally:
        if zray.is_initialized():
            zray.shutdown()
        bare.close()
        network.close()


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
    assert all(cluster.node(name).finished for name in ("one", "two"))


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
