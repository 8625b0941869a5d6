"""The TrafficController: sessions of peers, what each may say, and the way to the GCS's mailbox.

A session is one routing id bound to one authenticated user; it begins with HELLO. Anything else
from an unknown routing id, or under another epoch, is answered with REJOIN and ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from zray import limits
from zray.core.head import state_queries as overview
from zray.core.head.gcs import Gcs
from zray.core.head.members import JobMember, Member, NodeMember
from zray.core.head.reconciliation import Reconciliation
from zray.core.machine import Outbox
from zray.errors import (
    InternalFaultError,
    OlderStoreError,
    ProtocolError,
    StoreError,
    VersionMismatchError,
    WrongClusterError,
)
from zray.ids import split_tasks
from zray.protocol import messages as m
from zray.protocol.codec import Payload, Unsent
from zray.protocol.splitting import JOINED, Joiner

FORBIDDEN = "ZR-1410"
HEAD_FEATURES = ["tasks"]
CHECK_S = 1.0

CLIENT_VERBS = frozenset(
    {
        *(m.Template, m.Export, m.Submit, m.ResultAck, m.Cancel, m.Hold, m.Drop, m.Watch, m.Put),
        *(m.Pull, m.Chunk, m.ChunkAck, m.PullFailed, m.Query, m.Kv, m.Ping, m.Goodbye),
        *(m.CreateActor, m.ActorWatch, m.KillActor, m.FindActor, m.ListActors),
        *(m.Calls, m.CancelCall, m.Promise, m.Sync, m.AskGone, m.Forget),
    }
)
NODE_VERBS = CLIENT_VERBS | {
    *(m.Credit, m.Done, m.Returned, m.WorkerDied, m.Announce, m.Have, m.Log),
    *(m.Replies, m.ActorExited, m.DriverEnded),
}
OBSERVER_VERBS = frozenset({m.Query, m.Ping, m.Goodbye, m.Shutdown})
VERBS = {m.ROLE_DRIVER: CLIENT_VERBS, m.ROLE_NODE: NODE_VERBS, m.ROLE_OBSERVER: OBSERVER_VERBS}


class Session:
    """One connection, from its HELLO on."""

    __slots__ = ("joiner", "member", "own", "role", "route", "user")

    def __init__(self, route: bytes, user: str, role: int, member: Member) -> None:
        self.route = route
        self.user = user
        self.role = role
        self.member = member
        # A driver speaks for itself alone: what it held for others would stay for ever.
        self.own = (member.process_id, b"") if role == m.ROLE_DRIVER else ()
        self.joiner = Joiner()


# Which field says for what process a message is; empty: for its sender.
SPEAKS_FOR: dict[type[m.Message], str] = {
    **dict.fromkeys((m.Hold, m.Drop, m.Put, m.Promise, m.FindActor), "holder"),
    **dict.fromkeys((m.Template, m.Export, m.Forget), "holder"),
    **dict.fromkeys((m.ResultAck, m.Watch), "target"),
    **dict.fromkeys((m.Calls, m.CancelCall), "caller"),
    m.Submit: "submitter",
    m.CreateActor: "owner",
}


class TrafficController:
    """``versions``: the head's own, of which those of others may differ."""

    def __init__(
        self,
        gcs: Gcs,
        cluster_id: bytes,
        versions: m.Versions,
        started_s: float,
        now: float,
        head_id: bytes = b"",
    ) -> None:
        """``head_id``: random, of this start; empty: peers are told by their epoch alone."""
        self.gcs = gcs
        self.reconciliation = Reconciliation(gcs)
        self.cluster_id = cluster_id
        self.versions = versions
        self.head_id = head_id
        self.started_s = started_s  # wall clock, for people
        self.stopping = ""  # why the whole cluster is to stop
        self.sessions: dict[bytes, Session] = {}
        self.routes: dict[bytes, bytes] = {}  # process -> route
        self.outbox: Outbox[bytes] = Outbox()  # by route
        self._observers: dict[bytes, Member] = {}
        self._greeting: dict[bytes, bytes] = {}  # route -> process, until it is welcome
        self._next_check = now + CHECK_S
        self._handlers = self._table()

    def _table(self) -> dict[type[m.Message], Callable[[Any, Any, float], None]]:
        gcs, reconciliation, transfers = self.gcs, self.reconciliation, self.gcs.transfers
        return {
            m.Template: gcs.definitions.on_template,
            m.Export: gcs.definitions.on_export,
            m.Forget: gcs.definitions.on_forget,
            m.Submit: gcs.task_manager.on_submit,
            m.ResultAck: lambda s, msg, now: gcs.results.acked(msg.target, msg.upto),
            m.Cancel: gcs.task_manager.on_cancel,
            m.Hold: gcs.on_hold,
            m.Drop: gcs.holders.on_drop,
            m.Watch: gcs.holders.on_watch,
            m.Put: gcs.holders.on_put,
            m.Promise: gcs.holders.on_promise,
            m.CreateActor: gcs.actors.on_create,
            m.ActorWatch: gcs.actors.directory.on_watch,
            m.KillActor: gcs.actors.on_kill,
            m.FindActor: gcs.actors.directory.on_find,
            m.ListActors: gcs.actors.directory.on_list,
            m.Calls: gcs.actors.on_calls,
            m.CancelCall: gcs.actors.on_calls,
            m.Replies: gcs.actors.on_replies,
            m.ActorExited: gcs.actors.on_exited,
            m.Sync: self._on_sync,
            m.AskGone: self._on_ask_gone,
            m.Done: gcs.task_manager.on_done,
            m.Pull: gcs.holders.on_pull,
            m.Chunk: lambda s, msg, now: transfers.chunk(s.process_id, msg),
            m.ChunkAck: lambda s, msg, now: transfers.acknowledge(s.process_id, msg),
            m.PullFailed: lambda s, msg, now: transfers.failed(s.process_id, msg),
            m.Credit: reconciliation.on_credit,
            m.Returned: reconciliation.on_returned,
            m.WorkerDied: reconciliation.on_worker_died,
            m.Announce: reconciliation.on_announce,
            m.Have: reconciliation.on_have,
            m.DriverEnded: reconciliation.on_driver_ended,
            m.Log: self._on_log,
            m.Query: self._on_query,
            m.Kv: self._on_kv,
            m.Ping: self._on_ping,
            m.Goodbye: self._on_goodbye,
            m.Shutdown: self._on_shutdown,
        }

    # ---- in --------------------------------------------------------------------------------

    def receive(self, route: bytes, user: str, payload: Payload, now: float) -> None:
        """One payload of a peer. ``user``: whom its key belongs to, as the transport says."""
        session = self.sessions.get(route)
        for message in payload.messages:
            kind = type(message)
            if isinstance(message, m.Hello):
                self._greet(route, user, message, payload.epoch, now)
                session = self.sessions.get(route)
            elif session is None or session.user != user or session.member.ended:
                self.outbox.send(route, m.Rejoin(0, "no session: say HELLO first"))
                return
            elif payload.epoch != self.gcs.epoch:
                self.outbox.send(route, m.Rejoin(0, f"the epoch is {self.gcs.epoch} now"))
                return
            elif kind not in VERBS[session.role]:
                text = f"{kind.__name__} is not for this role"
                self.outbox.send(route, m.Rejected(0, message.seq, FORBIDDEN, text))
            elif (
                session.own
                and kind in SPEAKS_FOR
                and getattr(message, SPEAKS_FOR[kind]) not in session.own
            ):
                text = f"a {kind.__name__} of another process is not for a driver"
                self.outbox.send(route, m.Rejected(0, message.seq, FORBIDDEN, text))
            else:
                session.member.heard = now
                if self.gcs.prints.unread_bytes:
                    self.gcs.prints.heard(session.member.process_id)
                try:
                    if kind in JOINED:
                        self._join(session, message, now)
                    else:
                        self._handlers[kind](session.member, message, now)
                except Exception as error:
                    self._failed(route, session.member, message, error, now)
                    if route not in self.sessions:
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
            self._handlers[type(message)](session.member, whole, now)

    def _greet(self, route: bytes, user: str, hello: m.Hello, epoch: int, now: float) -> None:
        try:
            self._on_hello(route, user, hello, epoch, now)
        except Exception as error:
            info = hello.node or hello.job
            whom = f"a peer on {info.host}" if info is not None else "an observer"
            said = self.gcs.incidents.record("handling a Hello message", whom, error, now)
            self.outbox.send(route, m.Refused(0, InternalFaultError.code, said))

    def _failed(
        self, route: bytes, member: Member, message: m.Message, error: Exception, now: float
    ) -> None:
        """One message could not be handled: its sender is told, and the others' go on.

        A member begins a new session, in which it tells all that it has and asks for. If that fails
        as well, the message fails what it is of.
        """
        kind = type(message).__name__
        whom = member.in_words()
        said = self.gcs.incidents.record(f"handling a {kind} message", whom, error, now)
        text = f"the head failed to handle a {kind} message: {said}; its log has more"
        is_member = self.gcs.members.member(member.process_id) is member
        if is_member and member.fresh_start.allowed(kind, now):
            self.link_lost(route, now)
            self.outbox.send(route, m.Rejoin(0, text))
        else:
            self.outbox.send(route, m.Rejected(0, message.seq, InternalFaultError.code, text))

    def too_large(self, route: bytes, found: list[Unsent], now: float) -> None:
        """Messages for this peer are too large to be sent: what they are of fails."""
        session = self.sessions.get(route)
        for message, text in found:
            if session is not None:
                self.gcs.too_large(session.member, message, text)

    def refuse(self, route: bytes, about: int, text: str) -> None:
        """A message of this peer could not be read; it is told so, nothing else happens."""
        self.outbox.send(route, m.Rejected(0, about, ProtocolError.code, text))

    def link_lost(self, route: bytes, now: float) -> None:
        """The transport says that the peer's connection is cut."""
        session = self.sessions.pop(route, None)
        self._greeting.pop(route, None)
        self.outbox.discard(route)
        if session is None:
            return
        process_id = session.member.process_id
        if self.routes.get(process_id) == route:
            del self.routes[process_id]
            self._observers.pop(process_id, None)
            self.reconciliation.session_lost(session.member, now)

    def store_stalls(self, trouble: str) -> None:
        """Nothing becomes durable (``trouble`` says why), or it does again: who waits is told.

        A newcomer cannot be stored, so it is refused rather than left to wait; what members asked
        for is done once it can be stored.
        """
        gcs = self.gcs
        if trouble == gcs.store_trouble:
            return
        gcs.store_trouble = trouble
        if not trouble:
            gcs.note("the control store is written again")
            return
        gcs.note(f"nothing can be stored: {trouble}")
        for route in self._greeting:
            self.outbox.send(route, self._cannot_store())
        self._greeting.clear()
        for job in gcs.members.jobs.values():
            gcs.outbox.send(job.process_id, m.Notice(0, StoreError.code, trouble))

    def _cannot_store(self) -> m.Refused:
        return m.Refused(0, StoreError.code, self.gcs.store_trouble)

    # ---- sessions --------------------------------------------------------------------------

    def _on_hello(self, route: bytes, user: str, hello: m.Hello, epoch: int, now: float) -> None:
        refusal = self._objection(hello, epoch)
        if refusal is not None:
            self.outbox.send(route, refusal)
            return
        old = self.routes.get(hello.process_id)
        if old is not None and old != route:
            self.link_lost(old, now)  # the process has left that connection behind
        for earlier in [r for r, process in self._greeting.items() if process == hello.process_id]:
            del self._greeting[earlier]
        self._greeting[route] = hello.process_id

        def welcome(now: float) -> None:
            if self._greeting.pop(route, None) != hello.process_id:
                return  # the connection was cut, or another HELLO came, while a row was stored
            member = self.gcs.members.member(hello.process_id)
            if hello.role == m.ROLE_OBSERVER:
                member = self._observers[hello.process_id]
            if member is None:
                return
            self.reconciliation.session_begins(member, now)
            self.sessions[route] = Session(route, user, hello.role, member)
            self.routes[hello.process_id] = route
            answer = m.Welcome(
                *(0, m.PROTOCOL_VERSION, self.cluster_id),
                *(limits.FRAME_BYTES_MAX, limits.PING_S, HEAD_FEATURES),
                head_id=self.head_id,
            )
            self.outbox.send(route, answer)

        if hello.role == m.ROLE_NODE:
            self.reconciliation.node_joins(hello, now, welcome)
        elif hello.role == m.ROLE_DRIVER:
            self.reconciliation.job_joins(hello, now, welcome)
        else:
            observer = Member(hello.process_id, hello.incarnation, now)
            self._observers[hello.process_id] = observer
            welcome(now)

    def _objection(self, hello: m.Hello, epoch: int) -> m.Refused | None:
        mine, theirs = self.versions, hello.versions
        if hello.protocol != m.PROTOCOL_VERSION:
            text = f"this head speaks protocol {m.PROTOCOL_VERSION}, the peer {hello.protocol}"
            return m.Refused(0, VersionMismatchError.code, text)
        if hello.cluster_id and hello.cluster_id != self.cluster_id:
            text = (
                f"this is cluster {self.cluster_id.hex()[:8]}, the peer belongs to "
                f"{hello.cluster_id.hex()[:8]}; use that cluster's connection file"
            )
            return m.Refused(0, WrongClusterError.code, text)
        # A backup that is older by one start gives its head the epoch that the peers know.
        forked = epoch == self.gcs.epoch and hello.head_id not in (b"", self.head_id)
        if epoch > self.gcs.epoch or (forked and self.head_id):
            self.gcs.later_epoch = max(epoch, self.gcs.later_epoch)
            text = f"this head's control store: {overview.older_store(self.gcs)}"
            return m.Refused(0, OlderStoreError.code, text)
        if theirs.python and theirs.python != mine.python and hello.role != m.ROLE_OBSERVER:
            text = (
                f"this cluster runs Python {mine.python}, the peer Python {theirs.python}: pickled "
                f"functions would not load; use Python {mine.python} there"
            )
            return m.Refused(0, VersionMismatchError.code, text)
        wants = {m.ROLE_NODE: hello.node, m.ROLE_DRIVER: hello.job, m.ROLE_OBSERVER: True}
        if not wants.get(hello.role):
            text = f"HELLO with role {hello.role} and without what that role says of itself"
            return m.Refused(0, ProtocolError.code, text)
        if hello.role == m.ROLE_NODE and self.gcs.members.fenced(
            hello.process_id, hello.incarnation
        ):
            text = f"incarnation {hello.incarnation} of this node was declared dead"
            return m.Refused(0, m.FENCED, text)
        if self.gcs.store_trouble and not self._is_stored(hello):
            return self._cannot_store()
        # Jobs are durable before they are welcome: one that is not known any more has ended.
        welcomed = hello.role == m.ROLE_DRIVER and epoch > 0
        if welcomed and hello.process_id not in self.gcs.members.jobs:
            lost = "this driver was out of reach, so its job was ended and its objects freed"
            lost = self.gcs.members.lost_jobs.get(hello.process_id, lost)
            text = f"{lost}; zray.init() begins another (driver_lost_after_s, --driver-lost-after)"
            return m.Refused(0, m.FENCED, text)
        return None

    def _is_stored(self, hello: m.Hello) -> bool:
        """Whether the peer can be welcome without another row in the store."""
        if hello.role == m.ROLE_NODE:
            row = self.gcs.members.node_rows.get(hello.process_id)
            return row is not None and row.alive and row.incarnation == hello.incarnation
        return hello.role == m.ROLE_OBSERVER or hello.process_id in self.gcs.members.jobs

    def _on_ping(self, member: Member, message: m.Ping, now: float) -> None:
        member.trouble = message.trouble
        pong = m.Pong(0, message.sent_s, overview.health(self.gcs, now)[: limits.NAME_MAX])
        self.gcs.outbox.send(member.process_id, pong)

    def _on_goodbye(self, member: Member, message: m.Goodbye, now: float) -> None:
        route = self.routes.pop(member.process_id, None)
        if route is not None:
            self.sessions.pop(route, None)
            self.outbox.discard(route)
            if not isinstance(member, NodeMember):
                self.outbox.send(route, m.Goodbye(0, message.reason))
        self._observers.pop(member.process_id, None)
        if isinstance(member, NodeMember):
            self.reconciliation.node_died(member, f"it left: {message.reason}", now)
        elif isinstance(member, JobMember):
            self.reconciliation.job_ended(member, message.reason, now)

    # ---- small verbs -----------------------------------------------------------------------

    def _on_log(self, member: Member, message: m.Log, now: float) -> None:
        job = self.gcs.members.jobs.get(message.job_id)
        if job is not None and job.connected and job.info.wants_logs:
            lines = self.gcs.prints.take(job.process_id, message.lines)
            if lines:
                message = msgspec.structs.replace(message, lines=lines)
                self.gcs.outbox.send(job.process_id, message)

    def _on_query(self, member: Member, message: m.Query, now: float) -> None:
        answer: m.Message
        if message.what == m.STATUS:
            answer = overview.status(self.gcs, message.seq, self.cluster_id, self.started_s, now)
        else:
            reasons = [overview.why(self.gcs, oid, now) for oid in message.object_ids[:100]]
            answer = m.Reasons(0, message.seq, [text[: limits.TEXT_MAX] for text in reasons])
        self.gcs.outbox.send(member.process_id, answer)

    def _on_kv(self, member: Member, message: m.Kv, now: float) -> None:
        target = member.process_id
        self.gcs.catalog.operate(message, lambda reply: self.gcs.outbox.send(target, reply))

    def _on_sync(self, member: Member, message: m.Sync, now: float) -> None:
        self.gcs.outbox.send(member.process_id, m.Synced(0, message.seq))

    def _on_ask_gone(self, member: Member, message: m.AskGone, now: float) -> None:
        gone = b""
        if not self.gcs.recovering():  # until then nobody is known to have ended
            asked = split_tasks(message.process_ids)
            gone = b"".join(process for process in asked if not self.gcs.processes.lives(process))
        self.gcs.outbox.send(member.process_id, m.Gone(0, message.seq, gone))

    def _on_shutdown(self, member: Member, message: m.Shutdown, now: float) -> None:
        self.stopping = message.reason or "stop was asked for"
        for node in self.gcs.members.nodes.values():
            self.gcs.outbox.send(node.process_id, m.Shutdown(0, self.stopping))
        for job in self.gcs.members.jobs.values():
            self.gcs.outbox.send(job.process_id, m.Shutdown(0, self.stopping))

    # ---- turn ------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """End of a turn: decide everything, then hand messages over from process to route."""
        attempt = self.gcs.attempt
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            attempt("looking who is alive", "", lambda: self.reconciliation.check(now))
            attempt("ending dead sessions", "", self._drop_dead_sessions)
        if now >= self.reconciliation.look_at:
            attempt("looking for drivers", "", lambda: self.reconciliation.look_for_drivers(now))
        self.gcs.settle(now)
        while self.gcs.actors.jobs_over:
            job_id = self.gcs.actors.jobs_over.pop()
            attempt("ending a job", f"job {job_id.hex()}", partial(self._end_job, job_id, now))
        for process_id, messages in self.gcs.outbox.take().items():
            route = self.routes.get(process_id)
            if route is not None:
                self.outbox.send_all(route, messages)

    def _end_job(self, job_id: bytes, now: float) -> None:
        job = self.gcs.members.jobs.get(job_id)
        if job is not None:
            self.reconciliation.job_ended(job, "the actor is dead", now)

    def _drop_dead_sessions(self) -> None:
        """Members that were declared dead while connected must say HELLO again."""
        for process_id, route in [*self.routes.items()]:
            session = self.sessions[route]
            current = self.gcs.members.member(process_id)
            if session.role != m.ROLE_OBSERVER and current is not session.member:
                del self.sessions[route], self.routes[process_id]

    def deadline(self) -> float:
        """When ``settle`` has something to do although nothing arrives."""
        return min(self._next_check, self.reconciliation.look_at, self.gcs.deadline())
