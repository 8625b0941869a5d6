"""Attempts that have failed on a node: what it takes to make them again, within bytes.

The latest stay, of each task the last. A function is kept once, while an attempt of it is. What is
kept outlives the worker, the job and the driver; it goes with the node's process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.core.raylet.local_records import LocalTask
from zray.errors import RunNotKeptError
from zray.protocol import messages as m


class _Function:
    """``uses``: attempts of it that are kept."""

    __slots__ = ("data", "uses")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.uses = 0


class _Kept(NamedTuple):
    run: m.KeptRun
    function_id: bytes
    data: bytes


class FailedRuns:
    """Of a raylet. ``versions``: of its process; ``tell_head``: as ``HeadSession.tell``.

    Attributes:
        bytes: that all of it takes.
        dropped: how many were kept once.
    """

    def __init__(
        self, node: str, versions: m.Versions, tell_head: Callable[[m.Message], None]
    ) -> None:
        self._node = node
        self._versions = versions
        self._tell_head = tell_head
        self._runs: dict[bytes, _Kept] = {}  # by task, the oldest first
        self._functions: dict[bytes, _Function] = {}
        self.bytes = 0
        self.dropped = 0
        # Part of the raylet's table.
        self.head_handlers: dict[type[m.Message], Callable[[Any, float], None]] = {
            m.KeepRun: lambda message, now: self.keep(message),
            m.ReadRun: lambda message, now: self.on_read(message),
            m.ListRuns: lambda message, now: self.on_list(message),
        }

    def __len__(self) -> int:
        return len(self._runs)

    def keep(self, message: m.KeepRun) -> None:
        """An attempt has failed."""
        task_id = message.run.task_id
        if task_id in self._runs:
            self._forget(task_id)
        function = self._functions.get(message.function_id)
        if function is None:
            function = self._functions[message.function_id] = _Function(message.function)
            self.bytes += len(function.data)
        function.uses += 1
        size = len(message.data) + len(function.data)
        self._runs[task_id] = _Kept(
            replace(message.run, size=size), message.function_id, message.data
        )
        self.bytes += len(message.data) + limits.REPLAY_RUN_COST
        while self.bytes > limits.REPLAY_NODE_BYTES and len(self._runs) > 1:
            self._forget(next(iter(self._runs)))
            self.dropped += 1

    def _forget(self, task_id: bytes) -> None:
        kept = self._runs.pop(task_id)
        self.bytes -= len(kept.data) + limits.REPLAY_RUN_COST
        function = self._functions[kept.function_id]
        function.uses -= 1
        if not function.uses:
            del self._functions[kept.function_id]
            self.bytes -= len(function.data)

    def crashed(
        self, task: LocalTask, pid: int, error: bytes, jobs: Mapping[bytes, m.JobInfo]
    ) -> None:
        """A task's worker has died with it, and cannot tell of it any more."""
        from zray.protocol import failed_run  # loaded with the first death

        made, template, function = task.assignment, task.template.message, task.template.function
        if function is not None and template.events:
            values = [task.values[oid] for oid in made.spec.dependencies]
            text = failures.read(error).message
            kept = failed_run.of_dead_worker(
                *(made, template, function, values, error, text, (self._node, pid)),
                *(self._versions, jobs.get(made.job_id)),
            )
            if kept is not None:
                self.keep(kept)

    # ---- questions -------------------------------------------------------------------------

    def on_read(self, message: m.ReadRun) -> None:
        """Somebody is about to make one again."""
        kept = self._runs.get(message.task_id)
        if kept is None:
            text = f"node {self._node} keeps no failed attempt of task {message.task_id.hex()}"
            if self.dropped:
                text += f"; later ones have taken the place of {self.dropped:,}"
            answer = m.RunPart(0, message.source, message.seq)
            answer.code, answer.text = RunNotKeptError.code, text
        else:
            function = self._functions[kept.function_id].data
            size, low = len(kept.data), message.offset
            high = low + limits.REPLAY_PART_BYTES_MAX
            part = kept.data[low:high] + function[max(0, low - size) : max(0, high - size)]
            whole = (size + len(function), len(function), part)
            answer = m.RunPart(0, message.source, message.seq, *whole)
        self._tell_head(answer)

    def on_list(self, message: m.ListRuns) -> None:
        """Somebody asks what there is."""
        found: list[m.KeptRun] = []
        for kept in reversed(self._runs.values()):
            if len(found) == limits.REPLAY_LISTED_MAX:
                break
            found.append(kept.run)
        counts = (len(self._runs), self.dropped, self.bytes)
        self._tell_head(m.RunsListed(0, message.source, message.seq, found, *counts))
