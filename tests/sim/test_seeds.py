"""Whole clusters under faults drawn from seeds: ZRAY_SIM_SEEDS of them, 300 by default."""

from __future__ import annotations

import os

import pytest

from zray.testing import simulate

SEEDS = int(os.environ.get("ZRAY_SIM_SEEDS", "300"))
CHUNK = 10
# Seeds beyond the first ones that found something once.
PINNED = (984, 1237, 1361, 1602, 3258, 4324, 4753, 4799, 6753)


@pytest.mark.slow_limit(300)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first: int) -> None:
    failures = [
        failure
        for seed in range(first, min(first + CHUNK, SEEDS))
        if (failure := simulate.try_seed(seed)) is not None
    ]
    if failures:
        seeds = [failure.seed for failure in failures]
        pytest.fail(f"seeds {seeds} fail; the first:\n{failures[0].text}", pytrace=False)


@pytest.mark.parametrize("seed", PINNED)
def test_pinned_seed(seed: int) -> None:
    failure = simulate.try_seed(seed)
    if failure is not None:
        pytest.fail(failure.text, pytrace=False)


def test_seeds_reach_what_they_are_for() -> None:
    """The draw covers every workload, every fault and every bound."""
    plans = [simulate.plan(seed) for seed in range(300)]
    assert {what.__name__ for plan in plans for _, _, what in plan.workloads} == {
        workload.__name__ for workload in simulate.WORKLOADS + simulate.ACTOR_WORKLOADS
    }
    assert {fault.__name__ for plan in plans for _, fault in plan.faults} == {
        fault.__name__ for fault in (*simulate.GENTLE, *simulate.DEADLY, *simulate.FINAL)
    }
    assert sum(1 for plan in plans if not plan.faults) > 10
    assert len({name for plan in plans for name in plan.bounds}) >= 8
