"""What a raylet knows of each task that it holds, of its template, and of each worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zray import limits
from zray.core import resources
from zray.core.depth_queue import AWAITED
from zray.core.machine import NEVER
from zray.core.resources import BUILT, CPU, Needs
from zray.protocol.messages import (
    Assignment,
    Deadline,
    Export,
    HeldActor,
    HeldLease,
    Message,
    Outcome,
    Tasks,
    Template,
)
from zray.protocol.splitting import Joiner

# Job, GPU indices, threads for numeric libraries, environment.
PoolKey = tuple[bytes, tuple[int, ...], int, str]


class LocalTemplate:
    """A template, and how long its function has been taking here."""

    __slots__ = ("builds", "cpu_only", "function", "message", "needs", "seconds")

    def __init__(self, message: Template) -> None:
        self.message = message
        self.function: Export | None = None  # comes before the first task
        self.needs = resources.needs(message.resources)
        counted = resources.countable(self.needs)
        self.cpu_only = bool(counted) and resources.is_cpu_only(counted)
        self.seconds: float | None = None
        # The name of its environment, if something has to be built for that.
        self.builds = next((name for name, _ in self.needs if name.startswith(BUILT)), "")

    def measured(self, seconds: float) -> None:
        """Its function ran for so many seconds."""
        old = self.seconds
        self.seconds = seconds if old is None else old + (seconds - old) * 0.2

    def short(self) -> bool:
        """Whether it is known to take less than ``limits.SHORT_TASK_S``."""
        return self.seconds is not None and self.seconds < limits.SHORT_TASK_S


class NearTask:
    """What makes a task near: a worker of this node has submitted it, and the head has not heard.

    ``number``: rises with each. ``used``: what it refers to. ``large``: an item that it has yielded
    stays on this node.
    """

    __slots__ = ("large", "number", "submitter", "used")

    def __init__(self, submitter: bytes, number: int, used: list[bytes]) -> None:
        self.submitter = submitter
        self.number = number
        self.used = used
        self.large = False


class LocalTask:
    """A task that this node holds. ``values``: dependencies at hand; ``waiting``: to be fetched."""

    __slots__ = (
        *("assignment", "cancelled", "forced", "level", "near", "template", "values", "waiting"),
        "worker",
    )

    def __init__(self, assignment: Assignment, template: LocalTemplate) -> None:
        self.assignment = assignment
        self.template = template
        self.values: dict[bytes, Outcome] = {}
        self.waiting = 0
        self.worker: WorkerSlot | None = None
        self.cancelled = False
        self.forced = False  # and nothing is to be waited for
        self.near: NearTask | None = None
        actor = assignment.actor
        # In the queue. Calls wait for an actor, which takes nothing from tasks if it holds nothing.
        self.level = assignment.depth if actor is None or actor.held else AWAITED

    @property
    def task_id(self) -> bytes:
        """Its id, of 16 bytes."""
        return self.assignment.spec.task_id

    @property
    def depth(self) -> int:
        """How many tasks above it run."""
        return self.assignment.depth

    def bytes(self) -> int:
        """Of its arguments in the message."""
        return len(self.assignment.spec.arguments)

    def bytes_in_all(self) -> int:
        """About what it takes in a message, with the values of its arguments."""
        spec = self.assignment.spec
        size = len(spec.arguments) + 32 * (len(spec.dependencies) + len(spec.nested))
        return size + sum(len(value.value) for value in self.values.values())


class WorkerSlot:
    """One worker process and what it has been given."""

    def __init__(self, worker_id: bytes, key: PoolKey) -> None:
        self.worker_id = worker_id
        self.key = key
        self.pid = 0
        self.begun: Callable[[], int] = int  # how many tasks, in its life
        self.inflight: dict[bytes, LocalTask] = {}  # in the order of delivery
        self.behind: dict[bytes, None] = {}  # of these, what it may not have taken yet
        self.behind_depth = 0  # of the least deep of those
        self.delivered = 0  # tasks that it was given to start at once, in its life
        self.full = False  # there is no room for more of those until it ends something
        self.finished = 0
        self.needs: Needs = ()
        self.gpus: dict[int, int] = {}
        self.busy = False
        self.blocked = False
        self.recalled = False
        self.exiting = False
        self.progress = 0.0  # when it last got or finished a task
        self.condemned: dict[bytes, float] = {}  # cancelled tasks and when their grace ends
        self.late: Deadline | None = None  # the last that it had to stop for its timeout
        self.known: set[bytes] = set()
        self.actor: HeldActor | None = None  # whose process it is
        self.class_name = ""  # of the actor that it is or is about to be
        self.lease: HeldLease | None = None  # which it serves
        self.leased_name = ""  # of the function whose tasks it runs under that
        self.counted = 0  # tasks that have ended under that, as far as was looked
        self.runs_long = False  # what it runs did so already when it told of that
        self.lists_tasks = True  # those that it runs under that are to be told of
        self.was_leased = False  # it may know functions that it did not get from here
        self.joiner = Joiner()  # of what it sends
        self.broken = False  # what it said last could not be dealt with: it is not heard any more
        self.exit_reason = ""  # why that ends by its own wish

    def condemn(self, task_id: bytes, when: float) -> None:
        """The process is to end at that time if the task has not ended by then."""
        self.condemned.setdefault(task_id, when)

    def kill_at(self) -> float:
        """When the grace of its first cancel ends."""
        return min(self.condemned.values()) if self.condemned else NEVER

    def current(self) -> LocalTask | None:
        """The task that it runs, of those that it has."""
        return next(iter(self.inflight.values()), None)

    def depth(self) -> int:
        """Of the task that it runs."""
        first = self.current()
        return 0 if first is None else first.depth

    def makes_actor(self) -> bool:
        """Whether it is, or is about to be, the process of an actor."""
        return bool(self.actor) or any(task.assignment.actor for task in self.inflight.values())

    def delivery(self, tasks: list[LocalTask]) -> Iterator[Message]:
        """The messages that hand these tasks to the process, with what it does not know yet."""
        values: dict[bytes, Outcome] = {}
        for task in tasks:
            template = task.template.message
            if template.template_id not in self.known:
                self.known.add(template.template_id)
                if not template.by_name and template.function_id not in self.known:
                    self.known.add(template.function_id)
                    assert task.template.function is not None
                    yield task.template.function
                yield template
            values.update(task.values)
        yield Tasks(0, [task.assignment for task in tasks], list(values.values()))

    def obituary(self, task: LocalTask, node: str, cause: str) -> str:
        """What to tell whoever waits for a task that died with its worker."""
        name = task.template.message.name
        return f"the worker (pid {self.pid}, node {node}) that ran {name} died: {cause}"

    def all_short(self) -> bool:
        """Whether all that it has is known to take no time."""
        return all(task.template.short() for task in self.inflight.values())

    def cpu_part(self) -> Needs:
        """What its tasks need of CPUs, which a blocked one lends to others."""
        return tuple((name, amount) for name, amount in self.needs if name == CPU)
