"""``zray simulate``: a recorded workload on clusters that are only imagined."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FORMAT = "zray workload 1"
RECORDED = """
import sys, time
import zray
from zray.util.workload import record_workload

zray.init(sys.argv[1])

@zray.remote
def load(n):
    time.sleep(0.01)
    return bytes(100_000)

@zray.remote(num_cpus=0.5)
def join(*parts):
    time.sleep(0.02)
    return len(parts)

with record_workload(sys.argv[2]):
    zray.get([join.remote(load.remote(n), load.remote(-n)) for n in range(20)])
zray.get(load.remote(1))
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.json"
    tasks = [{"name": "f\x1b[2J", "seconds": 0.1} for _ in range(40)]
    path.write_text(json.dumps({"format": FORMAT, "tasks": tasks, "made_on": "\x1b[31mevil"}))
    return path


def run(commands: Any, *options: object, code: int = 0) -> str:
    done = commands.run("zray", "simulate", *options, code=code)
    assert "\x1b" not in done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def test_what_a_program_did_is_recorded_and_foretold(commands: Any, tmp_path: Path) -> None:
    address = commands.head("--num-cpus", 2).address()
    (tmp_path / "program.py").write_text(RECORDED)
    path = tmp_path / "workload.json"
    subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), address, str(path)], check=True, timeout=60
    )

    recorded = json.loads(path.read_text())
    names = [task["name"] for task in recorded["tasks"]]
    assert names.count("load") == 40 and names.count("join") == 20
    assert recorded["left_out"] == 0 and recorded["made_on"] == "1 nodes, 2 CPUs"
    joins = [task for task in recorded["tasks"] if task["name"] == "join"]
    assert all(len(task["after"]) == 2 for task in joins)
    assert {names[number] for task in joins for number in task["after"]} == {"load"}
    assert all(task["resources"] == {"CPU": 0.5} for task in joins)
    loads = [task for task in recorded["tasks"] if task["name"] == "load"]
    assert all(task["seconds"] >= 0.01 for task in loads)
    assert sum(task["result_bytes"] > 100_000 for task in loads) >= 35

    found = json.loads(run(commands, path, "--cpus", 2, "--json"))["forecasts"][0]
    assert found["tasks"] == 60 and 0.3 < found["makespan_s"] < 5
    assert found["waits"]["dependencies"] > 0


def test_a_table_of_several_clusters(commands: Any, trace: Path) -> None:
    said = run(commands, trace, "--nodes", "1,2,4", "--cpus", 4)
    rows = [line.split() for line in said.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "4"]
    assert rows[0][3] == "1.00"
    assert float(rows[2][3]) > 2.5
    assert r"recorded on \x1b[31mevil" in said


def test_one_cluster_is_shown_node_by_node(commands: Any, trace: Path) -> None:
    said = run(commands, trace, "--nodes", 1, "--cpus", 2, "--node", "2*cpus=1,gpus=1")
    assert "on 3 nodes with 4 CPUs" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("n")][-3:] == [
        *("n1", "n2", "n3"),
    ]
    for what in ("utilisation", "dependencies", "queue", "transfer", "makespan"):
        assert what in said


def test_the_same_seed_says_the_same(commands: Any, trace: Path) -> None:
    first, again = (run(commands, trace, "--cpus", 4, "--seed", 5, "--json") for _ in range(2))
    assert first == again
    assert first != run(commands, trace, "--cpus", 4, "--seed", 6, "--json")


def test_what_makes_no_sense_is_said(commands: Any, trace: Path, tmp_path: Path) -> None:
    assert "ZR-5122" in run(commands, trace, "--cpus", 0.5, code=1)
    (tmp_path / "other.json").write_text("{}")
    error = json.loads(run(commands, tmp_path / "other.json", "--json", code=1))["error"]
    assert error["code"] == "ZR-5122"
    for options, complaint in (
        (("--nodes", "x"), "no number of nodes"),
        (("--nodes", "99999"), "no number of nodes up to 10,000"),
        (("--nodes", "0"), "has a node at least"),
        (("--node", "cpus"), "has no value"),
        (("--node", "0*cpus=1"), "before * is how many"),
        (("--bandwidth", "fast"), "is no rate"),
        (("--latency", "0"), "is not in the range"),
    ):
        said = " ".join(run(commands, trace, *options, code=2).split())
        assert complaint in said
