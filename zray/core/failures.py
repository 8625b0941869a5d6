"""Outcomes that the cluster itself commits: encoded ErrorRecords of its own making."""

from __future__ import annotations

import msgspec

from zray import limits
from zray.errors import TaskTimeoutError, ZrayError
from zray.ids import object_id
from zray.protocol.errors import (
    STOPPED_MAX,
    TASK_RAISED,
    ErrorRecord,
    cut_text,
    decode_error,
    encode_error,
    system_error,
)
from zray.protocol.messages import ERROR, Outcome


def encode(error: type[ZrayError], text: str, function_name: str = "", node: str = "") -> bytes:
    """The bytes of an error outcome: the class by its code, and the text."""
    return system_error(error.code, text, function_name=function_name, node=node)


def outcomes(task_id: bytes, num_returns: int, value: bytes) -> list[Outcome]:
    """The same error for each of a task's returns (at least one).

    Where these are many and it is large, the first alone has all of it.
    """
    found = [Outcome(object_id(task_id, 0), ERROR, len(value), value)]
    if num_returns > 1:
        if len(value) * num_returns > limits.INLINE_TOTAL_BYTES_MAX:
            value = _shortened(value, limits.INLINE_TOTAL_BYTES_MAX // num_returns)
        size = len(value)
        found += [
            Outcome(object_id(task_id, index), ERROR, size, value)
            for index in range(1, num_returns)
        ]
    return found


def of_argument(value: bytes, name: str) -> bytes:
    """The error of a task or call of this name that cannot run since an argument is ``value``."""
    try:
        record = decode_error(value)
    except msgspec.DecodeError:
        return value
    stopped = [*record.stopped, name]
    if len(stopped) > STOPPED_MAX:
        del stopped[STOPPED_MAX // 2]
    return encode_error(msgspec.structs.replace(record, stopped=stopped))


def _shortened(value: bytes, bytes_max: int) -> bytes:
    """The error without its exception and most of its texts."""
    record = read(value)
    room = max(bytes_max // 2, 100)
    return encode_error(
        msgspec.structs.replace(
            record,
            message=cut_text(record.message, room),
            traceback=cut_text(record.traceback, room),
            pickled=b"",
            note="shortened: the first of the task's returns has all of the error",
        )
    )


def read(value: bytes) -> ErrorRecord:
    """The record of an error that a peer has told of; a worker may have made it badly."""
    try:
        return decode_error(value)
    except msgspec.DecodeError:
        return ErrorRecord("", "its error cannot be read")


def text_of(results: list[Outcome]) -> str:
    """What an error outcome says, for a sentence of which it is the cause."""
    return read(results[0].value).message


def of_timeout(name: str, timeout_s: float, how: str, node: str = "") -> bytes:
    """The error of a task that ran too long; ``how``: what became of it, behind "and"."""
    text = f"{name} ran longer than its timeout of {timeout_s:g} s, and {how}; give it more time "
    text += "with timeout=, or see what it does there"
    return encode(TaskTimeoutError, text, name, node)


def of_constructor(value: bytes) -> str:
    """Why an actor was not made, from the error that its creation ended with."""
    record = read(value)
    if record.code == TASK_RAISED:
        return "its constructor raised an exception, or its arguments failed"
    return f"it could not be made: {record.message}"
