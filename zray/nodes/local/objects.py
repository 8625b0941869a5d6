"""The objects of a program in local mode: their values, who refers to them, who waits for them.

Owns a lock of its own, which is never held while user code runs. Decides nothing about tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from zray.core.client.unasked import UnaskedErrors
from zray.ids import ObjectID
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts
from zray.runtime.quiet_lock import QuietLock

Told = Callable[[], None]


class LocalObjects:
    """Attributes:
    outcomes: what is known, and referred to.
    """

    def __init__(self) -> None:
        self._lock = QuietLock()
        self._counts: dict[ObjectID, int] = {}
        self.outcomes: dict[ObjectID, m.Outcome] = {}
        self._never: set[ObjectID] = set()  # items that will not come
        self._told: dict[ObjectID, list[Told]] = {}  # to be called when an object is there
        self._warnings: list[str] = []
        self.unasked = UnaskedErrors(self._warnings.append, self.outcomes)

    # ---- references ------------------------------------------------------------------------

    def add(self, oids: Iterable[ObjectID]) -> None:
        """There is one more reference to each."""
        with interrupts, self._lock:
            self._add(oids)

    def _add(self, oids: Iterable[ObjectID]) -> None:
        for oid in oids:
            self._counts[oid] = self._counts.get(oid, 0) + 1

    def remove(self, oids: Iterable[ObjectID]) -> list[ObjectID]:
        """There is one less to each; those that nothing refers to any more."""
        gone: list[ObjectID] = []
        left = [*oids]
        with interrupts, self._lock:
            while left:
                oid = left.pop()
                count = self._counts.get(oid, 0)
                if count > 1:
                    self._counts[oid] = count - 1
                elif count == 1:
                    del self._counts[oid]
                    gone.append(oid)
                    outcome = self.outcomes.pop(oid, None)
                    if outcome is not None:
                        left += outcome.contained
                        self.unasked.dropped(outcome)
        self._warn()
        return gone

    def _warn(self) -> None:
        """Not under the lock: the program may have a stream of its own."""
        while self._warnings:
            print(self._warnings.pop(0), file=sys.stderr)

    def is_held(self, oid: ObjectID) -> bool:
        """Whether something refers to it."""
        return oid in self._counts

    # ---- values ----------------------------------------------------------------------------

    def settle(self, outcomes: Iterable[m.Outcome]) -> None:
        """They are known now, but for those that are already. Their values still live, with all
        references inside."""
        told: list[Told] = []
        with interrupts, self._lock:
            for outcome in outcomes:
                oid = outcome.object_id
                if oid in self.outcomes:
                    continue
                told += self._told.pop(oid, ())
                if oid in self._counts:
                    self._add(outcome.contained)
                    self.outcomes[oid] = outcome
                else:  # nobody wants it any more
                    self.unasked.dropped(outcome)
        self._warn()
        for tell in told:
            tell()

    def never(self, oid: ObjectID) -> None:
        """An item will not come, so nobody is to wait for it."""
        with interrupts, self._lock:
            self._never.add(oid)
            told = self._told.pop(oid, [])
        for tell in told:
            tell()

    def forget_never(self, oid: ObjectID) -> None:
        """Nobody will ask for that item."""
        self._never.discard(oid)

    def is_ready(self, oid: ObjectID) -> bool:
        """Whether there is nothing to wait for."""
        return oid in self.outcomes or oid in self._never

    def missing(self, oids: Iterable[ObjectID]) -> list[ObjectID]:
        """Those that are to be waited for."""
        return [oid for oid in oids if not self.is_ready(oid)]

    # ---- waiting ---------------------------------------------------------------------------

    def watch(self, oids: Sequence[ObjectID], tell: Told) -> int:
        """Call ``tell`` once for each that is not there yet, when it is; how many these are.

        Whoever brings it calls, so ``tell`` must neither block nor raise.
        """
        with interrupts, self._lock:
            missing = self.missing(oids)
            for oid in missing:
                self._told.setdefault(oid, []).append(tell)
        return len(missing)

    def unwatch(self, oids: Sequence[ObjectID], tell: Told) -> None:
        """Not any more."""
        with interrupts, self._lock:
            for oid in oids:
                told = self._told.get(oid)
                if told is not None and tell in told:
                    told.remove(tell)
                    if not told:
                        del self._told[oid]
