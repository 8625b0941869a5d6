"""Ready tasks that wait for the same resources, and in which order they are taken.

One queue per job, in turn, so that none waits behind another's; within one, the deepest first.
"""

from __future__ import annotations

from zray import limits
from zray.core import resources
from zray.core.depth_queue import DepthQueue
from zray.core.head.task_records import READY, TaskRecord
from zray.core.resources import CPU, Needs


class SchedulingClass:
    """Ready tasks that need the same resources, a queue per job.

    ``near``: the node that has the tasks' large arguments, for which they wait a while; or empty.
    """

    __slots__ = (
        *("ahead", "cpu_only", "infeasible_since", "left", "near", "needs", "queues", "ready"),
        *("since", "takes_cpu", "warned"),
    )

    def __init__(self, needs: Needs, near: bytes = b"") -> None:
        self.needs = needs
        self.near = near
        self.since: float | None = None  # when its tasks began to wait for that node
        self.cpu_only = resources.is_cpu_only(needs)
        self.takes_cpu = bool(dict(needs).get(CPU))
        self.queues: dict[bytes, DepthQueue[TaskRecord]] = {}
        self.ready = 0
        self.left = 0  # tasks in the queues that will not run
        self.ahead = 0  # tasks sent to raylets beyond what can start there now
        self.infeasible_since: float | None = None
        self.warned = False

    def first(self) -> TaskRecord:
        """The task that would be taken next."""
        return next(iter(self.queues.values())).first()

    def is_brief(self) -> bool:
        """Whether the next task is so short that it is not taken back from a node that works."""
        template = self.first().template
        assert template is not None
        return template.seconds is not None and template.seconds < limits.STEAL_IDLE_S

    def pop(self, count: int, floor: int = -1) -> list[TaskRecord]:
        """Up to ``count`` ready tasks that are deeper than ``floor``, the jobs in turn."""
        taken: list[TaskRecord] = []
        left_in_round = share = 0
        before = -1
        while self.queues and len(taken) < count:
            if not left_in_round:
                if len(taken) == before:
                    break  # no job has one
                before = len(taken)
                left_in_round = len(self.queues)
                share = -(-(count - len(taken)) // left_in_round)
            left_in_round -= 1
            job_id, queue = next(iter(self.queues.items()))
            room = min(share, count - len(taken))
            while room and queue.deepest > floor:
                found = queue.take(room)
                ready = list(filter(_is_ready, found)) if self.left else found
                self.left -= len(found) - len(ready)
                taken += ready
                room -= len(ready)
            del self.queues[job_id]
            if queue:
                self.queues[job_id] = queue  # to the end of the turn
        self.ready -= len(taken)
        return taken

    def withdrawn(self) -> None:
        """A task in the queues is not ready any more; when they are most of all, they go."""
        self.ready -= 1
        self.left += 1
        if self.left > self.ready + 64 or not self.ready:
            self.left = 0
            for job_id, queue in [*self.queues.items()]:
                queue.keep(_is_ready)
                if not queue:
                    del self.queues[job_id]


def _is_ready(record: TaskRecord) -> bool:
    return record.state == READY
