"""What simulated users do with actors: the programs of drivers, and tasks that call actors.

Values that do not depend on an actor's luck can be foretold and are; for the others it counts that
every observer sees the same. Owns no checker and no fault.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from random import Random
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import (
    Ask,
    Get,
    Nested,
    Program,
    Ref,
    Returned,
    Sleep,
    Step,
    TaskFailed,
)
from zray.testing.world.errors import ACTOR_DIED, ACTOR_UNAVAILABLE, RAISED

ENDED = (ACTOR_DIED, ACTOR_UNAVAILABLE)
GONE = (*ENDED, "ZR-3003", "ZR-3004", "ZR-3005", "ZR-3006")


def seconds_of(random: Random) -> float:
    """From 20 us to 0.5 s, most of it short."""
    return float(10 ** random.uniform(-4.7, -0.3))


def size_of(random: Random) -> int:
    """Nothing, small, or beyond what travels inline."""
    inline = limits.INLINE_BYTES_MAX
    return random.choice([0, 0, 0, 10, inline // 2, inline + 10, 3 * inline])


def gently(refs: Iterable[Ref], codes: tuple[str, ...] = GONE) -> Generator[Step, Any, list[Any]]:
    """The values, one after the other; None in place of one that was lost."""
    found: list[Any] = []
    for ref in refs:
        try:
            values = yield Get([ref])
        except TaskFailed as error:
            if error.code not in codes:
                raise
            found.append(None)
        else:
            found.append(values[0])
    return found


# ---- tasks that call actors ------------------------------------------------------------------


def calls_actor(context: TaskContext, seconds: float, handles: list[Ref], number: int) -> Program:
    """The sum of what actors say."""
    yield Sleep(seconds)
    refs = [context.process.call(h, "total", [0.0, 0, number])[0] for h in handles]
    values = yield Get(refs)
    return Returned(sum(value.number for value in values))


def leaves_call(context: TaskContext, seconds: float, handles: list[Ref], number: int) -> Program:
    """The reference of a call that has not been answered."""
    refs = context.process.call(handles[0], "total", [seconds, 0, number])
    yield Sleep(seconds / 3)
    return Returned(number, refs)


def makes_actor(context: TaskContext, seconds: float, number: int) -> Program:
    """The handle of an actor that ends with the worker of this task."""
    handle, _ = context.process.create("counter", [seconds, number])
    yield Sleep(seconds)
    yield Get(context.process.call(handle, "inc", [0.0, 1]))
    return Returned(number, [handle])


def cancels_call(context: TaskContext, seconds: float, refs: list[Ref]) -> Program:
    """Cancels what its submitter has called."""
    yield Sleep(seconds)
    context.process.cancel_call(refs[0])
    return Returned(0)


def cancels_task(context: TaskContext, seconds: float, refs: list[Ref], force: bool) -> Program:
    """Cancels what its submitter has submitted."""
    yield Sleep(seconds)
    context.process.cancel(refs[0], force=force, recursive=True)
    return Returned(0)


TASKS = (calls_actor, leaves_call, makes_actor, cancels_call, cancels_task)


# ---- drivers' programs -------------------------------------------------------------------------


def counting(driver: SimDriver, random: Random) -> Program:
    """A burst of calls, some of them large; whatever the actor counts rises."""
    seconds, several = seconds_of(random) / 5, random.random() < 0.3
    handle, _ = driver.create(
        "counter",
        [seconds_of(random), 0],
        cpus=random.choice([0, 0.5, 1]),
        holds=random.random() < 0.3,
        max_concurrency=3 if several else 1,
    )
    counts, echoes = [], []
    for number in range(random.choice([3, 10, 40])):
        counts += driver.call(handle, "inc", [seconds, 1])
        if random.random() < 0.5:
            filler = "x" * random.choice([0, 0, size_of(random)])
            size = size_of(random)
            echoes += driver.call(handle, "total", [seconds, size, number, filler])
            driver.expect(echoes[-1:], number + len(filler))
        if random.random() < 0.2:
            pair = driver.call(handle, "pair", [seconds, number], num_returns=2)
            driver.expect(pair, number, number + 1)
            pair[random.randrange(2)].drop()
        if random.random() < 0.1:
            yield Sleep(seconds_of(random))
        if random.random() < 0.1:
            counts.pop(random.randrange(len(counts))).drop()
    if random.random() < 0.3:
        handle.drop()
    values = yield Get(counts)
    numbers = [value.number for value in values]
    if numbers != sorted(set(numbers)) and not several:
        raise AssertionError(f"a counter went {numbers}")
    yield Get(echoes)


def arguments(driver: SimDriver, random: Random) -> Program:
    """Calls with references: own puts, results of tasks, and of calls that still run."""
    seconds = seconds_of(random) / 4
    first, _ = driver.create("counter", [seconds, 0, driver.put(1)])
    second, _ = driver.create("counter", [seconds, 0], max_concurrency=random.choice([1, 2]))
    refs = [driver.put(5, size=size_of(random))]
    driver.expect(refs, 5)
    for _ in range(random.randint(2, 10)):
        kind, part = random.random(), random.choice(refs)
        if kind < 0.3:
            new = driver.submit("add", [seconds, size_of(random), part, 1])
        elif kind < 0.6:
            new = driver.call(first, "total", [seconds, size_of(random), part, 1])
        elif kind < 0.8:
            new = driver.call(second, "total", [seconds, size_of(random), part, 1])
        else:
            new = driver.call(second, "look", [seconds, Nested([part])])
        plus = 0 if kind >= 0.8 else 1
        driver.expect(new, driver.witness.expected[part.oid] + plus)
        refs += new
    unwanted = [ref for ref in refs if random.random() < 0.3]
    for ref in unwanted:
        ref.drop()
    yield Get([ref for ref in refs if ref.live])


def keeping(driver: SimDriver, random: Random) -> Program:
    """An actor keeps references from its arguments and gives them back later."""
    seconds = seconds_of(random) / 4
    own = driver.put(7, size=size_of(random))
    if random.random() < 0.5:
        actor, _ = driver.create("keeper", [seconds, Nested([own])])
    else:
        actor, _ = driver.create("counter", [seconds, 0])
        driver.call(actor, "retain", [seconds, Nested([own])])
    task = driver.submit("add", [seconds, size_of(random), 8])
    call = driver.call(actor, "total", [seconds, size_of(random), 9])
    driver.call(actor, "retain", [seconds, Nested([*task, *call])])
    driver.expect([own, *task, *call], 7, 8, 9)
    for ref in (own, *task, *call):
        ref.drop()
    yield Sleep(random.choice([0.0, seconds, 1.0]))
    again = driver.call(actor, "give_back", [seconds, random.random() < 0.5])
    if random.random() < 0.3:
        passed = driver.submit("unpack", [seconds, again[0]])
        driver.expect(passed, 24)
    values = yield Get(again)
    if random.random() < 0.5:
        again[0].drop()
        actor.drop()
    inner = yield Get(values[0].refs)
    assert [value.number for value in inner] == [7, 8, 9], inner


def results(driver: SimDriver, random: Random) -> Program:
    """Results that contain references: to puts, to tasks that still run, to other calls."""
    seconds = seconds_of(random) / 4
    actor, _ = driver.create("counter", [seconds, 0])
    other, _ = driver.create("counter", [seconds, 0])
    stored = driver.call(actor, "store", [seconds, 3, size_of(random)])
    running = driver.call(actor, "delegate", [seconds, 4])
    asked = driver.call(actor, "ask_other", [seconds, 5, Nested([other]), False])
    waited = driver.call(actor, "ask_other", [seconds, 6, Nested([other]), True])
    driver.expect([*stored, *running, *asked, *waited], 3, 4, 5, 6)
    if random.random() < 0.5:
        actor.drop()
        other.drop()
    passed = driver.submit("unpack", [seconds, random.choice([*stored, *running, *asked])])
    values = yield Get([*stored, *running, *asked, *waited])
    inner = yield Get([ref for value in values for ref in value.refs])
    assert [value.number for value in inner] == [3, 4, 5], inner
    yield Get(passed)


def travelling(driver: SimDriver, random: Random) -> Program:
    """A handle goes with tasks, calls and values, and its first owner drops it."""
    seconds = seconds_of(random) / 4
    actor, _ = driver.create("counter", [seconds, 0])
    friend, _ = driver.create("keeper", [seconds, Nested([actor])])
    told = driver.submit("calls_actor", [seconds, Nested([actor]), 11])
    left = driver.submit("leaves_call", [seconds, Nested([actor]), 12])
    boxed = driver.put(0, [actor])
    asked = driver.call(friend, "ask_other", [seconds, 13, Nested([actor]), True])
    driver.expect([*told, *left, *asked], 11, 12, 13)
    actor.drop()
    yield Sleep(random.choice([0.0, seconds, 1.0]))
    way = random.random()
    if way < 0.3:
        values = yield Get([boxed])
    elif way < 0.6:
        values = yield Get(driver.call(friend, "give_back", [seconds, True]))
    else:
        values = yield Get(driver.call(friend, "introduce", [seconds]))
        friend.drop()
    boxed.drop()
    handle = values[0].refs[0]
    if random.random() < 0.5:
        yield Sleep(1.0)
    last = driver.call(handle, "total", [seconds, 0, 14])
    driver.expect(last, 14)
    handle.drop()
    values = yield Get([*told, *left, *asked, *last])
    inner = yield Get(values[1].refs)
    assert inner[0].number == 12


def named(driver: SimDriver, random: Random) -> Program:
    """Actors with names: looked up, asked for twice, killed, and the name used again."""
    seconds, name = seconds_of(random) / 4, random.choice(["one", "two"])
    detached = random.random() < 0.4
    for _ in range(random.randint(1, 3)):
        handle, until = driver.create(
            *("counter", [seconds, 0]),
            name=name,
            detached=detached,
            get_if_exists=random.random() < 0.6,
            max_restarts=random.choice([0, 2, -1]),
            max_task_retries=random.choice([0, -1]),
        )
        created = yield until
        if created.code:
            if created.code != "ZR-3405":
                raise AssertionError(f"the name was refused with {created}")
            handle.drop()
            found = yield driver.find(name)
            if found.info is None:
                continue
            handle = driver.found(found.actor_id)
        elif handle.oid[:16] != created.actor_id:
            handle.drop()
            handle = driver.found(created.actor_id)
        refs = [driver.call(handle, "total", [seconds, 0, n])[0] for n in range(3)]
        driver.expect(refs, 0, 1, 2)
        if random.random() < 0.3:
            yield Sleep(seconds)
        if random.random() < 0.6:
            yield driver.kill(handle)
        yield from gently(refs)
        if random.random() < 0.5:
            handle.drop()
            yield Sleep(seconds_of(random))


def killing(driver: SimDriver, random: Random) -> Program:
    """Kills with and without restart while calls are under way, and in the constructor."""
    seconds = seconds_of(random) / 3
    restarts = random.choice([0, 1, 3, -1])
    handle, _ = driver.create(
        *("counter", [seconds, 0]),
        max_restarts=restarts,
        max_task_retries=random.choice([0, 1, -1]),
    )
    refs = []
    for number in range(random.randint(3, 12)):
        refs += driver.call(handle, "total", [seconds / 3, 0, number])
        driver.expect(refs[-1:], number)
        if random.random() < 0.3:
            yield Sleep(seconds)
        if random.random() < 0.2:
            until = driver.kill(handle, no_restart=random.random() < 0.4)
            if random.random() < 0.7:
                yield until
    yield from gently(refs)


def crashing_actor(driver: SimDriver, random: Random) -> Program:
    """Methods that end the process or the actor, and constructors that do; restart budgets."""
    seconds = seconds_of(random) / 5
    restarts, retries = random.choice([0, 1, 3, -1]), random.choice([0, 1, 2])
    times = random.randint(1, 2)
    handle, _ = driver.create(
        *random.choice([("counter", [seconds, 0]), ("delicate", [seconds, times])]),
        max_restarts=restarts,
        max_task_retries=retries,
        max_concurrency=random.choice([1, 1, 4]),
    )
    refs = []
    for number in range(random.randint(3, 15)):
        kind = random.random()
        if kind < 0.15:
            refs += driver.call(handle, "crash", [seconds], retries=random.choice([0, 0, 1]))
        elif kind < 0.2:
            refs += driver.call(handle, "leave", [seconds], retries=0)
        elif kind < 0.3:
            refs += driver.call(handle, "fails", [seconds])
        else:
            refs += driver.call(handle, "total", [seconds, size_of(random), number])
            driver.expect(refs[-1:], number)
        if random.random() < 0.3:
            yield Sleep(random.choice([seconds, 0.2]))
    yield from gently(refs, (*GONE, RAISED))


def stillborn(driver: SimDriver, random: Random) -> Program:
    """Constructors that raise, or whose arguments fail."""
    seconds = seconds_of(random) / 3
    if random.random() < 0.5:
        handle, _ = driver.create("hopeless", [seconds], max_restarts=random.choice([0, 3]))
    else:
        failed = driver.submit("raises", [seconds])
        handle, _ = driver.create("counter", [seconds, 0, failed[0]])
    refs = driver.call(handle, "total", [0.0, 0, 1])
    if random.random() < 0.5:
        yield Sleep(seconds_of(random))
    refs += driver.call(handle, "total", [0.0, 0, 2])
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code != ACTOR_DIED:
                raise
        else:
            raise AssertionError("an actor that was never made has answered")


def families(driver: SimDriver, random: Random) -> Program:
    """Actors and tasks that make actors, which end with them."""
    seconds = seconds_of(random) / 4
    mother, _ = driver.create("parent", [seconds, 3], max_restarts=random.choice([0, 2]))
    values = yield from gently(driver.call(mother, "spawn", [seconds, 4]))
    made = yield from gently(driver.submit("makes_actor", [seconds, 5], max_retries=0))
    handles = [ref for value in (*values, *made) if value is not None for ref in value.refs]
    calls = [driver.call(h, "inc", [seconds, 1])[0] for h in handles]
    if random.random() < 0.5:
        yield Sleep(seconds)
    if random.random() < 0.5:
        yield driver.kill(mother)
    else:
        mother.drop()
    yield from gently(calls)
    yield from gently([driver.call(h, "total", [seconds, 0, 1])[0] for h in handles])


def cancelling_calls(driver: SimDriver, random: Random) -> Program:
    """Cancels of calls in every state, also of such as wait for an argument."""
    seconds = seconds_of(random) / 4
    handle, _ = driver.create("counter", [seconds, 0], max_concurrency=random.choice([1, 3]))
    slow = driver.submit("add", [random.choice([0.01, 1.0]), 0, 1])
    refs = []
    for number in range(random.randint(3, 12)):
        part = slow[0] if random.random() < 0.2 else 0
        refs += driver.call(handle, "total", [seconds, 0, number, part])
        if random.random() < 0.2:
            yield Sleep(seconds)
        if random.random() < 0.4:
            driver.cancel_call(random.choice(refs))
    yield from gently(refs, ("ZR-3002",))


def sharing(driver: SimDriver, random: Random) -> Program:
    """Two callers of one actor: this driver and tasks, and another driver by its name."""
    seconds, name = seconds_of(random) / 4, "shared"
    handle, until = driver.create(
        *("counter", [seconds, 0]), name=name, get_if_exists=True, detached=True, max_restarts=-1
    )
    created: m.ActorCreated = yield until
    if created is None:
        raise TaskFailed("stopped", driver.client.stopped)
    if handle.oid[:16] != created.actor_id:
        handle.drop()
        handle = driver.found(created.actor_id)
    refs: list[Ref] = []
    for number in range(random.randint(2, 6)):
        refs += driver.submit("calls_actor", [seconds, Nested([handle]), number])
        driver.expect(refs[-1:], number)
        refs += driver.call(handle, "inc", [seconds, 1])
    yield from gently(refs)
    if random.random() < 0.5:
        yield driver.kill(handle)


def end_named_actors(driver: SimDriver, random: Random) -> Program:
    """Ends what has a name and may outlive its maker."""
    listed: m.ActorNames = yield Ask(lambda seq: m.ListActors(seq, "", True))
    for _, name in listed.names:
        found: m.ActorFound = yield driver.find(name)
        if found.info is not None:
            yield driver.kill(driver.found(found.actor_id))


ACTOR_WORKLOADS = (
    *(counting, arguments, keeping, results, travelling, named, killing, crashing_actor),
    *(stillborn, families, cancelling_calls, sharing),
)
