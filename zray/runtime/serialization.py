"""Python values to bytes and back, and the references restored inside them.

Owns the formats of values, arguments and functions; zray.runtime.pickling makes the pickles. Only
drivers and workers may import it: the head and the raylet never unpickle. Must import neither zmq
nor numpy (workers are forked from a process that has one thread), and cloudpickle only when a value
needs it (start-up time).

The first byte of a value names its format:

* 0x80, with which every pickle begins: a pickle of protocol 5, its buffers in the pickle;
* ``B``: a pickle with its buffers beside it, as zray.runtime.buffers lays them out; what is loaded
  shares the memory of the data, and cannot be written to;
* ``M``: the rest is a portable value of zray.protocol.values, for peers in every language.

Arguments are a value ``(args, kwargs)``, or ``(args, kwargs, places)`` where places is a list of
``(position or name, index)``: the dependency with that index replaces the None at that place.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from zray import limits
from zray.errors import MessageTooLargeError, SerializationError
from zray.runtime.buffers import BUFFERS_TAG, Parts, aligned, split
from zray.runtime.interrupts import raised_by_handler
from zray.runtime.pickling import (
    PAYLOAD_BYTES,
    PROTOCOL,
    buffers_out_of_band,
    check_count,
    collected,
    encode,
    out_of_band,
)

PICKLE_TAG = 0x80
PORTABLE_TAG = 0x4D
FUNCTION_ID_BYTES = 16

# Types whose values hold no reference and nothing of the user's script: pickled with no more ado.
_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray))
_LONG_ATOMS = frozenset((str, bytes, bytearray))
_NO_ARGUMENTS = pickle.dumps(((), {}), PROTOCOL)

_AS_THEY_ARE = (MemoryError, MessageTooLargeError)  # these say themselves what is wrong
_dumps = pickle.dumps
_loads = pickle.loads


class Arguments(NamedTuple):
    """Serialized arguments of a task.

    Attributes:
        data: for loads_arguments.
        dependencies: ids of the references that are arguments themselves, unique, in order; the
            worker passes their values.
        nested: ids of the references inside other arguments, unique; they stay references.
        parts: instead of data where arguments have large buffers, which were not copied.
    """

    data: bytes
    dependencies: list[bytes]
    nested: list[bytes]
    parts: Parts | None = None

    def is_small(self) -> bool:
        """Whether they go along with the task whatever they are."""
        return self.parts is None and len(self.data) <= limits.ARGUMENT_BYTES_MAX

    def whole(self) -> bytes:
        """For loads_arguments, wherever they are."""
        return self.data if self.parts is None else self.parts.to_bytes()


_NO_REFERENCES: list[bytes] = []  # nobody adds to it
_NOTHING = Arguments(_NO_ARGUMENTS, _NO_REFERENCES, _NO_REFERENCES)


class FunctionBlob(NamedTuple):
    """A serialized function; ``contained`` are the ids of the references in its closure."""

    function_id: bytes
    blob: bytes
    contained: list[bytes]


# ---- references that are restored ----------------------------------------------------------

_reference_factory: Callable[[bytes], Any] | None = None


def set_reference_factory(factory: Callable[[bytes], Any] | None) -> None:
    """``factory(object_id)`` makes this process's reference; None where there is no cluster."""
    global _reference_factory
    _reference_factory = factory


def restore_reference(object_id: bytes) -> Any:
    """The reference to ``object_id``; what a pickled reference calls.

    Raises:
        SerializationError: this process is not connected to a cluster.
    """
    if _reference_factory is None:
        raise SerializationError(
            f"the value contains a reference to object {object_id.hex()}, which means nothing in "
            "a process without a cluster; call zray.init() before unpickling it"
        )
    return _reference_factory(object_id)


# ---- values --------------------------------------------------------------------------------


def dumps(value: Any, name: str = "the value") -> tuple[bytes, list[bytes]]:
    """Serialize a value; also the ids of the references inside it, unique and in order.

    Raises:
        SerializationError: it cannot be pickled; the message names the part of ``name`` at fault.
    """
    if type(value) in _ATOMS:
        return _dumps(value, PROTOCOL), []
    try:
        return encode(value)
    except _AS_THEY_ARE:
        raise
    except Exception as error:
        raise _unpicklable([(value, name)], name, error) from error


def dumps_atom(value: Any, most: int) -> bytes | None:
    """The same for a value of one of the plain types; None: of another, or of over ``most`` bytes.

    It refers to nothing.
    """
    kind = type(value)
    if kind not in _ATOMS or (kind in _LONG_ATOMS and len(value) > most):
        return None
    data = _dumps(value, PROTOCOL)
    return data if len(data) <= most else None


def dumps_parts(value: Any, name: str = "the value") -> Parts:
    """Serialize a value without copying its large buffers: arrays, and whatever offers them.

    Large bytes, bytearrays and strings are not copied either, wherever they are in the value.

    Raises:
        SerializationError: it cannot be pickled; the message names the part of ``name`` at fault.
    """
    kind = type(value)
    if kind in _ATOMS and (kind not in _LONG_ATOMS or len(value) < PAYLOAD_BYTES):
        return Parts([_dumps(value, PROTOCOL)], [])
    try:
        return Parts(*collected(out_of_band, value, False))
    except _AS_THEY_ARE:
        raise
    except Exception as error:
        raise _unpicklable([(value, name)], name, error) from error


def loads(data: bytes | memoryview) -> Any:
    """The value of ``data``, in whichever format it is.

    Where buffers stand beside the pickle, the value's arrays are read-only, and aligned to 64
    bytes where ``data`` is: they share its memory, which must not change any more. From ``bytes``,
    which come inside messages, they are copied to where they are; but for very large ones.

    Raises:
        SerializationError: it is damaged, or needs a module that is not here.
    """
    try:
        tag = data[0]
        if tag == PICKLE_TAG:
            return _loads(data)
        if tag == BUFFERS_TAG:
            pickled, buffers = split(memoryview(data).toreadonly())
            if type(data) is bytes and len(data) <= limits.ALIGNED_BYTES_MAX:
                buffers = aligned(buffers)
            return _loads(pickled, buffers=buffers)
        if tag == PORTABLE_TAG:
            from zray.protocol import values

            return values.unpack(memoryview(data)[1:])
    except SerializationError:
        raise
    except Exception as error:
        raise _unreadable("a value", data, error) from error
    raise SerializationError(
        f"a value of {len(data)} bytes has the unknown format 0x{tag:02x}, so it cannot be read; "
        "a newer zray made it, or it is not a value"
    )


def dumps_portable(value: Any, name: str = "the value") -> bytes:
    """Serialize a value for peers in any language.

    Raises:
        SerializationError: it is not made of the portable types alone; the message names ``name``.
    """
    from zray.protocol import values

    try:
        body = values.pack(value)
    except Exception as error:
        raise SerializationError(
            f"{name} is not portable ({type(error).__name__}: {error}), so it was not sent; "
            "use None, bool, int of 64 bits, float, str, bytes, list, and dict with str keys only"
        ) from error
    return bytes((PORTABLE_TAG,)) + body


# ---- arguments -----------------------------------------------------------------------------


def dumps_arguments(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_reference: type,
    function_name: str = "the task",
) -> Arguments:
    """Serialize a call's arguments. References are instances of ``is_reference``, ids in ``.id``.

    Raises:
        SerializationError: one cannot be pickled; the message names it and the part at fault.
    """
    if not args and not kwargs:
        return _NOTHING
    value: tuple[Any, ...] = (args, kwargs)
    dependencies = _NO_REFERENCES
    atoms = True
    for argument in (*args, *kwargs.values()) if kwargs else args:
        if type(argument) not in _ATOMS:
            atoms = False
            if isinstance(argument, is_reference):
                value, dependencies = _take_references(args, kwargs, is_reference)
                check_count(len(dependencies), function_name)
                break
    if atoms:
        return Arguments(_dumps(value, PROTOCOL), dependencies, _NO_REFERENCES)
    try:
        pieces, nested = collected(buffers_out_of_band, value, False)
    except _AS_THEY_ARE:
        raise
    except Exception as error:
        subjects = [(item, f"argument {i} of {function_name}") for i, item in enumerate(value[0])]
        subjects += [(item, f"argument {k!r} of {function_name}") for k, item in value[1].items()]
        raise _unpicklable(subjects, f"the arguments of {function_name}", error) from error
    if len(pieces) == 1:
        return Arguments(bytes(pieces[0]), dependencies, nested)
    parts = Parts(pieces, nested)
    if parts.size < PAYLOAD_BYTES:
        return Arguments(parts.to_bytes(), dependencies, nested)
    return Arguments(b"", dependencies, nested, parts)


def dumps_portable_arguments(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_reference: type,
    function_name: str = "the task",
) -> Arguments:
    """As ``dumps_arguments``, for code in any language. References only as whole arguments.

    Raises:
        SerializationError: an argument is not portable; the message names the function.
    """
    dependencies: list[bytes] = []
    parts: list[Any] = [list(args), kwargs]
    if any(isinstance(argument, is_reference) for argument in (*args, *kwargs.values())):
        (plain, named, places), dependencies = _take_references(args, kwargs, is_reference)
        check_count(len(dependencies), function_name)
        parts = [list(plain), named, [list(place) for place in places]]
    data = dumps_portable(parts, f"an argument of {function_name}")
    return Arguments(data, dependencies, [])


def _take_references(
    args: tuple[Any, ...], kwargs: dict[str, Any], is_reference: type
) -> tuple[tuple[Any, ...], list[bytes]]:
    indexes: dict[bytes, int] = {}
    places: list[tuple[int | str, int]] = []
    plain_args = list(args)
    plain_kwargs = dict(kwargs)
    for position, argument in enumerate(args):
        if isinstance(argument, is_reference):
            places.append((position, indexes.setdefault(argument.id, len(indexes))))  # type: ignore[attr-defined]
            plain_args[position] = None
    for key, argument in kwargs.items():
        if isinstance(argument, is_reference):
            places.append((key, indexes.setdefault(argument.id, len(indexes))))  # type: ignore[attr-defined]
            plain_kwargs[key] = None
    return (tuple(plain_args), plain_kwargs, places), list(indexes)


def loads_arguments(
    data: bytes | memoryview, values: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments; ``values`` are those of the dependencies, in their order.

    Raises:
        SerializationError: they are damaged, or need a module that is not here.
    """
    if data == _NO_ARGUMENTS:
        return (), {}
    parts = loads(data)
    try:
        if len(parts) == 2:
            args, kwargs = parts
            return tuple(args), dict(kwargs)
        args, kwargs, places = parts
        filled = list(args)
        for place, index in places:
            if type(place) is str:
                kwargs[place] = values[index]
            else:
                filled[place] = values[index]
        return tuple(filled), dict(kwargs)
    except (TypeError, ValueError, IndexError) as error:
        raise SerializationError(
            f"the task's arguments do not have the form (args, kwargs, places) ({error}), so the "
            "task cannot run; see the format of arguments in the protocol"
        ) from error


# ---- functions -----------------------------------------------------------------------------

_prelude: tuple[Any, ...] = ()  # what is loaded before each function


def set_prelude(value: Any) -> None:
    """Let every function's pickle begin with ``value``.

    It must load as None; what its ``__reduce__`` calls prepares the process for the function.
    """
    global _prelude
    _prelude = (value,)


def dumps_function(function: Callable[..., Any], retry_exceptions: Any) -> FunctionBlob:
    """Serialize a task's function and the exceptions for which it is retried.

    Functions of modules travel by name and are imported by the workers; those of the user's
    script, lambdas and closures travel by value, with the variables they use as these are now.

    Raises:
        SerializationError: it cannot be pickled; the message names the captured variable.
        ValueError: it is larger than limits.FUNCTION_BYTES_MAX.
    """
    name = getattr(function, "__name__", None) or type(function).__name__
    try:
        blob, contained = encode((*_prelude, function, retry_exceptions), by_value=True)
    except _AS_THEY_ARE:
        raise
    except Exception as error:
        subjects = [(function, name), (retry_exceptions, f"retry_exceptions of {name}")]
        raise _unpicklable(subjects, name, error) from error
    if len(blob) > limits.FUNCTION_BYTES_WARN:
        _complain_of_size(name, len(blob))
    digest = hashlib.blake2b(blob, digest_size=FUNCTION_ID_BYTES).digest()
    return FunctionBlob(digest, blob, contained)


def _complain_of_size(name: str, size: int) -> None:
    advice = (
        "It captures large objects in its closure or in the globals it uses; store these with "
        "zray.put() and pass the references as arguments"
    )
    if size >= limits.FUNCTION_BYTES_MAX:
        raise ValueError(
            f"The remote function {name} is too large ({size >> 20} MiB; less than "
            f"{limits.FUNCTION_BYTES_MAX >> 20} MiB may be), so it was not sent. {advice}."
        )
    # The user's line: above export_of and the decorator's remote().
    warnings.warn(
        f"The remote function {name} is very large ({size >> 20} MiB), so every worker that runs "
        f"it loads as much. {advice}.",
        UserWarning,
        stacklevel=4,
    )


def loads_function(blob: bytes | memoryview) -> tuple[Callable[..., Any], Any]:
    """The function of a blob and its ``retry_exceptions``.

    Raises:
        SerializationError: it is damaged, or needs a module or name that is not here.
    """
    try:
        *prepared, function, retry_exceptions = _loads(blob)
        if prepared not in ([], [None]):
            raise ValueError("it is no function's")
    except SerializationError:
        raise
    except Exception as error:
        raise _unreadable("the task's function", blob, error) from error
    return function, retry_exceptions


def explain(value: Any, name: str) -> str | None:
    """What keeps ``value`` from being pickled, as a clause about ``name``; None if nothing does."""
    from zray.runtime import inspection

    return inspection.explain(value, name, encode)


def steps_to_failure(value: Any, name: str) -> list[tuple[str, Any]] | None:
    """Names and parts on the way to what keeps ``value`` from being pickled; None: nothing does."""
    from zray.runtime import inspection

    return inspection.steps_to_failure(value, name, encode)


# ---- errors --------------------------------------------------------------------------------


def _unpicklable(
    subjects: list[tuple[Any, str]], name: str, error: Exception
) -> SerializationError:
    """The error for ``name``, found to be at fault in one of its (value, name) parts.

    Raises:
        What a signal handler raised meanwhile: that is not its fault.
    """
    if raised_by_handler(error):
        raise error
    if isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError):
        limit = sys.getrecursionlimit()
        return SerializationError(
            f"{name} is nested too deeply to be pickled (Python's recursion limit is {limit}), so "
            "it was not sent; pass a flatter structure, such as a list of nodes"
        )
    for value, part in subjects:
        reason = explain(value, part)
        if reason is not None:
            break
    else:
        reason = f"{name} cannot be pickled ({type(error).__name__}: {error})"
    return SerializationError(
        f"{reason}, so it was not sent. Create it inside the task, or leave it out of the value"
    )


def _unreadable(what: str, data: bytes | memoryview, error: Exception) -> SerializationError:
    """The error for data that does not unpickle here.

    Raises:
        What a signal handler raised meanwhile: that is not its fault.
    """
    if raised_by_handler(error):
        raise error
    node = os.uname().nodename
    if isinstance(error, ModuleNotFoundError) and error.name:
        return SerializationError(
            f"{what} needs the module {error.name!r}, which cannot be imported on node {node} by "
            f"{sys.executable}, so it cannot be loaded there. Install the module on that node, "
            "define the code in the script itself, or send the module by value with "
            "cloudpickle.register_pickle_by_value(module)"
        )
    if isinstance(error, AttributeError | ImportError):
        return SerializationError(
            f"{what} needs a name that is not on node {node} ({error}), so it cannot be loaded "
            "there. The module there is probably of another version; install the same one"
        )
    return SerializationError(
        f"{what} of {len(data)} bytes cannot be unpickled on node {node} "
        f"({type(error).__name__}: {error})"
    )
