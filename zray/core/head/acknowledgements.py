"""Which ends of attempts each raylet is told that the head knows, durably; not each at once."""

from __future__ import annotations

from zray import limits
from zray.core.head.journal import Persist
from zray.core.head.members import NodeMember
from zray.core.machine import NEVER, Outbox
from zray.protocol.messages import Ack


class Acknowledgements:
    """What is due to be acknowledged, by node."""

    def __init__(self, outbox: Outbox[bytes], persist: Persist) -> None:
        self._outbox = outbox
        self._persist = persist
        self._due: dict[bytes, int] = {}  # by node: with other messages, or soon
        self._at = 0.0

    def acknowledge(self, sender: NodeMember, seq: int, now: float, *, durable: bool) -> None:
        """Tell a raylet soon that its ends up to this one are known, once that is ``durable``."""
        sender.ends_heard = seq
        if not durable:
            sender.ends_unstored[seq] = None
            self._persist([], lambda now: self._stored(sender, seq, now))
        self._note(sender, now)

    def _stored(self, sender: NodeMember, seq: int, now: float) -> None:
        sender.ends_unstored.pop(seq, None)
        self._note(sender, now)

    def _note(self, sender: NodeMember, now: float) -> None:
        upto = min((sender.ends_heard, *(seq - 1 for seq in sender.ends_unstored)))
        if not self._due:
            self._at = now + limits.ACK_DELAY_S
        self._due[sender.process_id] = upto

    def send(self, now: float) -> None:
        """A message of its own would cost the raylet a turn, so it goes along with others."""
        due = self._due
        if not due:
            return
        for node_id in [*due] if now >= self._at else [*filter(due.__contains__, self._outbox)]:
            self._outbox.send(node_id, Ack(0, due.pop(node_id)))

    def deadline(self) -> float:
        """When one is due that nothing else goes along with."""
        return self._at if self._due else NEVER
