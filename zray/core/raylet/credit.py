"""What a raylet tells the head of the room that it has: CREDIT, in absolute figures.

Owns what was told last. The head sends tasks within that; those that cannot start here, with as
many others blocked, are given back.
"""

from __future__ import annotations

from zray import limits
from zray.core import resources
from zray.core.raylet.head_session import HeadSession
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.tasks import LocalTasks
from zray.protocol import messages as m


class Credit:
    """Of one incarnation of the raylet."""

    def __init__(
        self, head: HeadSession, scheduler: LocalScheduler, tasks: LocalTasks, lending: Lending
    ) -> None:
        self._scheduler = scheduler
        self._tasks = tasks
        self._lending = lending
        self._head = head
        self.new_session()

    def new_session(self) -> None:
        """The head knows nothing of it."""
        self._told: tuple[int, m.Amounts, tuple[int, int]] = (-1, [], (-1, -1))

    def report(self) -> None:
        """Tell the figures when they have moved enough to matter."""
        if not self._head.linked:
            return
        scheduler = self._scheduler
        granted = self._tasks.received + scheduler.room()
        released, lent = scheduler.released, self._lending.lent
        amounts = resources.total(released, lent) if released or lent else []
        floors = scheduler.floors()
        told, *others = self._told
        moved = abs(granted - told) * 4 >= limits.RAYLET_UNSTARTED_TASKS
        if moved or others != [amounts, floors]:
            self._told = (granted, amounts, floors)
            self._head.tell(m.Credit(0, granted, amounts, *floors))
        if max(floors) >= 0:
            self._tasks.give_back(scheduler.held_back())
