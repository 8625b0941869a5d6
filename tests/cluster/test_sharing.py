"""Two nodes share the work of one driver: placement, prints, and what the cluster says of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

import zray
from zray.limits import PING_S


def test_both_nodes_finish_tasks_and_their_prints_reach_the_driver(
    connected: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    @zray.task
    def double(number: int) -> int:
        print("doubling", number)
        time.sleep(0.05)
        return 2 * number

    assert zray.get([double.remote(i) for i in range(10)], timeout=20) == [2 * i for i in range(10)]

    def finished() -> dict[str, int]:
        return {node["NodeName"]: node["TasksFinished"] for node in zray.nodes()}

    connected.until(lambda: sum(finished().values()) == 10, 2 * PING_S, "all are counted")
    assert finished()["one"] > 0 and finished()["two"] > 0
    printed = ""

    def all_printed() -> bool:
        nonlocal printed
        printed += capfd.readouterr().out
        return printed.count("doubling") == 10

    connected.until(all_printed, 5, "every print arrives")
    for node in ("one", "two"):
        assert f"node={node}) doubling" in printed


def test_custom_resources_and_labels_place_tasks(bare: Any) -> None:
    bare.start_head()
    bare.start_node("plain", 1, wait=False)
    bare.start_node("special", 1, "--resources", "disk=2", "--labels", "zone=a", wait=False)
    bare.await_node("plain")
    bare.await_node("special")
    bare.connect()

    @zray.task(resources={"disk": 1})
    def where() -> str:
        return str(zray.get_runtime_context().get_node_id())

    nodes = {node["NodeName"]: node for node in zray.nodes()}
    places = set(zray.get([where.remote() for _ in range(6)], timeout=20))
    assert places == {nodes["special"]["NodeID"]}
    labels = {"zone": "a", "ray.io/node-id": nodes["special"]["NodeID"]}
    assert nodes["special"]["Labels"] == labels
    assert nodes["special"]["Resources"]["disk"] == 2
    assert "disk" not in nodes["plain"]["Resources"]
    bare.until(lambda: zray.available_resources().get("disk") == 2, 5, "the resource is free again")
