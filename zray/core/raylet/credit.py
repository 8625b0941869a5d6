"""What a raylet tells the head of the room that it has: CREDIT, in absolute figures.

Owns what was told last. The head sends tasks within that; those that cannot start here, with as
many others blocked, are given back.
"""

from __future__ import annotations

from zray import limits
from zray.core import resources
from zray.core.machine import NEVER
from zray.core.raylet.behind import Behind
from zray.core.raylet.head_session import HeadSession
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.tasks import LocalTasks
from zray.core.resources import Vector
from zray.protocol import messages as m


class Credit:
    """Of one incarnation of the raylet."""

    def __init__(
        self,
        head: HeadSession,
        scheduler: LocalScheduler,
        behind: Behind,
        tasks: LocalTasks,
        lending: Lending,
        near_tasks: NearTasks,
    ) -> None:
        self._scheduler = scheduler
        self._behind = behind
        self._tasks = tasks
        self._lending = lending
        self._head = head
        self._near_tasks = near_tasks
        self.new_session()

    def new_session(self) -> None:
        """The head knows nothing of it."""
        self._told: tuple[int, m.Amounts, list[m.JobFloors], int] = (-1, [], [], 0)
        self._near = False  # what near tasks have was told
        self._next_at = 0.0
        self._later = False

    def report(self, now: float) -> None:
        """Tell the figures when they have moved enough to matter.

        Near tasks come and go without the head: while there are any, it is told now and then.
        """
        if not self._head.linked:
            return
        bounded = self._scheduler.bound.bounded()
        held_back = self._scheduler.held_back() if bounded else []
        near = bool(self._near_tasks.tasks)
        waits = (near or self._near) and now < self._next_at and not held_back
        self._later = (
            waits and self._near_tasks.report.told_at != now
        )  # else it goes along with that
        if not self._later:
            floors = [
                m.JobFloors(job_id, *floors) for job_id, floors in bounded[: limits.JOB_FLOORS_MAX]
            ]
            self._tell(floors, near, now)
        self._tasks.give_back(held_back)

    def _tell(self, floors: list[m.JobFloors], near: bool, now: float) -> None:
        scheduler = self._scheduler
        granted = self._tasks.received + scheduler.room()
        released, lent = scheduler.released, self._lending.lent
        had = self._had_by_near() if near else {}
        amounts = resources.total(released, lent, had) if released or lent or had else []
        ending = self._behind.ending()
        told, *others = self._told
        moved = abs(granted - told) * 4 >= limits.RAYLET_UNSTARTED_TASKS
        if moved or others != [amounts, floors, ending]:
            self._told = (granted, amounts, floors, ending)
            self._head.tell(m.Credit(0, granted, amounts, floors, ending))
            self._next_at = now + limits.NEAR_REPORT_S
        self._near = near

    def _had_by_near(self) -> Vector:
        """What workers have that run near tasks, as less than nothing."""
        found: Vector = {}
        for slot in self._scheduler.active.values():
            first = slot.current()
            if first is not None and first.near is not None:
                resources.take(found, slot.needs)
        return found

    def deadline(self) -> float:
        """When figures are due that were not told at once."""
        return self._next_at if self._later else NEVER
