"""What a node says of itself when it joins."""

from __future__ import annotations

import msgspec
import pytest

from zray import limits
from zray.nodes.options import NodeOptions
from zray.nodes.raylet.node_info import HEAD_NODE, node_info
from zray.protocol.messages import NodeInfo
from zray.runtime.linux import machine
from zray.runtime.linux.gpus import Gpu

ID = b"node".ljust(16, b"\0")


def said(options: NodeOptions, *gpus: str, is_of_head: bool = False) -> NodeInfo:
    cards = [
        Gpu(place, f"GPU-{place}", name, 1 << 30, str(place)) for place, name in enumerate(gpus)
    ]
    found = msgspec.structs.replace(machine.detect(), gpus=cards)
    return node_info(
        *(options, found, ID), host="10.0.0.1", liveness="10.0.0.1:1", is_of_head=is_of_head
    )


def test_a_node_has_one_of_itself_and_the_heads_own_node_one_more() -> None:
    options = NodeOptions(num_cpus=2, object_store_bytes=1 << 27, resources={"disk": 3})
    resources = dict(said(options).resources)

    assert resources["CPU"] == 2 * limits.RESOURCE_UNIT
    assert resources["disk"] == 3 * limits.RESOURCE_UNIT
    assert resources["node:10.0.0.1"] == limits.RESOURCE_UNIT
    assert resources["object_store_memory"] == (1 << 27) * limits.RESOURCE_UNIT
    assert HEAD_NODE not in resources
    assert dict(said(options, is_of_head=True).resources)[HEAD_NODE] == limits.RESOURCE_UNIT


def test_what_it_was_started_with_counts_but_its_id_is_its_own() -> None:
    labels = {"ray.io/node-id": "other", "zone": "a"}
    options = NodeOptions(resources={"node:10.0.0.1": 5}, labels=labels)
    info = said(options)

    assert dict(info.resources)["node:10.0.0.1"] == 5 * limits.RESOURCE_UNIT
    assert dict(info.labels) == {"ray.io/node-id": ID.hex(), "zone": "a"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA RTX PRO 6000 Blackwell", "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 5090", "GeForce-RTX-5090"),
    ],
)
def test_the_kind_of_its_gpus_is_a_label_and_a_resource(name: str, kind: str) -> None:
    info = said(NodeOptions(), name, name)

    assert dict(info.labels) == {"ray.io/node-id": ID.hex(), "ray.io/accelerator-type": kind}
    assert dict(info.resources)[f"accelerator_type:{kind}"] == limits.RESOURCE_UNIT


def test_gpus_of_several_kinds_or_none_are_of_no_kind() -> None:
    for gpus in ((), ("NVIDIA H200", "NVIDIA L4")):
        info = said(NodeOptions(), *gpus)
        assert dict(info.labels) == {"ray.io/node-id": ID.hex()}
        assert not any("accelerator" in name for name, _ in info.resources)
    assert len(dict(said(NodeOptions(num_gpus=0), "NVIDIA H200").labels)) == 1
