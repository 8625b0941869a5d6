"""What programs do whose tasks submit tasks: recursion, results passed on, and what is cancelled.

Most of it starts where it was submitted, and the head does not hear of it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.driver import SimDriver, Workload
from zray.testing.processes.steps import (
    Ask,
    Die,
    Get,
    Nested,
    Program,
    Ref,
    Returned,
    Sleep,
    TaskFailed,
    Value,
)

CANCELLED = "ZR-3002"

# ---- functions -----------------------------------------------------------------------------


def calls(number: int) -> int:
    """How many tasks ``recursion`` is."""
    return 1 if number < 2 else 1 + calls(number - 1) + calls(number - 2)


def recursion(context: TaskContext, seconds: float, number: int) -> Program:
    """As Fibonacci's numbers: two tasks below each, of which one is larger."""
    yield Sleep(seconds)
    if number < 2:
        return Returned(1)
    refs = [context.submit("recursion", [seconds, number - less])[0] for less in (1, 2)]
    context.process.expect(refs, calls(number - 1), calls(number - 2))
    values = yield Get(refs)
    return Returned(1 + sum(value.number for value in values))


def sums(context: TaskContext, seconds: float, depth: int) -> Program:
    """Of a tree, each sum a task that depends on those below it, for which nobody waits here."""
    yield Sleep(seconds)
    if not depth:
        return Returned(1)
    parts = [context.submit("sums", [seconds, depth - 1])[0] for _ in range(2)]
    yield Sleep(seconds)
    refs = context.submit("add", [seconds, 0, 1, *parts])
    refs = context.submit("add", [seconds, 0, 0, *refs])
    values = yield Get(refs)
    return Returned(values[0].number)


def household(context: TaskContext, seconds: float, seedling: int, depth: int) -> Program:
    """Many kinds of tasks, some of them waited for, others not, with what becomes of their refs."""
    random = Random(seedling)
    awaited: list[Ref] = []
    for _ in range(random.randint(1, 6)):
        yield from _deed(context, seconds * random.random(), random, depth, awaited)
    kept = [ref for ref in awaited if random.random() < 0.8]
    for ref in awaited:
        if ref not in kept:
            ref.drop()
    yield Get(kept)
    passed = [ref for ref in kept if random.random() < 0.3]
    return Returned(seedling, passed, size=random.choice([0, 0, 2 * limits.INLINE_BYTES_MAX]))


def _deed(
    context: TaskContext, seconds: float, random: Random, depth: int, awaited: list[Ref]
) -> Program:
    process, chance = context.process, random.random()
    if chance < 0.15 and depth:
        seedling = random.randrange(1 << 30)
        refs = context.submit("household", [seconds, seedling, depth - 1])
        process.expect(refs, seedling)
    elif chance < 0.3:
        size = random.choice([0, 0, 3 * limits.INLINE_BYTES_MAX])
        refs = context.submit("add", [seconds, size, 4])
        process.expect(refs, 4)
    elif chance < 0.4:
        kind, number = random.choice([("flaky", 7), ("crashes", 8)])
        refs = context.submit(kind, [seconds, random.choice([0, 1, 2])], max_retries=3)
        process.expect(refs, number)
    elif chance < 0.5 and awaited:
        refs = context.submit("seen", [seconds, Nested([random.choice(awaited)])])
    elif chance < 0.6 and awaited:
        refs = context.submit("later", [seconds, random.choice(awaited)])
    elif chance < 0.65:
        refs = context.submit("child_ref", [seconds, 11])
        process.expect(refs, 11)
    elif chance < 0.7:
        context.submit("nothing", [seconds], num_returns=0)
        return
    elif chance < 0.75:
        refs = context.submit("several", [seconds, 5], num_returns=3)
        process.expect(refs, 5, 6, 7)
    elif chance < 0.8 and awaited:
        process.kept.append(random.choice(awaited))
        return
    elif chance < 0.85:
        yield from _taken_back(context, seconds, random)
        return
    elif chance < 0.9 and awaited:
        oid = random.choice(awaited).oid
        answer = yield Ask(lambda number: m.Query(number, m.WHY, [oid]))
        assert len(answer.reasons) == 1
        return
    elif chance < 0.95:
        yield Sleep(seconds * 3)
        return
    else:
        refs = [process.put(12, awaited[:2], random.choice([0, 3 * limits.INLINE_BYTES_MAX]))]
    awaited += refs


def _taken_back(context: TaskContext, seconds: float, random: Random) -> Program:
    """A task that is cancelled, with those below it."""
    refs = context.submit("recursion", [seconds + 0.5, random.choice([0, 2, 3])])
    yield Sleep(seconds * random.choice([0.0, 1.0, 3.0]))
    force, recursive = random.random() < 0.3, random.random() < 0.7
    context.process.cancel(refs[0], force=force, recursive=recursive)
    try:
        yield Get(refs)
    except TaskFailed as error:
        if error.code != CANCELLED:
            raise


def seen(context: TaskContext, seconds: float, refs: list[Ref]) -> Program:
    """Looks at what it was given references to, and may keep them."""
    values = yield Get(refs)
    yield Sleep(seconds)
    if values[0].number % 2:
        context.process.kept += refs
    return Returned(values[0].number, refs)


def later(context: TaskContext, seconds: float, value: Value) -> Program:
    """What it was given, as a result of its own."""
    yield Sleep(seconds)
    return Returned(value.number, value.refs)


def gives(context: TaskContext, seconds: float, number: int) -> Program:
    """So many tasks at once, and waits for them."""
    refs = [context.submit("add", [seconds, 0, 1])[0] for _ in range(number)]
    values = yield Get(refs)
    return Returned(sum(value.number for value in values))


def doomed(context: TaskContext, seconds: float, number: int) -> Program:
    """Ends its worker while tasks run that it has submitted."""
    refs = [context.submit("recursion", [seconds, 3])[0] for _ in range(number)]
    yield Sleep(seconds * number)
    if context.runs() < 2:
        yield Die()
    yield Get(refs)
    return Returned(number)


FUNCTIONS = (recursion, sums, household, seen, later, gives, doomed)

# ---- programs of drivers --------------------------------------------------------------------


def _seconds(random: Random) -> float:
    return random.choice([0.0001, 0.001, 0.01, 0.1]) * random.random()


def recursions(driver: SimDriver, random: Random) -> Program:
    """Several at once, or one after the other."""
    refs: list[Ref] = []
    for _ in range(random.randint(1, 4)):
        number = random.choice([2, 4, 6, 7])
        made = driver.submit("recursion", [_seconds(random), number])
        driver.expect(made, calls(number))
        if random.random() < 0.3:
            yield Get(made)
        refs += made
    depth = random.choice([1, 2, 3])
    refs += driver.submit("sums", [_seconds(random), depth])
    driver.expect(refs[-1:], sum(2**level for level in range(depth + 1)))
    yield Get(refs)


def households(driver: SimDriver, random: Random) -> Program:
    """Whatever tasks do with tasks."""
    refs: list[Ref] = []
    for _ in range(random.randint(1, 5)):
        seedling: Any = random.randrange(1 << 30)
        refs += driver.submit("household", [_seconds(random), seedling, 2])
        driver.expect(refs[-1:], seedling)
        if random.random() < 0.3:
            yield Sleep(_seconds(random))
        if random.random() < 0.2:
            refs.pop(random.randrange(len(refs))).drop()
    values = yield Get(refs)
    yield Get([ref for value in values for ref in value.refs])


def uprooted(driver: SimDriver, random: Random) -> Program:
    """Tasks that are cancelled with all that they have submitted."""
    refs: list[Ref] = []
    for _ in range(random.randint(2, 6)):
        name = random.choice(["recursion", "household"])
        last = [5] if name == "recursion" else [random.randrange(1 << 30), 2]
        refs += driver.submit(name, [_seconds(random), *last])
    yield Sleep(_seconds(random) * random.choice([0.0, 1.0, 10.0]))
    for ref in refs:
        if random.random() < 0.7:
            driver.cancel(ref, force=random.random() < 0.3, recursive=random.random() < 0.8)
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code != CANCELLED:
                raise


def mourned(driver: SimDriver, random: Random) -> Program:
    """Tasks that end their workers, and with them what they have submitted."""
    refs = [
        driver.submit("doomed", [_seconds(random), random.randint(1, 4)], max_retries=2)[0]
        for _ in range(random.randint(1, 3))
    ]
    yield Get(refs)


NEAR_WORKLOADS: tuple[Workload, ...] = (recursions, recursions, households, uprooted, mourned)
NEAR_RUTHLESS = {"uprooted", "mourned", "households"}  # they end processes or tasks on purpose
