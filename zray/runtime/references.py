"""ObjectRef: a light handle on a value that exists, or will, somewhere in the cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from zray.ids import OBJECT_BYTES, origin_of
from zray.runtime import id_types, pickling, serialization
from zray.runtime.interrupts import interrupts

if TYPE_CHECKING:  # imported where they are used: they take long, and most programs need neither
    import asyncio
    import concurrent.futures

T_co = TypeVar("T_co", covariant=True)

# What a process does with its references; set by the participant that is connected.
_dropped: deque[bytes] = deque()
_drop = _dropped.append
_new = object.__new__
_unnamed: deque[bytes] = deque()  # functions; another one for each participant
_unread: deque[bytes] = deque()  # tasks that yield, of which nobody wants more; the same
_participant: Any = None


class ObjectRef(Generic[T_co]):
    """A reference to the value of a task or a ``put``.

    Awaitable (``await ref``), usable as an argument of tasks, comparable and hashable by id. The
    value is kept in the cluster for as long as a reference to it lives anywhere. A program that
    makes one of an id must know that the value is still there.

    Attributes:
        id: 20 bytes, unique in the cluster.
    """

    __slots__ = ("__weakref__", "_drop", "id")

    id: bytes
    _drop: Callable[[bytes], None]

    def __init__(self, id: bytes) -> None:
        """Another reference to the object of this id; ``counted`` is for the library.

        Raises:
            TypeError, ValueError: it is no id.
        """
        self.id, self._drop = id, _ignore  # __del__ needs both, whatever comes
        id_types.checked("ObjectRef", id, OBJECT_BYTES)
        self._drop = _count(id)

    def __del__(self) -> None:
        self._drop(self.id)  # may run anywhere, so that is all it does

    interrupts.spare(__del__.__code__)

    @classmethod
    def size(cls) -> int:
        """How many bytes an id has: 20."""
        return OBJECT_BYTES

    @classmethod
    def from_binary(cls, id: bytes) -> ObjectRef[Any]:
        """As the constructor."""
        return cls(id)

    @classmethod
    def from_hex(cls, text: str) -> ObjectRef[Any]:
        """The reference whose ``hex`` is this."""
        return cls(bytes.fromhex(text))

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """A reference to nothing, unlike all others."""
        return _uncounted(os.urandom(OBJECT_BYTES))

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """A reference to nothing."""
        return _uncounted(b"\xff" * OBJECT_BYTES)

    def is_nil(self) -> bool:
        """Whether it is ``nil()``."""
        return id_types.is_nil(self.id)

    def hex(self) -> str:
        """The id as 40 hexadecimal digits."""
        return self.id.hex()

    def binary(self) -> bytes:
        """The id as 20 bytes."""
        return self.id

    def task_id(self) -> id_types.TaskID:
        """Of the task that makes or yields the value."""
        return id_types.TaskID(origin_of(self.id))

    def job_id(self) -> id_types.JobID:
        """Of this process's job.

        Raises:
            NotInitializedError: this process is not connected to a cluster.
        """
        return id_types.JobID(bytes(_connected().client.job_id))

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
        return f"ObjectRef({self.id.hex()}, {self._state()})"

    def _repr_html_(self) -> str:
        from zray.runtime.html_card import card

        return card("ObjectRef", [("State", self._state()), ("Object", self.id.hex())])

    def _state(self) -> str:
        return _participant.state_of(self.id) if _participant is not None else "disconnected"

    def __reduce__(self) -> tuple[Any, ...]:
        pickling.note_reference(self.id)
        return serialization.restore_reference, (self.id,)


def counted(object_id: bytes) -> ObjectRef[Any]:
    """A reference that this process's participant has counted already."""
    ref: ObjectRef[Any] = _new(ObjectRef)
    ref.id = object_id
    ref._drop = _drop
    return ref


def _uncounted(object_id: bytes) -> ObjectRef[Any]:
    ref = counted(object_id)
    ref._drop = _ignore
    return ref


def of_handle(ref: ObjectRef[Any]) -> None:
    """A handle has this reference: that it is collected is told at once, not along with others."""
    if ref._drop is _drop:
        ref._drop = _drop_handle


def of_ended(ref: ObjectRef[Any]) -> None:
    """The actor of this handle's reference has ended already: nothing waits for its drop."""
    if ref._drop is _drop_handle:
        ref._drop = _drop


def _drop_handle(object_id: bytes) -> None:
    _drop(object_id)
    participant = _participant
    if participant is not None:
        participant.handle_collected()


interrupts.spare(_drop_handle.__code__)


class WeakReference(ObjectRef[Any]):
    """A reference that nobody counts: it keeps nothing, whoever has it. Not for programs."""

    __slots__ = ()

    def __init__(self, id: bytes) -> None:
        self.id, self._drop = id, _ignore

    def __reduce__(self) -> tuple[Any, ...]:
        return WeakReference, (self.id,)


def _count(object_id: bytes) -> Callable[[bytes], None]:
    """Count another reference; what is to be called when it is collected."""
    if _participant is None or id_types.is_nil(object_id):
        return _ignore
    _participant.count(object_id)
    return _drop


def _ignore(_object_id: bytes) -> None:
    pass


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


class Reader(FunctionName):
    """Held by what reads the items of a task, until that is collected."""

    __slots__ = ()

    def __init__(self, task_id: bytes) -> None:
        self._function_id = task_id
        self._unname = _unread.append


def connect(participant: Any) -> None:
    """References work through ``participant`` from now on; None: through nobody."""
    global _participant, _unnamed, _unread
    _unnamed, _unread = deque(), deque()  # those of an earlier one mean nothing to this one
    _participant = participant
    _dropped.clear()
    serialization.set_reference_factory(participant.borrow if participant is not None else None)
    pickling.set_stray_reference_hook(participant.pin if participant is not None else None)


def pending() -> bool:
    """Whether there is something to take."""
    return bool(_dropped or _unnamed or _unread)


def take_dropped() -> list[bytes]:
    """The ids of references collected since the last call."""
    return _take(_dropped)


def take_unnamed() -> list[bytes]:
    """The functions of which a name was collected since the last call; one may come twice."""
    return _take(_unnamed)


def take_unread() -> list[bytes]:
    """The tasks that yield whose reader was collected since the last call."""
    return _take(_unread)


def _take(collected: deque[bytes]) -> list[bytes]:
    ids = []
    while collected:
        try:
            ids.append(collected.popleft())
        except IndexError:  # another thread took the last one
            break
    return ids
