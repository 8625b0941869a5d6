"""The store of a head that runs alone: one SQLite file, written by a thread of its own.

Never reports a batch before SQLite has synced it to the disk.
"""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Final

from zray import limits
from zray.errors import StoreError
from zray.protocol.histogram import Histogram
from zray.store.base import Batch, Opened
from zray.store.completions import Completions
from zray.store.lock import DirectoryLock
from zray.store.sqlite_errors import slow
from zray.store.sqlite_file import SqliteFile

_GROUP_ROWS: Final = 4096  # of one transaction; a single larger batch still goes whole
_GROUP_BYTES: Final = 16 << 20
_SLOW_S: Final = 1.0  # a change that takes longer is told
_RETRY_S: Final = 0.25  # between attempts to commit while the disk is full
_DRAIN_S: Final = 5.0  # close() waits for commits at most this long
_CHECKPOINT_BYTES: Final = 4 << 20  # of log: checkpoint even while batches come
_IDLE_S: Final = 1.0  # without a batch: checkpoint, so that a lost log costs little


class SqliteStore:
    """``Store`` in ``<data_directory>/gcs.sqlite``: write-ahead log, synced at every commit.

    A full disk, or another program's lock, is a stall: commits are tried until they succeed.
    Any other error of a write, a replaced file or a newer opener is a failure: after a failed
    fsync nobody knows what is on the disk, so only a restart, which reads it, goes on.
    """

    def __init__(self, data_directory: Path) -> None:
        self._lock = DirectoryLock(data_directory)
        self._file = SqliteFile(data_directory / "gcs.sqlite")
        self._file_guard = threading.Lock()  # set_cluster_id against the writer
        self._queue: queue.SimpleQueue[tuple[int, Batch] | None] = queue.SimpleQueue()
        self._completions = Completions()
        self._failure: StoreError | None = None
        self._stall: StoreError | None = None
        self._slow = slow(data_directory / "gcs.sqlite", _SLOW_S)
        self._writing_s: float | None = None  # since when
        self._writer: threading.Thread | None = None
        self._closed = False
        self._drain_until = float("inf")
        self.commits = Histogram(limits.COMMIT_BUCKETS_S)

    def open(self, skip: int = 0) -> Opened:
        """As ``Store.open``."""
        if self._writer is not None or self._closed:
            raise StoreError("a SqliteStore is opened once; make a new one")
        self._lock.acquire()
        try:
            opened = self._file.open(skip)
            self._completions.open()
        except BaseException:
            self._file.close()
            self._lock.release()
            raise
        self._writer = threading.Thread(target=self._run, name="zray-store", daemon=True)
        self._writer.start()
        return opened

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """As ``Store.set_cluster_id``."""
        self._check_open()
        with self._file_guard:
            self._file.set_cluster_id(cluster_id)

    def submit(self, token: int, batch: Batch) -> None:
        """As ``Store.submit``."""
        self._check_open()
        if self._failure is None:
            self._queue.put((token, batch))

    def completed(self) -> list[int]:
        """As ``Store.completed``."""
        self._completions.rest()
        return self._completions.take() if self._failure is None else []

    def fileno(self) -> int | None:
        """As ``Store.fileno``."""
        return self._completions.fileno()

    def failure(self) -> StoreError | None:
        """As ``Store.failure``."""
        return self._failure

    def stall(self) -> StoreError | None:
        """As ``Store.stall``."""
        if self._stall is not None:
            return self._stall
        began = self._writing_s
        return self._slow if began is not None and time.monotonic() - began > _SLOW_S else None

    def close(self) -> None:
        """As ``Store.close``."""
        if self._closed:
            return
        self._closed = True
        writer = self._writer
        if writer is None:
            return
        self._drain_until = time.monotonic() + _DRAIN_S
        self._queue.put(None)
        writer.join(_DRAIN_S + 1.0)
        self._completions.close_reader()
        # A writer that hangs in the kernel may still commit: the lock stays until the process ends.
        if not writer.is_alive():
            self._lock.release()

    def _check_open(self) -> None:
        if self._writer is None or self._closed:
            raise StoreError("the store is not open")

    # ---- on the writer's thread ------------------------------------------------------------

    def _run(self) -> None:
        try:
            last = False
            while not last and time.monotonic() < self._drain_until:
                group, last = self._take()
                if not self._commit(group):
                    break
        except StoreError as error:
            self._failure = error
        except Exception as error:
            self._failure = StoreError(
                f"the control store's writer failed: {error!r}. The head acknowledges nothing "
                "more; all that it acknowledged is stored. Restart the head."
            )
        finally:
            self._completions.wake()
            with self._file_guard:
                self._file.close()
            self._completions.close_writer()

    def _take(self) -> tuple[list[tuple[int, Batch]], bool]:
        """Wait for a batch, take what else is there; and whether close() was called after it."""
        group: list[tuple[int, Batch]] = []
        rows = size = 0
        entry = self._wait()
        while entry is not None:
            group.append(entry)
            rows += len(entry[1])
            size += sum(len(value or b"") for _, _, value in entry[1])
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                return group, False
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _wait(self) -> tuple[int, Batch] | None:
        while self._file.log_bytes():
            try:
                return self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                self._checkpoint()
        return self._queue.get()

    def _commit(self, group: list[tuple[int, Batch]]) -> bool:
        """Make a group durable, however long it takes; False where close() ran out of time."""
        changes = {(table, key): value for _, batch in group for table, key, value in batch}
        began = self._writing_s = time.monotonic()
        while True:
            with self._file_guard:
                stall = self._file.write(changes)
            if stall is None:
                break
            if self._stall is None:
                self._stall = stall
                self._completions.wake()
            if time.monotonic() + _RETRY_S >= self._drain_until:
                return False
            time.sleep(_RETRY_S)
        self._stall = self._writing_s = None
        self.commits.add(time.monotonic() - began)
        self._completions.add(token for token, _ in group)
        if self._file.log_bytes() >= _CHECKPOINT_BYTES:
            self._checkpoint()
        return True

    def _checkpoint(self) -> None:
        with self._file_guard:
            self._file.checkpoint()
