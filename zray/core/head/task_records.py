"""The GCS's records of a task, from submit until its outcome is committed, and of who has it.

    WAITING (dependencies, function) -> READY -> ASSIGNED (to a node) -> GONE: outcome committed
                                          ^          |
                                          +----------+  returned, node dead, attempt failed

A task has at most one holder: it leaves ASSIGNED only when the node returns or ends it, or when
that node's incarnation is declared dead.
"""

from __future__ import annotations

from collections.abc import Iterable

from zray.core import labels, resources
from zray.core.resources import Needs, Vector
from zray.protocol.messages import JobFloors, NearClass, NearJob, Outcome, TaskSpec, Template

WAITING = 0
READY = 1
ASSIGNED = 2
GONE = 3


class Tally:
    """How attempts of one name have ended, so far."""

    __slots__ = ("failed", "finished")

    def __init__(self) -> None:
        self.finished = 0
        self.failed = 0


class FunctionUse:
    """A function, or what a name stands for, and who needs it. ``ready``: tasks of it can start.

    ``uses`` counts the tasks, actors and origins that are made of one of its templates.
    """

    __slots__ = ("function_id", "holders", "ready", "templates", "uses", "waiting")

    def __init__(self, function_id: bytes, ready: bool) -> None:
        self.function_id = function_id
        self.ready = ready
        self.uses = 0
        self.holders: dict[bytes, None] = {}  # the processes that may name it
        self.templates: dict[bytes, None] = {}
        self.waiting: list[TaskRecord] = []  # until it is durable


class TemplateRecord:
    """A function with options, and how long it has been taking."""

    __slots__ = ("function", "message", "needs", "priority", "seconds", "tally")

    def __init__(self, message: Template, function: FunctionUse) -> None:
        self.message = message
        offer = message.name if message.by_name else ""
        amounts = message.resources
        selected = labels.term(message.labels, amounts)
        self.needs = resources.needs(amounts, resources.offer(offer), selected)
        self.function = function
        self.priority = message.priority
        self.seconds: float | None = None  # measured run time, smoothed; None: never ran
        self.tally: Tally | None = None  # where its attempts are counted

    def measured(self, seconds: float) -> None:
        """Its function ran for so many seconds."""
        old = self.seconds
        self.seconds = seconds if old is None else old + (seconds - old) * 0.2


class TaskRecord:
    """``spec`` is None while only the node that holds the task has told of it (after a restart)."""

    __slots__ = (
        *("spec", "template", "job_id", "submitter", "state", "attempt", "node", "waiting"),
        *(
            "failures",
            "failure",
            "cancelled",
            "forced",
            "parked",
            "near",
            "rebuilds",
            "depth",
            "group",
            "since",
        ),
    )

    def __init__(
        self,
        spec: TaskSpec | None,
        template: TemplateRecord | None,
        job_id: bytes,
        submitter: bytes,
    ) -> None:
        self.spec = spec
        self.template = template
        self.job_id = job_id
        self.submitter = submitter
        self.state = WAITING
        self.failures = 0 if spec is None else spec.failures  # that were none of its own fault
        self.attempt = self.failures  # rises with each dispatch
        self.failure: list[Outcome] | None = None  # the last one, while ``spec`` is None
        self.node: NodeView | None = None
        self.waiting = 0  # dependencies without an outcome
        self.cancelled = False
        self.forced = False  # cancelled with force
        self.rebuilds = False  # it has its outcome, and runs again because that was lost
        self.group: dict[bytes, TaskRecord] = {}  # of its submitter in its job, once it is known
        self.depth = 0  # how many tasks above it run, its submitter first
        self.near = b""  # the node that has its large arguments
        # When it was submitted, or given to its node, or came back; below 0: unknown.
        self.since = -1.0
        self.parked = False  # until all nodes known before a head restart are back or dead

    def was_given(self) -> bool:
        """Whether this head has given it to a node, or heard of a node that has it."""
        return self.attempt > (0 if self.spec is None else self.spec.failures)

    def exhausted(self) -> bool:
        """Whether it failed more often than its retries allow."""
        if self.spec is None or self.template is None:
            return False  # its spec will tell
        return 0 <= self.template.message.max_retries < self.failures


class NodeView:
    """What the head knows of one raylet incarnation."""

    def __init__(
        self,
        node_id: bytes,
        incarnation: int,
        total: Vector,
        node_labels: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.labels = dict(node_labels)
        self.total = total
        self.free = dict(total)
        self.released: Vector = {}
        self._floors: dict[bytes, tuple[int, int]] = {}  # of jobs, as CREDIT says
        self._bounded = False, False  # whether there is any, of tasks that take no CPU and others
        self.ending = 0  # of its CPUs, with long tasks that should end soon, as CREDIT says
        self.granted = 0
        self.sent = 0
        self.finished = 0
        self.live = False  # has a session and has not been silent for long
        self.draining = False  # it is to get nothing more
        self.assigned: dict[bytes, TaskRecord] = {}
        self.ahead: dict[Needs, int] = {}
        self.near: dict[bytes, NearJob] = {}  # near tasks there, by job, as it says
        self.near_waiting: dict[Needs, NearClass] = {}
        self.crowded_at: float | None = None  # when others waited last for what those have
        self.reclaiming = False
        self.reclaim_after = 0.0
        self.reserved = False  # for a lease: no task is sent there ahead
        self.changes: dict[NodeView, None] = {}  # where it notes that it may have more room

    @property
    def usable(self) -> bool:
        """Whether it can be given work."""
        return self.live and not self.draining

    def changed(self) -> None:
        """It may have more room than before."""
        self.changes[self] = None

    def give(self, needs: Needs) -> None:
        """Something that was taken of it is free again."""
        resources.give(self.free, needs)
        self.changes[self] = None

    def set_floors(self, floors: Iterable[JobFloors]) -> None:
        """Of these jobs it has as many workers as it may, and only deeper tasks start."""
        self._floors = {one.job_id: (one.free_floor, one.floor) for one in floors}
        told = self._floors.values()
        self._bounded = any(free >= 0 for free, _ in told), any(floor >= 0 for _, floor in told)

    def floor_for(self, job_id: bytes, takes_cpu: bool) -> int:
        """The depth that a task of a job has to be above to start there."""
        if not self._floors:
            return -1
        return (self._floors.get(job_id) or self._floors.get(b"") or (-1, -1))[takes_cpu]

    def bounded(self, takes_cpu: bool) -> bool:
        """Whether its bound on workers keeps tasks of some job from starting."""
        return self._bounded[takes_cpu]

    def bounds(self, jobs: Iterable[bytes], takes_cpu: bool) -> bool:
        """Whether those are tasks of one of these."""
        return self._bounded[takes_cpu] and any(
            self.floor_for(job_id, takes_cpu) >= 0 for job_id in jobs
        )

    def waiting(self, needs: Needs) -> int:
        """How many tasks of a class wait there, sent ahead or near."""
        near = self.near_waiting.get(needs)
        return self.ahead.get(needs, 0) + (near.waiting if near is not None else 0)

    def near_counts(self) -> tuple[int, int]:
        """How many near tasks it has, and how many of those wait."""
        unfinished = sum(told.unfinished for told in self.near.values())
        return unfinished, sum(told.waiting for told in self.near_waiting.values())

    def credit(self) -> int:
        """How many more tasks the node takes."""
        return self.granted - self.sent

    def report(self, granted: int, released: Vector) -> None:
        """Absolute figures from the raylet: total credit, and what blocked tasks gave back."""
        self.granted = granted
        for name in released.keys() | self.released.keys():
            change = released.get(name, 0) - self.released.get(name, 0)
            self.free[name] = self.free.get(name, 0) + change
        self.released = released
        self.changed()

    def new_session(self) -> None:
        """The node counts credit from 0, and can get tasks."""
        self.granted = self.sent = self.ending = 0
        self.reclaiming = False
        self.crowded_at = None
        self.live = True
        self.changed()
