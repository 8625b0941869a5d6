"""The store of one term as leader: the GCS's rows in the shared store, under the leader's key.

As `store.etcd` does it: one transaction at a time, with what came meanwhile in the next; each with
the leader's key and the mark of the one before as its terms, by the shipped `WriteSequence`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from zray.store.base import Batch, Opened, Rows
from zray.store.etcd_layout import Layout
from zray.store.fencing import Term, Verdict, WriteSequence
from zray.testing.world.clock import Clock
from zray.testing.world.shared_store import (
    Answer,
    Created,
    Equals,
    Get,
    Pair,
    SharedStore,
    Transact,
)
from zray.testing.world.store_link import StoreLink

PATIENCE_S = 2.0  # as the real one: then it is said that the store stalls
ROWS_MAX = 120  # of one transaction

Operations = list[tuple[bytes, bytes | None]]


class Judge(Protocol):
    """Who notes what leaders store and say, to compare it with what later ones find."""

    def opened(self, epoch: int, rows: Rows) -> None:
        """A leader has read everything."""

    def submitted(self, epoch: int, batch: Batch) -> None:
        """It wants this stored, behind what it wanted before."""

    def acknowledged(self, epoch: int, count: int) -> None:
        """So many of its batches are durable, as it was told."""

    def speaks(self, name: str, epoch: int) -> None:
        """A head says something as the leader of that epoch."""


class TermStore:
    """``wake``: there is news for the head. Open once ``opened`` is there."""

    def __init__(
        self,
        clock: Clock,
        shared: SharedStore,
        link: StoreLink,
        layout: Layout,
        term: Term,
        judge: Judge,
        wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._shared = shared
        self._link = link
        self._layout = layout
        self._term = term
        self._terms = judge
        self._wake = wake
        self.opened: Opened | None = None
        self.stall = ""
        self._waiting: deque[tuple[int, Batch]] = deque()
        self._completed: list[int] = []
        self._writing = False
        self._shown: tuple[int, Rows] = (0, {})
        self._get(Get((layout.mark,)), self._mark_read)

    def durable(self) -> Rows:
        """What is durable, for judges."""
        if self._shown[0] != self._shared.revision:
            rows = rows_in(self._layout, tuple(self._shared.pairs.values()))
            self._shown = self._shared.revision, rows
        return self._shown[1]

    # ---- opening ---------------------------------------------------------------------------

    def _get(self, request: Get, then: Callable[[tuple[Pair, ...]], None]) -> None:
        def done(answer: Answer | None) -> None:
            if self._term.fenced():
                self._wake()
            elif answer is None:
                self._get(request, then)
            else:
                then(answer.pairs)

        self._link.ask(request, PATIENCE_S, done)

    def _mark_read(self, pairs: tuple[Pair, ...]) -> None:
        stored = pairs[0].value if pairs else None
        self._sequence = WriteSequence(self._term.revision, stored)
        self._write([], self._read_rows)  # from now on nobody writes in an earlier term

    def _read_rows(self) -> None:
        self._get(Get((self._layout.rows,)), self._rows_read)

    def _rows_read(self, pairs: tuple[Pair, ...]) -> None:
        rows = rows_in(self._layout, pairs)
        self._terms.opened(self._term.revision, rows)
        self.opened = Opened(self._term.revision, rows, None)
        self._wake()

    # ---- writing ---------------------------------------------------------------------------

    def submit(self, token: int, batch: Batch) -> None:
        """As ``Store.submit``."""
        self._terms.submitted(self._term.revision, batch)
        self._waiting.append((token, batch))
        self._write_next()

    def completed(self) -> list[int]:
        """As ``Store.completed``."""
        if self._term.fenced():
            return []
        tokens, self._completed = self._completed, []
        self._terms.acknowledged(self._term.revision, len(tokens))
        return tokens

    def idle(self) -> bool:
        """Whether all that was submitted is durable, and known to be."""
        return not (self._waiting or self._writing or self._completed)

    def _write_next(self) -> None:
        if self._writing or not self._waiting:
            return
        group: list[tuple[int, Batch]] = []
        rows = 0
        while self._waiting and rows < ROWS_MAX:
            group.append(self._waiting.popleft())
            rows += len(group[-1][1])
        changes = {(table, key): value for _, batch in group for table, key, value in batch}
        self._writing = True

        def durable() -> None:
            self._writing = False
            self._completed += [token for token, _ in group]
            self._wake()
            self._write_next()

        row = self._layout.row
        self._write([(row(*where), value) for where, value in changes.items()], durable)

    def _write(self, operations: Operations, applied: Callable[[], None]) -> None:
        """One transaction, applied once, if this head leads; tried until there is an answer."""
        if self._term.fenced():
            self._wake()
            return
        request = self._transaction(operations)

        def done(answer: Answer | None) -> None:
            if answer is None:
                self.stall = "the shared store does not answer"
                self._write(operations, applied)
            else:
                self.stall = ""
                self._judge(answer, applied)

        self._link.ask(request, PATIENCE_S, done)

    def _transaction(self, operations: Operations) -> Transact:
        layout, sequence = self._layout, self._sequence
        before = sequence.previous()
        mark = Created(layout.mark, 0) if before is None else Equals(layout.mark, before)
        return Transact(
            (Created(layout.leader, sequence.revision), mark),
            (*operations, (layout.mark, sequence.mark())),
            (layout.leader, layout.mark),
        )

    def _judge(self, answer: Answer, applied: Callable[[], None]) -> None:
        found = {pair.key: pair for pair in answer.pairs}
        leader, mark = found.get(self._layout.leader), found.get(self._layout.mark)
        verdict = self._sequence.judge(
            answer.succeeded,
            leader.created if leader is not None else 0,
            mark.value if mark is not None else b"",
        )
        if verdict is Verdict.APPLIED:
            self._sequence.advance()
            applied()
            return
        self._term.lost(f"the store says that its write is {verdict.name}")
        self._wake()


def rows_in(layout: Layout, pairs: tuple[Pair, ...]) -> Rows:
    """The rows among these, by table."""
    rows: Rows = {}
    for pair in pairs:
        if pair.key.startswith(layout.rows):
            table, key = layout.table_and_key(pair.key)
            rows.setdefault(table, {})[key] = pair.value
    return rows
