"""``make run``'s program: a real head and two real raylets, the examples, and a clean end."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow_limit(120)
@pytest.mark.usefixtures("with_packages")
def test_runs_the_examples_on_both_nodes_and_leaves_nothing(
    run: Callable[..., subprocess.CompletedProcess[str]], home: Path
) -> None:
    ended = run("run_cluster.py")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[0, 2, 4, 6, 8]\n" in ended.stdout
    files = re.search(r"^  files +([\d,]+)$", ended.stdout, re.MULTILINE)
    assert files
    assert "1,797 pictures of 10 kinds" in ended.stdout
    assert re.search(r"shared .*: 45 tasks read 27\.6 MB of it, 0 bytes copied", ended.stderr)
    tasks = {
        node: int(count.replace(",", ""))
        for node, count in re.findall(r"^    (one|two) +([\d,]+)$", ended.stdout, re.MULTILINE)
    }
    assert min(tasks["one"], tasks["two"]) > 0
    # At least one task for each file, the five of hello_cluster and one merge.
    assert sum(tasks.values()) >= int(files[1].replace(",", "")) + 6
    assert list(home.iterdir()) == []


@pytest.mark.slow_limit(90)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(
    launch: Callable[..., subprocess.Popen[str]], home: Path, number: signal.Signals
) -> None:
    process = launch("run_cluster.py")
    assert process.stdout
    too_late = threading.Timer(30, process.kill)
    too_late.start()
    for line in process.stdout:
        if "code_census.py" in line:  # head, raylets, workers and an example's driver all run
            break
    too_late.cancel()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=40)

    assert process.returncode == 128 + number, stderr
    assert "Traceback" not in stderr
    assert list(home.iterdir()) == []
