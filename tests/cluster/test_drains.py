"""Nodes that are emptied, on real clusters: what is there ends or moves, and the process ends."""

from __future__ import annotations

import time
from typing import Any

import numpy
import pytest

import zray
from tests.real_cluster import START_S, until
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

OBJECTS = 12


@zray.remote(max_retries=0)
def sleeps(seconds: float) -> str:
    time.sleep(seconds)
    return str(zray.get_runtime_context().get_node_id())


@zray.remote
def large(number: int) -> Any:
    return numpy.full(1 << 17, number)


@zray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Here:
    def node(self) -> str:
        return str(zray.get_runtime_context().get_node_id())


@pytest.fixture
def two(bare: Any) -> Any:
    """Nodes n1 and n2, of which n1 is to go; only it has ``first``."""
    bare.start_head()
    for name, extra in (("n1", "first=100,both=1"), ("n2", "both=1")):
        bare.start_node(name, 2, "--resources", extra)
    bare.connect()
    return bare


def drain(cluster: Any, name: str, deadline_s: float = 0.0) -> None:
    with Operator(cluster.info(), cluster.address) as operator:
        operator.drain(operator.locate(name, m.A_NODE), "a test", deadline_s)


def program(cluster: Any, name: str) -> Any:
    return next(one for one in cluster.programs if one.name == name)


def test_what_is_there_ends_or_moves(two: Any) -> None:
    n1, n2 = (two.node(name).node_id.hex() for name in ("n1", "n2"))
    first = {"resources": {"first": 1}}
    values = [large.options(**first).remote(number) for number in range(OBJECTS)]
    zray.wait(values, num_returns=OBJECTS, fetch_local=False)
    actor = Here.options(resources={"both": 0.1}).remote()
    moves = zray.get(actor.node.remote()) == n1
    running = [sleeps.options(**first).remote(2) for _ in range(2)]
    queued = [sleeps.options(num_cpus=0.5).remote(0.1) for _ in range(20)]
    until(lambda: two.node("n1").running >= 2, START_S, "both run")

    drain(two, "n1")
    until(lambda: two.node("n1").state == "DRAINING", START_S, "it is drained")
    assert zray.get(running) == [n1] * 2  # none of them may run twice
    assert set(zray.get(queued)) <= {n1, n2}
    assert program(two, "n1").wait(20) == 0
    assert two.node("n1") is None
    assert [int(value[0]) for value in zray.get(values)] == [*range(OBJECTS)]
    counters = dict(two.status().counters)
    assert counters["rebuilt"] == counters["lost"] == 0
    assert zray.get(actor.node.remote()) == n2
    assert not moves or [one.restarts for one in two.status().actors] == [1]


def test_the_next_head_goes_on_with_it(two: Any) -> None:
    running = sleeps.options(resources={"first": 1}).remote(6)
    until(lambda: two.node("n1").running, START_S, "it runs")
    drain(two, "n1")
    until(lambda: two.node("n1").state == "DRAINING", START_S, "it is drained")
    two.head.kill()
    two.start_head(port=-1)
    until(lambda: (n1 := two.node("n1")) and n1.state == "DRAINING", START_S, "it still is")
    assert zray.get(running)
    assert program(two, "n1").wait(20) == 0


def test_one_that_dies_meanwhile_has_died(two: Any) -> None:
    task = sleeps.options(resources={"first": 1}, max_retries=0).remote(600)
    until(lambda: two.node("n1").running, START_S, "it runs")
    drain(two, "n1")
    program(two, "n1").kill()
    with pytest.raises(zray.exceptions.NodeDiedError):
        zray.get(task, timeout=40)
    assert two.node("n1") is None
