"""``zray stop``: ends one whole cluster and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

BUSY = """
import sys, time
import zray
zray.init(sys.argv[1])
@zray.remote
def busy():
    print("busy", flush=True)
    time.sleep(600)
@zray.remote(num_cpus=100)
def never():
    pass
refs = [busy.remote(), never.remote()]
zray.get(refs)
"""


def test_nothing_runs(commands: Any) -> None:
    said = commands.run("zray", "stop").stdout

    assert said == "No cluster named default runs here; nothing was stopped.\n"


def test_stops_head_nodes_and_tasks_and_leaves_nothing(commands: Any, zray_home: Path) -> None:
    head, _, said = commands.detach("zray-head", "--port", 0, "--num-cpus", 0)
    address = said.split("READY at ")[1].split()[0]
    one, _, _ = commands.detach("zray-worker", "--num-cpus", 1, "--name", "one")
    two = commands.worker("--address", address, "--num-cpus", 0, "--name", "two")
    driver = commands.drive(BUSY, address)
    driver.says("busy")
    found = [head, one, psutil.Process(two.pid)]
    found += [below for process in found for below in process.children(recursive=True)]
    assert len(found) >= 8  # with the head's raylet, three zygotes and a worker

    started = time.monotonic()
    said = commands.run("zray", "stop").stdout

    assert time.monotonic() - started < 10
    assert said == (
        f"Stopped cluster default: head {address} and 3 nodes; 2 unfinished tasks were dropped.\n"
    )
    assert two.process.wait(1) == 0
    commands.await_end(found, 1)
    assert driver.process.wait(5) != 0
    assert "zray stop was called" in driver.text()
    assert not (zray_home / "clusters" / "default" / "connection.json").exists()
    assert "nothing was stopped" in commands.run("zray", "stop").stdout


def test_stops_the_named_cluster_alone(commands: Any) -> None:
    first = commands.head("--name", "first")
    second = commands.head("--name", "second")

    said = commands.run("zray", "stop").stdout
    assert "No cluster named default runs here" in said
    assert "zray stop --name first\n" in said
    assert "zray stop --name second\n" in said
    assert "Stopped cluster first:" in commands.run("zray", "stop", "--name", "first").stdout
    assert first.process.wait(5) == 0
    assert second.process.poll() is None


def test_stops_the_cluster_of_a_data_directory(commands: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    other = commands.head()
    head = commands.head("--name", "lab", "--data-directory", data)

    assert (
        f"Stopped cluster {data}:" in commands.run("zray", "stop", "--data-directory", data).stdout
    )
    assert head.process.wait(5) == 0
    assert other.process.poll() is None
    said = commands.run("zray", "stop", "--data-directory", data).stdout
    assert said == f"No head uses {data}; nothing was stopped.\n"


def test_stops_a_named_cluster_whose_data_is_elsewhere(commands: Any, tmp_path: Path) -> None:
    head = commands.head("--name", "lab", "--data-directory", tmp_path / "data")

    assert "Stopped cluster lab:" in commands.run("zray", "stop", "--name", "lab").stdout
    assert head.process.wait(5) == 0


def test_stops_the_cluster_at_an_address(commands: Any, tmp_path: Path, zray_home: Path) -> None:
    """As from another machine: all that is known of the head is its connection file."""
    head = commands.head()
    address = head.address()
    copy = tmp_path / "connection.json"
    copy.write_bytes((zray_home / "clusters" / "default" / "connection.json").read_bytes())
    copy.chmod(0o600)
    elsewhere = {"ZRAY_HOME": str(tmp_path / "home"), "ZRAY_CONNECTION_FILE": str(copy)}

    said = commands.run("zray", "stop", "--address", address, **elsewhere).stdout

    assert f"Stopped cluster default: head {address}" in said
    assert head.process.wait(5) == 0
    said = commands.run("zray", "stop", "--address", address).stdout
    assert said == f"Nothing runs at {address}; nothing was stopped.\n"


def test_the_environment_chooses_no_cluster_to_stop(commands: Any) -> None:
    head = commands.head("--name", "lab")

    said = commands.run("zray", "stop", ZRAY_ADDRESS=head.address()).stdout

    assert f"zray stop --address {head.address()}" in said
    assert head.process.poll() is None


def test_a_drivers_own_cluster_is_not_stopped(commands: Any) -> None:
    driver = commands.drive(
        "import time, zray; zray.init(num_cpus=1); print('here'); time.sleep(600)"
    )
    driver.says("here")

    assert "nothing was stopped" in commands.run("zray", "stop").stdout
    assert driver.process.poll() is None


@pytest.mark.parametrize("way", ["name", "address", "directory"])
def test_nodes_of_a_head_that_was_killed_are_stopped(
    commands: Any, zray_home: Path, way: str
) -> None:
    other = commands.head("--name", "other", "--num-cpus", 0)
    kept = commands.worker("--address", other.address(), "--name", "kept")
    head = commands.head("--num-cpus", 0)
    address = head.address()
    nodes = [commands.worker("--address", address, "--name", f"n{n}") for n in range(2)]
    own = head.below()
    head.process.kill()
    head.process.wait(10)
    nodes[0].process.send_signal(signal.SIGSTOP)
    directory = zray_home / "clusters" / "default"
    given = {"name": [], "address": ["--address", address]}
    options = given.get(way, ["--data-directory", directory])

    said = commands.run("zray", "stop", *options).stdout

    pids = {str(node.pid) for node in nodes}
    assert said.startswith("Stopped 3 nodes of cluster ") and pids <= set(re.findall(r"\d+", said))
    assert [node.process.wait(1) for node in nodes] == [0, 0]
    assert kept.process.poll() is None and other.process.poll() is None
    commands.await_end(own, 1)
    assert len(list((zray_home / "running").iterdir())) == 2  # kept, and the other head's own
    again = commands.run("zray", "stop", *options).stdout
    assert "nothing was stopped" in again


def test_what_a_killed_node_has_left_is_removed(commands: Any, zray_home: Path) -> None:
    head = commands.head("--num-cpus", 0)
    node = commands.worker("--address", head.address())
    raylet = next(process for process in head.below() if process.ppid() == head.pid)
    for daemon in (node, head):
        daemon.process.kill()
        daemon.process.wait(10)
    raylet.kill()
    commands.await_end([raylet], 10)
    assert list((zray_home / "running").iterdir())
    assert "nothing was stopped" in commands.run("zray", "stop").stdout
    assert not list((zray_home / "running").iterdir())


def test_a_head_that_is_suspended_gets_a_signal(commands: Any) -> None:
    head = commands.head()
    below = head.below()
    os.kill(head.pid, signal.SIGSTOP)

    said = commands.run("zray", "stop").stdout

    assert "The head did not take the request, so it is told by SIGTERM" in said
    assert f"Stopped the head of cluster default (pid {head.pid})" in said
    assert head.process.wait(1) == 0
    commands.await_end(below, 1)


def test_a_head_without_its_connection_file_gets_a_signal(commands: Any, zray_home: Path) -> None:
    head = commands.head()
    (zray_home / "clusters" / "default" / "connection.json").unlink()

    assert "has no connection file" in commands.run("zray", "stop").stdout
    assert head.process.wait(1) == 0


# ---- never another process -----------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a head by its name, and is none."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", "zray-head"]
    process = subprocess.Popen(command)
    yield process
    assert process.poll() is None
    process.kill()
    process.wait()


def write_lock(zray_home: Path, pid: int) -> Path:
    directory = zray_home / "clusters" / "default"
    directory.mkdir(parents=True)
    path = directory / "lock"
    path.write_text(json.dumps({"pid": pid, "started": "", "host": socket.gethostname()}))
    return path


def test_a_reused_pid_is_left_alone(
    commands: Any, zray_home: Path, bystander: subprocess.Popen[bytes]
) -> None:
    write_lock(zray_home, bystander.pid)

    assert "nothing was stopped" in commands.run("zray", "stop").stdout


def test_a_pid_that_does_not_hold_the_lock_is_left_alone(
    commands: Any, zray_home: Path, bystander: subprocess.Popen[bytes]
) -> None:
    path = write_lock(zray_home, bystander.pid)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert "nothing was stopped" in commands.run("zray", "stop").stdout


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "1"}', '{"pid": -1}', "\0" * 100])
def test_a_damaged_lock_file_is_no_head(commands: Any, zray_home: Path, content: str) -> None:
    path = write_lock(zray_home, 1)
    path.write_text(content)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        assert "nothing was stopped" in commands.run("zray", "stop").stdout


def test_only_one_way_to_name_it(commands: Any, tmp_path: Path) -> None:
    said = commands.run("zray", "stop", "--name", "a", "--data-directory", tmp_path, code=2).stderr
    assert "only one of" in said


def test_addresses_of_several_heads_of_which_none_runs(commands: Any) -> None:
    said = commands.run("zray", "stop", "--address", "127.0.0.1:1,127.0.0.1:2").stdout
    assert "Nothing runs at 127.0.0.1:1, 127.0.0.1:2" in said


def test_a_host_that_nobody_knows(commands: Any) -> None:
    assert "ZR-1406" in commands.run("zray", "stop", "--address", "nowhere.invalid", code=1).stderr
