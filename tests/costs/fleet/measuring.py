"""What a real head costs that has many simulated nodes, and drivers: processes and figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.costs.fleet.driver import Outcome
from tests.costs.processes import Use, use_of
from tests.real_cluster import Cluster
from zray.nodes.driver.observer import Observer
from zray.protocol import messages as m

CPUS = 4  # of each node
FOR_EACH_CPU = 32  # tasks that are in flight
LOOK_S = 0.25  # so often the head is asked for its status
END_S = 15.0
ROLES = ("head", "drivers", "nodes")

Figures = dict[str, Any]


class Case(NamedTuple):
    """``seconds``: for how long tasks are submitted."""

    nodes: int
    task_s: float
    drivers: int
    seconds: float

    def in_flight(self) -> int:
        """Tasks of each driver."""
        return self.nodes * CPUS * FOR_EACH_CPU // self.drivers


class Part:
    """A process of this package; it says READY, and ends when its input does."""

    def __init__(self, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"tests.costs.fleet.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        self.pid = self._process.pid

    def line(self) -> str:
        """What it says next; empty: it has ended."""
        return self._output.readline().decode().strip()

    def ready(self) -> None:
        line = self.line()
        assert line == "READY", f"instead of READY a process says {line!r}"

    def tell(self) -> None:
        """A line, at which it begins or answers."""
        self._input.write(b"\n")
        self._input.flush()

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


class Fleet:
    """A head and its nodes, for one load after the other."""

    def __init__(self, cluster: Cluster, nodes: Part) -> None:
        assert cluster.head is not None
        self._cluster = cluster
        self._nodes = nodes
        self.pids = {"head": [cluster.head.pid], "nodes": [nodes.pid]}

    def status(self) -> m.Status:
        """As ``zray status`` asks for it."""
        with Observer(self._cluster.info(), self._cluster.address) as observer:
            return observer.status()

    def measure(self, case: Case) -> Figures:
        """Run one load, and say what it has cost for each task."""
        given = (self._cluster.address, case.task_s, case.in_flight(), case.seconds)
        with ExitStack() as stack:
            drivers = [stack.enter_context(Part("driver", *given)) for _ in range(case.drivers)]
            for driver in drivers:
                driver.ready()
            pids = {**self.pids, "drivers": [driver.pid for driver in drivers]}
            counted = self._counters()
            before = {role: use_of(pids[role]) for role in ROLES}
            for driver in drivers:
                driver.tell()
            answers = self._look(case.seconds)
            outcomes = [Outcome(**json.loads(driver.line())) for driver in drivers]
            after = {role: use_of(pids[role]) for role in ROLES}
            count = sum(outcome.done for outcome in outcomes)
            used = {role: after[role].since(before[role], count) for role in ROLES}
            happened = {name: n - counted[name] for name, n in self._counters().items()}
        return {**_figures(case, outcomes, used, happened), "status_ms": max(answers) * 1e3}

    def _counters(self) -> dict[str, int]:
        """What has happened how often: the head's counters, and the workers that nodes started."""
        self._nodes.tell()
        return {**dict(self.status().counters), "workers": int(self._nodes.line())}

    def _look(self, seconds: float) -> list[float]:
        """How long the head took to answer, each time that it was asked meanwhile."""
        answers = []
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            self.status()
            answers.append(time.monotonic() - began)
            time.sleep(LOOK_S)
        return answers


def _figures(
    case: Case, outcomes: list[Outcome], used: dict[str, Use], happened: dict[str, int]
) -> Figures:
    count = sum(outcome.done for outcome in outcomes)
    wall_s = max(one.ended for one in outcomes) - min(one.began for one in outcomes)
    in_time = [outcome.in_time for outcome in outcomes]
    found: Figures = {
        "tasks": count,
        "wrong": sum(outcome.wrong for outcome in outcomes),
        "per_s": count / wall_s,
        "efficiency": count * case.task_s / (wall_s * case.nodes * CPUS),
        "least": min(in_time) * len(in_time) / (sum(in_time) or 1),
        "most": max(in_time) * len(in_time) / (sum(in_time) or 1),
        "reclaimed": happened["reclaimed"] / count * 1000,
        "workers": happened["workers"] / count * 1000,
        "again": happened["retried"] + happened["stale"] + happened["lost"],
    }
    for role in ROLES:
        use = used[role]
        found[role] = {
            "cpu_us": use.cpu_s * 1e6,
            "transport_us": use.transport_s * 1e6,
            "queued_us": use.queued_s * 1e6,
            "switches": use.switches,
            "busy": use.cpu_s * count / wall_s,
        }
    return found


@contextmanager
def fleet(home: Path, nodes: int) -> Iterator[Fleet]:
    """A head and so many nodes of four CPUs. ``home`` is the ZRAY_HOME of this process."""
    cluster = Cluster(home)
    try:
        cluster.start_head()
        path = home / "clusters" / "default" / "connection.json"
        with Part("nodes", path, nodes, CPUS) as part:
            part.ready()
            yield Fleet(cluster, part)
    finally:
        cluster.close()
