"""Nodes that are killed or stopped: their tasks move, nothing of them lives on, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import psutil
import pytest

import zray

DEAD_AFTER_KILL_S = 5.0


def test_tasks_of_a_killed_node_run_on_the_other_and_nothing_of_it_is_left(
    connected: Any, records: Any, gate: Any
) -> None:
    write, wait = records.write, gate.wait

    @zray.task
    def work(place: int) -> int:
        # A grandchild that is in no process group of its worker.
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        write(place)
        wait()
        return place

    refs = [work.remote(place) for place in range(6)]
    records.until(2)  # one runs on each node, others wait
    one = connected.programs[1]
    below = one.below()
    assert any(process.name() == "sleep" for process in below)
    before = connected.node("one")
    one.kill()
    killed = time.monotonic()

    _, alive = psutil.wait_procs(below, DEAD_AFTER_KILL_S)
    assert not alive
    connected.until(lambda: connected.node("one") is None, DEAD_AFTER_KILL_S, "it is dead")
    assert time.monotonic() - killed < DEAD_AFTER_KILL_S
    gate.open()
    assert zray.get(refs, timeout=20) == list(range(6))
    assert len(records.lines()) == 7  # only the one that ran there began twice
    assert any("node one" in notice for notice in connected.status().notices)

    connected.start_node("one")
    after = connected.node("one")
    assert (after.node_id, after.incarnation) != (before.node_id, before.incarnation)

    @zray.task
    def again(place: int) -> int:
        time.sleep(0.05)
        return place

    def runs_some() -> bool:
        assert zray.get([again.remote(i) for i in range(10)], timeout=20) == list(range(10))
        return bool(connected.node("one").finished)

    connected.until(runs_some, 20.0, "the node that is back runs tasks")


def test_a_node_that_stands_still_for_three_seconds_loses_nothing(
    connected: Any, records: Any
) -> None:
    write = records.write

    @zray.task
    def work(place: int) -> int:
        write(place)
        time.sleep(0.2)
        return place

    refs = [work.remote(place) for place in range(12)]
    records.until(3)
    one = connected.programs[1]
    one.signal(signal.SIGSTOP)
    time.sleep(3.0)  # the length of the fault
    one.signal(signal.SIGCONT)
    assert zray.get(refs, timeout=20) == list(range(12))
    assert sorted(map(int, records.lines())) == list(range(12))
    assert dict(connected.status().counters)["retried"] == 0


@pytest.mark.slow_limit(90)
def test_what_is_silent_for_too_long_is_dead_for_good(bare: Any, records: Any, gate: Any) -> None:
    """A stopped node, which may go on; and a killed driver, which will not, and whose tasks end."""
    bare.start_head()
    bare.start_node("stays", 1, "--resources", "b=1")
    bare.start_node("stops", 1, "--resources", "a=1")
    stops = bare.programs[2]
    bare.connect()
    write, wait = records.write, gate.wait

    @zray.task
    def work(place: int) -> str:
        write(f"work:{place}:{os.getpid()}")
        wait()
        return f"{place}:{os.getpid()}"

    killed = bare.run(
        "killed",
        """
        import os, sys, time
        import zray

        zray.init()
        records = sys.argv[1]

        @zray.task(resources={"b": 1}, num_cpus=0)
        def run():
            with open(records, "a") as file:
                file.write(f"killed:-:{os.getpid()}\\n")
            time.sleep(1000)

        kept = zray.put(b"x" * 1_000_000)
        made = zray.task(lambda value: b"y" * len(value)).options(num_cpus=0).remote(kept)
        zray.wait([made])
        refs = [run.remote() for _ in range(3)]
        time.sleep(1000)
        """,
        str(records.path),
    )
    records.until(1)
    before = bare.node("stops")
    refs = [work.remote(place) for place in (1, 2)]
    records.until(3)  # one runs on each node
    status = bare.status()
    assert len(status.jobs) == 2 and status.objects >= 2
    stopped = {process.pid for process in stops.below()}
    killed.kill()
    stops.signal(signal.SIGSTOP)
    bare.until(lambda: bare.node("stops").state == "SUSPECT", 8, "it is suspected")
    assert len(bare.status().jobs) == 1  # the driver is proven dead
    assert len(records.lines()) == 3  # of the node nothing is decided yet: its task is still its

    bare.until(lambda: bare.node("stops") is None, 30, "the node is dead")
    gate.open()
    values = zray.get(refs, timeout=20)
    pids = {kind: [] for kind in ("work", "killed")}
    for kind, _, pid in (line.split(":") for line in records.lines()):
        pids[kind].append(int(pid))
    assert len(pids["work"]) == 3  # the stopped node's one ran again, on the other
    assert len(pids["killed"]) == 1  # its queued tasks never began
    stops.signal(signal.SIGCONT)

    again = bare.await_node("stops")
    assert again.node_id == before.node_id and again.incarnation > before.incarnation
    assert zray.get(refs, timeout=20) == values
    old = [*pids["killed"], *(pid for pid in pids["work"] if pid in stopped)]
    assert len(old) == 2
    bare.until(lambda: not any(map(psutil.pid_exists, old)), 5, "what ran for the dead has ended")
    del refs
    bare.until(lambda: bare.status().objects == 0, 10, "all objects are free")
    bare.until(bare.at_rest, 10, "all resources are free")
