"""The exception by which an actor ends itself. Owns that class only; a worker acts on it."""

from __future__ import annotations


class ActorExit(BaseException):
    """Raised in a method by ``zray.exit_actor()``; not an error, so that no handler keeps it."""
