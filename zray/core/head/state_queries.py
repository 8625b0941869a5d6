"""Answers about the cluster's state: what is there, and why something waits. Changes nothing."""

from __future__ import annotations

from zray import limits
from zray.core import resources
from zray.core.head.actor_records import ActorRecord
from zray.core.head.gcs import Gcs
from zray.core.head.members import NodeMember
from zray.core.head.object_table import PENDING
from zray.core.head.task_records import ASSIGNED, READY, TaskRecord
from zray.ids import task_of
from zray.protocol.messages import (
    ACTOR_ALIVE,
    ActorStatus,
    ClassStatus,
    JobStatus,
    NodeStatus,
    Status,
)

ACTORS_TOLD_MAX = 1000  # in one status


def health(gcs: Gcs, now: float) -> str:
    """One line: OK, or what the head waits for, or what goes wrong in it and its nodes."""
    if gcs.recovering():
        return recovering(gcs)
    troubles = [("the control store", gcs.store_trouble)]
    if gcs.later_epoch:
        troubles.append(("the control store", older_store(gcs)))
    troubles.append(("the head", gcs.incidents.trouble(now)))
    troubles += [(node.in_words(), node.trouble) for node in gcs.members.nodes.values()]
    told = "; ".join(f"{who}: {what}" for who, what in troubles if what)
    return f"DEGRADED: {told}"[: limits.HEALTH_TEXT_MAX] if told else "OK"


def older_store(gcs: Gcs) -> str:
    """Why peers are refused that know a later epoch, and what to do."""
    known = "another head of it"
    if gcs.later_epoch > gcs.epoch:
        known = f"epoch {gcs.later_epoch}"
    return (
        f"it is older than its cluster (epoch {gcs.epoch}; a node or driver knows {known}), "
        "as one that was restored from a backup. Put the newest data "
        "directory back, or go on with this one: zray-head --adopt"
    )


def recovering(gcs: Gcs) -> str:
    """What a head that was started again waits for."""
    missing = len(gcs.members.awaited)
    return f"RECOVERING epoch {gcs.epoch}: {missing} nodes and their tasks not back yet"


def status(gcs: Gcs, about: int, cluster_id: bytes, started_s: float, now: float) -> Status:
    """The answer to a STATUS query."""
    return Status(
        0,
        about,
        cluster_id,
        started_s,
        health(gcs, now),
        [_node(node, now) for node in gcs.members.nodes.values()],
        [
            JobStatus(
                *(job.process_id, job.info, job.unfinished, job.finished),
                *(job.connected, job.driverless),
            )
            for job in gcs.members.jobs.values()
        ],
        _classes(gcs),
        len(gcs.objects.records),
        gcs.notices[-20:],
        sorted([*gcs.counters.items(), ("relayed_bytes", gcs.transfers.relayed_bytes)]),
        [_actor(gcs, record, now) for record in [*gcs.actors.records.values()][:ACTORS_TOLD_MAX]],
    )


def _actor(gcs: Gcs, record: ActorRecord, now: float) -> ActorStatus:
    node = gcs.members.nodes.get(record.node_id)
    alive = record.state == ACTOR_ALIVE and not record.unconfirmed
    return ActorStatus(
        *(record.actor_id, record.job_id, record.info, record.state),
        node.info.name if node is not None and alive else "",
        record.restarts,
        "" if alive else why(gcs, record.handle, now),
    )


def _node(node: NodeMember, now: float) -> NodeStatus:
    view = node.view
    ahead = sum(view.ahead.values())
    free = sorted((name, max(amount, 0)) for name, amount in view.free.items())
    return NodeStatus(
        node.process_id,
        node.incarnation,
        node.state(),
        node.info,
        list(resources.countable(free)),
        len(view.assigned) - ahead,
        ahead,
        view.finished,
        max(0.0, now - node.heard),
    )


def _classes(gcs: Gcs) -> list[ClassStatus]:
    found = []
    for group in gcs.scheduler.groups():
        if not group.ready:
            continue
        reason = gcs.scheduler.reason(group)
        for job_id, queue in group.queues.items():
            waiting = sum(1 for record in queue if record.state == READY)
            template = queue.first().template if queue else None
            name = template.message.name if template is not None else ""
            found.append(ClassStatus(list(group.needs), job_id, waiting, reason, name))
    return found


def why(gcs: Gcs, object_id: bytes, now: float) -> str:
    """What an object's value waits for, or the actor of a handle; empty: for nothing."""
    actor = gcs.actors.records.get(task_of(object_id))
    if actor is not None:
        creation = gcs.tasks.get(actor.actor_id)
        return task_reason(gcs, creation) if creation else actor.reason(now)
    record = gcs.objects.get(object_id)
    if record is not None and record.kind != PENDING:
        return ""
    task = gcs.tasks.get(task_of(object_id))
    if task is None:
        return f"UNKNOWN: the head has not been told of object {object_id.hex()}, or it was freed"
    return task_reason(gcs, task)


def task_reason(gcs: Gcs, task: TaskRecord) -> str:
    """Why a task has no outcome yet."""
    name = task.template.message.name if task.template is not None else "a task"
    if task.state == ASSIGNED and task.node is not None:
        node = gcs.members.nodes.get(task.node.node_id)
        where = node.info.name if node is not None else task.node.node_id.hex()
        state = node.state() if node is not None else "gone"
        trouble = f"; in trouble: {node.trouble}" if node is not None and node.trouble else ""
        return f"LEASED: {name} is with node {where} ({state}), attempt {task.attempt}{trouble}"
    if task.parked or task.spec is None:
        return f"HEAD_RECOVERING: {name}; {recovering(gcs)}"
    if task.waiting:
        return f"WAIT_DEPS: {name} waits for {task.waiting} of its arguments" + _first(gcs, task)
    if task.template is not None and not task.template.function.ready:
        trouble = f"; the control store: {gcs.store_trouble}" if gcs.store_trouble else ""
        return f"WAIT_FUNCTION: the function of {name} is being stored{trouble}"
    if task.template is not None:
        group = gcs.scheduler.group_of(task)
        return f"{gcs.scheduler.reason(group)} (task {name}, {group.ready} waiting like it)"
    return f"UNKNOWN: {name}"


def _first(gcs: Gcs, task: TaskRecord) -> str:
    assert task.spec is not None
    for oid in task.spec.dependencies:
        inner = gcs.tasks.get(task_of(oid))
        if inner is not None and inner is not task:
            name = inner.template.message.name if inner.template is not None else "a task"
            depth = "waits itself" if inner.state != ASSIGNED else "runs"
            return f"; the first is the result of {name}, which {depth}"
    return ""
