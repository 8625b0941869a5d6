"""Connections of drivers to nodes' own ports, as ZeroMQ's DEALER and ROUTER behave over TCP.

The order is kept; what is lost is all that is under way at a cut, which only the driver notices.
Behind a wall nothing answers. Owns connections, no process.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from zray import limits
from zray.protocol import codec
from zray.protocol.messages import Message
from zray.testing.world.clock import Clock
from zray.testing.world.network import check


class Dialer(Protocol):
    """A process that connects to ports."""

    name: str

    def heard_from(self, link: PortLink, payload: bytes) -> None:
        """A payload came in."""

    def hung_up(self, link: PortLink) -> None:
        """The transport noticed that the connection is cut, or was not made."""


class PortLink:
    """One connection, from CONNECT to its end."""

    def __init__(self, dialer: Dialer, address: str, route: str) -> None:
        self.dialer = dialer
        self.address = address
        self.route = route
        self.open = True  # the dialer has not closed it, and knows of no cut
        self.broken = False  # nothing passes any more, whether noticed or not
        self.last = {True: 0.0, False: 0.0}  # when the last payload arrives: to the port, from it


class Ports:
    """All ports. ``walls``: names of processes and addresses that have one between them."""

    def __init__(self, clock: Clock, random: Random, latency_s: float) -> None:
        self.walls: set[tuple[str, str]] = set()
        # Each cuts the connection on which what it looks for is sent; it is lost.
        self.traps: list[Callable[[PortLink, bool, list[Message]], bool]] = []
        self.links: dict[str, PortLink] = {}  # by route
        self._clock = clock
        self._random = random
        self._latency_s = latency_s
        self._listeners: dict[str, Callable[[str, bytes], None]] = {}
        self._routes = 0

    def listen(self, address: str, arrived: Callable[[str, bytes], None]) -> None:
        """A node opens its port; ``arrived`` gets a connection's route and a payload."""
        self._listeners[address] = arrived

    def shut(self, address: str) -> None:
        """Its process has ended."""
        self._listeners.pop(address, None)
        for link in [link for link in self.links.values() if link.address == address]:
            self.sever(link)

    def connect(self, dialer: Dialer, address: str) -> PortLink:
        """A connection, of which nobody knows yet whether it works."""
        self._routes += 1
        link = PortLink(dialer, address, f"port{self._routes}")
        self.links[link.route] = link
        if (dialer.name, address) in self.walls:
            link.broken = True
        elif address not in self._listeners:
            self.sever(link)
        return link

    def wall_up(self, name: str, address: str) -> None:
        """Nothing passes any more between that process and that port, and nobody is told."""
        self.walls.add((name, address))
        for link in self.links.values():
            if (link.dialer.name, link.address) == (name, address):
                link.broken = True
                silent = limits.TRANSPORT_SILENT_S + self._random.uniform(0.0, 2.0)
                self._clock.after(silent, self._tell, link)

    def close(self, link: PortLink) -> None:
        """The dialer closes it: what is under way is lost."""
        link.open = False
        link.broken = True
        self.links.pop(link.route, None)

    def sever(self, link: PortLink) -> None:
        """Cut it now; the dialer notices after a while."""
        if not link.broken:
            self._clock.tell(f"connection of {link.dialer.name} to {link.address} is cut")
        link.broken = True
        self._clock.after(self._random.uniform(0.0005, 0.03), self._tell, link)

    def _tell(self, link: PortLink) -> None:
        if link.open:
            link.open = False
            self.links.pop(link.route, None)
            link.dialer.hung_up(link)

    def up(self, link: PortLink, payload: bytes) -> None:
        """From a dialer to a port."""
        self._send(link, True, payload)

    def down(self, route: str, payload: bytes) -> bool:
        """From a port; False: there is no such connection any more, as far as its node knows."""
        link = self.links.get(route)
        if link is None:
            return False
        self._send(link, False, payload)
        return True

    def _send(self, link: PortLink, upwards: bool, payload: bytes) -> None:
        check(payload)
        if self.traps and not link.broken:
            messages = codec.decode(payload).messages
            for place, trap in enumerate(self.traps):
                if trap(link, upwards, messages):
                    del self.traps[place]
                    self.sever(link)
                    return
        if not link.broken:
            delay = self._latency_s * self._random.uniform(0.5, 2.0) + len(payload) * 1e-9
            when = link.last[upwards] = max(link.last[upwards], self._clock.now + delay)
            self._clock.at(when, self._deliver, link, upwards, payload)

    def _deliver(self, link: PortLink, upwards: bool, payload: bytes) -> None:
        if link.broken:
            return
        if upwards:
            arrived = self._listeners.get(link.address)
            if arrived is not None:
                arrived(link.route, payload)
        else:
            link.dialer.heard_from(link, payload)
