"""What a Pool returns at once: AsyncResult and MapResult, and the iterators of ``imap``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from multiprocessing import TimeoutError
from typing import Any

from zray.util.parallel.dispatcher import Work
from zray.util.parallel.map_run import NotInTime, Part, Results

Callback = Callable[[Any], object] | None


class AsyncResult:
    """The result of a call, or of a map, that may not be there yet."""

    def __init__(self, callback: Callback, error_callback: Callback) -> None:
        self._callback, self._error_callback = callback, error_callback
        self._arrived = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def ready(self) -> bool:
        """Whether it is there."""
        return self._arrived.is_set()

    def successful(self) -> bool:
        """Whether it is a value and no error.

        Raises:
            ValueError: it is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, so many seconds at most."""
        self._arrived.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """The value.

        Raises:
            multiprocessing.TimeoutError: it is not there after so many seconds.
            Exception: what the call raised; of a map, what the first item that failed did.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        callback, what = (self._callback, value) if error is None else (self._error_callback, error)
        try:
            if callback is not None:
                callback(what)
        finally:
            self._callback = self._error_callback = None
            self._arrived.set()


class CallResult(AsyncResult):
    """Of ``apply_async``; it is the job of the call, too."""

    def __init__(self, work: Work, callback: Callback, error_callback: Callback) -> None:
        super().__init__(callback, error_callback)
        self._work: Work | None = work

    def begin(self) -> Work | None:
        """As ``Job.begin``."""
        work, self._work = self._work, None
        return work

    def succeeded(self, value: Any) -> None:
        """As ``Job.succeeded``."""
        self._end(value, None)

    def failed(self, error: BaseException) -> None:
        """As ``Job.failed``."""
        self._end(None, error)


class MapResult(AsyncResult):
    """Of ``map_async`` over so many items: a list; a sink of the run."""

    def __init__(self, count: int, callback: Callback, error_callback: Callback) -> None:
        super().__init__(callback, error_callback)
        self._values: list[Any] = [None] * count
        self._failed = count  # the first item with an error
        self._first: BaseException | None = None

    def arrived(self, part: Part) -> None:
        """As ``Sink.arrived``."""
        at = part.start + len(part.values)
        self._values[part.start : at] = part.values
        if part.error is not None and at < self._failed:
            self._failed, self._first = at, part.error

    def ended(self, count: int) -> None:
        """As ``Sink.ended``."""
        values, self._values = self._values, []
        self._end(None if self._first is not None else values, self._first)


class IMapIterator(Iterator[Any]):
    """Of ``imap`` and ``imap_unordered``."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Raises:
            StopIteration: there is none any more.
            multiprocessing.TimeoutError: it is not there after so many seconds.
            Exception: what that item's call raised; the next call goes on after it.
        """
        try:
            return self._results.next(timeout)
        except NotInTime:
            raise TimeoutError from None
