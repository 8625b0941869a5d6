"""A store in memory, for tests, local mode and the simulator. Never uses a thread or a clock."""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.errors import StoreError
from zray.protocol.histogram import Histogram
from zray.store.base import Batch, Opened, Rows


class MemoryStore:
    """``Store`` whose durable content lives as long as the instance or its successors.

    Args:
        rows: durable content to begin with; copied.
        epoch: epoch of the last opening of that content.
        cluster_id: its cluster's id.
        auto: batches are durable as soon as submitted. Else ``commit`` decides when.
    """

    def __init__(
        self,
        rows: Rows | None = None,
        epoch: int = 0,
        *,
        cluster_id: bytes | None = None,
        auto: bool = True,
    ) -> None:
        self._rows = _copied(rows or {})
        self._epoch = epoch
        self._cluster_id = cluster_id
        self._auto = auto
        self._open = False
        self._used = False
        self._waiting: deque[tuple[int, Batch]] = deque()
        self._completed: list[int] = []
        self._failure: StoreError | None = None
        self.commits = Histogram(limits.COMMIT_BUCKETS_S)

    def open(self, skip: int = 0) -> Opened:
        """As ``Store.open``."""
        if self._used:
            raise StoreError("a MemoryStore is opened once; continue from crash()")
        self._open = self._used = True
        self._epoch += 1 + skip
        return Opened(self._epoch, _copied(self._rows), self._cluster_id)

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """As ``Store.set_cluster_id``."""
        self._check_open()
        if self._cluster_id not in (None, cluster_id):
            raise StoreError("the store belongs to another cluster already")
        self._cluster_id = cluster_id

    def submit(self, token: int, batch: Batch) -> None:
        """As ``Store.submit``."""
        self._check_open()
        if self._failure is not None:
            return
        self._waiting.append((token, batch))
        if self._auto:
            self.commit(1)

    def completed(self) -> list[int]:
        """As ``Store.completed``."""
        if self._failure is not None:
            return []
        tokens, self._completed = self._completed, []
        return tokens

    def fileno(self) -> int | None:
        """As ``Store.fileno``."""
        return None

    def failure(self) -> StoreError | None:
        """As ``Store.failure``: it has none."""
        return self._failure

    def stall(self) -> StoreError | None:
        """As ``Store.stall``: it has none."""
        return None

    def close(self) -> None:
        """As ``Store.close``."""
        if self._open:
            self.commit(len(self._waiting))
        self._open = False

    def waiting(self) -> int:
        """Batches that are submitted and not durable."""
        return len(self._waiting)

    def commit(self, count: int) -> int:
        """Make the next ``count`` batches durable, fewer if fewer wait; return how many."""
        if self._failure is not None:
            return 0
        count = min(count, len(self._waiting))
        for _ in range(count):
            token, batch = self._waiting.popleft()
            _apply(self._rows, batch)
            self._completed.append(token)
        return count

    def fail(self, error: StoreError) -> None:
        """Fence this instance, as an I/O error does. What was durable stays for ``crash``."""
        if self._failure is None:
            self._failure = error
        self._waiting.clear()

    def crash(self) -> MemoryStore:
        """End this instance as kill -9 does and return the next, not opened yet.

        Batches that were not durable are lost.
        """
        self._open = False
        self._waiting.clear()
        self._completed.clear()
        return MemoryStore(self._rows, self._epoch, cluster_id=self._cluster_id, auto=self._auto)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the store is not open")


def _copied(rows: Rows) -> Rows:
    return {table: dict(content) for table, content in rows.items() if content}


def _apply(rows: Rows, batch: Batch) -> None:
    for table, key, value in batch:
        if value is not None:
            rows.setdefault(table, {})[key] = value
        elif table in rows:
            rows[table].pop(key, None)
            if not rows[table]:
                del rows[table]
