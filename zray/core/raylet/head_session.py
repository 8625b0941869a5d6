"""A raylet's session with the head: how it begins and ends, what is said in it, the lease by it.

Owns which head and epoch this node follows, and whether there is a session now. What a message
means is its handler's business; that the full state is told anew in each session, the Raylet's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray import limits
from zray.core.incidents import FreshStart, Incidents
from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER, Outbox
from zray.core.prints import Prints
from zray.protocol import messages as m
from zray.protocol.codec import Payload
from zray.protocol.splitting import JOINED, Joiner
from zray.protocol.versions import unfit

HEAD = b""  # the head's place in the outbox; workers are there by id

HeadHandlers = dict[type[m.Message], Callable[[Any, float], None]]


class HeadSession:
    """The only way from a raylet to the head.

    Args:
        welcomed: a session has begun: the head is to hear everything.
        fenced: the head has declared this incarnation of the node dead.

    Attributes:
        head_id: of the head that it was welcome to last; ``head_minor``: its protocol's.
        known_heads: where heads are, and which is next.
        refused: why this session is to end, or there is none.
        lease_until: until then, what the head might start elsewhere as soon as it takes this node
            for dead may serve here. Later than any PING, which it then counts from, by DEAD_S.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        incidents: Incidents,
        welcomed: Callable[[], None],
        fenced: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._incidents = incidents
        self._welcomed = welcomed
        self._fenced = fenced
        self.cluster_id = b""
        self.head_id = b""
        self.epoch = 0
        self.known_heads = KnownHeads()
        self.head_minor = m.PROTOCOL_MINOR
        self.refused: m.Refused | None = None
        self._fresh_start = FreshStart()
        self._heard = 0.0
        self._joiner = Joiner()  # of what the head sends
        self._prints = Prints()
        self._sounding = False  # the head was asked for a word, that more may be printed
        self.start_over({})

    def start_over(self, handlers: HeadHandlers) -> None:
        """An incarnation begins, without a session; ``handlers`` take what the head will say."""
        self.handlers: HeadHandlers = {
            **handlers,
            m.HeadsChanged: lambda message, now: self.known_heads.changed(message.heads),
            m.SteppingDown: lambda message, now: self.known_heads.steps_down(message),
        }
        self.linked = False
        self.lease_until = 0.0
        self._ping_at = 0.0

    # ---- to the head -----------------------------------------------------------------------

    def tell(self, message: m.Message) -> None:
        """Say it, if there is a session: a new one is told the full state anyway."""
        if self.linked:
            self._outbox.send(HEAD, message)

    def log(self, message: m.Log) -> None:
        """Pass on what a worker printed, as far as the head keeps up with reading it."""
        if self.linked and (lines := self._prints.take(HEAD, message.lines)):
            message.lines = lines
            self._outbox.send(HEAD, message)
            if self._prints.unread_bytes >= limits.LOG_ACK_BYTES and not self._sounding:
                self._sounding = True
                self._ping_at = 0.0

    def ping(self, now: float) -> None:
        """Once a turn: show that this node lives, when it is time to."""
        if self.linked and now >= self._ping_at:
            self._ping_at = now + limits.PING_S
            self._outbox.send(HEAD, m.Ping(0, now, self._incidents.trouble(now)))
            self.known_heads.asked(now)

    def deadline(self) -> float:
        """When that is."""
        return self._ping_at if self.linked else NEVER

    # ---- from the head ---------------------------------------------------------------------

    def silent_since(self) -> float:
        """When the head was last heard of."""
        return self._heard

    def disconnected(self) -> None:
        """The link to the head is cut; a new session tells all anew."""
        self.linked = False
        self._outbox.discard(HEAD)
        self._prints.heard(HEAD)
        self._joiner.clear()

    def receive(self, payload: Payload, now: float) -> None:
        """One payload from the head."""
        self._heard = now
        self.known_heads.heard()
        if self.linked and self.refused is not None:
            return  # this session is about to end
        self._prints.heard(HEAD)
        self._sounding = False
        for message in payload.messages:
            kind = type(message)
            handler = self.handlers.get(kind)
            if handler is None or not self.linked or payload.epoch < self.epoch:
                self._of_session(message, payload.epoch, now)
                continue
            try:
                whole = self._joiner.take(message) if kind in JOINED else message
                if whole is not None:
                    handler(whole, now)
            except Exception as error:
                name = kind.__name__
                self._incidents.record(f"handling a {name} message", "the head", error, now)
                if self._fresh_start.allowed(name, now):  # who has what is told anew
                    self.refused = m.Refused(0, "", f"a {name} message was lost here")
                    return

    def on_pong(self, message: m.Pong, now: float) -> None:
        """The head has heard a PING of ours."""
        self.lease_until = message.sent_s + limits.ACTOR_LEASE_S

    def _of_session(self, message: m.Message, epoch: int, now: float) -> None:
        """What begins or ends a session, or is of none."""
        if isinstance(message, m.Welcome):
            self._on_welcome(message, epoch, now)
        elif isinstance(message, m.Refused):
            self._on_refused(message)
        elif isinstance(message, m.NotLeader):
            self.refused = self.known_heads.not_leader(message)
        elif isinstance(message, m.Rejected) and not self.linked:  # its HELLO
            self._on_refused(m.Refused(0, message.code, message.text))
        elif isinstance(message, m.Rejoin) or epoch < self.epoch:
            self.refused = m.Refused(0, "", "the head asked for a new session")

    def _on_welcome(self, message: m.Welcome, epoch: int, now: float) -> None:
        self.refused = unfit(message, epoch, self.epoch)
        if self.refused is not None:
            return
        self.epoch = epoch
        self.cluster_id = message.cluster_id
        self.head_id = message.head_id
        self.known_heads.welcomed(message.heads, epoch)
        self.head_minor = message.minor
        self.linked = True
        self._ping_at = now  # at once: actors here serve by its answer
        self._welcomed()

    def _on_refused(self, message: m.Refused) -> None:
        self.refused = message
        if message.code == m.FENCED:
            self._fenced()
