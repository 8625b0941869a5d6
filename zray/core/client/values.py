"""Values on their way to a client and from it: what it pulls, and what it serves until freed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from zray.core import failures
from zray.core.chunks import ChunkPuller, ChunkServer
from zray.errors import ObjectLostError
from zray.ids import split_objects
from zray.protocol.messages import (
    ERROR,
    LOCATED,
    Chunk,
    ChunkAck,
    Free,
    Message,
    Outcome,
    Pull,
    PullFailed,
    Put,
)


class Near(Protocol):
    """The store of the process's own node, with which it shares memory."""

    def take(self, oid: bytes) -> bool:
        """Ask it for an object; False: there is no such node here."""

    def published(self, oid: bytes) -> bytes:
        """The process's own object there is about to be told of; the node that has it."""

    def unput(self, oid: bytes) -> None:
        """The process's own object there is not needed any more, and was never told of."""

    def told(self) -> tuple[list[Outcome], bytes]:
        """The process's own objects there that were told of, and the node that has them."""


class ClientValues:
    """``arrived`` gets each value that was pulled, or an error in its place."""

    def __init__(self, send: Callable[[Message], None], arrived: Callable[[Outcome], None]) -> None:
        self._send = send
        self._arrived = arrived
        self.served: dict[bytes, Outcome] = {}  # published from here, until they are freed
        self.lost: dict[bytes, None] = {}  # no copy was found for this process
        self.server = ChunkServer(send)
        self.near: Near | None = None
        self._puller = ChunkPuller(send)
        self.handlers: dict[type[Message], Callable[[Any], None]] = {
            Chunk: self.on_chunk,
            ChunkAck: self.server.on_ack,
            PullFailed: self.on_failed,
            Free: lambda message: self.freed(message.object_ids),
        }

    # ---- to here ---------------------------------------------------------------------------

    def pull(self, oid: bytes) -> None:
        """Have a value come, from the node's store or in chunks."""
        if self.near is None or not self.near.take(oid):
            self._puller.pull(oid)

    def arrived_near(self, outcome: Outcome) -> None:
        """The node's store has the object."""
        self._arrived(outcome)

    def missing_near(self, oid: bytes, code: str, text: str) -> None:
        """It cannot be had there: not in this way (no ``code``), or not at all."""
        if code:
            self._lose(oid, text)
        else:
            self._puller.pull(oid)

    def on_chunk(self, chunk: Chunk) -> None:
        """Some of a value has come."""
        outcome = self._puller.on_chunk(chunk)
        if outcome is not None:
            self._arrived(outcome)

    def on_failed(self, message: PullFailed) -> None:
        """A value will not come: it is lost, or has to be asked for anew."""
        if message.code != ObjectLostError.code:  # the asking side of our own sending is gone
            self.server.stop(message.transfer)
            return
        oid = self._puller.forget(message.transfer)
        if oid is not None:
            self._lose(oid, message.text)

    def _lose(self, oid: bytes, text: str) -> None:
        self.lost[oid] = None
        value = failures.encode(ObjectLostError, text)
        self._arrived(Outcome(oid, ERROR, len(value), value))

    # ---- from here -------------------------------------------------------------------------

    def on_pull(self, message: Pull, here: Outcome | None) -> None:
        """``here``: the value, if the process has it for itself."""
        if here is not None and type(here.value) is not bytes:
            here = None  # its node has it
        outcome = self.served.get(message.object_id) or here
        self.server.serve(message, outcome, "the driver does not have the object any more")

    def freed(self, object_ids: bytes) -> None:
        """Nobody needs these any more (ObjectIDs, concatenated)."""
        for oid in split_objects(object_ids):
            self.served.pop(oid, None)

    # ---- a new session ---------------------------------------------------------------------

    def announce(self, holder: bytes) -> None:
        """Tell what is served here; the values themselves stay until they are asked for.

        Also what is with the node: word of it may have been lost with the session.
        """
        if self.near is not None:
            outcomes, place = self.near.told()
            for outcome in outcomes:
                self._send(Put(0, holder, outcome, place))
        for outcome in self.served.values():
            self._send(Put(0, holder, without_value(outcome)))

    def resume(self) -> None:
        """Transfers of the old session are void."""
        self.server.sending.clear()
        self._puller.restart()


def without_value(outcome: Outcome) -> Outcome:
    """The outcome of an object whose value is elsewhere."""
    kind = outcome.kind | LOCATED
    return Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)
