"""What all machines share: the outbox that the shell drains once per turn.

A machine takes messages and events together with ``now`` (monotonic seconds) and leaves effects;
it has no socket, clock, thread, random generator, file or logger of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from zray.protocol.messages import Message

Peer = TypeVar("Peer")
NEVER = float("inf")


class Outbox(Generic[Peer]):
    """Messages per peer, in order, until the shell takes them."""

    def __init__(self) -> None:
        self._queues: dict[Peer, list[Message]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __iter__(self) -> Iterator[Peer]:
        """The peers that there are messages for."""
        return iter(self._queues)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._queues

    def send(self, peer: Peer, message: Message) -> None:
        """Queue a message for a peer, behind those before it."""
        queue = self._queues.get(peer)
        if queue is None:
            self._queues[peer] = [message]
        else:
            queue.append(message)

    def send_all(self, peer: Peer, messages: list[Message]) -> None:
        """The same for several; the list is the outbox's from now on."""
        queue = self._queues.get(peer)
        if queue is None:
            self._queues[peer] = messages
        else:
            queue += messages

    def discard(self, peer: Peer) -> None:
        """Forget what was meant for a peer that is gone."""
        self._queues.pop(peer, None)

    def take(self) -> dict[Peer, list[Message]]:
        """Everything sent since the last call; the caller owns it."""
        queues = self._queues
        if queues:
            self._queues = {}
        return queues
