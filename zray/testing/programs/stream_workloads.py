"""What simulated users do with generators: tasks and methods that yield, and how they are read.

Whoever reads sees each item once, in order, whatever happens to the worker, the node, the head or
the connections. Owns no checker and no fault.
"""

from __future__ import annotations

from collections.abc import Container, Generator
from random import Random
from typing import Any, NamedTuple

from zray import limits
from zray.core.client.waiters import Waiter
from zray.ids import task_of
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.processes.contexts import CallContext, TaskContext
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import (
    Die,
    Fail,
    Get,
    Program,
    Ref,
    Returned,
    Sleep,
    Step,
    TaskFailed,
    Until,
    Yield,
)
from zray.testing.programs.actor_workloads import gently
from zray.testing.world.errors import CANCELLED, LOSSES, RAISED

ENDS = (RAISED, CANCELLED, "ZR-3003", "ZR-3004", "ZR-3402", "ZR-3403")


class Read(NamedTuple):
    """What came of a generator: numbers, and the code of the error that it ended with."""

    numbers: list[int]
    code: str


def read(process: Caller, end: Ref, most: int = 1 << 30) -> Generator[Step, Any, Read]:
    """Steps: read the items of a task, ``most`` of them, and let go of the rest.

    ``end``: what the task itself returns.
    """
    streams, task_id = process.client.streams, task_of(end.oid)
    numbers: list[int] = []
    code = ""
    try:
        while len(numbers) < most and not code and not streams.is_over(task_id):
            oid = streams.take(task_id)
            if oid is None:
                yield from _come(process, streams.next_id(task_id))
                continue
            ref = Ref(process, oid)
            try:
                (value,) = yield Get([ref])
            except TaskFailed as error:
                code = error.code
            else:
                numbers.append(value.number)
                for inner in value.refs:
                    inner.drop()
            ref.drop()
    finally:
        streams.close(task_id)
    return Read(numbers, code)


def _come(process: Caller, oid: bytes) -> Program:
    answer: list[m.Message] = []
    waiter = Waiter(lambda: answer.append(m.Synced(0, 0)))
    process.client.want_outcome(oid, waiter)
    if waiter.remaining > 0:
        yield Until(waiter, answer)
    if process.client.stopped:
        raise TaskFailed("stopped", process.client.stopped)


# ---- tasks and methods ---------------------------------------------------------------------


def yields(
    context: TaskContext | CallContext, seconds: float, count: int, size: int, crash: int = 0
) -> Program:
    """0, 1, 2, ... of some size each; in the middle of its first attempts the process dies."""
    runs = context.runs() if isinstance(context, TaskContext) else crash + 1
    for number in range(count):
        if seconds:
            yield Sleep(seconds)
        if number == count // 2 and runs <= crash:
            yield Die()
        yield Yield(number, size=size)


def yields_references(context: TaskContext, seconds: float, count: int) -> Program:
    """The same with a reference in each, to a value of the worker's own."""
    for number in range(count):
        yield Sleep(seconds)
        ref = context.process.put(number, size=random_size(number))
        yield Yield(number, [ref])
        ref.drop()


def yields_and_raises(context: TaskContext, seconds: float, count: int, times: int) -> Program:
    """It raises at its end, the first so many times."""
    yield from yields(context, seconds, count, 0)
    if context.runs() <= times:
        yield Fail(covered=True)


def yields_less(context: TaskContext, count: int, size: int) -> Program:
    """The same, but two items less when it runs again."""
    less = 2 if context.runs() > 1 else 0
    yield from yields(context, 0.01, count - less, size)


def reads_child(context: TaskContext, seconds: float, count: int) -> Program:
    """How many items its child has yielded, which it reads."""
    (end,) = context.submit("yields", [seconds, count, 0], unread_max=count % 3)
    found = yield from read(context.process, end)
    if found.code:
        raise TaskFailed(found.code, "of the child")
    assert found.numbers == [*range(count)], found
    return Returned(len(found.numbers))


def random_size(number: int) -> int:
    """Small or large, of the number alone: each attempt yields the same."""
    return number % 3 and 2 * limits.INLINE_BYTES_MAX * (number % 2)


TASKS = (yields, yields_references, yields_and_raises, yields_less, reads_child)
STREAM_METHODS = (yields,)


# ---- drivers' programs ---------------------------------------------------------------------


def _count(random: Random) -> int:
    return random.choice([0, 1, 3, 10, 40])


def _pace(random: Random) -> float:
    return random.choice([0.0, 0.0, 0.0005, 0.01, 0.1])


def _size(random: Random) -> int:
    return random.choice([0, 0, 300, 2 * limits.INLINE_BYTES_MAX])


def _unread_max(random: Random) -> int:
    return random.choice([0, 0, 1, 2, 5])


def _checked(found: Read, count: int, most: int = 1 << 30, codes: Container[str] = ENDS) -> None:
    """Whatever was read is a beginning of what was yielded; without an error, all of it."""
    assert found.numbers == [*range(len(found.numbers))], f"items came as {found.numbers}"
    if not found.code:
        assert len(found.numbers) == min(count, most), f"{len(found.numbers)} of {count} items"
    elif found.code not in codes:
        raise TaskFailed(found.code, "of a generator")


def reading(driver: SimDriver, random: Random) -> Program:
    """Generators one after the other, read to their end or not."""
    for _ in range(random.randint(2, 5)):
        count, most = _count(random), random.choice([1 << 30, 1 << 30, 2])
        arguments = [_pace(random), count, _size(random)]
        (end,) = driver.submit("yields", arguments, unread_max=_unread_max(random))
        if random.random() < 0.2:
            yield Sleep(random.uniform(0.0, 0.5))
        found = yield from read(driver, end, most)
        end.drop()
        _checked(found, count, most)


def abandoned(driver: SimDriver, random: Random) -> Program:
    """Generators of which nobody reads anything; some of what they yield has references in it."""
    for _ in range(random.randint(1, 4)):
        count, pace = _count(random), _pace(random)
        if random.random() < 0.5:
            (end,) = driver.submit("yields_references", [pace, count], unread_max=0)
        else:
            (end,) = driver.submit("yields", [pace, count, _size(random)], unread_max=1)
        yield Sleep(random.choice([0.0, 0.05, 0.5]))
        driver.client.streams.close(task_of(end.oid))
        if random.random() < 0.5:
            yield Get([end])
        end.drop()


def yielding_references(driver: SimDriver, random: Random) -> Program:
    """Items with references in them."""
    count = _count(random)
    (end,) = driver.submit("yields_references", [_pace(random), count], unread_max=0)
    found = yield from read(driver, end)
    end.drop()
    _checked(found, count)


def crashing_generators(driver: SimDriver, random: Random) -> Program:
    """Their workers die, or they raise, and they run again: nothing is yielded twice."""
    for _ in range(random.randint(1, 3)):
        count, times = random.choice([4, 20]), random.choice([0, 1, 2])
        if random.random() < 0.5:
            arguments = [_pace(random), count, _size(random), times]
            (end,) = driver.submit("yields", arguments, max_retries=3, unread_max=0)
        else:
            arguments = [_pace(random), count, times]
            (end,) = driver.submit("yields_and_raises", arguments, max_retries=3, unread_max=2)
        found = yield from read(driver, end)
        end.drop()
        # A large item that the driver does not hold yet goes with its worker.
        _checked(found, count, codes=(*ENDS, *LOSSES))


def generator_methods(driver: SimDriver, random: Random) -> Program:
    """Calls that yield, of an actor that may be restarted or not."""
    handle, _ = driver.create(
        "counter",
        [0.0, 0],
        max_restarts=random.choice([0, -1]),
        max_task_retries=random.choice([0, -1]),
        max_concurrency=random.choice([1, 3]),
    )
    ends = []
    for _ in range(random.randint(1, 4)):
        count = _count(random)
        arguments = [_pace(random), count, _size(random)]
        (end,) = driver.call(handle, "yields", arguments, unread_max=_unread_max(random))
        ends.append((end, count))
    for end, count in ends:
        found = yield from read(driver, end)
        end.drop()
        _checked(found, count, codes=(*ENDS, *LOSSES))  # they are not made again


def reading_tasks(driver: SimDriver, random: Random) -> Program:
    """Tasks that read what their children yield."""
    refs = []
    for _ in range(random.randint(1, 4)):
        count = random.choice([1, 10])
        refs += driver.submit("reads_child", [_pace(random), count])
        driver.expect(refs[-1:], count)
    yield from gently(refs)


def keeping_items(driver: SimDriver, random: Random) -> Program:
    """Items of which nobody asks for a while, and what is made of some that are let go of."""
    count = random.choice([1, 5, 12])
    arguments = [_pace(random), count, random.choice([2 * limits.INLINE_BYTES_MAX, 300])]
    retries = random.choice([3, -1])
    (end,) = driver.submit("yields", arguments, max_retries=retries, unread_max=0)
    refs: list[Ref] = []
    streams, task_id = driver.client.streams, task_of(end.oid)
    while len(refs) < count and not driver.client.stopped:
        oid = streams.take(task_id)
        if oid is not None:
            refs.append(Ref(driver, oid))
            driver.expect(refs[-1:], len(refs) - 1)
        elif streams.is_over(task_id):
            break
        else:
            yield from _come(driver, streams.next_id(task_id))
    made = driver.submit("add", [0.01, random.choice([0, 5000]), *refs[:2]], max_retries=retries)
    while len(refs) > 1 and random.random() < 0.6:
        refs.pop(random.randrange(len(refs))).drop()
    yield Sleep(random.choice([0.0, 0.5, 5.0, 30.0]))
    yield from gently([*made, *refs], (*ENDS, *LOSSES))
    for ref in (*refs, *made, end):
        ref.drop()
    streams.close(task_id)


ITEM_WORKLOADS = (keeping_items,)
STREAM_WORKLOADS = (
    *(reading, abandoned, yielding_references, crashing_generators, generator_methods),
    reading_tasks,
)
STREAM_RUTHLESS = ("crashing_generators",)
