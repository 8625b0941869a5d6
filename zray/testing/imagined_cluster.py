"""A cluster that is not there: nodes of any number and kind, run by the shipped machines.

The simulator's processes, clock and network without its judges, faults and story, so that large
workloads take bearable time. Holds no decision of the cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zray import limits
from zray.protocol import messages as m
from zray.store.memory import MemoryStore
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.head import SimOnlyHead
from zray.testing.processes.participant import Participant
from zray.testing.processes.population import Population
from zray.testing.processes.process import Scene, SimProcess
from zray.testing.processes.raylet import SimRaylet
from zray.testing.processes.steps import Library, TaskFailed
from zray.testing.processes.worker import SimWorker
from zray.testing.world.paced import PacedNetwork, PacedPorts
from zray.testing.world.world import World

EVENTS_MAX = 1 << 62
COMMIT_S = 0.003
WITHOUT_BOUND = None  # on workers


class Observer:
    """Told by all processes what they do. Notes when attempts begin and end, and where.

    Attributes:
        began, ended: by task, in simulated seconds; of the last attempt.
        places: of what runs or has run: the worker.
    """

    def __init__(self, population: Population, world: World) -> None:
        self._workers = population.everywhere.ever
        self._clock = world.clock
        self.expected: dict[bytes, int] = {}
        self.calls: Any = self
        self.began: dict[bytes, float] = {}
        self.ended_at: dict[bytes, float] = {}
        self.places: dict[bytes, SimWorker] = {}
        self.running: dict[bytes, bytes] = {}  # worker -> task
        self.moves = 0  # tasks that have begun, and that have ended
        self.failure: TaskFailed | None = None

    def started(self, worker: Participant, assignment: m.Assignment) -> None:
        """User code of a task begins."""
        task_id, worker_id = assignment.spec.task_id, worker.client.process_id
        self.began[task_id] = self._clock.now
        self.places[task_id] = self._workers[worker_id]
        self.moves += 1
        self.running[worker_id] = task_id

    def ended(self, worker: Participant, status: int) -> None:
        """User code of a task has ended."""
        task_id = self.running.pop(worker.client.process_id, b"")
        self.ended_at[task_id] = self._clock.now
        self.moves += 1

    def program_ended(self, driver: Participant, program: str, error: TaskFailed | None) -> None:
        """A driver's program ended; ``error``: what ended it early."""
        self.failure = error

    def word(self, task_id: bytes) -> str:
        """Nobody reads it."""
        return ""

    def made(self, *_: Any) -> None:
        """A value was put."""

    def cancelled(self, task_id: bytes) -> None:
        """A task is, which no program here does."""

    def runs(self, task_id: bytes) -> int:
        """How often it has begun: nothing fails here."""
        return 1

    def submitted(self, *_: Any) -> None:
        """A task was."""

    def observed(self, *_: Any) -> None:
        """A value was."""

    def died(self, *_: Any) -> None:
        """A worker has."""

    def driver_ended(self, *_: Any) -> None:
        """A driver has."""


class ImaginedCluster(Population):
    """Made ready for programs at once; ``driver`` runs them.

    Args:
        library: the functions that tasks name.
        nodes: resources of each, in whole units.
        seed: of all delays.
        latency_s: mean time of a payload between two machines.
        bytes_per_s: bandwidth of one connection.
    """

    def __init__(
        self,
        library: Library,
        nodes: Sequence[Mapping[str, float]],
        *,
        seed: int,
        latency_s: float,
        bytes_per_s: float,
    ) -> None:
        super().__init__()
        world = World(
            seed, events_max=EVENTS_MAX, latency_s=latency_s, commit_s=COMMIT_S, direct=1.0
        )
        world.clock.silent = True
        world.direct.packets_max = limits.PAYLOAD_ITEMS_MAX
        pace = (world.clock, world.random, latency_s, bytes_per_s)
        world.network, world.far_ports = PacedNetwork(*pace), PacedPorts(*pace)
        self.clock = world.clock
        self.observer = Observer(self, world)
        self._scene = Scene(world, self.observer, library, self._turned)
        self.head = SimOnlyHead(self._scene, MemoryStore(auto=True))
        for number, node in enumerate(nodes, 1):
            amounts = {name: round(value * limits.RESOURCE_UNIT) for name, value in node.items()}
            node_id = world.random.randbytes(16)
            where = (f"n{number}", node_id, 1, amounts, f"machine-{number}", WITHOUT_BOUND)
            self.raylets.append(SimRaylet(self._scene, self.everywhere, *where))
        self.driver = SimDriver(self._scene, "driver", "machine-1", True)
        self.drivers.append(self.driver)
        self.turns = 0

    def _turned(self, process: SimProcess) -> None:
        self.turns += 1

    def ready(self) -> bool:
        """Whether the driver and all nodes have their sessions."""
        joined = all(one.raylet.session.linked for one in self.raylets)
        return joined and self.driver.client.linked
