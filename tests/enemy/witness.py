"""A driver whose every result is known; it works on beside the attacks, and names what is wrong.

``python -m tests.enemy.witness FOLDER``: a line for each round, until FOLDER/stop exists. Ends with
0 if all was right, else with 1 and the reason. Tasks without a retry and actors without a restart
may fail with the error of a process that has ended; nothing may hang, come wrong or run twice.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import zray
from zray.errors import ActorError, WorkerCrashedError

LIMIT_S = 150.0  # for any result: the machine is busy, but never for so long


@zray.task(max_retries=-1)
def square(number: int) -> int:
    return number * number


@zray.task(max_retries=-1)
def block(number: int, size: int) -> Any:
    return np.full(size, number)


@zray.task(max_retries=-1)
def ends(*blocks: Any) -> int:
    return sum(int(each[0]) + int(each[-1]) for each in blocks)


@zray.task(max_retries=-1)
def nested(number: int) -> int:
    return sum(zray.get([square.remote(number + k) for k in range(5)]))


@zray.task(max_retries=0)
def once(path: str, number: int) -> int:
    record = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    try:
        os.write(record, b"%d\n" % number)
    finally:
        os.close(record)
    return number


@zray.actor(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Echo:
    def of(self, value: Any) -> int:
        return int(value) + 1


@zray.actor(num_cpus=0)
class Count:
    def __init__(self) -> None:
        self.count = 0

    def up(self) -> int:
        self.count += 1
        return self.count


def get(what: Any) -> Any:
    return zray.get(what, timeout=LIMIT_S)


class Witness:
    def __init__(self, folder: Path) -> None:
        self.record = folder / "once"
        self.record.touch()
        self.chance = random.Random(1)
        self.echo = Echo.remote()
        self.count, self.counted = Count.remote(), 0
        self.next_once = 0
        self.results = 0
        self.excused: Counter[str] = Counter()

    def round(self) -> None:
        for part in (self.tasks, self.blocks, self.calls, self.onces, self.counts):
            part()

    def tasks(self) -> None:
        first = self.chance.randrange(1000)
        refs = [square.remote(first + k) for k in range(20)]
        deep = [nested.remote(first + k) for k in range(2)]
        left = list(refs)
        while left:
            ready, left = zray.wait(left, timeout=LIMIT_S)
            assert ready, f"{len(left)} of 20 tasks are not ready within {LIMIT_S:.0f} s"
        self.equal(get(refs), [(first + k) ** 2 for k in range(20)])
        expected = [sum((first + k + j) ** 2 for j in range(5)) for k in range(2)]
        self.equal(get(deep), expected)

    def blocks(self) -> None:
        """Large ones, which are lost with their node and made again."""
        first = self.chance.randrange(1000)
        made = [block.remote(first + k, 100_000) for k in range(4)]
        total = ends.remote(*made)
        self.equal(
            [int(each.sum()) for each in get(made)], [100_000 * (first + k) for k in range(4)]
        )
        self.equal([get(total)], [2 * (4 * first + 6)])

    def calls(self) -> None:
        numbers = [self.chance.randrange(1000) for _ in range(10)]
        refs = [self.echo.of.remote(square.remote(n) if n % 2 else n) for n in numbers]
        self.equal(get(refs), [n * n + 1 if n % 2 else n + 1 for n in numbers])

    def onces(self) -> None:
        numbers = range(self.next_once, self.next_once + 10)
        self.next_once += 10
        refs = [once.remote(str(self.record), number) for number in numbers]
        for number, ref in zip(numbers, refs, strict=True):
            try:
                self.equal([get(ref)], [number])
            except WorkerCrashedError as error:
                self.excused[type(error).__name__] += 1
        twice = [line for line, n in Counter(self.record.read_text().split()).items() if n > 1]
        assert not twice, f"ran twice without a retry: {twice}"

    def counts(self) -> None:
        refs = [self.count.up.remote() for _ in range(5)]
        for ref in refs:
            try:
                self.counted += 1
                self.equal([get(ref)], [self.counted])
            except ActorError as error:
                self.excused[type(error).__name__] += 1
                self.count, self.counted = Count.remote(), 0
                return

    def equal(self, found: list[Any], expected: list[Any]) -> None:
        assert found == expected, f"{found} instead of {expected}"
        self.results += len(found)


def main(folder: Path) -> None:
    zray.init()
    witness = Witness(folder)
    rounds = 0
    while not (folder / "stop").exists():
        witness.round()
        rounds += 1
        print(
            f"round {rounds}: {witness.results} right, excused {dict(witness.excused)}", flush=True
        )
    zray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
