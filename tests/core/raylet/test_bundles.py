"""Bundles at a raylet: prepared, committed, used by tasks, given back."""

from __future__ import annotations

from typing import Any

from tests.core.benches import UNIT, RayletBench, identity, spec, template
from zray.core import bundles
from zray.core.raylet.gpus import Gpus
from zray.protocol import messages as m

GROUP = identity("group")
JOB = identity("job")


def reserve(bench: RayletBench, step: int, *parts: Any, number: int = 1) -> list[m.Reserved]:
    """A step for bundles, of which each is an index with amounts; what the raylet answers."""
    asked = [m.PlacedBundle(index, sorted(amounts.items())) for index, amounts in parts]
    bench.head(m.Reserve(0, GROUP, number, step, asked))
    return answers(bench)


def answers(bench: RayletBench) -> list[m.Reserved]:
    found = [one for one in bench.to_head if isinstance(one, m.Reserved)]
    bench.to_head.clear()
    return found


def free(bench: RayletBench, name: str) -> float:
    return bench.raylet.scheduler.free.get(name, 0) / UNIT


def test_a_prepared_bundle_takes_its_part_and_nobody_can_use_it() -> None:
    bench = RayletBench(cpus=4)
    (answer,) = reserve(bench, m.PREPARE, (0, {"CPU": UNIT}), (2, {"CPU": 2 * UNIT}))
    assert (answer.group_id, answer.round, answer.outcome) == (GROUP, 1, m.PREPARED)
    assert free(bench, "CPU") == 1
    assert bench.raylet.scheduler.total == {"CPU": 4 * UNIT}
    (again,) = reserve(bench, m.PREPARE, (0, {"CPU": UNIT}), number=2)
    assert again.outcome == m.PREPARED and free(bench, "CPU") == 1
    assert [(one.index, one.round) for one in bench.raylet.bundles.announced()] == [(0, 2), (2, 1)]


def test_all_that_is_asked_for_is_prepared_or_none() -> None:
    bench = RayletBench(cpus=2)
    (answer,) = reserve(bench, m.PREPARE, (0, {"CPU": UNIT}), (1, {"CPU": 2 * UNIT}))
    assert answer.outcome == m.UNPREPARED and "2 of 2 CPU free, needs 3" in answer.text
    assert free(bench, "CPU") == 2 and not bench.raylet.bundles.announced()


def test_a_committed_bundle_is_resources_of_its_own_until_it_is_released() -> None:
    bench = RayletBench(cpus=4)
    reserve(bench, m.PREPARE, (0, {"CPU": UNIT}), (1, {"CPU": UNIT}))
    reserve(bench, m.COMMIT, (0, {}), (1, {}))
    reserve(bench, m.COMMIT, (0, {}))  # once more
    assert free(bench, bundles.named("CPU", GROUP)) == 2
    assert free(bench, bundles.named("CPU", GROUP, 1)) == 1
    assert free(bench, bundles.named("bundle", GROUP, 0)) == 1000
    (answer,) = reserve(bench, m.RELEASE)
    assert answer.outcome == m.RELEASED
    assert bench.raylet.scheduler.total == bench.raylet.scheduler.free == {"CPU": 4 * UNIT}
    (again,) = reserve(bench, m.RELEASE)
    assert again.outcome == m.RELEASED


def test_a_release_of_a_round_leaves_what_is_committed() -> None:
    bench = RayletBench(cpus=4)
    reserve(bench, m.PREPARE, (0, {"CPU": UNIT}))
    reserve(bench, m.COMMIT, (0, {}))
    reserve(bench, m.PREPARE, (1, {"CPU": 2 * UNIT}), number=2)
    reserve(bench, m.RELEASE, (1, {}), number=2)
    assert [one.index for one in bench.raylet.bundles.announced()] == [0]
    assert free(bench, "CPU") == 3


def in_bundle(index: int, cpus: float = 1) -> m.Template:
    needed = bundles.needed([("CPU", int(cpus * UNIT))], GROUP, index)
    return template(f"in{index}", resources=[(name, much / UNIT) for name, much in needed])


def test_what_runs_in_a_released_group_is_killed_before_its_part_is_given_back() -> None:
    bench = RayletBench(cpus=2)
    reserve(bench, m.PREPARE, (0, {"CPU": UNIT}))
    reserve(bench, m.COMMIT, (0, {}))
    made_of = in_bundle(0)
    tasks = [m.Assignment(1, JOB, spec(name, made_of)) for name in ("runs", "waits")]
    bench.head(made_of, m.Tasks(0, tasks))
    slots = [slot for slot in bench.raylet.scheduler.workers.values() if slot.busy]
    assert len(slots) == 1 and free(bench, bundles.named("CPU", GROUP, 0)) == 0
    bench.to_head.clear()
    bench.head(m.Reserve(0, GROUP, 1, m.RELEASE, []))
    returned = [one for one in bench.to_head if isinstance(one, m.Returned)]
    assert [one.task_ids for one in returned] == [identity("waits")]
    assert not answers(bench) and free(bench, "CPU") == 1
    late = m.Assignment(1, JOB, spec("late", made_of))
    bench.head(m.Tasks(0, [late]))
    assert [one.task_ids for one in bench.to_head if isinstance(one, m.Returned)] == [
        identity("late")
    ]
    (refused,) = reserve(bench, m.PREPARE, (0, {"CPU": UNIT}), number=2)
    assert refused.outcome == m.UNPREPARED
    bench.raylet.worker_exited(slots[0].worker_id, 1, "killed", bench.now)
    bench.turn()
    (answer,) = answers(bench)
    assert answer.outcome == m.RELEASED
    assert free(bench, "CPU") == 2 and not any(bench.raylet.scheduler.queues.values())


def test_a_bundle_s_gpus_are_its_own() -> None:
    gpus = Gpus(2)
    whole = (("GPU", UNIT),)
    assert gpus.pick(whole) == ("", {0: UNIT})
    place = bundles.named("GPU", GROUP, 0)
    gpus.reserve(place, {0: UNIT})
    assert gpus.pick(whole) == ("", {1: UNIT})
    half = tuple(bundles.needed([("GPU", UNIT // 2)], GROUP, 0))
    found = gpus.pick(half)
    assert found == (place, {0: UNIT // 2})
    gpus.take(*found)
    anywhere = tuple(bundles.needed([("GPU", UNIT)], GROUP, bundles.ANY))
    assert gpus.pick(anywhere) is None
    gpus.give(*found)
    assert gpus.pick(anywhere) == (place, {0: UNIT})
    gpus.release(place, {0: UNIT})
    assert gpus.free == [UNIT, UNIT] and gpus.pick(half) is None
