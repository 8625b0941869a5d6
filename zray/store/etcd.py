"""The store of heads on several machines: an etcd, written by a thread of its own.

Never reports a batch before more than half of etcd's members have it on their disks, nor once
another head may lead.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from zray import limits
from zray.errors import FencedError, StoreError
from zray.protocol.histogram import Histogram
from zray.store import etcd_errors, etcd_layout
from zray.store.base import Batch, Opened, Rows
from zray.store.completions import Completions
from zray.store.etcd_address import EtcdAddress
from zray.store.etcd_gateway import Gateway
from zray.store.etcd_layout import Damaged, Delete, Layout, Meta, Operation, Place, Planner
from zray.store.etcd_wire import (
    OUT_OF_RANGE,
    EtcdError,
    NoSpace,
    Pair,
    Unavailable,
    created,
    equals,
)
from zray.store.fencing import Term, Verdict, WriteSequence

_PATIENCE_S: Final = 2.0  # until it is said that etcd does not answer
_SLOW_S: Final = 1.0  # a change that takes longer is told
_RETRY_S: Final = 0.25  # while etcd is full
_DRAIN_S: Final = 4.0  # close() waits for commits at most this long
_LARGE_PAGE: Final = 4  # parts in one answer
_READS: Final = 3  # of all rows, where history is compacted meanwhile


T = TypeVar("T")


class EtcdStore:
    """``Store`` under ``/zray/<name>/`` in etcd, for one term of the head that leads.

    The epoch is the revision in which the leader's key was made, and each write has that as a
    term. An etcd that does not answer, is slow or full is a stall: commits are tried until they
    succeed, or the term is over (``FencedError``).

    Args:
        name: the cluster's.
        term: for which this head leads; neither begun nor ended here.
        wait_s: how long ``open`` waits for etcd to answer.
    """

    def __init__(
        self,
        address: EtcdAddress,
        name: str,
        term: Term,
        *,
        wait_s: float = limits.LEADER_WAIT_S,
    ) -> None:
        self.where = address.where(name)
        self._layout = Layout(name)
        self._gateway = Gateway(address)
        self._completions = Completions()
        self._term = term
        self._wait_s = wait_s
        self._guard = threading.Lock()  # of the gateway: set_cluster_id against the writer
        self._queue: queue.SimpleQueue[tuple[int, Batch] | None] = queue.SimpleQueue()
        self._ahead: tuple[int, Batch] | None = None
        self._cluster_id: bytes | None = None
        self._skipped = 0  # epochs that go before etcd's revisions
        self._failure: StoreError | None = None
        self._stall: StoreError | None = None
        self._slow = etcd_errors.slow(self.where, _SLOW_S)
        self._writing_s: float | None = None  # since when
        self._writer: threading.Thread | None = None
        self._closed = False
        self._drain_until = float("inf")
        self.commits = Histogram(limits.COMMIT_BUCKETS_S)

    # ---- the head's ------------------------------------------------------------------------

    def open(self, skip: int = 0) -> Opened:
        """As ``Store.open``."""
        if self._writer is not None or self._closed:
            raise StoreError("an EtcdStore is opened once; make a new one")
        try:
            self._completions.open()
            opened = self._load(skip)
        except BaseException as error:
            self._give_up()
            if isinstance(error, EtcdError):
                raise etcd_errors.cannot_open(self.where, error) from error
            if isinstance(error, Damaged):
                raise etcd_errors.damaged(self.where, str(error)) from error
            raise
        self._writer = threading.Thread(target=self._run, name="zray-store", daemon=True)
        self._writer.start()
        return opened

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """As ``Store.set_cluster_id``."""
        self._check_open()
        if self._cluster_id == cluster_id:
            return
        if self._cluster_id is not None:
            raise StoreError(
                f"the control store {self.where} belongs to cluster {self._cluster_id.hex()}, not "
                f"to {cluster_id.hex()}. Give the head that cluster's key, or another --name."
            )
        with self._guard:
            self._write([self._meta(cluster_id)])
        self._cluster_id = cluster_id

    def submit(self, token: int, batch: Batch) -> None:
        """As ``Store.submit``."""
        self._check_open()
        if self._failure is None:
            self._queue.put((token, batch))

    def completed(self) -> list[int]:
        """As ``Store.completed``."""
        self._completions.rest()
        return self._completions.take() if self.failure() is None else []

    def fileno(self) -> int | None:
        """As ``Store.fileno``."""
        return self._completions.fileno()

    def failure(self) -> StoreError | None:
        """As ``Store.failure``. Looks at the clock: true also when this thread has just woken."""
        if self._failure is None and self._writer is not None and not self._closed:
            self._failure = self._fenced()
        return self._failure

    def stall(self) -> StoreError | None:
        """As ``Store.stall``."""
        if self._stall is not None:
            return self._stall
        began = self._writing_s
        if began is not None and time.monotonic() - began > _SLOW_S:
            return self._slow
        return None

    def close(self) -> None:
        """As ``Store.close``."""
        if self._closed:
            return
        if self._writer is None:
            self._give_up()
            return
        self._drain_until = time.monotonic() + _DRAIN_S
        self._queue.put(None)
        self._writer.join(_DRAIN_S + _PATIENCE_S + 1.0)
        self.failure()  # whether what has completed may be acknowledged
        self._closed = True
        self._completions.close_reader()
        if not self._writer.is_alive():
            self._gateway.close()

    def _give_up(self) -> None:
        """Of a store that was not opened."""
        self._closed = True
        self._gateway.close()
        self._completions.close_reader()
        self._completions.close_writer()

    def _fenced(self) -> FencedError | None:
        reason = self._term.fenced()
        return etcd_errors.fenced(self.where, reason) if reason else None

    def _check_open(self) -> None:
        if self._writer is None or self._closed:
            raise StoreError("the store is not open")

    # ---- opening ---------------------------------------------------------------------------

    def _load(self, skip: int) -> Opened:
        """Write the first mark, finish what an earlier leader had begun, read and check all."""
        revision = self._term.revision
        mark = self._get(self._layout.mark)
        self._sequence = WriteSequence(revision, mark.value if mark is not None else None)
        self._planner = Planner(self._layout, b"%d" % revision)
        self._write([])
        is_new = self._read_meta()
        self._finish_staged()
        rows = self._read_rows()
        if is_new and rows:
            raise Damaged("its key `meta` is missing, though rows are there")
        self._drop_orphans()
        if is_new or skip:
            self._skipped += skip
            self._write([self._meta(self._cluster_id)])
        return Opened(revision + self._skipped, rows, self._cluster_id)

    def _get(self, key: bytes) -> Pair | None:
        """
        Raises:
            FencedError: meanwhile. EtcdError: refused, or not answered for ``wait_s``.
        """
        return self._patiently(lambda deadline_s: self._gateway.get(key, deadline_s)[0])

    def _patiently(self, asking: Callable[[float], T]) -> T:
        until_s = time.monotonic() + self._wait_s
        while True:
            fenced = self._fenced()
            if fenced is not None:
                raise fenced
            try:
                return asking(min(time.monotonic() + _PATIENCE_S, until_s))
            except Unavailable:
                if time.monotonic() >= until_s:
                    raise

    def _meta(self, cluster_id: bytes | None) -> Operation:
        return self._layout.meta, Meta(etcd_layout.SCHEMA, cluster_id, self._skipped).encode()

    def _read_meta(self) -> bool:
        """What is known of the cluster; whether it is new."""
        pair = self._get(self._layout.meta)
        if pair is None:
            return True
        found = Meta.decode(pair.value)
        if found.schema > etcd_layout.SCHEMA:
            raise etcd_errors.newer_schema(self.where, found.schema, etcd_layout.SCHEMA)
        self._skipped, self._cluster_id = found.skipped, found.cluster_id
        return False

    def _finish_staged(self) -> None:
        start = self._layout.staged
        staged = dict(pair[:2] for pair in self._all(start, rows=_LARGE_PAGE))
        if staged:
            self._apply(etcd_layout.unstage(staged, self._layout))

    def _read_rows(self) -> Rows:
        left = _READS
        while True:
            left -= 1
            try:
                return self._read_rows_once()
            except EtcdError as error:
                if error.code != OUT_OF_RANGE or not left:
                    raise

    def _read_rows_once(self) -> Rows:
        rows: Rows = {}
        self._planner.places.clear()
        for pair in self._all(self._layout.rows):
            table, key = self._layout.table_and_key(pair.key)
            found = etcd_layout.read(table, key, pair.value)
            if isinstance(found, Place):
                value = self._read_parts(found)
                etcd_layout.check(table, key, pair.value, value, found)
                self._planner.places[table, key] = found.name
                found = value
            rows.setdefault(table, {})[key] = found
        return rows

    def _read_parts(self, place: Place) -> bytes:
        start = self._layout.all_parts(place.name).start
        return b"".join(pair.value for pair in self._all(start, rows=_LARGE_PAGE))

    def _drop_orphans(self) -> None:
        """Parts of values whose rows were never written, since their leader ended before that."""
        prefix = len(self._layout.parts)
        keys = self._all(self._layout.parts, keys_only=True)
        names = {pair.key[prefix:].rpartition(b"/")[0] for pair in keys}
        orphans = names.difference(self._planner.places.values())
        deletions: list[Operation] = [self._layout.all_parts(name) for name in sorted(orphans)]
        for operations in etcd_layout.packed(deletions):
            self._write(operations)

    def _all(self, prefix: bytes, **options: Any) -> list[Pair]:
        """All keys that begin with ``prefix``, as they were at the first page."""
        start, end = prefix, etcd_layout.after_prefix(prefix)
        found: list[Pair] = []
        revision, more = 0, True
        while more:
            asking = partial(self._gateway.page, start, end, revision=revision, **options)
            page, more, revision = self._patiently(asking)
            found += page
            if more:
                start = page[-1].key + b"\0"
        return found

    # ---- writing ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            last = False
            while not last and time.monotonic() < self._drain_until:
                group, last = self._take()
                if group:
                    self._commit(group)
        except _Undone:
            pass
        except StoreError as error:
            self._failure = self._failure or error
        except Exception as error:
            self._failure = StoreError(
                f"the control store's writer failed: {error!r}. The head acknowledges nothing "
                "more; all that it acknowledged is stored. Restart the head."
            )
        finally:
            self._completions.wake()
            self._completions.close_writer()

    def _take(self) -> tuple[list[tuple[int, Batch]], bool]:
        """Wait for a batch, take what fits with it; and whether close() was called after it."""
        group: list[tuple[int, Batch]] = []
        rows = size = 0
        entry = self._ahead or self._queue.get()
        self._ahead = None
        while entry is not None:
            rows += len(entry[1])
            size += sum(len(key) + len(value or b"") for _, key, value in entry[1])
            size += etcd_layout.OPERATION_BYTES * len(entry[1])
            if group and (
                rows > etcd_layout.OPERATIONS_MAX or size > etcd_layout.TRANSACTION_BYTES // 2
            ):
                self._ahead = entry
                return group, False
            group.append(entry)
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[tuple[int, Batch]]) -> None:
        """Make a group durable, however long it takes.

        Raises:
            _Undone: close() ran out of time.
            StoreError: fenced, or refused.
        """
        began = self._writing_s = time.monotonic()
        with self._guard:
            planned = self._planner.plan(etcd_layout.merged(batch for _, batch in group))
            for operations in planned.before:
                self._write(operations)
            if not etcd_layout.fits(planned.together):
                self._stage(planned.together)
            elif planned.together:
                self._write(planned.together)
        self._writing_s = None
        self.commits.add(time.monotonic() - began)
        self._completions.add(token for token, _ in group)

    def _stage(self, operations: list[Operation]) -> None:
        """More than a transaction holds: durable, as a whole, once its last piece is."""
        *pieces, commit = etcd_layout.stage(operations, self._layout)
        for group in etcd_layout.packed(pieces):
            self._write(group)
        self._write([commit])
        self._apply(operations)

    def _apply(self, operations: list[Operation]) -> None:
        """Of a staged batch; what is interrupted is done again as a whole."""
        for group in etcd_layout.packed(operations):
            self._write(group)
        start = self._layout.staged
        self._write([Delete(start, etcd_layout.after_prefix(start))])

    def _write(self, operations: list[Operation]) -> None:
        """One transaction, applied once, if this head leads; tried until there is an answer.

        Raises:
            _Undone: close() ran out of time.
            StoreError: fenced, or refused.
        """
        sequence, layout = self._sequence, self._layout
        before = sequence.previous()
        terms = [
            created(layout.leader, sequence.revision),
            created(layout.mark, 0) if before is None else equals(layout.mark, before),
        ]
        marked: list[Operation] = [*operations, (layout.mark, sequence.mark())]
        while True:
            fenced = self._fenced()
            if fenced is not None:
                raise fenced
            patience = min(time.monotonic() + _PATIENCE_S, self._drain_until)
            try:
                answer = self._gateway.transact(
                    terms, marked, [layout.leader, layout.mark], patience
                )
                break
            except Unavailable as error:
                self._stalled(error)
            except EtcdError as error:
                raise etcd_errors.cannot_write(self.where, error) from error
        self._stall = None
        found = {pair.key: pair for pair in answer.pairs}
        leader, mark = found.get(layout.leader), found.get(layout.mark)
        verdict = sequence.judge(
            answer.succeeded,
            leader.created if leader is not None else 0,
            mark.value if mark is not None else b"",
        )
        if verdict is Verdict.APPLIED:
            sequence.advance()
            return
        which = "another does" if leader is not None else "its key is gone"
        if verdict is Verdict.OVERTAKEN:
            which = "somebody else has written in its name"
        self._term.lost(which)
        raise self._fenced() or FencedError(which)

    def _stalled(self, error: Unavailable) -> None:
        if self._stall is None:
            self._stall = etcd_errors.stalled(self.where, error)
            self._completions.wake()
        if self._writer is None and isinstance(error, NoSpace):
            raise error
        if time.monotonic() >= self._drain_until:
            raise _Undone
        if isinstance(error, NoSpace):
            time.sleep(_RETRY_S)


class _Undone(Exception):
    """close() ran out of time; what was not reported may be durable or not."""
