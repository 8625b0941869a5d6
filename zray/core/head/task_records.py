"""The GCS's record of a task, from submit until its outcome is committed.

    WAITING (dependencies, function) -> READY -> ASSIGNED (to a node) -> GONE: outcome committed
                                          ^          |
                                          +----------+  returned, node dead, attempt failed

A task has at most one holder: it leaves ASSIGNED only when the node returns or ends it, or when
that node's incarnation is declared dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zray.core import resources
from zray.protocol.messages import Outcome, TaskSpec, Template

if TYPE_CHECKING:
    from zray.core.head.task_scheduler import NodeView

WAITING = 0
READY = 1
ASSIGNED = 2
GONE = 3


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

    __slots__ = ("function", "message", "needs", "seconds")

    def __init__(self, message: Template, function: FunctionUse) -> None:
        self.message = message
        offer = message.name if message.by_name else ""
        self.needs = resources.needs(message.resources, offer)
        self.function = function
        self.seconds: float | None = None  # measured run time, smoothed; None: never ran

    def measured(self, seconds: float) -> None:
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
        self.attempt = 0  # rises with each dispatch
        self.failures = 0  # attempts that a system failure ended, or a covered exception
        self.failure: list[Outcome] | None = None  # the last one, while ``spec`` is None
        self.node: NodeView | None = None
        self.waiting = 0  # dependencies without an outcome
        self.cancelled = False
        self.forced = False  # cancelled with force
        self.rebuilds = False  # it has its outcome, and runs again because that was lost
        self.group: dict[bytes, TaskRecord] = {}  # of its submitter in its job, once it is known
        self.depth = 0  # how many tasks above it run, its submitter first
        self.near = b""  # the node that has its large arguments
        self.parked = False  # until all nodes known before a head restart are back or dead

    def exhausted(self) -> bool:
        """Whether it failed more often than its retries allow."""
        if self.spec is None or self.template is None:
            return False  # its spec will tell
        return 0 <= self.template.message.max_retries < self.failures
