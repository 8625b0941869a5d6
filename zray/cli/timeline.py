"""``zray timeline``: what has run on all nodes, or is about to, for a viewer of traces."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from zray import limits
from zray.cli import reporting
from zray.cli.reporting import Failed
from zray.cli.trace_file import Clock, Told, clock_of, events, summary
from zray.core.causes import plain
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m

CLOCK_TRIES = 4
CLOCK_PAUSE_S = 0.08  # together longer than a node tells the same again
DRIVER_S = 1.0  # a driver that has not answered by then is left out


def write(addresses: list[str], path: Path, record_s: float, *, as_json: bool) -> int:
    """Write the file; returns the exit code. ``record_s``: note submits first, for so long."""
    try:
        with reporting.operator(addresses, as_json=as_json) as operator:
            asked = _Asked(operator)
            if record_s:
                asked.record(record_s + limits.QUESTION_S)
                _say(f"recording for {record_s:g} s", as_json=as_json)
                time.sleep(record_s)
            made = events(asked.told())
            text = json.dumps(made)
            if str(path) == "-":
                sys.stdout.write(text)
                return 0
            path.write_text(text)
            counts = summary(made)
            if as_json:
                found = {"output": str(path), "events": counts["tasks and calls"], "counts": counts}
                reporting.show({**found, "silent": asked.silent, "clocks": asked.clocks()})
                return 0
            for name in asked.silent:
                print(f"zray: {plain(name)} has not answered", file=sys.stderr)
            for name, clock in asked.clocks().items():
                if clock["applied_s"]:
                    _say(
                        f"the clock of {plain(name)} is {clock['ahead_s']:+.3f} s ahead of this "
                        f"machine's (within {clock['sure_s'] * 1000:.1f} ms), which is corrected",
                        as_json=False,
                    )
            words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
            size = os.stat(path).st_size
            print(
                f"Wrote {path} ({words or 'nothing has run'}, {size:,} bytes); open it in "
                "https://ui.perfetto.dev or chrome://tracing"
            )
    except Failed:
        return 1
    return 0


def _say(text: str, *, as_json: bool) -> None:
    if not as_json:
        print(f"zray: {text}", file=sys.stderr, flush=True)


class _Asked:
    """Nodes and drivers, as they are asked. ``silent``: who has not answered, in words."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.silent: list[str] = []
        self._clocks: dict[str, Clock] = {}

    def _nodes(self) -> list[m.NodeStatus]:
        return self._operator.nodes()

    def _drivers(self) -> list[m.JobStatus]:
        jobs = self._operator.status().jobs
        return [job for job in jobs if job.connected and not job.detached]

    def record(self, seconds: float) -> None:
        """Have all of them note what is submitted."""
        process_ids = [node.node_id for node in self._nodes()]
        process_ids += [job.job_id for job in self._drivers()]
        self._operator.traces(process_ids, min(seconds, limits.RECORD_S_MAX), DRIVER_S)

    def told(self) -> list[Told]:
        """What they have told, with their clocks."""
        nodes, drivers = self._nodes(), self._drivers()
        clocks = self._node_clocks(nodes)
        found: list[Told] = []
        answers = self._operator.traces([node.node_id for node in nodes])
        for node, answer in zip(nodes, answers, strict=True):
            place = f"{node.info.name} ({node.info.host})"
            if answer is None:
                self.silent.append(f"node {node.info.name}")
                continue
            clock, fetched_at = clocks.get(node.node_id, (Clock(), 0.0))
            self._clocks[f"node {node.info.name}"] = clock
            found.append(Told(place, answer, clock, "", fetched_at))
        machines = {node.info.machine: node for node in nodes}
        for job in drivers:
            found += self._of_driver(job, machines.get(job.info.machine))
        return found

    def _of_driver(self, job: m.JobStatus, node: m.NodeStatus | None) -> list[Told]:
        """``node``: of its machine, which has the same clock."""
        row = f"driver {job.info.pid}"
        asked = time.time()
        (answer,) = self._operator.traces([job.job_id], 0.0, DRIVER_S)
        if answer is None:
            self.silent.append(f"driver pid {job.info.pid} on {job.info.host}")
            return []
        if node is not None:
            clock = self._clocks.get(f"node {node.info.name}", Clock())
            return [Told(f"{node.info.name} ({node.info.host})", answer, clock, row)]
        self._clocks[row] = clock = clock_of([(asked, time.time(), answer.clock_s)])
        return [Told(f"driver ({job.info.host})", answer, clock, row)]

    def _node_clocks(self, nodes: list[m.NodeStatus]) -> dict[bytes, tuple[Clock, float]]:
        """How far they are ahead, and when the clock by which each node measures was 0."""
        ids = [node.node_id for node in nodes]
        tries: dict[bytes, list[tuple[float, float, float]]] = {one: [] for one in ids}
        zeros: dict[bytes, float] = {}
        for number in range(CLOCK_TRIES):
            if number:
                time.sleep(CLOCK_PAUSE_S)
            for node_id in ids if len(ids) <= limits.OPEN_QUESTIONS_MAX else ids[:1]:
                asked = time.time()
                (told,) = self._operator.measure([node_id], DRIVER_S)
                if told is not None:
                    tries[node_id].append((asked, time.time(), told.clock_s))
                    zeros[node_id] = told.clock_s - told.at_s
        return {one: (clock_of(tries[one]), zeros[one]) for one in zeros}

    def clocks(self) -> dict[str, dict[str, float]]:
        """What is known of each clock."""
        return {
            name: {
                "ahead_s": clock.ahead_s,
                "sure_s": clock.sure_s,
                "applied_s": clock.applied_s(),
            }
            for name, clock in self._clocks.items()
        }
