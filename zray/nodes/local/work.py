"""One task, call or constructor in local mode: its arguments, its attempts, and what came of it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from types import GeneratorType
from typing import Any

from zray.core import failures
from zray.errors import TaskCancelledError
from zray.ids import object_id
from zray.nodes.local.objects import LocalObjects
from zray.nodes.participant.shared_values import load
from zray.protocol import messages as m
from zray.runtime import pickling, serialization, task_errors
from zray.runtime.interrupts import raised_by_handler
from zray.runtime.returns import encoded, only, several
from zray.runtime.tracing import CARRIED, traced

NODE = socket.gethostname()


class Work:
    """``dependencies`` and ``nested`` are held from its making until ``release``.

    Attributes:
        retries: how many more attempts there may be; -1: any number.
        cancelled: somebody wants it no more.
    """

    def __init__(
        self,
        objects: LocalObjects,
        task_id: bytes,
        name: str,
        arguments: serialization.Arguments,
        *,
        parent: bytes = b"",
        method: str = "",
        group: str = "",
        num_returns: int = 1,
        yields: int = m.RETURNS,
        unread_max: int = 0,
        retries: int = 0,
        retry: Any = False,
        template: m.Template | None = None,
        portable: bool = False,
    ) -> None:
        self._objects = objects
        self.task_id = task_id
        self.name = name
        self.method = method
        self.group = group
        self.num_returns = num_returns
        self.yields = yields
        self.unread_max = unread_max
        self.retries = retries
        self.retry = retry
        self.template = template
        self.portable = portable
        self.parent = parent
        self.cancelled = False
        self._arguments = arguments.whole()
        self.dependencies = arguments.dependencies
        self._held = [*arguments.dependencies, *arguments.nested]
        objects.add(self._held)

    @property
    def returns(self) -> list[bytes]:
        """The ids of what it returns; of what yields, that of its end."""
        return [object_id(self.task_id, index) for index in range(self.num_returns)]

    @property
    def environment(self) -> m.Environment | None:
        """What it is to have beside the program's."""
        return self.template.environment if self.template is not None else None

    def release(self) -> list[bytes]:
        """It is over: what it has held."""
        held, self._held = self._held, []
        return held

    def is_ready(self) -> bool:
        """Whether its arguments are there."""
        return not self._objects.missing(self.dependencies)

    def failed_argument(self) -> bytes | None:
        """The record of its end because one of its arguments is an error; None: none is."""
        for oid in self.dependencies:
            outcome = self._objects.outcomes.get(oid)
            if outcome is not None and outcome.kind & m.ERROR:
                self._objects.unasked.asked(outcome)
                return failures.of_argument(bytes(outcome.value), self.name)
        return None

    def bound(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """The call with its arguments, as another process would get them."""
        values = [load(self._objects.outcomes[oid]) for oid in self.dependencies]
        args, kwargs = serialization.loads_arguments(self._arguments, values)
        if CARRIED in kwargs:
            function = traced(function, kwargs, self.name)
        return lambda: function(*args, **kwargs)

    # ---- what came of it -------------------------------------------------------------------

    def settle(self, value: Any) -> None:
        """It has returned that.

        Raises:
            SerializationError, ValueError: it cannot be a result; nothing is known of it yet.
        """
        values = [value]
        if self.num_returns > 1:
            values = several(value, self.num_returns, self.name)
        elif type(value) is GeneratorType:
            values = [only(value, self.name)]
        outcomes = []
        for index, one in enumerate(values):
            parts = encoded(one, f"the result of {self.name}", portable=self.portable)
            outcomes.append(outcome_of(object_id(self.task_id, index), parts))
        if self.num_returns > 1:
            references = sum(len(outcome.contained) for outcome in outcomes)
            pickling.check_count(references, f"the results of {self.name}")
        self._objects.settle(outcomes)

    def fail(self, record: bytes) -> None:
        """It has ended with that error."""
        self._objects.settle(failures.outcomes(self.task_id, self.num_returns, record))

    def stop(self) -> None:
        """It has ended because it was cancelled."""
        what = "call" if self.method else "task"
        self.fail(failures.encode(TaskCancelledError, f"the {what} was cancelled", self.name))

    def record(self, error: BaseException, actor_id: bytes = b"", actor: Any = None) -> bytes:
        """The record of what it has raised."""
        return task_errors.dump_exception(error, self.name, NODE, os.getpid(), actor_id, actor)

    def takes_again(self) -> bool:
        """Whether there may be another attempt, which is then counted."""
        if self.retries > 0:
            self.retries -= 1
            return True
        return self.retries < 0


def outcome_of(oid: bytes, parts: Any) -> m.Outcome:
    """A value as it is kept."""
    data = parts.to_bytes()
    return m.Outcome(oid, m.VALUE, len(data), data, parts.contained)


def stops_the_program(error: BaseException) -> bool:
    """Whether it is for the program and not for who asks for a result: Ctrl-C, what another of
    its signal handlers raises, or the debugger's ``quit``."""
    if isinstance(error, KeyboardInterrupt) or raised_by_handler(error):
        return True
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)
