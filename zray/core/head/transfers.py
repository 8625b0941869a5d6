"""How values get from a raylet or driver that has one to another that asked.

A raylet is told which other one to ask; a few at once may ask the same one for an object, the
others wait for a new copy, so that many copies spread from node to node. Where that does not go,
chunks pass through the head, a window at a time, as the asking side acknowledges them; the head
keeps no chunk. A source that disappears is replaced by another, from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zray import limits
from zray.core.head.members import Member, Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectRecord, ObjectTable
from zray.core.head.recovery import Recovery
from zray.core.machine import Outbox
from zray.errors import ObjectLostError
from zray.protocol.messages import Chunk, ChunkAck, Message, Pull, PullFailed, PullFrom


class Relay:
    """One transfer of an object to somebody who has asked for it."""

    __slots__ = ("direct", "number", "object_id", "requester", "source", "transfer")

    def __init__(
        self, number: int, requester: bytes, transfer: int, object_id: bytes, direct: bool
    ) -> None:
        self.number = number
        self.requester = requester
        self.transfer = transfer  # the requester's number
        self.object_id = object_id
        self.direct = direct  # the requester asks the source itself
        self.source: bytes | None = None  # None: waits for a source to come back, or to be free


class Transfers:
    """``recovery``: while it is active, objects of before a restart may still turn up.

    ``rebuild`` makes an object again of which no copy is left; it says why, if that cannot be.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        objects: ObjectTable,
        members: Members,
        recovery: Recovery,
        rebuild: Callable[[bytes], str],
    ) -> None:
        self._outbox = outbox
        self._objects = objects
        self._members = members
        self._recovery = recovery
        self._rebuild = rebuild
        self.relayed_bytes = 0
        self._relays: dict[int, Relay] = {}
        self._by_transfer: dict[tuple[bytes, int], Relay] = {}  # by the requester's number
        self._by_requester: dict[bytes, dict[int, Relay]] = {}
        self._by_source: dict[bytes, dict[int, Relay]] = {}
        self._by_object: dict[bytes, dict[int, Relay]] = {}
        self._waiting: dict[int, Relay] = {}  # those without a source, but for unheard objects
        self._next = 1
        self.unheard: dict[bytes, None] = {}  # objects that are asked for and not announced yet
        # What is said under a transfer, as a part of the head's table.
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Chunk: self.on_chunk,
            ChunkAck: self.on_chunk_ack,
            PullFailed: self.on_pull_failed,
        }

    def pull(self, requester: bytes, message: Pull) -> None:
        """A process asks for a value: from a node, through the head, or not at all."""
        self._forget_direct(requester, message.object_id)  # it asks again: that did not go
        direct = message.direct and requester in self._members.nodes
        relay = Relay(self._next, requester, message.transfer, message.object_id, direct)
        self._next += 1
        self._relays[relay.number] = relay
        self._by_transfer[requester, message.transfer] = relay
        self._by_requester.setdefault(requester, {})[relay.number] = relay
        self._by_object.setdefault(message.object_id, {})[relay.number] = relay
        self._waiting[relay.number] = relay
        self._start(relay, ())

    def on_chunk(self, sender: Member, message: Chunk, now: float) -> None:
        """Pass a chunk on to who has asked for it."""
        relay = self._relays.get(message.transfer)
        if relay is None or relay.source != sender.process_id or relay.direct:
            return
        self.relayed_bytes += len(message.data)
        passed = msgspec.structs.replace(message, transfer=relay.transfer)
        self._outbox.send(relay.requester, passed)
        if message.offset + len(message.data) >= message.total:
            self._end(relay)

    def on_chunk_ack(self, sender: Member, message: ChunkAck, now: float) -> None:
        """Pass on that a chunk was taken."""
        relay = self._by_transfer.get((sender.process_id, message.transfer))
        if relay is not None and relay.source is not None and not relay.direct:
            self._outbox.send(relay.source, ChunkAck(0, relay.number, message.offset))

    def on_pull_failed(self, sender: Member, message: PullFailed, now: float) -> None:
        """The source does not have the object (any more)."""
        source = sender.process_id
        relay = self._relays.get(message.transfer)
        if relay is None or relay.source != source:
            return
        record = self._objects.get(relay.object_id)
        if record is not None:
            self._objects.remove_location(relay.object_id, record, source)
        self._start(relay, (source,))

    def session_lost(self, process_id: bytes) -> None:
        """A link was cut: its transfers start again elsewhere, or when it is back."""
        for relay in [*self._by_requester.get(process_id, {}).values()]:
            source, direct = relay.source, relay.direct
            self._end(relay)
            if source is not None and not direct:
                self._outbox.send(source, PullFailed(0, relay.number, "", "cancelled"))
        for relay in [*self._by_source.get(process_id, {}).values()]:
            if relay.direct:
                self._set_source(relay, None)  # the requester notices, and asks again
            else:
                self._start(relay, (process_id,))
        self.retry()

    def arrived(self, process_id: bytes, object_id: bytes) -> None:
        """The process has the object now, and can pass it on."""
        self._forget_direct(process_id, object_id)
        self.serve(object_id)

    def serve(self, object_id: bytes) -> None:
        """Those who wait for the object may have a source now, or it is gone."""
        if object_id not in self._by_object:
            return
        for relay in [*self._by_object[object_id].values()]:
            if relay.source is None:
                self._start(relay, ())

    def heard(self, object_id: bytes) -> None:
        """The object has been announced, or is lost."""
        if object_id in self.unheard:
            del self.unheard[object_id]
            self.serve(object_id)

    def _forget_direct(self, requester: bytes, object_id: bytes) -> None:
        for relay in [*self._by_object.get(object_id, {}).values()]:
            if relay.direct and relay.requester == requester:
                self._end(relay)

    def retry(self) -> None:
        """A member joined or died, or recovery is over: look again for missing sources."""
        for relay in [*self._waiting.values()]:
            self._start(relay, ())

    def _set_source(self, relay: Relay, source: bytes | None) -> None:
        """Who sends the object, as far as the relay has not ended."""
        if relay.source is not None:
            of_source = self._by_source[relay.source]
            del of_source[relay.number]
            if not of_source:
                del self._by_source[relay.source]
        relay.source = source
        self._waiting.pop(relay.number, None)
        if source is not None:
            self._by_source.setdefault(source, {})[relay.number] = relay
        else:
            self._waiting[relay.number] = relay

    def _start(self, relay: Relay, avoid: tuple[bytes, ...]) -> None:
        if relay.number not in self._relays:
            return  # it has ended meanwhile
        object_id = relay.object_id
        record = self._objects.get(object_id)
        self._set_source(relay, None)
        if record is None:
            text = f"object {object_id.hex()} is not known: it was freed, or its owner ended"
            self._give_up(relay, text)
            return
        if record.kind == PENDING:
            self.unheard[object_id] = None
            del self._waiting[relay.number]  # until it is heard of
            return
        value = self._objects.value(object_id)
        if value is not None:
            self._end(relay)
            contained = list(record.contained)
            chunk = Chunk(0, relay.transfer, record.kind, 0, len(value), value, contained)
            self._outbox.send(relay.requester, chunk)
            return
        if relay.direct and self._offer(relay, record):
            return
        relay.direct = False
        for place in record.locations:
            member = self._members.member(place)
            if member is not None and member.connected and place not in avoid:
                self._set_source(relay, place)
                self._outbox.send(place, Pull(0, relay.number, object_id))
                return
        if not record.locations and not self._recovery.active:
            trouble = self._rebuild(object_id)
            if trouble:
                text = f"the last copy of object {object_id.hex()} went with its node or owner"
                self._give_up(relay, f"{text}; {trouble}")

    def _offer(self, relay: Relay, record: ObjectRecord) -> bool:
        """Tell the requester whom to ask, or let it wait; False: there is no raylet to be asked."""
        busy: dict[bytes, int] = {}
        for other in self._by_object.get(relay.object_id, {}).values():
            if other.direct and other.source is not None:
                busy[other.source] = busy.get(other.source, 0) + 1
        nodes = [self._members.nodes.get(place) for place in record.locations]
        able = [node for node in nodes if node is not None and node.connected and node.liveness]
        able = [node for node in able if node.process_id != relay.requester]
        if not able:
            return False
        best: NodeMember = min(able, key=lambda node: busy.get(node.process_id, 0))
        if busy.get(best.process_id, 0) < limits.PEER_PULLS_MAX:
            self._set_source(relay, best.process_id)
            told = PullFrom(0, relay.transfer, relay.object_id, best.liveness)
            self._outbox.send(relay.requester, told)
        return True

    def _end(self, relay: Relay) -> None:
        if self._relays.pop(relay.number, None) is None:
            return
        self._set_source(relay, None)
        self._waiting.pop(relay.number, None)
        if self._by_transfer.get((relay.requester, relay.transfer)) is relay:
            del self._by_transfer[relay.requester, relay.transfer]
        for table, key in (
            (self._by_object, relay.object_id),
            (self._by_requester, relay.requester),
        ):
            del table[key][relay.number]
            if not table[key]:
                del table[key]

    def _give_up(self, relay: Relay, text: str) -> None:
        if not self._recovery.active:  # else who has it may still come back
            self._end(relay)
            failed = PullFailed(0, relay.transfer, ObjectLostError.code, text)
            self._outbox.send(relay.requester, failed)
