"""A recorded workload: which tasks a program has submitted, when, and what each took and needed.

Owns the format of the file, and reads timelines as well. Runs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from zray.errors import WorkloadError

FORMAT = "zray workload 1"
TASKS_MAX = 2_000_000
YEAR_S = 365 * 86400.0
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 50)]
Amount = Annotated[float, Meta(ge=0, le=1e9)]


class Task(Struct, frozen=True):
    """One task.

    Attributes:
        name: of its function.
        submitted_s: since the first was submitted.
        seconds: that its function ran.
        resources: in whole units, such as ``{"CPU": 1}``.
        after: numbers of the tasks in the file, from 0, whose results are its arguments; all of
            them are before it.
        result_bytes, argument_bytes: of what it returns, and of arguments by value.
    """

    name: Annotated[str, Meta(max_length=1000)]
    seconds: Seconds
    submitted_s: Seconds = 0.0
    resources: dict[Annotated[str, Meta(max_length=256)], Amount] = msgspec.field(
        default_factory=lambda: {"CPU": 1.0}
    )
    after: list[Annotated[int, Meta(ge=0)]] = []
    result_bytes: Bytes = 0
    argument_bytes: Bytes = 0


class Workload(Struct, frozen=True):
    """What is in a file. ``made_on``: the cluster that it was recorded on, in words.

    ``seconds``: from the first submit to the last end there; 0: not known. ``left_out``: so many
    tasks of which it is not known what they took. ``estimated``: of so many only what most of their
    function took is.
    """

    format: str
    tasks: Annotated[list[Task], Meta(max_length=TASKS_MAX)]
    made_on: Annotated[str, Meta(max_length=1000)] = ""
    seconds: Seconds = 0.0
    left_out: Annotated[int, Meta(ge=0)] = 0
    estimated: Annotated[int, Meta(ge=0)] = 0


def read(path: Path, *, arrivals: str = "burst") -> Workload:
    """The workload in a file: one of ``record_workload``, or what ``zray timeline`` writes.

    A timeline has dependencies and times of submission only where it has recorded submits, and no
    resources. ``arrivals`` says when tasks are submitted of which that is not known: all at once
    ("burst"), or when each began ("recorded").

    Raises:
        WorkloadError: it is neither, or makes no sense; the message says what is wrong with it.
        OSError: it cannot be read.
    """
    contents = path.read_bytes()
    try:
        if contents.lstrip()[:1] == b"[":
            found = _of_timeline(json.loads(contents), arrivals)
        else:
            found = msgspec.json.decode(contents, type=Workload)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, RecursionError) as error:
        raise WorkloadError(
            f"{path} is neither a workload that zray has recorded nor a timeline: {error}"
        ) from None
    if found.format != FORMAT:
        raise WorkloadError(f"{path} is not of the format {FORMAT!r}, but {found.format[:40]!r}")
    if not found.tasks:
        raise WorkloadError(f"{path} has no tasks")
    for number, task in enumerate(found.tasks):
        if any(other >= number for other in task.after):
            raise WorkloadError(
                f"task {number} of {path} ({task.name}) has a result of a task as its argument "
                "that is not before it"
            )
    return found


def write(path: Path, workload: Workload) -> None:
    """Write it to a file."""
    path.write_bytes(msgspec.json.encode(workload))


class _Span(NamedTuple):
    task_id: str
    name: str
    began: float
    seconds: float


def _of_timeline(events: Any, arrivals: str) -> Workload:
    """Tasks out of Chrome's trace events; calls are left out, as their actors run them.

    Where the submits were recorded, they say when, and arrows of results whose result is needed.
    """
    spans: list[_Span] = []
    submits: dict[str, float] = {}
    needs: dict[str, list[str]] = {}
    left_out = 0
    for event in events:
        if not isinstance(event, Mapping):
            continue
        kind, phase = str(event.get("cat", "")), event.get("ph")
        if phase == "X" and kind.startswith("task::"):
            if event.get("name") == kind.removeprefix("task::"):
                spans.append(_span(event, kind.removeprefix("task::")))
            else:
                left_out += 1
        elif phase == "X" and kind == "submit":
            submits[_task_of(event)] = _seconds(event, "ts")
        elif phase == "s" and kind == "result":
            used, _, task = str(event.get("id", "")).partition(">")
            needs.setdefault(task, []).append(used)
    first = min([one.began for one in spans] + [*submits.values()], default=0.0)
    last = max((one.began + one.seconds for one in spans), default=first)

    def submitted(one: _Span) -> float:
        otherwise = one.began if arrivals == "recorded" else first
        return max(0.0, submits.get(one.task_id, otherwise) - first)

    spans.sort(key=lambda one: (submitted(one), one.began))
    numbers: dict[str, int] = {}
    tasks: list[Task] = []
    for one in spans:
        after = sorted({numbers[used] for used in needs.get(one.task_id, ()) if used in numbers})
        if one.task_id:
            numbers[one.task_id] = len(tasks)
        tasks.append(Task(one.name, one.seconds, submitted(one), after=after))
    return Workload(FORMAT, tasks, "a timeline", max(0.0, last - first), left_out)


def _span(event: Mapping[str, Any], name: str) -> _Span:
    return _Span(_task_of(event), name, _seconds(event, "ts"), max(0.0, _seconds(event, "dur")))


def _task_of(event: Mapping[str, Any]) -> str:
    args = event.get("args")
    return str(args.get("task_id", "")) if isinstance(args, Mapping) else ""


def _seconds(event: Mapping[str, Any], field: str) -> float:
    value = event.get(field)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"its event {str(event.get('name', ''))[:80]!r} has no {field}")
    return value / 1e6


def fits(workload: Workload, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that some node could run each task.

    Raises:
        WorkloadError: none ever could; the message names the first such task.
    """
    kinds = {tuple(sorted(task.resources.items())): task for task in workload.tasks}
    for needs, task in kinds.items():
        if not any(all(node.get(name, 0) >= amount for name, amount in needs) for node in nodes):
            what = ", ".join(f"{name} {amount:g}" for name, amount in needs)
            raise WorkloadError(
                f"{task.name} needs {what}, which no imagined node has: add --node with it"
            )


def critical_path_s(workload: Workload) -> float:
    """The longest chain of tasks of which each needs the one before, with its times."""
    ends: list[float] = []
    for task in workload.tasks:
        begins = max((ends[other] for other in task.after), default=0.0)
        ends.append(max(begins, task.submitted_s) + task.seconds)
    return max(ends)
