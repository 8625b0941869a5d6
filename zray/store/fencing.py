"""One leader's writes to a shared store: each is applied once, in order, or never. Does no I/O."""

from __future__ import annotations

import enum
from typing import Protocol


class Term(Protocol):
    """The time for which this head leads; asked and told by any thread."""

    @property
    def revision(self) -> int:
        """Of the leader's key; no other term has the same, and later ones have larger ones."""
        ...

    def fenced(self) -> str:
        """Why it is over, for ever; empty: it is not. Looks at the clock."""
        ...

    def lost(self, reason: str) -> None:
        """A write has shown that it is over."""
        ...


class Verdict(enum.Enum):
    """What the answer to a write says."""

    APPLIED = enum.auto()
    FENCED = enum.auto()  # another leads, or nobody
    OVERTAKEN = enum.auto()  # somebody has written in this leader's name


class WriteSequence:
    """Numbers one leader's transactions, so that each is applied once, in order, or never.

    Transaction n writes mark n, and the store applies it only where this leader leads and mark
    n - 1 is stored. A request whose answer was lost is sent again as it was: then it finds mark n,
    or is applied now. And a first copy that arrives late finds a later mark.

    Args:
        revision: of the leader's key; no other leader's is the same.
        stored: the mark that an earlier leader has left; None: there is none.
    """

    def __init__(self, revision: int, stored: bytes | None) -> None:
        self.revision = revision
        self._stored = stored
        self._number = 0

    def mark(self) -> bytes:
        """Of the transaction that is to be applied, or whose answer is awaited."""
        return b"%d:%d" % (self.revision, self._number)

    def previous(self) -> bytes | None:
        """Which the store must have before; None: none at all."""
        return self._stored

    def advance(self) -> None:
        """The transaction was applied; the next has another mark."""
        self._stored = self.mark()
        self._number += 1

    def judge(self, succeeded: bool, leader_revision: int, stored: bytes) -> Verdict:
        """``leader_revision``: 0 where nobody leads. ``stored``: the mark that is there."""
        if succeeded:
            return Verdict.APPLIED
        if leader_revision != self.revision:
            return Verdict.FENCED
        return Verdict.APPLIED if stored == self.mark() else Verdict.OVERTAKEN
