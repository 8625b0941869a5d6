"""What simulated users do so that something is left behind when a process ends, or forgets.

Tasks that always crash, children whose parents are gone, references that a process drops in its
own time, several returns that a worker waits for. Owns no checker and no fault.
"""

from __future__ import annotations

from random import Random

from zray import limits
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import (
    Die,
    Get,
    Nested,
    Program,
    Ref,
    Returned,
    Sleep,
    TaskFailed,
)

CRASHES = ("ZR-3003", "ZR-3004")

# ---- tasks ---------------------------------------------------------------------------------


def abandons(context: TaskContext, seconds: float, child_s: float) -> Program:
    """Submits long children, and dies before they have ended."""
    for number in range(3):
        context.submit("add", [child_s, 0, number])
    yield Get(context.submit("add", [0.0, 0, 1], cpus=0))
    yield Sleep(seconds)
    yield Die()


def keep_briefly(context: TaskContext, seconds: float, kept_s: float, refs: list[Ref]) -> Program:
    """Keeps the references beyond its end, until another thread of its process drops them."""
    yield Sleep(seconds)
    process = context.process
    mine = [process.borrow(ref.oid) for ref in refs]
    process.references = [ref for ref in process.references if ref not in mine]

    def drop() -> None:
        for ref in mine:
            ref.drop()
        process.something_came()

    process.clock.after(kept_s, drop)
    return Returned(len(refs))


def gathers(context: TaskContext, seconds: float, size: int) -> Program:
    """The sum of several returns of each of its children."""
    refs = []
    for _ in range(3):
        refs += context.submit("numbers", [seconds, size], num_returns=4)
    yield Sleep(seconds)
    values = yield Get(refs)
    return Returned(sum(value.number for value in values))


def numbers(context: TaskContext, seconds: float, size: int) -> Program:
    """0, 1, 2, ... of some size each."""
    yield Sleep(seconds)
    return [Returned(index, size=size) for index in range(context.template.num_returns)]


TASKS = (abandons, keep_briefly, gathers, numbers)


# ---- drivers' programs ---------------------------------------------------------------------


def stubborn(driver: SimDriver, random: Random) -> Program:
    """Tasks that kill their workers again and again: each runs as often as it may, no more."""
    waiting: list[tuple[Ref, bool]] = []
    for _ in range(random.randint(2, 5)):
        retries = random.choice([0, 1, 1, 2, 3])
        times = random.choice([1, 2, 99])
        arguments = [random.choice([0.01, 0.2, 0.8]), times]
        refs = driver.submit("crashes", arguments, max_retries=retries)
        driver.expect(refs, 8)
        waiting.append((refs[0], times < 99))  # the ledger knows how often it may run
    refs = driver.submit("add", [1.5, 0, 4], max_retries=random.choice([0, 1]))
    driver.expect(refs, 4)
    waiting.append((refs[0], True))
    for ref, lives in waiting:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code not in CRASHES:
                raise
        else:
            assert lives, "a task that always kills its worker has a value"


def abandoning(driver: SimDriver, random: Random) -> Program:
    """Parents that die before their children have ended."""
    refs = []
    for _ in range(random.randint(1, 2)):
        arguments = [random.choice([0.01, 0.3]), 30.0]
        refs += driver.submit("abandons", arguments, max_retries=random.choice([0, 1]))
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code not in CRASHES:
                raise
    yield Sleep(random.uniform(0.0, 2.0))


def forgetful(driver: SimDriver, random: Random) -> Program:
    """References that processes keep for a while and drop while nothing else happens."""
    kept = []
    for number in range(random.randint(2, 6)):
        value = driver.put(number, size=random.choice([0, 2 * limits.INLINE_BYTES_MAX]))
        arguments = [random.choice([0.001, 0.1]), random.uniform(0.0, 1.5), Nested([value])]
        kept += driver.submit("keep_briefly", arguments)
        driver.expect(kept[-1:], 1)
        value.drop()
        yield Sleep(random.uniform(0.0, 0.5))
    yield Get(kept)


def gathering(driver: SimDriver, random: Random) -> Program:
    """Tasks with several returns, submitted by tasks."""
    size = random.choice([0, limits.INLINE_BYTES_MAX // 2, 2 * limits.INLINE_BYTES_MAX])
    refs = [driver.submit("gathers", [0.01, size])[0] for _ in range(random.randint(1, 4))]
    driver.expect(refs, *[18] * len(refs))
    yield Get(refs)


LOSS_WORKLOADS = (stubborn, abandoning, forgetful, gathering)
