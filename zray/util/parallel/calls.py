"""What runs in the workers: one call, or a chunk of calls; and errors as the caller's own.

Owns how a function goes along with many chunks: pickled once.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from zray.api.definitions import name_of
from zray.errors import TaskError
from zray.runtime import serialization, task_errors

BLOCK_MAX = 256  # items between two looks at the clock,
QUICK_S = 0.001  # and one at a time where a look finds so much gone
FUNCTIONS_MAX = 64  # that a worker keeps unpickled


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


def original(error: BaseException) -> BaseException:
    """What the user's function raised, its cause being the traceback there; else the error."""
    if isinstance(error, TaskError) and error.cause is not None:
        cause = error.cause
        cause.__cause__ = RemoteTraceback(error.traceback_text)
        return cause
    return error


def is_plain(function: Any) -> bool:
    """Whether it is a function that no call can change: it has no closure."""
    return isinstance(function, types.FunctionType) and function.__closure__ is None


class PickledFunction(NamedTuple):
    """A function, pickled once for many calls; ``kept``: a worker may keep it for the next one."""

    data: bytes
    kept: bool
    name: str

    def load(self) -> Callable[..., Any]:
        """The function."""
        return _kept(self.data) if self.kept else _load(self.data)


def pickled(function: Callable[..., Any]) -> Any:
    """The function as it goes along with many calls, for ``loaded``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    name = name_of(function)
    data, references = serialization.dumps(function, name)
    if references:
        return function  # each call must hold what it refers to
    return PickledFunction(data, is_plain(function), name)


def shown_name(function: Any) -> str:
    """What its tasks are called in lists and errors."""
    name = function.name if type(function) is PickledFunction else name_of(function)
    return name if name.isprintable() else "call"


def loaded(function: Any) -> Callable[..., Any]:
    """The function that ``pickled`` was given."""
    found: Callable[..., Any] = function
    if type(function) is PickledFunction:
        found = function.load()
    if _assigned:
        _own_globals(found).update(_assigned.get(_own(found).__module__, {}))
    return found


# What an initializer has assigned to global variables of its module, where that is the program
# itself: functions of it come by value, each with global variables of its own.
_assigned: dict[str, dict[str, Any]] = {}


def initialize(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Call it; functions that come later see the global variables that it has set."""
    variables = _own_globals(initializer)
    before = {**variables}
    initializer(*initargs)
    missing = object()
    changed = {
        name: value
        for name, value in variables.items()
        if before.get(name, missing) is not value and name != "__builtins__"
    }
    if changed:
        _assigned.setdefault(_own(initializer).__module__, {}).update(changed)


def _own(function: Any) -> Any:
    """The Python function behind a partial or a method, if there is one."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _own_globals(function: Any) -> dict[str, Any]:
    """Its global variables, if they are not those of a module that is here."""
    variables = getattr(_own(function), "__globals__", None)
    if variables is None:
        return {}
    module = sys.modules.get(_own(function).__module__)
    return {} if module is not None and vars(module) is variables else variables


def _load(data: bytes) -> Callable[..., Any]:
    function: Callable[..., Any] = serialization.loads(data)
    return function


_kept = functools.lru_cache(maxsize=FUNCTIONS_MAX)(_load)


def call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """One call."""
    value = loaded(function)(*args, **kwargs)
    if isinstance(value, types.GeneratorType):
        raise TypeError("cannot pickle 'generator' object: return a list, or use a zray.task")
    return value


class Called:
    """A function as a task of its own, of which only what it returns is a result."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def __name__(self) -> str:
        return self._function.__name__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return call(self._function, *args, **kwargs)


class Ran(NamedTuple):
    """What has become of a chunk: the values of its first items, and what the next one raised."""

    values: list[Any]
    seconds: float
    error: bytes = b""  # a record of ``task_errors``; empty: nothing was raised


def run_chunk(function: Any, items: Sequence[Any], star: bool, stop_s: float | None) -> Ran:
    """Call the function with each item, or with its elements if ``star``, until one raises or
    ``stop_s`` seconds are over."""
    one = loaded(function)
    if star:
        one = functools.partial(_starred, one)
    values: list[Any] = []
    began = perf_counter()
    try:
        if stop_s is None:
            for item in items:
                values.append(one(item))
        else:
            _run_until(one, items, values, began + stop_s)
    except Exception as error:
        seconds = perf_counter() - began
        record = task_errors.dump_exception(error, shown_name(function), "", os.getpid())
        return Ran(values, seconds, record)
    return Ran(values, perf_counter() - began)


def _run_until(
    one: Callable[[Any], Any], items: Sequence[Any], values: list[Any], end: float
) -> None:
    begin, block = 0, 1
    last = perf_counter()
    while begin < len(items):
        for item in items[begin : begin + block]:
            values.append(one(item))
        begin += block
        now = perf_counter()
        if now >= end:
            return
        block = min(2 * block, BLOCK_MAX) if now - last < QUICK_S else 1
        last = now


def _starred(function: Callable[..., Any], item: Any) -> Any:
    return function(*item)
