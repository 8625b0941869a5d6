"""ObjectRef: a light handle on a value that exists, or will, somewhere in the cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zray.ids import task_of
from zray.runtime import pickling, serialization
from zray.runtime.interrupts import interrupts

if TYPE_CHECKING:  # imported where they are used: they take long, and most programs need neither
    import asyncio
    import concurrent.futures

T_co = TypeVar("T_co", covariant=True)

# What a process does with its references; set by the participant that is connected.
_dropped: deque[bytes] = deque()
_unnamed: deque[bytes] = deque()  # functions; another one for each participant
_participant: Any = None


class ObjectRef(Generic[T_co]):
    """A reference to the value of a task or a ``put``.

    Awaitable (``await ref``), usable as an argument of tasks, comparable and hashable by id. The
    value is kept in the cluster for as long as a reference to it lives anywhere. Made by zray only.

    Attributes:
        id: 20 bytes, unique in the cluster.
    """

    __slots__ = ("__weakref__", "_drop", "id")

    id: bytes

    def __init__(self, object_id: bytes, drop: Callable[[bytes], None] = _dropped.append) -> None:
        self.id = object_id
        self._drop = drop

    def __del__(self) -> None:
        self._drop(self.id)  # may run anywhere, so that is all it does

    interrupts.spare(__del__.__code__)

    def hex(self) -> str:
        """The id as 40 hexadecimal digits."""
        return self.id.hex()

    def binary(self) -> bytes:
        """The id as 20 bytes."""
        return self.id

    def task_id(self) -> bytes:
        """The id (16 bytes) of the task that makes the value."""
        return task_of(self.id)

    def future(self) -> concurrent.futures.Future[T_co]:
        """A ``concurrent.futures.Future`` of the value; cancelling it does not cancel the task.

        Raises:
            NotInitializedError: this process is not connected to a cluster.
        """
        import concurrent.futures

        future: concurrent.futures.Future[T_co] = concurrent.futures.Future()
        _connected().complete(self, future)
        return future

    def as_future(self) -> asyncio.Future[T_co]:
        """An asyncio future of the value, in the running loop.

        Raises:
            NotInitializedError: this process is not connected to a cluster.
            RuntimeError: no loop is running.
        """
        import asyncio

        future: asyncio.Future[T_co] = asyncio.get_running_loop().create_future()
        _connected().complete_in_loop(self, future)
        return future

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.as_future().__await__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        state = _participant.state_of(self.id) if _participant is not None else "disconnected"
        return f"ObjectRef({self.id.hex()}, {state})"

    def __reduce__(self) -> tuple[Any, ...]:
        pickling.note_reference(self.id)
        return serialization.restore_reference, (self.id,)


def _connected() -> Any:
    if _participant is None:
        from zray.errors import NotInitializedError

        raise NotInitializedError(
            "the reference belongs to a cluster that this process has left; call zray.init()"
        )
    return _participant


class FunctionName:
    """Held by what names a function that the participant has sent, until that is collected."""

    __slots__ = ("_function_id", "_unname")

    def __init__(self, function_id: bytes) -> None:
        self._function_id = function_id
        self._unname = _unnamed.append

    def __del__(self) -> None:
        self._unname(self._function_id)  # may run anywhere, so that is all it does


def connect(participant: Any) -> None:
    """References work through ``participant`` from now on; None: through nobody."""
    global _participant, _unnamed
    _unnamed = deque()  # names of an earlier one mean nothing to this one
    _participant = participant
    _dropped.clear()
    serialization.set_reference_factory(participant.borrow if participant is not None else None)
    pickling.set_stray_reference_hook(participant.pin if participant is not None else None)


def pending() -> bool:
    """Whether there is something to take."""
    return bool(_dropped or _unnamed)


def take_dropped() -> list[bytes]:
    """The ids of references collected since the last call."""
    return _take(_dropped)


def take_unnamed() -> list[bytes]:
    """The functions of which a name was collected since the last call; one may come twice."""
    return _take(_unnamed)


def _take(collected: deque[bytes]) -> list[bytes]:
    ids = []
    while collected:
        try:
            ids.append(collected.popleft())
        except IndexError:  # another thread took the last one
            break
    return ids
