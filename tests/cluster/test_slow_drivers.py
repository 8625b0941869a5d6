"""A driver that is slow keeps its job; one that is away loses it, is told, and begins another."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

SLOW = """
    import ctypes, os, signal, sys, time
    import zray

    zray.init()

    @zray.task
    def prints(number):
        for _ in range(40):
            print("x" * 500)
            time.sleep(0.002)
        return number

    @zray.actor(num_cpus=0)
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self):
            self.count += 1
            return self.count

    counter = Counter.remote()
    zray.get(counter.add.remote())
    refs = [prints.remote(number) for number in range(200)]
    zray.get(refs[0])
    print("is slow", flush=True)
    if sys.argv[1] == "stuck":
        ctypes.PyDLL(None).sleep(12)  # in C, and with the GIL
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
    print("sum", sum(zray.get(refs, timeout=30)), flush=True)
    print("count", zray.get(counter.add.remote(), timeout=10), flush=True)
"""

AWAY = """
    import time
    import zray
    from zray.errors import ZrayError

    zray.init(driver_lost_after_s=1)

    @zray.actor(num_cpus=0)
    class Counter:
        def add(self):
            return 1

    @zray.task(num_cpus=0)
    def waits():
        time.sleep(1000)

    counter = Counter.remote()
    zray.get(counter.add.remote())
    kept = zray.put(b"x" * 1000)
    refs = [waits.remote() for _ in range(3)]
    zray.get(zray.task(lambda value: len(value)).remote(kept))
    print("has begun", flush=True)
    try:
        zray.get(refs)
    except ZrayError as error:
        print("lost:", error, flush=True)
    zray.init()
    print("again", zray.get(Counter.remote().add.remote(), timeout=20), flush=True)
"""

RUNS = """
    import time
    import zray

    zray.init()

    @zray.task
    def waits():
        time.sleep(1000)

    refs = [waits.remote() for _ in range(10)]
    print("has begun", flush=True)
    time.sleep(1000)
"""


@pytest.mark.slow_limit(120)
@pytest.mark.parametrize("how", ["stuck", "stopped"])
def test_a_slow_driver_keeps_all_it_has(bare: Any, how: str) -> None:
    """For longer than any heartbeat, and than a driver that is away would be waited for."""
    bare.start_head("--driver-lost-after", "1")
    bare.start_node("one", 2)
    driver = bare.run("slow", SLOW, how)
    driver.says("is slow")
    if how == "stopped":
        time.sleep(12)  # the length of the fault
        assert [job.connected for job in bare.status().jobs] == [True]
        driver.signal(signal.SIGCONT)
    assert driver.says(f"sum {sum(range(200))}", 60)
    assert driver.says("count 2")
    assert driver.wait(10) == 0


def elsewhere(bare: Any, name: str, source: str) -> Any:
    """A driver on the machine of node ``one``."""
    bare.prefix[name] = bare.prefix["one"]
    home = bare.home / "one"
    port = bare.address.rpartition(":")[2]
    environment = {
        "ZRAY_HOME": str(home),
        "ZRAY_CONNECTION_FILE": str(home / "connection.json"),
        "ZRAY_ADDRESS": f"10.231.1.1:{port}",
    }
    driver = bare.run(name, source, environment=environment)
    driver.says("has begun")
    return driver


@pytest.mark.slow_limit(120)
def test_a_driver_that_is_away_is_told_what_it_lost_and_begins_another(apart: Any) -> None:
    cluster, network = apart
    driver = elsewhere(cluster, "away", AWAY)
    before = len(cluster.status().jobs)
    network.set("one", "down")
    cluster.until(lambda: len(cluster.status().jobs) < before, 30, "its job has ended")
    network.set("one", "up")
    said = driver.says("lost:", 30)
    assert (
        "the driver was disconnected for 1 s, so its job was ended, with 3 unfinished tasks" in said
    )
    assert "1 actor" in said and "zray.init() begins another" in said
    assert driver.says("again 1", 30)
    assert driver.wait(10) == 0


def test_a_driver_that_is_killed_on_a_machine_of_the_cluster_frees_all_at_once(apart: Any) -> None:
    cluster, _ = apart
    driver = elsewhere(cluster, "runs", RUNS)
    busy = lambda: sum(not dict(n.available).get("CPU") for n in cluster.status().nodes)  # noqa: E731
    cluster.until(lambda: busy() == 3, 10, "both nodes are busy")  # and the head's has no CPU
    os.kill(driver.pid, signal.SIGKILL)
    ended = time.monotonic()
    cluster.until(cluster.at_rest, 5, "all is free")
    assert time.monotonic() - ended < 2
    assert "its process has ended" in str(cluster.status().notices) or not cluster.status().classes
