"""What tasks that wait long for their arguments let others have meanwhile.

The head counts a task's resources as taken once it has sent the task. If the argument is lost and
has to be made again, that must not wait for what this very task holds. Nothing is held here: the
LocalScheduler gives a task its resources when it starts.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import resources
from zray.core.machine import NEVER
from zray.core.resources import Needs, Vector
from zray.protocol.messages import Fetched


class Lending:
    """What tasks that wait long for arguments do not use meanwhile.

    Attributes:
        fetched: how long tasks have waited, while that is noted; None: it is not.
    """

    def __init__(self) -> None:
        self.fetched: deque[Fetched] | None = None
        self._noted: dict[bytes, float] = {}  # since when, while that is noted
        self._over: list[bytes] = []  # of these, what has ended in this turn
        self.lent: Vector = {}
        self._waiting: dict[bytes, tuple[float, Needs]] = {}  # since when; the longest first
        self._lenders: dict[bytes, Needs] = {}

    def waits(self, task_id: bytes, needs: Needs, now: float) -> None:
        """Arguments of a task have been asked for."""
        self._waiting[task_id] = now, needs
        if self.fetched is not None:
            self._noted[task_id] = now

    def waits_no_more(self, task_id: bytes) -> None:
        """They are here, or the task is not."""
        self._waiting.pop(task_id, None)
        if task_id in self._noted:
            self._over.append(task_id)
        needs = self._lenders.pop(task_id, None)
        if needs is not None:
            resources.take(self.lent, needs)

    def step(self, now: float) -> None:
        """Lend what has waited long enough by now."""
        if self._over:
            self._note(now)
        while self._waiting and now >= self.deadline():
            task_id, (_, needs) = next(iter(self._waiting.items()))
            del self._waiting[task_id]
            self._lenders[task_id] = needs
            resources.give(self.lent, needs)

    def _note(self, now: float) -> None:
        for task_id in self._over:
            began = self._noted.pop(task_id, None)
            if began is not None and self.fetched is not None:
                self.fetched.append(Fetched(task_id, began, now - began))
        self._over.clear()
        if self.fetched is None:
            self._noted.clear()

    def deadline(self) -> float:
        """When the next of them has waited long enough."""
        if not self._waiting:
            return NEVER
        since, _ = next(iter(self._waiting.values()))
        return since + limits.LEND_AFTER_S
