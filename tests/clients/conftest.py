"""Clusters and clients in other languages for tests: a head, a node elsewhere, and node programs.

It owns what it starts. What a client needs and is not here is a failure, never a skip.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.killed_heads import end_nodes

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "examples" / "clients"
MORE_OFFERS = """
import os
import time

import zray

@zray.task(name="more.wait")
def wait():
    time.sleep(600)

@zray.task(name="more.echo")
def echo(value):
    return value

@zray.task(name="more.pickle")
def pickle():
    return {1, 2}

@zray.actor(offer="more.Sleeper")
class Sleeper:
    def __init__(self):
        self.calls = 0

    def pid(self):
        self.calls += 1
        return os.getpid()

    def sleep(self):
        print("sleeping")
        time.sleep(600)

    def size(self, data):
        return len(data)

    def count(self):
        return self.calls
"""
READY = re.compile(r"\bREADY\b.*?([\w.\[\]:-]+:\d+)")


def until(probe: Callable[[], T | None], what: str, timeout_s: float = 20.0) -> T:
    """Poll until ``probe`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return found


class Cluster:
    """A head that runs no task, and one node that offers what clients call."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.connection = home / "clusters" / "default" / "connection.json"
        self.programs: list[subprocess.Popen[bytes]] = []
        shutil.copy(CLIENTS / "hello_offers.py", folder)
        (folder / "more_offers.py").write_text(MORE_OFFERS)

    def start(self) -> None:
        self.head = self._daemon("head", "--port", "0", "--num-cpus", "0")
        imports = ("--import", "hello_offers", "--import", "more_offers")
        options = ("--num-cpus", "2", "--name", "offers", *imports)
        self.worker = self._daemon("worker", "--address", self.address(), *options)

    def _daemon(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        output = self.folder / f"{name}.out"
        with output.open("wb") as file:
            program = subprocess.Popen(
                [sys.executable, "-m", f"zray.cli.{name}", *options],
                cwd=self.folder,
                env={**os.environ, "ZRAY_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.programs.append(program)

        def ready() -> bool:
            assert program.poll() is None, output.read_text()
            return READY.search(output.read_text()) is not None

        until(ready, f"the {name} is READY")
        return program

    def address(self) -> str:
        """HOST:PORT of the head."""
        found = READY.search((self.folder / "head.out").read_text())
        assert found is not None
        return found[1]

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.send_signal(signal.SIGTERM)
            program.wait(15)
        end_nodes(self.home, 15)


@pytest.fixture
def cluster(tmp_path: Path, zray_home: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path, zray_home)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as a user has it after ``npm ci``."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; .ci/system-packages installs it", pytrace=False)
    folder = tmp_path_factory.mktemp("node")
    for path in (CLIENTS / "node").iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
    done = subprocess.run(
        ["npm", "ci", *options], cwd=folder, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Node:
    """Runs JavaScript programs beside the example's modules."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder = folder
        self._environment = {**os.environ, "ZRAY_HOME": str(cluster.home)}
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            ["node", *command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(program)
        return program

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program = self.start(*command)
        out, errors = program.communicate(timeout=50)
        return subprocess.CompletedProcess(command, program.returncode, out, errors)

    def script(self, text: str) -> subprocess.Popen[str]:
        """Start a program that has a ``client`` and ``line()``, which waits for our next word."""
        return self.start(
            "--input-type=module", "--eval", PRELUDE + text + "\nawait client.close();"
        )

    def close(self) -> None:
        for program in self._started:
            program.kill()
            program.communicate()


PRELUDE = """
import { createInterface } from "node:readline";
import { ZrayError, connect } from "./zray.mjs";
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const line = async () => (await lines.next()).value;
const client = await connect();
"""


@pytest.fixture
def node(packages: Path, cluster: Cluster) -> Iterator[Node]:
    found = Node(packages, cluster)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def observe(cluster: Cluster) -> Callable[[], Any]:
    """What the head says of itself."""
    from zray.nodes.driver.observer import Observer
    from zray.runtime.connection import ConnectionInfo

    def status() -> Any:
        info = ConnectionInfo.load(cluster.connection)
        with Observer(info, info.addresses[0]) as observer:
            return observer.status()

    return status
