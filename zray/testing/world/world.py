"""The world of one simulation: time, chance, the network, and what a system knows of processes."""

from __future__ import annotations

from random import Random

from zray import limits
from zray.testing.world.clock import Clock
from zray.testing.world.direct import DirectSockets
from zray.testing.world.network import Network
from zray.testing.world.ports import Ports


class World:
    """What every simulated process has around it.

    Args:
        seed: of everything random.
        events_max: how many events there may be.
        latency_s: mean time of a payload on the way.
        commit_s: mean time until the store has a batch.
        direct: how likely a direct socket between two processes of one machine works.
    """

    def __init__(
        self, seed: int, *, events_max: int, latency_s: float, commit_s: float, direct: float
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = Clock(events_max)
        self.network = Network(self.clock, Random(self.random.random()), latency_s)
        self.direct = DirectSockets(self.random, direct)
        self.far_ports = Ports(self.clock, Random(f"ports {seed}"), latency_s)
        self.drain_max = limits.DRAIN_MESSAGES_MAX
        self.names: dict[bytes, str] = {}  # of processes, by their ids
        self.drivers: set[bytes] = set()  # whose processes run
        self.ports: set[bytes] = set()  # nodes that listen on a port of their own
        self.lost: set[bytes] = set()  # nodes whose machine has vanished
        self._commit_s = commit_s
        self._pids = 100

    def draw(self, low: float, high: float) -> float:
        """A number between two, from the seed."""
        return self.random.uniform(low, high)

    def next_pid(self) -> int:
        """A process id that nobody has had."""
        self._pids += 1
        return self._pids

    def commit_delay(self) -> float:
        """How long the store takes for one batch, in seconds; now and then very long."""
        factor = 50.0 if self.random.random() < 0.02 else 1.0
        return self._commit_s * self.draw(0.1, 2.0) * factor

    def name(self, process_id: bytes) -> str:
        """A short name of a process."""
        return self.names.get(process_id, process_id.hex()[:8])

    def refuses(self, node_id: bytes) -> bool | None:
        """What knocking at a node's own port says; None: nothing comes back."""
        if node_id in self.lost:
            return None
        return node_id not in self.ports
