"""``python -m tests.costs.fleet.driver ADDRESS TASK_S IN_FLIGHT SECONDS``: one driver of a fleet.

Says READY, waits for a line, keeps so many tasks in flight for so long, and then gets those that
are left. Its second line is JSON, an `Outcome`; it ends when its input does.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import NamedTuple

import zray

CHUNK = 64  # tasks that are submitted, and got, at a time


class Outcome(NamedTuple):
    """``in_time``: how many of the ``done`` had ended when no more were begun."""

    done: int
    in_time: int
    wrong: int
    began: float
    ended: float


def nap(seconds: float, number: int) -> int:
    """Where it runs on a real node; the fleet's workers do the same without a process."""
    time.sleep(seconds)
    return number


def drive(task_s: float, in_flight: int, seconds: float) -> Outcome:
    task = zray.remote(nap)
    waiting: deque[tuple[int, list[zray.ObjectRef[int]]]] = deque()
    chunk = min(CHUNK, in_flight)
    number = done = wrong = 0

    def get() -> None:
        nonlocal done, wrong
        first, refs = waiting.popleft()
        values = zray.get(refs)
        done += len(values)
        wrong += sum(value != first + place for place, value in enumerate(values))

    zray.get([task.remote(task_s, index) for index in range(in_flight)])  # nodes learn how long
    print("READY", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        while len(waiting) * chunk < in_flight:
            refs = [task.remote(task_s, index) for index in range(number, number + chunk)]
            waiting.append((number, refs))
            number += chunk
        get()
    in_time = done
    while waiting:
        get()
    return Outcome(done, in_time, wrong, began, time.monotonic())


def main(address: str, task_s: str, in_flight: str, seconds: str) -> None:
    with zray.init(address):
        outcome = drive(float(task_s), int(in_flight), float(seconds))
        print(json.dumps(outcome._asdict()), flush=True)
        sys.stdin.read()  # until what this process has used was looked at


if __name__ == "__main__":
    main(*sys.argv[1:])
