"""Generators each of whose yields has several items for the caller, always as many.

As Ray's ``_num_objects_per_yield``: whoever produces batches of columns hands them on one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any


class GroupedItems:
    """A function that yields ``size`` items at once, as one that yields each."""

    def __init__(self, function: Callable[..., Any], size: int) -> None:
        self._function = function
        self._size = size
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return each(self._function(*args, **kwargs), self._size)

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupedItems, (self._function, self._size)


def each(groups: Any, size: int) -> Any:
    """The items of the groups that a generator yields, or ``groups`` as it is where it is none.

    What it returns raises a ValueError at the first group that is no tuple or list of ``size``.
    """
    if size == 1:
        return groups
    if isinstance(groups, AsyncIterator):
        return _each_in_loop(groups, size)
    return _each(groups, size) if isinstance(groups, Iterator) else groups


def _each(groups: Iterator[Any], size: int) -> Iterator[Any]:
    for group in groups:
        yield from _checked(group, size)


async def _each_in_loop(groups: AsyncIterator[Any], size: int) -> AsyncIterator[Any]:
    async for group in groups:
        for item in _checked(group, size):
            yield item


def _checked(group: Any, size: int) -> tuple[Any, ...] | list[Any]:
    if not isinstance(group, tuple | list):
        raise ValueError(
            f"Streaming generator tasks with _num_objects_per_yield={size} must yield a tuple or "
            f"list of length {size}. This one has yielded a {type(group).__name__}"
        )
    if len(group) != size:
        raise ValueError(
            f"Streaming generator task yielded {len(group)} objects, but "
            f"_num_objects_per_yield={size}. Yield as many at once, always"
        )
    return group
