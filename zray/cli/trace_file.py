"""What has run, and why it began when it did, as Chrome's trace events: slices, queues and arrows.

Owns no connection: it is given what nodes and programs have told, and how far their clocks differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from zray.nodes.driver.trace_events import event
from zray.protocol import messages as m

Event = dict[str, Any]
NOTED_S = 1e-6  # a slice is at least so long, so that an arrow can begin in it


class Clock(NamedTuple):
    """How far a clock is ahead of the one who asks, within ``sure_s`` either way."""

    ahead_s: float = 0.0
    sure_s: float = 0.0

    def applied_s(self) -> float:
        """What is subtracted: nothing, where it may be none."""
        return self.ahead_s if abs(self.ahead_s) > self.sure_s else 0.0


class Told(NamedTuple):
    """What one node or driver has told. ``place``: of its processes; ``driver``: its row's name.

    ``fetched_at``: seconds since 1970 when the clock of ``fetched`` was 0.
    """

    place: str
    answer: m.Traced
    clock: Clock = Clock()
    driver: str = ""
    fetched_at: float = 0.0


class _Run(NamedTuple):
    """Where and when a task ran; ``since`` and ``until`` in seconds of the asker's clock."""

    place: str
    row: str
    since: float
    until: float


class _Submit(NamedTuple):
    place: str
    row: str
    at: float
    what: m.Submitted


def events(told: Iterable[Told]) -> list[Event]:
    """All of it, by time. Times are in microseconds since 1970, as the asker's clock has them."""
    found = _Trace()
    for one in told:
        found.take(one)
    found.connect()
    return sorted(found.events, key=lambda one: float(one.get("ts", 0.0)))


class _Trace:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._runs: dict[bytes, list[_Run]] = {}
        self._submits: dict[bytes, _Submit] = {}
        self._parents: dict[bytes, bytes] = {}
        self._fetched: dict[bytes, tuple[float, float]] = {}
        self._names: dict[bytes, str] = {}

    # ---- what was told -----------------------------------------------------------------------

    def take(self, told: Told) -> None:
        shift = told.clock.applied_s()
        if shift:
            args = {"ahead_s": told.clock.ahead_s, "sure_s": told.clock.sure_s}
            self.events.append({"ph": "M", "name": "zray_clock", "pid": told.place, "args": args})
        for one in told.answer.fetched:
            began = one.began_s + told.fetched_at - shift
            self._fetched[one.task_id] = (began, began + one.seconds)
        for worker in told.answer.workers:
            row = told.driver or f"worker:{worker.worker_id.hex()}"
            for span in worker.spans:
                self._take_span(told.place, worker.worker_id, row, span, shift)
            for submit in worker.submits:
                at = submit.at_s - shift
                self._submits[submit.task_id] = _Submit(told.place, row, at, submit)
                self._names[submit.task_id] = submit.name

    def _take_span(
        self, place: str, worker_id: bytes, row: str, span: m.Span, shift: float
    ) -> None:
        made = event(place, worker_id, span)
        made["ts"] -= shift * 1e6
        if span.parent:
            made["args"]["parent_task_id"] = span.parent.hex()
            self._parents[span.task_id] = span.parent
        self.events.append(made)
        since = span.began_s - shift
        self._names[span.task_id] = span.name
        run = _Run(place, row, since, since + max(span.seconds, NOTED_S))
        self._runs.setdefault(span.task_id, []).append(run)
        if span.loaded_s > 0:
            what = ("load", f"load arguments of {span.name}", run.since, span.loaded_s)
            self._slice(place, row, span.task_id, *what)

    def _slice(
        self, place: str, row: str, task_id: bytes, kind: str, name: str, at: float, seconds: float
    ) -> None:
        self.events.append(
            {
                "cat": kind,
                "name": name,
                "pid": place,
                "tid": row,
                "ph": "X",
                "ts": at * 1e6,
                "dur": max(seconds, NOTED_S) * 1e6,
                "args": {"task_id": task_id.hex()},
            }
        )

    # ---- what follows from it ------------------------------------------------------------------

    def connect(self) -> None:
        """Queues between submits and runs, and arrows."""
        for task_id, submit in self._submits.items():
            what, place, row = submit.what, submit.place, submit.row
            name = f"submit {what.name}"
            self._slice(place, row, task_id, "submit", name, submit.at, what.seconds)
            runs = self._runs.get(task_id)
            if not runs:
                continue
            first = min(runs, key=lambda run: run.since)
            self._queue(task_id, what.name, submit.at + what.seconds, first)
            start = (place, row, submit.at + NOTED_S / 2)
            self._arrow("submit", task_id.hex(), *start, first)
            for used in what.uses:
                self._produced(used, task_id, first)
        for task_id, parent in self._parents.items():
            if task_id not in self._submits and parent in self._runs:
                above, run = self._runs[parent][-1], self._runs[task_id][0]
                start = (above.place, above.row, above.since + NOTED_S / 2)
                self._arrow("child", f"{parent.hex()}>{task_id.hex()}", *start, run)

    def _queue(self, task_id: bytes, name: str, since: float, run: _Run) -> None:
        """It waits, for its arguments, a CPU or its turn; of that, its node fetches arguments."""
        self._wait(run.place, "queue", f"queue {name}", task_id.hex(), since, run.since)
        fetched = self._fetched.get(task_id)
        if fetched is not None:
            name = f"fetch arguments of {name}"
            self._wait(run.place, "transfer", name, f"{task_id.hex()} arguments", *fetched)

    def _wait(self, place: str, kind: str, name: str, id_: str, since: float, until: float) -> None:
        both = {"cat": kind, "name": name, "id": id_, "pid": place, "tid": kind}
        self.events.append({**both, "ph": "b", "ts": since * 1e6})
        self.events.append({**both, "ph": "e", "ts": max(since, until) * 1e6})

    def _produced(self, used: bytes, task_id: bytes, run: _Run) -> None:
        makers = self._runs.get(used)
        if makers:
            last = makers[-1]
            start = (last.place, last.row, last.until - NOTED_S / 2)
            self._arrow("result", f"{used.hex()}>{task_id.hex()}", *start, run)

    def _arrow(self, kind: str, id_: str, place: str, row: str, at: float, run: _Run) -> None:
        both = {"cat": kind, "name": kind, "id": id_}
        self.events.append({**both, "ph": "s", "pid": place, "tid": row, "ts": at * 1e6})
        where = {"pid": run.place, "tid": run.row, "ts": run.since * 1e6}
        self.events.append({**both, "ph": "f", "bp": "e", **where})


def clock_of(tries: Iterable[tuple[float, float, float]]) -> Clock:
    """How far a clock is ahead: of each try when it was asked and answered, and what it said.

    An answer may be a little old, so the one that says most is right.
    """
    best = max(tries, key=lambda one: one[2] - one[1], default=None)
    if best is None:
        return Clock()
    asked, answered, said = best
    low, high = said - answered, said - asked
    return Clock((low + high) / 2, (high - low) / 2)


def summary(made: list[Event]) -> dict[str, int]:
    """How many there are of each kind, for people."""
    slices = [str(one.get("cat", "")) for one in made if one["ph"] == "X"]
    return {
        "tasks and calls": sum(1 for kind in slices if kind.startswith("task::")),
        "submits": slices.count("submit"),
        "arrows": sum(1 for one in made if one["ph"] == "s"),
    }
