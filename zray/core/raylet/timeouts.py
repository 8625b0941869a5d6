"""Attempts that are to end in time: interrupted when they have not, and killed if that is in vain.

The worker says when such an attempt begins, whoever gave it the task: what leased workers run, and
when that ends, is not known here. So what has ended meanwhile is told by the worker's counter of
tasks, or by its answer.
"""

from __future__ import annotations

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.local_records import WorkerSlot
from zray.protocol import messages as m


class Timeouts:
    """Of one incarnation of the raylet. ``outbox``: messages to workers."""

    def __init__(self, outbox: Outbox[bytes]) -> None:
        self._outbox = outbox
        self._due: dict[bytes, tuple[float, WorkerSlot, m.Deadline]] = {}  # by worker

    def on_deadline(self, slot: WorkerSlot, message: m.Deadline, now: float) -> None:
        """A worker begins an attempt; what it has begun before has ended."""
        self._due[slot.worker_id] = now + message.timeout_s, slot, message

    def step(self, now: float) -> None:
        """Interrupt what has run too long; if it goes on, its worker is killed after the grace."""
        for when, slot, late in [*self._due.values()] if self._due else ():
            if now >= when:
                del self._due[slot.worker_id]
                if self._runs(slot, late):
                    self._interrupt(slot, late, now)

    def _runs(self, slot: WorkerSlot, late: m.Deadline) -> bool:
        """Whether it may not have ended."""
        here = slot.lease is not None or late.task_id in slot.inflight
        return here and slot.begun() == late.begun

    def _interrupt(self, slot: WorkerSlot, late: m.Deadline, now: float) -> None:
        slot.late = late
        slot.condemn(late.task_id, now + limits.CANCEL_GRACE_S)
        cancel = m.CancelTask(0, late.task_id, late.attempt, False, timed_out=True)
        self._outbox.send(slot.worker_id, cancel)

    def deadline(self) -> float:
        """When an attempt has run too long that has not ended by then."""
        return min([when for when, _, _ in self._due.values()], default=NEVER)

    def exited(self, slot: WorkerSlot) -> m.Deadline | None:
        """The worker is gone; what it ran, if that had to stop and did not."""
        self._due.pop(slot.worker_id, None)
        late = slot.late
        return late if late is not None and late.task_id in slot.condemned else None
