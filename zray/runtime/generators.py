"""What a task that yields gives to its caller: references, as the values come, or all at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from zray.ids import task_of
from zray.runtime.references import ObjectRef, Reader

T_co = TypeVar("T_co", covariant=True)


class ObjectRefGenerator(Generic[T_co]):
    """The items of a task or call that yields, one reference for each, as they are yielded.

    An iterator and an asynchronous iterator; usable in ``wait``, which takes it as ready when the
    next reference is there, and in ``cancel``. What the task raises is the last item: its reference
    is there, and ``get`` of that raises. A generator that is collected lets go of the items that
    were not read. Made by ``remote`` only; not for several threads, and not to be pickled. As
    ``ray.ObjectRefGenerator``.
    """

    __slots__ = ("__weakref__", "_end", "_participant", "_reader", "_task_id")

    def __init__(self, end: ObjectRef[Any], participant: Any) -> None:
        """``end``: what the task itself returns. ``participant``: which has submitted it."""
        self._end = end
        self._task_id = task_of(end.id)
        self._participant = participant
        self._reader = Reader(self._task_id)

    def __iter__(self) -> ObjectRefGenerator[T_co]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        """Waits for the next item.

        Raises:
            StopIteration: there are no more.
        """
        ref: ObjectRef[T_co] | None = self._participant.next_item(self._task_id)
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator[T_co]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        """The same in an event loop.

        Raises:
            StopAsyncIteration: there are no more.
        """
        ref: ObjectRef[T_co] | None = await self._participant.next_item_in_loop(self._task_id)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def completed(self) -> ObjectRef[Any]:
        """A reference that is ready when the task has ended; its value is an error if it failed."""
        return self._end

    def next_ready(self) -> bool:
        """Whether the next item is there."""
        return bool(self._participant.has_next_item(self._task_id))

    def is_finished(self) -> bool:
        """Whether the task has ended and all of its items were read."""
        return bool(self._participant.items_are_over(self._task_id))

    def _next_id(self) -> bytes:
        return bytes(self._participant.next_item_id(self._task_id))

    def send(self, value: Any) -> NoReturn:
        """Raises NotImplementedError: nothing can be sent into a task."""
        raise NotImplementedError("`gen.send` is not supported.")

    def throw(self, value: Any) -> NoReturn:
        """Raises NotImplementedError, as ``send``."""
        raise NotImplementedError("`gen.throw` is not supported.")

    def close(self) -> NoReturn:
        """Raises NotImplementedError: ``zray.cancel`` ends the task."""
        raise NotImplementedError("`gen.close` is not supported.")

    async def asend(self, value: Any) -> NoReturn:
        """Raises NotImplementedError, as ``send``."""
        raise NotImplementedError("`gen.asend` is not supported.")

    async def athrow(self, value: Any) -> NoReturn:
        """Raises NotImplementedError, as ``send``."""
        raise NotImplementedError("`gen.athrow` is not supported.")

    async def aclose(self) -> NoReturn:
        """Raises NotImplementedError, as ``close``."""
        raise NotImplementedError("`gen.aclose` is not supported.")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "You cannot return or pass a generator to other task. "
            "Serializing a ObjectRefGenerator is not allowed."
        )


class DynamicObjectRefGenerator:
    """References to all that a task with ``num_returns="dynamic"`` has yielded: its value.

    Iterating takes them out. As ``ray.DynamicObjectRefGenerator``.
    """

    def __init__(self, refs: Iterable[ObjectRef[Any]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)
