"""What runs in this thread or coroutine in local mode, and how far it is kept from its caller.

A task of a cluster runs in another process: it sees no context variables of its caller's, no event
loop that runs, and its own environment variables.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from zray.protocol import messages as m
from zray.runtime.environment import take_on

if TYPE_CHECKING:
    from zray.nodes.local.work import Work

T = TypeVar("T")


class Running:
    """One attempt of a task or call. ``actor_id``, ``info``, ``restarts``: of its actor."""

    __slots__ = ("actor_id", "attempt", "info", "leaves", "restarts", "work")

    def __init__(
        self,
        work: Work,
        attempt: int,
        actor_id: bytes = b"",
        info: m.ActorInfo | None = None,
        restarts: int = 0,
    ) -> None:
        self.work = work
        self.attempt = attempt
        self.actor_id = actor_id
        self.info = info
        self.restarts = restarts
        self.leaves = False  # ``exit_actor`` was called


_running: contextvars.ContextVar[Running | None] = contextvars.ContextVar("running", default=None)


def now_running() -> Running | None:
    """The attempt that this is called in; None: the program itself."""
    return _running.get()


def context_of(running: Running) -> contextvars.Context:
    """A new one, in which that runs."""
    context = contextvars.Context()
    context.run(_running.set, running)
    return context


def apart(
    context: contextvars.Context,
    environment: m.Environment | None,
    call: Callable[..., T],
    *args: Any,
) -> T:
    """Call in that context as in a process of its own, in this thread."""
    loop = asyncio._get_running_loop()
    if loop is None and environment is None:
        return context.run(call, *args)
    asyncio._set_running_loop(None)
    try:
        with _variables(environment):
            return context.run(call, *args)
    finally:
        asyncio._set_running_loop(loop)


@contextmanager
def _variables(environment: m.Environment | None) -> Iterator[None]:
    if environment is None:
        yield
        return
    before = {name: os.environ.get(name) for name, _ in environment.env_vars}
    path = [*sys.path]
    take_on(environment)
    try:
        yield
    finally:
        sys.path[:] = path
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
