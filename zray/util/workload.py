"""``record_workload``: what a program submits, for ``zray simulate``.

Owns the noting of it, which costs a program only while it is recorded.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from zray import limits
from zray.api.cluster import nodes
from zray.api.session import participant
from zray.ids import task_of
from zray.protocol import messages as m

FORMAT = "zray workload 1"
ASKED_MAX = 3  # times, how long tasks ran
ANSWER_S = 5.0  # how long a node is waited for


class _Submitted(NamedTuple):
    task_id: bytes
    template_id: bytes
    at_s: float
    dependencies: list[bytes]
    bytes: int


@contextlib.contextmanager
def record_workload(path: str | os.PathLike[str]) -> Iterator[None]:
    """Record the tasks that this program submits inside the block, and write them to a file.

    Noted are when each was submitted, what it needs, whose results are its arguments, how long it
    ran and how much it returned. What its tasks submit, and calls of actors, are not in it. Get the
    results inside the block. How long tasks ran that were not leased, their workers are asked for,
    which remember the last 1,000; of others it is taken that they ran as long as most of their
    function. A function of which that is not known of any task is left out, with what needs it.

    Raises:
        OSError: the file cannot be written.
    """
    recording = _Recording(participant())
    target = Path(path)
    try:
        yield
    finally:
        recording.stop()
    target.write_bytes(msgspec.json.encode(recording.workload()))


class _Recording:
    """Stands before the places that every task of a driver passes."""

    def __init__(self, connected: Any) -> None:
        self._participant = connected
        self._client = connected.client
        self._submit = self._client.submit
        self._ended = self._client.leased_tasks.ended
        self._tasks: list[_Submitted] = []
        self._seconds: dict[bytes, float] = {}
        self._sizes: dict[bytes, int] = {}
        self._last_s = 0.0
        self._results = self._client.tasks.on_result
        self._client.submit = self._submitting
        self._client.tasks.on_result = self._arriving
        self._client.leased_tasks.ended = self._ending

    def _submitting(self, spec: m.TaskSpec, num_returns: int) -> list[bytes]:
        size = len(spec.arguments)
        for oid in spec.dependencies:
            known = self._client.outcomes.get(oid)
            if known is not None:
                size += known.size
        what = (spec.task_id, spec.template_id, time.time(), spec.dependencies, size)
        self._tasks.append(_Submitted(*what))
        returns: list[bytes] = self._submit(spec, num_returns)
        return returns

    def _ending(self, task: Any, done: m.TaskDone) -> None:
        self._seconds[done.task_id] = done.seconds
        self._sizes[done.task_id] = sum(outcome.size for outcome in done.results)
        self._last_s = time.time()
        self._ended(task, done)

    def _arriving(self, message: m.Result) -> None:
        for outcome in message.outcomes:
            task_id = task_of(outcome.object_id)
            self._sizes[task_id] = self._sizes.get(task_id, 0) + outcome.size
        self._last_s = time.time()
        self._results(message)

    def stop(self) -> None:
        """Nothing more is noted."""
        client = self._client
        del client.submit, client.leased_tasks.ended, client.tasks.on_result

    def _ask_nodes(self) -> None:
        """How long those ran that the head gave to nodes."""
        for node in nodes():
            if not node["Alive"]:
                continue
            target = bytes.fromhex(node["NodeID"])
            ask = partial(_question, self._client.process_id, target)
            answer = self._participant.ask(ask, ANSWER_S)
            for worker in answer.workers if isinstance(answer, m.Traced) else ():
                for span in worker.spans:
                    self._seconds.setdefault(span.task_id, span.seconds)

    def workload(self) -> dict[str, Any]:
        """What was noted, as the file has it."""
        for _ in range(ASKED_MAX):
            if all(task.task_id in self._seconds for task in self._tasks):
                break
            self._ask_nodes()  # once more: a busy worker is not waited for
        numbers: dict[bytes, int] = {}
        tasks: list[dict[str, Any]] = []
        first = self._tasks[0].at_s if self._tasks else 0.0
        mine = {task.task_id for task in self._tasks}
        templates = self._client.definitions.templates
        typical = self._typical()
        for task in self._tasks:
            makers = [task_of(oid) for oid in task.dependencies if task_of(oid) in mine]
            seconds = self._seconds.get(task.task_id, typical.get(task.template_id))
            template = templates.get(task.template_id)
            if seconds is None or template is None or any(one not in numbers for one in makers):
                continue
            after = sorted({numbers[one] for one in makers})
            made = sum(tasks[number]["result_bytes"] for number in after)
            numbers[task.task_id] = len(tasks)
            tasks.append(
                {
                    "name": template.name,
                    "seconds": seconds,
                    "submitted_s": round(max(0.0, task.at_s - first), 6),
                    "resources": {
                        name: amount / limits.RESOURCE_UNIT
                        for name, amount in template.resources
                        if amount
                    },
                    "after": after,
                    "result_bytes": self._sizes.get(task.task_id, 0),
                    "argument_bytes": max(0, task.bytes - made),
                }
            )
        return {
            "format": FORMAT,
            "tasks": tasks,
            "made_on": _cluster(),
            "seconds": max(0.0, self._last_s - first),
            "left_out": len(self._tasks) - len(tasks),
            "estimated": sum(1 for task_id in numbers if task_id not in self._seconds),
        }

    def _typical(self) -> dict[bytes, float]:
        """The median of what tasks of each function took, for those that nobody remembers."""
        known: dict[bytes, list[float]] = {}
        for task in self._tasks:
            if (seconds := self._seconds.get(task.task_id)) is not None:
                known.setdefault(task.template_id, []).append(seconds)
        return {template: median(found) for template, found in known.items()}


def _question(asker: bytes, node_id: bytes, number: int) -> m.Message:
    return m.Trace(number, asker, node_id)


def _cluster() -> str:
    alive = [node for node in nodes() if node["Alive"]]
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in alive)
    return f"{len(alive)} nodes, {cpus:g} CPUs"
