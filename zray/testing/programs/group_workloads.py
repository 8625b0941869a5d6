"""Programs that reserve placement groups, run tasks and actors in them, and remove them."""

from __future__ import annotations

from functools import partial
from random import Random

from zray import limits
from zray.core import bundles
from zray.protocol import messages as m
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import Ask, Program, Ref, Sleep, Wait
from zray.testing.programs.actor_workloads import GONE, gently
from zray.testing.programs.class_workloads import ENDED
from zray.testing.world.errors import ACTOR_GROUP_GONE, GROUP_GONE

UNIT = limits.RESOURCE_UNIT
ALL_ENDS = (*ENDED, *GONE, GROUP_GONE, ACTOR_GROUP_GONE, "ZR-3001", "ZR-3005")


def _bundle(random: Random) -> m.Bundle:
    amounts = [("CPU", random.choice([UNIT // 2, UNIT, UNIT, 2 * UNIT]))]
    if random.random() < 0.1:
        amounts.append(("special", UNIT // 2))
    if random.random() < 0.1:
        amounts = [("GPU", random.choice([UNIT // 2, UNIT])), *amounts]
    labels = [("zone", random.choice(["a", "!a", "in(a, b)"]))] if random.random() < 0.2 else []
    return m.Bundle(sorted(amounts), labels)


def _create(
    driver: SimDriver, group_id: bytes, wanted: list[m.Bundle], strategy: int, seq: int
) -> m.Message:
    return m.CreateGroup(seq, group_id, driver.process_id, strategy, wanted)


def _ask(group_id: bytes, seq: int) -> m.Message:
    return m.AskGroups(seq, group_id)


def _remove(group_id: bytes, seq: int) -> m.Message:
    return m.RemoveGroup(seq, group_id)


def _in(group_id: bytes, index: int, amount: int) -> dict[str, int]:
    return dict(bundles.needed([("CPU", amount)] if amount else [], group_id, index))


def grouping(driver: SimDriver, random: Random) -> Program:
    """Groups one after the other, with tasks in their bundles, before and after these are there."""
    for _ in range(random.choice([1, 2, 5])):
        group_id = random.randbytes(16)
        wanted = [_bundle(random) for _ in range(random.choice([1, 1, 2, 3, 4]))]
        strategy = random.randrange(4)
        yield Ask(partial(_create, driver, group_id, wanted, strategy))
        refs = _run(driver, random, group_id, wanted)
        yield Wait(refs, random.choice([0.0, 0.1, 3.0]))
        if random.random() < 0.5:
            refs += _run(driver, random, group_id, wanted)
        if random.random() < 0.3:
            yield Ask(partial(_ask, group_id))
        yield Wait(refs, random.choice([0.001, 5.0]))
        yield Ask(partial(_remove, group_id))
        refs += _run(driver, random, group_id, wanted)
        yield from gently(refs, ALL_ENDS)


def _run(driver: SimDriver, random: Random, group_id: bytes, wanted: list[m.Bundle]) -> list[Ref]:
    refs: list[Ref] = []
    for number in range(random.choice([0, 1, 3, 8])):
        index = random.choice([bundles.ANY, random.randrange(len(wanted))])
        of = wanted[index if index != bundles.ANY else 0]
        amount = random.choice([0, min(dict(of.resources)["CPU"], UNIT // 2)])
        resources = _in(group_id, index, amount)
        seconds = random.choice([0.001, 0.05, 0.5])
        if random.random() < 0.2:
            handle, _ = driver.create(
                "counter", [seconds, number], cpus=0, resources=resources, holds=True
            )
            refs += driver.call(handle, "inc", [0.0, 1])
        elif random.random() < 0.2:
            refs += driver.submit("tree", [seconds, 1, 2], cpus=0, resources=resources)
        else:
            made = driver.submit("add", [seconds, 0, number], cpus=0, resources=resources)
            driver.expect(made, number)
            refs += made
    return refs


def holding(driver: SimDriver, random: Random) -> Program:
    """One group that stays while nodes go: what waits for it to be placed again runs at last."""
    group_id = random.randbytes(16)
    wanted = [m.Bundle([("CPU", UNIT // 2)]) for _ in range(random.choice([1, 2, 3]))]
    yield Ask(partial(_create, driver, group_id, wanted, bundles.SPREAD))
    refs: list[Ref] = []
    for _ in range(random.choice([2, 6])):
        for index in range(len(wanted)):
            made = driver.submit(
                *("add", [0.05, 0, index]), cpus=0, resources=_in(group_id, index, UNIT // 2)
            )
            driver.expect(made, index)
            refs += made
        yield Sleep(random.choice([0.01, 1.0, 10.0]))
    yield Wait(refs, 60.0)  # what is left of the cluster may not have room for it any more
    yield Ask(partial(_remove, group_id))
    yield from gently(refs, ALL_ENDS)


GROUP_WORKLOADS = (grouping, grouping, holding)
GROUP_RUTHLESS = ("grouping", "holding")
