"""What the head's machine costs by itself: no socket, no coding, no other process.

Nodes of four CPUs that are all busy, with tasks waiting; in each turn some nodes tell ends and one
driver submits as many tasks and drops their results.
"""

from __future__ import annotations

import time

from tests.core.benches import HeadBench, identity, object_of, template
from zray.protocol import messages as m

WORK = template()
EVERY = 1 << 30
ROUNDS = 3
TASK_S = 0.001  # so many are sent ahead


class Cluster:
    """A head's machine with nodes and drivers, by their numbers."""

    def __init__(self, nodes: int, drivers: int, in_flight: int) -> None:
        self._head = HeadBench()
        self._made = 0
        self._told = [0] * nodes  # how often each node has told ends
        self._turns = 0
        for number in range(nodes):
            self._head.node(f"n{number}", 4, machine=f"machine{number}")
        self._drivers = [identity(f"d{number}") for number in range(drivers)]
        for number in range(drivers):
            self._head.driver(f"d{number}", WORK)
        self._submit(0, 4 * nodes)
        self._head.turn()
        self._ends(0, 4 * nodes)  # now it is known how long they take
        for number in range(drivers):
            self._submit(number, in_flight // drivers)
            demand = m.Demand(0, *[self._drivers[number]] * 2, WORK.resources, 50)
            self._head.hear(f"d{number}", demand)
        self._head.turn()

    def _submit(self, driver: int, count: int) -> None:
        who = self._drivers[driver]
        ids = [number.to_bytes(16, "big") for number in range(self._made, self._made + count)]
        self._made += count
        specs = [m.TaskSpec(task_id, WORK.template_id, b"arguments") for task_id in ids]
        self._head.hear(f"d{driver}", m.Submit(0, who, who, specs))

    def _ends(self, node: int, count: int) -> list[bytes]:
        """A node tells the ends of so many tasks, if it has as many; their results."""
        view = self._head.gcs.members.nodes[identity(f"n{node}")].view
        held = [*view.assigned.items()][:count]
        if held:
            self._told[node] += 1
            done = [
                m.TaskDone(task_id, record.attempt, m.FINISHED, [_result(task_id)], TASK_S)
                for task_id, record in held
            ]
            self._head.hear(f"n{node}", m.Done(self._told[node], done))
        return [object_of(task_id) for task_id, _ in held]

    def turn(self, count: int, for_each: int) -> int:
        """A turn in which about so many tasks end; how many that were."""
        self._head.now += 0.002
        ended: list[bytes] = []
        while len(ended) < count:
            ended += self._ends(self._turns % len(self._told), for_each)
            self._turns += 1
        driver = self._turns % len(self._drivers)
        who = self._drivers[driver]
        said = (m.ResultAck(0, who, EVERY), m.Drop(0, who, b"".join(ended)))
        self._head.hear(f"d{driver}", *said)
        self._submit(driver, len(ended))
        self._head.turn()
        self._head.sent.clear()
        return len(ended)


def _result(task_id: bytes) -> m.Outcome:
    return m.Outcome(object_of(task_id), m.VALUE, 5, b"value")


def cpu_us(nodes: int, drivers: int, turns: int = 150, in_flight: int = 8192) -> float:
    """Microseconds of CPU time for each task, in the best of some rounds; 30 end in each turn."""
    cluster = Cluster(nodes, drivers, in_flight)
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        count = sum(cluster.turn(30, 3) for _ in range(turns))
        found.append((time.process_time() - began) / count * 1e6)
    return min(found)
