"""Which of many objects are ready: whose outcomes are known, or whose values are here."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import compress, count, filterfalse, islice

from zray.core.client.waiters import SomeOf, Waiters
from zray.protocol import messages as m


class Readiness:
    """``outcomes``: those known here. ``reached``: objects whose values can be had at once."""

    def __init__(
        self, outcomes: dict[bytes, m.Outcome], reached: Container[bytes], waiters: Waiters
    ) -> None:
        self._outcomes = outcomes
        self._reached = reached
        self._waiters = waiters

    def _is_ready(self, oid: bytes) -> bool:
        """Whether the value is in this process, or was, and is with its node now."""
        outcome = self._outcomes.get(oid)
        here = outcome is not None and not outcome.kind & m.LOCATED
        return here or oid in self._reached

    def first_ready(self, oids: list[bytes], number: int, *, whole: bool) -> list[int]:
        """Places of the first ``number`` that are ready; ``whole``: whose values are."""
        known = compress(count(), map(self._outcomes.__contains__, oids))
        if not whole:
            return [*islice(known, number)]
        get, reached = self._outcomes.get, self._reached
        ready: Iterator[int] = (
            place
            for place in known
            if (found := get(oids[place])) is not None
            and (not found.kind & m.LOCATED or oids[place] in reached)
        )
        return [*islice(ready, number)]

    def want_some(self, oids: list[bytes], number: int, *, whole: bool) -> SomeOf:
        """A waiter for so many of these, ready ones among them; no two are alike."""
        missing = {*oids}.difference(self._outcomes)
        if whole:
            known = filterfalse(missing.__contains__, oids)
            missing.update(filterfalse(self._is_ready, [*known]))
        waiter = SomeOf(missing, number - len(oids) + len(missing), whole=whole)
        self._waiters.want_some(oids, waiter)
        return waiter
