"""A driver that is killed takes its own cluster along, and of a shared one nothing but its share.

What becomes of its running tasks is in test_node_death.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import psutil
import pytest

LOCAL = """
    import subprocess, sys, time
    import zray

    zray.init(num_cpus=1)

    @zray.task
    def run():
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print("it runs", flush=True)
        time.sleep(1000)

    refs = [run.remote() for _ in range(3)]
    time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_local_cluster_ends_with_its_driver(bare: Any, number: int) -> None:
    driver = bare.run("driver", LOCAL)
    driver.says("it runs")
    below = driver.below()
    assert any(process.name() == "sleep" for process in below)
    assert [path.name for path in (bare.home / "clusters").iterdir()]

    driver.signal(number)
    ended = time.monotonic()

    driver.wait(5)
    _, alive = psutil.wait_procs(below, 5)
    assert not alive
    assert time.monotonic() - ended < 3
    bare.until(lambda: not [*(bare.home / "clusters").iterdir()], 2, "its folder is removed")


def test_a_driver_that_says_goodbye_leaves_nothing_in_a_shared_cluster(
    cluster: Any, records: Any
) -> None:
    """An unhandled exception is such an end: tasks run and wait, objects are held."""
    driver = cluster.run(
        "driver",
        """
        import os, sys, time
        import zray

        zray.init()
        records = sys.argv[1]

        @zray.task
        def run(value):
            with open(records, "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(1000)

        kept = zray.put(b"x" * 1_000_000)
        refs = [run.remote(kept) for _ in range(5)]
        while not open(records).read():
            time.sleep(0.01)
        raise ValueError("an error of the program's own")
        """,
        str(records.path),
    )
    assert driver.wait(20) == 1
    ended = time.monotonic()
    assert "an error of the program's own" in driver.text()
    pids = [int(line) for line in records.lines()]
    cluster.until(lambda: not any(map(psutil.pid_exists, pids)), 5, "its tasks have ended")
    cluster.until(cluster.at_rest, 5, "its queue is empty and all resources are free")
    status = cluster.status()
    assert not status.jobs and status.objects == 0
    assert time.monotonic() - ended < 5


@pytest.mark.parametrize("head_too", [False, True])
def test_a_driver_that_is_killed_on_the_heads_machine_leaves_nothing(
    cluster: Any, records: Any, head_too: bool
) -> None:
    """``head_too``: it dies while there is no head."""
    driver = cluster.run(
        "driver",
        """
        import os, sys, time
        import zray

        zray.init()
        records = sys.argv[1]

        @zray.task
        def run():
            with open(records, "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(1000)

        refs = [run.remote() for _ in range(5)]
        time.sleep(1000)
        """,
        str(records.path),
    )
    records.until(1)
    if head_too:
        cluster.head.kill()
    driver.process.kill()  # and nobody has reaped it yet
    if head_too:
        cluster.start_head(port=-1)
    ended = time.monotonic()
    cluster.until(lambda: not cluster.status().jobs, 10, "its job has ended")
    cluster.until(cluster.at_rest, 10, "all resources are free")
    assert time.monotonic() - ended < 5
