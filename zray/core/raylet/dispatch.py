"""Tasks that can start, on their way to workers: to idle ones, or to new ones that are forked.

Which can start is the LocalScheduler's decision; here each gets a process, and its messages.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.machine import Outbox
from zray.core.raylet.behind import Behind
from zray.core.raylet.local_records import LocalTask, PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.worker_requests import WorkerRequests
from zray.core.raylet.workers import Workers


class Dispatch:
    """Of one incarnation of the raylet.

    Args:
        outbox: messages to workers.
        failed: a worker could not be told: which, what that was, why, and when.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        behind: Behind,
        workers: Workers,
        worker_requests: WorkerRequests,
        failed: Callable[[bytes, str, Exception, float], None],
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._behind = behind
        self._workers = workers
        self._worker_requests = worker_requests
        self._failed = failed

    def start(self, now: float) -> None:
        """Start what can start, and give workers what they run next."""
        lessened: dict[PoolKey, None] = {}  # pools that have lost a worker to an actor
        may_fork = self._workers.may_start(now)
        self._scheduler.bound.lift(now)
        self._behind.retract(now)
        self._place(now, lessened, may_fork=may_fork)
        while self._behind.spread(may_fork=may_fork):
            self._place(now, lessened, may_fork=may_fork)
        self._behind.fill(now)
        for key in lessened:
            self._workers.replenish(key, now)
        self._workers.retire_rested(now)

    def _place(self, now: float, lessened: dict[PoolKey, None], *, may_fork: bool) -> None:
        for key, chosen, tasks in self._scheduler.place(now, may_fork=may_fork):
            if chosen is not None and not self._may_become(chosen, tasks[0]):
                chosen = None
            slot = chosen or self._workers.start(key)
            self._scheduler.give(slot, tasks, now)
            self._behind.runs(slot)
            slot.delivered += len(tasks)
            try:
                for message in slot.delivery(tasks):
                    self._outbox.send(slot.worker_id, message)
            except Exception as error:
                self._failed(slot.worker_id, "handing over a task", error, now)
            if tasks[0].assignment.actor is not None:
                lessened[key] = None

    def _may_become(self, slot: WorkerSlot, task: LocalTask) -> bool:
        """Whether the process can end with the actor that the task makes, if it makes one."""
        return task.assignment.actor is None or self._worker_requests.idle(slot.worker_id)
