"""What a task or a call returned, as the values of its ``num_returns`` references."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from zray.ids import item_id
from zray.runtime import serialization
from zray.runtime.buffers import Parts
from zray.runtime.generators import DynamicObjectRefGenerator
from zray.runtime.references import ObjectRef


def several(value: Any, count: int, name: str) -> list[Any]:
    """The values of a call or task with ``num_returns`` above 1.

    Raises:
        ValueError: it returned another number of them.
    """
    try:
        values = list(value)
    except TypeError:
        values = [value]
    if len(values) != count:
        found = "a value" if len(values) == 1 else f"{len(values)} values"
        raise ValueError(f"{name} was declared with num_returns={count} but returned {found}")
    return values


def only(values: Iterator[Any], name: str) -> Any:
    """The first of the values of a generator whose task or call has one reference, as in Ray.

    Raises:
        ValueError: there is none.
    """
    for value in values:
        return value
    raise ValueError(f"{name} was declared with num_returns=1 but has yielded nothing")


class Putter(Protocol):
    """What keeps values."""

    def put(self, value: Any, oid: bytes = b"") -> ObjectRef[Any]:
        """As ``SharedValues.put``."""

    def put_error(self, data: bytes) -> ObjectRef[Any]:
        """As ``SharedValues.put_error``."""


def collected(
    values: Any,
    name: str,
    process: Putter,
    record: Callable[[Exception], bytes | None],
    task_id: bytes = b"",
) -> DynamicObjectRefGenerator:
    """The value of a call or task with ``num_returns="dynamic"``: each that it yields is ``put``.

    What it raises is the last one, as its ``record``, or raised where there is no such.
    ``task_id``: of a task, which may run again for those of its items that get lost.

    Raises:
        TypeError: it has returned something else than a generator.
    """
    refs: list[ObjectRef[Any]] = []
    try:
        for value in generated(values, name):
            refs.append(process.put(value, item_id(task_id, len(refs) + 1) if task_id else b""))
    except Exception as error:
        data = record(error)
        if data is None:
            raise
        refs.append(process.put_error(data))
    return DynamicObjectRefGenerator(refs)


def generated(values: Any, name: str) -> Any:
    """``values``, which a function has returned that was to yield.

    Raises:
        TypeError: it is no generator.
    """
    if not isinstance(values, Iterator | AsyncIterator):
        raise TypeError(f"{name} was to yield, but returned {type(values).__name__}")
    return values


def encoded(value: Any, name: str, *, portable: bool) -> Parts:
    """A result, serialized; ``portable``: for callers in any language.

    Raises:
        SerializationError: it cannot be sent like that; the message names ``name``.
    """
    if portable:
        return Parts([serialization.dumps_portable(value, name)], [])
    return serialization.dumps_parts(value, name)
