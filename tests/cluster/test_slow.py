"""What is slow? ``zray top`` and ``zray timeline`` show it, on whatever way the tasks went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import zray
from tests.real_cluster import until
from zray.runtime import session

ASK_S = 30.0
RECORD_S = 1.5
NAMES = ("quick", "makes", "far_user", "Counter.add", "outer")


@zray.remote
def quick(*_: Any) -> int:
    return 1


@zray.remote(max_retries=0)
def outer() -> int:
    return int(zray.get(near.remote()))


@zray.remote
def near() -> int:
    time.sleep(0.01)
    return 1


@zray.remote(resources={"one": 1})
def makes() -> Any:
    time.sleep(0.1)
    return np.ones(1 << 18)


@zray.remote(resources={"two": 1})
def far_user(values: Any) -> float:
    time.sleep(0.05)
    return float(values.sum())


@zray.remote(num_cpus=0, resources={"two": 1})
class Counter:
    def add(self, more: int) -> int:
        time.sleep(0.02)
        return more


def command(*options: object) -> Any:
    line = [sys.executable, "-m", "zray", *map(str, options)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ})


def of(made: list[Any], kind: str, phase: str = "X") -> list[Any]:
    return [one for one in made if one.get("cat") == kind and one["ph"] == phase]


def test_a_timeline_has_all_ways_that_a_task_can_go(sites: Any, tmp_path: Path) -> None:
    counter = Counter.remote()
    zray.get([counter.add.remote(1), quick.remote(), outer.remote()])
    path = tmp_path / "trace.json"
    asked = command("timeline", path, "--seconds", RECORD_S, "--json")
    refs = {}
    while asked.poll() is None:
        made = makes.remote()
        refs = {
            "leased": quick.remote(),
            "by head": made,
            "fetches": far_user.remote(made),
            "call": counter.add.remote(zray.get(quick.remote())),
            "nested": outer.remote(),
        }
        zray.get([*refs.values()])
    told = json.loads(asked.communicate()[0])
    assert not told["silent"]
    made = json.loads(path.read_text())

    def whole(name: str) -> tuple[Any, Any]:
        """A submit of a task of that name, and its run, which an arrow goes to."""
        runs = {one["args"]["task_id"]: one for one in of(made, f"task::{name}")}
        submits = [one for one in of(made, "submit") if one["name"] == f"submit {name}"]
        both = [
            (one, runs[one["args"]["task_id"]]) for one in submits if one["args"]["task_id"] in runs
        ]
        assert both, name
        for submit, run in both:
            assert submit["ts"] <= run["ts"] + 1000
        ends = {(one["id"], one["pid"], one["tid"]) for one in of(made, "submit", "f")}
        submit, run = both[0]
        task_id = run["args"]["task_id"]
        assert (task_id, run["pid"], run["tid"]) in ends
        begins = {one["id"]: one for one in of(made, "submit", "s")}
        assert begins[task_id]["tid"] == submit["tid"]
        waits = {one["id"] for one in of(made, "queue", "b")}
        assert task_id in waits
        return submit, run

    me = f"driver {os.getpid()}"
    for name in NAMES:
        assert whole(name)[0]["tid"] == me
    submit, _ = whole("near")
    assert submit["tid"].startswith("worker:")
    (above,) = {one["tid"] for one in of(made, "task::outer") if one["tid"] == submit["tid"]}
    assert above == submit["tid"]

    # From what is made on one node to what uses it on the other, which fetches it.
    users = {one["args"]["task_id"]: one for one in of(made, "task::far_user")}
    makers = {one["args"]["task_id"]: one for one in of(made, "task::makes")}
    arrows = [one for one in of(made, "result", "s") if one["id"].partition(">")[2] in users]
    assert arrows
    maker = makers[arrows[0]["id"].partition(">")[0]]
    assert maker["pid"] == arrows[0]["pid"] != users[arrows[0]["id"].partition(">")[2]]["pid"]
    assert maker["ts"] <= arrows[0]["ts"] <= maker["ts"] + maker["dur"]
    assert {one["id"].split()[0] for one in of(made, "transfer", "b")} & {*users}
    assert of(made, "load")

    # What is slow: it says so of the function that sleeps.
    taken = {name: sorted(one["dur"] for one in of(made, f"task::{name}")) for name in NAMES}
    typical = {name: found[len(found) // 2] for name, found in taken.items()}
    assert typical["makes"] >= 0.1e6 and typical["quick"] < typical["far_user"]

    # Nothing is left of it where it was noted.
    until(lambda: not _notes(), ASK_S, "the program goes on as before")


def _notes() -> bool:
    zray.get(quick.remote())
    driver = session.current()
    recorder = driver._recorder
    recorder._until = min(recorder._until, time.monotonic())  # it would be for some seconds more
    return "submit" in vars(driver)


def test_without_a_record_it_costs_nothing_and_has_what_ran(sites: Any, tmp_path: Path) -> None:
    zray.get([outer.remote(), quick.remote()])
    path = tmp_path / "trace.json"

    def written() -> Any:
        command("timeline", path).communicate(timeout=ASK_S)
        made = json.loads(path.read_text())
        return made if of(made, "task::near") and of(made, "task::outer") else None

    made = until(written, ASK_S, "both are in it")
    assert not of(made, "submit") and not of(made, "queue", "b")
    assert of(made, "child", "s") and of(made, "child", "f")
    driver = session.current()
    assert "submit" not in vars(driver)


def test_what_runs_long_is_on_top(sites: Any, gate: Any) -> None:
    slow = zray.remote(lambda: gate.wait()).options(name="the slow one", num_cpus=1)
    refs = [slow.remote() for _ in range(4)]

    def looked() -> Any:
        found = json.loads(command("top", "--once", "--json").communicate()[0])
        (mine,) = [one for one in found["names"] if one["name"] == "the slow one"] or [None]
        known = mine is not None and mine["running"] == 2 and found["waiting"] == 2
        return found if known else None

    found = until(looked, ASK_S, "two run and two wait")
    busy = [one for one in found["processes"] if one["title"] == "the slow one"]
    assert {one["node"] for one in busy} == {"one", "two"}
    assert all(one["runs_s"] > 0 for one in busy)
    nodes = {one["name"]: one for one in found["nodes"]}
    assert (nodes["one"]["cpus_used"], nodes["one"]["cpus"]) == (1.0, 1.0)
    gate.open()
    zray.get(refs)
