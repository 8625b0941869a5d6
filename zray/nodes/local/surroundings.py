"""What a task, or the program, may know of itself in local mode, as workers and drivers tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from zray.core.client.unasked import UnaskedErrors
from zray.nodes.local.functions import LocalFunctions
from zray.nodes.local.running import now_running
from zray.protocol import messages as m

if TYPE_CHECKING:
    from zray.runtime.progress import OwnBar, ProgressDisplay


class LocalIdentity(NamedTuple):
    """As much of a Client as the API looks at."""

    process_id: bytes
    job_id: bytes
    unasked: UnaskedErrors
    epoch: int = 0
    linked: bool = True
    stopped: str = ""


class LocalInbox(NamedTuple):
    """As much of a worker's TaskInbox as the API looks at."""

    setup: m.Setup
    templates: dict[bytes, m.Template]
    functions: dict[bytes, m.Export]


class Surroundings:
    """``job``: as ``init`` has made it; ``node_id``: of the only node."""

    def __init__(
        self, client: LocalIdentity, functions: LocalFunctions, job: m.JobInfo, node_id: bytes
    ) -> None:
        self.client = client
        self.namespace = job.namespace
        self._functions = functions
        self._setup = m.Setup(0, client.job_id, job, node_id, "", True)
        self._environment: m.Environment | None = None  # of the program
        self._bars: ProgressDisplay | None = None

    builds_environments = False  # all runs in this process, with what that has
    runs_tasks = True  # as a worker

    @property
    def environment(self) -> m.Environment | None:
        """Of what is made from here."""
        running = now_running()
        return self._environment if running is None else running.work.environment

    @environment.setter
    def environment(self, new: m.Environment | None) -> None:
        self._environment = new

    def running_task(self) -> bytes:
        """The id of the task or call that this is called in, or empty."""
        running = now_running()
        return running.work.task_id if running is not None else b""

    @property
    def task_inbox(self) -> LocalInbox | None:
        """None outside of a task."""
        if now_running() is None:
            return None
        return LocalInbox(self._setup, self._functions.templates, self._functions.functions)

    @property
    def assignment(self) -> m.Assignment | None:
        """Of the running task; None outside of one."""
        running = now_running()
        if running is None or (template := running.work.template) is None:
            return None
        work = running.work
        spec = m.TaskSpec(work.task_id, template.template_id, b"")
        return m.Assignment(running.attempt, self.client.job_id, spec)

    @property
    def actor_id(self) -> bytes:
        """Of the actor that this is called in, or empty."""
        running = now_running()
        return running.actor_id if running is not None else b""

    @property
    def actor_info(self) -> m.ActorInfo | None:
        """The same, as everybody knows it."""
        running = now_running()
        return running.info if running is not None else None

    @property
    def actor_restarts(self) -> int:
        """How often it began again."""
        running = now_running()
        return running.restarts if running is not None else 0

    @staticmethod
    def current_call() -> Any:
        """What runs, if it is a call of an actor: has its ``method``."""
        running = now_running()
        return running.work if running is not None and running.work.method else None

    @staticmethod
    def cancelled() -> bool:
        """Whether what runs was cancelled."""
        running = now_running()
        return running is not None and running.work.cancelled

    @staticmethod
    def leaves() -> None:
        """``exit_actor`` was called."""
        running = now_running()
        if running is not None:
            running.leaves = True

    # ---- progress --------------------------------------------------------------------------

    def open_bar(self, label: str, total: int, unit: str = "") -> OwnBar:
        """As ``Following.open_bar``: here tasks' bars are the program's own."""
        if self._bars is None:
            from zray.runtime.progress import ProgressDisplay

            self._bars = ProgressDisplay()
        return self._bars.open(label, total, unit)

    def _end_bars(self) -> None:
        if self._bars is not None:
            self._bars.end()
