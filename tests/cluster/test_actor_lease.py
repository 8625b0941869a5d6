"""Of an actor that may be restarted elsewhere, one incarnation serves at a time."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import zray
from zray import limits

KINDS = {"plain": 1, "threads": 4, "loop": 1}


def counter_class(kind: str, write: Any) -> Any:
    @zray.actor(num_cpus=0.1, max_restarts=1, max_task_retries=-1, max_concurrency=KINDS[kind])
    class Counter:
        def __init__(self) -> None:
            write(f"{kind}:born:{os.getpid()}:{time.monotonic()}")

        if kind == "loop":

            async def add(self) -> int:
                write(f"{kind}:serves:{os.getpid()}:{time.monotonic()}")
                return os.getpid()
        else:

            def add(self) -> int:
                write(f"{kind}:serves:{os.getpid()}:{time.monotonic()}")
                return os.getpid()

    return Counter


@zray.actor(num_cpus=0.1)
class Neighbour:
    """Calls for as long as it lives."""

    def __init__(self, counter: Any) -> None:
        def call() -> None:
            while True:
                zray.get(counter.add.remote())
                time.sleep(0.1)

        threading.Thread(target=call, daemon=True).start()

    def here(self) -> bool:
        return True


def test_an_actor_whose_raylet_is_stopped_waits_before_another_begins(
    bare: Any, records: Any
) -> None:
    """Its neighbour still reaches it, without the raylet."""
    bare.start_head()
    one = bare.start_node("one", 1)
    bare.connect()
    counters = [counter_class(kind, records.write).remote() for kind in KINDS]
    calls = [counter.add.remote for counter in counters]
    before = zray.get([call() for call in calls])
    neighbours = [Neighbour.remote(counter) for counter in counters]
    assert all(zray.get([neighbour.here.remote() for neighbour in neighbours]))
    bare.start_node("two", 1)
    one.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        assert zray.get([call() for call in calls], timeout=2) == before  # at first it serves on
        bare.until(
            lambda: sum("born" in line for line in records.lines()) == 2 * len(KINDS),
            40,
            "all are restarted on the other node",
        )
        assert not {*before} & {*zray.get([call() for call in calls], timeout=20)}
    finally:
        one.signal(signal.SIGCONT)
    assert not {*before} & {*zray.get([call() for call in calls], timeout=20)}
    lines = [line.split(":") for line in records.lines()]
    for kind, pid in zip(KINDS, before, strict=True):
        born = max(float(at) for of, what, _, at in lines if (of, what) == (kind, "born"))
        served = [float(at) for _, what, by, at in lines if (what, by) == ("serves", str(pid))]
        assert born - stopped > limits.ACTOR_LEASE_S
        assert stopped + limits.ACTOR_LEASE_S - 3 * limits.PING_S < max(served) < born


def test_an_actor_that_waited_serves_on_when_its_raylet_is_back(bare: Any, records: Any) -> None:
    """It was away for longer than the lease, and not for so long that it counts as dead."""
    write = records.write

    @zray.actor(max_restarts=1)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    @zray.actor
    class Neighbour:
        def __init__(self, counter: Any) -> None:
            self.counter = counter

        def add(self) -> int:
            return zray.get(self.counter.add.remote())

        def add_later(self, seconds: float) -> tuple[int, float]:
            write("asked")
            time.sleep(seconds)  # until the lease of the stopped raylet is over
            began = time.monotonic()
            return zray.get(self.counter.add.remote()), time.monotonic() - began

    bare.start_head()
    one = bare.start_node("one", 2)
    bare.connect()
    counter = Counter.remote()
    neighbour = Neighbour.remote(counter)
    assert zray.get(neighbour.add.remote()) == 1
    later = neighbour.add_later.remote(limits.ACTOR_LEASE_S + 0.5)
    records.until(1)  # the call has reached it
    one.signal(signal.SIGSTOP)
    time.sleep(limits.ACTOR_LEASE_S + 2.0)  # the length of the fault
    one.signal(signal.SIGCONT)
    count, waited = zray.get(later, timeout=20)
    assert count == 2 and waited > 0.5
    assert zray.get(counter.add.remote(), timeout=10) == 3
