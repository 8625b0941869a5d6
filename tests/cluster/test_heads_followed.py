"""What users have of several heads: any address will do, and a switch is one line to read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zray
from tests.etcd_cluster import Etcd
from tests.real_cluster import Program, until
from tests.several_heads import Heads
from zray.job_submission import JobSubmissionClient
from zray.util import kv
from zray.util.placement_group import placement_group, remove_placement_group

pytestmark = pytest.mark.system

GET_S = 40.0
LINES = 40


@pytest.fixture
def two(bare: Any, tmp_path: Path) -> Iterator[Heads]:
    """The first leads, the second stands by; node ``one`` has 4 CPUs."""
    etcd = Etcd(tmp_path / "etcd")
    heads = Heads(bare, etcd.url, tmp_path)
    try:
        assert heads.start(1) == "READY"
        assert heads.start(2) == "STANDBY"
        bare.start_node("one", 4)
        yield heads
    finally:
        if zray.is_initialized():
            zray.shutdown()
        bare.close()
        heads.close()
        etcd.close()


def step_down(heads: Heads) -> None:
    """The second leads from now on, or the first again."""
    done = run(heads.home(1), "head", "step-down", "--address", heads.cluster.address)
    assert done.returncode == 0, done


def run(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zray", *words],
        env={**os.environ, "ZRAY_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Work:
    """Of every kind, begun before heads change, and looked at afterwards."""

    def __init__(self) -> None:
        @zray.task
        def leaf(number: int) -> int:
            time.sleep(0.02)
            return number

        @zray.task
        def tree(count: int) -> int:
            return sum(zray.get([leaf.remote(number) for number in range(count)]))

        @zray.task
        def total(array: Any, late: int) -> int:
            return int(array.sum()) + late

        @zray.task(num_returns="streaming")
        def items(count: int) -> Iterator[int]:
            for number in range(count):
                time.sleep(0.02)
                yield number

        @zray.actor(num_cpus=0)
        class Counter:
            def __init__(self) -> None:
                self.n = 0

            def add(self) -> int:
                time.sleep(0.005)
                self.n += 1
                return self.n

        self.held = zray.put(np.ones(1 << 18, dtype=np.int32))
        self.counter = Counter.options(name="counted").remote()
        self.begun = zray.get(self.counter.add.remote(), timeout=GET_S)
        self.calls = [self.counter.add.remote() for _ in range(200)]
        self.leaves = [leaf.remote(number) for number in range(200)]
        self.trees = [tree.remote(5) for _ in range(10)]
        self.totals = [total.remote(self.held, one) for one in self.leaves[:10]]
        self.items = items.remote(50)
        self.group = placement_group([{"CPU": 1}])

    def check(self) -> None:
        """All of it is there, once, and in order."""
        rest, ready = self.trees, []
        while rest:
            some, rest = zray.wait(rest, timeout=GET_S)
            assert some
            ready += some
        assert zray.get(ready) == [10] * 10
        assert zray.get(self.calls, timeout=GET_S) == [*range(2, 202)]
        assert zray.get(self.leaves, timeout=GET_S) == [*range(200)]
        assert zray.get(self.totals, timeout=GET_S) == [(1 << 18) + n for n in range(10)]
        assert [zray.get(item, timeout=GET_S) for item in self.items] == [*range(50)]
        assert self.group.wait(GET_S)
        remove_placement_group(self.group)
        assert zray.get(zray.get_actor("counted").add.remote(), timeout=GET_S) == 202


def test_everything_goes_on_with_a_head_that_is_asked_to_and_with_one_that_must(
    two: Heads, capfd: pytest.CaptureFixture[str]
) -> None:
    two.cluster.connect()
    work = Work()
    kv.put(b"before", b"1")
    step_down(two)
    kv.put(b"after", b"2")
    assert (kv.get(b"before"), kv.get(b"after")) == (b"1", b"2")
    work.check()
    zray.kill(work.counter)
    work = Work()
    two.programs[2].kill()
    assert kv.get(b"after") == b"2"
    work.check()
    said = capfd.readouterr().err
    first, second = two.addresses[1], two.addresses[2]
    change = r"zray: head changed {} -> {} \(epoch (\d+) -> (\d+)\), (\d+) references told again, "
    changes = [
        re.findall(change.format(*map(re.escape, way)), said)
        for way in ((first, second), (second, first))
    ]
    assert [len(one) for one in changes] == [1, 1], said
    (old, middle, _), (again, last, count) = changes[0][0], changes[1][0]
    assert int(old) < int(middle) == int(again) < int(last) and int(count) > 100
    until(
        lambda: zray.available_resources() == zray.cluster_resources(), GET_S, "all is free again"
    )


PROGRAM = """
import zray
context = zray.init()
print("at", context.address_info["address"], zray.get(zray.put(1)))
"""


def test_any_address_of_a_head_will_do(two: Heads) -> None:
    first, second = two.addresses[1], two.addresses[2]
    cluster = two.cluster

    def program(name: str, address: str, home: Path) -> Program:
        environment = {"ZRAY_ADDRESS": address, "ZRAY_HOME": str(home)}
        return cluster.run(name, PROGRAM, environment=environment)

    # Only the one that stands by; one where nobody listens first; none, beside either head.
    ways = {
        "standby": (second, two.home(1)),
        "dead": (f"127.0.0.1:1,{second}", two.home(1)),
        "beside": ("auto", two.home(2)),
    }
    for name, (address, home) in ways.items():
        assert program(name, address, home).says("at ").strip().endswith(f"at {first} 1")
    for words in (("status",), ("list", "nodes"), ("why", "one"), ("job", "list")):
        done = run(two.home(1), *words, "--address", second)
        assert done.returncode == 0, (words, done)
    # A node that is told of the one that stands by only.
    cluster.address, both = second, cluster.address
    cluster.start_node("late", 1, wait=False).says(f"node late READY, joined the head at {first}")
    # The head of this machine was killed: its connection file knows the others.
    cluster.address = both
    two.programs[1].kill()
    until(lambda: two.leader() == 2, GET_S, "the other leads")
    assert program("left", "auto", two.home(1)).says("at ").strip().endswith(f"at {second} 1")
    assert run(two.home(1), "status").returncode == 0
    assert run(two.home(1), "status", "--address", first).returncode == 0, "the file has more"


JOB = f"""
import os, time
print("heads", os.environ["ZRAY_ADDRESS"])
for number in range({LINES}):
    print("line", number, flush=True)
    time.sleep(0.1)
"""


def test_who_follows_a_jobs_log_reads_all_of_it(two: Heads, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    client = JobSubmissionClient(two.addresses[2])
    job_id = client.submit_job(entrypoint=f"{sys.executable} {tmp_path / 'job.py'}")
    pieces = client.follow(job_id)
    text = ""
    while "line 3\n" not in text:
        text += next(pieces)
    two.programs[1].signal(signal.SIGSTOP)  # it says nothing more, and nothing tells that
    text += "".join(pieces)
    lines = text.splitlines()
    assert lines[0] == f"heads {two.addresses[1]},{two.addresses[2]}"
    assert lines[1:] == [f"line {number}" for number in range(LINES)]
    assert client.get_job_status(job_id) == "SUCCEEDED"
    two.programs[1].signal(signal.SIGCONT)
