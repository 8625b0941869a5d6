"""A network with a bandwidth, for imagined clusters: what is sent waits for what is before it.

Nothing is cut, lost or checked. Values pass the head here, though real nodes exchange them without
it: so what a node sends takes its time on the way to the receiver alone, and else only keeps the
sender's connection busy.
"""

from __future__ import annotations

from random import Random

from zray.testing.world.clock import Clock
from zray.testing.world.network import Link, Network
from zray.testing.world.ports import PortLink, Ports


class _Pace:
    """``busy``: until when each connection is, by direction."""

    def __init__(self, clock: Clock, random: Random, latency_s: float, bytes_per_s: float) -> None:
        self._clock = clock
        self._random = random
        self._latency_s = latency_s
        self._byte_s = 1.0 / bytes_per_s
        self._busy: dict[tuple[int, bool], float] = {}

    def arrival(self, link: object, upwards: bool, size: int, *, passes: bool) -> float:
        """When a payload is there. ``passes``: it is on its way to another."""
        begins = max(self._clock.now, self._busy.get((id(link), upwards), 0.0))
        ends = self._busy[id(link), upwards] = begins + size * self._byte_s
        latency = self._latency_s * self._random.uniform(0.5, 2.0)
        return (begins if passes else ends) + latency


class PacedNetwork(Network):
    """Between the head and its peers."""

    def __init__(self, clock: Clock, random: Random, latency_s: float, bytes_per_s: float) -> None:
        super().__init__(clock, random, latency_s)
        self._pace = _Pace(clock, random, latency_s, bytes_per_s)

    def _send(self, link: Link, upwards: bool, payload: bytes) -> None:
        when = self._pace.arrival(link, upwards, len(payload), passes=upwards)
        when = link.last[upwards] = max(link.last[upwards], when)
        link.under_way[upwards].append(payload)
        self.clock.at(when, self._deliver, link, upwards)


class PacedPorts(Ports):
    """Between drivers and nodes of other machines."""

    def __init__(self, clock: Clock, random: Random, latency_s: float, bytes_per_s: float) -> None:
        super().__init__(clock, random, latency_s)
        self._pace = _Pace(clock, random, latency_s, bytes_per_s)

    def _send(self, link: PortLink, upwards: bool, payload: bytes) -> None:
        when = self._pace.arrival(link, upwards, len(payload), passes=False)
        when = link.last[upwards] = max(link.last[upwards], when)
        self._clock.at(when, self._deliver, link, upwards, payload)
