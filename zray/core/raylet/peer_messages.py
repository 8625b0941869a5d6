"""What other raylets say, and submitters of leased workers, at a node's own port: who takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.core.raylet.lease_relays import LeaseRelays
from zray.core.raylet.peer_transfers import PeerTransfers
from zray.protocol import messages as m


class PeerMessages:
    """Of one incarnation of the raylet."""

    def __init__(self, transfers: PeerTransfers, relays: LeaseRelays) -> None:
        self._handlers: dict[type[m.Message], Callable[[str, Any], None]] = {
            m.Pull: transfers.on_pull,
            m.Chunk: transfers.on_chunk,
            m.ChunkAck: transfers.on_ack,
            m.PullFailed: transfers.on_failed,
            m.Hello: relays.on_hello,
            m.Ping: relays.on_ping,
            m.Relay: relays.on_relay,
        }

    def receive(self, peer: str, message: m.Message) -> None:
        """One message that came in there, or over a connection to another's."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(peer, message)
