"""Files of workloads: what is in them, timelines as well, and what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zray.errors import WorkloadError
from zray.testing.workload import FORMAT, Task, Workload, critical_path_s, read, write


def event(name: str, ts: float, seconds: float, **fields: Any) -> dict[str, Any]:
    return {
        "cat": f"task::{name}",
        "name": name,
        "ph": "X",
        "ts": ts * 1e6,
        "dur": seconds * 1e6,
        **fields,
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = Task("f", 0.5, 0.1, {"CPU": 2.0, "GPU": 1.0}, [], 100, 7)
    found = Workload(FORMAT, [made, Task("g", 1.0, after=[0])], "2 nodes", 2.5, 1, 1)
    write(tmp_path / "w.json", found)
    assert read(tmp_path / "w.json") == found


def test_fields_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(
        json.dumps({"format": FORMAT, "tasks": [{"name": "f", "seconds": 1}]})
    )
    (task,) = read(tmp_path / "w.json").tasks
    assert (task.resources, task.after, task.submitted_s) == ({"CPU": 1.0}, [], 0.0)


def test_a_timeline_is_read_without_calls_and_whatever_else_is_in_it(tmp_path: Path) -> None:
    events = [
        event("mod.g", 101.0, 0.2),
        event("mod.f", 100.0, 0.5),
        event("Counter.add", 100.5, 0.1) | {"name": "add"},
        {"ph": "M", "name": "process_name", "args": {}},
        {"ph": "s", "cat": "task::mod.f", "id": 1, "ts": 1},
        event("x", 1, 1, cat="submit::x"),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events))

    found = read(path)
    assert [(task.name, task.seconds) for task in found.tasks] == [("mod.f", 0.5), ("mod.g", 0.2)]
    assert [task.submitted_s for task in found.tasks] == [0.0, 0.0]
    assert found.left_out == 1 and found.seconds == pytest.approx(1.2)
    assert all(not task.after for task in found.tasks)
    late = [task.submitted_s for task in read(path, arrivals="recorded").tasks]
    assert late == [0.0, pytest.approx(1.0)]


def test_a_timeline_with_submits_says_when_and_for_what_tasks_wait(tmp_path: Path) -> None:
    def task(number: int) -> dict[str, Any]:
        return {"args": {"task_id": f"{number:032x}"}}

    def arrow(used: int, by: int) -> dict[str, Any]:
        id_ = f"{used:032x}>{by:032x}"
        return {"ph": "s", "cat": "result", "name": "result", "id": id_, "ts": 1.0}

    events = [
        event("f", 100.0, 0.5, **task(1)),
        event("f", 101.0, 0.5, **task(2)),
        event("join", 102.0, 0.1, **task(3)),
        event("submit f", 99.0, 1e-5, cat="submit", **task(2)),
        event("submit f", 99.5, 1e-5, cat="submit", **task(1)),
        event("submit join", 99.6, 1e-5, cat="submit", **task(3)),
        *(arrow(1, 3), arrow(2, 3), arrow(77, 3), arrow(3, 1)),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events))

    found = read(path)
    assert [task.submitted_s for task in found.tasks] == [0.0, 0.5, pytest.approx(0.6)]
    assert [task.after for task in found.tasks] == [[], [], [0, 1]]
    assert found.seconds == pytest.approx(3.1)


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ("", "neither a workload"),
        ("[]", "has no tasks"),
        ("{}", "neither a workload"),
        ("[1, 2", "neither a workload"),
        ('[{"ph": "X", "cat": "task::f", "name": "f"}]', "neither a workload"),
        ("nonsense", "neither a workload"),
        ('{"format": "other", "tasks": []}', "is not of the format"),
        (f'{{"format": "{FORMAT}", "tasks": []}}', "has no tasks"),
        (f'{{"format": "{FORMAT}", "tasks": [{{"name": "f", "seconds": -1}}]}}', "neither"),
        (f'{{"format": "{FORMAT}", "tasks": [{{"name": "f", "seconds": 1e30}}]}}', "neither"),
        (
            f'{{"format": "{FORMAT}", "tasks": [{{"name": "f", "seconds": 1, "after": [0]}}]}}',
            "task 0 of .* is not before it",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, contents: str, complaint: str) -> None:
    (tmp_path / "w.json").write_text(contents)
    with pytest.raises(WorkloadError, match=complaint):
        read(tmp_path / "w.json")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text("[" * 100_000)
    with pytest.raises(WorkloadError, match="neither a workload"):
        read(tmp_path / "w.json")


def test_the_longest_chain_has_the_times_of_submission_in_it() -> None:
    tasks = [Task("f", 1.0), Task("f", 2.0, after=[0]), Task("f", 0.5, submitted_s=9.0)]
    assert critical_path_s(Workload(FORMAT, tasks)) == pytest.approx(9.5)
    assert critical_path_s(Workload(FORMAT, tasks[:2])) == pytest.approx(3.0)
