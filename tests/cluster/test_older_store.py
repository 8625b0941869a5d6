"""A head whose data directory was restored from a backup, and a HELLO that cannot be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import msgspec
import pytest

import zray
from zray.protocol import messages as m


@zray.task
def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("restarts", [0, 2], ids=["by one start", "by three"])
def test_a_head_that_is_older_than_its_cluster_says_so_and_can_be_adopted(
    bare: Any, restarts: int
) -> None:
    bare.start_head()
    data, backup = bare.home / "clusters" / "default", bare.home / "backup"
    bare.head.kill()
    shutil.copytree(data, backup)
    for _ in range(restarts):
        bare.start_head(port=-1)
        bare.head.kill()
    bare.start_head(port=-1)
    node = bare.start_node("one")
    bare.connect()
    assert zray.get(double.remote(2), timeout=10) == 4
    epoch = bare.epoch()
    bare.head.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)

    bare.start_head(port=-1)
    assert bare.epoch() == epoch - restarts
    bare.until(lambda: "older than its cluster" in bare.status().health, 20, "the health says so")
    health = bare.status().health
    assert health.startswith("DEGRADED: the control store: ") and "zray-head --adopt" in health
    node.says("refuses this node, which tries on: this head's control store: it is older")
    bare.head.kill()

    bare.start_head("--adopt", port=-1)
    assert bare.epoch() > epoch
    bare.await_node("one", pid=node.pid)
    bare.until(lambda: bare.status().health == "OK", 20, "everybody is back")
    zray.shutdown()  # its job is one of those that the backup knows nothing of
    bare.connect()
    assert zray.get(double.remote(3), timeout=20) == 6
    bare.head.kill()
    bare.start_head(port=-1)  # once was enough
    bare.await_node("one", pid=node.pid)
    assert zray.get(double.remote(4), timeout=20) == 8


def test_a_hello_that_cannot_be_read_is_refused_with_the_reason(bare: Any) -> None:
    bare.start_head()
    peer = bare.peer(hello=False)
    try:
        hello = peer.hello(m.ROLE_DRIVER)
        job = msgspec.structs.replace(hello.job, namespace="n" * 300)
        peer.send(msgspec.structs.replace(hello, job=job))
        assert "length <= 256" in peer.receive(m.Rejected).text
    finally:
        peer.close()
    program = f"""
import zray
from zray.api import cluster
cluster.checked_namespace = lambda option, value: value
try:
    zray.init({bare.address!r}, namespace="n" * 300)
except ConnectionError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert "refused this driver: Expected `str` of length <= 256" in done.stdout, done
