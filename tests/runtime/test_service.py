"""What a daemon tells systemd or its parent: by which variables, and what becomes of them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zray.runtime import service

# A daemon has its socket for as long as it runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def undeclared() -> Iterator[None]:
    yield
    service.declared = None


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has it, and its address."""
    address = f"{tmp_path}/notify" if request.param == "path" else f"@zray-test-{os.getpid()}"
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound.bind("\0" + address[1:] if address.startswith("@") else address)
    bound.settimeout(5)
    yield bound, address
    bound.close()


def test_systemd_is_told_and_the_variables_leave(manager: tuple[socket.socket, str]) -> None:
    bound, address = manager
    given = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "PATH": "/bin"}
    given["WATCHDOG_PID"] = str(os.getpid())
    service.declare(given)
    assert given == {"PATH": "/bin"}
    service.tell(READY=1, STATUS="two\nlines")
    assert bound.recv(4096) == b"READY=1\nSTATUS=two lines\n"
    assert 0 < service.beat() < 0.051
    assert bound.recv(4096) == b"WATCHDOG=1\n"
    service.beat()
    time.sleep(0.06)
    service.beat()
    assert bound.recv(4096) == b"WATCHDOG=1\n"
    bound.setblocking(False)
    with pytest.raises(BlockingIOError):  # the one that came too early was left out
        bound.recv(4096)


def test_another_process_s_watchdog_is_not_this_one_s(manager: tuple[socket.socket, str]) -> None:
    bound, address = manager
    service.declare({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    assert service.beat() == service.NEVER
    bound.setblocking(False)
    with pytest.raises(BlockingIOError):
        bound.recv(4096)


@pytest.mark.parametrize("address", ["", "relative", "/" + "x" * 200, "@" + "x" * 200, "/nobody"])
def test_a_manager_that_is_not_there_is_nobody(address: str) -> None:
    service.declare({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "abc"})
    service.tell(READY=1)
    assert service.beat() == service.NEVER


def test_one_that_does_not_listen_holds_nobody_up(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    service.declare({"NOTIFY_SOCKET": address})
    began = time.monotonic()
    for _ in range(5000):
        service.tell(STATUS="x" * 1000)
    assert time.monotonic() - began < 5


def test_a_parent_is_told_by_a_pipe() -> None:
    read, write = os.pipe()
    given = {"ZRAY_SUPERVISOR_PIPE": f"{write}:8", "NOTIFY_SOCKET": "/never"}
    service.declare(given)
    service.tell(READY=1)
    assert os.read(read, 100) == b"READY=1\n" and 1.9 < service.beat() < 2.01
    os.close(read)
    service.tell(READY=1)  # nobody hears it
    os.close(write)
