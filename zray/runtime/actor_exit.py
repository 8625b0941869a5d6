"""How an actor ends itself. Owns the exception for that; a worker acts on it."""

from __future__ import annotations


class ActorExit(SystemExit):
    """Raised in a method by ``zray.exit_actor()``. The actor ends even if somebody catches it."""


def exit_code(leaving: SystemExit) -> int:
    """The exit status of a process that ends with it, as the interpreter has it."""
    code = leaving.code
    if code is None or isinstance(code, int):
        return int(code or 0) & 0xFF
    return 1
