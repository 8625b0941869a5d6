"""The TrafficController: the GCS's mailbox. It lets through what a peer may say, and no more.

Anything but HELLO from an unknown routing id, or under another epoch, is answered with REJOIN and
ignored. Which machine then gets a message is the table in `gcs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.core.head.members import Member, Members
from zray.core.head.roles import FORBIDDEN, SPEAKS_FOR, VERBS
from zray.core.head.sessions import Newcomer, Session, Sessions
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.prints import Prints
from zray.errors import InternalFaultError, ProtocolError
from zray.protocol import messages as m
from zray.protocol.codec import Payload
from zray.protocol.splitting import JOINED

# The machine's method for a kind of message: from whom (of HELLO a Newcomer, else a member), what,
# and when.
Handler = Callable[[Any, Any, float], None]


class TrafficController:
    """``routed``: answers, by route. ``handlers``: for every message that any role may say.

    Attributes:
        rejected: how many messages were not handled, by why.
    """

    def __init__(
        self,
        *,
        epoch: int,
        handlers: dict[type[m.Message], Handler],
        routed: Outbox[bytes],
        members: Members,
        sessions: Sessions,
        prints: Prints,
        incidents: Incidents,
    ) -> None:
        self._epoch = epoch
        self.handlers = handlers
        self._routed = routed
        self._members = members
        self._sessions = sessions
        self._prints = prints
        self._incidents = incidents
        self.rejected = dict.fromkeys(("no_session", "epoch", "role", "malformed", "fault"), 0)

    def receive(self, route: bytes, user: str, payload: Payload, now: float) -> None:
        """One payload of a peer. ``user``: whom its key belongs to, as the transport says."""
        by_route, prints = self._sessions.by_route, self._prints
        session = by_route.get(route)
        for message in payload.messages:
            kind = type(message)
            if isinstance(message, m.Hello):
                self._greet(Newcomer(route, user, payload.epoch), message, now)
                session = by_route.get(route)
            elif session is None or session.user != user or session.member.ended:
                self.rejected["no_session"] += 1
                self._routed.send(route, m.Rejoin(0, "no session: say HELLO first"))
                return
            elif payload.epoch != self._epoch:
                self.rejected["epoch"] += 1
                self._routed.send(route, m.Rejoin(0, f"the epoch is {self._epoch} now"))
                return
            elif kind not in VERBS[session.role]:
                self.rejected["role"] += 1
                text = f"{kind.__name__} is not for this role"
                self._routed.send(route, m.Rejected(0, message.seq, FORBIDDEN, text))
            elif (
                session.own
                and kind in SPEAKS_FOR
                and getattr(message, SPEAKS_FOR[kind]) not in session.own
            ):
                self.rejected["role"] += 1
                text = f"a {kind.__name__} of another process is not for a driver"
                self._routed.send(route, m.Rejected(0, message.seq, FORBIDDEN, text))
            else:
                session.member.heard = now
                if prints.unread_bytes:
                    prints.heard(session.member.process_id)
                try:
                    if kind in JOINED:
                        self._join(session, message, now)
                    else:
                        self.handlers[kind](session.member, message, now)
                except Exception as error:
                    self._failed(route, session.member, message, error, now)
                    if route not in by_route:
                        return  # what follows comes again
        for bad in payload.refused:
            self.refuse(route, bad.seq, bad.text)

    def _join(self, session: Session, message: m.Message, now: float) -> None:
        """It may be a part: the whole is handled when its last part has come."""
        try:
            whole = session.joiner.take(message)
        except ProtocolError as error:
            self.refuse(session.route, message.seq, str(error))
            return
        if whole is not None:
            self.handlers[type(message)](session.member, whole, now)

    def _greet(self, newcomer: Newcomer, hello: m.Hello, now: float) -> None:
        try:
            self.handlers[m.Hello](newcomer, hello, now)
        except Exception as error:
            info = hello.node or hello.job
            whom = f"a peer on {info.host}" if info is not None else "an observer"
            said = self._incidents.record("handling a Hello message", whom, error, now)
            self._routed.send(newcomer.route, m.Refused(0, InternalFaultError.code, said))

    def _failed(
        self, route: bytes, member: Member, message: m.Message, error: Exception, now: float
    ) -> None:
        """One message could not be handled: its sender is told, and the others' go on.

        A member begins a new session, in which it tells all that it has and asks for. If that fails
        as well, the message fails what it is of.
        """
        self.rejected["fault"] += 1
        kind = type(message).__name__
        whom = member.in_words()
        said = self._incidents.record(f"handling a {kind} message", whom, error, now)
        text = f"the head failed to handle a {kind} message: {said}; its log has more"
        is_member = self._members.member(member.process_id) is member
        if is_member and member.fresh_start.allowed(kind, now):
            self._sessions.link_lost(route, now, "fault")
            self._routed.send(route, m.Rejoin(0, text))
        else:
            self._routed.send(route, m.Rejected(0, message.seq, InternalFaultError.code, text))

    def refuse(self, route: bytes, about: int, text: str) -> None:
        """A message of this peer could not be read; it is told so, nothing else happens."""
        self.rejected["malformed"] += 1
        self._routed.send(route, m.Rejected(0, about, ProtocolError.code, text))
