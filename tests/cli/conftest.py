"""The commands as users run them: to their end, or as daemons that a test watches and ends.

It owns what it starts. Must never import a command: each runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.killed_heads import end_nodes

T = TypeVar("T")

START_S = 20.0
STOP_S = 10.0  # what every clean stop has
MODULES = {"zray": "zray", "zray-head": "zray.cli.head", "zray-worker": "zray.cli.worker"}
# A driver of the cluster that its argument names: says so when its task runs, which does not end.
BUSY = """
import sys, time
import zray
zray.init(sys.argv[1])
@zray.remote
def busy():
    print("busy", flush=True)
    time.sleep(600)
zray.get(busy.remote())
"""
WAITS = """
import sys, time
import zray
zray.init(sys.argv[1])
@zray.remote
def runs():
    time.sleep(600)
@zray.remote
def after(value):
    return value
@zray.remote(num_cpus=100, resources={"rare": 0.5})
def never():
    pass
first = runs.remote()
refs = {"runs": first, "after": after.remote(first), "next": runs.remote()}
refs |= {f"never{i}": never.remote() for i in range(3)}
refs["done"] = zray.put(1)
zray.wait([refs["done"]])
for name, ref in refs.items():
    print("ref", name, ref.hex(), repr(ref), sep="|")
print("submitted")
zray.get(first)
"""
READY = re.compile(r"\bREADY\b.*?([\w.\[\]:-]+:\d+)")


def until(probe: Callable[[], T | None], what: str, timeout_s: float = START_S) -> T:
    """Poll until ``probe`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return found


def suspend(process: psutil.Process) -> None:
    """Until it stands still: a signal that ends it could come before a stop that is yet to come."""
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED, f"{process.pid} stands still")


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Daemon:
    """A command in the foreground; what it says is in a file."""

    def __init__(self, output: Path, command: list[str], environment: dict[str, str]) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.pid = self.process.pid

    def text(self) -> str:
        return self._output.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until it has said so."""

        def probe() -> bool:
            assert self.process.poll() is None or text in self.text(), self.text()
            return text in self.text()

        until(probe, f"{text!r} in {self.text()!r}")

    def address(self) -> str:
        """HOST:PORT of its READY line, once it has one."""

        def probe() -> str | None:
            assert self.process.poll() is None, self.text()
            found = READY.search(self.text())
            return found[1] if found else None

        return until(probe, f"READY in {self.text()!r}")

    def below(self) -> list[psutil.Process]:
        """All that it has started, directly or not."""
        return psutil.Process(self.pid).children(recursive=True)

    def end(self, number: int, timeout_s: float = STOP_S) -> int:
        """Send a signal, wait, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def insist(self, number: int) -> int:
        """As ``end``, for somebody who does not wait for a clean stop: it takes 2 s at most."""
        deadline = time.monotonic() + 2
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.3)  # what comes at once is the same stop
        return self.process.returncode


class Commands:
    """Runs the commands; ends what is left of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.daemons: list[Daemon] = []
        self.detached: list[psutil.Process] = []

    @staticmethod
    def line(program: str, *options: object) -> list[str]:
        return [sys.executable, "-m", MODULES[program], *map(str, options)]

    def run(
        self, program: str, *options: object, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit code must be ``code``."""
        done = subprocess.run(
            self.line(program, *options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=40,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def refuses(self, program: str, options: tuple[str, ...], complaint: str) -> None:
        """The command says that the first of the options is wrong, and why."""
        said = self.run(program, *options, code=2).stderr
        assert complaint in " ".join(said.split())
        assert f"Invalid value for '{options[0]}'" in said

    def start(self, program: str, *options: object, **environment: str) -> Daemon:
        output = self.home / f"{len(self.daemons)}.out"
        daemon = Daemon(output, self.line(program, *options), environment)
        self.daemons.append(daemon)
        return daemon

    def head(self, *options: object, **environment: str) -> Daemon:
        """A head that is READY, on a free port and with one CPU unless the options differ."""
        daemon = self.start("zray-head", "--port", 0, "--num-cpus", 1, *options, **environment)
        daemon.address()
        return daemon

    def worker(self, *options: object, **environment: str) -> Daemon:
        """A worker node that is READY, with one CPU unless the options differ."""
        daemon = self.start("zray-worker", "--num-cpus", 1, *options, **environment)
        daemon.address()
        return daemon

    def detach(self, program: str, *options: object) -> tuple[psutil.Process, Path, str]:
        """Start a command with --detach: its process, its log and what was printed."""
        said = self.run(program, *options, "--detach").stdout
        found = re.search(r"pid (\d+), log (\S+)\n\Z", said)
        assert found, said
        process = psutil.Process(int(found[1]))
        self.detached.append(process)
        return process, Path(found[2]), said

    def status(self, *options: object, code: int = 0) -> Any:
        return json.loads(self.run("zray", "status", "--json", *options, code=code).stdout)

    def node(self, name: str) -> Any:
        """What ``zray status`` says of a node, once it is ALIVE."""

        def probe() -> Any:
            done = subprocess.run(
                self.line("zray", "status", "--json"), capture_output=True, text=True, timeout=40
            )
            found = json.loads(done.stdout).get("nodes", [])
            return [node for node in found if (node["name"], node["state"]) == (name, "ALIVE")]

        return until(probe, f"node {name} is ALIVE")[0]

    def drive(self, source: str, *arguments: object) -> Daemon:
        """Run a driver program; it finds the cluster where its code says."""
        count = len(self.daemons)
        path = self.home / f"{count}.py"
        path.write_text(textwrap.dedent(source))
        command = [sys.executable, str(path), *map(str, arguments)]
        driver = Daemon(self.home / f"{count}.out", command, {"PYTHONUNBUFFERED": "1"})
        self.daemons.append(driver)
        return driver

    @staticmethod
    def await_end(processes: list[psutil.Process], timeout_s: float) -> None:
        """All end in time; one that its parent has not reaped yet has ended."""
        until(lambda: not any(map(runs, processes)), f"{processes} end", timeout_s)

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            if daemon.process.poll() is None:
                daemon.process.send_signal(signal.SIGCONT)
                daemon.process.terminate()
                try:
                    daemon.process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    daemon.process.kill()
                    daemon.process.wait()
        for process in filter(runs, self.detached):
            process.terminate()
        self.await_end(self.detached, STOP_S)
        end_nodes(self.home, STOP_S)


@pytest.fixture
def commands(zray_home: Path) -> Iterator[Commands]:
    found = Commands(zray_home)
    try:
        yield found
    finally:
        found.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """What the daemons of a failed test said."""
    report = yield
    found = getattr(item, "funcargs", {}).get("commands")
    if report.failed and report.when != "teardown" and found is not None:
        for daemon in found.daemons:
            words = " ".join(map(str, daemon.process.args))
            report.sections.append((f"output of {words}", daemon.text()))
    return report


@pytest.fixture
def waiting(commands: Any) -> Any:
    """A cluster with one CPU in use and tasks that wait; the driver's references by name."""
    head = commands.head()
    driver = commands.drive(WAITS, head.address())
    driver.says("submitted")
    lines = [line.split("|") for line in driver.text().splitlines() if line.startswith("ref|")]
    return {name: text for _, name, *text in lines}
