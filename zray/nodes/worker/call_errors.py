"""Errors of an actor's calls: those that are made again, and what calls get that cannot start."""

from __future__ import annotations

from typing import Any

from zray.core import failures
from zray.errors import TaskCancelledError
from zray.protocol import messages as m
from zray.runtime import actor_class, serialization
from zray.runtime.retries import covers


def retried(instance: Any, call: m.Call, error: BaseException) -> bool:
    """Whether the call is to be made again, for this error."""
    if call.retry == m.RETRY_AS_DECLARED:
        method = getattr(type(instance), call.method, None)
        return covers(actor_class.retried(method), error)
    try:
        return covers(serialization.loads(call.retry), error)
    except Exception:  # its classes cannot be imported here: it is none of them
        return False


def cancelled_early(info: m.ActorInfo, call: m.Call) -> bytes:
    """The record of a call that was cancelled before it started."""
    text = "the call was cancelled before it started"
    return failures.encode(TaskCancelledError, text, f"{info.class_name}.{call.method}")


def unknown_group(info: m.ActorInfo, call: m.Call) -> ValueError:
    """Why a call cannot run in the group that it names."""
    known = [name for name, _ in info.groups]
    return ValueError(
        f"{info.class_name}.{call.method} was to run in the concurrency group {call.group!r}, "
        f"which this actor does not have; it has: {known}"
    )
