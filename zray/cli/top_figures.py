"""What ``zray top`` makes of two looks at a cluster: rates, shares and sums, as plain rows.

Owns no connection and no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from zray import limits
from zray.protocol import messages as m

ENDED = (m.ENDED_WELL, m.ENDED_BADLY)
SORTS = ("cpu", "memory", "time", "name")


@dataclass
class Counts:
    """How many tasks there were by name and type, at a time of the asker's clock."""

    at: float
    summary: m.Summary


@dataclass
class Look:
    """What head and nodes have said. ``at``: of the asker's clock; ``running``: told tasks.

    ``counts``: the last ones, which are not asked for each time.
    """

    at: float
    status: m.Status
    measured: dict[bytes, m.Measured] = field(default_factory=dict)
    running: list[m.ListedTask] = field(default_factory=list)
    counts: Counts | None = None
    counts_before: Counts | None = None
    clock: float = field(default_factory=time.time)


@dataclass
class NodeFigures:
    """A node. ``cpu_percent``: of all its CPUs; None: it has not said, or only once."""

    name: str
    state: str
    cpu_percent: float | None
    cpus_used: float
    cpus: float
    memory_used_bytes: int
    memory_bytes: int
    store_used_bytes: int
    store_bytes: int
    spilled_bytes: int
    workers: int
    running: int
    queued: int


@dataclass
class NameFigures:
    """Tasks and calls of one name. ``per_s``: how many end each second."""

    name: str
    type: str
    per_s: float | None
    running: int
    waiting: int
    finished: int
    failed: int


@dataclass
class ProcessFigures:
    """A process. ``cpu_percent``: of one CPU, lately; ``title``: what it is or runs.

    ``runs_s``: for how long it has been running the task that it has had longest; None: not known.
    """

    pid: int
    node: str
    kind: str
    title: str
    cpu_percent: float
    rss_bytes: int
    cpu_s: float
    threads: int
    state: str
    runs_s: float | None
    worker_id: str
    actor_id: str


@dataclass
class Figures:
    """All of it. ``per_s``: tasks and calls that end each second; None: not known yet."""

    time: float
    health: str
    per_s: float | None
    running: int
    waiting: int
    actors: int
    objects: int
    jobs: int
    nodes: list[NodeFigures]
    names: list[NameFigures]
    processes: list[ProcessFigures]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def figures(before: Look | None, now: Look, sort: str = "cpu") -> Figures:
    """What is to be shown. ``before``: an earlier look, for what grows."""
    nodes = [_node(before, now, node) for node in now.status.nodes]
    names = _names(now)
    # Those that wait at their programs and nodes have no name here.
    unlisted = now.counts.summary.unlisted if now.counts is not None else 0
    waiting = sum(one.waiting for one in names) + unlisted
    rates = [one.per_s for one in names if one.per_s is not None]
    processes = [one for node in now.status.nodes for one in _processes(before, now, node)]
    keys: dict[str, Any] = {
        "cpu": lambda one: (-one.cpu_percent, -one.rss_bytes, one.pid),
        "memory": lambda one: (-one.rss_bytes, one.pid),
        "time": lambda one: (-one.cpu_s, one.pid),
        "name": lambda one: (one.title or "~", one.pid),
    }
    alive = sum(1 for one in now.status.actors if one.state == m.ACTOR_ALIVE)
    return Figures(
        time=now.clock,
        health=now.status.health,
        per_s=sum(rates) if rates else None,
        running=sum(node.running for node in nodes),
        waiting=waiting,
        actors=alive,
        objects=now.status.objects,
        jobs=len(now.status.jobs),
        nodes=nodes,
        names=names,
        processes=sorted(processes, key=keys[sort]),
    )


# ---- nodes -------------------------------------------------------------------------------------


def _node(before: Look | None, now: Look, node: m.NodeStatus) -> NodeFigures:
    told = now.measured.get(node.node_id)
    total, free = dict(node.info.resources), dict(node.available)
    cpus = total.get("CPU", 0)
    machine, store = (told.machine, told.store) if told is not None else (None, m.StoreUsage())
    workers = [one for one in told.processes if one.worker_id] if told is not None else []
    return NodeFigures(
        name=node.info.name,
        state=node.state,
        cpu_percent=_machine_percent(before, told, node.node_id),
        cpus_used=(cpus - free.get("CPU", 0)) / limits.RESOURCE_UNIT,
        cpus=cpus / limits.RESOURCE_UNIT,
        memory_used_bytes=machine.memory_used_bytes if machine is not None else 0,
        memory_bytes=machine.memory_bytes if machine is not None else 0,
        store_used_bytes=store.used_bytes,
        store_bytes=store.capacity_bytes,
        spilled_bytes=store.spilled_bytes,
        workers=len(workers),
        running=node.running,
        queued=node.queued,
    )


def _machine_percent(before: Look | None, told: m.Measured | None, node_id: bytes) -> float | None:
    first = before.measured.get(node_id) if before is not None else None
    if first is None or told is None or told.at_s <= first.at_s:
        return None
    busy = (told.machine.cpu_s - first.machine.cpu_s) / (told.at_s - first.at_s)
    return min(100.0, max(0.0, 100.0 * busy / max(1.0, told.machine.cpus)))


# ---- names of tasks ----------------------------------------------------------------------------


def _names(now: Look) -> list[NameFigures]:
    """The busiest first."""
    if now.counts is None:
        return []
    first = _by_name(now.counts_before)
    seconds = now.counts.at - now.counts_before.at if now.counts_before is not None else 0.0
    runs: dict[tuple[str, str], int] = {}
    for row in now.running:
        runs[row.name, row.type] = runs.get((row.name, row.type), 0) + 1
    found = []
    for key, states in _by_name(now.counts).items():
        ended = sum(states.get(state, 0) for state in ENDED)
        was = sum(first.get(key, {}).get(state, 0) for state in ENDED)
        unfinished = sum(states.values()) - ended
        running = max(runs.get(key, 0), states.get(m.RUNNING, 0))
        found.append(
            NameFigures(
                *key,
                per_s=max(0, ended - was) / seconds if seconds > 0 else None,
                running=running,
                waiting=max(0, unfinished - running),
                finished=states.get(m.ENDED_WELL, 0),
                failed=states.get(m.ENDED_BADLY, 0),
            )
        )
    found.sort(key=lambda one: (-(one.per_s or 0), -one.running, -one.waiting, one.name))
    return found


def _by_name(counts: Counts | None) -> dict[tuple[str, str], dict[str, int]]:
    groups: Iterable[m.Group] = counts.summary.groups if counts is not None else ()
    return {(one.name, one.type): dict(one.states) for one in groups}


# ---- processes ---------------------------------------------------------------------------------


def _processes(before: Look | None, now: Look, node: m.NodeStatus) -> Iterable[ProcessFigures]:
    told = now.measured.get(node.node_id)
    if told is None:
        return
    earlier = before.measured.get(node.node_id) if before is not None else None
    was = {one.usage.pid: one.usage for one in earlier.processes} if earlier is not None else {}
    seconds = told.at_s - earlier.at_s if earlier is not None else 0.0
    since: dict[bytes, float] = {}
    for row in now.running:
        if row.started_s:
            since[row.worker_id] = min(row.started_s, since.get(row.worker_id, row.started_s))
    for one in told.processes:
        usage = one.usage
        first = was.get(usage.pid)
        if first is not None and first.started_s != usage.started_s:
            first = None  # another process has that pid now
        if first is not None and seconds > 0:
            share = (usage.cpu_s - first.cpu_s) / seconds
        else:
            share = usage.cpu_s / max(0.1, now.clock - usage.started_s)
        began = since.get(one.worker_id) if one.worker_id else None
        yield ProcessFigures(
            pid=usage.pid,
            node=node.info.name,
            kind=one.kind,
            title=one.title or ("" if one.kind == m.WORKER_PROCESS else one.kind.lower()),
            cpu_percent=max(0.0, 100.0 * share),
            rss_bytes=usage.rss_bytes,
            cpu_s=usage.cpu_s,
            threads=usage.threads,
            state=usage.state,
            runs_s=max(0.0, now.clock - began) if began is not None else None,
            worker_id=one.worker_id.hex(),
            actor_id=one.actor_id.hex(),
        )
