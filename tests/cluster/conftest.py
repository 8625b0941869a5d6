"""Fixtures of real clusters of several sizes, and what tasks leave behind for a test to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.cluster.network import Network
from tests.real_cluster import START_S, Cluster, until


class Records:
    """Lines that tasks wrote, whatever became of the tasks afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        text = str(path)

        def write(line: object) -> None:  # not a method: workers cannot import this module
            with open(text, "a") as file:
                file.write(f"{line}\n")

        self.write = write

    def lines(self) -> list[str]:
        return self.path.read_text().split()

    def until(self, count: int, timeout_s: float = START_S) -> list[str]:
        """Wait until there are so many."""

        def probe() -> list[str] | None:
            lines = self.lines()
            return lines if len(lines) >= count else None

        return until(probe, timeout_s, f"{count} records; there are: {self.lines()}")


class Gate:
    """Tasks wait at it until it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = str(path)

        def wait() -> None:
            import os
            import time

            while not os.path.exists(text):
                time.sleep(0.01)

        self.wait = wait

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture(scope="session")
def new_cluster() -> Callable[[Path], Cluster]:
    """For fixtures of another scope; who calls it closes the cluster."""
    return Cluster


@pytest.fixture
def bare(zray_home: Path) -> Iterator[Any]:
    """A cluster of which nothing runs yet."""
    cluster = Cluster(zray_home)
    try:
        yield cluster
    finally:
        if zray.is_initialized():
            zray.shutdown()
        cluster.close()


@pytest.fixture
def cluster(bare: Any) -> Any:
    """A head, and the nodes ``one`` and ``two`` with a CPU each."""
    bare.start_head()
    bare.start_node("one", wait=False)
    bare.start_node("two", wait=False)
    bare.await_node("one")
    bare.await_node("two")
    return bare


@pytest.fixture
def connected(cluster: Any) -> Any:
    """As ``cluster``, and this process is a driver of it."""
    cluster.connect()
    return cluster


@pytest.fixture
def sites(bare: Any) -> Any:
    """As ``connected``; each node has 10 of a resource of its own name."""
    bare.start_head()
    for name in ("one", "two"):
        bare.start_node(name, 1, "--resources", f"{name}=10", wait=False)
    for name in ("one", "two"):
        bare.await_node(name)
    bare.connect()
    return bare


@pytest.fixture
def apart(bare: Any) -> Iterator[tuple[Any, Network]]:
    """A head and the nodes ``one`` and ``two``, each on a machine of its own, so to speak."""
    network = Network("one", "two")
    try:
        bare.prefix = {name: network.inside(name) for name in ("head", *network.nodes)}
        bare.start_head("--host", "0.0.0.0")
        port = bare.address.rpartition(":")[2]
        for number, name in enumerate(network.nodes, 1):
            # A home of its own; the connection file has come there by a copy.
            home = bare.home / name
            home.mkdir()
            copy = home / "connection.json"
            copy.write_bytes((bare.home / "clusters/default/connection.json").read_bytes())
            copy.chmod(0o600)
            bare.address = f"10.231.{number}.1:{port}"
            variables = {"ZRAY_HOME": str(home), "ZRAY_CONNECTION_FILE": str(copy)}
            own = ("--resources", f"{name}=10")
            bare.start_node(name, 1, *own, wait=False, environment=variables)
        bare.address = f"10.231.0.1:{port}"
        for name in network.nodes:
            bare.await_node(name)
        bare.connect()
        yield bare, network
    finally:
        if zray.is_initialized():
            zray.shutdown()
        bare.close()
        network.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """What the daemons and drivers of a failed test said."""
    report = yield
    found = getattr(item, "funcargs", {}).get("bare")
    if report.failed and report.when != "teardown" and found is not None:
        for log in {program.log: None for program in found.programs}:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            report.sections.append((f"output of {log.stem}", tail))
    return report
