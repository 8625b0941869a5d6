"""The interface of the GCS's persistence. Owns no implementation and never does I/O.

Every engine passes tests/store/test_conformance.py; the GCS depends on nothing else of an engine.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from zray.errors import StoreError
from zray.protocol.histogram import Histogram

Row: TypeAlias = tuple[str, bytes, bytes | None]
"""(table, key, value); a value of None deletes the row."""

Batch: TypeAlias = list[Row]
"""Rows that become durable together or not at all; of two with one key the later one holds."""

Rows: TypeAlias = dict[str, dict[bytes, bytes]]
"""table -> key -> value. A table without rows is absent."""


class Opened(NamedTuple):
    """What a store held when it was opened.

    Attributes:
        epoch: this opening's number, from 1 on, larger than that of every earlier opening.
        rows: everything durable. Empty for a new cluster. The caller owns it.
        cluster_id: what ``set_cluster_id`` stored, None in a new cluster.
    """

    epoch: int
    rows: Rows
    cluster_id: bytes | None


class Store(Protocol):
    """Rows that outlive the head. One instance is opened once, by one thread, and closed once.

    Commits happen behind ``submit``; nothing here except ``open``, ``set_cluster_id`` and
    ``close`` waits for a disk or a network.

    Attributes:
        commits: how long each took, in seconds; of what is durable at once there is none.
    """

    commits: Histogram

    def open(self, skip: int = 0) -> Opened:
        """Take the lock, commit a higher epoch, and return everything stored.

        Args:
            skip: so many epochs more than else: what is stored is older than its cluster.

        Raises:
            DataDirectoryLockedError: another head uses the store.
            StoreError: what is stored cannot be trusted or reached. Never an empty start instead.
        """
        ...

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """Make the cluster's id durable before returning.

        Raises:
            StoreError: another id is stored already, or it cannot be written.
        """
        ...

    def submit(self, token: int, batch: Batch) -> None:
        """Queue a batch for the next group commit; never blocks. The store owns ``batch`` now.

        Batches become durable in the order of submission. After a failure they are dropped.

        Raises:
            StoreError: the store is not open.
        """
        ...

    def completed(self) -> list[int]:
        """Tokens of batches that have become durable since the last call, in submission order.

        Never blocks. Callable after ``close`` for what became durable while it drained. Empty for
        ever once ``failure()`` is set: a batch that is not reported may still be durable.
        """
        ...

    def fileno(self) -> int | None:
        """A descriptor that is readable when completed(), failure() or stall() has news.

        ``completed()`` makes it unreadable again. None where ``submit`` completes at once.
        """
        ...

    def failure(self) -> StoreError | None:
        """Why the store is fenced: nothing completes in this instance any more. Never reset."""
        ...

    def stall(self) -> StoreError | None:
        """Why nothing completes just now (such as a full disk); commits go on when it has gone."""
        ...

    def close(self) -> None:
        """Make durable what was submitted, within a bound, then release the lock. Idempotent."""
        ...
