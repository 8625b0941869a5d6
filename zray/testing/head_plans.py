"""Clusters with several heads under faults drawn from a seed; short, since there are many seeds."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from zray.testing.faults import (
    DEADLY,
    GENTLE,
    LEASE_DEADLY,
    LEASE_GENTLE,
    Fault,
    restart_head,
    usurp,
)
from zray.testing.head_faults import HEAD_FAULTS, HeadFault
from zray.testing.processes.driver import Workload
from zray.testing.programs.actor_workloads import ACTOR_WORKLOADS
from zray.testing.programs.group_workloads import GROUP_WORKLOADS
from zray.testing.programs.lease_workloads import LEASE_WORKLOADS
from zray.testing.programs.near_workloads import NEAR_WORKLOADS
from zray.testing.programs.stream_workloads import STREAM_WORKLOADS
from zray.testing.programs.workloads import WORKLOADS
from zray.testing.several_heads import SeveralHeads

BOUNDS: dict[str, Any] = {"PAYLOAD_BYTES_SOFT": 1000, "PAYLOAD_ITEMS_MAX": 20}
OFTEN = (*WORKLOADS, *ACTOR_WORKLOADS)
SELDOM = (*LEASE_WORKLOADS, *NEAR_WORKLOADS, *STREAM_WORKLOADS, *GROUP_WORKLOADS)
# What else goes wrong; heads are killed and replaced by faults of their own.
GENTLE_BESIDE = tuple(fault for fault in GENTLE if fault not in (restart_head, usurp))
BESIDE: tuple[Fault, ...] = (*GENTLE_BESIDE, *GENTLE_BESIDE, *DEADLY, *LEASE_GENTLE, *LEASE_DEADLY)


class HeadPlan(NamedTuple):
    """What a seed stands for."""

    nodes: list[dict[str, float]]
    drivers: int
    workloads: list[tuple[float, int, Workload]]  # when, which driver, what
    head_faults: list[tuple[float, HeadFault]]
    faults: list[tuple[float, Fault]]
    latency_s: float
    commit_s: float
    store_lost: float
    machines: int

    def in_words(self) -> str:
        """One line."""
        faults = [*self.head_faults, *self.faults]
        harm = ", ".join(f"{fault.__name__} at {when:.2f}" for when, fault in faults)
        work = ", ".join(f"{what.__name__} of d{who + 1}" for _, who, what in self.workloads)
        return f"{self.nodes}; {work}; faults: {harm or 'none'}"


def head_plan(seed: int) -> HeadPlan:
    """What to simulate for a seed."""
    random = Random(f"heads {seed}")
    nodes: list[dict[str, float]] = [
        {"CPU": random.choice([1, 2, 2])} for _ in range(random.choice([1, 1, 2]))
    ]
    nodes[0] |= {"GPU": 1, "special": 1}
    drivers = random.choice([1, 1, 2])
    span = random.choice([0.5, 2.0, 6.0])
    kinds = random.choice([OFTEN, OFTEN, OFTEN, SELDOM])
    workloads = [
        (random.uniform(0.0, span), random.randrange(drivers), random.choice(kinds))
        for _ in range(random.choice([1, 1, 2]))
    ]
    head_faults = [
        (random.uniform(0.0, span * 1.5), random.choice(HEAD_FAULTS))
        for _ in range(random.choice([1, 1, 2, 3]))
    ]
    if len(head_faults) > 1 and random.random() < 0.3:  # two at once
        head_faults[1] = (head_faults[0][0], head_faults[1][1])
    faults = [
        (random.uniform(0.0, span * 1.5), random.choice(BESIDE))
        for _ in range(random.choice([0, 0, 0, 1, 2]))
    ]
    return HeadPlan(
        *(nodes, drivers, workloads, head_faults, faults),
        *(random.choice([0.0001, 0.0005, 0.01]), random.choice([0.001, 0.005, 0.05])),
        *(random.choice([0.0, 0.0, 0.01, 0.05]), random.choice([0, 1])),
    )


def cluster_of(seed: int, plan: HeadPlan, heads: int, *, verbose: bool = False) -> SeveralHeads:
    """The cluster that a plan is for; nothing runs on it yet."""
    return SeveralHeads(
        seed,
        heads=heads,
        nodes=plan.nodes,
        drivers=plan.drivers,
        bounds=BOUNDS,
        latency_s=plan.latency_s,
        commit_s=plan.commit_s,
        store_lost=plan.store_lost,
        machines=plan.machines,
        verbose=verbose,
    )


def simulate_heads(seed: int, heads: int = 3, *, verbose: bool = False) -> str:
    """Run one seed; its trace.

    Raises:
        Violation: an invariant does not hold. Other exceptions are bugs of machines too.
    """
    plan = head_plan(seed)
    cluster = cluster_of(seed, plan, heads, verbose=verbose)
    try:
        with cluster:
            _play(cluster, plan)
    except Exception as error:
        story = "\n".join(cluster.clock.story)
        error.add_note(
            f"seed {seed}: {plan.in_words()}\nthe last events:\n{story}\n"
            f"replay: python -m zray.testing.simulate --heads {heads} --seed {seed} --verbose"
        )
        raise
    return cluster.trace()


def _play(cluster: SeveralHeads, plan: HeadPlan) -> None:
    random = Random(cluster.random.random())
    start = cluster.clock.now
    ends = [0.0]
    for when, driver, workload in plan.workloads:
        cluster.clock.at(start + when, cluster.run_if_alive, workload, driver)
        ends.append(when)
    for when, fault in (*plan.head_faults, *plan.faults):
        cluster.clock.at(start + when, fault, cluster, random)
        ends.append(when)
    cluster.run_for(max(ends) + 0.001)
    cluster.finish()
