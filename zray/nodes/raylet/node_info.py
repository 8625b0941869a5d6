"""What a node says of itself when it joins: resources and labels, under the names that Ray has."""

from __future__ import annotations

import os
import re

from zray import limits
from zray.core.resources import HEAD_NODE
from zray.nodes.options import AMOUNT_MAX, NodeOptions, units
from zray.nodes.raylet.node_labels import labels_of
from zray.protocol.messages import NodeInfo
from zray.runtime.linux.machine import Machine

NODE_ID = "ray.io/node-id"  # labels
ACCELERATOR_TYPE = "ray.io/accelerator-type"
# Of "NVIDIA A100-SXM4-40GB" A100, of "NVIDIA RTX PRO 6000" RTX-PRO-6000: as Ray's nvidia_gpu.
_ACCELERATOR = re.compile(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)")


def node_info(
    options: NodeOptions,
    found: Machine,
    node_id: bytes,
    *,
    host: str,
    liveness: str,
    is_of_head: bool,
) -> NodeInfo:
    """The account of a node on the machine that was ``found``.

    ``host``, ``liveness``: where it is reached. ``is_of_head``: it is the head's own node. Beside
    what it was started with, it has 1 of ``node:HOST``, so that tasks can ask for that node.
    """
    amounts = units(options, found.cpus, len(found.gpus), found.memory_bytes)
    one = limits.RESOURCE_UNIT
    extra = {
        f"node:{host}"[: limits.NAME_MAX]: one,
        "object_store_memory": min(store_bytes(options, found), AMOUNT_MAX - 1) * one,
    }
    if is_of_head:
        extra[HEAD_NODE] = one
    labels = {**labels_of(options.labels, os.environ), NODE_ID: node_id.hex()}
    kind = _accelerator(found) if amounts.get("GPU") else ""
    if kind:
        extra[f"accelerator_type:{kind}"] = one
        labels.setdefault(ACCELERATOR_TYPE, kind)
    return NodeInfo(
        name=options.name or found.hostname,
        host=host,
        pid=os.getpid(),
        resources=sorted({**extra, **amounts}.items()),
        labels=sorted(labels.items()),
        machine=found.machine_id,
        liveness=liveness,
        offers=list(options.offers),
    )


def store_bytes(options: NodeOptions, found: Machine) -> int:
    """How much memory its objects may have."""
    if options.object_store_bytes is not None:
        return options.object_store_bytes
    return int(found.memory_bytes * limits.STORE_SHARE)


def _accelerator(found: Machine) -> str:
    """What its GPUs are, in a word; empty where there are none, or of several kinds."""
    names = {gpu.name for gpu in found.gpus}
    if len(names) != 1:
        return ""
    name = names.pop()
    if name.startswith("AMD "):
        return name.replace(" ", "-")  # AMD-Instinct-MI300X-OAM, as Ray's amd_gpu
    match = _ACCELERATOR.match(name)
    return (match.group(1) if match is not None else name.removeprefix("NVIDIA ")).replace(" ", "-")
