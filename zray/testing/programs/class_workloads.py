"""Tasks that select nodes by labels, have environments, or use up their workers, and that cancel.

The node that has what is ``special`` is in the zone ``a``, all others are in ``b``. A worker
notices what is not for it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import Get, Nested, Program, Ref, Sleep
from zray.testing.programs.actor_workloads import GONE, gently

ENDED = ("ZR-3002", "ZR-3003", "ZR-3004")
ZONE_A = [("zone", "a")]
SELECTORS: tuple[list[list[tuple[str, str]]], ...] = (
    *([], [], [ZONE_A], [[("zone", "in(a, c)")]], [[("zone", "!b")]]),
    *([[("zone", "none")], ZONE_A], [[("zone", "b")], []]),
)


def _options(random: Random) -> dict[str, Any]:
    return {
        "labels": random.choice(SELECTORS),
        "environment": random.choice(["", "", "x", "built y", "built z"]),
        "max_calls": random.choice([0, 0, 1, 2]),
        "cpus": random.choice([1.0, 1.0, 0.5]),
    }


def classes(driver: SimDriver, random: Random) -> Program:
    """Tasks of many classes, one after the other and behind others; some are cancelled."""
    kinds = [_options(random) for _ in range(random.randint(1, 4))]
    seconds = random.choice([0.001, 0.01, 0.1])
    refs: list[Ref] = []
    cancels = random.random() < 0.3
    for number in range(random.choice([4, 12, 30])):
        before = [random.choice(refs)] if refs and not cancels and random.random() < 0.2 else []
        made = driver.submit("add", [seconds, 0, number], **random.choice(kinds))
        driver.expect(made, number)
        if before:
            driver.submit("add", [seconds, 0, 0, *before], **random.choice(kinds))
        refs += made
        if random.random() < 0.2:
            yield Sleep(seconds)
        if cancels and random.random() < 0.3:
            driver.cancel(random.choice(refs), force=random.random() < 0.4, recursive=True)
    if cancels:
        yield from gently(refs, ENDED)
    else:
        yield Get(refs)


def nested_classes(driver: SimDriver, random: Random) -> Program:
    """The same submitted by tasks, all of which may be cancelled with them."""
    kinds = [_options(random) for _ in range(2)]
    seconds = random.choice([0.001, 0.02])
    refs = [
        driver.submit("tree", [seconds, random.choice([1, 2]), 2], **random.choice(kinds))[0]
        for _ in range(random.randint(1, 3))
    ]
    held = driver.submit("keep", [seconds, Nested(refs[:1])], **random.choice(kinds))
    if random.random() < 0.6:
        yield Sleep(random.uniform(0.0, 20 * seconds))
        for ref in refs:
            driver.cancel(ref, force=random.random() < 0.4, recursive=True)
    yield from gently([*refs, *held], ENDED)


def cancelled_by_others(driver: SimDriver, random: Random) -> Program:
    """Tasks cancel tasks and calls of their submitter."""
    seconds = random.choice([0.001, 0.01, 0.1])
    actor, _ = driver.create("counter", [seconds, 0], max_concurrency=random.choice([1, 3]))
    refs: list[Ref] = []
    for number in range(random.randint(3, 12)):
        wait = random.choice([0.0, seconds, 4 * seconds])
        if random.random() < 0.5:
            made = driver.call(actor, "total", [seconds, 0, number])
            canceller: list[Any] = ["cancels_call", [wait, Nested(made)]]
        else:
            made = driver.submit("add", [seconds, 0, number], **random.choice([{}, {"cpus": 0.5}]))
            canceller = ["cancels_task", [wait, Nested(made), random.random() < 0.3]]
        driver.expect(made, number)
        if random.random() < 0.5:
            driver.submit(*canceller, cpus=random.choice([1.0, 0.0]))
        refs += made
    yield from gently(refs, (*ENDED, *GONE))


CLASS_WORKLOADS = (classes, nested_classes, cancelled_by_others)
