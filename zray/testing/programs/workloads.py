"""What simulated users do: the functions that tasks run, and the programs of drivers.

Each value is a number that its submitter can foretell, so that a wrong one is noticed wherever it
shows up. Owns no checker and no fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.driver import SimDriver, Workload
from zray.testing.processes.steps import (
    Ask,
    Die,
    Fail,
    Get,
    Nested,
    Program,
    Ref,
    Returned,
    Sleep,
    TaskFailed,
    Value,
    Wait,
)
from zray.testing.programs import actor_workloads, loss_workloads, near_workloads
from zray.testing.world.errors import RAISED

# ---- functions -----------------------------------------------------------------------------


def add(context: TaskContext, seconds: float, size: int, *parts: Any) -> Program:
    """The sum of its arguments, after some work."""
    yield Sleep(seconds)
    total = sum(part.number if isinstance(part, Value) else part for part in parts)
    return Returned(total, size=size)


def nothing(context: TaskContext, seconds: float) -> Program:
    """No return value at all."""
    yield Sleep(seconds)
    return []


def several(context: TaskContext, seconds: float, first: int) -> Program:
    """As many values as were asked for: first, first + 1, ..."""
    yield Sleep(seconds)
    return [Returned(first + index) for index in range(context.template.num_returns)]


def tree(context: TaskContext, seconds: float, depth: int, width: int) -> Program:
    """The number of tasks in a tree, each of which waits for its children."""
    yield Sleep(seconds)
    if not depth:
        return Returned(1)
    children = [context.submit("tree", [seconds, depth - 1, width])[0] for _ in range(width)]
    values = yield Get(children)
    yield Sleep(seconds)
    return Returned(1 + sum(value.number for value in values))


def raises(context: TaskContext, seconds: float) -> Program:
    """An application error."""
    yield Sleep(seconds)
    yield Fail(covered=False)


def flaky(context: TaskContext, seconds: float, times: int) -> Program:
    """Raises an error that its retry_exceptions covers, the first so many times."""
    yield Sleep(seconds)
    if context.runs() <= times:
        yield Fail(covered=True)
    return Returned(7)


def crashes(context: TaskContext, seconds: float, times: int) -> Program:
    """Kills its worker, the first so many times."""
    yield Sleep(seconds)
    if context.runs() <= times:
        yield Die()
    return Returned(8)


def child_ref(context: TaskContext, seconds: float, number: int) -> Program:
    """A reference to a child's result that it has not waited for."""
    refs = context.submit("add", [seconds, 0, number])
    yield Sleep(seconds)
    return Returned(number, refs)


def put_ref(context: TaskContext, seconds: float, number: int, size: int) -> Program:
    """A reference to a value that it put, which refers to another one."""
    inner = context.process.put(number + 1)
    outer = context.process.put(number, [inner], size)
    yield Sleep(seconds)
    return Returned(number, [outer])


def keep(context: TaskContext, seconds: float, refs: list[Ref]) -> Program:
    """Keeps the references beyond its end, as a global variable does."""
    yield Sleep(seconds)
    context.process.kept += refs
    return Returned(len(refs))


def let_go(context: TaskContext, seconds: float) -> Program:
    """Looks at one thing that a task before it kept in this process, and lets everything go."""
    kept, context.process.kept = context.process.kept, []
    context.process.references += [ref for ref in kept if ref not in context.process.references]
    if kept:
        yield Get(kept[:1])
    yield Sleep(seconds)
    return Returned(0)


def pass_on(context: TaskContext, seconds: float, refs: list[Ref]) -> Program:
    """Gives the references it got to a child and waits for it."""
    children = context.submit("add", [seconds, 0, *refs])
    yield Sleep(seconds)
    values = yield Get(children)
    return Returned(values[0].number)


def unpack(context: TaskContext, seconds: float, value: Value) -> Program:
    """Gets what the references inside its argument's value stand for."""
    values = yield Get(value.refs)
    yield Sleep(seconds)
    return Returned(sum(inner.number for inner in values))


def asks(context: TaskContext, seconds: float) -> Program:
    """Stores and reads a key of its own."""
    key = b"task" + context.task_id
    yield Ask(lambda number: m.Kv(number, "put", key, b"value"))
    yield Sleep(seconds)
    answer = yield Ask(lambda number: m.Kv(number, "get", key))
    return Returned(len(answer.value))


def changes_mind(context: TaskContext, seconds: float) -> Program:
    """Cancels a child, and waits for another one."""
    unwanted = context.submit("add", [5.0, 0, 1])
    wanted = context.submit("add", [seconds, 0, 9])
    yield Sleep(seconds)
    context.process.cancel(unwanted[0], force=False)
    values = yield Get(wanted)
    return Returned(values[0].number)


FUNCTIONS: dict[str, Callable[..., Program]] = {
    function.__name__: function
    for function in (
        *(add, nothing, several, tree, raises, flaky, crashes, child_ref, put_ref, keep, let_go),
        *(pass_on, unpack, asks, changes_mind, *actor_workloads.TASKS, *loss_workloads.TASKS),
        *near_workloads.FUNCTIONS,
    )
}


# ---- drivers' programs ---------------------------------------------------------------------


def _seconds(random: Random) -> float:
    """From 20 us to 2 s, most of it short."""
    return float(10 ** random.uniform(-4.7, 0.3))


def _size(random: Random) -> int:
    """Nothing, small, or beyond what travels inline."""
    inline = limits.INLINE_BYTES_MAX
    return random.choice([0, 0, 0, 10, inline // 2, inline + 10, 3 * inline])


def fan_out(driver: SimDriver, random: Random) -> Program:
    """Many independent tasks, in one or two bursts."""
    seconds, retries = _seconds(random), random.choice([0, 3, 3])
    for _ in range(random.randint(1, 2)):
        refs = []
        for number in range(random.choice([3, 10, 40])):
            arguments = [seconds, _size(random), number, 1]
            refs += driver.submit("add", arguments, max_retries=retries)
            driver.expect(refs[-1:], number + 1)
            if random.random() < 0.1:
                refs.pop(random.randrange(len(refs))).drop()
        yield Get(refs)


def chain(driver: SimDriver, random: Random) -> Program:
    """Each task needs the one before; the references between are dropped."""
    seconds = _seconds(random)
    last = driver.submit("add", [seconds, _size(random), 1])
    for number in range(random.randint(2, 8)):
        following = driver.submit("add", [seconds, _size(random), last[0], 1])
        driver.expect(following, number + 2)
        last[0].drop()
        last = following
    yield Get(last)


def fan_in(driver: SimDriver, random: Random) -> Program:
    """A tree of sums over results."""
    leaves, seconds = random.randint(3, 12), _seconds(random)
    refs = [driver.submit("add", [seconds, _size(random), n])[0] for n in range(leaves)]
    total = driver.submit("add", [seconds, 0, *refs])
    driver.expect(total, sum(range(leaves)))
    if random.random() < 0.5:
        for ref in refs:
            ref.drop()
    yield Get(total)


def nested(driver: SimDriver, random: Random) -> Program:
    """Parents that block on their children."""
    depth, width = random.choice([(1, 5), (2, 2), (3, 1), (3, 2)])
    refs = driver.submit("tree", [_seconds(random) / 10, depth, width])
    driver.expect(refs, sum(width**level for level in range(depth + 1)))
    yield Get(refs)


def returns(driver: SimDriver, random: Random) -> Program:
    """Several return values, and none."""
    seconds = _seconds(random)
    for _ in range(random.randint(1, 4)):
        count = random.randint(2, 4)
        refs = driver.submit("several", [seconds, 5], num_returns=count)
        driver.expect(refs, *range(5, 5 + count))
        driver.submit("nothing", [seconds], num_returns=0)
        if random.random() < 0.5:
            refs.pop(random.randrange(count)).drop()
        if random.random() < 0.5:
            yield Get(refs)


def errors(driver: SimDriver, random: Random) -> Program:
    """Tasks that raise, that are retried, and that depend on a failed one."""
    seconds = _seconds(random)
    failed = driver.submit("raises", [seconds])
    after = driver.submit("add", [seconds, 0, failed[0], 1])
    times = random.randint(1, 3)
    flaky_refs = driver.submit("flaky", [seconds, times], max_retries=3)
    driver.expect(flaky_refs, 7)
    hopeless = driver.submit("flaky", [seconds, 1000], max_retries=1)
    for refs in (failed, after, hopeless):
        try:
            yield Get(refs)
        except TaskFailed as error:
            if error.code != RAISED:
                raise
        else:
            raise AssertionError("a task that raises has a value")
    yield Get(flaky_refs)


def crashing(driver: SimDriver, random: Random) -> Program:
    """Tasks that kill their workers, within and beyond their retries."""
    seconds = _seconds(random) / 10
    times = random.randint(1, 3)
    good = driver.submit("crashes", [seconds, times], max_retries=3)
    driver.expect(good, 8)
    bad = driver.submit("crashes", [seconds, 9], max_retries=random.choice([0, 1]))
    try:
        yield Get(bad)
    except TaskFailed as error:
        if error.code not in ("ZR-3003", "ZR-3004"):
            raise
    else:
        raise AssertionError("a task that always kills its worker has a value")
    yield Get(good)


def classes(driver: SimDriver, random: Random) -> Program:
    """Tasks that need GPUs, fractions and custom resources."""
    unit = limits.RESOURCE_UNIT
    wants: list[dict[str, int]] = [
        *({"GPU": unit}, {"GPU": unit // 2}, {"GPU": unit // 4}),
        *({"special": unit}, {"special": 1}, {}),
    ]
    refs = []
    for number in range(random.randint(3, 12)):
        arguments = [_seconds(random), 0, number]
        cpus, wanted = random.choice([0, 0.5, 1]), random.choice(wants)
        refs += driver.submit("add", arguments, cpus=cpus, resources=wanted)
        driver.expect(refs[-1:], number)
    yield Get(refs)


def puts(driver: SimDriver, random: Random) -> Program:
    """Values that are put, large arguments, and references dropped as soon as they were used."""
    seconds = _seconds(random)
    refs = []
    for number in range(random.randint(1, 5)):
        value = driver.put(number, size=_size(random))
        refs += driver.submit("add", [seconds, _size(random), value, 1])
        driver.expect(refs[-1:], number + 1)
        value.drop()
        filler = "x" * random.choice([1, limits.ARGUMENT_BYTES_MAX + 1])
        driver.submit("several", [seconds, 1], num_returns=2)
        refs += driver.submit("add", [seconds, 0, value_of(driver, filler), 3])
        driver.expect(refs[-1:], 3 + len(filler))
    yield Sleep(seconds)
    yield Get(refs)


def value_of(driver: SimDriver, filler: str) -> Ref:
    """A put value that is the length of a text."""
    return driver.put(len(filler), size=len(filler))


def borrowing(driver: SimDriver, random: Random) -> Program:
    """References inside arguments and results, kept and passed on, dropped at once here."""
    seconds = _seconds(random) / 4
    made = driver.submit("child_ref", [seconds, 11])
    stored = driver.submit("put_ref", [seconds, 20, _size(random)])
    mine = driver.put(30, size=_size(random))
    kept = driver.submit("keep", [seconds, Nested([mine, made[0]])])
    passed = driver.submit("pass_on", [seconds, Nested([mine])])
    unpacked = driver.submit("unpack", [seconds, made[0]])
    driver.expect([*made, *stored, *passed, *unpacked], 11, 20, 30, 11)
    if random.random() < 0.5:
        mine.drop()
    values = yield Get([*made, *stored])
    if random.random() < 0.5:
        made[0].drop()
        stored[0].drop()
    inner = yield Get([ref for value in values for ref in value.refs])
    assert [value.number for value in inner] == [11, 20], inner
    innermost = yield Get(inner[1].refs)
    assert innermost[0].number == 21
    driver.submit("let_go", [seconds])
    yield Get([*kept, *passed, *unpacked])


def impatient(driver: SimDriver, random: Random) -> Program:
    """Drops references at random times, most without ever looking."""
    refs = []
    for number in range(random.randint(5, 20)):
        refs += driver.submit("add", [_seconds(random), _size(random), number])
        driver.expect(refs[-1:], number)
        if random.random() < 0.3:
            yield Sleep(random.uniform(0.0, 0.2))
        while refs and random.random() < 0.5:
            refs.pop(random.randrange(len(refs))).drop()
    yield Get(refs)


def cancelling(driver: SimDriver, random: Random) -> Program:
    """A storm of cancels, soft and with force, of tasks in every state."""
    refs = []
    for number in range(random.randint(3, 15)):
        if random.random() < 0.2:
            refs += driver.submit("tree", [_seconds(random), 2, 2])
        else:
            refs += driver.submit("add", [_seconds(random), 0, number])
        if random.random() < 0.2:
            yield Sleep(random.uniform(0.0, 0.1))
    for ref in refs:
        if random.random() < 0.7:
            driver.cancel(ref, force=random.random() < 0.3)
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code not in ("ZR-3002",):
                raise


def patient(driver: SimDriver, random: Random) -> Program:
    """Waits with a timeout, again and again."""
    refs = [driver.submit("add", [_seconds(random), 0, n])[0] for n in range(8)]
    for n in range(50):
        if (yield Wait(refs, 0.2, whole=n % 2 == 1)) == len(refs):
            break
    yield Get(refs)


def asking(driver: SimDriver, random: Random) -> Program:
    """Requests to the head, from here and from a task."""
    key, seconds = driver.process_id + random.randbytes(4), _seconds(random)
    refs = driver.submit("asks", [seconds])
    driver.expect(refs, 5)
    for number in range(random.randint(1, 4)):
        value = str(number).encode()
        yield Ask(partial(_kv_put, key, value))
        answer = yield Ask(lambda seq: m.Kv(seq, "get", key))
        if not answer.found or answer.value != value:
            raise AssertionError(f"{answer} after {value!r} was put")
        yield Sleep(seconds)
    answer = yield Ask(lambda seq: m.Query(seq, m.WHY, [refs[0].oid]))
    assert len(answer.reasons) == 1
    yield Get(refs)


def _kv_put(key: bytes, value: bytes, seq: int) -> m.Message:
    return m.Kv(seq, "put", key, value)


def second_thoughts(driver: SimDriver, random: Random) -> Program:
    """Tasks that cancel what they submitted."""
    refs = driver.submit("changes_mind", [_seconds(random)])
    driver.expect(refs, 9)
    yield Get(refs)


WORKLOADS: tuple[Workload, ...] = (
    *(fan_out, chain, fan_in, nested, returns, errors, crashing, classes, puts, borrowing),
    *(impatient, cancelling, patient, asking, second_thoughts, *loss_workloads.LOSS_WORKLOADS),
)
