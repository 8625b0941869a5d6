"""The figures of one node for metrics, as its raylet knows them: a look at its tables."""

from __future__ import annotations

from zray import limits
from zray.core import resources
from zray.core.raylet.completions import Completions
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.task_reports import TaskReports
from zray.protocol import messages as m

PLACE = "node:"  # of resources that stand for the node itself
WORKER_STATES = ("STARTING", "IDLE", "BUSY", "BLOCKED", "LEASED", "ACTOR")


def of_node(
    node: str, scheduler: LocalScheduler, reports: TaskReports, completions: Completions
) -> list[m.Figure]:
    """Its resources, its workers by what they do, its tasks and how long they took."""
    unit = limits.RESOURCE_UNIT
    countable = resources.countable([*scheduler.total.items()])
    total = {name: amount for name, amount in countable if not name.startswith(PLACE)}
    states = dict.fromkeys(WORKER_STATES, 0)
    given = 0
    for slot in scheduler.workers.values():
        states[_state(slot)] += 1
        given += len(slot.inflight)
    figures = [
        *(
            m.Figure("zray_node_resource_capacity", amount / unit, [node, name])
            for name, amount in total.items()
        ),
        *(
            m.Figure(
                "zray_node_resource_available", scheduler.free.get(name, 0) / unit, [node, name]
            )
            for name in total
        ),
        *(m.Figure("zray_workers", count, [node, state]) for state, count in states.items()),
        m.Figure("zray_node_tasks", scheduler.queued, [node, "QUEUED"]),
        m.Figure("zray_node_tasks", given, [node, "WITH_WORKERS"]),
        m.Figure("zray_node_ends_untold", len(completions.unacked), [node]),
    ]
    for kind, histogram in reports.durations.items():
        figures.append(histogram.figure("zray_task_duration_seconds", [node, kind]))
    return figures


def _state(slot: WorkerSlot) -> str:
    if slot.makes_actor():
        return "ACTOR"
    if slot.lease is not None:
        return "LEASED"
    if not slot.pid:
        return "STARTING"
    if slot.blocked:
        return "BLOCKED"
    return "BUSY" if slot.inflight else "IDLE"
