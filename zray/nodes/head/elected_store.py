"""The store on etcd of whoever leads only while it has the store open. No standby."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from zray import _version, limits
from zray.core.head.leadership import LeaseTerms
from zray.errors import StoreError
from zray.nodes.head.election import Election
from zray.protocol.head_messages import HeadInfo
from zray.protocol.histogram import Histogram
from zray.store.base import Batch, Opened
from zray.store.etcd import EtcdStore
from zray.store.etcd_address import EtcdAddress


class ElectedStore:
    """``Store``: ``open`` waits until it leads. Where that ends, the store has failed.

    Args:
        name: the cluster's.
        wait_s: for another leader to end, and for etcd to answer; ``inf``: for as long as it takes.
        terms: of the lease.
    """

    def __init__(
        self,
        address: EtcdAddress,
        name: str,
        *,
        wait_s: float = limits.LEADER_WAIT_S,
        terms: LeaseTerms = LeaseTerms(),  # noqa: B008 - a tuple
    ) -> None:
        me = HeadInfo(
            os.urandom(16), [], socket.gethostname(), os.getpid(), _version.__version__, time.time()
        )
        self.commits = Histogram(limits.COMMIT_BUCKETS_S)
        self.election = Election(address, name, me, terms=terms)
        self.where = self.election.where
        self._made: Callable[[], EtcdStore] = lambda: EtcdStore(
            address, name, self.election.lead(wait_s), wait_s=wait_s
        )
        self._store: EtcdStore | None = None

    def open(self, skip: int = 0) -> Opened:
        """As ``Store.open``."""
        if self._store is not None:
            raise StoreError("opened twice")
        self.election.start()
        self.election.campaign(once=True)
        try:
            self._store = self._made()
            self._store.commits = self.commits
            return self._store.open(skip)
        except BaseException:
            self.election.end()
            raise

    def _opened(self) -> EtcdStore:
        if self._store is None:
            raise StoreError("the store is not open")
        return self._store

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """As ``Store.set_cluster_id``."""
        self._opened().set_cluster_id(cluster_id)

    def submit(self, token: int, batch: Batch) -> None:
        """As ``Store.submit``."""
        self._opened().submit(token, batch)

    def completed(self) -> list[int]:
        """As ``Store.completed``."""
        return self._store.completed() if self._store is not None else []

    def fileno(self) -> int | None:
        """As ``Store.fileno``."""
        return self._store.fileno() if self._store is not None else None

    def failure(self) -> StoreError | None:
        """As ``Store.failure``."""
        return self._store.failure() if self._store is not None else None

    def stall(self) -> StoreError | None:
        """As ``Store.stall``."""
        return self._store.stall() if self._store is not None else None

    def close(self) -> None:
        """As ``Store.close``."""
        if self._store is not None:
            self._store.close()
        self.election.end()
