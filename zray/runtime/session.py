"""Which cluster this process takes part in: the driver's connection, or the worker's own.

One per process. Holds no connection of its own and decides nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

lock = threading.RLock()  # held while the process joins or leaves a cluster
_participant: Any = None
# What this process has not told the head of that epoch.
unsaid: list[Callable[[int], list[Any]]] = []
followers: list[Callable[[Any], None]] = []  # told of each change of the participant


def current() -> Any:
    """The Driver or Worker, or None."""
    return _participant


def set_participant(new: Any) -> None:
    """This process takes part through ``new`` from now on; None: it has left."""
    global _participant
    _participant = new
    for follow in followers:
        follow(new)


def current_task() -> bytes:
    """The id of the task that runs in this process, or empty."""
    task_id: bytes = _participant.running_task() if _participant is not None else b""
    return task_id


def take_unsaid(participant: Any) -> list[Any]:
    """The messages that it is to tell now."""
    return [told for take in unsaid for told in take(participant.client.epoch)]


def _after_fork() -> None:
    """A forked child has no connection: sockets and ids are its parent's."""
    global _participant, lock
    lock = threading.RLock()
    unsaid.clear()
    followers.clear()
    if _participant is not None:
        from zray.runtime import references

        references.connect(None)
        _participant.abandon()
        _participant = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
