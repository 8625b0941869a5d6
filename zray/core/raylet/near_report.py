"""What a raylet tells the head of near tasks now and then: how many there are, ended, and wait.

In absolute figures, so that it costs the same however many tasks there are.
"""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.machine import NEVER
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol import messages as m


class NearReport:
    """``tell_head``: as ``HeadSession.tell``. ``told_at``: when the head was told last."""

    def __init__(self, scheduler: LocalScheduler, tell_head: Callable[[m.Message], None]) -> None:
        self._scheduler = scheduler
        self._tell_head = tell_head
        self._unfinished: dict[bytes, int] = {}  # by job
        self._finished: dict[bytes, int] = {}
        self._retried: dict[bytes, int] = {}
        self._changed: dict[bytes, None] = {}  # jobs of which the head has not heard
        self._waits = False  # the head was told that some wait
        self._next_at = 0.0
        self.told_at = -1.0

    def begun(self, job_id: bytes) -> None:
        """There is one more."""
        self._unfinished[job_id] = self._unfinished.get(job_id, 0) + 1
        self._changed[job_id] = None

    def ended(self, job_id: bytes, *, finished: bool) -> None:
        """There is one less; it is ``finished``, or the head's or nobody's from now on."""
        self._unfinished[job_id] -= 1
        self._changed[job_id] = None
        if finished:
            self._finished[job_id] = self._finished.get(job_id, 0) + 1

    def retried(self, job_id: bytes) -> None:
        """One is tried again."""
        self._retried[job_id] = self._retried.get(job_id, 0) + 1

    def new_session(self) -> None:
        """The head may know nothing of it."""
        self._changed = dict.fromkeys(self._unfinished)

    def job_ended(self, job_id: bytes) -> None:
        """Nobody asks for it any more."""
        for figures in (self._unfinished, self._finished, self._retried, self._changed):
            figures.pop(job_id, None)

    def step(self, now: float) -> None:
        """Tell what has changed, if it is time to."""
        waits = self._scheduler.queued_near > 0
        if not (self._changed or waits or self._waits) or now < self._next_at:
            return
        self._next_at = now + limits.NEAR_REPORT_S
        jobs = [
            m.NearJob(
                *(job_id, self._unfinished.get(job_id, 0)),
                *(self._finished.get(job_id, 0), self._retried.get(job_id, 0)),
            )
            for job_id in self._changed
        ]
        self._changed.clear()
        self._waits = waits
        self.told_at = now
        self._tell_head(m.Near(0, jobs, self._classes() if waits else []))

    def _classes(self) -> list[m.NearClass]:
        found = []
        for needs, queue in self._scheduler.queues.items():
            first = queue.first() if queue else None
            if first is not None and first.near is not None:
                job_id, name = first.assignment.job_id, first.template.message.name
                found.append(m.NearClass(list(needs), job_id, len(queue), name))
        return found

    def deadline(self) -> float:
        """When ``step`` has something to tell."""
        return self._next_at if self._changed or self._waits else NEVER
