"""What a task or a call returned, as the values of its ``num_returns`` references."""

from __future__ import annotations

from typing import Any

from zray.runtime import serialization
from zray.runtime.buffers import Parts


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


def encoded(value: Any, name: str, *, portable: bool) -> Parts:
    """A result, serialized; ``portable``: for callers in any language.

    Raises:
        SerializationError: it cannot be sent like that; the message names ``name``.
    """
    if portable:
        return Parts([serialization.dumps_portable(value, name)], [])
    return serialization.dumps_parts(value, name)
