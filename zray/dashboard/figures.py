"""What a page shows of the whole cluster, second by second: figures made of the head's status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zray import limits
from zray.dashboard import http_limits
from zray.protocol import messages as m
from zray.util.state.cluster import describe_nodes, describe_queue, health_of

QUEUE_TOLD_MAX = 20  # scheduling classes in one sample
NODES_TOLD_MAX = 200  # nodes in one sample
RESOURCES_TOLD_MAX = 32
_FIRST = ("CPU", "GPU", "memory", "object_store_memory")
_NODE_STATES = {"ALIVE": "alive", "SUSPECT": "suspect", "DRAINING": "draining"}

Sample = dict[str, Any]


def sample_of(status: m.Status, now_s: float, before: Sample | None) -> Sample:
    """Figures of one moment. ``before``: the sample before, by which rates are reckoned."""
    counters = dict(status.counters)
    finished, failed = counters.get("finished", 0), counters.get("failed", 0)
    nodes = dict.fromkeys((*_NODE_STATES.values(), "other"), 0)
    for node in status.nodes:
        nodes[_NODE_STATES.get(node.state, "other")] += 1
    alive = sum(m.ACTOR_STATES[actor.state] == "ALIVE" for actor in status.actors)
    return {
        "t": round(now_s, 3),
        "up": True,
        "tasks": {
            "finished_per_s": _rate("finished", finished, now_s, before),
            "failed_per_s": _rate("failed", failed, now_s, before),
            "finished": finished,
            "failed": failed,
            "running": sum(node.running for node in status.nodes),
            "queued": sum(node.queued for node in status.nodes),
            "waiting": sum(waiting.waiting for waiting in status.classes),
        },
        "actors": {"alive": alive, "other": len(status.actors) - alive},
        "objects": status.objects,
        "groups": {"all": status.groups, "waiting": status.groups_waiting},
        "nodes": nodes,
        "jobs": sum(job.connected for job in status.jobs),
        "resources": _resources(status),
    }


def _rate(name: str, value: int, now_s: float, before: Sample | None) -> float:
    """Per second; 0 after a gap, when nobody knows."""
    if before is None or not 0 < now_s - before["t"] < 5 * http_limits.LIVE_S:
        return 0.0
    more: int = max(0, value - before["tasks"][name])  # a head that was restarted counts anew
    seconds: float = now_s - before["t"]
    return round(more / seconds, 3)


def _resources(status: m.Status) -> dict[str, list[float]]:
    """What is in use and what there is, by name."""
    total: dict[str, int] = {}
    free: dict[str, int] = {}
    for node in status.nodes:
        for name, amount in node.info.resources:
            if not name.startswith("node:"):
                total[name] = total.get(name, 0) + amount
        for name, amount in node.available:
            free[name] = free.get(name, 0) + amount
    unit = limits.RESOURCE_UNIT
    return {
        name: [max(0, total[name] - free.get(name, 0)) / unit, total[name] / unit]
        for name in _told(total)
    }


def _told(names: Iterable[str]) -> list[str]:
    """Of which resources it is told: those that most have, then others, not all of thousands."""
    there = {*names}
    first = [name for name in _FIRST if name in there]
    return [*first, *sorted(there.difference(first))][:RESOURCES_TOLD_MAX]


def details_of(status: m.Status) -> dict[str, Any]:
    """What a page shows beside the figures, of now only."""
    return {
        "health": health_of(status),
        "queue": describe_queue(status.classes[:QUEUE_TOLD_MAX]),
        "node_figures": [_node(node) for node in describe_nodes(status.nodes[:NODES_TOLD_MAX])],
    }


def _node(node: dict[str, Any]) -> dict[str, Any]:
    names = _told(name for name in node["resources"] if not name.startswith("node:"))
    amounts = {
        of: {name: node[of].get(name, 0.0) for name in names} for of in ("available", "resources")
    }
    return {**{name: node[name] for name in _NODE_FIGURES}, **amounts}


_NODE_FIGURES = ("node_id", "name", "state", "running", "queued", "finished")


def changed(status: m.Status, before: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Kinds of things of which some have changed, and what that is seen by, for the next time."""
    counters = dict(status.counters)
    nodes = [(one.node_id, one.incarnation, one.state, one.remark) for one in status.nodes]
    seen: dict[str, Any] = {
        "tasks": (
            *(counters.get("finished"), counters.get("failed"), counters.get("retried")),
            *((one.running, one.queued) for one in status.nodes),
            *((one.waiting, one.reason) for one in status.classes),
        ),
        "actors": hash(
            tuple((one.actor_id, one.state, one.node, one.restarts) for one in status.actors)
        ),
        "objects": status.objects,
        "nodes": nodes,
        "workers": counters.get("events"),
        "jobs": [(one.job_id, one.connected, one.unfinished) for one in status.jobs],
        "events": counters.get("events"),
        "placement_groups": (status.groups, status.groups_waiting, counters.get("events")),
    }
    return [kind for kind in seen if seen[kind] != before.get(kind)], seen
