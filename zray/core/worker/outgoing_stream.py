"""The OutgoingStream machine: what a generator has yielded, until its consumer has it.

Items are numbered from 1. They are kept until the consumer says that it has them, and said again
where it does not; how far the generator may go ahead of it is decided here.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

from zray import limits
from zray.core.machine import NEVER
from zray.ids import item_id
from zray.protocol.messages import Items, Outcome, Taken

Pin = TypeVar("Pin")  # what keeps an object, as the shell has it


class OutgoingStream(Generic[Pin]):
    """Of one attempt of one task or call.

    Args:
        source: the process that runs it.
        target: its consumer; empty: there is none.
        unread_max: as in TEMPLATE.

    Attributes:
        yielded: how many items there are.
        closed: the consumer wants no more of them.
    """

    def __init__(
        self, task_id: bytes, source: bytes, target: bytes, unread_max: int, now: float
    ) -> None:
        self.task_id = task_id
        self.target = target
        self.yielded = 0
        self.closed = not target
        self._source = source
        self._unread_max = unread_max
        self._used = 0  # by the consumer's program
        self._kept: deque[tuple[Outcome, list[Pin]]] = deque()
        self._bytes = 0  # of these
        self._sent = 0  # how many of these have left
        self._fresh_bytes = 0  # of the others
        self._sent_at = -NEVER
        self._heard_at = now

    def next_id(self) -> bytes:
        """The object that the next item is."""
        return item_id(self.task_id, self.yielded + 1)

    def add(self, outcome: Outcome, pins: list[Pin]) -> None:
        """The generator has yielded an item; ``pins`` is what that refers to."""
        self.yielded += 1
        if not self.closed:
            self._kept.append((outcome, pins))
            size = len(outcome.value)
            self._bytes += size
            self._fresh_bytes += size

    # ---- out -------------------------------------------------------------------------------

    def fresh(self) -> bool:
        """Whether there is anything that has not left."""
        return self._sent < len(self._kept)

    def due(self, now: float) -> bool:
        """Whether that leaves now, rather than along with what follows it soon."""
        if self._sent == len(self._kept):
            return False
        late = now - self._sent_at >= limits.STREAM_DELAY_S
        return late or self._fresh_bytes >= limits.STREAM_SEND_BYTES

    def take(self, now: float) -> Items:
        """What has not left, which counts as sent."""
        if not self._sent:
            self._heard_at = now  # from now on it can answer
        outcomes = [outcome for outcome, _ in islice(self._kept, self._sent, None)]
        self._sent = len(self._kept)
        self._fresh_bytes = 0
        self._sent_at = now
        return Items(0, self._source, self.target, self.task_id, outcomes)

    def again(self, now: float) -> Items | None:
        """All that the consumer may lack, or none, for it to answer; None: it has time for that."""
        if now - self._heard_at < limits.STREAM_AGAIN_S:
            return None
        self._heard_at = now
        self._sent = 0
        return self.take(now)

    # ---- in --------------------------------------------------------------------------------

    def on_taken(self, message: Taken, now: float) -> None:
        """The consumer tells how far it is."""
        self._heard_at = now
        self._used = max(self._used, message.used)
        self.closed = self.closed or message.closed
        first = self.yielded - len(self._kept)
        while self._kept and (self.closed or first < message.upto):
            outcome, _ = self._kept.popleft()
            self._bytes -= len(outcome.value)
            self._sent = max(0, self._sent - 1)
            first += 1

    def gone(self) -> None:
        """There is no consumer any more."""
        self.closed = True
        self._kept.clear()
        self._bytes = self._sent = 0

    def may_go_on(self) -> bool:
        """Whether the generator may go on, rather than wait for its consumer."""
        if self.closed:
            return True
        if self._unread_max and self.yielded - self._used >= self._unread_max:
            return False
        kept = len(self._kept)
        return kept < limits.STREAM_KEPT_ITEMS and self._bytes < limits.STREAM_KEPT_BYTES

    def unread(self) -> int:
        """How many items the consumer's program has not used."""
        return 0 if self.closed else self.yielded - self._used

    def is_settled(self) -> bool:
        """Whether the consumer has all that there is."""
        return not self._kept
