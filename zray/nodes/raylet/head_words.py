"""What a node's log has of its head: it refuses the node, none leads, or which one does."""

from __future__ import annotations

from collections.abc import Callable

from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER

LEADER_AWAITED_S = 5.0  # heads need a moment to agree on who leads; after that it is said


class HeadWords:
    """``log`` takes a line."""

    def __init__(self, heads: KnownHeads, log: Callable[[str], object]) -> None:
        self._heads = heads
        self._log = log
        self._refusal = ""  # as it was said last
        self._followed, self._epoch = "", 0  # the last session's
        self._without_leader = NEVER  # since when all heads that answer stand by
        self._said = False

    def linked(self) -> None:
        """There is a session. Called whenever something has come."""
        heads = self._heads
        if heads.epoch == self._epoch:
            return
        if self._epoch and heads.address != self._followed:
            change = f"{self._followed} -> {heads.address} (epoch {self._epoch} -> {heads.epoch})"
            self._log(f"head changed {change}")
        self._followed, self._epoch = heads.address, heads.epoch
        self._without_leader, self._said = NEVER, False

    def refused(self, text: str) -> None:
        """Once, for as long as the head says the same."""
        if text != self._refusal:
            self._refusal = text
            self._say(f"the head at {self._heads.address} refuses this node, which tries on", text)

    def awaits_leader(self, now: float) -> bool:
        """An attempt has ended: whether heads are there, and it is only that none leads."""
        message = self._heads.stands_by
        if message is None:
            return False
        self._without_leader = min(self._without_leader, now)
        if now - self._without_leader > LEADER_AWAITED_S and not self._said:
            self._said = True
            self._say(f"waits for a head that leads; {self._heads.said_by} says", message.text)
        return True

    def _say(self, what: str, text: str) -> None:
        from zray.core.causes import plain  # rarely wanted

        self._log(f"{what}: {plain(text)}")
