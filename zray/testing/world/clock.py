"""Simulated time: one heap of events, and the story that they tell. Owns no process and no network.

Everything that happens in a simulation is an event here, so that one seed gives one trace.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

STORY_LINES = 40
START_S = 1000.0


class Livelock(AssertionError):
    """The simulation makes no progress in time, or more events than it should ever need."""


class Clock:
    """Time jumps from one event to the next; events of one instant run in the order of making."""

    def __init__(self, events_max: int) -> None:
        self.now = START_S
        self.events = 0
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self.verbose = False
        self.silent = False  # nobody reads the story
        self._events_max = events_max
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0
        self._trace = hashlib.sha256()

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Run ``action(*args)`` at a time, now at the earliest."""
        self._made += 1
        heapq.heappush(self._heap, (max(when, self.now), self._made, action, args))

    def after(self, delay: float, action: Callable[..., None], *args: Any) -> None:
        """Run ``action(*args)`` in ``delay`` seconds."""
        self.at(self.now + delay, action, *args)

    def step(self) -> bool:
        """Run the next event; False: there is none."""
        if not self._heap:
            return False
        self.now, _, action, args = heapq.heappop(self._heap)
        self.events += 1
        if self.events > self._events_max:
            raise Livelock(f"more than {self._events_max} events: something goes round in circles")
        action(*args)
        return True

    def next_at(self) -> float:
        """When the next event is; infinity: there is none."""
        return self._heap[0][0] if self._heap else float("inf")

    def tell(self, text: str, data: bytes = b"") -> None:
        """Add a line to the story; ``data`` is part of the trace but not of the story."""
        if self.silent:
            return
        line = f"{self.now - START_S:10.5f}  {text}"
        self._trace.update(line.encode())
        self._trace.update(data)
        self.story.append(line)
        if self.verbose:
            print(line)

    def trace(self) -> str:
        """A digest of everything told so far: equal for two runs that did the same."""
        return self._trace.hexdigest()
