"""Leased workers of this node whose submitters are on other machines: the raylet stands between.

To the worker it is as a submitter of this machine, with a stream and a queue; for the submitter it
keeps what the worker says until that has it. What passes is opaque here, but for packets that are
taken out of a queue again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from zray import limits
from zray.core.lease_stream import LeaseStream
from zray.core.machine import Outbox
from zray.errors import ProtocolError, VersionMismatchError
from zray.protocol import codec
from zray.protocol import messages as m
from zray.protocol.versions import mismatch, work_together

BY_HEAD = ""  # a way to a submitter, where others are connections to this node's port


class WorkerLinks(Protocol):
    """The shell's sockets to leased workers, by lease; what it reads comes by ``said``."""

    def connect(self, lease: m.HeldLease) -> bool:
        """Open a stream and a queue to the worker; False: there is no such way."""

    def put(self, lease_id: bytes, packet: bytes) -> bool:
        """Append to the queue; False: it is full."""

    def send(self, lease_id: bytes, payload: bytes) -> int:
        """Write to the stream; how many bytes it has not taken by now."""

    def take(self, lease_id: bytes) -> list[bytes]:
        """Everything in the queue that the worker has not taken, out of it."""

    def read(self, lease_id: bytes) -> None:
        """Read all that the worker has written by now."""

    def hold(self, lease_id: bytes, held: bool) -> None:
        """Read nothing of it for now, or again."""

    def close(self, lease_id: bytes) -> None:
        """Close both."""


class Way(NamedTuple):
    """How a submitter is reached at the moment. ``path``: as RELAY has it."""

    path: int
    peer: str


class RelayedLease:
    """``open``: there is a stream to the worker. ``held``: it is not read."""

    __slots__ = ("begun", "held", "lease_id", "open", "stream", "submitter")

    def __init__(self, lease: m.HeldLease) -> None:
        self.lease_id = lease.lease_id
        self.submitter = lease.submitter
        self.stream = LeaseStream(limits.LEASE_SAID_BYTES_MAX)
        self.begun = self.open = self.held = False


class LeaseRelays:
    """Of one incarnation of the raylet.

    Args:
        node_id: of the raylet.
        cluster_id: as its session has it.
        held: the lease of that id, if a worker has it.
        tell_head: as ``HeadSession.tell``.

    Attributes:
        outbox: by connection to this node's port.
        links: the shell sets it.
    """

    links: WorkerLinks

    def __init__(
        self,
        node_id: bytes,
        cluster_id: Callable[[], bytes],
        held: Callable[[bytes], m.HeldLease | None],
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._held = held
        self._tell_head = tell_head
        self.outbox: Outbox[str] = Outbox()
        self._relays: dict[bytes, RelayedLease] = {}
        self._of_submitter: dict[bytes, dict[bytes, RelayedLease]] = {}
        self._ways: dict[bytes, Way] = {}  # by submitter
        self._submitters: dict[str, bytes] = {}  # by connection
        self._dirty: dict[bytes, RelayedLease] = {}

    # ---- ways ------------------------------------------------------------------------------

    def on_hello(self, peer: str, message: m.Hello) -> None:
        """A submitter has opened a connection; from now on it is reached by it."""
        way = self._ways.get(message.process_id)
        if not work_together(message.protocol, message.minor):
            ends = ("this node", "the driver", message.protocol, message.minor)
            text = mismatch(*ends, message.versions.zray)
            self.outbox.send(peer, m.Refused(0, VersionMismatchError.code, text))
        elif message.role != m.ROLE_DRIVER:
            text = "on this port only raylets, and drivers with leased workers here, are served"
            self.outbox.send(peer, m.Refused(0, m.FORBIDDEN, text))
        elif way is not None and message.incarnation <= way.path:
            text = f"the submitter has come by way {way.path} since, and this is {way.path}"
            self.outbox.send(peer, m.Refused(0, ProtocolError.code, text))
        else:
            self._take_way(message.process_id, Way(message.incarnation, peer))
            self._submitters[peer] = message.process_id
            ours = (m.PROTOCOL_VERSION, self._cluster_id() or bytes(16), limits.FRAME_BYTES_MAX)
            self.outbox.send(peer, m.Welcome(0, *ours, limits.PING_S, minor=m.PROTOCOL_MINOR))

    def on_ping(self, peer: str, message: m.Ping) -> None:
        """A submitter asks whether this node is there."""
        if peer in self._submitters:
            self.outbox.send(peer, m.Pong(0, message.sent_s, "OK"))
        else:
            self.outbox.send(peer, m.Rejoin(0, "say HELLO first"))

    def _take_way(self, submitter: bytes, way: Way) -> None:
        before = self._ways.pop(submitter, None)
        if before is not None:
            self._submitters.pop(before.peer, None)
        self._ways[submitter] = way
        for relay in self._of_submitter.get(submitter, {}).values():
            self._say_again(relay)
        if len(self._ways) > limits.LEASE_SUBMITTERS_MAX:
            self._forget_way(next(iter(self._ways)))

    def _say_again(self, relay: RelayedLease) -> None:
        relay.stream.again()
        self._dirty[relay.lease_id] = relay

    def _forget_way(self, submitter: bytes) -> None:
        """If it has a lease after all, it begins anew."""
        way = self._ways.pop(submitter, None)
        if way is not None:
            self._submitters.pop(way.peer, None)

    def lost(self, peer: str) -> None:
        """That connection has ended."""
        self.outbox.discard(peer)
        submitter = self._submitters.pop(peer, None)
        if submitter is not None and submitter not in self._of_submitter:
            self._ways.pop(submitter, None)

    def new_session(self) -> None:
        """What the head was to pass on may be lost."""
        for submitter, way in self._ways.items():
            if way.peer == BY_HEAD:
                for relay in self._of_submitter.get(submitter, {}).values():
                    self._say_again(relay)

    # ---- from submitters -------------------------------------------------------------------

    def on_relay(self, peer: str, message: m.Relay) -> None:
        """Something for a leased worker came in at this node's port."""
        submitter = self._submitters.get(peer)
        if submitter is None:
            self.outbox.send(peer, m.Rejoin(0, "say HELLO first"))
        elif message.source != submitter:
            self._refuse(peer, message, m.FORBIDDEN, "it is not for you to say that")
        elif message.path == self._ways[submitter].path:
            self._hear(peer, message)

    def on_relay_by_head(self, message: m.Relay) -> None:
        """The same by way of the head, which knows who says it."""
        way = self._ways.get(message.source)
        if way is None or way.path < message.path:
            way = Way(message.path, BY_HEAD)
            self._take_way(message.source, way)
        if way == (message.path, BY_HEAD):
            self._hear(BY_HEAD, message)

    def _hear(self, peer: str, message: m.Relay) -> None:
        relay = self._relays.get(message.lease_id)
        if relay is None:
            lease = self._held(message.lease_id)
            if lease is None or lease.submitter != message.source or message.first > 1:
                text = "no worker of this node is leased to you under that id"
                self._refuse(peer, message, m.FORBIDDEN, text)
                return
            relay = self._begin(lease)
        elif relay.submitter != message.source:
            self._refuse(peer, message, m.FORBIDDEN, "that lease is not yours")
            return
        self._dirty[relay.lease_id] = relay
        try:
            for kind, data in relay.stream.hear(message):
                self._obey(relay, kind, data)
        except ProtocolError as error:
            self._forget(relay)
            self._refuse(peer, message, error.code, str(error))
            return
        if relay.held and relay.stream.unheard_bytes < limits.LEASE_SAID_BYTES_MAX // 2:
            relay.held = False
            self.links.hold(relay.lease_id, False)

    def _begin(self, lease: m.HeldLease) -> RelayedLease:
        relay = self._relays[lease.lease_id] = RelayedLease(lease)
        self._of_submitter.setdefault(lease.submitter, {})[lease.lease_id] = relay
        relay.begun = relay.open = self.links.connect(lease)
        if not relay.open:
            relay.stream.say(m.WORD_ENDED, b"its socket cannot be reached")
        return relay

    def _refuse(self, peer: str, message: m.Relay, code: str, text: str) -> None:
        to = (message.target, message.source, message.lease_id)
        refusal = m.RelayRefused(0, *to, code, text)
        if peer == BY_HEAD:
            self._tell_head(refusal)
        else:
            self.outbox.send(peer, refusal)

    def _obey(self, relay: RelayedLease, kind: int, data: bytes) -> None:
        lease_id, links = relay.lease_id, self.links
        if kind == m.WORD_CLOSE:
            self._close(relay)
        elif kind == m.WORD_RECALL:
            self._give_back(relay, always=True)
        elif kind == m.WORD_TASKS and relay.open:
            if not links.put(lease_id, data):
                relay.stream.say(m.WORD_FULL, _ids(data))
        elif kind == m.WORD_TASKS and not relay.begun:
            relay.stream.say(m.WORD_RETURNED, _ids(data))
        elif (
            kind == m.WORD_PAYLOAD
            and relay.open
            and links.send(lease_id, data) > limits.LEASE_SAID_BYTES_MAX
        ):
            raise ProtocolError("the worker does not read what it is told")

    def _give_back(self, relay: RelayedLease, *, always: bool) -> None:
        """What the worker has not taken out of its queue."""
        packets = self.links.take(relay.lease_id) if relay.begun else []
        ids = b"".join(map(_ids, packets))
        if ids or always:
            relay.stream.say(m.WORD_RETURNED, ids)

    def _close(self, relay: RelayedLease) -> None:
        """The submitter wants nothing of it any more; that this has come it hears once."""
        way = self._ways.get(relay.submitter)
        if way is not None:
            last = self._message(relay, way)
            if way.peer == BY_HEAD:
                self._tell_head(last)
            else:
                self.outbox.send(way.peer, last)
        self._forget(relay)

    def _forget(self, relay: RelayedLease) -> None:
        lease_id = relay.lease_id
        del self._relays[lease_id]
        self._dirty.pop(lease_id, None)
        theirs = self._of_submitter[relay.submitter]
        del theirs[lease_id]
        if not theirs:
            del self._of_submitter[relay.submitter]
        if relay.begun:
            self.links.close(lease_id)

    # ---- from workers ----------------------------------------------------------------------

    def said(self, lease_id: bytes, payload: bytes) -> None:
        """A leased worker has said something to its submitter."""
        relay = self._relays.get(lease_id)
        if relay is None:
            return
        relay.stream.say(m.WORD_PAYLOAD, payload)
        self._dirty[lease_id] = relay
        if not relay.held and relay.stream.unheard_bytes > limits.LEASE_SAID_BYTES_MAX:
            relay.held = True
            self.links.hold(lease_id, True)

    def ended(self, lease_id: bytes) -> None:
        """A leased worker has closed its stream, or died."""
        relay = self._relays.get(lease_id)
        if relay is not None and relay.open:
            relay.open = False
            self._give_back(relay, always=False)
            relay.stream.say(m.WORD_ENDED)
            self._dirty[lease_id] = relay

    def conclude(self, lease_id: bytes) -> int:
        """The lease is over: number of the last word that its submitter gets before it ends."""
        relay = self._relays.get(lease_id)
        if relay is None:
            return 0
        if relay.open:
            self.links.read(lease_id)
            self._give_back(relay, always=False)
        self._dirty[lease_id] = relay
        return relay.stream.last

    def job_ended(self, job_id: bytes) -> None:
        """Its driver has ended, or wants nothing any more."""
        for relay in [*self._of_submitter.get(job_id, {}).values()]:
            self._forget(relay)
        self._forget_way(job_id)

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Once a turn: say what is to be said."""
        while self._dirty:
            _, relay = self._dirty.popitem()
            way = self._ways.get(relay.submitter)
            if way is None or not relay.stream.due():
                continue  # what is kept is said by the next way, or with what comes next
            if way.peer == BY_HEAD:
                self._tell_head(self._message(relay, way))
            else:
                self.outbox.send(way.peer, self._message(relay, way))

    def _message(self, relay: RelayedLease, way: Way) -> m.Relay:
        return relay.stream.take(self._node_id, relay.submitter, relay.lease_id, way.path)


def _ids(packet: bytes) -> bytes:
    """The ids of the tasks in a packet; none, if its submitter has sent something else."""
    try:
        messages = codec.decode(packet).messages
    except ProtocolError:
        return b""
    tasks = [task for message in messages if isinstance(message, m.Tasks) for task in message.tasks]
    return b"".join(task.spec.task_id for task in tasks)
