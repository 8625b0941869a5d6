"""Outcomes that the cluster itself commits: encoded ErrorRecords of its own making."""

from __future__ import annotations

import msgspec

from zray.errors import ZrayError
from zray.ids import object_id
from zray.protocol.errors import TASK_RAISED, ErrorRecord, decode_error, system_error
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


def read(value: bytes) -> ErrorRecord:
    """The record of an error that a peer has told of; a worker may have made it badly."""
    try:
        return decode_error(value)
    except msgspec.DecodeError:
        return ErrorRecord("", "its error cannot be read")


def text_of(results: list[Outcome]) -> str:
    """What an error outcome says, for a sentence of which it is the cause."""
    return read(results[0].value).message


def of_constructor(value: bytes) -> str:
    """Why an actor was not made, from the error that its creation ended with."""
    record = read(value)
    if record.code == TASK_RAISED:
        return "its constructor raised an exception, or its arguments failed"
    return f"it could not be made: {record.message}"
