"""Why ready tasks of a class do not run, in one sentence: a look at all nodes, and at no task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zray.core import resources
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import NodeView
from zray.core.resources import CPU, LABELS

WAIT_RESOURCES = "WAIT_RESOURCES"

Nodes = Mapping[bytes, NodeView]


class WaitReason(NamedTuple):
    """``advice``: what would help; empty where time does."""

    code: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {'; '.join(filter(None, self[1:]))}"


def infeasible(group: SchedulingClass, nodes: Nodes) -> bool:
    """Whether there are nodes, and none ever has what these tasks need."""
    return bool(nodes) and not any(
        resources.fits(node.total, group.needs) for node in nodes.values()
    )


def of(group: SchedulingClass, nodes: Nodes) -> WaitReason:
    """Why the ready tasks of a class are not running."""
    wanted = resources.in_words(group.needs)
    if group.near in nodes:
        text = f"needs {wanted} on the node that has its large arguments"
        return WaitReason("WAIT_LOCALITY", text)
    workers = [node for node in nodes.values() if node.total.get(CPU)]
    if not workers and (not nodes or dict(group.needs).get(CPU)):
        return WaitReason("NO_NODES", "no worker node has joined", "start one with zray-worker")
    if infeasible(group, nodes):
        return _infeasible(group, nodes)
    able = [node for node in nodes.values() if resources.fits(node.total, group.needs)]
    if all(node.draining for node in able):
        text = f"needs {wanted}; each node that has it is being drained"
        return WaitReason("NO_NODES", text, "add another")
    if not any(node.usable for node in nodes.values()):
        text = "no node has been heard of for some seconds"
        return WaitReason("NO_NODES", text, "see zray status")
    if any(node.usable and node.bounds(group.queues, group.takes_cpu) for node in able):
        text = (
            f"needs {wanted}; a node that has it has as many workers as it may "
            "(zray-worker --max-workers), and what is free there is for tasks that others wait for"
        )
        return WaitReason("WAIT_WORKERS", text)
    return WaitReason(
        WAIT_RESOURCES, f"needs {wanted}; all of it is in use on every node that has it"
    )


def _infeasible(group: SchedulingClass, nodes: Nodes) -> WaitReason:
    nearest = min(nodes.values(), key=lambda node: _distance(node, group))
    lacking = resources.missing(nearest.total, group.needs)
    has = resources.in_words((name, nearest.total.get(name, 0)) for name, _ in lacking)
    labelled = any(name.startswith(LABELS) for name, _ in lacking)
    advice = "see zray-worker --labels" if labelled else "see --import"
    if resources.countable(lacking):
        advice = "add a node that has it, or ask for less"
    text = (
        f"needs {resources.in_words(group.needs)}; no node ever has "
        f"{resources.in_words(lacking)} (the nearest has {has})"
    )
    return WaitReason("INFEASIBLE", text, advice)


def _distance(node: NodeView, group: SchedulingClass) -> float:
    lacking = resources.missing(node.total, group.needs)
    return sum(2 - node.total.get(name, 0) / amount for name, amount in lacking)
