"""Clusters with several heads, drawn from seeds: ZRAY_SIM_HEAD_SEEDS of them, 500 by default."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from zray.testing import head_plans, simulate
from zray.testing.head_faults import HEAD_FAULTS
from zray.testing.head_plans import head_plan

SEEDS = int(os.environ.get("ZRAY_SIM_HEAD_SEEDS", "500"))
CHUNK = 20
# Seeds beyond the first ones that found something once, and how many heads they had.
PINNED = ((1875, 2), (21813, 2), (34575, 2))


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds_of_several_heads(first: int) -> None:
    failures = [
        failure
        for seed in range(first, min(first + CHUNK, SEEDS))
        if (failure := simulate.try_seed(seed, heads=2 + seed % 3)) is not None
    ]
    if failures:
        seeds = [failure.seed for failure in failures]
        pytest.fail(f"seeds {seeds} fail; the first:\n{failures[0].text}", pytrace=False)


@pytest.mark.parametrize(("seed", "heads"), PINNED)
def test_pinned_seed_of_several_heads(seed: int, heads: int) -> None:
    failure = simulate.try_seed(seed, heads=heads)
    if failure is not None:
        pytest.fail(failure.text, pytrace=False)


def test_one_seed_has_one_trace_under_two_hash_seeds() -> None:
    traces = []
    for hash_seed in ("1", "4242"):
        command = [sys.executable, "-m", "zray.testing.simulate", "--heads", "3", "--trace"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [*command, "--seeds", "4"], env=environment, capture_output=True, text=True, check=True
        )
        traces.append(done.stdout.splitlines()[:4])
    assert traces[0] == traces[1]


def test_seeds_reach_what_they_are_for() -> None:
    """The draw covers every fault of heads and store, most of the others, and every workload."""
    plans = [head_plan(seed) for seed in range(600)]
    drawn = {fault for plan in plans for _, fault in plan.head_faults}
    assert drawn == {*HEAD_FAULTS}
    assert {fault for plan in plans for _, fault in plan.faults} == {*head_plans.BESIDE}
    work = {what for plan in plans for _, _, what in plan.workloads}
    assert {*head_plans.OFTEN} <= work
    assert len(work & {*head_plans.SELDOM}) > len({*head_plans.SELDOM}) / 2
    at_once = [plan for plan in plans if len({when for when, _ in plan.head_faults}) == 1]
    assert any(len(plan.head_faults) > 1 for plan in at_once)


def test_a_failure_names_its_seed_and_its_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise AssertionError("broken on purpose")

    monkeypatch.setattr("zray.testing.several_heads.SeveralHeads.is_led", broken)
    assert simulate.main(["--heads", "2", "--seed", "5"]) == 1
    text = capsys.readouterr().out
    assert "broken on purpose" in text
    assert "replay: python -m zray.testing.simulate --heads 2 --seed 5 --verbose" in text
