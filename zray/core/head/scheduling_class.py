"""Ready tasks that wait for the same resources, and in which order they are taken.

One queue per job, in turn, so that none waits behind another's; within one, the deepest first.
"""

from __future__ import annotations

from collections.abc import Container

from zray import limits
from zray.core import resources
from zray.core.depth_queue import DepthQueue
from zray.core.head.openings import Openings
from zray.core.head.task_records import READY, NodeView, TaskRecord
from zray.core.resources import CPU, Needs


class SchedulingClass:
    """Ready tasks that need the same resources, a queue per job.

    ``near``: the node that has the tasks' large arguments, for which they wait a while; or empty.
    """

    __slots__ = (
        *("ahead", "ahead_at", "asked", "brief", "cpu_only", "idle_since", "infeasible_since"),
        *("left", "near", "near_waits", "needs", "openings", "queues", "ready", "since"),
        *("takes_cpu", "warned"),
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
        self.ahead_at: dict[NodeView, None] = {}  # the nodes that have such
        self.asked: dict[NodeView, int] = {}  # to give so many of these back
        self.brief = False  # whether the last of these were
        self.idle_since: float | None = None  # when a raylet could have started some of these
        self.near_waits: dict[NodeView, None] = {}  # where near tasks wait
        self.openings = Openings()
        self.infeasible_since: float | None = None
        self.warned = False

    def sent_ahead(self, node: NodeView, count: int) -> None:
        """So many more of its tasks are with a node beyond what can start there; or fewer."""
        there = node.ahead.get(self.needs, 0) + count
        node.ahead[self.needs] = there
        self.ahead += count
        if there:
            self.ahead_at[node] = None
        else:
            self.ahead_at.pop(node, None)

    def first(self) -> TaskRecord:
        """The task that would be taken next."""
        return next(iter(self.queues.values())).first()

    def is_brief(self) -> bool:
        """Whether the next task is so short that it is not taken back from a node that works."""
        template = self.first().template
        assert template is not None
        return template.seconds is not None and template.seconds < limits.STEAL_IDLE_S

    def pop(
        self, count: int, node: NodeView | None = None, but: Container[bytes] = ()
    ) -> list[TaskRecord]:
        """Up to ``count`` ready tasks, the jobs in turn. ``node``: of those that may start there.

        ``but``: not of these jobs.
        """
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
            floor = node.floor_for(job_id, self.takes_cpu) if node is not None else -1
            room = min(share, count - len(taken)) if job_id not in but else 0
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
