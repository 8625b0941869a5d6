"""``zray-worker``: how it finds its head, what it offers, what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import BUSY, suspend, until
from zray.nodes import contact

PRINTS = """
import sys
import zray
zray.init(sys.argv[1])
@zray.remote
def speak():
    print("a word")
zray.get(speak.remote())
zray.shutdown()
"""


@pytest.fixture
def head(commands: Any) -> Any:
    """A head that runs no task."""
    return commands.head("--num-cpus", 0)


# ---- joining -------------------------------------------------------------------------------


def test_joins_and_offers_what_it_is_told_to(commands: Any, head: Any) -> None:
    worker = commands.worker(
        *("--address", head.address(), "--name", "one", "--num-cpus", 2, "--num-gpus", 0.5),
        *("--memory", 10**9, "--resources", "fast=0.5,slow=3", "--labels", '{"zone": "a b"}'),
    )

    assert f"node one READY, joined the head at {head.address()}" in worker.text()
    node = commands.node("one")
    expected = {"CPU": 2.0, "GPU": 0.5, "memory": 1e9, "fast": 0.5, "slow": 3.0}
    store = node["resources"].pop("object_store_memory")
    assert node["resources"] == expected | {"node:127.0.0.1": 1.0} and store > 2**20
    assert node["labels"] == {"zone": "a b", "ray.io/node-id": node["node_id"]}
    assert node["pid"] == worker.pid


def test_is_named_after_its_machine(commands: Any, head: Any) -> None:
    commands.worker("--address", head.address())

    commands.node(socket.gethostname())


def test_finds_the_head_of_this_machine(commands: Any, head: Any) -> None:
    worker = commands.worker("--name", "one")

    assert worker.address() == head.address()


def test_finds_the_head_by_the_environment(commands: Any) -> None:
    first = commands.head("--name", "first", "--num-cpus", 0)
    commands.head("--num-cpus", 0)  # the one it would find without
    worker = commands.worker("--name", "one", ZRAY_ADDRESS=f"zray://{first.address()}")

    assert worker.address() == first.address()


@pytest.mark.parametrize("repeated", [False, True])
def test_takes_the_first_address_that_answers(
    commands: Any, head: Any, dead: str, repeated: bool
) -> None:
    options = (
        ("--address", dead, "--address", head.address())
        if repeated
        else ("--address", f"{dead}, {head.address()}")
    )
    worker = commands.worker(*options, "--name", "one")

    assert worker.address() == head.address()


def test_waits_for_a_head_that_was_killed_and_joins_its_successor(commands: Any) -> None:
    head = commands.head("--num-cpus", 0)
    worker = commands.worker("--address", head.address(), "--name", "one")
    port = head.address().rpartition(":")[2]
    head.end(signal.SIGKILL)
    commands.head("--num-cpus", 0, "--port", port)

    assert commands.node("one")["pid"] == worker.pid


def test_detached_returns_when_it_has_joined(commands: Any, head: Any, zray_home: Path) -> None:
    process, log, said = commands.detach(
        "zray-worker", "--address", head.address(), "--name", "one", "--num-cpus", 1
    )

    assert f"node one READY, joined the head at {head.address()}" in said
    assert log == zray_home / "nodes" / f"one-{process.pid}" / "worker.log"
    assert "READY" in log.read_text()
    assert commands.node("one")["pid"] == process.pid
    process.terminate()
    commands.await_end([process], 10)
    assert "stopped: it got a signal" in log.read_text()


# ---- logs ----------------------------------------------------------------------------------


def test_keeps_what_its_workers_printed(commands: Any, head: Any, zray_home: Path) -> None:
    worker = commands.worker("--address", head.address(), "--name", "one")
    assert commands.drive(PRINTS, head.address()).process.wait(20) == 0
    assert worker.end(signal.SIGTERM) == 0

    logs = [*(zray_home / "nodes" / f"one-{worker.pid}").iterdir()]
    assert [log.read_text() for log in logs] == ["a word\n"]


def test_keeps_no_log_without_a_word(commands: Any, head: Any, zray_home: Path) -> None:
    worker = commands.worker("--address", head.address(), "--name", "one")
    assert commands.drive(PRINTS.replace("print", "str"), head.address()).process.wait(20) == 0
    assert worker.end(signal.SIGTERM) == 0

    assert [*(zray_home / "nodes").iterdir()] == []


def test_logs_go_where_they_are_told_to(commands: Any, head: Any, tmp_path: Path) -> None:
    logs = tmp_path / "new" / "logs"
    commands.worker("--address", head.address(), "--log-directory", logs)
    assert commands.drive(PRINTS, head.address()).process.wait(20) == 0

    assert [log.read_text() for log in logs.iterdir()] == ["a word\n"]


# ---- refusals ------------------------------------------------------------------------------


@pytest.fixture
def dead() -> str:
    """An address of this machine at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a server that speaks HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(64)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def refused(commands: Any, address: str, **environment: str) -> str:
    """What is said, within five seconds, where the head cannot be used."""
    started = time.monotonic()
    given = ("--address", address, "--wait", 0)
    said = commands.run("zray-worker", *given, code=1, **environment).stderr
    assert time.monotonic() - started < 5.5  # with the interpreter's start
    return str(said)


def test_nothing_listens(commands: Any, dead: str) -> None:
    said = refused(commands, dead)

    assert said.startswith(f"zray-worker: ZR-1405 nothing listens on {dead}")
    assert refused(commands, f"{dead},{dead.replace('127.0.0.1', 'localhost')}") == said


def test_not_zray(commands: Any, stranger: str) -> None:
    said = refused(commands, stranger)

    assert "ZR-1404" in said
    assert f"{stranger} is no zray head: it speaks HTTP" in said


def test_unknown_host(commands: Any) -> None:
    assert "ZR-1406 the host 'nowhere.invalid' is not known" in refused(commands, "nowhere.invalid")


def test_no_key(commands: Any, head: Any, tmp_path: Path) -> None:
    said = refused(commands, head.address(), ZRAY_HOME=str(tmp_path / "other"))

    assert "ZR-1401" in said
    assert "ZRAY_CONNECTION_FILE" in said


def test_key_of_another_cluster(commands: Any, zray_home: Path, tmp_path: Path) -> None:
    commands.head("--num-cpus", 0, "--name", "first")
    second = commands.head("--num-cpus", 0, "--name", "second")
    file = zray_home / "clusters" / "first" / "connection.json"
    other = {"ZRAY_HOME": str(tmp_path / "other"), "ZRAY_CONNECTION_FILE": str(file)}

    said = refused(commands, second.address(), **other)

    assert "ZR-1402" in said
    assert "another cluster" in said


def test_silent_head(commands: Any, head: Any) -> None:
    os.kill(head.pid, signal.SIGSTOP)

    assert "one that is stopped or overloaded" in refused(commands, head.address())


def test_no_head_on_this_machine(commands: Any) -> None:
    said = commands.run("zray-worker", "--wait", 0, code=1).stderr

    assert said.startswith("zray-worker: ZR-1500 no head runs on this machine")


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


@pytest.mark.parametrize("named", [True, False])
def test_it_waits_for_a_head_that_is_not_up_yet_and_says_so(
    commands: Any, dead: str, named: bool
) -> None:
    worker = commands.start("zray-worker", *(("--address", dead) if named else ()))
    why = f"ZR-1405 nothing listens on {dead}" if named else "ZR-1500 no head runs on this machine"
    until(lambda: why in worker.text(), "it says what is wrong")
    assert "Waits for the head for up to 60 s (--wait)" in worker.text()
    commands.head("--port", port_of(dead))
    assert worker.address()
    assert worker.text().count("Waits for the head") == 1


def test_a_key_that_comes_a_moment_after_its_head_is_waited_for(
    commands: Any, zray_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where both are started at once: a head listens before its connection file is written."""
    head = commands.head("--num-cpus", 0)
    file = tmp_path / "home" / "clusters" / "default" / "connection.json"
    file.parent.mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("ZRAY_HOME", str(tmp_path / "home"))
    reach, tries = contact.reach_one, 0

    def counted(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 3:
            file.touch(mode=0o600)
            file.write_bytes((zray_home / "clusters/default/connection.json").read_bytes())
        return reach(*arguments)

    monkeypatch.setattr(contact, "reach_one", counted)
    said: list[str] = []
    info, found = contact.await_head([head.address()], 10, said.append)
    assert info.name == "default" and found == [head.address()] and tries == 3 and not said


def test_a_detached_one_waits_as_well(commands: Any, dead: str) -> None:
    started = commands.start("zray-worker", "--address", dead, "--detach")
    until(lambda: "Waits for the head" in started.text(), "it says that it waits")
    commands.head("--port", port_of(dead))
    assert started.process.wait(20) == 0
    found = re.search(r"READY.*pid (\d+), log", started.text(), re.DOTALL)
    assert found
    commands.detached.append(psutil.Process(int(found[1])))


def test_a_node_works_though_it_cannot_be_recorded(
    commands: Any, head: Any, zray_home: Path, tmp_path: Path
) -> None:
    (zray_home / "running").write_text("no folder")
    node = commands.worker("--address", head.address(), "--log-directory", tmp_path / "logs")
    node.says("zray stop will not find this node if its head is killed")
    assert commands.drive(PRINTS, head.address()).process.wait(20) == 0


def test_the_wait_ends(commands: Any, dead: str) -> None:
    said = commands.run("zray-worker", "--address", dead, "--wait", 0.8, code=1).stderr
    assert said.count("Waits for the head for up to 1 s") == 1
    assert said.splitlines()[-1].startswith(f"zray-worker: ZR-1405 nothing listens on {dead}")


def test_detached_says_why_it_did_not_join(commands: Any, dead: str, zray_home: Path) -> None:
    said = commands.run("zray-worker", "--address", dead, "--detach", "--wait", 0, code=1)

    assert said.stdout == ""
    assert f"zray-worker: ZR-1405 nothing listens on {dead}" in said.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--address", "http://127.0.0.1:10001"), "is a web address"),
        (("--address", "127.0.0.1:8265"), "which is the dashboard's"),
        (("--address", "::1:10001"), "IPv6 address without brackets"),
        (("--address", "127.0.0.1:70000"), "from 1 to 65535"),
        (("--address", "127.0.0.1:10001,"), "names no host"),
        (("--address", "10001"), "is a port without a host; write 127.0.0.1:10001"),
        (("--num-cpus", "many"), "must be a number"),
        (("--name", "a b"), "'a b' is not a name"),
        (("--wait", "nan"), "not a number of seconds"),
        (("--wait", "-1"), "not a number of seconds"),
        (("--max-workers", "0"), "--max-workers"),
        (("--log-directory", "/etc/passwd"), "is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_options_are_usage_errors(
    commands: Any, options: tuple[str, ...], complaint: str
) -> None:
    commands.refuses("zray-worker", options, complaint)


def test_bad_address_in_the_environment_is_a_usage_error(commands: Any) -> None:
    said = commands.run("zray-worker", code=2, ZRAY_ADDRESS="http://head").stderr

    assert "ZRAY_ADDRESS: 'http://head' is a web address" in said


# ---- the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_is_a_clean_stop_that_leaves_nothing(
    commands: Any, head: Any, number: signal.Signals
) -> None:
    worker = commands.worker("--address", head.address(), "--name", "one")
    commands.drive(BUSY, head.address()).says("busy")
    below = worker.below()
    assert len(below) >= 2  # zygote, worker

    assert worker.end(number) == 0
    commands.await_end(below, 1)
    assert "stopped: it got a signal to stop" in worker.text()
    assert "Traceback" not in worker.text()


def test_the_second_signal_is_now(commands: Any, head: Any) -> None:
    worker = commands.worker("--address", head.address())
    below = worker.below()
    for process in below:
        suspend(process)  # a clean stop waits for the zygote

    worker.insist(signal.SIGINT)
    for process in below:
        if process.is_running():
            process.resume()
    commands.await_end(below, 5)


def test_ends_when_its_cluster_is_stopped(commands: Any, head: Any) -> None:
    worker = commands.worker("--address", head.address())
    commands.run("zray", "stop")

    assert worker.process.wait(5) == 0
    assert "stopped: zray stop was called" in worker.text()
