"""``python -m tests.costs.groups``: what placement groups cost the head's machine, on many nodes.

Each group is asked for, prepared, durable, committed, and later removed and released, by the
shipped machines of the head with their scheduler; the nodes answer at once, as idle raylets do. No
socket, no coding, no other process. ``--simulated``: once more in the simulator, with a driver and
raylets that take the steps, over a network with delays, in simulated time.
"""

from __future__ import annotations

import argparse
import random
import time
from functools import partial

from tests.core.benches import HeadBench, identity
from zray import limits
from zray.core.bundles import STRATEGIES
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m
from zray.testing.imagined_cluster import ImaginedCluster
from zray.testing.processes.steps import Library

CPU = limits.RESOURCE_UNIT
KEPT_MAX = 500  # groups that are there at a time
TURN = 20  # that are asked for in one turn
DRIVER = identity("d")


class Cluster:
    """A head's machine with nodes of 16 CPUs, and a driver that makes groups and removes them."""

    def __init__(self, nodes: int) -> None:
        self._head = HeadBench()
        self.kept = min(2 * nodes, KEPT_MAX)  # half of what there is
        for number in range(nodes):
            self._head.node(f"n{number}", 16, machine=f"machine{number}")
        self._head.driver("d")
        self._made: list[bytes] = []
        self._number = 0
        self._random = random.Random(1)

    def _create(self) -> m.CreateGroup:
        self._number += 1
        group_id = self._number.to_bytes(16, "big")
        self._made.append(group_id)
        bundles = [m.Bundle([("CPU", self._random.choice([CPU, 2 * CPU]))])] * 3
        strategy = self._random.randrange(len(STRATEGIES))
        return m.CreateGroup(self._number, group_id, DRIVER, strategy, bundles)

    def turn(self) -> None:
        """Some groups more, and those that are too many less."""
        self._head.now += 0.002
        said: list[m.Message] = [self._create() for _ in range(TURN)]
        while len(self._made) > self.kept:
            said.append(m.RemoveGroup(0, self._made.pop(0)))
        self._head.hear("d", *said)
        self._head.turn()
        while self._answer():
            self._head.turn()

    def _answer(self) -> bool:
        """Nodes take the steps that they were asked for."""
        found = False
        sent, self._head.sent = self._head.sent, {}
        for name, messages in sent.items():
            answers = [
                m.Reserved(0, one.group_id, one.round, _outcome(one.step))
                for one in messages
                if isinstance(one, m.Reserve) and one.step != m.COMMIT
            ]
            if answers:
                self._head.hear(name, *answers)
                found = True
        return found

    def state(self) -> tuple[int, int]:
        """How many groups there are, and how many of these have their places."""
        records = [*self._head.gcs.placement.values()]
        return len(records), sum(one.state == m.GROUP_CREATED for one in records)


def _outcome(step: int) -> int:
    return m.PREPARED if step == m.PREPARE else m.RELEASED


def per_s(nodes: int, seconds: float = 3.0) -> float:
    """Groups that are made and removed in a second of CPU time, once as many are kept as may be."""
    cluster = Cluster(nodes)
    for _ in range(cluster.kept // TURN + 1):
        cluster.turn()
    began, turns = time.process_time(), 0
    while time.process_time() - began < seconds:
        cluster.turn()
        turns += 1
    taken = time.process_time() - began
    count, placed = cluster.state()
    assert count == placed == cluster.kept, f"{placed} of {count} groups have their places"
    return turns * TURN / taken


def simulated(nodes: int, groups: int = 1000) -> tuple[float, float]:
    """Simulated seconds until so many groups that are asked for at once have all their places, and
    how long that took here."""
    cluster = ImaginedCluster(
        Library({}, {}, {}),
        [{"CPU": 4}] * nodes,
        seed=1,
        latency_s=0.0003,
        bytes_per_s=1e9,
    )
    while not cluster.ready():
        cluster.clock.step()
    began, at = time.process_time(), cluster.clock.now
    wanted = [m.Bundle([("CPU", CPU)])] * 3
    client, who = cluster.driver.client, cluster.driver.process_id
    for number in range(groups):
        group_id = number.to_bytes(16, "big")
        strategy = number % len(STRATEGIES)
        client.ask(partial(_asked, group_id, who, strategy, wanted), Waiter())
    cluster.driver.wake()
    table = cluster.head.gcs.placement
    while len(table) < groups or not all(one.is_whole() for one in table.values()):
        cluster.clock.step()
    return cluster.clock.now - at, time.process_time() - began


def _asked(
    group_id: bytes, who: bytes, strategy: int, wanted: list[m.Bundle], seq: int
) -> m.Message:
    return m.CreateGroup(seq, group_id, who, strategy, wanted)


def main() -> None:
    """Entry of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.costs.groups", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--simulated", action="store_true")
    options = parser.parse_args()
    for nodes in options.nodes:
        print(f"{nodes:5} nodes: {per_s(nodes):,.0f} groups/s of 3 bundles, made and removed")
        if options.simulated and nodes >= 1000:
            seconds, here = simulated(nodes)
            what = "1,000 groups placed, simulated with their raylets"
            print(f"{nodes:5} nodes: {what}: {1000 * seconds:.1f} ms, {here:.2f} s of CPU here")


if __name__ == "__main__":
    main()
