"""What a head says while it does not lead: who does, as far as it knows, to whoever says HELLO.

Owns nothing of the cluster's state. Where no head leads just now a peer may wait here for a moment:
mostly another leads at once, and who waited need not come again.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.errors import NoLeaderError
from zray.protocol import messages as m
from zray.protocol.codec import Payload, Unsent
from zray.protocol.head_messages import HeadInfo, NotLeader
from zray.protocol.versions import SINCE


class Leading(NamedTuple):
    """What is known of who leads.

    ``epoch``: the largest that is known. ``heads``: all, in any order. ``trouble``: why none leads,
    or why that is not known any more; for people.
    """

    leader: HeadInfo | None = None
    epoch: int = 0
    heads: tuple[HeadInfo, ...] = ()
    trouble: str = ""

    def ordered(self) -> list[HeadInfo]:
        """All heads, the leader first, and that alone marked as leading."""
        return ordered(self.leader, self.heads)

    def in_words(self) -> str:
        """Who leads, for people."""
        if self.leader is not None and self.trouble:
            return f"{in_words(self.leader)} led when that was last known: {self.trouble}"
        if self.leader is not None:
            return f"{in_words(self.leader)} leads (epoch {self.epoch})"
        return f"no head leads now{': ' if self.trouble else ''}{self.trouble}"


class Greeting(NamedTuple):
    """A HELLO that waits for a leader, as it came over its connection."""

    route: bytes
    user: str
    payload: Payload
    since: float


class Standby:
    """One head while it stands by. A shell hands payloads in and sends what is ``routed``.

    Every payload is answered with one NOT_LEADER at most (REFUSED to a peer that does not know that
    message), and each connection a few times at most.

    Attributes:
        epoch: of what it sends; 0: it knows of no leader.
    """

    def __init__(self) -> None:
        self.routed: Outbox[bytes] = Outbox()
        self.known = Leading()
        self._answered: dict[bytes, int] = {}  # route -> how often
        self._waiting: dict[bytes, Greeting] = {}
        self._older: set[bytes] = set()  # routes of those that know one head only

    @property
    def epoch(self) -> int:
        """As above."""
        return self.known.epoch

    # ---- what the shell tells ----------------------------------------------------------------

    def learn(self, known: Leading) -> None:
        """Who leads now. Whoever waited for a leader hears of it."""
        self.known = known
        if known.leader is not None:
            for greeting in self.take_waiting():
                self._answer(greeting.route)

    def take_waiting(self) -> list[Greeting]:
        """Those who wait for a leader; the caller answers them from now on."""
        waiting = [*self._waiting.values()]
        self._waiting.clear()
        return waiting

    def receive(self, route: bytes, user: str, payload: Payload, now: float) -> None:
        """One payload of a peer, whatever is in it."""
        hellos = [message for message in payload.messages if isinstance(message, m.Hello)]
        greets = bool(hellos)
        if greets and hellos[-1].minor < SINCE[NotLeader]:
            self._older.add(route)
        waits = self.known.leader is None and greets and route not in self._answered
        if waits and len(self._waiting) < limits.STANDBY_GREETINGS_MAX:
            self._waiting.setdefault(route, Greeting(route, user, payload, now))
        if route not in self._waiting:
            self._answer(route)

    def refuse(self, route: bytes, about: int, text: str) -> None:
        """What this peer says cannot be read; who leads is all that there is to say to it."""
        self._answer(route)

    def too_large(self, route: bytes, unsent: list[Unsent]) -> None:
        """The answer has no message that carries it: the heads are left out of the next."""
        self.known = self.known._replace(heads=())

    def link_lost(self, route: bytes, now: float) -> None:
        """A connection is cut."""
        self._answered.pop(route, None)
        self._waiting.pop(route, None)
        self._older.discard(route)
        self.routed.discard(route)

    def settle(self, now: float) -> None:
        """Who has waited long enough hears that none leads."""
        for greeting in [*self._waiting.values()]:
            if now - greeting.since < limits.STANDBY_HOLD_S:
                return  # later ones have waited less
            del self._waiting[greeting.route]
            self._answer(greeting.route)

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        first = next(iter(self._waiting.values()), None)
        return first.since + limits.STANDBY_HOLD_S if first is not None else NEVER

    # ---- answers -----------------------------------------------------------------------------

    def _answer(self, route: bytes) -> None:
        count = self._answered.get(route, 0)
        if count >= limits.STANDBY_ANSWERS_MAX:
            return  # it does not go, though it was told; the connection costs nothing more
        self._answered[route] = count + 1
        known = self.known
        text = f"this head stands by; {known.in_words()}"[: limits.TEXT_MAX]
        answer: m.Message = NotLeader(0, known.epoch, known.ordered(), text)
        if route in self._older:
            answer = m.Refused(0, NoLeaderError.code, text)
        self.routed.send(route, answer)


def ordered(leader: HeadInfo | None, heads: tuple[HeadInfo, ...]) -> list[HeadInfo]:
    """All heads, the leader first, and that alone marked as leading; as many as a message takes."""
    found = [] if leader is None else [replace(leader, leads=True)]
    for head in heads:
        if leader is None or head.head_id != leader.head_id:
            found.append(replace(head, leads=False))
    return found[: limits.HEADS_MAX]


def in_words(head: HeadInfo) -> str:
    """A head, for people."""
    return head.addresses[0] if head.addresses else f"pid {head.pid} on {head.host}"
