"""User exceptions to error records and back: what a task raised arrives as its own type.

Owns the making of records where a task ran (text first: an exception object may not survive the
way) and of exceptions where they are raised again. Neither direction ever raises for what the
user's exception does. Must not import zmq or numpy.
"""

from __future__ import annotations

import functools
import os
import traceback
import types
from typing import Any

from zray import errors, limits
from zray.errors import ActorError, SerializationError, TaskError, ZrayError
from zray.protocol.errors import (
    MESSAGE_BYTES_MAX,
    TASK_RAISED,
    ErrorRecord,
    cut_text,
    decode_error,
    encode_error,
    error_text,
    lines_of_stopped,
    system_error,
)
from zray.runtime import exception_parts

__all__ = ["dump_exception", "load_exception", "system_error"]

FRAMES_MAX = 200  # the innermost frames of a deep traceback; the outermost ones repeat
ACTOR_REPR_BYTES_MAX = 1000
_OWN_PACKAGE = __name__.partition(".")[0]
_CLASSES = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ZrayError) and "code" in vars(kind)
}
# Raised as their own type these would not be errors: generators and ``await`` take them as an end.
# (Nor would what is not an Exception: it would stop the driver instead of reporting to it.)
_NEVER_RAISED_AS_SUCH = (StopIteration, StopAsyncIteration)


# ---- where the task ran --------------------------------------------------------------------


def dump_exception(
    exc: BaseException,
    function_name: str,
    node: str,
    pid: int,
    actor_id: bytes = b"",
    actor: Any = None,
) -> bytes:
    """The encoded record of what a task raised.

    Args:
        exc: caught while the task ran, with its traceback.
        function_name: the task's name.
        node: name of this node.
        pid: this process.
        actor_id: of the actor whose method it was, and ``actor`` itself.
    """
    blob, note = exception_parts.dump(_original(exc))
    type_name, message = type_and_message(exc)
    record = ErrorRecord(
        code=TASK_RAISED,
        message=message,
        type_name=type_name,
        function_name=cut_text(function_name, MESSAGE_BYTES_MAX),
        traceback=cut_text(_traceback_text(exc), limits.ERROR_TEXT_BYTES_MAX),
        node=cut_text(node, MESSAGE_BYTES_MAX),
        pid=pid,
        pickled=blob,
        note=cut_text(note, MESSAGE_BYTES_MAX),
        actor_id=actor_id,
        actor_repr=_repr_of_its_own(actor),
    )
    return encode_error(record)


def _repr_of_its_own(actor: Any) -> str:
    """``repr`` of an actor whose class says how; what Python would say tells nothing."""
    kind: Any = type(actor)
    if actor is None or kind.__repr__ is object.__repr__:
        return ""
    try:
        return cut_text(repr(actor), ACTOR_REPR_BYTES_MAX)
    except BaseException:
        return ""


def _original(exc: BaseException) -> BaseException:
    """The user's exception also where it passed through several tasks."""
    while isinstance(exc, TaskError) and exc.cause is not None:
        exc = exc.cause
    return exc


def type_and_message(exc: BaseException) -> tuple[str, str]:
    """Both as the record of it has them: of the user's own exception, valid UTF-8, and short."""
    kind, message = _type_name(exc), _message(exc)
    return cut_text(kind, MESSAGE_BYTES_MAX), cut_text(message, MESSAGE_BYTES_MAX)


def _type_name(exc: BaseException) -> str:
    kind = type(_original(exc))
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def _message(exc: BaseException) -> str:
    exc = _original(exc)
    try:
        if isinstance(exc, SystemExit):
            return f"task called sys.exit({'' if exc.code is None else repr(exc.code)})"
        if not isinstance(exc, Exception):
            return f"task raised {exception_parts.safe_text(exc)}"
        return str(exc)
    except BaseException:
        return f"<{_type_name(exc)}, whose text cannot be made>"


def _traceback_text(exc: BaseException) -> str:
    trace = exc.__traceback__
    while trace is not None and _is_own(trace.tb_frame):
        trace = trace.tb_next
    depth = 0
    step = trace
    while step is not None:
        depth += 1
        step = step.tb_next
    try:
        text = traceback.TracebackException(
            type(exc), exc, trace or exc.__traceback__, limit=-FRAMES_MAX
        )
        # Each piece is cut by itself first: one may be as large as the user's message.
        pieces = [cut_text(piece, limits.ERROR_TEXT_BYTES_MAX) for piece in text.format()]
    except BaseException as failure:
        return f"{_type_name(exc)}: <its traceback cannot be made: {type(failure).__name__}>\n"
    if depth > FRAMES_MAX:
        pieces.insert(0, f"[{depth - FRAMES_MAX} outer frames are left out]\n")
    return "".join(pieces)


def _is_own(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _OWN_PACKAGE


# ---- where it is raised again --------------------------------------------------------------


def load_exception(record_bytes: bytes | memoryview) -> BaseException:
    """The exception to raise for a record.

    Where the task raised: a TaskError that is an instance of the user's type too, as far as that
    type can be loaded and subclassed here; ``.cause`` is the user's exception. Else the class of
    zray.errors with the record's code. It can be pickled again.
    """
    data = bytes(record_bytes)
    try:
        record = decode_error(data)
    except Exception as failure:
        return SerializationError(
            f"the task failed, but the record of its error cannot be read ({failure})"
        )
    if record.code != TASK_RAISED:
        return _system_exception(record)
    cause: BaseException | None = None
    note = ""
    if record.pickled:
        cause, note = exception_parts.load(record.pickled)
    if cause is not None:
        cause = _original(cause)
        if isinstance(cause, Exception) and not isinstance(cause, _NEVER_RAISED_AS_SUCH):
            try:
                return _fill(_as_both(cause), record, data, cause, note)
            except BaseException:
                note = f"the class {type(cause).__qualname__} does not allow subclasses"
    exc = _RemoteTaskError()
    exc.args = (record.message,)
    return _fill(exc, record, data, cause, note)


def _system_exception(record: ErrorRecord) -> BaseException:
    kind = _CLASSES.get(record.code, ZrayError)
    message = "\n".join(filter(None, (*lines_of_stopped(record), record.message, record.note)))
    if issubclass(kind, ActorError):
        cause = exception_parts.load(record.pickled)[0] if record.pickled else None
        text = "\n".join(filter(None, (message, record.traceback.rstrip())))
        actor_id = record.actor_id.hex()
        maybe = record.maybe_executed
        return kind(text, maybe_executed=maybe, actor_id=actor_id, cause=cause)
    return kind(message, code=record.code)


class _RemoteTaskError(TaskError):
    """A TaskError made from a record, as which it is pickled."""

    # Values on the class: a user's class may have properties of these names.
    function_name: str = ""
    traceback_text: str = ""
    cause: BaseException | None = None
    _zray_record: bytes = b""

    # A user's class may forbid setting attributes (a frozen dataclass), but Python itself, pytest
    # and contextlib set some on every exception that passes.
    __setattr__ = BaseException.__setattr__

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return load_exception, (self._zray_record,)


_RemoteTaskError.__module__ = TaskError.__module__
_RemoteTaskError.__qualname__ = _RemoteTaskError.__name__ = TaskError.__name__


def _fill(
    exc: _RemoteTaskError,
    record: ErrorRecord,
    data: bytes,
    cause: BaseException | None,
    note: str,
) -> _RemoteTaskError:
    exc.function_name = record.function_name
    exc.traceback_text = error_text(record, note)
    exc.cause = cause
    exc._zray_record = data
    return exc


def _as_both(cause: Exception) -> _RemoteTaskError:
    """An empty TaskError that is of the cause's type and has its args and attributes.

    Raises:
        TypeError: the type is final, or its layout does not go with other classes.
    """
    kind = _class_of_both(type(cause))  # type: ignore[arg-type]  # types can be hashed
    exc = exception_parts.allocate(kind, exception_parts.arguments_of(cause))
    state = exception_parts.state_of(cause)
    # The remote text has the notes; the interpreter would print these a second time.
    state.attributes.pop("__notes__", None)
    exception_parts.restore(exc, state)
    return exc


def _of_both_types(made: TaskError) -> TaskError:
    """The same for an error that a program has made, with its cause."""
    assert made.cause is not None
    type_name, message = type_and_message(made.cause)
    record = ErrorRecord(
        code=TASK_RAISED,
        message=message,
        type_name=type_name,
        function_name=cut_text(made.function_name, MESSAGE_BYTES_MAX),
        traceback=cut_text(made.traceback_text, limits.ERROR_TEXT_BYTES_MAX),
        pid=os.getpid(),
        pickled=exception_parts.dump(made.cause)[0],
    )
    found = load_exception(encode_error(record))
    if not isinstance(found, _RemoteTaskError) or not isinstance(found, type(made.cause)):
        return made
    found.cause = made.cause
    return found


errors.set_of_both_types(_of_both_types)


@functools.lru_cache(maxsize=256)
def _class_of_both(kind: type[Exception]) -> type[_RemoteTaskError]:
    """The class that is TaskError and ``kind``; its constructors are never called."""

    def body(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = TaskError.__module__
        if not issubclass(kind, ZrayError):
            for base in kind.__mro__:
                # A user's ``code``, such as an HTTP status, goes before the class's own.
                if "code" in vars(base):
                    namespace["code"] = vars(base)["code"]
                    break

    made = types.new_class(f"TaskError({kind.__name__})", (_RemoteTaskError, kind), exec_body=body)
    assert issubclass(made, _RemoteTaskError)
    return made
