"""What the examples in other languages call by name: ``zray-worker --import hello_offers``."""

from __future__ import annotations

from typing import Any

import zray


@zray.task(name="hello.count")
def count(text: str, *, least: int = 1) -> dict[str, int]:
    """How often each word occurs that occurs at least so often."""
    words = text.split()
    print(f"counting {len(words)} words")
    found = {word: words.count(word) for word in words}
    return {word: number for word, number in sorted(found.items()) if number >= least}


@zray.task(name="hello.repeat")
def repeat(piece: bytes, times: int) -> bytes:
    """A large value, if so asked."""
    return piece * times


@zray.task(name="hello.size")
def size(data: bytes) -> int:
    """The number of bytes."""
    return len(data)


@zray.task(name="hello.fail")
def fail(town: str) -> None:
    """Raises."""
    raise LookupError(f"no town named {town}")


@zray.actor(offer="hello.Totals")
class Totals:
    """Adds up what it is told, by name."""

    def __init__(self, names: list[str]) -> None:
        self._totals: dict[str, Any] = dict.fromkeys(names, 0)

    def add(self, name: str, amount: float = 1) -> float:
        """The new total. Raises KeyError for a name that was not given at the start."""
        self._totals[name] += amount
        total: float = self._totals[name]
        return total

    def totals(self) -> dict[str, Any]:
        """All of them."""
        return self._totals

    def history(self, rows: int) -> list[dict[str, Any]]:
        """A large value: the totals, so many times."""
        return [self._totals] * rows
