"""What user code in a worker may ask about the task or actor that it is."""

from __future__ import annotations

from zray.core.client.client import Client
from zray.nodes.participant.participant import Participant
from zray.nodes.worker.actor_worker import ActorServer, current_call
from zray.protocol import messages as m


class Introspection(Participant):
    runs_tasks = True

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.assignment: m.Assignment | None = None  # the task that runs
        self.actor: ActorServer | None = None  # what this worker has become

    def running_task(self) -> bytes:
        """The id of the task or call that runs in this thread, or empty."""
        if self.actor is not None:
            entry = current_call.get()
            return entry.call.task_id if entry is not None else b""
        return self.assignment.spec.task_id if self.assignment is not None else b""

    def runs(self, task_id: bytes) -> str | None:
        """The name of the task or call with that id, if it runs here in any thread."""
        if self.actor is not None:
            call = self.actor.inbox.running(task_id)
            return None if call is None else f"{self.actor.info.class_name}.{call.method}"
        made = self.assignment
        if made is None or made.spec.task_id != task_id:
            return None
        return made.actor.class_name if made.actor is not None else ""

    def current_call(self) -> m.Call | None:
        """The call of this actor that runs in this thread."""
        entry = current_call.get()
        return entry.call if entry is not None else None

    def task_names(self) -> tuple[str, str]:
        """Of the task that runs and of its function; an actor's constructor among them."""
        raise NotImplementedError

    def _creation(self) -> m.Assignment | None:
        """What made this worker an actor; also while its constructor runs."""
        made = self.actor.assignment if self.actor is not None else self.assignment
        return made if made is not None and made.actor is not None else None

    @property
    def actor_id(self) -> bytes:
        made = self._creation()
        return made.spec.task_id if made is not None else b""

    @property
    def actor_info(self) -> m.ActorInfo | None:
        made = self._creation()
        return made.actor if made is not None else None

    @property
    def actor_restarts(self) -> int:
        made = self._creation()
        return made.failures if made is not None else 0

    def cancelled(self) -> bool:
        """Whether the running call was cancelled."""
        return self.actor is not None and self.actor.cancelled()
