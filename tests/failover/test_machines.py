"""Machines are apart: what is cut off hears nothing, of what is lost nobody hears."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.failover.campaign import befall
from tests.failover.machines import Machines, between
from tests.failover.troubles import SHORT, TROUBLES
from tests.real_cluster import until

pytestmark = pytest.mark.system

ANSWER_S = 10.0
SILENT_S = 1.0  # a connection over which nothing comes for so long has been told nothing
ECHO = """
import socket
with socket.create_server(("0.0.0.0", 4000)) as server:
    while True:
        peer = server.accept()[0]
        while (said := peer.recv(100)):
            peer.sendall(said)
"""


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines(["one"], ["two"])
    yield made
    made.close()


@pytest.fixture
def echo(machines: Machines) -> Iterator[Callable[[str], socket.socket]]:
    """A connection from here to something on that machine that says everything again."""
    programs, connections = [], []

    def make(name: str) -> socket.socket:
        programs.append(subprocess.Popen([*machines.inside(name), sys.executable, "-c", ECHO]))

        def connect() -> socket.socket | None:
            try:
                return socket.create_connection((machines.address(name), 4000), SILENT_S)
            except OSError:
                return None

        connections.append(until(connect, ANSWER_S, f"{name} listens"))
        return connections[-1]

    yield make
    for connection in connections:
        connection.close()
    for program in programs:
        for process in [*psutil.Process(program.pid).children(), program]:
            process.kill()
        program.wait()


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.settimeout(ANSWER_S)
    connection.sendall(text)
    return connection.recv(100)


def test_a_cut_is_silent_in_each_direction_and_heals(
    machines: Machines, echo: Callable[[str], Any]
) -> None:
    """Seen from one of the machines, since the test's own network is never cut off."""
    echo("two").close()  # it listens, and answers one after the other
    place = (machines.address("two"), 4000)
    script = f"import socket; socket.create_connection({place!r}, {SILENT_S}).close()"
    command = [*machines.inside("one"), sys.executable, "-c", script]

    def how() -> str:
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stderr.strip().rpartition("\n")[2]

    assert how() == ""
    for ways in ({("one", "two")}, {("two", "one")}, between("one", ["two"])):
        machines.cut(ways)
        assert how().startswith("TimeoutError"), "no refusal, either"
        machines.heal(ways)
        assert how() == ""


def test_of_a_lost_machine_nobody_hears(machines: Machines, echo: Callable[[str], Any]) -> None:
    connection = echo("two")
    assert said(connection, b"here") == b"here"
    processes = [*machines.processes("two")]
    machines.lose("two")
    connection.settimeout(SILENT_S)
    connection.sendall(b"there?")
    with pytest.raises(TimeoutError):
        connection.recv(100)
    assert not any(process.is_running() for process in processes)
    machines.renew("two")
    connection.settimeout(ANSWER_S)
    with pytest.raises(ConnectionResetError):
        connection.recv(100)
    assert said(echo("two"), b"again") == b"again"


def test_a_trouble_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run in which nothing befell anybody would pass."""
    struck = threading.Event()

    def breaks(*_: object) -> None:
        raise OSError("cannot do harm")

    monkeypatch.setitem(TROUBLES, "breaks", breaks)
    monkeypatch.setitem(TROUBLES, "works", lambda *_: struck.set())
    bed: Any = None
    found = befall(bed, ["breaks", "works"], random.Random(1), SHORT, gap_s=0.0)
    assert struck.is_set()
    assert len(found) == 1 and "breaks" in found[0] and "cannot do harm" in found[0]
