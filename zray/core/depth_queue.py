"""A queue whose deepest items go first; of one depth those of more priority, then the older ones.

The depth of a task is the number of tasks above it that run: its submitter, the submitter of that,
and so on. Whoever waits for results waits for deeper tasks, so these go first: what is begun gets
done before more is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from zray import limits

T = TypeVar("T")

AWAITED = 1 << 20  # the depth of what may be waited for by whoever there is

# Depth and priority are one number, a level: such comparisons are made for each task.
_SPAN = 2 * limits.PRIORITY_MAX + 1


class DepthQueue(Generic[T]):
    """Items with a depth and a priority, which is 0 where nothing is said."""

    __slots__ = ("_first", "_levels", "deepest")

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}  # none is empty
        self._first = 0  # the highest of these, if there are any
        self.deepest = -1  # of the items in it; -1: there are none

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return self.deepest >= 0

    def __iter__(self) -> Iterator[T]:
        """All items, in no order that matters."""
        for level in self._levels.values():
            yield from level

    def push(self, item: T, depth: int, priority: int = 0) -> None:
        """Add an item, behind the others of its depth and priority."""
        place = depth * _SPAN + priority
        level = self._levels.get(place)
        if level is None:
            self._levels[place] = deque((item,))
            if place > self._first or self.deepest < 0:
                self._first, self.deepest = place, depth
        else:
            level.append(item)

    def push_front(self, item: T, depth: int, priority: int = 0) -> None:
        """Before all others of its depth and priority."""
        place = depth * _SPAN + priority
        if place in self._levels:
            self._levels[place].appendleft(item)
        else:
            self.push(item, depth, priority)

    def first(self) -> T:
        """The next one to be popped; there must be one."""
        return self._levels[self._first][0]

    def pop(self) -> T:
        """Take the first of the deepest."""
        level = self._levels[self._first]
        item = level.popleft()
        if not level:
            self._close(self._first)
        return item

    def take(self, count: int) -> list[T]:
        """Take up to so many of the deepest, all of one depth and priority."""
        level = self._levels[self._first]
        if count >= len(level):
            self._close(self._first)
            return list(level)
        return [level.popleft() for _ in range(count)]

    def pop_last(self) -> T:
        """Take the one that would be popped last."""
        place = min(self._levels)
        level = self._levels[place]
        item = level.pop()
        if not level:
            self._close(place)
        return item

    def remove(self, item: T, depth: int, priority: int = 0) -> bool:
        """Take this one; False: it is not there."""
        place = depth * _SPAN + priority
        level = self._levels.get(place)
        if level is None or item not in level:
            return False
        level.remove(item)
        if not level:
            self._close(place)
        return True

    def take_upto(self, depth: int, wanted: Callable[[T], bool]) -> list[T]:
        """Take the wanted ones that are no deeper than this, in the order of ``pop``."""
        taken: list[T] = []
        last = depth * _SPAN + limits.PRIORITY_MAX
        for place in sorted((place for place in self._levels if place <= last), reverse=True):
            level = self._levels[place]
            found = list(filter(wanted, level))
            if found:
                taken += found
                self._levels[place] = deque(item for item in level if not wanted(item))
                if not self._levels[place]:
                    self._close(place)
        return taken

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Let all others go."""
        kept = {place: deque(filter(wanted, level)) for place, level in self._levels.items()}
        self._levels = {place: level for place, level in kept.items() if level}
        self._look()

    def _close(self, place: int) -> None:
        del self._levels[place]
        if place == self._first:
            self._look()

    def _look(self) -> None:
        """Which level is the highest now."""
        if self._levels:
            self._first = max(self._levels)
            self.deepest = (self._first + limits.PRIORITY_MAX) // _SPAN
        else:
            self.deepest = -1
