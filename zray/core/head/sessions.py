"""Sessions of peers: how one begins with HELLO, by which route its messages go, how it ends.

A session is one routing id bound to one authenticated user. What members have to say in it is none
of its business; what it means that one joins or is lost is `membership`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zray import limits
from zray.core.head.admission import Admission
from zray.core.head.control_store import ControlStore
from zray.core.head.departures import Departures
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import JobMember, Member, Members, NodeMember
from zray.core.head.membership import Membership
from zray.core.head.notices import Notices
from zray.core.head.succession import Succession
from zray.core.machine import Outbox
from zray.errors import StoreError
from zray.protocol import messages as m
from zray.protocol.splitting import Joiner
from zray.protocol.versions import known

HEAD_FEATURES = ["tasks"]


class Newcomer(NamedTuple):
    """Who says HELLO: a connection, whom its key belongs to, and the epoch that it knows."""

    route: bytes
    user: str
    epoch: int


class Session:
    """One connection, from its HELLO on."""

    __slots__ = ("joiner", "member", "minor", "own", "role", "route", "user")

    def __init__(self, route: bytes, user: str, hello: m.Hello, member: Member) -> None:
        self.route = route
        self.user = user
        self.role = hello.role
        self.minor = hello.minor
        self.member = member
        # A driver speaks for itself alone: what it held for others would stay for ever.
        self.own = (member.process_id, b"") if hello.role == m.ROLE_DRIVER else ()
        self.joiner = Joiner()


class Sessions:
    """``outbox``: by process. ``routed``: by route, for the shell.

    Attributes:
        reconnects: how many sessions followed another of their process, by why that had ended.
        refused: how many peers were not let in, by the code that they were told.
    """

    def __init__(
        self,
        *,
        identity: HeadIdentity,
        store: ControlStore,
        notices: Notices,
        outbox: Outbox[bytes],
        routed: Outbox[bytes],
        members: Members,
        admission: Admission,
        membership: Membership,
        departures: Departures,
        succession: Succession,
    ) -> None:
        self._identity = identity
        self._store = store
        self._notices = notices
        self._outbox = outbox
        self._routed = routed
        self._members = members
        self._admission = admission
        self._membership = membership
        self._departures = departures
        self._succession = succession
        self.by_route: dict[bytes, Session] = {}
        self.routes: dict[bytes, bytes] = {}  # process -> route
        self.stopping = ""  # why the whole cluster is to stop
        self.reconnects: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self._observers: dict[bytes, Member] = {}
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.Hello: self.on_hello,
            m.Goodbye: self.on_goodbye,
            m.Shutdown: self.on_shutdown,
            **succession.handlers,
        }
        succession.members = self.routes.keys
        self._greeting: dict[bytes, bytes] = {}  # route -> process, until it is welcome

    # ---- begin -----------------------------------------------------------------------------

    def on_hello(self, newcomer: Newcomer, hello: m.Hello, now: float) -> None:
        """A peer says who it is: it is refused, or welcome once that is durable."""

        def certain(now: float) -> None:
            self._greet(newcomer, hello, now)

        if not self._succession.doubted(newcomer.route, newcomer.epoch, certain):
            certain(now)

    def _greet(self, newcomer: Newcomer, hello: m.Hello, now: float) -> None:
        """This head leads, whatever epoch the peer knows."""
        route = newcomer.route
        refusal = self._admission.objection(hello, newcomer.epoch)
        if refusal is not None:
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            self._routed.send(route, refusal)
            return
        old = self.routes.get(hello.process_id)
        if old is not None and old != route:
            self.link_lost(old, now, "replaced")  # the process has left that connection behind
        for earlier in [r for r, process in self._greeting.items() if process == hello.process_id]:
            del self._greeting[earlier]
        self._greeting[route] = hello.process_id

        def welcome(now: float) -> None:
            self._welcome(newcomer, hello, now)

        if hello.role == m.ROLE_NODE:
            self._membership.node_joins(hello, now, welcome)
        elif hello.role == m.ROLE_DRIVER:
            self._membership.job_joins(hello, now, welcome)
        else:
            observer = Member(hello.process_id, hello.incarnation, now)
            self._observers[hello.process_id] = observer
            welcome(now)

    def _welcome(self, newcomer: Newcomer, hello: m.Hello, now: float) -> None:
        route = newcomer.route
        if self._greeting.pop(route, None) != hello.process_id:
            return  # the connection was cut, or another HELLO came, while a row was stored
        member = self._members.member(hello.process_id)
        if hello.role == m.ROLE_OBSERVER:
            member = self._observers[hello.process_id]
        if member is None:
            return
        cause = member.lost_by or ("head_restart" if newcomer.epoch else "")
        if cause and hello.role != m.ROLE_OBSERVER:
            self.reconnects[cause] = self.reconnects.get(cause, 0) + 1
        member.zray = hello.versions.zray
        self._membership.session_begins(member, now)
        self.by_route[route] = Session(route, newcomer.user, hello, member)
        self.routes[hello.process_id] = route
        answer = m.Welcome(
            *(0, m.PROTOCOL_VERSION, self._identity.cluster_id),
            *(limits.FRAME_BYTES_MAX, limits.PING_S, HEAD_FEATURES),
            head_id=self._identity.head_id,
            minor=m.PROTOCOL_MINOR,
            zray=self._identity.versions.zray,
            heads=self._succession.heads,
        )
        self._routed.send(route, answer)

    def store_stalls(self, trouble: str) -> None:
        """Nothing becomes durable (``trouble`` says why), or it does again: who waits is told.

        A newcomer cannot be stored, so it is refused rather than left to wait; what members asked
        for is done once it can be stored.
        """
        if trouble == self._store.trouble:
            return
        self._store.trouble = trouble
        if not trouble:
            self._notices.add("the control store is written again")
            return
        self._notices.add(f"nothing can be stored: {trouble}")
        for route in self._greeting:
            self._routed.send(route, self._admission.cannot_store())
        self._greeting.clear()
        for job in self._members.jobs.values():
            self._outbox.send(job.process_id, m.Notice(0, StoreError.code, trouble))

    # ---- end -------------------------------------------------------------------------------

    def link_lost(self, route: bytes, now: float, cause: str = "lost") -> None:
        """A session ends: the transport says that the peer's connection is cut, or for that
        other cause."""
        session = self.by_route.pop(route, None)
        self._greeting.pop(route, None)
        self._succession.link_lost(route)
        self._routed.discard(route)
        if session is None:
            return
        session.member.lost_by = cause
        process_id = session.member.process_id
        if self.routes.get(process_id) == route:
            del self.routes[process_id]
            self._observers.pop(process_id, None)
            self._membership.session_lost(session.member, now)

    def on_goodbye(self, member: Member, message: m.Goodbye, now: float) -> None:
        """A peer leaves for good."""
        route = self.routes.pop(member.process_id, None)
        if route is not None:
            self.by_route.pop(route, None)
            self._routed.discard(route)
            if not isinstance(member, NodeMember):
                self._routed.send(route, m.Goodbye(0, message.reason))
        self._observers.pop(member.process_id, None)
        if isinstance(member, NodeMember):
            self._departures.node_died(member, f"it left: {message.reason}")
        elif isinstance(member, JobMember):
            self._departures.job_ended(member)

    def on_shutdown(self, member: Member, message: m.Shutdown, now: float) -> None:
        """Somebody stops the whole cluster: all are told."""
        self.stopping = message.reason or "stop was asked for"
        for peer in self._members.all():
            self._outbox.send(peer.process_id, m.Shutdown(0, self.stopping))

    def drop_dead(self) -> None:
        """Members that were declared dead while connected must say HELLO again."""
        for process_id, route in [*self.routes.items()]:
            session = self.by_route[route]
            current = self._members.member(process_id)
            if session.role != m.ROLE_OBSERVER and current is not session.member:
                del self.by_route[route], self.routes[process_id]

    # ---- turn ------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """What processes are to get goes by their routes; what has none is not sent, nor is what
        an older one does not know."""
        for process_id, messages in self._outbox.take().items():
            route = self.routes.get(process_id)
            if route is not None:
                minor = self.by_route[route].minor
                newer = minor < m.PROTOCOL_MINOR
                self._routed.send_all(route, known(messages, minor) if newer else messages)
