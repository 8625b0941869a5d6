"""A simulated driver's connections to nodes' own ports, for workers leased to it over there.

Does what the shipped FarLeases machine wants done, and decides nothing.
"""

from __future__ import annotations

from collections import deque

from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.processes.process import VERSIONS
from zray.testing.world.ports import PortLink


class FarLinks:
    """Of one driver: by node."""

    def __init__(self, driver: Caller) -> None:
        self.name = driver.name
        self._driver = driver
        self._far = driver.client.far_leases
        self._links: dict[bytes, PortLink] = {}
        self._arrivals: deque[tuple[PortLink, bytes | None]] = deque()
        self._tends = False

    def heard_from(self, link: PortLink, payload: bytes) -> None:
        """A payload came in."""
        self._arrivals.append((link, payload))
        self._driver.something_came()

    def hung_up(self, link: PortLink) -> None:
        """A connection is cut, or was not made."""
        self._arrivals.append((link, None))
        self._driver.something_came()

    def read(self) -> None:
        """Take what nodes have said."""
        now = self._driver.clock.now
        while self._arrivals:
            link, payload = self._arrivals.popleft()
            node_id = next((key for key, one in self._links.items() if one is link), None)
            if node_id is None:
                continue
            if payload is None:
                self._far.lost(node_id, now)
                continue
            for message in codec.decode(payload).messages:
                self._far.on_link(node_id, message, now)

    def tend(self) -> None:
        """Do what the machine wants done."""
        far, ports = self._far, self._driver.world.far_ports
        far.tend(self._driver.clock.now)
        far.flush()
        while far.shuts:
            link = self._links.pop(far.shuts.pop(), None)
            if link is not None:
                ports.close(link)
        while far.opens:
            node = far.opens.pop()
            link = self._links[node.node_id] = ports.connect(self, node.address)
            client = self._driver.client
            hello = (m.PROTOCOL_VERSION, m.ROLE_DRIVER, client.process_id, node.path)
            hello_message = m.Hello(0, *hello, client.cluster_id, VERSIONS, minor=m.PROTOCOL_MINOR)
            ports.up(link, codec.encode(0, [hello_message])[0])
        for node_id, messages in far.links.take().items():
            link = self._links.get(node_id)
            for payload in codec.encode(0, messages) if link is not None else ():
                assert link is not None
                ports.up(link, payload)
        if far.nodes and not self._tends:
            self._tends = True
            self._driver.clock.after(far.deadline_s(), self._look)

    def _look(self) -> None:
        self._tends = False
        self._driver.something_came()

    def end(self) -> None:
        """The process has ended."""
        for link in self._links.values():
            self._driver.world.far_ports.close(link)
        self._links.clear()
