"""The head's own disk is full, slow or broken: what runs goes on, the rest waits, and is told why.

No node or program has to be started again in any case.
"""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zray
from tests.cluster.supervised_kills import head_of
from tests.sick_disk import SickDisk
from zray.errors import GetTimeoutError

SINCE = re.compile(r"\(since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\)")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SickDisk]:
    made = SickDisk(tmp_path)
    yield made
    made.be()
    made.close()


@zray.task
def double(number: int) -> int:
    return 2 * number


@zray.actor(num_cpus=0)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count


class Work:
    """Tasks and calls that need nothing of the store; they go on whatever becomes of it."""

    def __init__(self) -> None:
        self.counter = Counter.remote()
        assert zray.get(self.counter.add.remote(), timeout=20) == 1
        assert zray.get(double.remote(1), timeout=20) == 2
        self.calls = 1

    def calls_go_on(self) -> None:
        """Which need no head either."""
        for _ in range(20):
            self.calls += 1
            assert zray.get(self.counter.add.remote(), timeout=10) == self.calls

    def goes_on(self) -> None:
        self.calls_go_on()
        assert zray.get([double.remote(one) for one in range(50)], timeout=10) == [
            2 * one for one in range(50)
        ]


def waits_and_comes(cluster: Any, work: Work, reason: str, heal: Any) -> None:
    """A new actor waits; why is told, and since when; after the cure it is there by itself."""
    fresh = Counter.remote()
    asked = fresh.add.remote()
    cluster.until(lambda: reason in cluster.status().health, 20, "the health says so")
    health = cluster.status().health
    assert health.startswith("DEGRADED: the control store") and SINCE.search(health), health
    work.goes_on()
    with pytest.raises(GetTimeoutError):
        zray.get(asked, timeout=0.5)
    heal()
    assert zray.get(asked, timeout=20) == 1
    cluster.until(lambda: cluster.status().health == "OK", 20, "the health is OK again")
    work.goes_on()


def test_a_slow_disk(bare: Any, disk: SickDisk) -> None:
    bare.start_head(environment=disk.environment)
    node = bare.start_node("one", 2)
    bare.connect()
    work = Work()
    disk.be(slow_s=0.5)  # slow, and not yet told
    assert zray.get(Counter.remote().add.remote(), timeout=20) == 1
    disk.be(slow_s=5.0)
    waits_and_comes(bare, work, "takes longer than 1 s for a change", disk.be)
    assert bare.node("one").info.pid == node.pid


def test_a_full_disk(bare: Any, disk: SickDisk) -> None:
    bare.start_head(environment=disk.environment)
    node = bare.start_node("one", 2)
    bare.connect()
    work = Work()
    disk.be(full=True)
    waits_and_comes(bare, work, "is full", disk.be)
    assert bare.node("one").info.pid == node.pid


def test_a_program_that_holds_a_lock(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()
    work = Work()
    data = bare.home / "clusters" / "default"
    with Lock(data / "gcs.sqlite") as lock:  # as a backup program holds one
        waits_and_comes(bare, work, "another program holds a lock", lock.end)


class Lock:
    """Somebody else's transaction."""

    def __init__(self, path: Path) -> None:
        source = (
            "import sqlite3, sys; store = sqlite3.connect(sys.argv[1]);"
            " store.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def end(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()


def test_a_supervised_head_gets_over_a_disk_that_fails(bare: Any, disk: SickDisk) -> None:
    """After a failed sync nobody knows what is on the disk: only another start, which reads it."""
    bare.start_head("--supervise", environment=disk.environment)
    node = bare.start_node("one", 2)
    bare.connect()
    work = Work()
    first = head_of(bare)
    kept = Counter.options(name="kept", lifetime="detached").remote()
    assert zray.get(kept.add.remote(), timeout=20) == 1

    disk.be(error=errno.EIO)
    found: list[int] = []
    asked = Counter.remote().add.remote()
    getter = threading.Thread(target=lambda: found.append(zray.get(asked, timeout=60)))
    getter.start()
    bare.head.says("cannot be written: disk I/O error")
    bare.head.says("has ended with status 1. It is started again")
    assert zray.get(work.counter.add.remote(), timeout=10) == 2  # it is not in the way
    time.sleep(1.0)
    assert getter.is_alive() and bare.head.process.poll() is None

    disk.be()
    getter.join(60)
    assert found == [1]
    assert head_of(bare).pid != first.pid
    assert zray.get(kept.add.remote(), timeout=20) == 2
    bare.until(lambda: bare.status().health == "OK", 20, "all is well")
    assert bare.node("one").info.pid == node.pid
