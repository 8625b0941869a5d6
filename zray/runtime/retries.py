"""For which errors a task or call is made again."""

from __future__ import annotations

from typing import Any


def covers(retry: Any, error: BaseException) -> bool:
    """Whether the task's ``retry_exceptions`` covers the error."""
    if retry is True:
        return isinstance(error, Exception)
    return bool(retry) and isinstance(error, tuple(retry))
