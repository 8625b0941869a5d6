"""Classes and functions that are objects of the cluster, after the nodes are gone that had them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

import zray

GET_S = 40.0
BYTES = 12_000_000
OWN = "head"  # the head's own node, of which a driver on that machine shares the memory

MAKE_DETACHED = """
import zray
zray.init()

@zray.remote(num_cpus=0, resources={"one": 1})
def make():
    data = bytes(12_000_000)

    class Large:
        def size(self):
            return len(data)

    options = dict(num_cpus=0, resources={"one": 1}, max_restarts=-1, max_task_retries=-1)
    there = dict(name="kept", namespace="x", lifetime="detached")
    actor = zray.remote(Large).options(**options, **there).remote()
    return zray.get(actor.size.remote())

print(zray.get(make.remote()))
"""


def gone(cluster: Any, name: str) -> None:
    """The node is killed, and another one of the head's own has come in its place."""
    pid = cluster.node(name).info.pid
    os.kill(pid, signal.SIGKILL)

    def is_gone() -> bool:
        node = cluster.node(name)
        return node is None or node.info.pid != pid

    cluster.until(is_gone, 35, f"node {name} is dead")


@pytest.mark.filterwarnings("ignore:The remote function")
def test_a_driver_that_has_a_class_gives_it_to_other_nodes(sites: Any) -> None:
    data = bytes(BYTES)

    class Large:
        def size(self) -> int:
            return len(data)

    @zray.remote(num_cpus=0)
    def size() -> int:
        return len(data)

    large = zray.remote(num_cpus=0)(Large)
    actor = large.options(resources={"one": 1}).remote()
    assert zray.get(actor.size.remote(), timeout=GET_S) == BYTES
    assert zray.get(size.options(resources={"one": 1}).remote(), timeout=GET_S) == BYTES
    gone(sites, "one")
    gone(sites, OWN)
    actor = large.options(resources={"two": 1}).remote()
    assert zray.get(actor.size.remote(), timeout=GET_S) == BYTES
    assert zray.get(size.options(resources={"two": 1}).remote(), timeout=GET_S) == BYTES


def test_a_class_that_nobody_has_any_more_says_so(bare: Any) -> None:
    """Its program has left, and the only node that had it is gone."""
    bare.start_head()
    bare.start_node("one", 1, "--resources", "one=10")
    program = bare.run("maker", MAKE_DETACHED)
    assert program.wait(GET_S) == 0, program.text()
    assert program.says(str(BYTES))
    bare.connect()
    actor = zray.get_actor("kept", namespace="x")
    gone(bare, "one")
    bare.start_node("another", 1, "--resources", "one=10")
    with pytest.raises(zray.errors.ActorDiedError, match="Large captures so much that its code"):
        zray.get(actor.size.remote(), timeout=GET_S)
