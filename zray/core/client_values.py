"""Values on their way to a client and from it: what it pulls, and what it serves until freed."""

from __future__ import annotations

from collections.abc import Callable

from zray.core import failures
from zray.core.chunks import ChunkPuller, ChunkServer
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
        self.server = ChunkServer(send)
        self._puller = ChunkPuller(send)

    # ---- to here ---------------------------------------------------------------------------

    def pull(self, oid: bytes) -> None:
        self._puller.pull(oid)

    def on_chunk(self, chunk: Chunk) -> None:
        outcome = self._puller.on_chunk(chunk)
        if outcome is not None:
            self._arrived(outcome)

    def on_failed(self, message: PullFailed) -> None:
        if message.code != ObjectLostError.code:  # the asking side of our own sending is gone
            self.server.stop(message.transfer)
            return
        oid = self._puller.forget(message.transfer)
        if oid is not None:
            self.lost[oid] = None
            value = failures.encode(ObjectLostError, message.text)
            self._arrived(Outcome(oid, ERROR, len(value), value))

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
        """Transfers of the old session are void."""
        self.server.sending.clear()
        self._puller.restart()
