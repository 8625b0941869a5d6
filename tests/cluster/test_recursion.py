"""Tasks that wait for tasks, on nodes with a CPU each, while workers die."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import psutil
import pytest

import zray

KILL_S = 0.5


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
    """Kills a random worker now and then; ``kills`` counts, ``failure`` says why it ended."""

    def __init__(self, nodes: list[Any], chance: random.Random) -> None:
        super().__init__(name="killer")
        self._nodes = nodes
        self._chance = chance
        self._end = threading.Event()
        self.kills = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._end.wait(KILL_S):
                # A worker is a child of the node's only child, the zygote.
                workers = [
                    worker
                    for node in self._nodes
                    for zygote in psutil.Process(node.pid).children()
                    for worker in zygote.children()
                ]
                if workers:
                    self._kill(self._chance.choice(workers))
        except BaseException as error:
            self.failure = error

    def _kill(self, worker: psutil.Process) -> None:
        try:
            worker.kill()
            self.kills += 1
        except psutil.NoSuchProcess:
            pass

    def stop(self) -> None:
        self._end.set()
        self.join()
        if self.failure is not None:
            raise self.failure


@pytest.mark.slow_limit(120)
def test_nested_tasks_survive_a_worker_killed_every_half_second(connected: Any) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)

    @zray.task(max_retries=-1)
    def child(place: int) -> bytes:
        time.sleep(0.02)
        return place.to_bytes(2, "big") * 25_000

    @zray.task(max_retries=-1)
    def parent(first: int) -> list[bytes]:
        return zray.get([child.remote(place) for place in range(first, first + 10)])

    killer = Killer(connected.programs[1:3], random.Random(seed))
    killer.start()
    try:
        refs = [parent.remote(first) for first in range(0, 500, 10)]
        found = [value for values in zray.get(refs, timeout=90) for value in values]
    finally:
        killer.stop()
    assert found == [place.to_bytes(2, "big") * 25_000 for place in range(500)]
    assert killer.kills >= 5, killer.kills
    del refs, found
    connected.until(connected.at_rest, 10, "all resources are free")
    connected.until(lambda: connected.status().objects == 0, 10, "all objects are free")
