"""The loads whose costs are measured, each on a cluster of two CPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import zray


class Load(NamedTuple):
    """``run(count)`` does so many; ``own_s``: CPU time that each of them takes in user code."""

    title: str
    run: Callable[[int], None]
    count: int
    own_s: float = 0.0


def nothing() -> bytes:
    return b"ok"


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(300))  # the clock is a system call, so not all the time


@zray.remote
def calls_of_fibonacci(number: int) -> int:
    """How many tasks this one is, with those that it submits and waits for."""
    if number < 2:
        return 1
    return 1 + sum(zray.get([calls_of_fibonacci.remote(number - less) for less in (1, 2)]))


class Still:
    def ping(self) -> bytes:
        return b"ok"


def all_loads() -> dict[str, Load]:
    """By name; the first use of each starts workers, so warm them up."""
    noop = zray.remote(nothing)
    spin = zray.remote(busy)
    actors: list[Any] = []

    def sync(count: int) -> None:
        for _ in range(count):
            zray.get(noop.remote())

    def together(count: int) -> None:
        zray.get([noop.remote() for _ in range(count)])

    def spins(seconds: float) -> Callable[[int], None]:
        return lambda count: zray.get([spin.remote(seconds) for _ in range(count)]) and None

    def waits(count: int) -> None:
        refs = [noop.remote() for _ in range(count)]
        while refs:
            _, refs = zray.wait(refs)

    def nested(count: int) -> None:
        number, before, calls = 1, 1, 1
        while before + calls + 1 <= count:
            number, before, calls = number + 1, calls, before + calls + 1
        assert zray.get(calls_of_fibonacci.remote(number)) == calls

    def calls(count: int) -> None:
        if not actors:
            actors.append(zray.remote(Still).remote())
        still = actors[0]
        for _ in range(count):
            zray.get(still.ping.remote())

    return {
        "sync": Load("no-op tasks, one at a time", sync, 1500),
        "async": Load("no-op tasks, 10,000 in flight", together, 10_000),
        "1ms": Load("tasks of 1 ms, 2,000 in flight", spins(0.001), 2000, 0.001),
        "10ms": Load("tasks of 10 ms, 200 in flight", spins(0.010), 200, 0.010),
        "wait": Load("1,000 no-op tasks, then `wait` for one of those left", waits, 1000),
        "nested": Load("tasks that submit two and wait for them, 8,361 in all", nested, 8361),
        "actor": Load("calls of an actor, one at a time", calls, 3000),
    }
