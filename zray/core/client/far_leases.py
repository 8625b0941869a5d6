"""What this process says to workers that are leased to it on other machines, by way of their nodes.

One connection to a node, however many leases there are. Owns which nodes are reached, and what is
said until it has come. A node that was reached and is not any more is spoken to by way of the head,
until its leases have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray import limits
from zray.core.client.lease import FarNode, Lease
from zray.core.identity import Identity
from zray.core.lease_stream import LeaseStream
from zray.core.machine import Outbox
from zray.errors import ProtocolError
from zray.ids import split_tasks
from zray.protocol import codec
from zray.protocol import messages as m

ANSWER_BYTES_MAX = 1 << 40  # what a worker says is bounded there


class FarLease:
    """``closing``: nothing is wanted of it any more, but that its node hears so.

    ``closing_at``: when that was seen first.
    """

    __slots__ = ("closing", "closing_at", "lease_id", "node", "stream")

    def __init__(self, lease_id: bytes, node: FarNode) -> None:
        self.lease_id = lease_id
        self.node = node
        self.stream = LeaseStream(ANSWER_BYTES_MAX)
        self.closing = False
        self.closing_at: float | None = None

    def is_deaf(self, now: float) -> bool:
        """Whether its node has not heard for so long that perhaps there is none to hear."""
        if not self.closing:
            return False
        self.closing_at = now if self.closing_at is None else self.closing_at
        return now - max(self.closing_at, self.node.lost_at or 0.0) > limits.DEAD_S


class FarLeases:
    """Args:
    outbox: for the head, while this process is ``linked`` with it.
    said: a worker has said something under a lease.
    returned: ids of tasks that its worker has not begun, and whether its queue had no room.
    ended: the worker has closed its stream; or, if not, its node has no way to it.
    caught_up: something was heard under a lease, or nothing will be any more.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        linked: Callable[[], bool],
        said: Callable[[bytes, m.Message], None],
        returned: Callable[[bytes, list[bytes], bool], None],
        ended: Callable[[bytes, bool], None],
        caught_up: Callable[[bytes], None],
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._linked = linked
        self._said = said
        self._returned = returned
        self._ended = ended
        self._caught_up = caught_up
        self.nodes: dict[bytes, FarNode] = {}
        self._leases: dict[bytes, FarLease] = {}
        self._dirty: dict[bytes, FarLease] = {}
        self._paths = 0  # ways that were tried, to any node
        # Effects for the shell:
        self.opens: list[FarNode] = []  # connect to these anew; HELLO with their paths comes first
        self.shuts: list[bytes] = []  # close the connections to these nodes
        self.links: Outbox[bytes] = Outbox()  # by node, over its connection
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Reach: self.on_reach,
            m.Relay: self.on_relay,
            m.RelayRefused: self.on_refused,
        }

    def __contains__(self, lease_id: bytes) -> bool:
        """Whether the lease is of a worker on another machine."""
        return lease_id in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    # ---- nodes -----------------------------------------------------------------------------

    def on_reach(self, message: m.Reach) -> None:
        """The head says which nodes could be of use, and where they are."""
        ports = dict(message.nodes)
        used = {lease.node.node_id for lease in self._leases.values()}
        for node in [*self.nodes.values()]:
            if node.address != ports.get(node.node_id) and node.node_id not in used:
                self._forget(node)
        for node_id, address in ports.items():
            if node_id not in self.nodes:
                self.nodes[node_id] = FarNode(node_id)
            node = self.nodes[node_id]
            if node.address != address:
                node.address, node.wait_s = address, limits.RECONNECT_FIRST_S
                if node.opened:
                    self._lose(node)
                node.retry_at = 0.0
        if any(node.reached for node in self.nodes.values()):
            self._tell()

    def _forget(self, node: FarNode) -> None:
        del self.nodes[node.node_id]
        self.links.discard(node.node_id)
        if node.opened:
            self.shuts.append(node.node_id)

    def welcomed(self, node_id: bytes, now: float) -> None:
        """The connection works."""
        node = self.nodes.get(node_id)
        if node is None or not node.opened or node.linked:
            return
        if node.path < node.way:  # it is spoken to by way of the head since
            self.lost(node_id, now)
            return
        node.linked, node.by_head, node.lost_at = True, False, None
        node.way = node.path
        node.rtt_s = (now - node.opened_at) / limits.HANDSHAKE_ROUND_TRIPS
        node.wait_s = limits.RECONNECT_FIRST_S
        node.ping_at, node.asked_at = now + limits.PING_S, None
        self._say_again(node)
        if not node.reached:
            node.reached = True
            self._tell()

    def lost(self, node_id: bytes, now: float) -> None:
        """The connection has ended, or was not made."""
        node = self.nodes.get(node_id)
        if node is not None and node.opened:
            node.retry_at = now + node.wait_s
            self._lose(node)

    def _lose(self, node: FarNode) -> None:
        self.shuts.append(node.node_id)
        self.links.discard(node.node_id)
        node.opened = node.linked = False
        node.wait_s = min(2 * node.wait_s, limits.PEER_AVOID_S)
        if node.by_head:  # it may have heard of the connection that was not made
            self._go_by_head(node)

    def _go_by_head(self, node: FarNode) -> None:
        node.by_head = True
        node.way = self._next_path()
        self._say_again(node)

    def _next_path(self) -> int:
        self._paths += 1
        return self._paths

    def _say_again(self, node: FarNode) -> None:
        for lease in self._leases.values():
            if lease.node is node:
                lease.stream.again()
                self._dirty[lease.lease_id] = lease

    def _tell(self) -> None:
        reached = b"".join(node.node_id for node in self.nodes.values() if node.reached)
        self._outbox.append(m.Reaches(0, self._me.process_id, reached))

    def tend(self, now: float) -> None:
        """Now and then: connect, give up, go by way of the head."""
        for node in [*self.nodes.values()]:
            if node.opened and not node.linked and now - node.opened_at > limits.PEER_CONNECT_S:
                self.lost(node.node_id, now)
            if not node.opened and now >= node.retry_at:
                node.opened, node.opened_at = True, now
                node.path = self._next_path()
                self.opens.append(node)
            if node.linked:
                self._ask(node, now)
                continue
            node.lost_at = now if node.lost_at is None else node.lost_at
            if node.reached and now - node.lost_at > limits.PEER_CONNECT_S:
                node.reached = False
                self._tell()
                self._go_by_head(node)
            if node.by_head and now >= node.ping_at:  # the head may not have had the node just now
                node.ping_at = now + limits.PING_S
                self._say_again(node)
            for lease in [*self._leases.values()]:
                if lease.node is node and lease.is_deaf(now):
                    self._drop(lease)

    def _ask(self, node: FarNode, now: float) -> None:
        """Whether it is still there. What it has said was read before."""
        if node.asked_at is not None and now - node.asked_at > limits.SUSPECT_S:
            self.lost(node.node_id, now)
        elif node.asked_at is None and now >= node.ping_at:
            node.asked_at = now
            self.links.send(node.node_id, m.Ping(0, now))

    def _on_pong(self, node_id: bytes, now: float) -> None:
        node = self.nodes.get(node_id)
        if node is not None and node.asked_at is not None:
            node.rtt_s = min(node.rtt_s, now - node.asked_at)
            node.ping_at, node.asked_at = now + limits.PING_S, None

    def deadline_s(self) -> float:
        """How soon ``tend`` may have something to do."""
        busy = any(not node.linked for node in self.nodes.values())
        return limits.RECONNECT_FIRST_S if busy else limits.PING_S

    def resume(self) -> None:
        """A new session with the head, to which what was to be passed on may be lost."""
        if self.nodes:
            self._tell()
        for node in self.nodes.values():
            if node.by_head:
                self._go_by_head(node)

    # ---- leases ----------------------------------------------------------------------------

    def begin(self, lease: Lease, node: FarNode) -> None:
        """A worker of that node waits for this process, and hears at once that it is there."""
        lease.far = node
        known = self._leases[lease.lease_id] = FarLease(lease.lease_id, node)
        known.stream.answer()
        self._dirty[lease.lease_id] = known

    def say(self, lease_id: bytes, message: m.Message) -> None:
        """Say something to the worker, over its stream."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            for payload in codec.encode_local([message]):
                self._add(lease, m.WORD_PAYLOAD, payload)

    def give(self, lease_id: bytes, message: m.Tasks) -> None:
        """Append packets to its queue."""
        for payload in codec.encode_local([message]):
            self._add(self._leases[lease_id], m.WORD_TASKS, payload)

    def recall(self, lease: Lease) -> None:
        """Ask for what is still in the queue, unless that is asked for."""
        if not (lease.asked or lease.lost) and lease.inflight:
            lease.asked = True
            self._add(self._leases[lease.lease_id], m.WORD_RECALL)

    def _add(self, lease: FarLease, kind: int, data: bytes = b"") -> None:
        lease.stream.say(kind, data)
        self._dirty[lease.lease_id] = lease

    def close(self, lease_id: bytes) -> None:
        """Nothing is wanted of the worker any more."""
        lease = self._leases.get(lease_id)
        if lease is not None and not lease.closing:
            lease.closing = True
            self._add(lease, m.WORD_CLOSE)

    def _drop(self, lease: FarLease) -> None:
        self._leases.pop(lease.lease_id, None)
        self._dirty.pop(lease.lease_id, None)

    def heard(self, lease_id: bytes) -> int:
        """Number of the last word under that lease."""
        lease = self._leases.get(lease_id)
        return lease.stream.heard if lease is not None else 0

    # ---- in and out ------------------------------------------------------------------------

    def on_link(self, node_id: bytes, message: m.Message, now: float) -> None:
        """Something came over the connection to a node."""
        if isinstance(message, m.Welcome):
            self.welcomed(node_id, now)
        elif isinstance(message, m.Pong):
            self._on_pong(node_id, now)
        elif isinstance(message, m.Rejoin | m.Refused):
            self.lost(node_id, now)
        elif isinstance(message, m.Relay):
            self.on_relay(message)
        elif isinstance(message, m.RelayRefused):
            self.on_refused(message)

    def on_relay(self, message: m.Relay) -> None:
        """Words under a lease; its node has heard others."""
        lease = self._leases.get(message.lease_id)
        if lease is None or message.source != lease.node.node_id:
            return
        self._dirty[lease.lease_id] = lease
        try:
            for kind, data in lease.stream.hear(message):
                self._on_word(lease.lease_id, kind, data)
        except ProtocolError:  # it is no raylet, or something else than the worker's machinery
            self._refused(lease)
            return
        self._caught_up(lease.lease_id)
        if lease.closing and not lease.stream.unheard:
            self._drop(lease)

    def _on_word(self, lease_id: bytes, kind: int, data: bytes) -> None:
        if kind == m.WORD_PAYLOAD:
            for message in codec.decode(data).messages:
                self._said(lease_id, message)
        elif kind in (m.WORD_RETURNED, m.WORD_FULL):
            self._returned(lease_id, split_tasks(data), kind == m.WORD_FULL)
        elif kind == m.WORD_ENDED:
            self._ended(lease_id, not data)

    def on_refused(self, message: m.RelayRefused) -> None:
        """The node has nothing to do with the lease."""
        lease = self._leases.get(message.lease_id)
        if lease is not None and message.source == lease.node.node_id:
            self._refused(lease)

    def _refused(self, lease: FarLease) -> None:
        self._drop(lease)
        self._ended(lease.lease_id, False)
        self._caught_up(lease.lease_id)

    def unsent(self) -> bool:
        """Whether ``flush`` has something to do."""
        return bool(self._dirty)

    def flush(self) -> None:
        """Send what is to be said to nodes that are reached."""
        for lease_id, lease in self._dirty.items():
            node = lease.node
            if lease.stream.due() and (node.linked or node.by_head):  # else it is said again
                message = lease.stream.take(self._me.process_id, node.node_id, lease_id, node.way)
                if node.linked:
                    self.links.send(node.node_id, message)
                elif self._linked():
                    self._outbox.append(message)
        self._dirty.clear()

    def account(self) -> None:
        """Now and then: acknowledge what has come, though there is nothing to say."""
        for lease in self._leases.values():
            if lease.stream.owes():
                lease.stream.answer()
                self._dirty[lease.lease_id] = lease
