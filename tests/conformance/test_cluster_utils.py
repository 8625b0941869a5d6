"""Contracts of ``ray.cluster_utils.Cluster``: several nodes on one host, added and removed."""

from __future__ import annotations

import os
import time

import pytest
import ray
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.slow_limit(150)


@pytest.fixture(scope="module")
def three():
    """A cluster of a head and two nodes, to which the module is connected."""
    cluster = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False},
    )
    cluster.add_node(num_cpus=2, resources={"left": 1}, labels={"side": "left"})
    cluster.add_node(num_cpus=2, resources={"right": 2})
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@ray.remote(num_cpus=0)
def where():
    return ray.get_runtime_context().get_node_id()


@ray.remote(num_cpus=0)
class Resident:
    def where(self):
        return ray.get_runtime_context().get_node_id()

    def pid(self):
        return os.getpid()


def eventually(true, within_s=60.0):
    """Whether it comes true."""
    deadline = time.monotonic() + within_s
    while not (reached := true()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return reached


def alive():
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def test_its_nodes_have_what_they_were_given(three) -> None:
    """The cluster has the sum; a node has one CPU if nothing is said."""
    found = ray.cluster_resources()
    assert (found["CPU"], found["left"], found["right"]) == (5.0, 1.0, 2.0)


def test_it_lists_its_nodes(three) -> None:
    """The head's is the first; each has the id that ``ray.nodes`` has."""
    nodes = three.list_all_nodes()
    assert len(nodes) == 3
    assert nodes[0] == three.head_node
    assert {*nodes[1:]} == three.worker_nodes
    assert {node.node_id for node in nodes} == alive()


def test_its_address_is_the_head_s(three) -> None:
    """As programs connect to it."""
    host, _, port = three.address.rpartition(":")
    assert host and port.isdigit()
    assert three.gcs_address == three.address == ray.get_runtime_context().gcs_address


def test_tasks_run_on_the_node_that_has_what_they_need(three) -> None:
    """The nodes are told apart by resources and labels."""
    left = ray.get(where.options(resources={"left": 0.5}).remote())
    right = ray.get(where.options(resources={"right": 1}).remote())
    labelled = ray.get(where.options(label_selector={"side": "left"}).remote())
    assert left != right and labelled == left
    assert {left, right} == {node.node_id for node in three.worker_nodes}


def test_large_values_travel_between_its_nodes(three) -> None:
    """From the node that made it to the one that asks."""

    @ray.remote(resources={"left": 0.1}, num_cpus=0)
    def make():
        return b"x" * 3_000_000

    @ray.remote(resources={"right": 0.1}, num_cpus=0)
    def measure(data):
        return len(data)

    assert ray.get(measure.remote(make.remote())) == 3_000_000


def test_a_node_that_is_added_is_used_and_one_that_is_removed_is_not(three) -> None:
    """``add_node`` returns when the node is there, ``remove_node`` when its processes are gone."""
    node = three.add_node(num_cpus=3, resources={"extra": 1})
    assert node.node_id in alive()
    assert len(three.list_all_nodes()) == 4
    resident = Resident.options(resources={"extra": 1}).remote()
    assert ray.get(resident.where.remote()) == node.node_id

    three.remove_node(node)

    assert len(three.list_all_nodes()) == 3
    assert eventually(lambda: node.node_id not in alive())
    three.wait_for_nodes()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(resident.where.remote(), timeout=60)


def test_a_node_can_be_removed_without_grace(three) -> None:
    """``allow_graceful=False`` kills it; a task that ran there runs again elsewhere."""
    node = three.add_node(num_cpus=1, resources={"brief": 1})
    resident = Resident.options(resources={"brief": 1}).remote()
    pid = ray.get(resident.pid.remote())

    three.remove_node(node, allow_graceful=False)

    assert eventually(lambda: node.node_id not in alive())
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_wait_for_nodes_waits_no_longer_than_it_is_told(three) -> None:
    """Where one is missing that should be there: a TimeoutError."""
    node = three.add_node(num_cpus=1)
    three.remove_node(node)
    three.worker_nodes.add(node)
    try:
        assert eventually(lambda: node.node_id not in alive())
        with pytest.raises(TimeoutError):
            three.wait_for_nodes(timeout=1)
    finally:
        three.worker_nodes.discard(node)
    three.wait_for_nodes()


def test_it_has_no_address_before_its_head() -> None:
    """And nothing to connect to."""
    cluster = Cluster()
    assert cluster.address is None
    assert cluster.head_node is None and cluster.list_all_nodes() == []
    with pytest.raises(RuntimeError):
        Cluster(connect=True)
    cluster.shutdown()


def test_unknown_arguments_of_a_node(three) -> None:
    """Are an error at once."""
    with pytest.raises(TypeError):
        three.add_node(num_cpu=1)
    assert len(three.list_all_nodes()) == 3
