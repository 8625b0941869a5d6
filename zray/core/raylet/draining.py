"""A node that is drained: it starts nothing more, and gives back what has not started.

When it is to leave the head says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zray.core.machine import Outbox
from zray.core.raylet.behind import Behind
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.near_tasks import NearTasks
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.tasks import LocalTasks
from zray.ids import split_objects
from zray.protocol import messages as m


class Draining:
    """Of one incarnation of the raylet. ``tell_head``: as ``HeadSession.tell``.

    ``reason``: None: it is not drained.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        behind: Behind,
        tasks: LocalTasks,
        near_tasks: NearTasks,
        objects: LocalObjects,
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._behind = behind
        self._tasks = tasks
        self._near_tasks = near_tasks
        self._objects = objects
        self._tell_head = tell_head
        self.reason: str | None = None
        self.handlers: dict[type[m.Message], Callable[[Any, float], None]] = {
            m.Drain: self.on_drain,
            m.Fetch: self.on_fetch,
        }

    def on_drain(self, message: m.Drain, now: float) -> None:
        """The head takes this node out of use."""
        if self.reason is None:
            for slot in self._scheduler.workers.values():
                if len(slot.inflight) > 1 and not slot.recalled:
                    slot.recalled = True
                    self._outbox.send(slot.worker_id, m.Recall(0))
        self.reason = message.reason
        self._near_tasks.closed = True

    def on_fetch(self, message: m.Fetch, now: float) -> None:
        """Get copies of objects that are about to have no other place."""
        there = [oid for oid in split_objects(message.object_ids) if oid in self._objects.stored]
        if there:
            self._tell_head(m.Have(0, b"".join(there)))
        for oid in split_objects(message.object_ids):
            if oid not in self._objects.stored:
                self._objects.fetch(oid, lambda outcome, text: None)

    def step(self, now: float) -> None:
        """Before anything starts: what waits here goes back."""
        if self.reason is None:
            return
        scheduler = self._scheduler
        for slot in [*scheduler.workers.values()]:
            if slot.behind:
                self._behind.recall(slot)
        for wanted in [*scheduler.queues] if scheduler.queued else ():
            self._tasks.give_back(scheduler.reclaim(wanted, scheduler.queued))
