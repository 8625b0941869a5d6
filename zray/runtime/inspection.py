"""Finds which part of a value cannot be pickled, and words it for the user.

Owns the search only: the caller says how to try a part, and nothing is pickled, sent, changed or
kept here. Its cost is bounded, and it runs only after pickling has failed.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

DEPTH_MAX = 12  # steps from the value to the part named
ATTEMPTS_MAX = 400  # parts that are pickled to see whether they fail
CHILDREN_MAX = 10_000  # items of one container that are looked at
_TEXT_MAX = 200


class _Part(NamedTuple):
    """A piece of a value: how people call it, its suffix to the value's path, and itself."""

    words: str
    path: str
    value: Any


def explain(value: Any, name: str, attempt: Callable[[Any], object]) -> str | None:
    """What keeps ``value`` from being pickled, as a clause that starts with ``name``.

    Follows captured variables, globals in use, defaults, attributes and items to the smallest
    part that fails. None if the value can be pickled. Never raises for what the value does.

    Args:
        value: what was to be pickled.
        name: what users call it.
        attempt: pickles its argument, or raises.
    """
    found = _follow(value, attempt)
    if found is None:
        return None
    steps, error = found
    offender = steps[-1].value
    where = ", ".join(step.words for step in steps[1:])
    path = name + "".join(step.path for step in steps[1:])
    subject = f"{name}: {where}" if where else name
    kind = _kind(offender)
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    reason = f"{type(error).__name__}: {_short(error)}"
    hint = f", at {path}" if where else ""
    return f"{subject} is {article} {kind}, which cannot be pickled ({reason}{hint})"


def steps_to_failure(
    value: Any, name: str, attempt: Callable[[Any], object]
) -> list[tuple[str, Any]] | None:
    """The way to what keeps ``value`` from being pickled: names and parts, from ``value`` on.

    None if it can be pickled. Arguments as of ``explain``.
    """
    found = _follow(value, attempt)
    if found is None:
        return None
    return [(step.path.rpartition(".")[2] or name, step.value) for step in found[0]]


def _follow(value: Any, attempt: Callable[[Any], object]) -> tuple[list[_Part], Exception] | None:
    search = _Search(attempt)
    error = search.failure(value)
    if error is None:
        return None
    steps = [_Part("", "", value)]
    seen = {id(value)}
    while len(steps) <= DEPTH_MAX:
        found = search.first_failing(_parts(steps[-1].value), seen)
        if found is None:
            break
        part, error = found
        seen.add(id(part.value))
        steps.append(part)
    return steps, error


class _Search:
    def __init__(self, attempt: Callable[[Any], object]) -> None:
        self._attempt = attempt
        self._attempts = 0

    def failure(self, value: Any) -> Exception | None:
        """The error of pickling ``value``, or None; None too where the attempts are used up."""
        if self._attempts >= ATTEMPTS_MAX:
            return None
        self._attempts += 1
        try:
            self._attempt(value)
        except Exception as error:
            return error
        return None

    def first_failing(
        self, parts: Sequence[_Part], seen: set[int]
    ) -> tuple[_Part, Exception] | None:
        """The first part that fails by itself, found by halving: a list may be long."""
        parts = [part for part in parts if id(part.value) not in seen]
        if not parts:
            return None
        if self.failure([part.value for part in parts]) is None:
            return None
        while len(parts) > 1:
            half = len(parts) // 2
            failed = self.failure([part.value for part in parts[:half]]) is not None
            parts = parts[:half] if failed else parts[half:]
        error = self.failure(parts[0].value)
        return None if error is None else (parts[0], error)


# ---- the parts of a value ------------------------------------------------------------------


_NOT_CARRIED = ("__dict__", "__weakref__", "_abc_impl")  # of a class: each process makes its own


def _parts(value: Any) -> list[_Part]:
    try:
        return list(islice(_iterate_parts(value), CHILDREN_MAX))
    except Exception:
        return []  # the value's own code failed: it is the smallest part that can be named


def _iterate_parts(value: Any) -> Iterator[_Part]:
    match value:
        case types.FunctionType():
            yield from _function_parts(value)
        case types.MethodType():
            yield _Part("the object it is bound to", ".__self__", value.__self__)
            yield _Part("its function", ".__func__", value.__func__)
        case functools.partial():
            yield _Part("the function of a partial", ".func", value.func)
            for index, item in enumerate(value.args):
                yield _Part(f"argument {index} of a partial", f".args[{index}]", item)
            for key, item in value.keywords.items():
                yield _Part(f"argument {key!r} of a partial", f".keywords[{key!r}]", item)
        case type():
            for key, item in vars(value).items():
                if key not in _NOT_CARRIED:
                    yield _Part(f"class attribute {key!r}", f".{key}", item)
        case staticmethod() | classmethod():
            yield _Part("its function", ".__func__", value.__func__)
        case property():
            for key in ("fget", "fset", "fdel"):
                yield _Part(f"its {key}", f".{key}", getattr(value, key))
        case list() | tuple() | set() | frozenset() | dict() if type(value).__module__ == (
            "builtins"
        ):
            yield from _container_parts(value)
        case _:
            yield from _object_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[_Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            content = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
        yield _Part(f"captured variable {name!r} (closure)", f".<closure>.{name}", content)
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            content = function.__globals__[name]
            yield _Part(f"global variable {name!r}", f".<globals>.{name}", content)
    for index, item in enumerate(function.__defaults__ or ()):
        yield _Part(f"default value {index}", f".__defaults__[{index}]", item)
    for key, item in (function.__kwdefaults__ or {}).items():
        yield _Part(f"default of {key!r}", f".__kwdefaults__[{key!r}]", item)
    for key, item in function.__annotations__.items():
        yield _Part(f"annotation of {key!r}", f".__annotations__[{key!r}]", item)
    for key, item in vars(function).items():
        yield _Part(f"attribute {key!r}", f".{key}", item)


def _global_names(code: types.CodeType) -> set[str]:
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _container_parts(value: Any) -> Iterator[_Part]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield _Part(f"the key {_short(key)}", f"[{_short(key)}]", key)
            yield _Part(f"the value at {_short(key)}", f"[{_short(key)}]", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield _Part(f"item {index}", f"[{index}]", item)
    else:
        for item in value:
            yield _Part(f"the member {_short(item)}", f"{{{_short(item)}}}", item)


def _object_parts(value: Any) -> Iterator[_Part]:
    """What pickle would take of an object: the state it gives out, not all that it has."""
    reduced = value.__reduce_ex__(5)
    if isinstance(reduced, str):
        return
    function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    yield _Part(f"its class {_kind(value)}", ".__class__", type(value))
    yield _Part("the function that rebuilds it", ".__reduce__[0]", function)
    for index, item in enumerate(arguments):
        if item is not type(value):
            yield _Part(f"part {index} of __reduce__", f".__reduce__[1][{index}]", item)
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        if isinstance(part, dict):
            for key, item in part.items():
                yield _Part(f"attribute {key!r}", f".{key}", item)
        else:
            yield _Part("its state", ".__getstate__()", part)
    for index, item in enumerate(items or ()):
        yield _Part(f"item {index}", f"[{index}]", item)
    for key, item in pairs or ():
        yield _Part(f"the value at {_short(key)}", f"[{_short(key)}]", item)


# ---- words ---------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    kind = type(value)
    name = getattr(kind, "__qualname__", "object")
    module = getattr(kind, "__module__", "builtins")
    return str(name) if module == "builtins" else f"{module}.{name}"


def _short(value: Any) -> str:
    """A text of at most _TEXT_MAX characters, whatever the value's own code does."""
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    except Exception:
        return f"<{_kind(value)}>"
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."
