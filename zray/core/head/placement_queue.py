"""Placement groups that wait for places, and when which of them are looked at.

Groups that ask for the same wait in one queue: where the first finds no nodes, none of them does.
So a turn costs what has changed, however many wait.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from zray import limits
from zray.core.deadlines import Deadlines
from zray.core.head.openings import NodeChanges
from zray.core.head.placement_table import GroupRecord, PlacementTable

TRIED_MAX = 4000  # bundles for which places are sought in a turn, or a few more

_Shape = tuple[Any, ...]


class PlacementQueue:
    """``place``: give it places, if there are any now."""

    def __init__(
        self,
        table: PlacementTable,
        changes: NodeChanges,
        place: Callable[[GroupRecord], bool],
    ) -> None:
        self._table = table
        self._changes = changes
        self._place = place
        self._waiting: dict[_Shape, dict[bytes, GroupRecord]] = {}
        self._shape_of: dict[bytes, _Shape] = {}
        self._paused = Deadlines()  # groups that wait again then
        self._seen = -1  # how the nodes were when these were looked at last
        self._left = 0  # shapes that were not looked at since
        self._fresh: dict[_Shape, None] = {}  # those to be looked at however the nodes are

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, record: GroupRecord) -> None:
        """It waits for places."""
        self.remove(record)
        shape: _Shape = (record.request.strategy, *record.needs)
        if record.placed:
            shape = (record.group_id,)  # where it may be depends on where the rest is
        self._waiting.setdefault(shape, {})[record.group_id] = record
        self._shape_of[record.group_id] = shape
        self._fresh[shape] = None

    def remove(self, record: GroupRecord) -> None:
        """It does not wait, or not any more."""
        self._paused.drop(record.group_id)
        shape = self._shape_of.pop(record.group_id, None)
        if shape is not None:
            del self._waiting[shape][record.group_id]
            if not self._waiting[shape]:
                del self._waiting[shape]
                self._fresh.pop(shape, None)

    def pause(self, record: GroupRecord, now: float) -> None:
        """A node has refused: what was believed of it was wrong, and may be for a while."""
        record.refusals += 1
        pause = limits.GROUP_RETRY_S * 2 ** min(record.refusals - 1, 20)
        self._paused.put(record.group_id, now + min(pause, limits.GROUP_RETRY_MAX_S))

    def first(self) -> list[GroupRecord]:
        """Some of those that wait, each for something else."""
        some = islice(self._waiting.values(), limits.GROUP_TRIES_MAX)
        return [next(iter(groups.values())) for groups in some]

    def step(self, now: float) -> None:
        """Look at those for which there may be places by now."""
        for group_id in self._paused.due(now) if self._paused else ():
            record = self._table.get(group_id)
            if record is not None:
                self.add(record)
        seen = self._changes.until_now() + len(self._changes.new)
        if seen != self._seen:
            self._left = len(self._waiting)
            self._seen = seen
        fresh = [*islice(self._fresh, limits.GROUP_TRIES_MAX)]
        others = min(self._left, limits.GROUP_TRIES_MAX - len(fresh))
        placed, left = 0, TRIED_MAX
        for number, shape in enumerate([*fresh, *islice(self._waiting, others)]):
            size = self._size(shape)
            most = min(limits.GROUPS_PLACED_MAX - placed, left // size + 1)
            found = self._place_some(shape, most)
            placed += found
            left -= size * max(found, 1)
            if found >= most:
                return
            self._fresh.pop(shape, None)
            self._left -= number >= len(fresh)
            if left <= 0:
                return

    def _size(self, shape: _Shape) -> int:
        """How many bundles one of those that ask for this has."""
        groups = self._waiting.get(shape)
        return len(next(iter(groups.values())).needs) if groups else 1

    def _place_some(self, shape: _Shape, most: int) -> int:
        """Of those that ask for the same, as many as there are places for."""
        placed = 0
        while shape in self._waiting and placed < most:
            record = next(iter(self._waiting[shape].values()))
            if not self._place(record):
                self._waiting[shape] = self._waiting.pop(shape)  # behind the others
                break
            self.remove(record)
            placed += 1
        return placed

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        more = self._waiting and (self._left > 0 or self._fresh)
        return 0.0 if more else self._paused.soonest()
