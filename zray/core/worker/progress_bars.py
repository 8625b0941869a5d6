"""A worker's progress bars: when its raylet is told how far they are.

Owns the numbers of the bars that are open. Whoever counts may say so as often as it likes; what is
told is at most one state of all in ``PROGRESS_S``, and the same again after ``PROGRESS_AGAIN_S``.
"""

from __future__ import annotations

from zray import limits
from zray.protocol import messages as m
from zray.protocol.errors import cut_text


class ProgressBars:
    """A bar beyond ``BARS_MAX`` that are open has the number 0, and nothing is told of it."""

    def __init__(self) -> None:
        self._bars: dict[int, m.Bar] = {}
        self._changed: dict[int, None] = {}
        self._last = 0
        self._told_at = float("-inf")
        self._all_told_at = float("-inf")

    def open(self, label: str, total: int) -> int:
        """The number of a new bar."""
        if len(self._bars) >= limits.BARS_MAX:
            return 0
        self._last += 1
        self._bars[self._last] = m.Bar(self._last, cut_text(label, limits.NAME_MAX), 0, total)
        self._changed[self._last] = None
        return self._last

    def update(self, number: int, done: int) -> None:
        """So much is done of it."""
        bar = self._bars.get(number)
        if bar is not None and done != bar.done:
            self._bars[number] = m.Bar(number, bar.label, done, bar.total)
            self._changed[number] = None

    def close(self, number: int) -> list[m.Bar]:
        """Nothing more is done of it; what is to be told at once."""
        bar = self._bars.pop(number, None)
        self._changed.pop(number, None)
        return [] if bar is None else [m.Bar(number, bar.label, bar.done, bar.total, True)]

    def due(self, now: float) -> list[m.Bar]:
        """What is to be told now."""
        if now < self._told_at + limits.PROGRESS_S:
            return []
        if now >= self._all_told_at + limits.PROGRESS_AGAIN_S:
            self._all_told_at = now
            self._changed.update(dict.fromkeys(self._bars))
        if not self._changed:
            return []
        self._told_at = now
        told = [self._bars[number] for number in self._changed]
        self._changed.clear()
        return told
