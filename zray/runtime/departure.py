"""Why an actor ends by its own wish, and with which status of its process."""

from __future__ import annotations

from typing import Generic, TypeVar

from zray import limits
from zray.protocol.errors import cut_text
from zray.runtime.actor_exit import ActorExit, exit_code

Call = TypeVar("Call")


class Departure(Generic[Call]):
    """Attributes:
    wanted: user code wants the actor to end.
    reason, code: the first such wish.
    failed: that says a failure, which all statuses but a 0 do; the actor may start again.
    leavers: running calls that have called ``exit_actor``, whatever they do with what that raises.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.reason = ""
        self.code = 0
        self.failed = False
        self.leavers: set[Call | None] = set()

    def want(self, leaving: SystemExit, where: str) -> None:
        """User code has raised this. ``where``: the method's name, if it is known."""
        if self.wanted:
            return
        self.wanted = True
        if isinstance(leaving, ActorExit):
            reason = str(leaving) or "exit_actor() was called"
        else:
            self.code = exit_code(leaving)
            self.failed = leaving.code is None or self.code != 0  # as Ray has it
            code = "" if leaving.code is None else repr(leaving.code)
            reason = f"sys.exit({code}) was called{' in ' if where else ''}{where}"
        self.reason = cut_text(reason, limits.CAUSE_BYTES_MAX)
