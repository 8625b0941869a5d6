"""The making of an actor's instance, and what runs where a constructor fails or ends its actor.

That is what runs at every planned end of an actor, `last_words`: as in Ray also on an instance that
is only half made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from zray.core import failures
from zray.errors import ActorDiedError
from zray.nodes.worker import last_words
from zray.runtime.actor_exit import ActorExit
from zray.runtime.departure import Departure


class Construction:
    """Of one actor. ``name``: of its constructor, for people."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._instance: Any = None
        self._leaves = False

    def of(self, made_by: Callable[..., Any]) -> Callable[..., Any]:
        """What makes the instance, as ``made_by``, its class, would."""

        def make(*args: Any, **kwargs: Any) -> Any:
            value = self._made(made_by, args, kwargs)
            if self._leaves:
                raise ActorExit
            return value

        return make

    def _made(self, made_by: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        plain = isinstance(made_by, type) and type(made_by).__call__ is type.__call__
        if not (plain and hasattr(made_by, "__ray_shutdown__")):
            return made_by(*args, **kwargs)
        self._instance = value = made_by.__new__(made_by, *args, **kwargs)
        if isinstance(value, made_by):
            type(value).__init__(value, *args, **kwargs)
        return value

    def leaves(self) -> None:
        """``exit_actor`` was called, which user code may not keep from what it does."""
        self._leaves = True

    def left(self, error: SystemExit) -> bytes:
        """The record of the error of an actor that does not want to be; any raises ``error`` that
        is its failure, after which it may start again."""
        departure: Departure[None] = Departure()
        departure.want(ActorExit() if self._leaves else error, self._name)
        if departure.failed:
            print(departure.reason, file=sys.stderr, flush=True)
            last_words.run(self._instance, departure.code)
            raise error
        return failures.encode(ActorDiedError, departure.reason, self._name)

    def failed(self) -> None:
        """The process is about to end, and did not become the actor."""
        last_words.run(self._instance, 0)
