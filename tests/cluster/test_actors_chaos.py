"""Workers and nodes are killed at random while tasks and actors work: every result arrives."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any

import psutil
import pytest

import zray

KILL_S = 2.0  # between two kills
KILLS_MIN = 6
RETURN_BYTES = 50_000
PARENTS, CHILDREN = 50, 10
ACTORS, CALLS = 16, 50
NODES = ("one", "two", "three")


class Killer(threading.Thread):
    """Kills a worker or a node now and then; a node is started again at once."""

    def __init__(self, cluster: Any, seed: int) -> None:
        super().__init__(name="killer")
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._nodes = {program.name: program for program in cluster.programs[1:]}
        self._stopped = threading.Event()
        self.killed: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopped.wait(KILL_S):
                if self._chance.random() < 0.4:
                    self._kill_node(self._chance.choice(NODES))
                else:
                    self._kill_worker()
        except BaseException as error:
            self.failure = error

    def _kill_node(self, name: str) -> None:
        self._nodes[name].kill()
        self.killed.append(f"node {name}")
        self._nodes[name] = self._cluster.start_node(name, 2, wait=False)

    def _kill_worker(self) -> None:
        try:
            workers = [
                worker
                for node in self._nodes.values()
                for zygote in node.children()
                for worker in zygote.children()
            ]
            if workers:
                worker = self._chance.choice(sorted(workers, key=lambda process: process.pid))
                name = worker.name()
                worker.kill()
                self.killed.append(name)
        except psutil.NoSuchProcess:
            return  # it has just ended by itself

    def finish(self) -> None:
        self._stopped.set()
        self.join()
        assert self.failure is None, self.failure


@pytest.mark.slow_limit(150)
def test_tasks_and_actors_outlive_kills_of_workers_and_nodes(bare: Any, records: Any) -> None:
    write = records.write

    @zray.task(max_retries=-1, num_cpus=1)
    def child(parent: int, number: int) -> bytes:
        time.sleep(0.05)
        return (parent * CHILDREN + number).to_bytes(2, "big") * (RETURN_BYTES // 2)

    @zray.task(max_retries=-1, num_cpus=0.5)
    def parent(number: int) -> list[bytes]:
        values = zray.get([child.remote(number, place) for place in range(CHILDREN)])
        return [value[:2] for value in values if len(value) == RETURN_BYTES]

    @zray.actor(max_restarts=-1, max_task_retries=-1, num_cpus=0)
    class Sequence:
        def __init__(self, name: int) -> None:
            self.name = name
            self.seen: set[int] = set()

        def take(self, number: int) -> int:
            if number not in self.seen:
                self.seen.add(number)
                write(f"{self.name}:{number}")
            time.sleep(0.1)
            return number

    bare.start_head()
    for name in NODES:
        bare.start_node(name, 2, wait=False)
    for name in NODES:
        bare.await_node(name)
    bare.connect()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    killer = Killer(bare, seed)
    actors = [Sequence.remote(name) for name in range(ACTORS)]
    zray.get([actor.__ray_ready__.remote() for actor in actors], timeout=30)
    began = time.monotonic()
    killer.start()
    try:
        parents = [parent.remote(number) for number in range(PARENTS)]
        calls = [[actor.take.remote(number) for number in range(CALLS)] for actor in actors]
        values = zray.get(parents, timeout=60)
        answers = zray.get([ref for refs in calls for ref in refs], timeout=60)
        while len(killer.killed) < KILLS_MIN:
            assert zray.get([actor.take.remote(0) for actor in actors], timeout=30) == [0] * ACTORS
    finally:
        killer.finish()
        print(f"{killer.killed} in {time.monotonic() - began:.1f} s")

    numbers = [int.from_bytes(value, "big") for one in values for value in one]
    assert numbers == list(range(PARENTS * CHILDREN))
    assert answers == list(range(CALLS)) * ACTORS
    assert set(records.lines()) == {f"{a}:{n}" for a in range(ACTORS) for n in range(CALLS)}
    # Living actors keep nothing here: all is free again, on the nodes of now.
    bare.until(lambda: len(bare.status().nodes) == 1 + len(NODES), 10, "every node is back")
    bare.until(bare.at_rest, 10, "all resources are free")
    assert zray.available_resources()["CPU"] == zray.cluster_resources()["CPU"] == 2 * len(NODES)
    del parents, calls
    actors.clear()
    bare.until(lambda: bare.status().objects == 0, 10, "all objects are free")
    bare.until(lambda: not _workers(bare, "Sequence"), 10, "all actors have ended")


def _workers(cluster: Any, name: str) -> list[psutil.Process]:
    """Processes of actors of that class below the nodes of now."""
    alive = [program for program in cluster.programs if program.process.poll() is None]
    found = []
    for process in [process for program in alive for process in program.below()]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if name in process.name():
                found.append(process)
    return found
