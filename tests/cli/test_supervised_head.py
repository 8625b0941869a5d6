"""``zray-head --supervise``: who is started again, who is not, and whom the commands mean."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import until
from tests.etcd_cluster import Etcd

MEMORY_MAX = 12 << 20


def head_below(pid: int, not_pid: int = 0) -> psutil.Process:
    """The head whose parent has that pid, once there is another one than ``not_pid``."""

    def probe() -> psutil.Process | None:
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "zray.cli.supervised" in child.cmdline() and child.pid != not_pid:
                    return child
        return None

    return until(probe, f"a head below {pid}")


def serving(commands: Any, not_pid: int = 0) -> int:
    """The pid of the head that ``zray status`` finds."""

    def probe() -> int:
        done = subprocess.run(
            commands.line("zray", "status", "--json"), capture_output=True, text=True, timeout=40
        )
        pid = int(json.loads(done.stdout).get("cluster", {}).get("pid", 0))
        return pid if pid != not_pid else 0

    return until(probe, "another head serves")


def test_one_that_is_killed_comes_back_where_it_was(commands: Any) -> None:
    parent = commands.head("--supervise")
    address, first = parent.address(), head_below(parent.pid)
    node = commands.node("head")

    first.kill()

    second = serving(commands, first.pid)
    assert second == head_below(parent.pid, first.pid).pid
    assert commands.node("head")["pid"] == node["pid"]  # it has waited
    assert commands.status()["cluster"]["address"] == address
    assert f"the head (pid {first.pid}) was killed by SIGKILL. It is started again" in parent.text()
    assert commands.run("zray", "stop").stdout.startswith("Stopped cluster default")
    assert parent.process.wait(10) == 0


def test_one_that_does_nothing_is_killed_and_comes_back(commands: Any) -> None:
    parent = commands.head("--supervise", "--watchdog", 2)
    first = head_below(parent.pid)

    first.suspend()

    assert head_below(parent.pid, first.pid)
    parent.says("because it has done nothing for 2 s")
    serving(commands, first.pid)
    assert parent.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_stops_both_cleanly(commands: Any, number: int) -> None:
    parent = commands.head("--supervise")
    below = parent.below()

    assert parent.end(number) == 0

    assert "stopped: it got a signal to stop" in parent.text()
    commands.await_end(below, 1.0)


def test_a_signal_to_the_head_is_no_accident(commands: Any) -> None:
    parent = commands.head("--supervise")
    head_below(parent.pid).terminate()
    assert parent.process.wait(10) == 0


def test_two_signals_end_even_a_head_that_is_stopped(commands: Any) -> None:
    parent = commands.head("--supervise")
    head = head_below(parent.pid)
    parent.insist(signal.SIGINT)
    commands.await_end([head], 2.0)


def test_detached_it_says_ready_once_and_the_pid_is_the_parent_s(commands: Any) -> None:
    parent, log, said = commands.detach("zray-head", "--port", 0, "--num-cpus", 1, "--supervise")
    assert "READY at" in said and f"pid {parent.pid}, log" in said
    first = head_below(parent.pid)
    assert parent.memory_full_info().pss < MEMORY_MAX
    first.kill()
    serving(commands, first.pid)
    assert "was killed by SIGKILL" in log.read_text()
    commands.run("zray", "stop")
    commands.await_end([parent], 5.0)


def test_what_the_next_start_would_refuse_is_not_tried(commands: Any, zray_home: Path) -> None:
    parent = commands.head("--supervise")
    data = zray_home / "clusters" / "default"
    first = head_below(parent.pid)
    first.suspend()
    with sqlite3.connect(data / "gcs.sqlite") as store:
        store.execute("UPDATE meta SET schema = 7")
    store.close()
    first.kill()
    assert parent.process.wait(20) == 3
    assert "ZR-4009" in parent.text() and "schema 7; this one knows 1" in parent.text()
    assert commands.start("zray-head", "--supervise").process.wait(20) == 3


def test_a_first_start_that_fails_is_the_only_one(commands: Any) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    parent = commands.start("zray-head", "--supervise", "--port", port, "--num-cpus", 0)
    assert parent.process.wait(20) == 1
    assert parent.text().count("ZR-4001") == 1
    taken.close()
    commands.refuses("zray-head", ("--watchdog", "1", "--supervise"), "is not in the range")
    assert "--watchdog goes with" in commands.run("zray-head", "--watchdog", 5, code=2).stderr


def test_a_second_start_names_the_parent_and_stop_ends_it_between_two_lives(
    commands: Any,
) -> None:
    parent = commands.head("--supervise")
    for options in ([], ["--supervise"]):
        said = commands.run("zray-head", "--port", 0, *options, code=1).stderr
        assert f"supervised head: pid {parent.pid} starts it again" in said
    # Between two lives of its head, so to speak.
    psutil.Process(parent.pid).suspend()
    head_below(parent.pid).kill()
    stopped = commands.run("zray", "stop").stdout
    assert f"Stopped the supervisor of cluster default (pid {parent.pid})" in stopped
    assert parent.process.wait(10) == 0


def test_without_its_parent_the_head_goes_on(commands: Any) -> None:
    parent = commands.head("--supervise")
    head = head_below(parent.pid)
    psutil.Process(parent.pid).kill()
    parent.process.wait()
    assert commands.status()["cluster"]["pid"] == head.pid
    said = commands.run("zray-head", "--supervise", "--port", 0, code=1).stderr
    assert f"pid {head.pid}" in said
    assert commands.run("zray", "stop").stdout.startswith("Stopped cluster default")
    commands.await_end([head], 5.0)


def test_heads_on_etcd_are_started_again_each_by_its_own_parent(
    commands: Any, zray_home: Path, tmp_path: Path
) -> None:
    etcd = Etcd(tmp_path / "etcd")
    try:
        first = commands.head("--supervise", "--store", etcd.url, "--num-cpus", 0)
        second_home = tmp_path / "second"
        second_home.mkdir(mode=0o700)
        data = second_home / "clusters" / "default"
        data.mkdir(mode=0o700, parents=True)
        shutil.copy2(zray_home / "clusters" / "default" / "cluster.key", data)
        second = commands.start(
            *("zray-head", "--supervise", "--store", etcd.url, "--port", 0, "--num-cpus", 0),
            ZRAY_HOME=str(second_home),
        )
        second.says("STANDBY at")
        leader, standby = head_below(first.pid), head_below(second.pid)

        standby.kill()
        head_below(second.pid, standby.pid)
        until(lambda: second.text().count("STANDBY at") == 2, "it stands by again")
        leader.kill()
        second.says("READY at")
        head_below(first.pid, leader.pid)
        first.says("STANDBY at")

        assert "Stopped cluster default" in commands.run("zray", "stop").stdout
        assert first.process.wait(20) == 0 and second.process.wait(20) == 0
    finally:
        etcd.close()


# ---- systemd -------------------------------------------------------------------------------


class Systemd:
    """A socket that hears what services tell."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20)
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}

    def hears(self, line: str) -> str:
        while True:
            told = self._socket.recv(65536).decode()
            if line in told:
                return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Any:
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


@pytest.mark.parametrize("options", [[], ["--supervise"]], ids=["alone", "supervised"])
def test_systemd_is_told_of_a_head(commands: Any, systemd: Any, options: list[str]) -> None:
    head = commands.start(
        *("zray-head", "--port", 0, "--num-cpus", 1, *options), **systemd.environment
    )
    assert systemd.hears("READY=1")
    address = head.address()
    systemd.hears("WATCHDOG=1")
    systemd.hears("WATCHDOG=1")
    for process in head.below():
        environment = process.environ()
        assert "WATCHDOG_USEC" not in environment
        if "supervised" not in " ".join(process.cmdline()):
            assert "NOTIFY_SOCKET" not in environment and "ZRAY_SUPERVISOR_PIPE" not in environment
    worker = commands.start(
        *("zray-worker", "--address", address, "--num-cpus", 1), **systemd.environment
    )
    assert f"joined the head at {address}" in systemd.hears("STATUS=node")
    head.process.send_signal(signal.SIGTERM)
    systemd.hears("STOPPING=1")
    assert head.process.wait(10) == 0
    assert worker.end(signal.SIGTERM) == 0


def test_a_unit_has_the_right_paths_and_is_taken_by_systemd(commands: Any, tmp_path: Path) -> None:
    given = ["--host", "0.0.0.0", "--labels", "zone=a b$c"]
    text = commands.run("zray", "systemd-unit", "head", *given, ZRAY_HOME="/srv/of $zray %h").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    program = line.removeprefix("ExecStart=").split()[0]
    assert program == str(Path(sys.executable).with_name("zray-head")) and os.access(program, 1)
    assert line.endswith('--host 0.0.0.0 --labels "zone=a b$$c"')
    assert 'Environment="ZRAY_HOME=/srv/of $zray %%h"' in text  # a variable only in commands
    worker = commands.run("zray", "systemd-unit", "--user", "worker", "--name", "w1").stdout
    assert "\nUser=" in text and "\nUser=" not in worker and "KillMode=mixed" in worker
    for name, content in (("zray-head", text), ("zray-worker", worker)):
        (tmp_path / f"{name}.service").write_text(content)
    verify = ["systemd-analyze", "verify", *map(str, tmp_path.glob("*.service"))]
    try:
        done = subprocess.run(verify, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return  # another kind of machine
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line], done.stderr


def test_a_unit_is_not_printed_for_options_that_are_wrong(commands: Any) -> None:
    said = commands.run("zray", "systemd-unit", "head", "--port", "x", code=2).stderr
    assert "Invalid value for '--port'" in said
    said = commands.run("zray", "systemd-unit", "head", "--detach", code=2).stderr
    assert "--detach is not for a unit" in said


@pytest.mark.parametrize("path", ["/a\nExecStartPre=/bin/x", "/a\x1b[31m", "/a\u2028b"])
def test_what_is_given_to_a_unit_is_no_other_setting_of_it(commands: Any, path: str) -> None:
    said = commands.run("zray", "systemd-unit", "head", "--data-directory", path, code=2).stderr
    assert f"{path!r} has a character that cannot be in a unit" in said
    said = commands.run("zray", "systemd-unit", "head", code=2, ZRAY_HOME=path).stderr
    assert f"{path!r} has a character that cannot be in a unit" in said


def test_a_unit_in_a_folder_that_is_gone_is_refused(commands: Any, tmp_path: Path) -> None:
    zray = Path(sys.executable).with_name("zray")
    (tmp_path / "gone").mkdir()
    text = 'cd "$1" && rmdir "$1" && exec "$2" systemd-unit head'
    command = ["sh", "-c", text, "sh", tmp_path / "gone", zray]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40)
    assert done.returncode == 1 and "this folder is not there any more" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_unit_names_the_link_that_it_was_called_by(tmp_path: Path) -> None:
    """An upgrade moves the link from one installation to the next."""
    link = tmp_path / "zray"
    link.symlink_to(Path(sys.executable).parent)
    command = [link / "zray", "systemd-unit", "head"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=40).stdout
    assert f"\nExecStart={link}/zray-head\n" in text
