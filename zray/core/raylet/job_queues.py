"""What waits on a node for the same resources: a queue for each job, and whose turn it is.

Within one job the deepest tasks go first. Jobs do not wait for each other's, so of theirs none
comes first for its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zray.core.depth_queue import DepthQueue
from zray.core.raylet.local_records import LocalTask


class JobQueues:
    """``first``, ``deepest`` and ``pop`` are of the job whose turn it is, until ``turn``."""

    __slots__ = ("_jobs", "_next")

    def __init__(self) -> None:
        self._jobs: dict[bytes, DepthQueue[LocalTask]] = {}  # none is empty; in turn
        self._next: DepthQueue[LocalTask] = DepthQueue()  # the first of them

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __iter__(self) -> Iterator[LocalTask]:
        """All of them, in no order that matters."""
        for queue in self._jobs.values():
            yield from queue

    def jobs(self) -> list[tuple[bytes, DepthQueue[LocalTask]]]:
        """Each job's, which must not be emptied but through this."""
        return [*self._jobs.items()]

    # ---- one at a time -----------------------------------------------------------------------

    def push(self, task: LocalTask) -> None:
        """Behind the others of its job and level."""
        self._of(task.assignment.job_id).push(task, task.level)

    def push_front(self, task: LocalTask) -> None:
        """Before the others of its job and level, but for new actors."""
        queue = self._of(task.assignment.job_id)
        actors = []
        if task.assignment.actor is None:
            while queue.deepest == task.level and queue.first().assignment.actor is not None:
                actors.append(queue.pop())
        queue.push_front(task, task.level)
        while actors:
            queue.push_front(actors.pop(), task.level)

    def _of(self, job_id: bytes) -> DepthQueue[LocalTask]:
        queue = self._jobs.get(job_id)
        if queue is None:
            queue = DepthQueue()
            if not self._jobs:
                self._next = queue
            self._jobs[job_id] = queue
        return queue

    @property
    def deepest(self) -> int:
        """The level of ``first``; -1: there is none."""
        return self._next.deepest

    def first(self) -> LocalTask:
        """The next one to be popped; there must be one."""
        return self._next.first()

    def pop(self) -> LocalTask:
        """Take that one."""
        task = self._next.pop()
        if not self._next:
            self._close(task.assignment.job_id)
        return task

    def pop_last(self) -> LocalTask:
        """Take the one whose turn is farthest away, or about that."""
        job_id = next(reversed(self._jobs))
        task = self._jobs[job_id].pop_last()
        if not self._jobs[job_id]:
            self._close(job_id)
        return task

    def remove(self, task: LocalTask) -> bool:
        """Take this one; False: it is not there."""
        job_id = task.assignment.job_id
        queue = self._jobs.get(job_id)
        if queue is None or not queue.remove(task, task.level):
            return False
        if not queue:
            self._close(job_id)
        return True

    def take_upto(
        self, job_id: bytes, depth: int, wanted: Callable[[LocalTask], bool]
    ) -> list[LocalTask]:
        """Take those of a job that are wanted and no deeper than this."""
        queue = self._jobs[job_id]
        taken = queue.take_upto(depth, wanted)
        if not queue:
            self._close(job_id)
        return taken

    # ---- turns -------------------------------------------------------------------------------

    def turn(self, job_id: bytes) -> None:
        """A job has had something: others come next."""
        if len(self._jobs) > 1 and (queue := self._jobs.pop(job_id, None)) is not None:
            self._jobs[job_id] = queue
            self._look()

    def turn_to(self, may_start: Callable[[LocalTask], bool]) -> bool:
        """Whether the first of some job may start; it is that one's turn then."""
        for _ in range(len(self._jobs)):
            first = self._next.first()
            if may_start(first):
                return True
            self.turn(first.assignment.job_id)
        return False

    def _close(self, job_id: bytes) -> None:
        del self._jobs[job_id]
        self._look()

    def _look(self) -> None:
        self._next = next(iter(self._jobs.values())) if self._jobs else DepthQueue()
