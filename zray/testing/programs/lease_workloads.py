"""What simulated users do with many short tasks: such as workers are leased for.

Bursts, loops and pipelines of one class or several, with everything that a task may do among them.
Each begins with a few tasks one after the other, after which there mostly are leases. Owns no
checker and no fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from zray import limits
from zray.testing.processes.driver import SimDriver, Workload
from zray.testing.processes.steps import Get, Nested, Program, Ref, Sleep, TaskFailed, Wait
from zray.testing.programs.actor_workloads import gently
from zray.testing.world.errors import CANCELLED, RAISED

CRASHES = ("ZR-3003", "ZR-3004")


def _short(random: Random) -> float:
    """From 20 us to 10 ms, half of it so short that several go in one packet; seldom longer."""
    if random.random() < 0.05:
        return random.choice([0.05, 0.3])
    return float(10 ** random.uniform(-4.7, random.choice([-3.5, -2.0])))


def _pause(random: Random) -> float:
    """Shorter or longer than what ends an idle lease."""
    return random.choice([0.0, 0.001, 0.05, 0.15, 0.5])


def _burst(
    driver: SimDriver, seconds: float, count: int, size: int = 0, max_retries: int = 3
) -> list[Ref]:
    refs = []
    for number in range(count):
        refs += driver.submit("add", [seconds, size, number], max_retries=max_retries)
        driver.expect(refs[-1:], number)
    return refs


def _warm(driver: SimDriver, random: Random, seconds: float) -> Program:
    """The first goes by way of the head; some of the next by the lease that came of it."""
    for number in range(random.choice([1, 4, 8])):
        refs = driver.submit("add", [seconds, 0, number], max_retries=3)
        driver.expect(refs, number)
        yield Get(refs)
        refs[0].drop()


def bursts(driver: SimDriver, random: Random) -> Program:
    """Bursts of short tasks; between them leases may end, and some results are never looked at."""
    seconds = _short(random)
    retries = random.choice([0, 0, 3])
    for _ in range(random.randint(2, 5)):
        yield from _warm(driver, random, seconds)
        count = random.choice([1, 5, 20, 80])
        refs = _burst(driver, seconds, count, max_retries=retries)
        while random.random() < 0.3 and len(refs) > 1:
            refs.pop(random.randrange(len(refs))).drop()
        if random.random() < 0.3:
            yield Sleep(random.uniform(0.0, 0.05))
        yield Get(refs)
        for ref in refs:
            ref.drop()
        yield Sleep(_pause(random))


def loops(driver: SimDriver, random: Random) -> Program:
    """One task after the other, each waited for; now and then with the last result."""
    seconds = _short(random)
    last = driver.submit("add", [seconds, 0, 0], max_retries=0)
    total = 0
    for number in range(random.choice([10, 40])):
        yield Get(last)
        if random.random() < 0.3:
            following = driver.submit("add", [seconds, 0, last[0], number], max_retries=0)
            total += number
        else:
            following = driver.submit("add", [seconds, 0, number], max_retries=0)
            total = number
        driver.expect(following, total)
        last[0].drop()
        last = following
        if random.random() < 0.05:
            yield Sleep(_pause(random))
    yield Get(last)


def pipelines(driver: SimDriver, random: Random) -> Program:
    """Tasks whose arguments are results that are not there yet, of either way."""
    seconds = _short(random)
    yield from _warm(driver, random, seconds)
    ends = []
    for number in range(random.choice([3, 12])):
        last = driver.submit("add", [seconds, 0, number], max_retries=0)
        for step in range(random.randint(1, 4)):
            cpus = random.choice([1.0, 1.0, 1.0, 0.5, 0.0])
            following = driver.submit("add", [seconds, 0, last[0], 1], max_retries=0, cpus=cpus)
            driver.expect(following, number + step + 1)
            if random.random() < 0.7:
                last[0].drop()
            last = following
        ends += last
    yield Get(ends)


def mixtures(driver: SimDriver, random: Random) -> Program:
    """Classes with different needs at once, some with what there is only on one node."""
    seconds = _short(random)
    unit = limits.RESOURCE_UNIT
    yield from _warm(driver, random, seconds)
    refs = []
    for number in range(random.choice([10, 40])):
        cpus = random.choice([1.0, 1.0, 0.5, 0.25, 0.0])
        extra = {"special": 1} if random.random() < 0.1 else {}
        if random.random() < 0.05:
            extra = {"GPU": unit}
        arguments = [seconds, 0, number]
        refs += driver.submit("add", arguments, cpus=cpus, resources=extra, max_retries=0)
        driver.expect(refs[-1:], number)
        if random.random() < 0.1:
            yield Sleep(random.uniform(0.0, 0.02))
    yield Get(refs)


def stumbling(driver: SimDriver, random: Random) -> Program:
    """Tasks among the others that raise: covered by retries, beyond them, and not covered."""
    seconds = _short(random)
    yield from _warm(driver, random, seconds)
    good, bad = [], []
    for number in range(random.choice([10, 30])):
        chance = random.random()
        if chance < 0.2:
            times = random.randint(1, 3)
            good += driver.submit("flaky", [seconds, times], max_retries=random.choice([3, 5]))
            driver.expect(good[-1:], 7)
        elif chance < 0.3:
            bad += driver.submit("raises", [seconds])
        elif chance < 0.4:
            bad += driver.submit("flaky", [seconds, 1000], max_retries=random.choice([0, 1, 2]))
        elif chance < 0.5 and bad:
            bad += driver.submit("add", [seconds, 0, bad[-1], 1])
        else:
            good += driver.submit("add", [seconds, 0, number], max_retries=0)
            driver.expect(good[-1:], number)
    for ref in bad:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code != RAISED:
                raise
        else:
            raise AssertionError("a task that raises has a value")
    yield Get(good)


def deadly_bursts(driver: SimDriver, random: Random) -> Program:
    """Tasks among the others that kill their workers: nothing else fails for that."""
    seconds = _short(random)
    yield from _warm(driver, random, seconds)
    for _ in range(3):
        yield Get(driver.submit("crashes", [seconds, 0]))
    others, dying = [], []
    for number in range(random.choice([10, 40])):
        if random.random() < 0.15:
            retries, times = random.choice([0, 0, 1, 2]), random.choice([1, 1, 2, 99])
            ref = driver.submit("crashes", [seconds, times], max_retries=retries)[0]
            driver.expect([ref], 8)
            dying.append((ref, times <= retries))
        else:
            others += driver.submit("add", [seconds, 0, number], max_retries=random.choice([0, 3]))
            driver.expect(others[-1:], number)
    for ref, lives in dying:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code not in CRASHES:
                raise
        else:
            assert lives, "a task that kills its worker too often has a value"
    yield from gently(others)  # a fault may have killed them


def storms(driver: SimDriver, random: Random) -> Program:
    """Cancels of tasks in every place: here, in a queue, in a worker, running, ended."""
    seconds = random.choice([_short(random), 0.02, 0.2])
    yield from _warm(driver, random, min(seconds, 0.01))
    refs: list[Ref] = []
    for number in range(random.choice([5, 20, 60])):
        if random.random() < 0.1:
            refs += driver.submit("tree", [seconds / 10, 1, 2], max_retries=random.choice([0, 3]))
        else:
            refs += driver.submit("add", [seconds, 0, number], max_retries=random.choice([0, 3]))
            driver.expect(refs[-1:], number)
        if random.random() < 0.1:
            yield Sleep(random.uniform(0.0, 2 * seconds))
        if random.random() < 0.3:
            driver.cancel(random.choice(refs), force=random.random() < 0.3)
    yield Sleep(random.choice([0.0, seconds, 3 * seconds]))
    for ref in refs:
        if random.random() < 0.3:
            driver.cancel(ref, force=random.random() < 0.3)
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            if error.code not in (CANCELLED, *CRASHES):
                raise


def parcels(driver: SimDriver, random: Random) -> Program:
    """Large results and arguments: read here, given to others, lent, and dropped at once."""
    seconds = _short(random)
    size = random.choice([limits.INLINE_BYTES_MAX + 10, 3 * limits.INLINE_BYTES_MAX])
    yield from _warm(driver, random, seconds)
    for _ in range(random.randint(1, 3)):
        large = _burst(driver, seconds, random.choice([1, 4, 10]), size)
        if random.random() < 0.5:
            yield Wait(large, 0.2)
        sums = []
        for number, ref in enumerate(large):
            sums += driver.submit("add", [seconds, 0, ref, 1])
            driver.expect(sums[-1:], number + 1)
            sums += driver.submit("keep", [seconds, Nested([ref])])
            if random.random() < 0.3:
                ref.drop()
        several = driver.submit("numbers", [seconds, random.choice([0, size])], num_returns=3)
        driver.expect(several, 0, 1, 2)
        yield Get([*sums, *several])
        yield Get([ref for ref in large if ref.live and random.random() < 0.7])
        driver.submit("let_go", [seconds])
        yield Sleep(_pause(random))


def lending(driver: SimDriver, random: Random) -> Program:
    """References in arguments and results: kept by workers, passed on, dropped at once here."""
    seconds = _short(random)
    yield from _warm(driver, random, seconds)
    for number in range(random.randint(2, 8)):
        size = random.choice([0, 0, 3 * limits.INLINE_BYTES_MAX])
        mine = driver.put(30, size=size)
        made = driver.submit(random.choice(["child_ref", "child_ref"]), [seconds, 11])
        stored = driver.submit("put_ref", [seconds, 20, size])
        kept = driver.submit("keep", [seconds, Nested([mine, made[0], stored[0]])])
        passed = driver.submit("pass_on", [seconds, Nested([mine])])
        unpacked = driver.submit("unpack", [seconds, made[0]])
        driver.expect([*made, *stored, *kept, *passed, *unpacked], 11, 20, 3, 30, 11)
        if random.random() < 0.7:
            mine.drop()
        if random.random() < 0.5:
            values = yield Get([*made, *stored])
            if random.random() < 0.5:
                made[0].drop()
                stored[0].drop()
            if random.random() < 0.3:
                yield Sleep(_pause(random))
            inner = yield Get([ref for value in values for ref in value.refs])
            assert [value.number for value in inner] == [11, 20], inner
            inner[1].refs[0].drop()
        if random.random() < 0.5:
            driver.submit("let_go", [seconds])
        yield Get([*kept, *passed, *unpacked])
        if number % 3 == 2:
            yield Sleep(_pause(random))


def forests(driver: SimDriver, random: Random) -> Program:
    """Tasks that submit tasks and wait for them, among tasks that do not."""
    seconds = _short(random)
    for _ in range(5):
        yield Get(driver.submit("tree", [seconds / 2, 0, 0]))
    refs: list[Ref] = []
    for number in range(random.choice([3, 10])):
        depth, width = random.choice([(1, 3), (2, 2), (3, 1)])
        refs += driver.submit("tree", [seconds / 2, depth, width], max_retries=0)
        driver.expect(refs[-1:], sum(width**level for level in range(depth + 1)))
        refs += _burst(driver, seconds, random.choice([0, 2, 8]), max_retries=0)
        if number % 4 == 1:
            refs += driver.submit("gathers", [seconds, 0])
            driver.expect(refs[-1:], 18)
    yield Get(refs)


def restless(driver: SimDriver, random: Random) -> Program:
    """Submits and drops without ever waiting for all, functions coming and going."""
    names = ["add", "several", "nothing", "numbers", "asks"]
    refs: list[Ref] = []
    for number in range(random.choice([20, 60])):
        seconds = _short(random)
        name = random.choice(names)
        if name == "add":
            refs += driver.submit("add", [seconds, 0, number], max_retries=random.choice([0, 1, 2]))
            driver.expect(refs[-1:], number)
        elif name == "nothing":
            driver.submit("nothing", [seconds], num_returns=0)
        elif name == "asks":
            refs += driver.submit("asks", [seconds])
            driver.expect(refs[-1:], 5)
        else:
            arguments = [seconds, 0]
            refs += driver.submit(name, arguments, num_returns=random.choice([2, 3]))
        while refs and random.random() < 0.6:
            refs.pop(random.randrange(len(refs))).drop()
        if random.random() < 0.2:
            yield Sleep(_pause(random) * random.random())
        if refs and random.random() < 0.2:
            yield Get([random.choice(refs)])
    yield Get(refs)


def _names(workloads: Iterable[Workload]) -> set[str]:
    return {workload.__name__ for workload in workloads}


LEASE_WORKLOADS: tuple[Workload, ...] = (
    *(bursts, loops, pipelines, mixtures, stumbling, deadly_bursts, storms, parcels, lending),
    *(forests, restless),
)
LEASE_RUTHLESS = _names((deadly_bursts, storms))  # they end processes or tasks on purpose
