"""What a node and its processes use, read when somebody asks: memory takes a while to be read, so a
thread does it, and the node goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from zray.core.raylet import figures
from zray.core.raylet.raylet import Raylet
from zray.nodes.raylet.shared_objects import SharedObjects
from zray.nodes.raylet.worker_processes import WorkerProcesses
from zray.protocol import messages as m
from zray.runtime.linux.process_figures import processes, usage
from zray.runtime.loop import Loop
from zray.runtime.wake_pipe import WakePipe


class Pids(NamedTuple):
    """Which processes are whose."""

    raylet: int
    zygote: int | None
    workers: list[int]


class Scraping:
    """``raylet``, ``store``: those of now, which another incarnation replaces."""

    def __init__(
        self,
        loop: Loop,
        raylet: Callable[[], Raylet],
        store: Callable[[], SharedObjects],
        workers: WorkerProcesses,
    ) -> None:
        self._loop = loop
        self._raylet = raylet
        self._store = store
        self._workers = workers
        self._waiting: list[m.Scrape] = []
        self._thread: threading.Thread | None = None
        self._read: list[m.Figure] = []  # by the thread
        self._workers_s = 0.0  # of CPU, as told last: it may not fall
        self._pipe = WakePipe()
        loop.watch(self._pipe, self._answer)

    def ask(self, message: m.Scrape) -> None:
        """Answer it soon; what is being read answers all that are asked meanwhile."""
        self._waiting.append(message)
        if self._thread is None:
            slots = self._raylet().scheduler.workers.values()
            workers = [slot.pid for slot in slots if slot.pid]
            pids = Pids(self._raylet().info.pid, self._workers.zygote_pid, workers)
            arguments = (self._raylet().info.name, pids)
            self._thread = threading.Thread(
                target=self._look, args=arguments, name="zray-scraping", daemon=True
            )
            self._thread.start()

    def _look(self, node: str, pids: Pids) -> None:
        found: list[m.Figure] = []
        try:
            zygote = usage(pids.zygote) if pids.zygote else None
            found += processes(node, "raylet", [pids.raylet])
            if pids.zygote:
                found += processes(node, "zygote", [pids.zygote])
            found += processes(node, "workers", pids.workers, zygote.reaped_s if zygote else 0.0)
            found += _memory(node)
            if self._workers.gpus:
                from zray.runtime.linux import gpu_usage  # loaded where there are some

                found += gpu_usage.figures(node, self._workers.gpus)
        finally:
            self._read = found
            self._pipe.wake()

    def _answer(self) -> None:
        self._pipe.drain()
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        waiting, self._waiting = self._waiting, []
        raylet = self._raylet()
        found = [*self._figures(raylet), *map(self._rising, self._read)]
        recorded = raylet.workers.recorded
        programs, lost = [], 0
        if recorded is not None:
            programs, lost = recorded.programs(self._loop.now()), recorded.lost()
        name = raylet.info.name
        for asked in waiting:
            answer = m.Scraped(0, asked.source, asked.seq, "", "", name, found, programs, lost)
            raylet.session.tell(answer)

    def _rising(self, figure: m.Figure) -> m.Figure:
        """A worker that ends between two looks is missed for a moment."""
        if figure.name != "zray_cpu_seconds_total" or figure.labels[1] != "workers":
            return figure
        self._workers_s = max(self._workers_s, figure.value)
        return m.Figure(figure.name, self._workers_s, figure.labels)

    def _figures(self, raylet: Raylet) -> list[m.Figure]:
        name, objects = raylet.info.name, self._store()
        store = objects.usage()
        sizes = {
            "used": store.used_bytes,
            "memory": store.touched_bytes,
            "spilled": store.spilled_bytes,
        }
        return [
            *figures.of_node(name, raylet.scheduler, raylet.task_reports, raylet.completions),
            m.Figure("zray_node_incarnation", raylet.incarnation, [name]),
            m.Figure("zray_leaked_processes_swept_total", self._workers.zygotes.swept, [name]),
            m.Figure("zray_incidents_total", raylet.incidents.total, [name, "raylet"]),
            m.Figure("zray_object_store_capacity_bytes", store.capacity_bytes, [name]),
            m.Figure("zray_node_objects", store.objects, [name]),
            *(m.Figure("zray_object_store_bytes", n, [name, one]) for one, n in sizes.items()),
        ]

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._loop.unwatch(self._pipe)
        if self._thread is not None:
            self._thread.join()
        self._pipe.close()


def _memory(node: str) -> list[m.Figure]:
    wanted = {b"MemTotal:": "total", b"MemAvailable:": "available"}
    with open("/proc/meminfo", "rb") as file:
        words = (line.split() for line in file)
        found = {wanted[one[0]]: int(one[1]) * 1024 for one in words if one and one[0] in wanted}
    return [m.Figure("zray_machine_memory_bytes", n, [node, kind]) for kind, n in found.items()]
