"""Values on their way to a client and from it: what it pulls, and what it serves until freed."""

from __future__ import annotations

from collections.abc import Callable

from zray.core import failures
from zray.core.chunks import ChunkReceiver, ChunkServer
from zray.errors import ObjectLostError
from zray.ids import split_objects
from zray.protocol.messages import (
    ERROR,
    LOCATED,
    Chunk,
    Message,
    Outcome,
    Pull,
    PullFailed,
    Put,
)


class ClientValues:
    """``arrived`` gets each value that was pulled, or an error in its place."""

    def __init__(self, send: Callable[[Message], None], arrived: Callable[[Outcome], None]) -> None:
        self._send = send
        self._arrived = arrived
        self.served: dict[bytes, Outcome] = {}  # published from here, until they are freed
        self.lost: dict[bytes, None] = {}  # no copy was found for this process
        self._receiving: dict[int, tuple[bytes, ChunkReceiver]] = {}
        self._pulling: dict[bytes, int] = {}
        self.server = ChunkServer(send)
        self._transfer = 0

    # ---- to here ---------------------------------------------------------------------------

    def pull(self, oid: bytes) -> None:
        if oid not in self._pulling:
            self._transfer += 1
            self._pulling[oid] = self._transfer
            self._receiving[self._transfer] = (oid, ChunkReceiver())
            self._send(Pull(0, self._transfer, oid))

    def on_chunk(self, chunk: Chunk) -> None:
        entry = self._receiving.get(chunk.transfer)
        if entry is None:
            return
        oid, receiver = entry
        ack, value = receiver.add(chunk)
        if ack is not None:
            self._send(ack)
        if value is not None:
            outcome = Outcome(oid, receiver.kind, len(value), value, receiver.contained)
            self._end(chunk.transfer, outcome)

    def on_failed(self, message: PullFailed) -> None:
        if message.code != ObjectLostError.code:  # the asking side of our own sending is gone
            self.server.stop(message.transfer)
            return
        entry = self._receiving.get(message.transfer)
        if entry is not None:
            self.lost[entry[0]] = None
            value = failures.encode(ObjectLostError, message.text)
            self._end(message.transfer, Outcome(entry[0], ERROR, len(value), value))

    def _end(self, transfer: int, outcome: Outcome) -> None:
        del self._receiving[transfer]
        self._pulling.pop(outcome.object_id, None)
        self._arrived(outcome)

    # ---- from here -------------------------------------------------------------------------

    def on_pull(self, message: Pull, here: Outcome | None) -> None:
        """``here``: the value, if the process has it for itself."""
        outcome = self.served.get(message.object_id) or here
        self.server.serve(message, outcome, "the driver does not have the object any more")

    def freed(self, object_ids: bytes) -> None:
        for oid in split_objects(object_ids):
            self.served.pop(oid, None)

    # ---- a new session ---------------------------------------------------------------------

    def announce(self, holder: bytes) -> None:
        """Tell what is served here; the values themselves stay until they are asked for."""
        for outcome in self.served.values():
            kind = outcome.kind | LOCATED
            there = Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)
            self._send(Put(0, holder, there))

    def resume(self) -> None:
        """Transfers of the old session are void; what is still wanted is asked for again."""
        self.server.sending.clear()
        self._receiving.clear()
        wanted, self._pulling = self._pulling, {}
        for oid in wanted:
            self.pull(oid)
