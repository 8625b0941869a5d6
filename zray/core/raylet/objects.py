"""The raylet's objects: every outcome made here until it is freed, and copies fetched for use.

An outcome that says LOCATED stands for a value in the node's shared memory, or spilled from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from zray import limits
from zray.core.chunks import ChunkPuller, ChunkServer, Memory
from zray.errors import ObjectLostError
from zray.ids import is_item, split_objects
from zray.protocol.messages import (
    LOCATED,
    Chunk,
    ChunkAck,
    Free,
    Have,
    Message,
    Outcome,
    Pull,
    PullFailed,
    StoredHere,
    StoreUsage,
)

Arrived = Callable[[Outcome | None, str], None]  # the outcome, or None and why there is none


class Store(Memory, Protocol):
    """The node's shared memory, as the machine sees it."""

    def claimed(self, oid: bytes, process_id: bytes) -> bool:
        """A process's own object is the cluster's from now on; False: it is not here."""

    def offer(self, oid: bytes, process_id: bytes) -> None:
        """A process is about to read the object: it need not ask."""

    def discard(self, oid: bytes, process_id: bytes) -> None:
        """A process's own object will not be the cluster's: nobody else knows of it."""

    def free(self, oid: bytes) -> None:
        """The cluster does not need the object any more."""

    def read(self, oid: bytes) -> memoryview | None:
        """Its bytes, which stay for as long as anything uses them."""

    def small_bytes_max(self) -> int:
        """How many bytes of small values may lie beside it."""

    def keep(self, outcome: Outcome) -> Outcome | None:
        """Take a small value in; the outcome to be kept in its place, None: it cannot be."""

    def usage(self) -> StoreUsage:
        """All objects there, in figures."""

    def listed(self, most: int) -> list[StoredHere]:
        """The largest of them."""

    def drain_all(self) -> None:
        """Take in whatever the node's processes have said."""


class LocalObjects:
    """``store`` is None where no memory is shared: values are then kept as they come.

    ``tell_head``: as ``HeadSession.tell``.
    """

    def __init__(self, tell_head: Callable[[Message], None]) -> None:
        self._tell_head = tell_head
        self.stored: dict[bytes, Outcome] = {}
        self.small_bytes = 0  # of the values in there
        self.store: Store | None = None
        self._fetches: dict[bytes, list[Arrived]] = {}
        self._again: dict[bytes, None] = {}  # asked for once more: they could not be kept
        self.server = ChunkServer(tell_head)
        self.puller = ChunkPuller(tell_head)
        # What the head says of them, as a part of the raylet's table.
        self.handlers: dict[type[Message], Callable[[Any, float], None]] = {
            Free: lambda msg, now: self.free(msg.object_ids),
            Pull: lambda msg, now: self.on_pull(msg),
            Chunk: lambda msg, now: self.on_chunk(msg),
            ChunkAck: lambda msg, now: self.server.on_ack(msg),
            PullFailed: lambda msg, now: self.on_failed(msg),
        }

    def attach(self, store: Store) -> None:
        """Large values are in shared memory from now on."""
        self.store = self.puller.memory = store

    def put(self, outcome: Outcome, maker: bytes = b"") -> Outcome:
        """Keep an outcome; returns it as the head is to see it (a large value stays here).

        ``maker``: the process that made it. Of an item the one that is here already stays: it is of
        an attempt of before.
        """
        oid = outcome.object_id
        before = self.stored.get(oid) if is_item(oid) else None
        if outcome.kind & LOCATED:
            if self.store is not None and self.store.claimed(oid, maker) and before is None:
                self._store(outcome)
            return before or outcome
        if before is None:
            self._store(outcome)
        outcome = before or outcome
        if outcome.kind & LOCATED or len(outcome.value) <= limits.INLINE_BYTES_MAX:
            return outcome
        return self._elsewhere(outcome)

    def _store(self, outcome: Outcome) -> None:
        """Many small values are like a large one: past a bound they are with the large ones."""
        oid, size, store = outcome.object_id, len(outcome.value), self.store
        if store is not None and size >= limits.STORE_SMALL_BYTES_MIN:
            is_full = self.small_bytes + size > store.small_bytes_max()
            outcome = (store.keep(outcome) if is_full else None) or outcome
        before = self.stored.get(oid)
        if before is not None:
            self.small_bytes -= len(before.value)
        self.stored[oid] = outcome
        self.small_bytes += len(outcome.value)

    def put_all(self, outcomes: list[Outcome], maker: bytes = b"") -> list[Outcome]:
        """The same for all that one task has made: in all, too, values beyond a bound stay here."""
        found = [self.put(outcome, maker) for outcome in outcomes]
        if len(found) > 1:
            left = limits.INLINE_TOTAL_BYTES_MAX
            for place, outcome in enumerate(found):
                left -= len(outcome.value)
                if left < 0 and outcome.value:
                    found[place] = self._elsewhere(outcome)
        return found

    def offer(self, values: Iterable[Outcome], process_id: bytes) -> None:
        """A process is about to be given tasks with these arguments."""
        if self.store is not None:
            for oid in {value.object_id: None for value in values if value.kind & LOCATED}:
                self.store.offer(oid, process_id)

    def discard(self, outcomes: list[Outcome], maker: bytes) -> None:
        """Nobody wants what that process made."""
        for outcome in outcomes:
            if outcome.kind & LOCATED and self.store is not None:
                self.store.discard(outcome.object_id, maker)

    @staticmethod
    def _elsewhere(outcome: Outcome) -> Outcome:
        kind = outcome.kind | LOCATED
        return Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)

    def free(self, object_ids: bytes) -> None:
        """Nobody needs these any more (ObjectIDs, concatenated)."""
        for oid in split_objects(object_ids):
            outcome = self.stored.pop(oid, None)
            if outcome is None:
                continue
            self.small_bytes -= len(outcome.value)
            if outcome.kind & LOCATED and self.store is not None:
                self.store.free(oid)

    def announced(self) -> list[Outcome]:
        """What is here, for the head's new session."""
        return [self._elsewhere(outcome) for outcome in self.stored.values()]

    def whole(self, oid: bytes) -> Outcome | None:
        """The outcome with its bytes, which stay while they are in use; None: it is not here."""
        outcome = self.stored.get(oid)
        if outcome is None and self.store is not None:
            self.store.drain_all()  # whoever told of it has told the store first
            outcome = self.stored.get(oid)
        if outcome is None or not outcome.kind & LOCATED or self.store is None:
            return outcome
        data = self.store.read(oid)
        if data is None:
            return None
        kind = outcome.kind & ~LOCATED
        return Outcome(oid, kind, len(data), data, outcome.contained)  # type: ignore[arg-type]

    def in_one_chunk(self, outcome: Outcome, transfer: int) -> Message:
        """The value for a process of this node that does not share its memory."""
        oid = outcome.object_id
        whole = self.whole(oid) if outcome.kind & LOCATED else outcome
        if whole is None:
            return PullFailed(0, transfer, ObjectLostError.code, "this node lost the object")
        value = bytes(whole.value)
        return Chunk(0, transfer, whole.kind, 0, len(value), value, whole.contained)

    # ---- fetching --------------------------------------------------------------------------

    def fetch(self, oid: bytes, arrived: Arrived) -> None:
        """Get an object from elsewhere; one transfer however many wait for it."""
        waiting = self._fetches.get(oid)
        if waiting is not None:
            waiting.append(arrived)
            return
        self._fetches[oid] = [arrived]
        self.puller.pull(oid)

    def new_session(self) -> None:
        """Transfers of the old session are void."""
        self.server.sending.clear()
        self.puller.restart()

    def on_chunk(self, chunk: Chunk) -> None:
        """A part of a value has come. One that cannot be kept is asked for once more."""
        try:
            outcome = self.puller.on_chunk(chunk)
        except Exception as error:
            self._not_kept(chunk.transfer, error)
            raise
        if outcome is not None:
            self._again.pop(outcome.object_id, None)
            self._store(outcome)
            self._tell_head(Have(0, outcome.object_id))
            kept = self.stored[outcome.object_id]
            for arrived in self._fetches.pop(outcome.object_id, ()):
                arrived(kept, "")

    def _not_kept(self, transfer: int, error: Exception) -> None:
        oid = self.puller.wanted_by(transfer)
        if oid is None:
            return
        if oid not in self._again:
            self._again[oid] = None
            self.puller.ask_head(transfer)
        else:
            del self._again[oid]
            self.puller.forget(transfer)
            self._absent(oid, f"this node could not take object {oid.hex()} in: {error}")

    def _absent(self, oid: bytes, text: str) -> None:
        for arrived in self._fetches.pop(oid, ()):
            arrived(None, text)

    def on_failed(self, message: PullFailed) -> None:
        """The head found no source, or the asking side of our own sending is gone."""
        if message.code != ObjectLostError.code:
            self.server.stop(message.transfer)
            return
        oid = self.puller.forget(message.transfer)
        if oid is not None:
            self._again.pop(oid, None)
            self._absent(oid, message.text)

    # ---- serving ---------------------------------------------------------------------------

    def on_pull(self, message: Pull) -> None:
        """The head wants a value for somebody: it is sent in chunks."""
        try:
            outcome = self.whole(message.object_id)
        except Exception:
            text = "this node could not read the object"
            self._tell_head(PullFailed(0, message.transfer, ObjectLostError.code, text))
            raise
        self.server.serve(message, outcome, "this node does not have the object")
