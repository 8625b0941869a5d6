"""What functions, constructors and methods may do: everything as the process that runs them."""

from __future__ import annotations

from typing import Any

from zray.ids import object_id
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.processes.steps import Ref


class TaskContext:
    """What a task's function may do: submit, put and keep."""

    def __init__(self, process: Caller, task_id: bytes, template: m.Template) -> None:
        self.process = process
        self.task_id = task_id
        self.template = template

    def submit(self, function: str, arguments: Any = (), **options: Any) -> list[Ref]:
        """Submit a child."""
        return self.process.submit(function, arguments, parent=self.task_id, **options)

    def runs(self) -> int:
        """How often this task has been started, this time included."""
        return self.process.witness.runs(self.task_id)

    def incarnations(self) -> int:
        """How often this constructor has been started, this time included."""
        return self.process.witness.calls.incarnations(self.task_id)


class CallContext:
    """What a method may do. ``state``: what the actor's constructor made."""

    def __init__(
        self, process: Caller, actor_id: bytes, state: dict[str, Any], call: m.Call
    ) -> None:
        self.process = process
        self.state = state
        self.call = call
        self._actor_id = actor_id

    def submit(self, function: str, arguments: Any = (), **options: Any) -> list[Ref]:
        """Submit a child."""
        return self.process.submit(function, arguments, parent=self.call.task_id, **options)

    def myself(self) -> Ref:
        """A handle of this actor."""
        return self.process.borrow(object_id(self._actor_id))
