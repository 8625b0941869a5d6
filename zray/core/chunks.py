"""Values cut into chunks with a window, and put together again. Both ends of a transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zray import limits
from zray.errors import ObjectLostError
from zray.protocol.messages import ERROR, Chunk, ChunkAck, Message, Outcome, Pull, PullFailed


class ChunkSender:
    """Sends one value; at most CHUNK_WINDOW chunks are on the way."""

    def __init__(self, transfer: int, outcome: Outcome) -> None:
        self._transfer = transfer
        self._kind = outcome.kind
        self._value = memoryview(outcome.value)
        self._contained = outcome.contained
        self._sent = 0
        self._acked = 0

    def done(self) -> bool:
        """Whether all of it has been sent and acknowledged."""
        return self._sent >= len(self._value)

    def acknowledged(self, offset: int) -> None:
        """The receiver has this many bytes: the window moves on."""
        self._acked = max(self._acked, offset)

    def ready(self) -> list[Chunk]:
        """The chunks that may be sent now (an empty value is one empty chunk)."""
        total = len(self._value)
        if not total:
            return [Chunk(0, self._transfer, self._kind, 0, 0, b"", self._contained)]
        chunks = []
        limit = self._acked + limits.CHUNK_WINDOW * limits.CHUNK_BYTES
        while self._sent < total and self._sent + limits.CHUNK_BYTES <= limit:
            data = self._value[self._sent : self._sent + limits.CHUNK_BYTES]
            contained = [] if self._sent else self._contained
            chunk = Chunk(0, self._transfer, self._kind, self._sent, total, data, contained)  # type: ignore[arg-type]
            chunks.append(chunk)
            self._sent += len(data)
        return chunks


class ChunkServer:
    """The values that a process is sending, each under the number that the asking side gave."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self.sending: dict[int, ChunkSender] = {}

    def serve(self, message: Pull, outcome: Outcome | None, absent: str) -> None:
        """Answer a PULL; ``absent``: why there is nothing to send, if there is not."""
        if outcome is None:
            self._send(PullFailed(0, message.transfer, ObjectLostError.code, absent))
            return
        sender = self.sending[message.transfer] = ChunkSender(message.transfer, outcome)
        self._continue(message.transfer, sender)

    def on_ack(self, message: ChunkAck) -> None:
        """A receiver has some more: it is sent what its window allows."""
        sender = self.sending.get(message.transfer)
        if sender is not None:
            sender.acknowledged(message.offset)
            self._continue(message.transfer, sender)

    def _continue(self, transfer: int, sender: ChunkSender) -> None:
        for chunk in sender.ready():
            self._send(chunk)
        if sender.done():
            self.stop(transfer)

    def stop(self, transfer: int) -> None:
        """The asking side is gone, or has all."""
        self.sending.pop(transfer, None)


class Memory(Protocol):
    """Where large values are kept that come in chunks, other than in a process's own memory."""

    def begin(self, oid: bytes, size: int, kind: int, contained: list[bytes]) -> None:
        """A value is about to come; asked again where it starts over."""

    def write(self, oid: bytes, offset: int, data: bytes) -> None:
        """A part of it has come."""

    def complete(self, oid: bytes) -> Outcome:
        """All of it has; the outcome that stands for it."""

    def abandon(self, oid: bytes) -> None:
        """It will not come."""


class ChunkReceiver:
    """Collects one value; a chunk at offset 0 starts it over (another source took over)."""

    def __init__(self, object_id: bytes, memory: Memory | None) -> None:
        self.object_id = object_id
        self._memory = memory
        self._kept = False  # its parts go to the memory
        self._contained: list[bytes] = []
        self._parts: list[bytes] = []
        self._arrived = 0

    def add(self, chunk: Chunk) -> tuple[ChunkAck | None, Outcome | None]:
        """Returns the acknowledgement to send, and the outcome once it is complete."""
        if chunk.offset == 0:
            self._parts.clear()
            self._arrived = 0
            self._contained = chunk.contained
            large = chunk.total > limits.INLINE_BYTES_MAX and not chunk.kind & ERROR
            if self._memory is not None and large:
                self._kept = True
                self._memory.begin(self.object_id, chunk.total, chunk.kind, chunk.contained)
        if chunk.offset != self._arrived:
            return None, None  # a leftover of a source that was replaced
        if self._memory is not None and self._kept:
            self._memory.write(self.object_id, chunk.offset, chunk.data)
        else:
            self._parts.append(chunk.data)
        self._arrived += len(chunk.data)
        if self._arrived >= chunk.total:
            return None, self._complete(chunk.kind)
        return ChunkAck(0, chunk.transfer, self._arrived), None

    def _complete(self, kind: int) -> Outcome:
        if self._memory is not None and self._kept:
            return self._memory.complete(self.object_id)
        value = b"".join(self._parts)
        return Outcome(self.object_id, kind, len(value), value, self._contained)

    def abandon(self) -> None:
        """It will not come."""
        if self._memory is not None and self._kept:
            self._memory.abandon(self.object_id)


class ChunkPuller:
    """The values that a process has asked for; each is on its way once, however many want it.

    ``direct``: it can ask other raylets itself, where the head says which.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self.memory: Memory | None = None
        self.direct = False
        self._receiving: dict[int, ChunkReceiver] = {}
        self._sources: dict[int, Callable[[Message], None]] = {}  # of those not by way of the head
        self._pulling: dict[bytes, None] = {}
        self._transfer = 0

    def pull(self, oid: bytes) -> None:
        """Ask for a value, unless that is under way."""
        if oid not in self._pulling:
            self._pulling[oid] = None
            self._ask(oid, self.direct)

    def _ask(self, oid: bytes, direct: bool) -> None:
        self._transfer += 1
        self._receiving[self._transfer] = ChunkReceiver(oid, self.memory)
        self._send(Pull(0, self._transfer, oid, direct))

    def ask_source(self, transfer: int, send: Callable[[Message], None]) -> bool:
        """Get the value from a process that can be asked directly; False: it is not wanted."""
        receiver = self._receiving.get(transfer)
        if receiver is None:
            return False
        self._sources[transfer] = send
        send(Pull(0, transfer, receiver.object_id))
        return True

    def active(self, transfer: int) -> bool:
        """Whether more of it is to come."""
        return transfer in self._receiving

    def wanted_by(self, transfer: int) -> bytes | None:
        """The object of a transfer, while more of it is to come."""
        receiver = self._receiving.get(transfer)
        return receiver.object_id if receiver is not None else None

    def ask_head(self, transfer: int) -> None:
        """That source cannot be had: by way of the head, then."""
        oid = self.forget(transfer)
        if oid is not None:
            self._pulling[oid] = None
            self._ask(oid, False)

    def on_chunk(self, chunk: Chunk) -> Outcome | None:
        """The object, once this was its last chunk."""
        receiver = self._receiving.get(chunk.transfer)
        if receiver is None:
            return None
        ack, outcome = receiver.add(chunk)
        if ack is not None:
            self._sources.get(chunk.transfer, self._send)(ack)
        if outcome is not None:
            del self._receiving[chunk.transfer], self._pulling[receiver.object_id]
            self._sources.pop(chunk.transfer, None)
        return outcome

    def forget(self, transfer: int) -> bytes | None:
        """Forget a transfer; the object that it was for, if there was one."""
        receiver = self._receiving.pop(transfer, None)
        self._sources.pop(transfer, None)
        if receiver is None:
            return None
        receiver.abandon()
        self._pulling.pop(receiver.object_id, None)
        return receiver.object_id

    def restart(self) -> None:
        """Transfers of the old session are void; what is still wanted is asked for again."""
        for receiver in self._receiving.values():
            receiver.abandon()
        self._receiving.clear()
        self._sources.clear()
        wanted, self._pulling = self._pulling, {}
        for oid in wanted:
            self.pull(oid)
