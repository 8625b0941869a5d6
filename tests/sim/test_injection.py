"""Each handler of each machine fails once while work runs, and nobody sees anything of it.

What was lost with the message is told again in a new session. Only a worker whose own message could
not be handled ends, and its tasks with it. Nothing hangs, and nothing is left behind.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random
from typing import Any

import pytest

from zray.core.incidents import Incidents
from zray.protocol import messages as m
from zray.testing import simulate
from zray.testing.cluster import SimCluster
from zray.testing.world.errors import ACTOR_DIED, ACTOR_UNAVAILABLE, DEATHS, LOSSES, RAISED

SEEDS = range(8)


def leased_seeds() -> list[int]:
    """Those of the first ones in which most tasks go straight to workers."""
    plans = {seed: simulate.plan(seed) for seed in range(60)}
    return [
        seed
        for seed, plan in plans.items()
        if any(what in simulate.LEASE_WORKLOADS for _, _, what in plan.workloads)
    ]


LEASED_SEEDS = leased_seeds()[:8]


class Injected(Exception):
    """What a handler raises here, and nothing else does."""


class Tolerant(Incidents):
    """As in a daemon for what was injected and what follows from it; else as in the simulator."""

    def record(self, what: str, whom: str, error: BaseException, now: float) -> str:
        if "Injected" not in f"{type(error).__name__} {error}":
            raise error
        return super().record(what, whom, error, now)


def fail_once(table: dict[type[m.Message], Any], kind: type[m.Message], left: list[int]) -> None:
    """The call of the handler that brings ``left`` to 0 raises."""
    handler = table[kind]

    def failing(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Injected
        handler(*arguments)

    table[kind] = failing


def tables(cluster: SimCluster, where: str) -> list[dict[type[m.Message], Any]]:
    if where == "head":
        assert cluster.head is not None
        return [cluster.head.gcs.controller.handlers]
    machines = [raylet.raylet for raylet in cluster.raylets]
    if where == "raylet":
        return [raylet.session.handlers for raylet in machines]
    return [raylet.worker_handlers for raylet in machines]


def cases() -> list[Any]:
    with SimCluster(1) as cluster:
        found = [
            (where, kind)
            for where in ("head", "raylet", "worker")
            for kind in tables(cluster, where)[0]
        ]
    return [pytest.param(where, kind, id=f"{where}-{kind.__name__}") for where, kind in found]


@cache
def handled(seed: int) -> Counter[tuple[str, type[m.Message]]]:
    """How often each handler is called in this seed's plan if none of them fails."""
    drawn = simulate.plan(seed)._replace(faults=[])
    counts: Counter[tuple[str, type[m.Message]]] = Counter()

    def counted(key: tuple[str, type[m.Message]], handler: Any) -> Any:
        def call(*arguments: Any) -> None:
            counts[key] += 1
            handler(*arguments)

        return call

    with simulate.cluster_of(seed, drawn) as cluster:
        for where in ("head", "raylet", "worker"):
            for table in tables(cluster, where):
                for kind, handler in [*table.items()]:
                    table[kind] = counted((where, kind), handler)
        simulate.play(cluster, drawn)
    return counts


@pytest.mark.parametrize(("where", "kind"), cases())
def test_a_handler_fails_once(
    where: str, kind: type[m.Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zray.testing.processes.head.Fatal", Tolerant)
    monkeypatch.setattr("zray.testing.processes.raylet.Fatal", Tolerant)
    for seed in LEASED_SEEDS if kind in m.LEASE_MESSAGES else SEEDS:
        drawn = simulate.plan(seed)._replace(faults=[])
        left = [Random(seed).choice([1, 1, 2, 3, 5, 9])]
        if handled(seed)[where, kind] < left[0]:
            continue  # the run would be the one that was counted
        with simulate.cluster_of(seed, drawn) as cluster:
            for table in tables(cluster, where):
                fail_once(table, kind, left)
            if where == "worker":  # it is ended
                cluster.excuse(*DEATHS, *LOSSES, ACTOR_DIED, ACTOR_UNAVAILABLE, RAISED)
            simulate.play(cluster, drawn)
