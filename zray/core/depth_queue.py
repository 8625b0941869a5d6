"""A queue whose deepest items go first; those of one depth go in the order in which they came.

The depth of a task is the number of tasks above it that run: its submitter, the submitter of that,
and so on. Whoever waits for results waits for deeper tasks, so these go first: what is begun gets
done before more is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class DepthQueue(Generic[T]):
    """Items with a depth; the deepest come first, and of one depth the oldest."""

    __slots__ = ("_levels", "deepest")

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}  # none is empty
        self.deepest = -1  # of the items in it; -1: there are none

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return self.deepest >= 0

    def __iter__(self) -> Iterator[T]:
        """All items, in no order that matters."""
        for level in self._levels.values():
            yield from level

    def push(self, item: T, depth: int) -> None:
        """Add an item of that depth; ``front``: before the others of it."""
        level = self._levels.get(depth)
        if level is None:
            self._levels[depth] = deque((item,))
            if depth > self.deepest:
                self.deepest = depth
        else:
            level.append(item)

    def push_front(self, item: T, depth: int) -> None:
        """Before all others of its depth."""
        if depth in self._levels:
            self._levels[depth].appendleft(item)
        else:
            self.push(item, depth)

    def first(self) -> T:
        """The next one to be popped; there must be one."""
        return self._levels[self.deepest][0]

    def pop(self) -> T:
        """Take the first of the deepest."""
        level = self._levels[self.deepest]
        item = level.popleft()
        if not level:
            self._close(self.deepest)
        return item

    def take(self, count: int) -> list[T]:
        """Take up to so many of the deepest, all of one depth."""
        level = self._levels[self.deepest]
        if count >= len(level):
            self._close(self.deepest)
            return list(level)
        return [level.popleft() for _ in range(count)]

    def pop_last(self) -> T:
        """Take the one that would be popped last."""
        depth = min(self._levels)
        level = self._levels[depth]
        item = level.pop()
        if not level:
            self._close(depth)
        return item

    def remove(self, item: T, depth: int) -> bool:
        """Take this one; False: it is not there."""
        level = self._levels.get(depth)
        if level is None or item not in level:
            return False
        level.remove(item)
        if not level:
            self._close(depth)
        return True

    def take_upto(self, depth: int, wanted: Callable[[T], bool]) -> list[T]:
        """Take the wanted ones that are no deeper than this, in the order of ``pop``."""
        taken: list[T] = []
        for place in sorted((place for place in self._levels if place <= depth), reverse=True):
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
        kept = {depth: deque(filter(wanted, level)) for depth, level in self._levels.items()}
        self._levels = {depth: level for depth, level in kept.items() if level}
        self.deepest = max(self._levels, default=-1)

    def _close(self, depth: int) -> None:
        del self._levels[depth]
        if depth == self.deepest:
            self.deepest = max(self._levels) if self._levels else -1
