"""Exception objects to bytes and back, piece by piece where they do not survive as a whole.

Owns the taking apart and rebuilding of exceptions. Many classes do not unpickle (constructors with
other arguments than ``args``, locks in attributes, odd ``__reduce__``), so an exception that fails
a trial here travels as its class, arguments and attributes, each by itself, and is rebuilt without
calling its code. Must never raise for what an exception does.
"""

from __future__ import annotations

import types
from typing import Any, NamedTuple, TypeVar

from zray import limits
from zray.errors import TaskError
from zray.protocol.errors import MESSAGE_BYTES_MAX, cut_text
from zray.runtime import pickling, serialization

_E = TypeVar("_E", bound=BaseException)
_BYTES_MAX = limits.INLINE_BYTES_MAX
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement


class State(NamedTuple):
    """Attributes of an exception: ``native`` ones live in slots, the others in ``__dict__``."""

    native: dict[str, Any]
    attributes: dict[str, Any]


def dump(exc: BaseException) -> tuple[bytes, str]:
    """The bytes of an exception, at most about limits.INLINE_BYTES_MAX, and a note for people.

    The bytes are empty where not even its class can be pickled; the note says what was left out.
    References inside are reported as stray: nobody follows those of errors.
    """
    try:
        data, references = pickling.encode(exc)
        if len(data) <= _BYTES_MAX and _is_copy(serialization.loads(data), exc):
            for object_id in references:
                pickling.note_stray_reference(object_id)
            return data, ""
    except BaseException:
        pass  # its own code failed, or called sys.exit: without its code, then
    try:
        return _Dismantling().dump(exc)
    except BaseException as failure:
        return b"", f"the exception object could not be pickled ({safe_text(failure)})"


def _is_copy(loaded: Any, exc: BaseException) -> bool:
    # A constructor that is called with ``args`` may well take them for something else.
    return type(loaded) is type(exc) and bool(loaded.args == exc.args)


def load(data: bytes) -> tuple[BaseException | None, str]:
    """The exception of ``dump``'s bytes, or None and a note that says why not."""
    try:
        value = serialization.loads(data)
        return (value if isinstance(value, BaseException) else _assemble(*value)), ""
    except BaseException as failure:  # unpickling runs foreign code: it may even call sys.exit
        return None, f"the exception object could not be rebuilt here ({safe_text(failure)})"


def safe_text(exc: BaseException) -> str:
    """``Class: message``, whatever the exception's ``__str__`` does."""
    try:
        text = f"{type(exc).__name__}: {exc}"
    except BaseException:
        text = type(exc).__name__
    return cut_text(text, MESSAGE_BYTES_MAX)


# ---- taking apart --------------------------------------------------------------------------


class _Dismantling:
    def __init__(self) -> None:
        self._room = _BYTES_MAX
        self._left_out: list[str] = []

    def dump(self, exc: BaseException) -> tuple[bytes, str]:
        arguments: list[bytes]
        members: list[tuple[bytes, str]] | None = None
        if isinstance(exc, BaseExceptionGroup):
            arguments = [self._piece(exc.message, "the message") or self._stand_in(exc.message)]
            members = []
            for member in exc.exceptions:
                data, note = dump(member)
                self._room -= len(data)
                if self._room < 0:
                    data, note = b"", "some members"
                if note:
                    self._left_out.append(f"{type(member).__name__} in the group ({note})")
                members.append((data, safe_text(member)))
        else:
            arguments = [
                self._piece(item, f"args[{index}]") or self._stand_in(item)
                for index, item in enumerate(exc.args)
            ]
        state = state_of(exc)
        pieces = [
            {
                name: piece
                for name, item in part.items()
                if (piece := self._piece(item, f"attribute {name!r}")) is not None
            }
            for part in state
        ]
        data, _ = pickling.encode((type(exc), arguments, members, *pieces))
        what = ", ".join(self._left_out)
        return data, f"left out of the exception object: {what}" if what else ""

    def _piece(self, value: Any, name: str) -> bytes | None:
        try:
            data, references = pickling.encode(value)
            if len(data) <= self._room:
                serialization.loads(data)
                self._room -= len(data)
                for object_id in references:
                    pickling.note_stray_reference(object_id)
                return data
        except BaseException:
            pass
        self._left_out.append(name)
        return None

    @staticmethod
    def _stand_in(value: Any) -> bytes:
        """Its repr in place of an argument: the others have to keep their positions."""
        try:
            text = repr(value)
        except BaseException:
            text = f"<{type(value).__name__}>"
        return serialization.dumps(cut_text(text, 200))[0]


def state_of(exc: BaseException) -> State:
    """All attributes of an exception that are not its args, its group's members or its chain."""
    native = {}
    for base in type(exc).__mro__:
        for name, descriptor in vars(base).items():
            if name.startswith("__") or name in ("args", "message", "exceptions"):
                continue
            if isinstance(descriptor, types.MemberDescriptorType | types.GetSetDescriptorType):
                try:
                    value = descriptor.__get__(exc, type(exc))
                except (AttributeError, TypeError):
                    continue  # not set
                if value is not None:
                    native[name] = value
    return State(native, dict(vars(exc)))


# ---- rebuilding ----------------------------------------------------------------------------


def _assemble(
    kind: type[BaseException],
    arguments: list[bytes],
    members: list[tuple[bytes, str]] | None,
    native: dict[str, bytes],
    attributes: dict[str, bytes],
) -> BaseException:
    args = [serialization.loads(item) for item in arguments]
    if members is not None:
        args.append([load(data)[0] or TaskError(text) for data, text in members])
    exc = allocate(kind, tuple(args))
    restore(exc, State(_loads_each(native), _loads_each(attributes)))
    return exc


def _loads_each(pieces: dict[str, bytes]) -> dict[str, Any]:
    values = {}
    for name, data in pieces.items():
        try:
            values[name] = serialization.loads(data)
        except Exception:
            continue  # needs what is not here; the exception is worth more than this attribute
    return values


def arguments_of(exc: BaseException) -> tuple[Any, ...]:
    """What ``allocate`` needs to make an exception like ``exc``."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.message, exc.exceptions
    return exc.args


def allocate(kind: type[_E], args: tuple[Any, ...]) -> _E:
    """An instance with these ``args``, made without calling Python code of its class."""
    builtin = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    exc: _E = builtin.__new__(kind, *args)
    object.__setattr__(exc, "args", args)  # the class may refuse: a frozen dataclass
    return exc


def restore(exc: BaseException, state: State) -> None:
    """Give an allocated exception its attributes, without calling Python code of its class."""
    for name, value in state.native.items():
        try:
            object.__setattr__(exc, name, value)
        except (AttributeError, TypeError):
            continue  # read-only, or set by the allocation
    vars(exc).update(state.attributes)
