"""The connection between a caller and an actor breaks while both processes live."""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def pid(self) -> int:
        return os.getpid()

    def add(self, path: Path | None = None, seconds: float = 0.0) -> int:
        if path is not None:
            path.touch()
        time.sleep(seconds)
        self.count += 1
        return self.count

    def read(self) -> int:
        return self.count


def break_connections(pid: int) -> None:
    """Shut down every socket between this process and that one, which notices it, too."""
    theirs = {(c.raddr, c.laddr) for c in psutil.Process(pid).net_connections("tcp") if c.raddr}
    cut = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            fd = os.dup(int(name))
        except OSError:
            continue
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            continue
        with socket.socket(fileno=fd) as one:
            try:
                if one.family == socket.AF_UNIX:
                    got = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    mine = struct.unpack("iII", got)[0] == pid
                else:
                    mine = (one.getsockname()[:2], one.getpeername()[:2]) in theirs
                if mine:
                    one.shutdown(socket.SHUT_RDWR)
                    cut += 1
            except OSError:
                continue
    assert cut


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_call_under_way_fails_and_the_actor_lives_on(tmp_path) -> None:
    """Without retries: ActorUnavailableError at once, though the call runs on to its end."""
    actor = Counter.remote()
    pid = ray.get(actor.pid.remote())
    started = tmp_path / "started"
    call = actor.add.remote(started, 4)
    wait_for(started)
    break_connections(pid)
    began = time.monotonic()
    with pytest.raises(ActorUnavailableError):
        ray.get(call, timeout=20)
    assert time.monotonic() - began < 3
    assert ray.get(actor.read.remote(), timeout=20) == 1  # after the call
    assert ray.get(actor.pid.remote()) == pid


def test_calls_behind_it_fail_as_well(tmp_path) -> None:
    """Those that were sent: they may run, none runs twice, and later calls come after them."""
    actor = Counter.remote()
    pid = ray.get(actor.pid.remote())
    started = tmp_path / "started"
    calls = [actor.add.remote(started, 2), *(actor.add.remote() for _ in range(5))]
    wait_for(started)
    break_connections(pid)
    for call in calls:
        with pytest.raises(ActorUnavailableError):
            ray.get(call, timeout=20)
    later = [actor.add.remote() for _ in range(3)]
    counts = ray.get(later, timeout=20)
    assert counts == list(range(counts[0], counts[0] + 3)) and 2 <= counts[0] <= 7
    assert ray.get(actor.read.remote()) == counts[-1]


def test_a_call_that_may_be_retried_gets_its_value(tmp_path) -> None:
    """With ``max_task_retries``, the caller does not notice."""
    actor = Counter.options(max_task_retries=-1).remote()
    pid = ray.get(actor.pid.remote())
    started = tmp_path / "started"
    call = actor.add.remote(started, 2)
    wait_for(started)
    break_connections(pid)
    assert ray.get(call, timeout=20) >= 1
    assert ray.get(actor.pid.remote()) == pid


def test_an_idle_actor_is_reached_again() -> None:
    """Where no call is under way, the next one connects anew."""
    actor = Counter.remote()
    pid = ray.get(actor.pid.remote())
    break_connections(pid)
    time.sleep(1)
    assert ray.get(actor.add.remote(), timeout=20) == 1


def test_the_end_of_the_process_is_told_apart(tmp_path) -> None:
    """A process that is killed closes its connections as well: ActorDiedError."""
    actor = Counter.remote()
    pid = ray.get(actor.pid.remote())
    started = tmp_path / "started"
    call = actor.add.remote(started, 20)
    wait_for(started)
    os.kill(pid, 9)
    with pytest.raises(ActorDiedError):
        ray.get(call, timeout=20)
