"""Cancels of what this head does not know yet.

Whoever has a reference may cancel what makes it, and may have got it from the submitter by a way
that is faster than the submitter's own to the head.
"""

from __future__ import annotations

from zray import limits
from zray.protocol.messages import Cancel


class EarlyCancels:
    """By task; each is kept for as long as an object is awaited of which nobody has told."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Cancel, float]] = {}  # and until when; the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, message: Cancel, now: float) -> None:
        """Keep it until its task is heard of."""
        kept = self._kept
        kept.pop(message.task_id, None)
        kept[message.task_id] = message, now + limits.UNKNOWN_OBJECT_S
        while kept:
            task_id, (_, until) = next(iter(kept.items()))
            if now < until and len(kept) <= limits.EARLY_CANCELS_MAX:
                break
            del kept[task_id]

    def take(self, task_id: bytes, now: float) -> Cancel | None:
        """The task is heard of; the cancel that it missed, if there was one."""
        message, until = self._kept.pop(task_id, (None, 0.0))
        return message if now < until else None
