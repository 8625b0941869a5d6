"""Nodes that are being emptied: no more work, what they have ends or moves, then they leave.

Owns which nodes these are, by when, and the copies of their objects that are on their way. That a
node is drained is durable before it is told; a head that starts again goes on with it, and counts
the time to the deadline anew. What the end of the node then means is `departures`, as of any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from msgspec.structs import replace

from zray import limits
from zray.core import resources
from zray.core.head.actor_records import ActorRecord
from zray.core.head.lease_table import Lease
from zray.core.head.members import Member, NodeMember
from zray.core.head.object_table import PENDING, ObjectRecord
from zray.core.head.tables import Tables
from zray.core.machine import NEVER
from zray.errors import DrainRefusedError, NotFoundError
from zray.protocol import messages as m

FETCH_S = 30.0  # a copy that is not there by then is asked of another node
SCAN_S = 2.0  # how often it is looked for them while others may be made
FETCHES = 3  # times, then the object goes with its node


class _Copy:
    """An object on its way to another node."""

    __slots__ = ("due", "tries")

    def __init__(self) -> None:
        self.due = 0.0
        self.tries = 0


class _Drain:
    """One node that is drained."""

    def __init__(self, node: NodeMember, reason: str, until: float) -> None:
        self.node = node
        self.reason = reason
        self.until = until
        self.session = 0  # in which the node was told
        self.copies: dict[bytes, _Copy] = {}  # of objects that only it has
        self.scan: Iterator[bytes] | None = None  # of all objects, for those
        self.scan_at = 0.0
        self.lost: dict[bytes, None] = {}  # objects that nobody could take
        self.leaves = False  # it was told to

    def why(self) -> str:
        """That it leaves, in words."""
        return f"drained: {self.reason}" if self.reason else "drained"

    def in_words(self, state: str, now: float) -> str:
        """Why it is drained, by when, and what it waits for."""
        left = f", {max(0.0, self.until - now):.0f} s left" if self.until < NEVER else ""
        return f"{self.why()}{left}; {state}"


class Drains:
    """``revoke``: ends a lease, as soon as its task has ended."""

    def __init__(self, tables: Tables, revoke: Callable[[Lease], None]) -> None:
        self._outbox = tables.outbox
        self._persist = tables.journal.persist
        self._notices = tables.notices
        self._members = tables.members
        self._objects = tables.objects
        self._actors = tables.actor_table
        self._leases = tables.lease_table
        self._revoke = revoke
        self._drains: dict[bytes, _Drain] = {}
        self._look_at = NEVER
        self._turn = 0  # whose turn it is to take a copy

    # ---- begin -----------------------------------------------------------------------------

    def on_drain(self, sender: Member, message: m.Drain, now: float) -> None:
        """An operator wants a node to be emptied; once more: by another time."""
        node = self._members.nodes.get(message.node_id)
        refusal, code = "", DrainRefusedError.code
        if node is None or node.ended:
            refusal, code = f"no node {message.node_id.hex()} is there", NotFoundError.code
        elif node.is_of_head():
            refusal = (
                f"node {node.info.name} is the head's own, and is started again whenever it ends; "
                "start the head with --num-cpus 0 to have no work there"
            )
        if node is None or refusal:
            answer = m.Answered(0, sender.process_id, message.seq, code, refusal)
            self._outbox.send(sender.process_id, answer)
            return
        known = self._members.node_rows[node.process_id]
        reason = (message.reason or known.drain_reason)[: limits.INCIDENT_TEXT_MAX]
        row = replace(known, draining=True, drain_reason=reason, drain_s=message.deadline_s)

        def durable(now: float) -> None:
            self._begin(node, reason, message.deadline_s, now)
            me = (m.A_NODE, node.process_id, node.info.name, node.process_id, node.info.name)
            answer = m.Answered(0, sender.process_id, message.seq, "", "", *me)
            self._outbox.send(sender.process_id, answer)

        self._persist([self._members.row(node.process_id, row)], durable)

    def _look_at_newcomers(self, now: float) -> None:
        """A node that joins may have been drained before this head's start."""
        newcomers, self._members.newcomers = self._members.newcomers, []
        for node in newcomers:
            row = self._members.node_rows[node.process_id]
            if row.draining and row.incarnation == node.incarnation:
                self._begin(node, row.drain_reason, row.drain_s, now)

    def _begin(self, node: NodeMember, reason: str, deadline_s: float, now: float) -> None:
        if node.ended:
            return
        until = now + deadline_s if deadline_s else NEVER
        drain = self._drains.get(node.process_id)
        if drain is None or drain.node is not node:
            self._drains[node.process_id] = _Drain(node, reason, until)
            said = f": {reason}" if reason else ""
            self._notices.add(f"node {node.info.name} ({node.info.host}) is being drained{said}")
        else:
            drain.reason, drain.until, drain.session = reason, until, 0
        node.view.draining = True
        node.view.changed()
        self._look_at = now

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """See how far each is, and have those leave that have nothing any more."""
        if self._members.newcomers:
            self._look_at_newcomers(now)
        if now < self._look_at:
            return
        self._look_at = now + limits.DRAIN_LOOK_S if self._drains else NEVER
        for node_id, drain in [*self._drains.items()]:
            node = drain.node
            if node.ended or self._members.nodes.get(node_id) is not node:
                del self._drains[node_id]
                if drain.lost:
                    text = f"{len(drain.lost):,} objects went with it, which no other node had"
                    self._notices.add(f"node {node.info.name} was drained: {text}")
            elif node.announced and node.connected:
                node.remark = drain.in_words(self._attend(node, drain, now), now)
            else:
                node.remark = drain.in_words("it is not heard of", now)

    def deadline(self) -> float:
        """When that is to be seen next."""
        return self._look_at

    def _attend(self, node: NodeMember, drain: _Drain, now: float) -> str:
        """Go on with it; what it waits for, in words."""
        name, node_id = node.info.name, node.process_id
        if drain.session != node.sessions:  # it tells nothing of it in a new one
            drain.session, drain.leaves = node.sessions, False
            self._outbox.send(node_id, m.Drain(0, node_id, node_id, drain.reason))
        late = now >= drain.until
        for lease in self._leases.of_node(node_id):
            self._revoke(lease)
        for actor_id in [*node.actors]:
            self._move_actor(self._actors[actor_id], node)
        waits = self._work(node)
        copied = self._copied(node, drain, now, hurries=not waits) and not waits
        if not (late or copied):
            going = f"objects that only it has are copied: {len(drain.copies):,} left"
            if not waits and drain.copies and not self._takers():
                going = f"{len(drain.copies):,} objects that only it has, and no node can take them"
            return f"waits for {waits}" if waits else going
        if not drain.leaves:
            drain.leaves = True
            why = drain.why()
            if not copied:
                drain.lost |= dict.fromkeys(drain.copies)
                why += f" (its deadline is over; it still had {waits or 'objects'})"
            self._outbox.send(node_id, m.Shutdown(0, why))
            self._notices.add(f"node {name} was told to leave, {why}")
        return "it leaves"

    def _work(self, node: NodeMember) -> str:
        """What runs there, in words."""
        near, _ = node.view.near_counts()
        leases = self._leases.count_at(node.process_id)
        counted = [(len(node.view.assigned) + near, "task"), (leases, "leased worker")]
        counted.append((len(node.actors), "actor"))
        return ", ".join(f"{n:,} {what}{'s' if n > 1 else ''}" for n, what in counted if n)

    # ---- actors ----------------------------------------------------------------------------

    def _move_actor(self, record: ActorRecord, node: NodeMember) -> None:
        """One that may start again does so elsewhere, if it can be there; others stay."""
        allowed = record.info.max_restarts
        spent = 0 <= allowed <= record.restarts
        if spent or record.kill_text or record.state != m.ACTOR_ALIVE:
            return
        needs = record.template.needs
        if any(
            other.view.usable
            and resources.fits(other.view.total, needs)
            and resources.fits(other.view.total, record.held)
            for other in self._members.nodes.values()
        ):
            record.kill_text = f"its node {node.info.name} is being drained"
            stop = m.StopActor(0, record.actor_id, record.incarnation, True, record.kill_text)
            self._outbox.send(node.process_id, stop)

    # ---- objects ---------------------------------------------------------------------------

    def _takers(self) -> list[NodeMember]:
        return [node for node in self._members.nodes.values() if node.view.usable]

    def _copied(self, node: NodeMember, drain: _Drain, now: float, *, hurries: bool) -> bool:
        """Whether no object is left that only this node has; looks for some in each turn.

        While work goes on there, which may make others, only now and then.
        """
        for oid, copy in [*drain.copies.items()]:
            record = self._objects.get(oid)
            if record is None or not self._only_there(oid, record):
                del drain.copies[oid]
            elif copy.tries >= FETCHES and now >= copy.due:
                del drain.copies[oid]
                drain.lost[oid] = None
        if drain.copies:
            self._fetch(drain, now)
            return False
        if drain.scan is None:
            if now < drain.scan_at and not hurries:
                return False
            drain.scan = iter([*self._objects.records])
        some = [*islice(drain.scan, limits.DRAIN_SCAN_OBJECTS)]
        for oid in some:
            record = self._objects.get(oid)
            mine = record is not None and node.process_id in record.locations
            if (
                mine
                and record is not None
                and oid not in drain.lost
                and self._only_there(oid, record)
            ):
                drain.copies[oid] = _Copy()
        ended = len(some) < limits.DRAIN_SCAN_OBJECTS
        if ended or drain.copies:
            drain.scan = None  # once these are there, it is looked again
            drain.scan_at = now + SCAN_S
        if hurries:
            self._look_at = now
        return ended and not drain.copies

    def _only_there(self, oid: bytes, record: ObjectRecord) -> bool:
        """Whether nodes that are drained alone have the value of something that is wanted."""
        if record.kind == PENDING or record.holders is None or not record.locations:
            return False
        if self._objects.value(oid) is not None:
            return False
        return all(place in self._drains for place in record.locations)

    def _fetch(self, drain: _Drain, now: float) -> None:
        takers = self._takers()
        if not takers:
            return
        asked: dict[bytes, list[bytes]] = {}
        for oid, copy in islice(drain.copies.items(), limits.DRAIN_FETCHES_MAX):
            if now >= copy.due:
                copy.due = now + FETCH_S
                copy.tries += 1
                self._turn += 1
                taker = takers[self._turn % len(takers)]
                asked.setdefault(taker.process_id, []).append(oid)
        for node_id, ids in asked.items():
            self._outbox.send(node_id, m.Fetch(0, b"".join(ids)))
