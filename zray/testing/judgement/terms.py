"""The invariants of several heads: whose words count, whose writes, and what each of them finds.

Looked at in the shared store itself: a head's own belief about who leads is what is judged.
"""

from __future__ import annotations

from zray.store.base import Batch, Rows
from zray.store.etcd_layout import Layout
from zray.testing.world.clock import Clock
from zray.testing.world.errors import Violation
from zray.testing.world.shared_store import SharedStore, Transact


class Terms:
    """What leaders have said and stored, over the whole simulation.

    Attributes:
        leaders: epochs of those that have opened the store, in order.
        deposed_until: by epoch, until when its leader may not know that its key was deleted.
    """

    def __init__(self, clock: Clock, shared: SharedStore, layout: Layout) -> None:
        self._clock = clock
        self._shared = shared
        self._layout = layout
        self.leaders: list[int] = []
        self.deposed_until: dict[int, float] = {}
        self._found: Rows = {}  # by the last leader
        self._batches: list[Batch] = []  # of it, in order
        self._acknowledged: dict[int, int] = {}  # of each leader's batches
        self._kept: dict[int, int] = {}  # of these, what the next leader has found
        shared.applied = self.applied

    # ---- what is stored --------------------------------------------------------------------

    def opened(self, epoch: int, rows: Rows) -> None:
        """A leader has read everything: all that was acknowledged has to be there."""
        if self.leaders and epoch <= self.leaders[-1]:
            raise Violation(f"epoch {epoch} comes after {self.leaders[-1]}")
        self._find(epoch, rows)
        self.leaders.append(epoch)
        self._found = {table: dict(content) for table, content in rows.items()}
        self._batches = []

    def _find(self, epoch: int, rows: Rows) -> None:
        """What the last leader wrote last may be there or not, but as a whole and in order."""
        found, kept = self._found, -1
        for count, batch in enumerate([[], *self._batches]):
            for table, key, value in batch:
                content = found.setdefault(table, {})
                if value is None:
                    content.pop(key, None)
                else:
                    content[key] = value
            if _same(found, rows):
                kept = count
        last = self.leaders[-1] if self.leaders else 0
        acknowledged = self._acknowledged.get(last, 0)
        if kept < acknowledged:
            raise Violation(
                f"epoch {epoch} does not find what epoch {last} has stored: {acknowledged} of "
                f"{len(self._batches)} batches were acknowledged"
            )
        self._kept[last] = kept

    def submitted(self, epoch: int, batch: Batch) -> None:
        """A leader wants this stored, behind what it wanted before."""
        if epoch == self.leaders[-1]:
            self._batches.append([*batch])

    def acknowledged(self, epoch: int, count: int) -> None:
        """It was told that so many of its batches are durable."""
        acknowledged = self._acknowledged[epoch] = self._acknowledged.get(epoch, 0) + count
        if acknowledged > self._kept.get(epoch, acknowledged):
            raise Violation(f"epoch {epoch} acknowledges what the next leader has not found")

    def applied(self, transaction: Transact) -> None:
        """The store carries out a transaction: rows are only written by who leads."""
        leader = self._shared.get(self._layout.leader)
        for key, value in transaction.puts:
            if key != self._layout.mark or value is None:
                continue
            epoch = int(value.partition(b":")[0])
            if leader is None or leader.created != epoch:
                leads = leader.created if leader is not None else None
                raise Violation(f"a write of epoch {epoch} is applied, and {leads} leads")

    # ---- what is said ----------------------------------------------------------------------

    def speaks(self, name: str, epoch: int) -> None:
        """A leader says something to its peers: nobody else may lead by then."""
        leader = self._shared.get(self._layout.leader)
        if leader is not None and leader.created == epoch:
            return
        if self._clock.now > self.deposed_until.get(epoch, 0.0):
            leads = leader.created if leader is not None else "nobody"
            raise Violation(f"{name} speaks as epoch {epoch}, and {leads} leads")

    def obeyed(self, name: str, known: int, epoch: int) -> None:
        """A peer that knows of an epoch has done what a head of another told it."""
        if epoch < known:
            raise Violation(f"{name} follows a word of epoch {epoch}, and knows of {known}")


def _same(one: Rows, other: Rows) -> bool:
    tables = one.keys() | other.keys()
    return all(one.get(table, {}) == other.get(table, {}) for table in tables)
