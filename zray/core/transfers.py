"""The head's relay of values: from a raylet or driver that has one to another that asked.

Chunks pass through, a window at a time, as the asking side acknowledges them; the head keeps no
chunk. A source that disappears is replaced by another that has the object, from the start.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from zray.core.machine import Outbox
from zray.core.members import Members
from zray.core.objects import PENDING, ObjectTable
from zray.errors import ObjectLostError
from zray.protocol.messages import Chunk, ChunkAck, Pull, PullFailed


class Relay:
    __slots__ = ("number", "object_id", "requester", "source", "transfer")

    def __init__(self, number: int, requester: bytes, transfer: int, object_id: bytes) -> None:
        self.number = number
        self.requester = requester
        self.transfer = transfer  # the requester's number
        self.object_id = object_id
        self.source: bytes | None = None  # None: waits for a source to come back


class Transfers:
    """``recovering``: whether objects of before a restart may still turn up."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        objects: ObjectTable,
        members: Members,
        recovering: Callable[[], bool],
    ) -> None:
        self._outbox = outbox
        self._objects = objects
        self._members = members
        self._recovering = recovering
        self._relays: dict[int, Relay] = {}
        self._by_requester: dict[tuple[bytes, int], Relay] = {}
        self._next = 1

    def pull(self, requester: bytes, message: Pull) -> None:
        relay = Relay(self._next, requester, message.transfer, message.object_id)
        self._next += 1
        self._relays[relay.number] = relay
        self._by_requester[requester, message.transfer] = relay
        self._start(relay, ())

    def chunk(self, source: bytes, message: Chunk) -> None:
        relay = self._relays.get(message.transfer)
        if relay is None or relay.source != source:
            return
        passed = msgspec.structs.replace(message, transfer=relay.transfer)
        self._outbox.send(relay.requester, passed)
        if message.offset + len(message.data) >= message.total:
            self._end(relay)

    def acknowledge(self, requester: bytes, message: ChunkAck) -> None:
        relay = self._by_requester.get((requester, message.transfer))
        if relay is not None and relay.source is not None:
            self._outbox.send(relay.source, ChunkAck(0, relay.number, message.offset))

    def failed(self, source: bytes, message: PullFailed) -> None:
        """The source does not have the object (any more)."""
        relay = self._relays.get(message.transfer)
        if relay is None or relay.source != source:
            return
        record = self._objects.get(relay.object_id)
        if record is not None:
            self._objects.remove_location(relay.object_id, record, source)
        self._start(relay, (source,))

    def session_lost(self, process_id: bytes) -> None:
        """A link was cut: its transfers start again elsewhere, or when it is back."""
        for relay in [*self._relays.values()]:
            if relay.requester == process_id:
                self._end(relay)
                if relay.source is not None:
                    self._outbox.send(relay.source, PullFailed(0, relay.number, "", "cancelled"))
            elif relay.source == process_id:
                self._start(relay, (process_id,))

    def retry(self) -> None:
        """A member joined or died, or recovery is over: look again for missing sources."""
        for relay in [*self._relays.values()]:
            if relay.source is None:
                self._start(relay, ())

    def _start(self, relay: Relay, avoid: tuple[bytes, ...]) -> None:
        object_id = relay.object_id
        record = self._objects.get(object_id)
        relay.source = None
        if record is None or record.kind == PENDING:
            text = f"object {object_id.hex()} is not known: it was freed, or its owner ended"
            self._give_up(relay, text)
            return
        value = self._objects.value(object_id)
        if value is not None:
            self._end(relay)
            contained = list(record.contained)
            chunk = Chunk(0, relay.transfer, record.kind, 0, len(value), value, contained)
            self._outbox.send(relay.requester, chunk)
            return
        for place in record.locations:
            member = self._members.member(place)
            if member is not None and member.connected and place not in avoid:
                relay.source = place
                self._outbox.send(place, Pull(0, relay.number, object_id))
                return
        if not record.locations:
            text = f"the last copy of object {object_id.hex()} went with its node or owner"
            self._give_up(relay, text)

    def _end(self, relay: Relay) -> None:
        self._relays.pop(relay.number, None)
        self._by_requester.pop((relay.requester, relay.transfer), None)

    def _give_up(self, relay: Relay, text: str) -> None:
        if not self._recovering():  # else who has it may still come back
            self._end(relay)
            failed = PullFailed(0, relay.transfer, ObjectLostError.code, text)
            self._outbox.send(relay.requester, failed)
