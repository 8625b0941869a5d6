"""A driver's connections to nodes' own ports, for workers over there that are leased to it.

The shell of the FarLeases machine: one socket to a node, encrypted as the head's. Decides nothing.
Everything with the driver's lock held.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

import zmq

from zray import limits
from zray.core.client.far_leases import FarLeases
from zray.core.client.lease import FarNode
from zray.errors import ProtocolError
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import connection, sockets
from zray.runtime.connection import ConnectionInfo


class FarLink:
    """A connection to a node's port."""

    def __init__(self, dealer: sockets.Socket) -> None:
        self.socket = dealer
        self.monitor = sockets.Monitor(dealer)
        self.unsent: deque[bytes] = deque()

    def close(self) -> None:
        """Give back its sockets."""
        self.monitor.close()
        self.socket.close(0)


class FarLinks:
    """By node.

    Args:
        hello: what a connection begins with, for the number of a way.
        changed: there are other descriptors.
        wake: end the leader's sleep: sending took a signal for which it waits.

    Attributes:
        fds: of the sockets from which something may come that has to be read at once.
    """

    def __init__(
        self,
        context: sockets.Context,
        info: ConnectionInfo,
        machine: FarLeases,
        hello: Callable[[int], m.Hello],
        changed: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._context = context
        self._info = info
        self._machine = machine
        self._hello = hello
        self._changed = changed
        self._wake = wake
        self._links: dict[bytes, FarLink] = {}
        self.fds: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._links)

    def descriptors(self) -> Iterator[int]:
        """What to poll for reading."""
        for link in [*self._links.values()]:
            with contextlib.suppress(zmq.ZMQError):  # closed just now by another thread
                yield sockets.descriptor(link.socket)
                yield sockets.descriptor(link.monitor.socket)

    # ---- in --------------------------------------------------------------------------------

    def read(self) -> None:
        """Take what nodes have said."""
        for node_id, link in [*self._links.items()]:
            for _ in range(limits.DRAIN_MESSAGES_MAX):
                if self._links.get(node_id) is not link or not sockets.readable(link.socket):
                    break
                self._receive(node_id, link)
            else:
                self._wake()

    def _receive(self, node_id: bytes, link: FarLink) -> None:
        frames = sockets.receive(link.socket)
        now = time.monotonic()
        try:
            for message in codec.decode(frames[1].buffer).messages:
                self._machine.on_link(node_id, message, now)
        except (ProtocolError, IndexError):  # it is no raylet
            self._machine.lost(node_id, now)

    def _look(self, node_id: bytes, link: FarLink, now: float) -> None:
        ended = (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED)
        events = sockets.readable(link.monitor.socket)
        if events and any(event.event in ended for event in link.monitor.read()):
            self._machine.lost(node_id, now)

    # ---- out -------------------------------------------------------------------------------

    def tend(self) -> None:
        """Now and then: look after connections."""
        now = time.monotonic()
        for node_id, link in [*self._links.items()]:
            self._look(node_id, link, now)
            if link.unsent:
                self._flush(link)
        self._machine.tend(now)

    def send(self) -> None:
        """Send what the machine wants sent, over connections that it wants."""
        machine = self._machine
        while machine.shuts:
            self._close(machine.shuts.pop())
        while machine.opens:
            self._open(machine.opens.pop())
        if machine.links:
            for node_id, messages in machine.links.take().items():
                link = self._links.get(node_id)
                if link is not None:
                    link.unsent.extend(codec.encode(0, messages, []))
                    self._flush(link)

    def _open(self, node: FarNode) -> None:
        try:
            dealer = sockets.dealer(
                self._context, self._info, self._info.client_public, heartbeats=False
            )
        except zmq.ZMQError:  # there are no descriptors left
            self._machine.lost(node.node_id, time.monotonic())
            return
        try:
            link = FarLink(dealer)
        except zmq.ZMQError:  # the same
            dealer.close(0)
            self._machine.lost(node.node_id, time.monotonic())
            return
        self._links[node.node_id] = link
        try:
            sockets.connect(dealer, *connection.parse_address(node.address))
        except (zmq.ZMQError, ValueError):  # an address that is none
            self._machine.lost(node.node_id, time.monotonic())
            return
        self.fds[sockets.descriptor(dealer)] = node.node_id
        link.unsent.extend(codec.encode(0, [self._hello(node.path)]))
        self._flush(link)
        self._changed()

    def _flush(self, link: FarLink) -> None:
        while link.unsent:
            try:
                sockets.send(link.socket, (m.KIND, link.unsent[0]))
            except zmq.Again:
                break
            link.unsent.popleft()
        if sockets.readable(link.socket):
            self._wake()

    def _close(self, node_id: bytes) -> None:
        link = self._links.pop(node_id, None)
        if link is not None:
            self.fds = {fd: one for fd, one in self.fds.items() if one != node_id}
            link.close()
            self._changed()

    def close(self) -> None:
        """Close all."""
        for node_id in [*self._links]:
            self._close(node_id)
