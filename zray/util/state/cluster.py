"""The cluster's status as plain data: what ``zray status --json`` and the HTTP API tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.runtime.connection import ConnectionInfo


def describe(status: m.Status, info: ConnectionInfo, address: str) -> dict[str, Any]:
    """The status as plain data; amounts in ordinary units, memory in bytes, times in seconds."""
    leader = next((head for head in status.heads if head.leads), None)
    return {
        "health": health_of(status),
        "cluster": {
            "id": status.cluster_id.hex(),
            "name": info.name,
            "address": address,
            "host": leader.host if leader is not None else info.host,
            "pid": leader.pid if leader is not None else info.pid,
            "started": status.started_s,
            "zray": status.zray,
        },
        "heads": describe_heads(status.heads),
        "nodes": describe_nodes(status.nodes),
        "jobs": [_job(job) for job in status.jobs],
        "queue": describe_queue(status.classes),
        "actors": [_actor(actor) for actor in status.actors],
        "objects": status.objects,
        "placement_groups": {"all": status.groups, "waiting": status.groups_waiting},
        "notices": [*status.notices],
        "counters": dict(status.counters),
    }


def health_of(status: m.Status) -> str:
    """In a word, and if that is not OK, why."""
    suspects = [node.info.name for node in status.nodes if node.state == "SUSPECT"]
    if suspects and status.health == "OK":
        return f"DEGRADED: not heard of for some seconds: node {', '.join(suspects)}"
    return status.health


def describe_heads(heads: Iterable[m.HeadInfo]) -> list[dict[str, Any]]:
    """Heads as plain data; none where there can be one only."""
    return [
        {
            "head_id": head.head_id.hex(),
            "state": "LEADS" if head.leads else "STANDBY",
            "addresses": head.addresses,
            "host": head.host,
            "pid": head.pid,
            "zray": head.zray,
            "started": head.since_s,
        }
        for head in heads
    ]


def describe_nodes(nodes: Iterable[m.NodeStatus]) -> list[dict[str, Any]]:
    """Nodes as plain data."""
    return [_node(node) for node in nodes]


def describe_queue(classes: Iterable[m.ClassStatus]) -> list[dict[str, Any]]:
    """What waits, and why, as plain data."""
    return [
        {
            "task": waiting.example,
            "waiting": waiting.waiting,
            "reason": waiting.reason,
            "resources": _amounts(waiting.resources),
            "job_id": waiting.job_id.hex(),
        }
        for waiting in classes
    ]


def _node(node: m.NodeStatus) -> dict[str, Any]:
    return {
        "node_id": node.node_id.hex(),
        "incarnation": node.incarnation,
        "name": node.info.name,
        "state": node.state,
        "host": node.info.host,
        "pid": node.info.pid,
        "resources": _amounts(node.info.resources),
        "available": _amounts(node.available),
        "labels": dict(node.info.labels),
        "running": node.running,
        "queued": node.queued,
        "finished": node.finished,
        "silent_s": round(node.silent_s, 3),
        "remark": node.remark,
        "zray": node.zray,
    }


def _actor(actor: m.ActorStatus) -> dict[str, Any]:
    return {
        "actor_id": actor.actor_id.hex(),
        "job_id": actor.job_id.hex(),
        "class": actor.info.class_name,
        "name": actor.info.name,
        "namespace": actor.info.namespace,
        "detached": actor.info.detached,
        "state": m.ACTOR_STATES[actor.state],
        "node": actor.node,
        "restarts": actor.restarts,
        "reason": actor.reason,
    }


def _job(job: m.JobStatus) -> dict[str, Any]:
    return {
        "job_id": job.job_id.hex(),
        "connected": job.connected,
        "detached": job.detached,
        "unfinished": job.unfinished,
        "finished": job.finished,
        "entrypoint": job.info.entrypoint,
        "host": job.info.host,
        "pid": job.info.pid,
        "user": job.info.user,
        "zray": job.zray,
    }


def _amounts(pairs: Iterable[tuple[str, int]]) -> dict[str, float]:
    return {name: amount / limits.RESOURCE_UNIT for name, amount in pairs}
