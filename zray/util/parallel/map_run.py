"""MapRun: a function over many items, in chunks. Owns which items go next, and what comes back.

A chunk that an error or its time has ended early comes back in part; the rest goes again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

from zray.runtime import task_errors
from zray.util.parallel import calls
from zray.util.parallel.chunk_sizes import ChunkSizes
from zray.util.parallel.dispatcher import Dispatcher, Work

LOOKED_AT = 4  # items of each chunk, for their size


class NotInTime(TimeoutError):
    """A result is not there yet."""


class Part(NamedTuple):
    """The values of consecutive items, and the error of the one after them if there is one.

    ``span``: how many items these are; more than there are values where nobody knows the others'.
    """

    start: int
    values: list[Any]
    error: BaseException | None
    span: int


class Sink(Protocol):
    """Who takes what comes back, in any order."""

    def arrived(self, part: Part) -> None:
        """Values of some items have come, or an error."""

    def ended(self, count: int) -> None:
        """That was all, of so many items."""


class MapRun:
    """Of one ``map``. ``star``: each item is the arguments of a call.

    Args:
        dispatcher: where the chunks go.
        function: as ``calls.pickled`` returns it.
        items: a list; or what is read by whoever calls ``feed``, and in no other thread.
        sizes: of the chunks.
        sink: who takes the results.
        ahead: how many items may be under way or in the sink at most; None: as many as chunks may.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        function: Any,
        items: Iterable[Any],
        star: bool,
        sizes: ChunkSizes,
        sink: Sink,
        ahead: int | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._function = function
        self._star = star
        self._sizes = sizes
        self._sink = sink
        self._ahead = ahead
        self._left = len(items) if isinstance(items, list) else None
        self._items = iter(items)
        self._lock = threading.Lock()
        self._feeding = threading.Lock()  # of whoever feeds; to read the items may take long
        self._hungry = False
        self._again: deque[tuple[int, list[Any]]] = deque()
        self._begun = 0  # items that have been read
        self._under_way = 0  # chunks
        self._taken = 0  # items whose results somebody has taken
        self._exhausted = False
        self._stopped = False
        self._told = False

    def feed(self, *, read: bool = True) -> None:
        """Send what may be under way; ``read``: the items may be read for that."""
        self._hungry = True
        while self._hungry and self._feeding.acquire(blocking=False):
            try:
                self._hungry = False
                job = self._next(read)
            finally:
                self._feeding.release()  # whoever came meanwhile has left word
            if job is not None:
                self._hungry = True
                self._put(job)
        self._tell_end()

    def _put(self, job: _Chunk) -> None:
        try:
            self._dispatcher.put(job)
        except Exception as error:  # nothing is taken any more
            self._end_early()
            job.failed(error)

    def _end_early(self) -> None:
        with self._lock:
            self._stopped = self._exhausted = True
            self._again.clear()

    def took(self, items: int) -> None:
        """The results of so many items were taken from the sink."""
        with self._lock:
            self._taken += items

    def stop(self) -> None:
        """Send nothing more."""
        self._end_early()

    def _next(self, read: bool) -> _Chunk | None:
        with self._lock:
            if self._stopped or self._under_way >= self._sizes.chunks_max:
                return None
            if self._again:
                return self._sent(*self._again_part())
            if self._exhausted or not read:
                return None
            size = self._sizes.next(self._left)
            if self._ahead is not None:
                size = min(size, self._ahead - (self._begun - self._taken))
                if size <= 0:
                    return None
        items = list(islice(self._items, size))
        with self._lock:
            if len(items) < size:
                self._exhausted = True
            if not items or self._stopped:
                return None
            start = self._begun
            self._begun += len(items)
            if self._left is not None:
                self._left -= len(items)
                self._exhausted = not self._left
            looked_at = items[:LOOKED_AT]
            self._sizes.weighed(len(looked_at), sum(map(_bytes_of, looked_at)))
            most = self._sizes.items_max
            if len(items) > most:  # they are larger than those before
                self._again.append((start + most, items[most:]))
            return self._sent(start, items[:most])

    def _again_part(self) -> tuple[int, list[Any]]:
        """Of what goes again, as much as a chunk may have now."""
        start, items = self._again.popleft()
        size = self._sizes.next(len(items) + (self._left or 0))
        if size < len(items):
            self._again.appendleft((start + size, items[size:]))
        return start, items[:size]

    def _sent(self, start: int, items: list[Any]) -> _Chunk:
        self._under_way += 1
        return _Chunk(self, start, items)

    def work(self, items: list[Any]) -> Work | None:
        """A chunk is about to start; None: nobody needs it any more."""
        with self._lock:
            if self._stopped:
                self._under_way -= 1
                return None
        return Work(None, (self._function, items, self._star, self._sizes.stop_s), {}, chunk=True)

    def ran(self, start: int, items: list[Any], ran: calls.Ran) -> None:
        """What a chunk has come to."""
        error = calls.original(task_errors.load_exception(ran.error)) if ran.error else None
        span = len(ran.values) + (error is not None)
        self._came(Part(start, ran.values, error, span), items[span:], ran.seconds)

    def lost(self, start: int, items: list[Any], error: BaseException) -> None:
        """A chunk has no results."""
        self._came(Part(start, [], error, len(items)), [], None)

    def _came(self, part: Part, rest: list[Any], seconds: float | None) -> None:
        with self._lock:
            if rest and not self._stopped:
                self._again.append((part.start + part.span, rest))
            if rest and part.error is None:
                self._sizes.cut_off()
            elif seconds is not None:
                self._sizes.measured(part.span, seconds)
        self._sink.arrived(part)
        with self._lock:
            self._under_way -= 1
        # Items that are not a list are read by whoever wants their results: it may take long.
        self.feed(read=self._left is not None)

    def _tell_end(self) -> None:
        with self._lock:
            over = self._exhausted and not self._under_way and not self._again
            if not over or self._told:
                return
            self._told = True
        self._sink.ended(self._begun)


class _Chunk:
    """The job of a chunk."""

    __slots__ = ("_items", "_run", "_start")

    def __init__(self, run: MapRun, start: int, items: list[Any]) -> None:
        self._run = run
        self._start = start
        self._items = items

    def begin(self) -> Work | None:
        return self._run.work(self._items)

    def succeeded(self, value: Any) -> None:
        self._run.ran(self._start, self._items, value)

    def failed(self, error: BaseException) -> None:
        self._run.lost(self._start, self._items, error)


def _bytes_of(item: Any) -> int:
    """About how large it is, without looking deep."""
    if isinstance(item, bytes | bytearray | str):
        return len(item)
    if isinstance(item, tuple):
        return sum(map(_bytes_of, item))
    size = getattr(item, "nbytes", 0)
    return size if isinstance(size, int) else 0


class Results(Iterator[Any]):
    """A sink that gives the values to whoever asks: in the items' order, or as they come."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._changed = threading.Condition()
        self._parts: dict[int, Part] = {}  # by the first item's place
        self._at = 0  # the next item
        self._values: deque[Any] = deque()
        self._error: BaseException | None = None  # after the values
        self._total: int | None = None
        self.feed: Callable[[], None] = lambda: None
        self.took: Callable[[int], None] = lambda items: None

    def arrived(self, part: Part) -> None:
        """As ``Sink.arrived``."""
        with self._changed:
            self._parts[part.start] = part
            self._changed.notify_all()

    def ended(self, count: int) -> None:
        """As ``Sink.ended``."""
        with self._changed:
            self._total = count
            self._changed.notify_all()

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next value.

        Raises:
            StopIteration: there is none any more.
            NotInTime: none came in so many seconds.
            Exception: what that item's call raised; the next call goes on after it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._values:
                return self._values.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            part = self.take(end)
            if part is None:
                raise StopIteration
            self._values.extend(part.values)
            self._error = part.error

    def take(self, end: float | None) -> Part | None:
        """The next part, which is waited for until the time ``end``; None: that was all.

        Raises:
            NotInTime: there was none by then.
        """
        self.feed()
        with self._changed:
            part = self._part()
            while part is None:
                if self._total is not None and self._at >= self._total:
                    return None
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise NotInTime
                self._changed.wait(left)
                part = self._part()
        self._at += part.span
        self.took(part.span)
        return part

    def _part(self) -> Part | None:
        if self._ordered:
            return self._parts.pop(self._at, None)
        return self._parts.pop(next(iter(self._parts))) if self._parts else None
