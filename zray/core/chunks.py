"""Values cut into chunks with a window, and put together again. Both ends of a transfer."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.errors import ObjectLostError
from zray.protocol.messages import Chunk, ChunkAck, Message, Outcome, Pull, PullFailed


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
        return self._sent >= len(self._value)

    def acknowledged(self, offset: int) -> None:
        self._acked = max(self._acked, offset)

    def ready(self) -> list[Chunk]:
        """The chunks that may be sent now (an empty value is one empty chunk)."""
        total = len(self._value)
        if not total:
            return [Chunk(0, self._transfer, self._kind, 0, 0, b"", self._contained)]
        chunks = []
        limit = self._acked + limits.CHUNK_WINDOW * limits.CHUNK_BYTES
        while self._sent < total and self._sent + limits.CHUNK_BYTES <= limit:
            data = bytes(self._value[self._sent : self._sent + limits.CHUNK_BYTES])
            contained = [] if self._sent else self._contained
            chunk = Chunk(0, self._transfer, self._kind, self._sent, total, data, contained)
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
        sender = ChunkSender(message.transfer, outcome)
        self.sending[message.transfer] = sender
        self._continue(message.transfer, sender)

    def on_ack(self, message: ChunkAck) -> None:
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


class ChunkReceiver:
    """Collects one value; a chunk at offset 0 starts it over (another source took over)."""

    def __init__(self) -> None:
        self.kind = 0
        self.contained: list[bytes] = []
        self._parts: list[bytes] = []
        self._arrived = 0

    def add(self, chunk: Chunk) -> tuple[ChunkAck | None, bytes | None]:
        """Returns the acknowledgement to send, and the value once it is complete."""
        if chunk.offset == 0:
            self._parts.clear()
            self._arrived = 0
            self.contained = chunk.contained
        if chunk.offset != self._arrived:
            return None, None  # a leftover of a source that was replaced
        self.kind = chunk.kind
        self._parts.append(chunk.data)
        self._arrived += len(chunk.data)
        if self._arrived >= chunk.total:
            value = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            return None, value
        return ChunkAck(0, chunk.transfer, self._arrived), None


class ChunkPuller:
    """The values that a process has asked for; each is on its way once, however many want it."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._receiving: dict[int, tuple[bytes, ChunkReceiver]] = {}
        self._pulling: dict[bytes, None] = {}
        self._transfer = 0

    def pull(self, oid: bytes) -> None:
        if oid not in self._pulling:
            self._transfer += 1
            self._pulling[oid] = None
            self._receiving[self._transfer] = (oid, ChunkReceiver())
            self._send(Pull(0, self._transfer, oid))

    def on_chunk(self, chunk: Chunk) -> Outcome | None:
        """The object, once this was its last chunk."""
        entry = self._receiving.get(chunk.transfer)
        if entry is None:
            return None
        oid, receiver = entry
        ack, value = receiver.add(chunk)
        if ack is not None:
            self._send(ack)
        if value is None:
            return None
        self.forget(chunk.transfer)
        return Outcome(oid, receiver.kind, len(value), value, receiver.contained)

    def forget(self, transfer: int) -> bytes | None:
        """Forget a transfer; the object that it was for, if there was one."""
        entry = self._receiving.pop(transfer, None)
        if entry is None:
            return None
        self._pulling.pop(entry[0], None)
        return entry[0]

    def restart(self) -> None:
        """Transfers of the old session are void; what is still wanted is asked for again."""
        self._receiving.clear()
        wanted, self._pulling = self._pulling, {}
        for oid in wanted:
            self.pull(oid)
