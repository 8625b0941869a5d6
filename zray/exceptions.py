"""Ray's names for zray's exceptions, as ``ray.exceptions`` has them."""

from __future__ import annotations

from zray.errors import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OwnerDiedError,
    RayError,
    RaySystemError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

__all__ = [
    "GetTimeoutError",
    "NodeDiedError",
    "ObjectLostError",
    "OwnerDiedError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "TaskCancelledError",
    "TaskUnschedulableError",
    "WorkerCrashedError",
]
