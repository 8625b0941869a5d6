"""Reads what a cluster has in etcd, as of one revision, also while a head writes. Never writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from zray.errors import StoreError
from zray.store import etcd_errors, etcd_layout
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import Gateway
from zray.store.etcd_layout import Damaged, Delete, Layout, after_prefix
from zray.store.etcd_wire import OUT_OF_RANGE, EtcdError
from zray.store.reader import Identity, Stored

ANSWER_S: Final = 10.0
_LARGE_PAGE: Final = 4  # parts in one answer


class EtcdReader:
    """What is under ``/zray/<name>/`` in etcd, as of one revision.

    Args:
        wait_s: for etcd to answer each request.
    """

    def __init__(self, address: EtcdAddress, name: str, *, wait_s: float = ANSWER_S) -> None:
        self.where = address.where(name)
        self._layout = Layout(name)
        self._gateway = Gateway(address)
        self._wait_s = wait_s
        self._revision = 0
        self._staged: dict[bytes, bytes] = {}  # applied as a whole, or will be by the next leader
        self._gone: list[Delete] = []

    def identity(self) -> Identity:
        """As ``Reader.identity``."""
        with self._explained():
            meta, self._revision = self._gateway.get(self._layout.meta, self._deadline())
            if meta is None:
                if any(True for _ in self._pairs(self._layout.rows)):
                    raise Damaged("its key `meta` is missing, though rows are there")
                raise StoreError(f"there is no control store {self.where}")
            # As of one revision: that in which ``meta`` was read.
            found = etcd_layout.Meta.decode(meta.value)
            if found.schema > etcd_layout.SCHEMA:
                raise etcd_errors.newer_schema(self.where, found.schema, etcd_layout.SCHEMA)
            staged = dict(pair[:2] for pair in self._pairs(self._layout.staged))
            for operation in etcd_layout.unstage(staged, self._layout):
                if isinstance(operation, Delete):
                    self._gone.append(operation)
                else:
                    self._staged[operation[0]] = operation[1]
        return Identity(found.cluster_id, self._revision + found.skipped)

    def rows(self) -> Iterator[Stored]:
        """As ``Reader.rows``."""
        with self._explained():
            for key, value in self._pairs(self._layout.rows):
                if key not in self._staged and not self._is_gone(key):
                    yield self._row(key, value)
            for key, value in self._staged.items():
                if key.startswith(self._layout.rows):
                    yield self._row(key, value)

    def close(self) -> None:
        """As ``Reader.close``."""
        self._gateway.close()

    def _row(self, stored_key: bytes, stored: bytes) -> Stored:
        table, key = self._layout.table_and_key(stored_key)
        found = etcd_layout.read(table, key, stored)
        if isinstance(found, etcd_layout.Place):
            start = self._layout.all_parts(found.name).start
            value = b"".join(value for _, value in self._pairs(start, rows=_LARGE_PAGE))
            etcd_layout.check(table, key, stored, value, found)
            found = value
        return table, key, found

    def _is_gone(self, key: bytes) -> bool:
        return any(
            key == one.start if one.end is None else one.start <= key < one.end
            for one in self._gone
        )

    def _pairs(self, prefix: bytes, rows: int = 256) -> Iterator[tuple[bytes, bytes]]:
        start, more = prefix, True
        while more:
            pairs, more, _ = self._gateway.page(
                *(start, after_prefix(prefix), self._deadline()),
                revision=self._revision,
                rows=rows,
            )
            for one in pairs:
                yield one.key, one.value
            if pairs:
                start = pairs[-1].key + b"\0"

    def _deadline(self) -> float:
        return time.monotonic() + self._wait_s

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except EtcdError as error:
            if error.code == OUT_OF_RANGE:
                raise etcd_errors.forgotten(self.where) from error
            raise etcd_errors.cannot_open(self.where, error) from error
        except Damaged as error:
            raise etcd_errors.damaged(self.where, str(error)) from error
