"""A simulated raylet's sockets to leased workers whose submitters are on other machines.

As the real shell has them for the shipped LeaseRelays machine. Decides nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from zray.core.raylet.raylet import Raylet
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.world.direct import Wire
from zray.testing.world.world import World


class Node(Protocol):
    """A raylet's process."""

    name: str
    raylet: Raylet
    world: World

    def something_came(self) -> None:
        """There is something to read, or the other end has closed."""


class RelayLinks:
    """Of one incarnation of the raylet, by lease."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._machine = node.raylet.lease_relays
        self._machine.links = self
        self._arrivals: deque[tuple[str, bytes]] = deque()
        self.wires: dict[bytes, Wire] = {}
        self._held: dict[bytes, None] = {}

    def renew(self) -> None:
        """The machine may be another incarnation's by now."""
        if self._machine is not self._node.raylet.lease_relays:
            for lease_id in [*self.wires]:
                self.close(lease_id)
            self._machine = self._node.raylet.lease_relays
            self._machine.links = self

    # ---- the port --------------------------------------------------------------------------

    def arrived(self, route: str, payload: bytes) -> None:
        """Something came in at the node's port."""
        self._arrivals.append((route, payload))
        self._node.something_came()

    def receive(self) -> None:
        """Hand to the machine what came in, and what workers have said."""
        self.renew()
        while self._arrivals:
            route, payload = self._arrivals.popleft()
            for message in codec.decode(payload).messages:
                self._node.raylet.peer_messages.receive(route, message)
        for lease_id in [*self.wires]:
            if lease_id not in self._held:
                self.read(lease_id)

    def send_out(self) -> None:
        """Send what the machine wants said to submitters."""
        ports = self._node.world.far_ports
        for route, messages in self._machine.outbox.take().items():
            for payload in codec.encode(0, messages):
                if not ports.down(route, payload):
                    self._machine.lost(route)
                    break

    # ---- WorkerLinks -----------------------------------------------------------------------

    def connect(self, lease: m.HeldLease) -> bool:
        """Open a stream and a queue to a worker."""
        wire = self._node.world.direct.connect(self._node, lease.worker_id)
        if wire is None:
            return False
        self.wires[lease.lease_id] = wire
        resources = lease.resources
        wire.call([m.Grant(0, lease.lease_id, lease.job_id, lease.submitter, resources)])
        return True

    def put(self, lease_id: bytes, packet: bytes) -> bool:
        """Append to a queue."""
        return self.wires[lease_id].put(packet)

    def send(self, lease_id: bytes, payload: bytes) -> int:
        """Write to a stream."""
        self.wires[lease_id].call(codec.decode(payload).messages)
        return 0

    def take(self, lease_id: bytes) -> list[bytes]:
        """What its worker has not taken out of a queue."""
        return self.wires[lease_id].take_back()

    def read(self, lease_id: bytes) -> None:
        """All that a worker has said."""
        wire = self.wires.get(lease_id)
        if wire is None or not wire.caller_open:
            return
        wire.flush_calls()
        for payload in codec.encode_local(found) if (found := wire.answers()) else ():
            self._machine.said(lease_id, payload)
        if not wire.worker_open:
            wire.close()
            self._machine.ended(lease_id)

    def hold(self, lease_id: bytes, held: bool) -> None:
        """Do not read it for now, or again."""
        if held:
            self._held[lease_id] = None
        elif self._held.pop(lease_id, self) is None:
            self._node.something_came()

    def close(self, lease_id: bytes) -> None:
        """Close both."""
        self._held.pop(lease_id, None)
        wire = self.wires.pop(lease_id, None)
        if wire is not None:
            wire.close()

    def end(self) -> None:
        """The process has ended."""
        for lease_id in [*self.wires]:
            self.close(lease_id)
