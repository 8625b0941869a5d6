"""The progress bars that a program shows: its own, and those of tasks, on stderr or in a notebook.

Owns what is shown of which bar and when. How it looks is a screen's business (`progress_screens`).
"""

from __future__ import annotations

import threading
import time
from collections import deque

from zray import limits
from zray.protocol import messages as m
from zray.runtime.progress_screens import Screen, Shown, clean, screen

BARS_MAX = 1000  # of all tasks; more are not shown
Key = tuple[str, int, int]  # node, pid, number; the driver's own have no node


class ProgressDisplay:
    """Any thread may use it. Nothing is written while there is no bar."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: dict[Key, Shown] = {}
        self._screen: Screen | None = None
        self._last = 0
        self.dropped: deque[Key] = deque()  # own bars that were let go; any thread may append

    def open(self, label: str, total: int, unit: str = "") -> OwnBar:
        """A bar of the driver's own."""
        with self._lock:
            self._end_dropped()
            self._last += 1
            key = ("", 0, self._last)
            self._bars[key] = Shown("", label, total, time.monotonic(), unit)
            self._draw()
        return OwnBar(self, key)

    def update(self, key: Key, done: int) -> None:
        """So much of it is done."""
        with self._lock:
            if (bar := self._bars.get(key)) is not None:
                bar.done = done
                self._draw()

    def describe(self, key: Key, label: str, total: int) -> None:
        """It says something else from now on."""
        with self._lock:
            if (bar := self._bars.get(key)) is not None:
                bar.label, bar.total = clean(label), total
                self._draw()

    def close(self, key: Key) -> None:
        """It stays as it is now, above the others."""
        with self._lock:
            if (bar := self._bars.pop(key, None)) is not None:
                self._end(bar)

    def told(self, message: m.Progress) -> None:
        """How far a worker's tasks are."""
        now = time.monotonic()
        with self._lock:
            for bar in message.bars:
                key = (message.node, message.pid, bar.number)
                shown = self._bars.get(key)
                if shown is None:
                    if bar.ended or len(self._bars) >= BARS_MAX:
                        continue
                    where = f"({message.name} pid={message.pid}, node={message.node}) "
                    shown = self._bars[key] = Shown(where, bar.label, bar.total, now, bar.unit)
                shown.done, shown.total, shown.heard = bar.done, bar.total, now
                shown.label = clean(bar.label)
                if bar.ended:
                    self._end(self._bars.pop(key))
            self._draw()

    def tend(self) -> None:
        """Now and then: bars of tasks of which nothing is heard any more are over."""
        silent = time.monotonic() - limits.PROGRESS_SILENT_S
        with self._lock:
            self._end_dropped()
            for key, bar in [*self._bars.items()]:
                if bar.where and bar.heard < silent:
                    self._end(self._bars.pop(key))

    def _end_dropped(self) -> None:
        while self.dropped:
            self.close(self.dropped.popleft())

    def end(self) -> None:
        """No more will be said of any."""
        with self._lock:
            while self._bars:
                self._end(self._bars.popitem()[1])

    def __bool__(self) -> bool:
        return bool(self._bars)

    def _draw(self) -> None:
        if self._bars:
            if self._screen is None:
                self._screen = screen(self._lock)
            self._screen.draw([*self._bars.values()])

    def _end(self, bar: Shown) -> None:
        if self._screen is not None:
            self._screen.end(bar, [*self._bars.values()])
            if not self._bars:
                self._screen.close()
                self._screen = None


class OwnBar:
    """A bar of the driver's own."""

    def __init__(self, display: ProgressDisplay, key: Key) -> None:
        self._display = display
        self._key = key

    def update(self, done: int) -> None:
        """So much is done."""
        self._display.update(self._key, done)

    def describe(self, label: str, total: int) -> None:
        """It says something else from now on."""
        self._display.describe(self._key, label, total)

    def close(self) -> None:
        """No more of it will be done."""
        self._display.close(self._key)

    def __del__(self) -> None:
        self._display.dropped.append(self._key)  # may run anywhere, so that is all it does
