"""Transfers between raylets without the head: what this one serves to others, and asks of them.

Peers are named by the shell: those that asked here by their route, others by their address.
"""

from __future__ import annotations

from zray import limits
from zray.core.chunks import ChunkServer
from zray.core.machine import Outbox
from zray.core.raylet.objects import LocalObjects
from zray.errors import ObjectLostError
from zray.protocol.messages import (
    Chunk,
    ChunkAck,
    Message,
    Pull,
    PullFailed,
    PullFrom,
)


class PeerTransfers:
    """``outbox``: by peer; the shell connects to an address on the first message to it."""

    def __init__(self, objects: LocalObjects) -> None:
        self.outbox: Outbox[str] = Outbox()
        self._objects = objects
        self._servers: dict[str, ChunkServer] = {}  # by who asked
        self._asked: dict[str, dict[int, None]] = {}  # by address: transfers
        self._avoid: dict[str, float] = {}  # addresses that could not be reached, and until when

    def on_pull_from(self, message: PullFrom, now: float) -> None:
        """The head says whom to ask."""
        puller, address, transfer = self._objects.puller, message.address, message.transfer
        if self._avoid.get(address, 0.0) > now:
            puller.ask_head(transfer)
            return

        def send(message: Message) -> None:
            self.outbox.send(address, message)

        if puller.ask_source(transfer, send):
            self._asked.setdefault(address, {})[transfer] = None

    def on_pull(self, peer: str, message: Pull) -> None:
        """It wants a value, which is sent in chunks."""
        server = self._servers.get(peer)
        if server is None:
            server = ChunkServer(lambda answer: self.outbox.send(peer, answer))
            self._servers[peer] = server
        try:
            outcome = self._objects.whole(message.object_id)
            server.serve(message, outcome, "this node does not have the object")
        except Exception:
            self._unreadable(peer, server, message.transfer)
            raise

    def on_ack(self, peer: str, message: ChunkAck) -> None:
        """It has taken so much of a value, and can take more."""
        server = self._servers.get(peer)
        if server is None:
            return
        try:
            server.on_ack(message)
        except Exception:
            self._unreadable(peer, server, message.transfer)
            raise

    def _unreadable(self, peer: str, server: ChunkServer, transfer: int) -> None:
        """Who waits for an answer has one, whatever happens."""
        server.stop(transfer)
        text = "this node could not read the object"
        self.outbox.send(peer, PullFailed(0, transfer, ObjectLostError.code, text))

    def on_chunk(self, peer: str, message: Chunk) -> None:
        """A part of a value that was asked for there."""
        self._objects.on_chunk(message)
        if not self._objects.puller.active(message.transfer):
            self._asked.get(peer, {}).pop(message.transfer, None)

    def on_failed(self, peer: str, message: PullFailed) -> None:
        """It does not have what was asked for there: the head may know who else has."""
        if message.transfer in self._asked.get(peer, {}):
            del self._asked[peer][message.transfer]
            self._objects.puller.ask_head(message.transfer)

    def lost(self, peer: str, now: float, *, reached: bool) -> None:
        """The connection is gone. ``reached``: there was one."""
        self._servers.pop(peer, None)
        self.outbox.discard(peer)
        if not reached:
            self._avoid[peer] = now + limits.PEER_AVOID_S
        for transfer in self._asked.pop(peer, ()):
            self._objects.puller.ask_head(transfer)
