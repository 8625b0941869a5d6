"""The routes of what processes use, and of what holds the objects in memory.

For the former nodes are asked at most once a second, whoever looks on.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zray import limits
from zray.dashboard import http_limits, parameters
from zray.dashboard.problems import json_response
from zray.dashboard.service import Service
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

LISTED = 100
OLD_S = 30.0  # figures that are older say nothing of how fast others have grown since

Found = list[tuple[m.NodeStatus, m.Measured | None]]


class UsageRoutes:
    """Of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._told: dict[str, Any] = {}
        self._asked_s = -OLD_S
        self._before: dict[bytes, m.Measured] = {}  # by node

    def routes(self) -> list[Route]:
        """In the order in which they are tried."""
        return [Route("/api/v1/usage", self.usage), Route("/api/v1/memory", self.memory)]

    async def memory(self, request: Request) -> Response:
        """Each object with who holds it, the largest first, as ``zray memory`` has them."""
        parameters.known(request, "limit")
        most = parameters.number(request, "limit", LISTED, 1, limits.LISTED_ROWS_MAX)
        report = await self._service.look(_held)
        rows = report["references"]
        return json_response({**report, "references": rows[:most], "unshown": len(rows[most:])})

    async def usage(self, request: Request) -> Response:
        """CPU and memory of each node and its processes."""
        parameters.known(request)
        async with self._lock:
            if time.monotonic() - self._asked_s >= http_limits.LIVE_S:
                found = await self._service.ask(_measured)
                self._told = self._described(found)
                self._asked_s = time.monotonic()
        return json_response(self._told)

    def _described(self, found: Found) -> dict[str, Any]:
        items, silent = [], []
        before, self._before = self._before, {}
        for node, told in found:
            if told is None:
                silent.append(node.info.name)
                continue
            self._before[node.node_id] = told
            items.append(_node(node, told, before.get(node.node_id)))
        return {"items": items, "silent": silent, "t": round(time.time(), 3)}


def _held(operator: Operator) -> dict[str, Any]:
    """In a thread."""
    from zray.util.state.memory import gather  # with the first question

    return gather(operator).described()


def _measured(operator: Operator) -> Found:
    """In a thread."""
    nodes = operator.nodes()
    return [*zip(nodes, operator.measure([one.node_id for one in nodes]), strict=True)]


def _node(node: m.NodeStatus, told: m.Measured, before: m.Measured | None) -> dict[str, Any]:
    machine, store = told.machine, told.store
    seconds = told.at_s - before.at_s if before is not None else 0.0
    if before is None or not 0 < seconds < OLD_S:
        before = None
    known = {} if before is None else {one.usage.pid: one.usage for one in before.processes}
    return {
        "node_id": node.node_id.hex(),
        "name": node.info.name,
        "cpus": machine.cpus,
        "cpu_percent": _percent(machine.cpu_s, before.machine.cpu_s if before else None, seconds),
        "load": machine.load,
        "memory_bytes": machine.memory_bytes,
        "memory_used_bytes": machine.memory_used_bytes,
        "store": {
            "capacity_bytes": store.capacity_bytes,
            "used_bytes": store.used_bytes,
            "touched_bytes": store.touched_bytes,
            "spilled_bytes": store.spilled_bytes,
            "objects": store.objects,
        },
        "processes": [_process(one, known, seconds) for one in told.processes],
        "left_out": told.left_out,
    }


def _process(one: m.UsedBy, known: dict[int, m.Usage], seconds: float) -> dict[str, Any]:
    usage = one.usage
    earlier = known.get(usage.pid)
    if earlier is not None and earlier.started_s != usage.started_s:
        earlier = None  # another process has the pid by now
    return {
        "kind": one.kind,
        "pid": usage.pid,
        "worker_id": one.worker_id.hex(),
        "job_id": one.job_id.hex(),
        "actor_id": one.actor_id.hex(),
        "title": one.title,
        "busy": one.busy,
        "cpu_percent": _percent(usage.cpu_s, earlier.cpu_s if earlier else None, seconds),
        "cpu_s": usage.cpu_s,
        "rss_bytes": usage.rss_bytes,
        "shared_bytes": usage.shared_bytes,
        "threads": usage.threads,
        "state": usage.state,
        "started_s": usage.started_s,
    }


def _percent(cpu_s: float, before: float | None, seconds: float) -> float | None:
    """Of one CPU; None: nobody knows yet."""
    if before is None or not seconds:
        return None
    return round(max(0.0, cpu_s - before) / seconds * 100, 1)
