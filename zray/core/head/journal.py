"""What is to be stored, in order, and what may happen once it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Row = tuple[str, bytes, bytes | None]  # table, key, value; None deletes
Persist = Callable[[list[Row], Callable[[float], None]], None]


class Unknown(Protocol):
    """What is in stored rows that this version does not know."""

    def kept(self, rows: list[Row]) -> list[Row]:
        """The rows, with that in them."""


class Journal:
    """Entries are numbered from 1, in the order in which they are to be stored.

    Attributes:
        unknown: is to stay in rows that are stored again; None: there is nothing of that.
    """

    def __init__(self) -> None:
        self.unknown: Unknown | None = None
        self.numbered = 0  # of the last entry
        self._unstored: list[tuple[int, list[Row]]] = []
        self._then: dict[int, Callable[[float], None]] = {}

    def __bool__(self) -> bool:
        """Whether there are entries to hand to the store."""
        return bool(self._unstored)

    def persist(self, rows: list[Row], then: Callable[[float], None]) -> None:
        """Commit rows; ``then`` (which acknowledges or reveals them) runs once they are durable."""
        if self.unknown is not None:
            rows = self.unknown.kept(rows)
        self.numbered += 1
        self._then[self.numbered] = then
        self._unstored.append((self.numbered, rows))

    def take(self) -> list[tuple[int, list[Row]]]:
        """New entries, with their numbers, for the store."""
        entries, self._unstored = self._unstored, []
        return entries

    def stored(self, number: int) -> Callable[[float], None]:
        """An entry is durable; what is to be called now."""
        return self._then.pop(number)

    def waits(self) -> bool:
        """Whether something is not durable yet."""
        return bool(self._then)
