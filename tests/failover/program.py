"""A driver that works on while heads come and go; every result is known, every call is numbered.

``python -m tests.failover.program NAME FOLDER [far] [clocks]``: a line for each round, until
FOLDER/stop exists. Ends with 0 if all was right, else with 1 and the reason. Beside the rounds
three threads do one thing after the other and write down when each began and ended, by the
machine's monotonic clock: FOLDER/NAME-change (of control state, acknowledged), -task (a result),
-call (of an actor). ``clocks``: nothing but these, more often. Large values of a program on a
machine without a node (``far``) lie elsewhere, and so it puts none. NAME is its namespace, too.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zray
from tests.enemy.witness import Witness, get, square
from zray.errors import (
    HeadConnectionError,
    HeadSilentError,
    ObjectLostError,
    PlacementGroupExistsError,
)
from zray.util import kv
from zray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    remove_placement_group,
)
from zray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

KEPT = {"kept": 0.01}  # of a node that is never killed: what is lost with a process must be there
SIZES = (0, 100, 5_000, 60_000, 200_000, 1_500_000)
START_S = 60.0
PAUSE_S, OFTEN_S = 0.05, 0.03  # between two things of a thread
SLEEPERS = 4  # tasks that sleep, at a time
ROUND_S = 0.3  # between two rounds: the machine has others


@zray.actor(num_cpus=0, resources=KEPT)
class Log:
    """What it was told, in that order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def append(self, number: int, value: bytes = b"") -> tuple[int, int]:
        self.numbers.append(number)
        return len(self.numbers), len(value)

    def all(self) -> list[int]:
        return self.numbers


@zray.task(max_retries=-1)
def steps(first: int, count: int, size: int) -> Any:
    for number in range(first, first + count):
        time.sleep(0.01)
        yield number, bytes(size)


@zray.task(max_retries=-1)
def measure(refs: list[Any]) -> list[int]:
    return [len(value) for value in zray.get(refs)]


@zray.task(max_retries=0, num_cpus=0.1, resources=KEPT)
def tell(log: Any, numbers: list[int]) -> list[int]:
    found = zray.get([log.append.remote(number, bytes(200)) for number in numbers])
    return [size for _, size in found]


@zray.task(max_retries=-1, num_cpus=0.1)
def sleep(seconds: float, value: bytes) -> bytes:
    time.sleep(seconds)
    return value


class Sequence:
    """Numbered calls of one actor; none may be missing, none may have run twice."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.next = 0

    def call(self, count: int, size: int = 0) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        found = get([self.log.append.remote(number, bytes(size)) for number in numbers])
        expected = [(number + 1, size) for number in numbers]
        assert found == expected, f"{found} instead of {expected}"

    def check(self) -> None:
        found = get(self.log.all.remote())
        assert found == [*range(self.next)], f"of {self.next} calls: {found}"


class Traveller(Witness):
    """What the witness does, and the rest of what a program may have of a cluster."""

    def __init__(self, name: str, folder: Path, far: bool) -> None:
        own = folder / name
        own.mkdir()
        super().__init__(own)
        self.name = name
        self.far = far
        self.sequence = Sequence(Log.remote())
        kept = Log.options(name="log", lifetime="detached").remote()
        self.named = Sequence(kept)
        self.stored = self.grouped = 0
        self.told, self.telling = Log.remote(), 0
        self.sleepers: deque[tuple[Any, bytes]] = deque()

    def round(self) -> None:
        super().round()
        for part in (
            *(self.calls_in_order, self.calls_by_tasks, self.names, self.streams),
            *(self.groups, self.keys, self.sleep),
        ):
            part()
        if not self.far:
            self.puts()

    def blocks(self) -> None:
        """What was on a killed node is not made again by a head that has not seen it made."""
        try:
            super().blocks()
        except ObjectLostError as error:
            self.excused[type(error).__name__] += 1

    def calls_in_order(self) -> None:
        self.sequence.call(20)
        self.sequence.call(2, self.chance.choice(SIZES))

    def calls_by_tasks(self) -> None:
        """Of one actor, by several tasks at once, each of which may not run twice."""
        refs = []
        for _ in range(4):
            numbers = [*range(self.telling, self.telling + 5)]
            self.telling += 5
            refs.append(tell.remote(self.told, numbers))
        self.equal(get(refs), [[200] * 5] * 4)

    def sleep(self) -> None:
        """Tasks that run meanwhile, and are asked for some rounds later."""
        value = bytes([self.chance.randrange(256)]) * self.chance.choice(SIZES)
        seconds = self.chance.uniform(1, 6)
        self.sleepers.append((sleep.remote(seconds, value), value))
        if len(self.sleepers) > SLEEPERS:
            self._wake(1)

    def _wake(self, count: int) -> None:
        for _ in range(count):
            ref, value = self.sleepers.popleft()
            try:
                assert get(ref) == value, f"not the {len(value)} bytes that it was given"
                self.results += 1
            except ObjectLostError as error:
                self.excused[type(error).__name__] += 1

    def names(self) -> None:
        self.named.log = acknowledged(lambda: zray.get_actor("log"))
        self.named.call(5)
        passing = Log.options(name="passing", lifetime="detached").remote()
        self.equal([get(passing.append.remote(1))], [(1, 0)])
        zray.kill(passing)
        deadline = time.monotonic() + START_S
        while "passing" in acknowledged(zray.util.list_named_actors):
            assert time.monotonic() < deadline, "a killed actor keeps its name"
            time.sleep(0.02)

    def streams(self) -> None:
        first, size = self.chance.randrange(1000), self.chance.choice(SIZES)
        made = steps.options(num_returns="streaming").remote(first, 10, size)
        found = [get(ref) for ref in made]
        shapes = [(number, len(value)) for number, value in found]
        self.equal(shapes, [(number, size) for number in range(first, first + 10)])

    def groups(self) -> None:
        strategy = self.chance.choice(("PACK", "SPREAD"))
        group = acknowledged(lambda: self._group(strategy))
        get(group.ready())
        inside = PlacementGroupSchedulingStrategy(group)
        refs = [
            square.options(num_cpus=0.5, scheduling_strategy=inside).remote(number)
            for number in range(4)
        ]
        self.equal(get(refs), [0, 1, 4, 9])
        acknowledged(lambda: remove_placement_group(group))

    def _group(self, strategy: str) -> PlacementGroup:
        """By a name, so that one that was made without an answer is found."""
        name = f"group-{self.grouped}"
        try:
            return placement_group([{"CPU": 0.5}] * 2, strategy=strategy, name=name)
        except PlacementGroupExistsError:
            return get_placement_group(name)

    def keys(self) -> None:
        key = f"{self.name}-key".encode()
        if self.stored:
            self.equal([int(acknowledged(lambda: kv.get(key)) or b"0")], [self.stored])
        self.stored += 1
        acknowledged(lambda: kv.put(key, b"%d" % self.stored))

    def puts(self) -> None:
        sizes = self.chance.sample(SIZES, 3)
        refs = [zray.put(bytes(size)) for size in sizes]
        array = zray.put(np.arange(200_000))
        self.equal(get(measure.remote(refs)), sizes)
        self.equal([len(value) for value in get(refs)], sizes)
        self.equal([int(get(array).sum())], [200_000 * 199_999 // 2])

    def calls(self) -> int:
        """How many were numbered."""
        return self.sequence.next + self.named.next + self.telling

    def finish(self) -> None:
        self.sequence.check()
        self.named.check()
        self._wake(len(self.sleepers))
        told = sorted(get(self.told.all.remote()))
        assert told == [*range(self.telling)], f"of {self.telling} calls by tasks: {told}"
        zray.kill(self.named.log)


def acknowledged(operation: Callable[[], Any]) -> Any:
    """A change that is asked for until it is answered: the cluster may be without a head."""
    deadline = time.monotonic() + 150
    while True:
        try:
            return operation()
        except HeadSilentError:
            if time.monotonic() > deadline:
                raise


class Clock(threading.Thread):
    """One thing after the other, and when each began and ended."""

    def __init__(self, path: Path, act: Callable[[int], object], pause_s: float) -> None:
        super().__init__(daemon=True)
        self._pause_s = pause_s
        self._file = path.open("w", buffering=1)
        self._act = act
        self.stopping = threading.Event()
        self.failure = ""

    def run(self) -> None:
        number = 0
        try:
            while not self.stopping.wait(self._pause_s):
                began = time.monotonic()
                self._act(number)
                self._file.write(f"{began:.4f} {time.monotonic():.4f}\n")
                number += 1
        except BaseException:
            self.failure = traceback.format_exc()
        finally:
            self._file.close()


def clocks(name: str, folder: Path, sequence: Sequence, pause_s: float) -> list[Clock]:
    def change(number: int) -> None:
        acknowledged(lambda: kv.put(f"{name}-clock".encode(), b"%d" % number))

    def task(number: int) -> None:
        assert get(square.remote(number)) == number * number

    acts: dict[str, Callable[[int], object]] = {
        "change": change,
        "task": task,
        "call": lambda _number: sequence.call(1),
    }
    return [Clock(folder / f"{name}-{what}", act, pause_s) for what, act in acts.items()]


def connect(name: str) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            zray.init(namespace=name)
            return
        except HeadConnectionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.2)


def main(name: str, folder: Path, how: set[str]) -> None:
    connect(name)
    traveller = None if "clocks" in how else Traveller(name, folder, "far" in how)
    sequence = Sequence(Log.remote())
    running = clocks(name, folder, sequence, PAUSE_S if traveller else OFTEN_S)
    for clock in running:
        clock.start()
    rounds = 0
    while not (folder / "stop").exists():
        if traveller:
            traveller.round()
        rounds += 1
        for clock in running:
            assert not clock.failure, clock.failure
        print(f"round {rounds}: {traveller.results if traveller else 0} right", flush=True)
        time.sleep(ROUND_S)
    for clock in running:
        clock.stopping.set()
    for clock in running:
        clock.join()
        assert not clock.failure, clock.failure
    sequence.check()
    if traveller:
        traveller.finish()
        summary = {
            "rounds": rounds,
            "results": traveller.results,
            "calls": traveller.calls() + sequence.next,
            "excused": dict(traveller.excused),
        }
        (folder / f"{name}.json").write_text(json.dumps(summary))
    zray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), {*sys.argv[3:]})
