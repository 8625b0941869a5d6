"""Progress bars in tasks, actors and drivers, all shown by the driver of their job.

Semantics: ``ray.experimental.tqdm_ray`` of Ray 2.60, without tqdm itself: zray has bars for
terminals, notebooks and logs of its own (docs/utilities.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar

from zray.api.session import participant

T = TypeVar("T")
COUNT_MAX = 2**53 - 1  # as messages carry
FLUSH_S = 0.05  # the rest is for those who show it


class tqdm(Generic[T]):
    """A bar. Many may be open at once, 64 in each process; more are not shown.

    ``for row in tqdm(rows)`` counts what it passes on, and the bar ends with the loop. Otherwise
    call ``update`` and, at last, ``close``, or use it as a context manager. What is printed
    meanwhile stays readable above the bars.

    Args:
        iterable: what to iterate over.
        desc: what stands before the bar; its first 256 characters.
        total: how much there is; by default the length of ``iterable``. None: it is not known.
        unit: what is counted.
        position: for programs written for tqdm; where bars are is for the driver to decide.
        flush_interval_s: say how far it is at most so often; by default about 5 times a second.
    """

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        desc: str | None = None,
        total: float | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        if total is None and iterable is not None:
            try:
                total = len(iterable)  # type: ignore[arg-type]  # that is the question
            except (TypeError, AttributeError):
                total = None
        self._iterable = iterable
        self._desc = str(desc or "")
        self._total = total
        self._n: float = 0
        self._flush_s = FLUSH_S if flush_interval_s is None else flush_interval_s
        self._flushed = float("-inf")
        self._closed = False
        shown_unit = unit if unit and unit != "it" else ""
        self._bar: Any = participant().open_bar(self._desc, _count(total), shown_unit)

    def set_description(self, desc: str) -> None:
        """Have the bar say something else."""
        self._desc = str(desc)
        self._describe()

    def update(self, n: float = 1) -> None:
        """So much more is done."""
        self._n += n
        now = time.monotonic()
        if now - self._flushed >= self._flush_s:
            self._flushed = now
            self.refresh()

    def refresh(self) -> None:
        """Say at once how far it is."""
        if not self._closed:
            self._bar.update(_count(self._n))

    def close(self) -> None:
        """The bar stays as it is now."""
        if not self._closed:
            self.refresh()
            self._closed = True
            self._bar.close()

    @property
    def total(self) -> float | None:
        """How much there is."""
        return self._total

    @total.setter
    def total(self, total: float | None) -> None:
        self._total = total
        self._describe()

    @property
    def n(self) -> float:
        """How much is done."""
        return self._n

    @n.setter
    def n(self, n: float) -> None:
        self._n = n

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        try:
            for one in self._iterable:
                self.update(1)
                yield one
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _describe(self) -> None:
        if not self._closed:
            self._bar.describe(self._desc, _count(self._total))


def _count(number: float | None) -> int:
    """As bars count: whole, and from 0 on. What is endless or no number is not known, as with
    tqdm."""
    if number is None or not 0 < number < float("inf"):
        return 0
    return min(int(number), COUNT_MAX)


def safe_print(*args: Any, **kwargs: Any) -> None:
    """``print``: what is printed while there are bars appears above them anyway."""
    print(*args, **kwargs)
