"""Actors that live and cannot be reached: their node stands still or is cut off."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any

import psutil
import pytest

import zray
from zray import limits
from zray.errors import ActorDiedError, ActorUnavailableError, GetTimeoutError

pytestmark = pytest.mark.system

GET_S = 40.0
SOON_S = limits.AWAY_S + 4.0  # it is looked for once a second, and two machines' CPUs are shared
LARGE = 20 << 20


def tally_class(records: Any) -> Any:
    write = records.write

    @zray.actor(num_cpus=0)
    class Tally:
        def __init__(self) -> None:
            self.n = 0

        def add(self, who: str = "", seconds: float = 0.0) -> int:
            write(f"add:{who}")
            time.sleep(seconds)
            self.n += 1
            return self.n

        def echo(self, value: bytes, seconds: float = 0.0) -> bytes:
            write("echo")
            time.sleep(seconds)
            return value

        def count(self, upto: int, seconds: float) -> Any:
            for number in range(upto):
                time.sleep(seconds)
                yield number

        def pid(self) -> int:
            return os.getpid()

    return Tally


class Standstill:
    """A node and its workers do not move, or only the node does not."""

    def __init__(self, node: Any, *, workers: bool = True) -> None:
        self._frozen = [psutil.Process(node.pid), *(node.below() if workers else [])]

    def __enter__(self) -> None:
        for process in self._frozen:
            process.suspend()

    def __exit__(self, *_: object) -> None:
        for process in self._frozen:
            process.resume()


def seconds_until_unavailable(ref: Any, *, ran: bool) -> float:
    began = time.monotonic()
    with pytest.raises(ActorUnavailableError, match="may have run" if ran else "not run") as caught:
        zray.get(ref, timeout=GET_S)
    assert caught.value.maybe_executed is ran
    return time.monotonic() - began


def node_of(cluster: Any, name: str) -> Any:
    return next(program for program in reversed(cluster.programs) if program.name == name)


@pytest.mark.slow_limit(90)
@pytest.mark.parametrize("way", ["stopped", "cut off"])
def test_what_may_not_be_retried_fails_and_the_actor_goes_on(
    apart: Any, records: Any, way: str
) -> None:
    cluster, network = apart
    tally = tally_class(records).options(resources={"two": 1}).remote()
    assert zray.get(tally.add.remote("first"), timeout=GET_S) == 1
    pid = zray.get(tally.pid.remote(), timeout=GET_S)
    flying = [tally.add.remote("flying", 0.5), *(tally.add.remote("behind") for _ in range(3))]
    waits = tally.add.options(max_task_retries=1).remote("waits")
    records.until(2)
    with contextlib.ExitStack() as away:
        if way == "cut off":
            network.set("two", "down")
            away.callback(network.set, "two", "up")
        else:
            away.enter_context(Standstill(node_of(cluster, "two")))
        assert seconds_until_unavailable(flying[0], ran=True) < SOON_S
        for ref in flying[1:]:
            assert seconds_until_unavailable(ref, ran=True) < 0.5
        for _ in range(20):
            assert seconds_until_unavailable(tally.add.remote("never"), ran=False) < 0.5
        more = tally.add.options(max_task_retries=-1).remote("more")
        with pytest.raises(GetTimeoutError, match=r"out of reach.*node two"):
            zray.get(more, timeout=0.2)
    counts = zray.get([waits, more], timeout=GET_S)
    cluster.await_node("two", GET_S)
    last = zray.get(tally.add.remote("last"), timeout=GET_S)
    assert zray.get(tally.pid.remote(), timeout=GET_S) == pid
    added = [line for line in records.lines() if line.startswith("add")]
    assert counts == sorted(counts) and last == counts[-1] + 1 == len(added)
    assert "add:never" not in added
    assert all(added.count(f"add:{who}") == 1 for who in ("first", "waits", "more", "last"))
    assert added.count("add:flying") <= 1 and added.count("add:behind") <= 3
    del tally, flying, waits, more, ref
    cluster.until(lambda: not psutil.pid_exists(pid), 10, "the actor has ended")
    cluster.until(cluster.at_rest, 10, "all resources are free")
    cluster.until(lambda: cluster.status().objects == 0, 10, "all objects are free")


@pytest.mark.slow_limit(90)
def test_large_values_of_failed_calls_are_freed(apart: Any, records: Any) -> None:
    """Arguments stay as long as the actor may need them; results come to nobody."""
    cluster, _ = apart
    tally = tally_class(records).options(resources={"two": 1}).remote()
    value = os.urandom(LARGE)
    stored = zray.put(value)
    assert zray.get(tally.echo.remote(stored), timeout=GET_S) == value
    flying = [tally.echo.remote(value, 1.0), tally.echo.remote(stored), tally.echo.remote(value)]
    del stored
    items = tally.count.remote(1000, 0.001)
    records.until(2)
    with Standstill(node_of(cluster, "two")):
        for ref in flying:
            seconds_until_unavailable(ref, ran=True)
        with pytest.raises(ActorUnavailableError):
            zray.get([*items][-1], timeout=GET_S)
        seconds_until_unavailable(tally.echo.remote(value), ran=False)
        waits = tally.echo.options(max_task_retries=1).remote(value)
    assert zray.get(waits, timeout=GET_S) == value
    cluster.await_node("two", GET_S)
    assert zray.get(tally.add.remote(), timeout=GET_S) == 1
    del flying, ref, items, waits
    cluster.until(lambda: cluster.status().objects == 1, 15, "only the actor's handle is left")
    del tally
    cluster.until(lambda: cluster.status().objects == 0, 10, "all objects are free")


@pytest.mark.slow_limit(150)
def test_many_callers_of_an_actor_on_a_node_that_comes_and_goes(apart: Any, records: Any) -> None:
    """Threads, and tasks on another node: nobody waits long, and each call is counted once."""
    cluster, _ = apart
    tally = tally_class(records).options(resources={"two": 1}).remote()
    assert zray.get(tally.add.remote("first"), timeout=GET_S) == 1

    @zray.task(num_cpus=0, resources={"one": 0.1})
    def call(tally: Any, who: str, seconds: float) -> tuple[int, int, float]:
        return calling(tally, who, seconds)

    def calling(tally: Any, who: str, seconds: float) -> tuple[int, int, float]:
        """How many calls have a value and how many none, and the longest that one took."""
        end, good, bad, longest = time.monotonic() + seconds, 0, 0, 0.0
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                zray.get(tally.add.remote(who))
                good += 1
            except zray.errors.ActorUnavailableError:
                bad += 1
                time.sleep(0.1)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.05)
        return good, bad, longest

    seconds = 36.0
    elsewhere = [call.remote(tally, f"task-{number}", seconds) for number in range(12)]
    found: list[tuple[int, int, float]] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(calling(tally, f"thread-{n}", seconds)))
        for n in range(100)
    ]
    for thread in threads:
        thread.start()
    node = node_of(cluster, "two")
    for number in range(2):
        time.sleep(2.0)  # in which calls go through
        with Standstill(node, workers=number == 0):
            time.sleep(11.0)  # the length of the fault
    for thread in threads:
        thread.join()
    found += zray.get(elsewhere, timeout=GET_S)
    cluster.await_node("two", GET_S)
    assert len(found) == 112 and all(good and bad for good, bad, _ in found)
    assert max(longest for _, _, longest in found) < SOON_S
    total = zray.get(tally.add.remote("last"), timeout=GET_S)
    added = [line for line in records.lines() if line.startswith("add")]
    assert total == len(added)
    answered = 2 + sum(good for good, _, _ in found)
    failed = sum(bad for _, bad, _ in found)
    assert answered <= total <= answered + failed


@pytest.mark.slow_limit(120)
@pytest.mark.parametrize("told", [True, False], ids=["told before", "not told before"])
def test_the_head_is_killed_while_the_node_is_away(apart: Any, records: Any, told: bool) -> None:
    cluster, _ = apart
    tally = tally_class(records).options(resources={"two": 1}).remote()
    assert zray.get(tally.add.remote(), timeout=GET_S) == 1
    flying = tally.add.remote("flying", 0.3)
    waits = tally.add.options(max_task_retries=1).remote()
    records.until(2)
    with Standstill(node_of(cluster, "two")):
        if told:
            seconds_until_unavailable(flying, ran=True)
        address = cluster.address
        cluster.head.kill()
        if told:
            assert seconds_until_unavailable(tally.add.remote(), ran=False) < 0.5
        cluster.start_head("--host", "0.0.0.0", port=-1)
        cluster.address = address
        if not told:
            assert seconds_until_unavailable(flying, ran=True) < SOON_S
        assert seconds_until_unavailable(tally.add.remote(), ran=False) < 1.0
    assert zray.get(waits, timeout=GET_S) == 3
    assert zray.get(tally.add.remote(), timeout=GET_S) == 4
    assert len(records.lines()) == 4


@pytest.mark.slow_limit(90)
def test_a_node_that_stays_away_is_dead_in_the_end(apart: Any, records: Any) -> None:
    cluster, network = apart
    tally = tally_class(records).options(resources={"two": 1}).remote()
    assert zray.get(tally.add.remote(), timeout=GET_S) == 1
    flying = tally.add.remote("flying", 1.0)
    waits = tally.add.options(max_task_retries=1).remote()
    records.until(2)
    network.set("two", "down")
    seconds_until_unavailable(flying, ran=True)
    with pytest.raises(ActorDiedError, match="node two") as caught:
        zray.get(waits, timeout=GET_S)
    assert caught.value.maybe_executed
    with pytest.raises(ActorDiedError, match="node two"):
        zray.get(tally.add.remote(), timeout=GET_S)
    with pytest.raises(ActorUnavailableError):  # as it was told
        zray.get(flying, timeout=GET_S)
    network.set("two", "up")
    cluster.await_node("two", GET_S)
