"""Tasks that wait for tasks, on nodes with a CPU each, while workers die."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import zray


def test_recursion_never_runs_out_of_cpus(connected: Any) -> None:
    @zray.task
    def fib(n: int) -> int:
        if n < 2:
            return n
        return sum(zray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert zray.get(fib.remote(8), timeout=50) == 21
    connected.until(connected.at_rest, 10, "all resources are free")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


class Killer(threading.Thread):
    """Does a random one of ``actions`` every ``pause_s``; a test fails where one of them does."""

    def __init__(self, pause_s: float, actions: list[Callable[[], None]], seed: int) -> None:
        super().__init__(name="killer")
        self._pause_s = pause_s
        self._actions = actions
        self._chance = random.Random(seed)
        self._end = threading.Event()
        self.kills = 0
        self._failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(self._pause_s):
                self._chance.choice(self._actions)()
                self.kills += 1
        except BaseException as error:
            self._failure = error

    def __enter__(self) -> Killer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        if self._failure is not None:
            raise self._failure


def kill_worker(cluster: Any, chance: random.Random) -> None:
    workers = []
    for program in cluster.programs:
        try:
            if program.name in ("one", "two"):
                workers += [w for zygote in program.children() for w in zygote.children()]
        except psutil.NoSuchProcess:
            continue
    if workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(workers).kill()


def kill_node(cluster: Any, name: str) -> None:
    """And start another of that name."""
    [node] = [p for p in cluster.programs if p.name == name and p.process.poll() is None]
    node.kill()
    cluster.start_node(name, wait=False)


def kill_head(cluster: Any) -> None:
    cluster.head.kill()
    cluster.start_head(port=-1)


def run_nested_tasks(parents: int, sample: int) -> None:
    """Tasks that wait for ten others each; every single result is looked at.

    ``sample``: bytes of each inner result that the outer one contains. What is too large for the
    head to pass on stays on its node, and goes with it.
    """

    @zray.task(max_retries=-1)
    def child(place: int) -> bytes:
        time.sleep(0.04)
        return place.to_bytes(2, "big") * 25_000

    @zray.task(max_retries=-1)
    def parent(first: int) -> list[bytes]:
        values = zray.get([child.remote(place) for place in range(first, first + 10)])
        assert all(value == value[:2] * 25_000 for value in values)
        return [value[:sample] for value in values]

    refs = [parent.remote(first) for first in range(0, 10 * parents, 10)]
    found = [value for values in zray.get(refs, timeout=100) for value in values]
    assert found == [(place.to_bytes(2, "big") * 25_000)[:sample] for place in range(10 * parents)]


@pytest.mark.slow_limit(120)
def test_nested_tasks_survive_a_worker_killed_every_half_second(connected: Any) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    with Killer(0.5, [lambda: kill_worker(connected, chance)], seed) as killer:
        run_nested_tasks(50, 50_000)
        while killer.kills < 10 and killer.is_alive():  # a quick machine is done too soon
            run_nested_tasks(5, 50_000)
    connected.until(connected.at_rest, 10, "all resources are free")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")


@pytest.mark.slow_limit(120)
def test_nested_tasks_survive_rolling_kills_of_everything(connected: Any) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    actions = [
        lambda: kill_worker(connected, chance),
        lambda: kill_node(connected, "one"),
        lambda: kill_node(connected, "two"),
        lambda: kill_head(connected),
    ]
    with Killer(2.0, actions, seed) as killer:
        run_nested_tasks(20, 2)
        while killer.kills < 3 and killer.is_alive():  # a quick machine is done too soon
            run_nested_tasks(5, 2)
    connected.await_node("one")
    connected.await_node("two")
    connected.until(connected.at_rest, 10, "all resources are free")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")
