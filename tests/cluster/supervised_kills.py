"""A supervised head is killed at random moments while a driver works; nothing may be lost.

``python -m tests.cluster.supervised_kills KILLS [SEED]`` says how long the driver was without it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

import zray
from tests.real_cluster import Cluster, until
from zray import limits

PAUSE_S = (0.0, 2.0)  # between the start of a head's process and its end, or since it serves
LASTING = 5  # each so manieth head may last, and is not taken for one that fails again and again
LASTS_S = limits.SUPERVISED_STEADY_S + 1.0
AHEAD = 20  # results that each part of the load waits for at a time


@zray.task
def leaf(number: int) -> int:
    time.sleep(0.001)
    return number


@zray.task
def tree(number: int) -> int:
    """Tasks in a task."""
    return sum(zray.get([leaf.remote(number + place) for place in range(4)]))


@zray.actor(num_cpus=0)
class Ledger:
    """Keeps every number that it was called with, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, number: int) -> int:
        self.numbers.append(number)
        return number

    def all(self) -> list[int]:
        return self.numbers


@zray.actor(num_cpus=0)
class Fresh:
    """No head, no such actor: it is stored before anybody hears of it."""

    def answer(self) -> int:
        return 42


class Load:
    """What a driver does until it is told to stop, in threads; `wrong` is what it found amiss."""

    def __init__(self) -> None:
        self.trees = self.calls = 0
        self.wrong: list[str] = []
        self.made: list[tuple[float, float]] = []  # of each fresh actor: asked for, has answered
        self._ledger = Ledger.remote()
        self._stop = threading.Event()
        parts = (self._nested, self._numbered, self._fresh)
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in parts]
        for thread in self._threads:
            thread.start()

    def _run(self, part: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                part()
        except Exception as error:
            self.wrong.append(f"{part.__name__}: {error!r}")

    def _nested(self) -> None:
        first = self.trees
        refs = [tree.remote(first + place) for place in range(AHEAD)]
        found = zray.get(refs, timeout=60)
        expected = [4 * (first + place) + 6 for place in range(AHEAD)]
        if found != expected:
            self.wrong.append(f"trees from {first} on: {found}")
        self.trees += AHEAD

    def _numbered(self) -> None:
        first = self.calls
        refs = [self._ledger.add.remote(first + place) for place in range(AHEAD)]
        self.calls += AHEAD
        if zray.get(refs, timeout=60) != list(range(first, first + AHEAD)):
            self.wrong.append(f"calls from {first} on")
        time.sleep(0.01)

    def _fresh(self) -> None:
        began = time.monotonic()
        actor = Fresh.remote()
        if zray.get(actor.answer.remote(), timeout=60) != 42:
            self.wrong.append("a fresh actor")
        self.made.append((began, time.monotonic()))
        zray.kill(actor)

    def end(self) -> None:
        """Stop, and look at what the ledger has."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        if zray.get(self._ledger.all.remote(), timeout=60) != list(range(self.calls)):
            self.wrong.append("numbers are missing, twice or out of order")
        zray.kill(self._ledger)

    def without_head(self, killed: float) -> float | None:
        """How long after that moment something was asked for and there that needs a head."""
        later = [end for began, end in self.made if began >= killed]
        return min(later) - killed if later else None


def head_of(cluster: Cluster, not_pid: int = 0) -> psutil.Process | None:
    """The head's process that runs now below its supervisor, if it is another one."""
    assert cluster.head is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(cluster.head.pid).children():
            if child.pid != not_pid and "zray.cli.supervised" in child.cmdline():
                return child
    return None


def play(cluster: Cluster, kills: int, seed: int, say: Callable[[str], Any] = print) -> list[float]:
    """Seconds without a head, of each kill after which the driver got on before the next one."""
    chance = random.Random(seed)
    say(f"seed {seed}")
    load = Load()
    moments = []
    last = 0
    until(lambda: len(load.made) > 2, 30, "the load runs")
    for number in range(kills):
        head = until(partial(head_of, cluster, last), 60, "a head's process")
        if number % 2 and moments:
            until(partial(load.without_head, moments[-1]), 90, "work goes on")
        time.sleep(LASTS_S if number % LASTING == LASTING - 1 else chance.uniform(*PAUSE_S))
        moments.append(time.monotonic())
        os.kill(head.pid, signal.SIGKILL)
        last = head.pid
        say(f"{number + 1}: pid {last}, {load.trees} trees, {load.calls} calls")
    until(lambda: load.without_head(moments[-1]), 90, "work goes on after the last")
    load.end()
    assert not load.wrong, load.wrong
    until(cluster.at_rest, 10, "all resources are free")
    assert load.trees > 0 and load.calls > 0
    say(f"{load.trees} trees, {load.calls} calls, {len(load.made)} actors: all right")
    waits = []
    for moment, after in zip(moments, [*moments[1:], float("inf")], strict=True):
        took = load.without_head(moment)
        if took is not None and moment + took < after:
            waits.append(took)
    return waits


def begin(cluster: Cluster) -> None:
    """A supervised head, two nodes, and this process as their driver."""
    cluster.start_head("--supervise")
    cluster.start_node("one", 2)
    cluster.start_node("two", 2)
    cluster.connect()


def main(kills: int, seed: int) -> int:
    """Entry of the program: prints a table's line."""
    home = Path(tempfile.mkdtemp(prefix="zray-kills-"))
    os.environ["ZRAY_HOME"] = str(home)
    cluster = Cluster(home)
    try:
        begin(cluster)
        waits = play(cluster, kills, seed)
    finally:
        if zray.is_initialized():
            zray.shutdown()
        cluster.close()
    shutil.rmtree(home)
    print(
        f"| kill -9 of a supervised head | {kills} | {statistics.median(waits):.2f} s | "
        f"{max(waits):.2f} s | (of {len(waits)} with time to get on)"
    )
    return 0


if __name__ == "__main__":
    given = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    sys.exit(main(int(sys.argv[1]), given))
