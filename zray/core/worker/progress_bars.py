"""A worker's progress bars: when its raylet is told how far they are.

Owns the numbers of the bars that are open. Whoever counts may say so as often as it likes; what is
told is at most one state of all in ``PROGRESS_S``, and the same again after ``PROGRESS_AGAIN_S``.
"""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from zray import limits
from zray.protocol import messages as m
from zray.protocol.errors import cut_text


class ProgressBars:
    """A bar beyond ``BARS_MAX`` that are open has the number 0, and nothing is told of it.

    ``dropped``: numbers of bars that their owners have let go without closing them; any thread may
    append to it.
    """

    def __init__(self) -> None:
        self._bars: dict[int, m.Bar] = {}
        self._changed: dict[int, None] = {}
        self.dropped: deque[int] = deque()
        self._over: list[m.Bar] = []  # ends that are still to be told
        self._last = 0
        self._told_at = float("-inf")
        self._all_told_at = float("-inf")

    def open(self, label: str, total: int, unit: str = "") -> int:
        """The number of a new bar."""
        if len(self._bars) >= limits.BARS_MAX:
            self._over += self._ended()
        if len(self._bars) >= limits.BARS_MAX:
            return 0
        self._last += 1
        label, unit = cut_text(label, limits.NAME_MAX), cut_text(unit, limits.NAME_MAX)
        self._bars[self._last] = m.Bar(self._last, label, 0, total, unit=unit)
        self._changed[self._last] = None
        return self._last

    def update(self, number: int, done: int) -> None:
        """So much is done of it."""
        bar = self._bars.get(number)
        if bar is not None and done != bar.done:
            self._bars[number] = replace(bar, done=done)
            self._changed[number] = None

    def describe(self, number: int, label: str, total: int) -> None:
        """It says something else from now on."""
        if (bar := self._bars.get(number)) is not None:
            label = cut_text(label, limits.NAME_MAX)
            self._bars[number] = replace(bar, label=label, total=total)
            self._changed[number] = None

    def close(self, number: int) -> list[m.Bar]:
        """Nothing more is done of it; what is to be told at once."""
        bar = self._bars.pop(number, None)
        self._changed.pop(number, None)
        return [] if bar is None else [replace(bar, ended=True)]

    def _ended(self) -> list[m.Bar]:
        """Those that were let go."""
        return [bar for _ in range(len(self.dropped)) for bar in self.close(self.dropped.popleft())]

    def due(self, now: float) -> list[m.Bar]:
        """What is to be told now."""
        if now < self._told_at + limits.PROGRESS_S:
            return []
        if now >= self._all_told_at + limits.PROGRESS_AGAIN_S:
            self._all_told_at = now
            self._changed.update(dict.fromkeys(self._bars))
        told, self._over = self._over + self._ended(), []
        if not self._changed and not told:
            return []
        self._told_at = now
        told += [self._bars[number] for number in self._changed]
        self._changed.clear()
        return told
