"""The raylet's objects: every outcome made here until it is freed, and copies fetched for use."""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.chunks import ChunkPuller, ChunkServer
from zray.errors import ObjectLostError
from zray.ids import split_objects
from zray.protocol.messages import (
    LOCATED,
    Chunk,
    Have,
    Message,
    Outcome,
    Pull,
    PullFailed,
)

Arrived = Callable[[Outcome | None, str], None]  # the outcome, or None and why there is none


class LocalObjects:
    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send  # to the head, if there is a session
        self.stored: dict[bytes, Outcome] = {}
        self._fetches: dict[bytes, list[Arrived]] = {}
        self.server = ChunkServer(send)
        self._puller = ChunkPuller(send)

    def put(self, outcome: Outcome) -> Outcome:
        """Keep an outcome; returns it as the head is to see it (a large value stays here)."""
        self.stored[outcome.object_id] = outcome
        if len(outcome.value) <= limits.INLINE_BYTES_MAX:
            return outcome
        kind = outcome.kind | LOCATED
        return Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)

    def free(self, object_ids: bytes) -> None:
        for oid in split_objects(object_ids):
            self.stored.pop(oid, None)

    def announced(self) -> list[Outcome]:
        return [
            Outcome(o.object_id, o.kind | LOCATED, o.size, b"", o.contained)
            for o in self.stored.values()
        ]

    # ---- fetching --------------------------------------------------------------------------

    def fetch(self, oid: bytes, arrived: Arrived) -> None:
        """Get an object from elsewhere; one transfer however many wait for it."""
        waiting = self._fetches.get(oid)
        if waiting is not None:
            waiting.append(arrived)
            return
        self._fetches[oid] = [arrived]
        self._puller.pull(oid)

    def new_session(self) -> None:
        """Transfers of the old session are void."""
        self.server.sending.clear()
        self._puller.restart()

    def on_chunk(self, chunk: Chunk) -> None:
        outcome = self._puller.on_chunk(chunk)
        if outcome is not None:
            self.stored[outcome.object_id] = outcome
            self._send(Have(0, outcome.object_id))
            for arrived in self._fetches.pop(outcome.object_id, ()):
                arrived(outcome, "")

    def on_failed(self, message: PullFailed) -> None:
        """The head found no source, or the asking side of our own sending is gone."""
        if message.code != ObjectLostError.code:
            self.server.stop(message.transfer)
            return
        oid = self._puller.forget(message.transfer)
        if oid is not None:
            for arrived in self._fetches.pop(oid, ()):
                arrived(None, message.text)

    # ---- serving ---------------------------------------------------------------------------

    def on_pull(self, message: Pull) -> None:
        outcome = self.stored.get(message.object_id)
        self.server.serve(message, outcome, "this node does not have the object")
