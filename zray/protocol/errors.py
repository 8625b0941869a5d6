"""The record of a failed task: what every peer may read of an error without unpickling anything.

Owns the record's fields, its bytes and the cutting of its texts. Must never pickle or unpickle:
the head and foreign clients use this module.
"""

import msgspec

from zray import limits

MESSAGE_BYTES_MAX = limits.ERROR_TEXT_BYTES_MAX // 16
TASK_RAISED = "ZR-3001"
STOPPED_MAX = 8  # names in a record of those that could not run because of it


class ErrorRecord(msgspec.Struct, array_like=True, frozen=True):
    """Why a task has no value. Fields are only ever appended, with defaults.

    Attributes:
        code: stable code; ``ZR-3001`` where the task itself raised, else the system's reason.
        message: one text for people, at most MESSAGE_BYTES_MAX bytes.
        type_name: ``module.Class`` of the exception, without ``builtins``; empty for the system's.
        function_name: the task's name.
        traceback: text made where the task ran, at most limits.ERROR_TEXT_BYTES_MAX bytes.
        node: name of the node that ran the task, or empty.
        pid: process that ran the task, or 0.
        pickled: the Python exception; opaque to all but drivers and workers, possibly empty.
        note: what was left out of the record and why.
        maybe_executed: of an actor's call: whether it may have run in spite of the error.
        actor_id: of an actor's call: the actor, or empty.
        actor_repr: of what an actor's method raised: ``repr`` of the actor, if its class has one.
        stopped: tasks and calls that could not run because of it, as their argument or the argument
            of those before: the one next to the error first, at most STOPPED_MAX of them.
    """

    code: str
    message: str = ""
    type_name: str = ""
    function_name: str = ""
    traceback: str = ""
    node: str = ""
    pid: int = 0
    pickled: bytes = b""
    note: str = ""
    maybe_executed: bool = False
    actor_id: bytes = b""
    actor_repr: str = ""
    stopped: list[str] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ErrorRecord).decode


def encode_error(record: ErrorRecord) -> bytes:
    """The bytes of a record: a msgpack array in field order."""
    return _encode(record)


def decode_error(data: bytes | memoryview) -> ErrorRecord:
    """The record in ``data``.

    Raises:
        msgspec.DecodeError: ``data`` is not a record; ValidationError names the field.
    """
    return _decode(data)


def system_error(
    code: str,
    message: str,
    *,
    function_name: str = "",
    node: str = "",
    pid: int = 0,
    note: str = "",
    maybe_executed: bool = False,
    actor_id: bytes = b"",
    cause: ErrorRecord | None = None,
) -> bytes:
    """An encoded record of an error that the system reports, such as a crashed worker.

    ``code`` is the ``code`` of a class in zray.errors, which drivers raise with ``message``.
    ``cause``: what user code raised before that; its exception becomes the error's cause.
    """
    return _encode(
        ErrorRecord(
            code=code,
            message=cut_text(message, MESSAGE_BYTES_MAX),
            function_name=cut_text(function_name, MESSAGE_BYTES_MAX),
            node=node,
            pid=pid,
            note=cut_text(note, MESSAGE_BYTES_MAX),
            maybe_executed=maybe_executed,
            actor_id=actor_id,
            traceback=cause.traceback if cause is not None else "",
            pickled=cause.pickled if cause is not None else b"",
        )
    )


def error_text(record: ErrorRecord, note: str = "") -> str:
    """What people read of an error that a task raised: who failed where, and its traceback.

    ``note``: one more, of who reads it.
    """
    name = record.function_name or "the task"
    where = [f"pid={record.pid}"]
    where += [f"node={record.node}"] if record.node else []
    where += [f"actor_id={record.actor_id.hex()}"] if record.actor_id else []
    where += [f"repr={record.actor_repr}"] if record.actor_repr else []
    what = ": ".join(filter(None, (record.type_name, record.message.partition("\n")[0])))
    lines = [f"{name} failed ({', '.join(where)}): {what}", record.traceback.rstrip()]
    lines += [f"note: {text}" for text in (record.note, note) if text]
    return f"{record.code} " + "\n".join(filter(None, (*lines_of_stopped(record), *lines)))


def lines_of_stopped(record: ErrorRecord) -> list[str]:
    """What could not run because of it, the one that was asked for first."""
    return [
        f"{name} could not run. At least one of the input arguments for this task could not be "
        "computed:"
        for name in reversed(record.stopped)
    ]


def cut_text(text: str, bytes_max: int) -> str:
    """``text`` as valid UTF-8 of at most ``bytes_max`` bytes (100 or more), cut in the middle.

    The start says where a failure came from and the end says what it was, so both are kept.
    Lone surrogates, which UTF-8 cannot carry, become escapes.
    """
    if len(text) <= bytes_max:
        data = text.encode("utf-8", "backslashreplace")
        if len(data) <= bytes_max:
            return data.decode()
    mark = f"\n... [cut: {len(text)} characters in all] ...\n"
    room = bytes_max - len(mark)
    # A character is a byte or more: what lies beyond these slices could not be kept anyway.
    head = text[:room].encode("utf-8", "backslashreplace")[: room // 4]
    tail = text[-room:].encode("utf-8", "backslashreplace")[len(head) - room :]
    return head.decode("utf-8", "ignore") + mark + tail.decode("utf-8", "ignore")
