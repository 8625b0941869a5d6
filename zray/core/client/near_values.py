"""Which values of its node's memory a process keeps, in case that they are used.

Such a value holds its region, so there is a bound on them: the oldest are let go of, and asked for
again when they are used. An array that was made of one holds the region by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.client.values import without_value
from zray.protocol.messages import Outcome


class NearValues:
    """``outcomes``: of the process's references. ``is_awaited``: whether somebody waits for it."""

    def __init__(self, outcomes: dict[bytes, Outcome], is_awaited: Callable[[bytes], bool]) -> None:
        self._outcomes = outcomes
        self._is_awaited = is_awaited
        self._kept: dict[bytes, int] = {}  # sizes, the oldest first
        self._bytes = 0
        self.keep_bytes = 1 << 62
        self.reached: dict[bytes, None] = {}  # objects that were here, and can be had at once

    def arrived(self, oid: bytes, outcome: Outcome) -> None:
        """A value has come; it stays at least until the next one does."""
        if type(outcome.value) is bytes:
            self.dropped(oid)
            return
        self._bytes += outcome.size - self._kept.pop(oid, 0)
        self._kept[oid] = outcome.size
        while self._bytes > self.keep_bytes and len(self._kept) > 1:
            self._let_go(next(iter(self._kept)))

    def relieve(self) -> None:
        """Memory is short: all go that nobody waits for."""
        for oid in [*self._kept]:
            if not self._is_awaited(oid):
                self._let_go(oid)

    def _let_go(self, oid: bytes) -> None:
        self._bytes -= self._kept.pop(oid)
        outcome = self._outcomes.get(oid)
        if outcome is not None and type(outcome.value) is not bytes:
            self._outcomes[oid] = without_value(outcome)
            self.reached[oid] = None

    def node_ended(self) -> None:
        """The node has ended."""
        self.reached.clear()

    def dropped(self, oid: bytes) -> None:
        """The process's last reference to the object is gone."""
        self.reached.pop(oid, None)
        self._bytes -= self._kept.pop(oid, 0)
