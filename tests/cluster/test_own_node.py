"""The node that a head starts: it is watched over, and outlives a head that is killed."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

import zray
from zray.runtime.linux import machine

BY_A_DRIVER = """
    import os, signal, sys, time
    import zray

    zray.init()

    @zray.task
    def pid():
        return os.getppid()

    print("zygote", zray.get(pid.remote()), flush=True)
    if sys.argv[1] == "node":
        for _ in range(3):
            with open(f"/proc/{zray.get(pid.remote())}/stat") as file:
                raylet = int(file.read().rpartition(")")[2].split()[1])
            os.kill(raylet, signal.SIGKILL)
            print("again", zray.get(pid.remote(), timeout=20), flush=True)
    else:
        time.sleep(60)
"""


@zray.actor(name="counter", namespace="test", lifetime="detached")
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> tuple[int, int]:
        self.count += 1
        return self.count, os.getpid()


def own_node(cluster: Any) -> Any:
    """What the head says of it, once it is ALIVE."""
    return cluster.await_node("head")


@pytest.mark.parametrize("port", [-1, 0], ids=["same port", "another port"])
def test_a_killed_head_leaves_its_node_to_the_next(bare: Any, port: int) -> None:
    bare.start_head("--num-cpus", "2")
    pid = own_node(bare).info.pid
    bare.connect()
    counter = Counter.remote()
    assert zray.get(counter.add.remote())[0] == 1
    _, actor = zray.get(counter.add.remote())
    zray.shutdown()

    bare.head.kill()
    head = bare.start_head("--num-cpus", "2", port=port)
    head.says(f"the node of the head before goes on (pid {pid})")
    assert own_node(bare).info.pid == pid
    bare.connect()
    assert zray.get(zray.get_actor("counter", "test").add.remote(), timeout=20) == (3, actor)
    # A head that ends on purpose takes it along, though it did not start it.
    zray.shutdown()
    assert head.stop() == 0
    assert machine.has_ended(pid)


def test_a_task_on_it_goes_on_while_heads_are_killed(bare: Any, gate: Any, records: Any) -> None:
    wait, write = gate.wait, records.write
    bare.start_head("--num-cpus", "1")
    own_node(bare)
    bare.connect()

    @zray.task
    def work() -> int:
        write("begins")
        wait()
        return 42

    ref = work.remote()
    records.until(1)
    for _ in range(3):
        bare.head.kill()
        bare.start_head("--num-cpus", "1", port=-1)
    gate.open()
    assert zray.get(ref, timeout=20) == 42
    assert records.lines() == ["begins"]


def test_it_is_started_again_when_it_dies(bare: Any) -> None:
    head = bare.start_head("--num-cpus", "1")
    bare.connect()

    @zray.task
    def pid() -> int:
        return os.getpid()

    ended = []
    for _ in range(4):  # the first time at once, then after growing pauses
        zray.get(pid.remote(), timeout=20)
        node = own_node(bare)
        ended.append(node.info.pid)
        os.kill(node.info.pid, signal.SIGKILL)
        began = time.monotonic()
        dead = {*ended}
        bare.until(
            lambda dead=dead: (node := bare.node("head")) is None or node.info.pid not in dead,
            3,
            "the head knows of its end",
        )
        assert time.monotonic() - began < 3
    zray.get(pid.remote(), timeout=20)
    assert own_node(bare).info.pid not in ended
    health = bare.status().health
    assert health.startswith("DEGRADED")
    how = f"its process (pid {ended[-1]}) has ended: killed by SIGKILL; it is started again"
    assert f"keeping the head's own node running: NodeDiedError: ZR-3004 {how}" in health
    assert "4 times" in health
    children = psutil.Process(head.pid).children()
    assert [child.pid for child in children] == [own_node(bare).info.pid]  # and no zombie


def test_an_actor_on_it_is_restarted_when_it_dies(bare: Any) -> None:
    bare.start_head("--num-cpus", "1")
    own_node(bare)
    bare.connect()
    counter = Counter.options(name="restarted", max_restarts=1, max_task_retries=1).remote()
    _, pid = zray.get(counter.add.remote())
    os.kill(own_node(bare).info.pid, signal.SIGKILL)
    bare.until(lambda: machine.has_ended(pid), 5, "the actor has ended with its node")
    assert zray.get(counter.add.remote(), timeout=20)[0] == 1


@pytest.mark.parametrize("whom", ["driver", "head", "both"])
def test_nothing_of_a_local_cluster_outlives_its_driver(bare: Any, whom: str) -> None:
    driver = bare.run("local", BY_A_DRIVER, "wait")
    zygote = psutil.Process(int(driver.says("zygote").split()[1]))
    raylet = zygote.parent()
    head = raylet.parent()
    everything = [zygote, raylet, head, *zygote.children()]
    if whom in ("head", "both"):
        os.kill(head.pid, signal.SIGKILL)
    if whom in ("driver", "both"):
        driver.kill()
    left = [head, zygote, raylet] if whom == "head" else everything
    psutil.wait_procs(left, 10)
    assert all(machine.has_ended(process.pid) for process in left)


def test_the_node_of_a_local_cluster_is_started_again(bare: Any) -> None:
    driver = bare.run("local", BY_A_DRIVER, "node")
    assert driver.wait(50) == 0
    assert driver.text().count("\nagain ") == 3


def test_it_ends_when_its_data_directory_is_gone(bare: Any) -> None:
    """The next head would not find it, and start another in its place."""
    bare.start_head("--num-cpus", "1")
    pid = own_node(bare).info.pid
    bare.head.kill()
    (bare.home / "clusters" / "default").rename(bare.home / "removed")  # at one blow
    bare.until(lambda: machine.has_ended(pid), 10, "it has ended")
    bare.start_head("--num-cpus", "1")
    assert own_node(bare).info.pid != pid
