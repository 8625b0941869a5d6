"""ChunkSizes: how many items go into the next chunk of a map, by the time that items have taken.

Guided self-scheduling: a chunk is a share of what is left, so that all workers end together, but
no less than what is worth sending and no more than what takes a moment. Decides only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import ceil

WORTH_S = 0.002  # a chunk of less is cut only so that all workers have one,
SENDING_S = 0.0005  # and what it costs to send one not at all
MOMENT_S = 0.05  # a chunk is planned to take no longer: results come while others are made
STOP_S = 0.2  # a chunk that takes longer is cut off: its items were slower than those before
BYTES_MAX = 4 << 20  # of the items of one chunk
ITEMS_MAX = 10_000
FUNCTIONS_MAX = 64  # of which is remembered how long their calls took


class ChunkSizes:
    """Of one map that ``workers`` (at least 1) run at a time; ``fixed`` items a chunk if given.

    ``each_s``: what an item took in an earlier map, in seconds, if there was one.
    """

    def __init__(self, workers: int, fixed: int | None = None, each_s: float | None = None) -> None:
        self._workers = workers
        self._fixed = fixed
        self._each_s = each_s
        self.items_max = fixed or ITEMS_MAX  # in a chunk, by their size

    @property
    def each_s(self) -> float | None:
        """What an item takes, in seconds, as far as is known."""
        return self._each_s

    @property
    def stop_s(self) -> float | None:
        """After how many seconds a chunk gives back what it has not begun; None: never."""
        return None if self._fixed is not None else STOP_S

    @property
    def chunks_max(self) -> int:
        """How many chunks there may be under way: one waits behind each that runs."""
        known = self._fixed is not None or self._each_s is not None
        return 2 * self._workers if known else self._workers

    def next(self, left: int | None) -> int:
        """Items of the next chunk, at least 1; ``left``: how many there are, if that is known."""
        if self._fixed is not None:
            return self._fixed
        if self._each_s is None:
            return 1
        size = MOMENT_S / self._each_s
        if left is not None and left * self._each_s > SENDING_S:
            worth = min(WORTH_S / self._each_s, left / self._workers)
            size = min(size, max(worth, left / (2 * self._workers)))
        return max(1, min(ceil(size), self.items_max, left or ITEMS_MAX))

    def measured(self, items: int, seconds: float) -> None:
        """A chunk has run so many items, in so many seconds."""
        if items:
            each_s = max(seconds / items, 1e-9)
            self._each_s = each_s if self._each_s is None else (self._each_s + each_s) / 2

    def cut_off(self) -> None:
        """A chunk took too long: its last items were slow, and so those after them may be."""
        self._each_s = MOMENT_S

    def weighed(self, items: int, size: int) -> None:
        """So many items are of ``size`` bytes together, as far as can be told."""
        if items and size and self._fixed is None:
            self.items_max = max(1, min(ITEMS_MAX, BYTES_MAX * items // size))


class FunctionTimes:
    """What the calls of functions took in their last map: the next one need not try that out."""

    def __init__(self) -> None:
        self._last: OrderedDict[Hashable, ChunkSizes] = OrderedDict()

    def sizes(self, workers: int, function: Hashable | None, fixed: int | None) -> ChunkSizes:
        """For a map of the function; None: of one that cannot be told from others."""
        if function is None or fixed is not None:
            return ChunkSizes(workers, fixed)
        last = self._last.pop(function, None)
        sizes = ChunkSizes(workers, None, last.each_s if last is not None else None)
        self._last[function] = sizes
        if len(self._last) > FUNCTIONS_MAX:
            self._last.popitem(last=False)
        return sizes
