"""Serializers of one's own for a class, as ``ray.util`` has them."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def register_serializer(
    cls: type[T], *, serializer: Callable[[T], Any], deserializer: Callable[[Any], T]
) -> None:
    """Pickle instances of a class, in this process, by what ``serializer`` makes of them.

    Args:
        cls: instances of this very class, not of its subclasses.
        serializer: makes something that can be pickled.
        deserializer: makes the instance again, wherever it arrives; it goes along.
    """

    def reduce(value: T) -> tuple[Any, ...]:
        return _restore, (deserializer, serializer(value))

    copyreg.pickle(cls, reduce)


def deregister_serializer(cls: type) -> None:
    """Pickle instances of the class as before; does nothing where none was registered."""
    copyreg.dispatch_table.pop(cls, None)


def _restore(deserializer: Callable[[Any], T], made: Any) -> T:
    return deserializer(made)
