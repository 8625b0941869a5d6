"""Outcomes that the cluster itself commits: encoded ErrorRecords of its own making."""

from __future__ import annotations

from zray.errors import ZrayError
from zray.ids import object_id
from zray.protocol.errors import system_error
from zray.protocol.messages import ERROR, Outcome


def encode(error: type[ZrayError], text: str, function_name: str = "", node: str = "") -> bytes:
    """The bytes of an error outcome: the class by its code, and the text."""
    return system_error(error.code, text, function_name=function_name, node=node)


def outcomes(task_id: bytes, num_returns: int, value: bytes) -> list[Outcome]:
    """The same error for each of a task's returns (at least one)."""
    return [
        Outcome(object_id(task_id, index), ERROR, len(value), value)
        for index in range(max(num_returns, 1))
    ]
