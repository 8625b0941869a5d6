"""``zray-head``: what it says, what it keeps, what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import BUSY, suspend, until
from zray.core.head.supervision import FINAL

ROOT = Path(__file__).resolve().parents[2]


# ---- ready ---------------------------------------------------------------------------------


def test_says_how_to_join_use_and_stop_it(commands: Any) -> None:
    head = commands.head()

    address = head.address()
    assert f"zray head READY at {address} (cluster default, pid {head.pid})" in head.text()
    assert f"zray-worker --address {address}\n" in head.text()
    assert f'zray.init("{address}")' in head.text()
    assert "zray stop" in head.text()
    assert "networks" not in head.text()


def test_keeps_key_and_connection_to_its_user(commands: Any, zray_home: Path) -> None:
    commands.head()

    for name in ("cluster.key", "connection.json"):
        status = (zray_home / "clusters" / "default" / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600, name


def test_offers_what_it_is_told_to(commands: Any) -> None:
    commands.head(
        *("--num-cpus", 1.5, "--num-gpus", 2, "--memory", "3GiB"),
        *("--resources", '{"bar": 1, "foo": 0.25}', "--labels", "zone=a, disk=ssd"),
    )

    node = commands.node("head")
    expected = {"CPU": 1.5, "GPU": 2.0, "memory": 3 * 2**30, "bar": 1.0, "foo": 0.25}
    of_itself = {"node:127.0.0.1": 1.0, "node:__internal_head__": 1.0}
    store = node["resources"].pop("object_store_memory")
    assert node["resources"] == expected | of_itself and store > 2**20
    assert node["labels"] == {
        "disk": "ssd",
        "zone": "a",
        "ray.io/node-id": node["node_id"],
    }


def test_offers_what_the_machine_has(commands: Any) -> None:
    daemon = commands.start("zray-head", "--port", 0)
    daemon.address()

    found = commands.node("head")["resources"]
    assert 1 <= found["CPU"] <= (os.cpu_count() or 1)
    assert 0 < found["memory"] <= psutil.virtual_memory().total


def test_without_cpus_it_runs_no_task(commands: Any) -> None:
    commands.head("--num-cpus", 0, "--resources", "a=1")

    assert "CPU" not in commands.node("head")["resources"]


def test_on_all_networks_it_says_so_plainly(commands: Any) -> None:
    head = commands.head("--host", "0.0.0.0")

    assert "listens on ALL networks" in head.text()
    assert "encrypted" in head.text()
    port = head.address().rpartition(":")[2]
    assert commands.status("--address", f"127.0.0.1:{port}")["health"] == "OK"


def test_host_may_be_a_name(commands: Any) -> None:
    head = commands.head("--host", "localhost")

    assert head.address().startswith("127.0.0.1:")


def test_same_data_directory_is_the_same_cluster(commands: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    head = commands.head("--data-directory", data, "--name", "lab")
    before = commands.status()["cluster"]
    assert head.end(signal.SIGTERM) == 0
    commands.head("--data-directory", data, "--name", "lab")

    after = commands.status()["cluster"]
    assert (after["id"], after["name"]) == (before["id"], "lab")
    assert {"cluster.key", "gcs.sqlite"} <= set(os.listdir(data))


def test_runs_from_a_checkout_in_any_directory(commands: Any, tmp_path: Path) -> None:
    """The head's own node finds zray too, and nothing that lies in the directory instead."""
    (tmp_path / "zray").mkdir()
    (tmp_path / "zray" / "__init__.py").write_text("raise SystemExit('the wrong zray')\n")
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, ROOT / "bin" / "zray-head", "--port", "0", "--num-cpus", "1"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        commands.node("head")
    finally:
        process.terminate()
        assert process.wait(10) == 0


# ---- detached ------------------------------------------------------------------------------


def test_detached_returns_when_ready(commands: Any, zray_home: Path) -> None:
    process, log, said = commands.detach("zray-head", "--port", 0, "--num-cpus", 1)

    assert "READY at 127.0.0.1:" in said
    assert f"pid {process.pid})" in said
    assert log == zray_home / "clusters" / "default" / "head.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "READY" in log.read_text()
    assert process.cwd() == "/"
    assert process.terminal() is None
    assert commands.status()["cluster"]["pid"] == process.pid
    process.terminate()
    commands.await_end([process], 10)
    assert "stopped: it got a signal" in log.read_text()


def test_detached_says_why_it_did_not_come_up(commands: Any) -> None:
    first = commands.head()
    port = first.address().rpartition(":")[2]

    said = commands.run("zray-head", "--port", port, "--name", "b", "--detach", code=1)

    assert said.stdout == ""
    assert "ZR-4001" in said.stderr
    assert f"pid {first.pid} " in said.stderr


def test_detached_shows_the_end_of_its_log(commands: Any, tmp_path: Path) -> None:
    """Whatever ends it before it is READY, such as a damaged installation."""
    module = tmp_path / "sqlite3.py"
    module.write_text("raise RuntimeError('this sqlite is broken')\n")

    done = subprocess.run(
        commands.line("zray-head", "--port", 0, "--detach"),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"},
        timeout=30,
    )

    assert done.returncode == 1
    assert "this sqlite is broken" in done.stderr
    assert re.search(r"zray-head: it ended before it was READY \(log: \S+head.log\)", done.stderr)


# ---- refusals ------------------------------------------------------------------------------


def test_second_head_on_a_data_directory_is_refused_with_the_first_ones_pid(
    commands: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    head = commands.head("--data-directory", data)

    said = commands.run(
        "zray-head", "--port", 0, "--data-directory", data, "--name", "other", code=1
    ).stderr

    assert "ZR-4002" in said
    assert f"pid {head.pid}," in said
    assert commands.status()["cluster"]["pid"] == head.pid


@pytest.mark.parametrize("directory", ["", "elsewhere"])
def test_second_head_with_a_name_is_refused(commands: Any, tmp_path: Path, directory: str) -> None:
    head = commands.head("--name", "lab")
    options = ("--data-directory", tmp_path / directory) if directory else ()

    said = commands.run("zray-head", "--port", 0, "--name", "lab", *options, code=1).stderr

    assert "ZR-4002" in said
    assert f"pid {head.pid}," in said
    assert commands.status()["cluster"]["pid"] == head.pid


def test_port_in_use_names_the_holder(commands: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        said = commands.run("zray-head", "--port", port, code=1).stderr

    assert "ZR-4001" in said
    assert f"127.0.0.1:{port}" in said
    assert f"pid {os.getpid()} " in said


def test_key_that_others_can_read_is_refused(commands: Any, zray_home: Path) -> None:
    commands.head().end(signal.SIGTERM)
    key = zray_home / "clusters" / "default" / "cluster.key"
    key.chmod(0o644)

    said = commands.run("zray-head", "--port", 0, code=FINAL).stderr

    assert "ZR-4004" in said
    assert f"chmod 600 {key}" in said


def test_home_that_is_a_file_is_refused(commands: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    for options, code in (((), FINAL), (("--detach",), 1)):
        said = commands.run(
            "zray-head", "--port", 0, *options, code=code, ZRAY_HOME=str(file)
        ).stderr
        assert "ZR-4004" in said
        assert str(file) in said


def test_host_of_another_machine_is_refused(commands: Any) -> None:
    said = commands.run("zray-head", "--port", 0, "--host", "192.0.2.1", code=FINAL).stderr

    assert "this machine has no address '192.0.2.1'" in said


def test_more_cpus_than_the_machine_has_is_a_warning(commands: Any) -> None:
    head = commands.head("--num-cpus", 4096)

    assert "zray-head: warning: --num-cpus 4096 is more than the" in head.text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--port", "70000"), "must be a number from 0 (any free one) to 65535, not '70000'"),
        (("--port", "abc"), "must be a number from 0"),
        (("--port", "-1"), "must be a number from 0"),
        (("--port", "8265"), "8265 is the dashboard's"),
        (("--host", "no such host"), "'no such host' is no address and no known name"),
        (("--host", "nowhere.invalid"), "is no address and no known name"),
        (("--name", "../evil"), "'../evil' is not a name"),
        (("--name", ""), "'' is not a name"),
        (("--data-directory", "/etc/passwd"), "is a file"),
        (("--num-cpus", "-1"), "must be from 0 to 2^39, not -1.0"),
        (("--num-cpus", "nan"), "must be from 0 to 2^39, not nan"),
        (("--num-cpus", "1e9"), "may be 65,536 at most, not '1e9'"),
        (("--num-cpus", "many"), "must be a number, not 'many'"),
        (("--num-cpus", "0.00001"), "granularity of 1/10000"),
        (("--num-gpus", "-0.5"), "'GPU' must be from 0"),
        (("--memory", "lots"), "'lots' is no size; write 4GiB"),
        (("--memory", "600GiB"), "below 512GiB"),
        (("--resources", "a"), "'a' has no value; write NAME=VALUE"),
        (("--resources", "a=1,a=2"), "'a' is given twice"),
        (("--resources", '{"a": 1, "a": 2}'), "'a' is given twice"),
        (("--resources", '{"a": 1'), "is not JSON"),
        (("--resources", '[["a", 1]]'), "not an object"),
        (("--resources", '{"a": true}'), "'a' must be a number, not True"),
        (("--resources", '{"a": {"b": 1}}'), "'a' must be a number"),
        (("--resources", "a=inf"), "must be from 0 to 2^39, not inf"),
        (("--resources", "CPU=1"), "CPU has an option of its own: --num-cpus"),
        (("--resources", "a b=1"), "'a b' is not a name"),
        (("--labels", "zone"), "'zone' has no value"),
        (("--labels", '{"zone": 1}'), "must be a printable text"),
        (("--labels", "zone=\x1b[31m"), "must be a printable text"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_options_are_usage_errors(
    commands: Any, options: tuple[str, ...], complaint: str
) -> None:
    commands.refuses("zray-head", options, complaint)


# ---- the end -------------------------------------------------------------------------------


def busy_cluster(commands: Any) -> tuple[Any, list[psutil.Process]]:
    """A head whose own node is in the middle of a long task, and all processes below it."""
    head = commands.head()
    driver = commands.drive(BUSY, head.address())
    driver.says("busy")
    below = head.below()
    assert len(below) >= 3  # raylet, zygote, worker
    driver.end(signal.SIGKILL)
    return head, below


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_is_a_clean_stop_that_leaves_nothing(
    commands: Any, zray_home: Path, number: signal.Signals
) -> None:
    head, below = busy_cluster(commands)

    assert head.end(number) == 0
    commands.await_end(below, 1)
    assert "stopped: it got a signal to stop" in head.text()
    assert "Traceback" not in head.text()
    assert not (zray_home / "clusters" / "default" / "connection.json").exists()


def test_a_clean_stop_takes_ten_seconds_at_most(commands: Any) -> None:
    """Even where the head's own node does not answer."""
    head = commands.head()
    below = head.below()
    raylet = next(process for process in below if process.ppid() == head.pid)
    suspend(raylet)

    assert head.end(signal.SIGTERM) == 0
    commands.await_end(below, 5)


def test_the_second_signal_is_now(commands: Any) -> None:
    head = commands.head()
    below = head.below()
    raylet = next(process for process in below if process.ppid() == head.pid)
    suspend(raylet)  # a clean stop waits for it

    assert head.insist(signal.SIGINT) == -signal.SIGINT
    raylet.resume()
    commands.await_end(below, 5)


def test_ctrl_c_while_it_starts_leaves_nothing(commands: Any) -> None:
    daemon = commands.start("zray-head", "--port", 0)
    deadline = time.monotonic() + 20
    while not daemon.below():
        assert time.monotonic() < deadline
    below = daemon.below()
    daemon.process.send_signal(signal.SIGINT)

    daemon.process.wait(10)
    commands.await_end(below, 5)


def test_what_a_killed_head_leaves_waits_for_the_next_and_ends_with_zray_stop(
    commands: Any, zray_home: Path
) -> None:
    head = commands.head()
    below = head.below()
    raylet = next(process for process in below if process.ppid() == head.pid)
    head.end(signal.SIGKILL)

    told = "its head has ended; node head waits for the next one, at most 10 min"
    until(lambda: told in head.text(), told)
    assert "no head runs on this machine" in commands.run("zray", "status", code=2).stderr
    assert all(process.is_running() for process in below)
    said = commands.run("zray", "stop").stdout
    assert (
        said == f"Stopped 1 node of cluster default (pid {raylet.pid}); its head had been killed.\n"
    )
    commands.await_end(below, 1)
    assert (
        "zray-worker: stopped: it got a signal to stop"
        in (zray_home / "clusters" / "default" / "logs" / "node.log").read_text()
    )


def test_a_node_that_was_started_otherwise_is_replaced(commands: Any) -> None:
    head = commands.head()
    below = head.below()
    head.end(signal.SIGKILL)

    second = commands.head("--num-cpus", 2)
    second.says("was started otherwise, and is replaced")
    commands.await_end(below, 1)
    assert dict(commands.node("head")["resources"])["CPU"] == 2
