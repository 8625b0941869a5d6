"""The logs of detached daemons: bounded, and everybody who writes to one goes along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import until
from zray.core.head.supervision import FINAL


def outputs(process: psutil.Process) -> set[str]:
    """Which files a daemon and what it started write their errors to, but for workers."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        target = os.readlink(f"/proc/{one.pid}/fd/2")
        if not target.startswith("pipe:"):
            found.add(target)
    return found


def test_the_log_of_a_head_is_rotated_under_all_that_write_to_it(
    commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZRAY_ROTATION_MAX_BYTES", "200")
    process, log, _ = commands.detach("zray-head", "--port", 0, "--num-cpus", 1)
    old = log.with_name("head.log.1")
    until(old.exists, "the log is rotated")
    assert "READY" in old.read_text()
    until(lambda: outputs(process) == {str(log)}, "all have the new one")
    commands.run("zray", "stop")
    assert "stopped" in Path(log).read_text() + old.read_text()


def test_so_is_that_of_its_node_once_the_head_was_killed(
    commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZRAY_ROTATION_MAX_BYTES", "50")
    process, log, _ = commands.detach("zray-head", "--port", 0, "--num-cpus", 1)
    process.kill()
    here = log.with_name("logs") / "node.log"
    until(here.exists, "the node has a log of its own")
    with here.open("a") as file:
        file.write("x" * 100)
    old = here.with_name("node.log.1")
    until(lambda: old.exists() and here.exists(), "it is rotated")
    assert old.read_text().endswith("x" * 100) and not here.read_text()
    commands.run("zray", "stop")


def test_a_node_bounds_the_logs_of_its_workers(
    commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZRAY_ROTATION_MAX_BYTES", "10000")
    monkeypatch.setenv("ZRAY_ROTATION_BACKUP_COUNT", "2")
    head = commands.head("--num-cpus", 0)
    logs = tmp_path / "logs"
    commands.worker("--address", head.address(), "--log-directory", logs)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time, zray\n"
        "zray.init(sys.argv[1], log_to_driver=False)\n"
        "@zray.remote\n"
        "def chatter():\n"
        "    for number in range(200):\n"
        "        print(f'line {number:04}', 'x' * 1000)\n"
        "        time.sleep(0.001)\n"
        "zray.get(chatter.remote())\n"
    )
    subprocess.run([sys.executable, str(program), head.address()], timeout=40, check=True)

    def last() -> bool:
        return any("line 0199" in path.read_text() for path in logs.glob("worker-*.log*"))

    until(last, "all is written")
    sizes = {path.suffix: path.stat().st_size for path in logs.glob("worker-*.log*")}
    assert {*sizes} == {".log", ".1", ".2"}
    assert sum(sizes.values()) < 200_000


def test_a_bad_bound_is_said_at_the_start(commands: Any) -> None:
    done = commands.run("zray-head", "--port", 0, code=FINAL, ZRAY_ROTATION_MAX_BYTES="much")
    assert "ZRAY_ROTATION_MAX_BYTES must be a number" in done.stderr
