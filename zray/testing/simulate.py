"""`python -m zray.testing.simulate`: simulate clusters with faults, seed after seed.

Everything about a run is drawn from its seed: nodes, drivers, workloads, bounds, faults. With
``--heads`` clusters have several heads and a store that these share (`head_plans`).
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from random import Random
from typing import Any, NamedTuple

from zray.testing.cluster import SimCluster
from zray.testing.faults import (
    DEADLY,
    DRAINS,
    FAR_DEADLY,
    FAR_GENTLE,
    FINAL,
    GENTLE,
    LEASE_DEADLY,
    LEASE_GENTLE,
    Fault,
)
from zray.testing.head_plans import simulate_heads
from zray.testing.processes.driver import Workload
from zray.testing.programs.actor_workloads import ACTOR_WORKLOADS
from zray.testing.programs.class_workloads import CLASS_WORKLOADS
from zray.testing.programs.group_workloads import GROUP_WORKLOADS
from zray.testing.programs.lease_workloads import LEASE_WORKLOADS
from zray.testing.programs.near_workloads import NEAR_WORKLOADS
from zray.testing.programs.stream_workloads import ITEM_WORKLOADS, STREAM_WORKLOADS
from zray.testing.programs.workloads import WORKLOADS

# Frames of 4 KiB, so that messages are cut in every run; what is never cut stays below that.
SMALL: dict[str, Any] = {
    "FRAME_BYTES_MAX": 4096,
    "PAYLOAD_BYTES_SOFT": 2048,
    "PAYLOAD_ITEMS_MAX": 100,
    "INLINE_BYTES_MAX": 1024,
    "INLINE_TOTAL_BYTES_MAX": 1536,
    "CHUNK_BYTES": 2048,
    "ARGUMENT_BYTES_MAX": 1024,
    "CALL_BYTES_MAX": 1024,
}

STREAM = 1159  # one with which the seeds that the tests name keep their plans

GENERATORS = 2730  # the same for what yields
ITEMS = 6  # for items that are kept while nodes go
GROUPS = 19  # and for placement groups
CLASSES = 444  # and for what has labels, environments and the like
IMPATIENCE = 1  # and for how soon actors are out of reach


class Plan(NamedTuple):
    """What a seed stands for."""

    nodes: list[dict[str, float]]
    drivers: int
    bounds: dict[str, Any]
    workloads: list[tuple[float, int, Workload]]  # when, which driver, what
    faults: list[tuple[float, Fault]]
    latency_s: float
    commit_s: float
    machines: int
    direct: float
    packets_max: int = 64
    stream_max: int = 0
    eager: bool = False

    def in_words(self) -> str:
        """One line."""
        faults = ", ".join(f"{fault.__name__} at {when:.2f}" for when, fault in self.faults)
        work = ", ".join(f"{what.__name__} of d{who + 1}" for _, who, what in self.workloads)
        return f"{self.nodes}; {work}; faults: {faults or 'none'}; bounds: {self.bounds}"


class Failure(NamedTuple):
    """A run that went wrong."""

    seed: int
    error: BaseException
    text: str


def plan(seed: int) -> Plan:
    """What to simulate for a seed."""
    random = Random(seed)
    nodes: list[dict[str, float]] = []
    for _ in range(random.choice([1, 2, 2, 3, 4])):
        nodes.append({"CPU": random.choice([1, 1, 2, 4])})
    nodes[0] |= {"GPU": random.choice([1, 2]), "special": 1}
    drivers = random.choice([1, 1, 2, 3])
    bounds: dict[str, Any] = dict(SMALL)
    if random.random() < 0.7:
        bounds["CHUNK_BYTES"] = random.choice([700, 2048])
        bounds["CHUNK_WINDOW"] = random.choice([1, 2, 8])
        bounds["ARGUMENT_BYTES_MAX"] = random.choice([300, 1024])
        bounds["CALL_BYTES_MAX"] = bounds["ARGUMENT_BYTES_MAX"]
    if random.random() < 0.3:
        bounds["HEAD_CACHE_BYTES"] = random.choice([0, 1000, 20_000])
    if random.random() < 0.3:
        # Not 1: a task could not submit while it is itself the one its worker has in flight.
        bounds["CLIENT_WINDOW_TASKS"] = random.choice([2, 3, 10])
    bounds["PAYLOAD_BYTES_SOFT"] = random.choice([200, 400, 1000])
    bounds["PAYLOAD_ITEMS_MAX"] = random.choice([2, 3, 5, 8])
    if random.random() < 0.3:
        bounds["DRAIN_MESSAGES_MAX"] = random.choice([1, 3])
    if random.random() < 0.2:
        bounds["RAYLET_UNSTARTED_TASKS"] = random.choice([4, 16])
    span = random.choice([0.5, 2.0, 8.0])
    kind = random.choice([WORKLOADS, ACTOR_WORKLOADS, WORKLOADS + ACTOR_WORKLOADS])
    workloads = [
        (random.uniform(0.0, span), random.randrange(drivers), random.choice(kind))
        for _ in range(random.randint(2, 6))
    ]
    kinds = list(GENTLE)
    if random.random() < 0.5:
        kinds += DEADLY
    if random.random() < 0.3:
        kinds += FINAL
    kinds = random.sample(kinds, random.randint(1, min(5, len(kinds))))
    faults = [
        (random.uniform(0.0, span * 2), random.choice(kinds))
        for _ in range(random.choice([0, 1, 2, 3, 6, 12]))
    ]
    latency_s = random.choice([0.0001, 0.0005, 0.01, 0.1])
    commit_s = random.choice([0.001, 0.005, 0.1])
    drawn = Plan(
        nodes,
        drivers,
        bounds,
        sorted(workloads, key=_when),
        sorted(faults, key=_when),
        latency_s,
        commit_s,
        random.choice([0, 1, 2]),
        random.choice([0.0, 0.5, 1.0, 1.0]),
    )
    drawn = with_leases(drawn, Random(f"{STREAM} leases {seed}"), span)
    drawn = with_far_nodes(drawn, Random(f"{STREAM} far {seed}"), span)
    drawn = with_nesting(drawn, Random(f"{STREAM} nesting {seed}"), span)
    drawn = with_generators(drawn, Random(f"{GENERATORS} generators {seed}"), span)
    drawn = with_kept_items(drawn, Random(f"{ITEMS} items {seed}"), span)
    drawn = with_classes(drawn, Random(f"{CLASSES} classes {seed}"), span)
    drawn = with_groups(drawn, Random(f"{GROUPS} groups {seed}"), span)
    return with_impatience(drawn, Random(f"{IMPATIENCE} impatience {seed}"))


def with_leases(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans everything is on one machine, and there is more that leases are made for.

    Drawn from a stream of its own: the other plans are what they were.
    """
    if random.random() < 0.6:
        return drawn
    workloads = [
        (random.uniform(0.0, span), random.randrange(drawn.drivers), random.choice(LEASE_WORKLOADS))
        for _ in range(random.choice([1, 1, 2, 2, 4]))
    ]
    kinds = [*LEASE_GENTLE]
    if random.random() < 0.5:
        kinds += LEASE_DEADLY
    faults = [
        (random.uniform(0.0, span * 2), random.choice(kinds))
        for _ in range(random.choice([0, 0, 1, 2, 4, 8]))
    ]
    if random.random() < 0.7:
        drawn = drawn._replace(workloads=[], faults=random.choice([[], drawn.faults]))
    nodes: list[dict[str, float]] = [
        {"CPU": random.choice([1, 2, 4, 8])} for _ in range(random.choice([1, 1, 2, 3]))
    ]
    nodes[0] |= {"GPU": 1, "special": 1}
    bounds = {
        **drawn.bounds,
        "PAYLOAD_BYTES_SOFT": random.choice([200, 400, 400]),
        "PAYLOAD_ITEMS_MAX": random.choice([2, 8, 50, 50]),
        "LEASE_TASK_BYTES_MAX": random.choice([500, 1500, 1500]),
    }
    drawn = drawn._replace(
        nodes=nodes,
        bounds=bounds,
        latency_s=random.choice([0.0001, 0.0003, 0.001, 0.001, drawn.latency_s]),
        workloads=sorted([*drawn.workloads, *workloads], key=_when),
        faults=sorted([*drawn.faults, *faults], key=_when),
        machines=1,
        direct=random.choice([0.5, 1.0, 1.0, 1.0]),
        packets_max=random.choice([1, 3, 64, 64]),
        stream_max=random.choice([0, 0, 1, 5]),
        eager=random.random() < 0.7,
    )
    if random.random() < 0.4:  # leases that come and go
        bounds["LEASE_IDLE_S"] = random.choice([0.0005, 0.005])
        bounds["LEASE_PAUSE_S"] = random.choice([0.001, 0.01, 0.1])
        bounds["LEASE_CONNECT_S"] = random.choice([0.0001, 0.005, 1.0])
        bounds["CANCEL_GRACE_S"] = random.choice([0.01, 5.0])
        bounds["LEASE_BAR_S"] = random.choice([0.05, 10.0])
        bounds["LEASE_FUNCTIONS_MAX"] = random.choice([1, 2, 256])
    return drawn


def with_far_nodes(drawn: Plan, random: Random, span: float) -> Plan:
    """In half of those plans in which everything is on one machine there are several after all."""
    if drawn.machines != 1 or random.random() < 0.5:
        return drawn
    kinds = [*FAR_GENTLE]
    if random.random() < 0.5:
        kinds += FAR_DEADLY
    faults = [
        (random.uniform(0.0, span * 2), random.choice(kinds))
        for _ in range(random.choice([0, 0, 1, 2, 4, 8]))
    ]
    small = random.choice([None, 100, 1000])
    bounds = drawn.bounds if small is None else {**drawn.bounds, "LEASE_WORD_BYTES_MAX": small}
    if random.random() < 0.3:
        bounds = {**bounds, "LEASE_SAID_BYTES_MAX": 3000, "LEASE_ACK_BYTES": 1000}
    return drawn._replace(
        faults=sorted([*drawn.faults, *faults], key=_when),
        bounds=bounds,
        machines=random.choice([0, 2, 3]),
    )


def with_nesting(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans there is more that tasks submit. From a stream of its own, too."""
    if random.random() < 0.7:
        return drawn
    workloads = [
        (random.uniform(0.0, span), random.randrange(drawn.drivers), random.choice(NEAR_WORKLOADS))
        for _ in range(random.choice([1, 1, 2, 3]))
    ]
    if random.random() < 0.5:
        drawn = drawn._replace(workloads=[])
    bounds = {
        **drawn.bounds,
        "NEAR_TASKS": random.choice([1, 5, 1024, 1024]),
        "NEAR_WAIT_S": random.choice([0.0005, 0.01, 0.1]),
        "NEAR_REPORT_S": random.choice([0.0001, 0.02]),
    }
    workloads = sorted([*drawn.workloads, *workloads], key=_when)
    return drawn._replace(bounds=bounds, workloads=workloads)


def with_generators(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans there are tasks and calls that yield. From a stream of its own, too."""
    if random.random() < 0.7:
        return drawn
    workloads: list[tuple[float, int, Workload]] = [
        (
            random.uniform(0.0, span),
            random.randrange(drawn.drivers),
            random.choice(STREAM_WORKLOADS),
        )
        for _ in range(random.choice([1, 2, 2, 4]))
    ]
    if random.random() < 0.5:
        drawn = drawn._replace(workloads=[])
    bounds = {
        **drawn.bounds,
        "STREAM_DELAY_S": random.choice([0.0, 0.001, 0.02]),
        "STREAM_KEPT_ITEMS": random.choice([1, 5, 10_000, 10_000]),
        "STREAM_SEND_BYTES": random.choice([100, 2000]),
        "STREAM_AGAIN_S": random.choice([0.05, 1.0, 1.0]),
    }
    workloads = sorted([*drawn.workloads, *workloads], key=_when)
    return drawn._replace(bounds=bounds, workloads=workloads)


def with_kept_items(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans items are kept while nodes die. From a stream of its own, too."""
    if random.random() < 0.9:
        return drawn
    workloads: list[tuple[float, int, Workload]] = [
        (random.uniform(0.0, span), random.randrange(drawn.drivers), random.choice(ITEM_WORKLOADS))
        for _ in range(random.choice([1, 2, 4]))
    ]
    kinds = random.choice([DEADLY, (*GENTLE, *DEADLY), (*FAR_DEADLY, *LEASE_DEADLY, *DEADLY)])
    faults = [
        (random.uniform(0.0, span * 2), random.choice(kinds))
        for _ in range(random.choice([1, 2, 4, 8]))
    ]
    if random.random() < 0.7:
        drawn = drawn._replace(workloads=[], faults=[])
    return drawn._replace(
        workloads=sorted([*drawn.workloads, *workloads], key=_when),
        faults=sorted([*drawn.faults, *faults], key=_when),
    )


def with_classes(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans tasks select nodes, have environments, use up workers, or cancel others."""
    if random.random() < 0.8:
        return drawn
    workloads: list[tuple[float, int, Workload]] = [
        (random.uniform(0.0, span), random.randrange(drawn.drivers), random.choice(CLASS_WORKLOADS))
        for _ in range(random.choice([1, 2, 3]))
    ]
    if random.random() < 0.5:
        drawn = drawn._replace(workloads=[])
    return drawn._replace(workloads=sorted([*drawn.workloads, *workloads], key=_when))


def with_groups(drawn: Plan, random: Random, span: float) -> Plan:
    """In some plans there are placement groups, mostly while nodes and heads come and go."""
    if random.random() < 0.8:
        return drawn
    workloads: list[tuple[float, int, Workload]] = [
        (random.uniform(0.0, span), random.randrange(drawn.drivers), random.choice(GROUP_WORKLOADS))
        for _ in range(random.choice([1, 2, 4]))
    ]
    kinds = random.choice([GENTLE, DEADLY, (*GENTLE, *DEADLY)])
    faults = [
        (random.uniform(0.0, span * 2), random.choice(kinds))
        for _ in range(random.choice([0, 1, 2, 4]))
    ]
    if random.random() < 0.5:
        drawn = drawn._replace(workloads=[])
    return drawn._replace(
        workloads=sorted([*drawn.workloads, *workloads], key=_when),
        faults=sorted([*drawn.faults, *faults], key=_when),
    )


def with_impatience(drawn: Plan, random: Random) -> Plan:
    """In some plans the actors of a node are out of reach when it has said little for a moment."""
    if random.random() < 0.7:
        return drawn
    return drawn._replace(bounds={**drawn.bounds, "AWAY_S": random.choice([2.3, 4.0])})


def with_drains(drawn: Plan, seed: int) -> Plan:
    """The plan of that seed, in which nodes are drained as well: how it is drawn is as it was."""
    random = Random(f"drains {seed}")
    span = max(entry[0] for entry in drawn.workloads)
    faults = [
        (random.uniform(0.0, span * 1.5 + 0.1), random.choice(DRAINS))
        for _ in range(random.choice([1, 1, 2, 4]))
    ]
    return drawn._replace(faults=sorted([*drawn.faults, *faults], key=_when))


def _when(entry: tuple[Any, ...]) -> float:
    when: float = entry[0]
    return when


def cluster_of(seed: int, drawn: Plan, *, verbose: bool = False) -> SimCluster:
    """The cluster that a plan is for; nothing runs on it yet."""
    return SimCluster(
        seed,
        nodes=drawn.nodes,
        drivers=drawn.drivers,
        bounds=drawn.bounds,
        latency_s=drawn.latency_s,
        commit_s=drawn.commit_s,
        machines=drawn.machines,
        direct=drawn.direct,
        packets_max=drawn.packets_max,
        stream_max=drawn.stream_max,
        eager=drawn.eager,
        verbose=verbose,
    )


def simulate(seed: int, *, verbose: bool = False, drains: bool = False) -> str:
    """Run one seed; its trace. ``drains``: nodes are drained as well.

    Raises:
        Violation: an invariant does not hold. Other exceptions are bugs of machines too.
    """
    drawn = with_drains(plan(seed), seed) if drains else plan(seed)
    cluster = cluster_of(seed, drawn, verbose=verbose)
    try:
        with cluster:
            play(cluster, drawn)
    except Exception as error:
        error.add_note(report(seed, drawn, cluster) + (" --drains" if drains else ""))
        raise
    return cluster.trace()


def play(cluster: SimCluster, drawn: Plan) -> None:
    """Run a plan's workloads and faults to their end, and check what is left."""
    random = Random(cluster.random.random())
    start = cluster.clock.now
    for when, driver, workload in drawn.workloads:
        cluster.clock.at(start + when, cluster.run_if_alive, workload, driver)
    for when, fault in drawn.faults:
        cluster.clock.at(start + when, fault, cluster, random)
    ends = [entry[0] for entry in drawn.workloads] + [entry[0] for entry in drawn.faults]
    cluster.run_for(max(ends) + 0.001)
    cluster.finish()


def report(seed: int, drawn: Plan, cluster: SimCluster) -> str:
    """What to know of a failure: the seed, how to replay it, and the last events."""
    story = "\n".join(cluster.clock.story)
    return (
        f"seed {seed}: {drawn.in_words()}\nthe last events:\n{story}\n"
        f"replay: python -m zray.testing.simulate --seed {seed} --verbose"
    )


def try_seed(seed: int, *, drains: bool = False, heads: int = 0) -> Failure | None:
    """Run one seed, with several heads or the only one; None: all is well."""
    try:
        if heads:
            simulate_heads(seed, heads)
        else:
            simulate(seed, drains=drains)
    except Exception as error:
        return Failure(seed, error, "".join(traceback.format_exception(error)))
    return None


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command."""
    parser = argparse.ArgumentParser(prog="python -m zray.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="this seed alone")
    parser.add_argument("--drains", action="store_true", help="nodes are drained as well")
    parser.add_argument("--heads", type=int, default=0, help="so many heads share a store")
    parser.add_argument("--verbose", action="store_true", help="print every event")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    parser.add_argument("--trace", action="store_true", help="print the digest of each trace")
    options = parser.parse_args(arguments)
    first, count = (options.start, options.seeds) if options.seed is None else (options.seed, 1)
    began = time.monotonic()
    failures = []
    for seed in range(first, first + count):
        try:
            if options.heads:
                trace = simulate_heads(seed, options.heads, verbose=options.verbose)
            else:
                trace = simulate(seed, verbose=options.verbose, drains=options.drains)
            if options.trace:
                print(seed, trace)
        except Exception as error:
            failures.append(seed)
            text = "".join(traceback.format_exception(error))
            if not options.keep_going:
                print(text)
                break
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}")
    seconds = time.monotonic() - began
    print(f"{count} seeds from {first}: {len(failures)} failed {failures[:50]}, {seconds:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
