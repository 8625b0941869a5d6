"""How many values were in which bucket, and their sum: what a histogram is made of."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from zray.protocol.metric_messages import Figure


class Histogram:
    """``bounds``: the upper bounds of all buckets but the last, each included."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """There was one such value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, counts: Sequence[int], total: float) -> None:
        """There were so many in each bucket; what does not fit is ignored."""
        if len(counts) == len(self.counts):
            for place, count in enumerate(counts):
                self.counts[place] += count
            self.total += total

    def figure(self, name: str, labels: list[str]) -> Figure:
        """It, as a series of that metric."""
        return Figure(name, self.total, labels, [*self.counts])
