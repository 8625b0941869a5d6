"""Whole clusters under faults drawn from seeds: ZRAY_SIM_SEEDS of them, 300 by default."""

from __future__ import annotations

import os
from typing import Any

import pytest

from zray.protocol import codec, splitting
from zray.protocol.messages import (
    Announce,
    Calls,
    Done,
    Drop,
    Free,
    Hold,
    Message,
    Result,
    Submit,
    Tasks,
)
from zray.testing import simulate

SEEDS = int(os.environ.get("ZRAY_SIM_SEEDS", "300"))
CHUNK = 10
DRAINED_SEEDS = 20
# Seeds beyond the first ones that found something once.
PINNED = (
    873,
    984,
    1237,
    1361,
    1602,
    1656,
    3258,
    4324,
    4753,
    4799,
    6753,
    9136,
    9367,
    300674,
    303249,
    407874,
    700404,
    730768,
    8301050,
    8301325,
    8351201,
    8705420,
    8709985,
)


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


@pytest.mark.parametrize("first", range(0, DRAINED_SEEDS, CHUNK))
def test_seeds_in_which_nodes_are_drained(first: int) -> None:
    failures = [
        failure
        for seed in range(first, first + CHUNK)
        if (failure := simulate.try_seed(seed, drains=True)) is not None
    ]
    if failures:
        pytest.fail(failures[0].text, pytrace=False)


def test_drains_come_on_top_of_what_a_seed_has() -> None:
    for seed in range(50):
        plan = simulate.plan(seed)
        drained = simulate.with_drains(plan, seed)
        more = [fault for _, fault in drained.faults if fault in simulate.DRAINS]
        assert len(drained.faults) == len(plan.faults) + len(more) and more
        assert drained._replace(faults=plan.faults) == plan


def test_seeds_reach_what_they_are_for() -> None:
    """The draw covers every workload, every fault and every bound."""
    plans = [simulate.plan(seed) for seed in range(300)]
    assert {what.__name__ for plan in plans for _, _, what in plan.workloads} == {
        workload.__name__
        for workload in (
            *(*simulate.WORKLOADS, *simulate.ACTOR_WORKLOADS),
            *(*simulate.LEASE_WORKLOADS, *simulate.NEAR_WORKLOADS, *simulate.STREAM_WORKLOADS),
            *(*simulate.ITEM_WORKLOADS, *simulate.CLASS_WORKLOADS, *simulate.GROUP_WORKLOADS),
        )
    }
    assert {fault.__name__ for plan in plans for _, fault in plan.faults} == {
        fault.__name__
        for fault in (
            *(*simulate.GENTLE, *simulate.DEADLY, *simulate.FINAL),
            *(*simulate.LEASE_GENTLE, *simulate.LEASE_DEADLY),
            *(*simulate.FAR_GENTLE, *simulate.FAR_DEADLY),
        )
    }
    assert sum(1 for plan in plans if not plan.faults) > 10
    assert len({name for plan in plans for name in plan.bounds}) >= 8


def test_seeds_cut_what_they_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches become several payloads in almost every run, and messages become parts in most.

    Where tasks pass by the head, little may be sent to it at once.
    """
    cut: set[type[Message]] = set()
    several = whole = 0
    encode, cut_one = codec.encode, splitting.cut

    def counted(*args: Any) -> list[bytes]:
        nonlocal several
        payloads = encode(*args)
        several += len(payloads) > 1
        return payloads

    def noted(message: Message, pieces: int) -> list[Message]:
        parts = cut_one(message, pieces)
        if len(parts) > 1:
            cut.add(type(message))
        return parts

    monkeypatch.setattr(codec, "encode", counted)
    monkeypatch.setattr(splitting, "cut", noted)
    for seed in range(60):
        before = several
        simulate.simulate(seed)
        whole += several == before
    assert whole <= 4
    assert cut >= {Submit, Result, Tasks, Done, Hold, Drop, Free, Announce, Calls}
