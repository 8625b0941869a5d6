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
    __slots__ = ("_levels", "_size", "deepest")

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}
        self._size = 0
        self.deepest = -1  # of the items in it; -1: there are none

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """All items, in no order that matters."""
        for level in self._levels.values():
            yield from level

    def push(self, item: T, depth: int, *, front: bool = False) -> None:
        level = self._levels.get(depth)
        if level is None:
            level = self._levels[depth] = deque()
            self.deepest = max(self.deepest, depth)
        if front:
            level.appendleft(item)
        else:
            level.append(item)
        self._size += 1

    def first(self) -> T:
        """The next one to be popped; there must be one."""
        return self._levels[self.deepest][0]

    def pop(self) -> T:
        """Take the first of the deepest."""
        depth = self.deepest
        level = self._levels[depth]
        item = level.popleft()
        self._taken(depth, level)
        return item

    def pop_last(self) -> T:
        """Take the one that would be popped last."""
        depth = min(self._levels)
        level = self._levels[depth]
        item = level.pop()
        self._taken(depth, level)
        return item

    def remove(self, item: T, depth: int) -> bool:
        """Take this one; False: it is not there."""
        level = self._levels.get(depth)
        if level is None or item not in level:
            return False
        level.remove(item)
        self._taken(depth, level)
        return True

    def take_upto(self, depth: int, wanted: Callable[[T], bool]) -> list[T]:
        """Take the wanted ones that are no deeper than this, in the order of ``pop``."""
        taken: list[T] = []
        for place in sorted((place for place in self._levels if place <= depth), reverse=True):
            level = self._levels[place]
            found = list(filter(wanted, level))
            if found:
                self._levels[place] = deque(item for item in level if not wanted(item))
                taken += found
                self._taken(place, self._levels[place], len(found))
        return taken

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Let all others go."""
        kept = {depth: deque(filter(wanted, level)) for depth, level in self._levels.items()}
        self._levels = {depth: level for depth, level in kept.items() if level}
        self._size = sum(map(len, self._levels.values()))
        self.deepest = max(self._levels, default=-1)

    def _taken(self, depth: int, level: deque[T], count: int = 1) -> None:
        self._size -= count
        if not level:
            del self._levels[depth]
            if depth == self.deepest:
                self.deepest = max(self._levels, default=-1)
