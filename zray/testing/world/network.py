"""A network that behaves as ZeroMQ's DEALER and ROUTER do over TCP. Owns connections, no process.

Per connection the order is kept; what is lost is a suffix, at its cut; a peer that connects again
has another route; what is sent to an unknown route is refused. tests/runtime/test_zmq_facts.py
shows each of these on real sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from zray import limits
from zray.protocol import codec, splitting
from zray.protocol.messages import Hello, Message, Ping, Pong, Refused, Welcome
from zray.testing.world.clock import Clock
from zray.testing.world.errors import Violation

REMEMBERED = 20  # payloads of each peer and direction that can arrive once more
Trap = Callable[["Link", bool, list[Message]], bool]


class Router(Protocol):
    """The head's side of the network. ``frozen_until``: its process does nothing until then."""

    frozen_until: float

    def arrived(self, route: bytes, payload: bytes) -> None:
        """A payload came in."""

    def lost(self, route: bytes) -> None:
        """The transport noticed that a connection is cut."""


class Dealer(Protocol):
    """A peer's side of the network."""

    name: str

    def received(self, link: Link, payload: bytes) -> None:
        """A payload came in."""

    def cut(self, link: Link) -> None:
        """The transport noticed that the connection is cut."""


class Link:
    """One connection between a peer and one head process, from CONNECT to its end."""

    def __init__(self, peer: Dealer, head: Router, route: bytes) -> None:
        self.peer = peer
        self.head = head
        self.route = route
        self.reached = False  # the peer knows that somebody is there
        self.broken = False  # nothing passes any more, whether noticed or not
        self.peer_open = True  # the peer has not closed it, and knows of no cut
        self.head_open = True
        self.silent = False  # half-open: what is sent is lost without a word
        self.fragile = False  # it is cut at the next batch of several payloads, after the first
        self.ending = False  # what is under way still arrives, and nothing after it
        self.sent = {True: 0.0, False: 0.0}  # when the last payload was sent
        self.held_until = 0.0  # a blackout shorter than the transport's heartbeat
        self.last = {True: 0.0, False: 0.0}  # when the last payload arrives: upwards, downwards
        self.under_way: dict[bool, deque[bytes]] = {True: deque(), False: deque()}


class _Nobody:
    """Where nothing comes back from."""

    frozen_until = float("inf")

    def arrived(self, route: bytes, payload: bytes) -> None:
        """Nothing does."""

    def lost(self, route: bytes) -> None:
        """Nobody notices."""


NOBODY = _Nobody()


class Network:
    """Connections between heads and their peers.

    Attributes:
        head: who listens, where there is one head at a time.
        former: who still does, though another head does by now.
        listeners: who listens where, where there are several heads.
        unreachable: addresses that nothing comes back from.
    """

    def __init__(self, clock: Clock, random: Random, latency_s: float) -> None:
        self.clock = clock
        self.latency_s = latency_s
        self.links: dict[bytes, Link] = {}
        self.head: Router | None = None
        self.former: Router | None = None
        self.listeners: dict[str, Router] = {}
        self.unreachable: set[str] = set()
        self.traps: list[tuple[Trap, bool]] = []  # True: what was sent before still arrives
        self.delivered = 0
        self._random = random
        self._routes = 0
        self._said: dict[tuple[str, bool], deque[bytes]] = {}  # by peer and direction, the last

    # ---- connections -----------------------------------------------------------------------

    def connect(self, peer: Dealer, address: str = "") -> Link | None:
        """A new connection under a new route; None: nothing listens.

        ``address``: of which head; empty: there is one.
        """
        head = self.listeners.get(address, self.head)
        silent = address in self.unreachable
        if head is None and not silent:
            return None
        self._routes += 1
        if self.former is not None and self._random.random() < 0.3:
            head = self.former
        link = Link(peer, head or NOBODY, b"route" + self._routes.to_bytes(3, "big"))
        link.silent = silent
        link.reached = not silent and link.head.frozen_until <= self.clock.now
        self.links[link.route] = link
        return link

    def name_of(self, route: bytes) -> str:
        """Who is behind a route."""
        link = self.links.get(route)
        return link.peer.name if link is not None else f"route {route[5:].hex()}"

    def close(self, link: Link) -> None:
        """The peer closes its socket: what is on the way is lost, and the head soon notices."""
        link.peer_open = False
        self.sever(link, head_s=self._random.uniform(0.001, 0.05))

    def refuse(self, head: Router) -> None:
        """The head's process has ended: all its connections are reset."""
        if self.head is head:
            self.head = None
        if self.former is head:
            self.former = None
        for address in [where for where, who in self.listeners.items() if who is head]:
            del self.listeners[address]
        self.hang_up(head)

    def hang_up(self, head: Router) -> None:
        """A head closes all its connections."""
        for link in [link for link in self.links.values() if link.head is head]:
            link.head_open = False
            self.sever(link, peer_s=self._random.uniform(0.0005, 0.01))

    def sever(
        self, link: Link, *, peer_s: float | None = None, head_s: float | None = None
    ) -> None:
        """Cut a connection now; each side notices after its time."""
        if not link.broken:
            self.clock.tell(f"connection of {link.peer.name} ({link.route[5:].hex()}) is cut")
        link.broken = True
        if link.peer_open:
            self.clock.after(peer_s or self._notice(), self._tell_peer, link)
        if link.head_open:
            self.clock.after(head_s or self._notice(), self._tell_head, link)

    def go_silent(self, link: Link) -> None:
        """Half-open: both ends believe in the connection until the heartbeats of one tell it."""
        link.silent = True
        self.clock.tell(f"connection of {link.peer.name} goes silent")
        timeout = limits.TRANSPORT_HEARTBEAT_TIMEOUT_S + self._random.uniform(0.0, 2.0)
        self.clock.after(timeout, self._heartbeat_missed, link)

    def hold(self, link: Link, seconds: float) -> None:
        """A blackout too short to be noticed: everything comes later."""
        link.held_until = max(link.held_until, self.clock.now + seconds)
        self.clock.tell(f"connection of {link.peer.name} stalls for {seconds:.2f} s")

    def _heartbeat_missed(self, link: Link) -> None:
        if not link.broken and link.silent:
            self.sever(link)

    def _notice(self) -> float:
        return self._random.uniform(0.0005, 0.03)

    def _tell_peer(self, link: Link) -> None:
        if link.peer_open:
            link.peer_open = False
            link.peer.cut(link)

    def _tell_head(self, link: Link) -> None:
        if link.head_open:
            link.head_open = False
            self.links.pop(link.route, None)
            link.head.lost(link.route)

    # ---- payloads --------------------------------------------------------------------------

    def up(self, link: Link, payload: bytes) -> None:
        """From a peer to the head."""
        self._send(link, True, payload)

    def down(self, route: bytes, payload: bytes) -> bool:
        """From the head to a peer; False: the route is unknown."""
        link = self.links.get(route)
        if link is None or not link.head_open:
            return False
        self._send(link, False, payload)
        return True

    def _send(self, link: Link, upwards: bool, payload: bytes) -> None:
        check(payload)
        if link.broken or link.silent or link.ending:
            return
        if self.traps and self._sprung(link, upwards, payload):
            return
        if link.fragile and link.sent[upwards] == self.clock.now:
            self._end(link)
            return
        link.sent[upwards] = self.clock.now
        said = self._said.setdefault((link.peer.name, upwards), deque(maxlen=REMEMBERED))
        said.append(payload)
        self._put(link, upwards, payload)

    def _put(self, link: Link, upwards: bool, payload: bytes) -> None:
        delay = self.latency_s * self._random.uniform(0.5, 2.0) + len(payload) * 1e-9
        when = max(link.last[upwards], self.clock.now + delay, link.held_until)
        link.last[upwards] = when
        link.under_way[upwards].append(payload)
        self.clock.at(when, self._deliver, link, upwards)

    def replay(self, epoch: int, random: Random) -> None:
        """Some of what was sent before this epoch arrives once more, in sessions that are of it.

        But for what begins and refuses sessions: that is of no epoch.
        """
        for link in [*self.links.values()]:
            heard = self._said.get((link.peer.name, False))
            if not heard or codec.decode(heard[-1]).epoch < epoch:
                continue  # a head that has been replaced still serves it
            for upwards in (True, False):
                old = []
                for data in self._said.get((link.peer.name, upwards), ()):
                    payload = codec.decode(data)
                    timeless = any(
                        isinstance(msg, Hello | Welcome | Refused) for msg in payload.messages
                    )
                    if payload.epoch < epoch and not timeless:
                        old.append(data)
                if old and not (link.broken or link.silent) and random.random() < 0.5:
                    self.clock.tell(f"{link.peer.name} and the past: {len(old)} payloads again")
                    for data in random.sample(old, min(3, len(old))):
                        self._put(link, upwards, data)

    def _sprung(self, link: Link, upwards: bool, payload: bytes) -> bool:
        messages = codec.decode(payload).messages
        for place, (trap, behind) in enumerate(self.traps):
            if trap(link, upwards, messages):
                del self.traps[place]
                if behind:
                    self._end(link)
                else:
                    self.sever(link)
                return True
        return False

    def _end(self, link: Link) -> None:
        """Cut a connection behind what is under way."""
        link.ending = True
        self.clock.at(max(link.last.values()), self.sever, link)

    def _deliver(self, link: Link, upwards: bool) -> None:
        if link.broken or link.silent:
            return
        if self.clock.now < link.held_until:
            link.last[upwards] = max(link.last[upwards], link.held_until)
            self.clock.at(link.last[upwards], self._deliver, link, upwards)
            return
        payload = link.under_way[upwards].popleft()
        self.delivered += 1
        if upwards:
            link.head.arrived(link.route, payload)
        elif link.peer_open:
            link.peer.received(link, payload)


def check(payload: bytes) -> None:
    """The transport cuts the connection, or the receiver refuses, what is larger than it takes.

    Raises:
        Violation: this is.
    """
    if len(payload) > limits.FRAME_BYTES_MAX:
        kinds = in_words(codec.decode(payload))
        raise Violation(f"a payload of {len(payload)} bytes does not fit into a frame: {kinds}")
    messages = codec.decode(payload).messages
    count = sum(map(splitting.items, messages))
    if count > limits.PAYLOAD_ITEMS_MAX and (len(messages) > 1 or splitting.cut(messages[0], 2)):
        raise Violation(f"a payload has {count} items: {in_words(codec.decode(payload))}")


def in_words(payload: codec.Payload) -> str:
    """``Submit Hold*2``: what a payload carries beside PING and PONG, for the story."""
    parts: list[str] = []
    last, count = "", 0
    shown = [msg for msg in payload.messages if not isinstance(msg, Ping | Pong)]
    for message in [*shown, None]:
        kind = type(message).__name__ if message is not None else ""
        if kind == last:
            count += 1
            continue
        if last:
            parts.append(last if count == 1 else f"{last}*{count}")
        last, count = kind, 1
    return " ".join(parts)
