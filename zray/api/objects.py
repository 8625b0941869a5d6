"""``get``, ``put``, ``wait``, ``cancel``: values and references, with Ray's checks and messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from time import monotonic
from typing import Any, TypeVar, overload

from zray.api.session import participant
from zray.runtime.generators import ObjectRefGenerator
from zray.runtime.references import ObjectRef

T = TypeVar("T")
LEFT_MAX = 10_000  # so many are remembered
_left: list[bytes] = []  # ids of what the last wait left: no two alike, and a loop asks for these


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None, progress: bool | str = False) -> T: ...
@overload
def get(
    refs: Sequence[ObjectRef[T]], *, timeout: float | None = None, progress: bool | str = False
) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None, progress: bool | str = False) -> Any:
    """The value of a reference, or the values of a list of references, in order.

    Waits for them. In a task, the task's CPU is free for others meanwhile.

    Args:
        refs: one reference or a list of them.
        timeout: seconds to wait at most; None: as long as it takes.
        progress: show on the driver's stderr how many values are here while waiting, with this
            text if it is one. In a task as well: then it is shown at the driver of its job.

    Raises:
        TaskError: a task raised; the error is also of the user exception's own type.
        GetTimeoutError: not all values came in time; the message says what was missing and why.
        WorkerCrashedError, TaskCancelledError, ObjectLostError: there will be no value.
        ValueError, TypeError: ``refs`` is not made of references.
    """
    if isinstance(refs, ObjectRef):
        if progress:
            return _watched([refs], timeout, progress)[0]
        return participant().get([refs], timeout)[0]
    if not isinstance(refs, list):
        if isinstance(refs, ObjectRefGenerator):
            return refs
        raise ValueError(
            "Invalid type of object refs, "
            f"{type(refs)}, is given. 'object_refs' must either be an ObjectRef or a list of "
            "ObjectRefs."
        )
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(
                f"Attempting to call `get` on the value {ref!r}, which is not an ObjectRef."
            )
    if progress and refs:
        return _watched(refs, timeout, progress)
    return participant().get(refs, timeout)


def _watched(refs: list[ObjectRef[Any]], timeout: float | None, progress: bool | str) -> list[Any]:
    """The values, and how many of them are here is shown until then."""
    if not isinstance(progress, bool | str):
        raise TypeError(f"progress must be a bool or a text, got {progress!r}")
    label = "get" if progress is True else progress
    began = monotonic()
    here = participant()
    here.follow([*dict.fromkeys(ref.id for ref in refs)], timeout, label)
    left = None if timeout is None else max(0.0, began + timeout - monotonic())
    values: list[Any] = here.get(refs, left)
    return values


def put(value: T) -> ObjectRef[T]:
    """Store a value in the cluster; pass the reference to many tasks without sending it again.

    Raises:
        TypeError: the value is a reference already, or cannot be pickled.
    """
    if isinstance(value, ObjectRef):
        raise TypeError(
            "Calling 'put' on an ObjectRef is not allowed. If you really want to do this, you can "
            "wrap the ObjectRef in a list and call 'put' on it."
        )
    ref: ObjectRef[T] = participant().put(value)
    return ref


def wait(
    refs: Sequence[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until ``num_returns`` of the references are ready, or the timeout.

    Args:
        refs: a list of distinct references, and of generators: one is ready when its next item is
            there, or when it is known that none will be.
        num_returns: how many to wait for.
        timeout: seconds; None: as long as it takes.
        fetch_local: ready means that the value is here, not only somewhere.

    Returns:
        (ready, not ready): at most ``num_returns`` ready ones; both in the given order.

    Raises:
        TypeError, ValueError: as Ray's ``wait``.
    """
    global _left
    if isinstance(refs, ObjectRef | ObjectRefGenerator):
        raise TypeError(
            "wait() expected a list of ray.ObjectRef or ray.ObjectRefGenerator, got a single "
            f"ray.{type(refs).__name__}"
        )
    if not isinstance(refs, list):
        raise TypeError(f"wait() expected a list of ray.ObjectRef, got {type(refs)}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"The 'timeout' argument must be nonnegative. Received {timeout}")
    wanted: list[ObjectRef[T]] = [*refs]  # another thread may change the list meanwhile
    plain = [*map(type, wanted)].count(ObjectRef) == len(wanted)
    if not plain:
        for ref in wanted:
            if not isinstance(ref, ObjectRef | ObjectRefGenerator):
                raise TypeError(
                    f"wait() expected a list of ray.ObjectRef, got list containing {ref!r}"
                )
    if not wanted:
        participant()
        return [], []
    ids = [ref.id for ref in wanted] if plain else [*map(_waited_id, wanted)]
    if ids != _left and len({*ids}) != len(ids):
        raise ValueError("Wait requires a list of unique object refs.")
    if num_returns <= 0:
        raise ValueError(f"Invalid number of objects to return {num_returns}.")
    if num_returns > len(wanted):
        raise ValueError(
            "num_returns cannot be greater than the number of objects provided to wait"
        )
    places = participant().wait(ids, num_returns, timeout, fetch_local)
    if len(ids) <= LEFT_MAX:
        _left = _without(ids, places)
    return [wanted[place] for place in places], _without(wanted, places)


def _waited_id(ref: Any) -> bytes:
    found: bytes = ref.id if isinstance(ref, ObjectRef) else ref._next_id()
    return found


def _without(those: list[T], places: list[int]) -> list[T]:
    """A copy without what is at these places, which ascend."""
    if places and places[-1] - places[0] >= len(places):
        stays = bytearray(b"\1") * len(those)
        for place in places:
            stays[place] = 0
        return [*compress(those, stays)]
    others = those[:]
    if places:  # one run of them
        del others[places[0] : places[-1] + 1]
    return others


def cancel(
    ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel the task that makes the value. A queued task is dropped; a running one is interrupted
    with KeyboardInterrupt, and killed if it does not end within some seconds.

    Args:
        ref: a reference that a task returned, or the generator of its items.
        force: kill the worker at once; not of calls of actors.
        recursive: cancel the tasks that it submitted as well.

    Raises:
        TypeError: not a reference.
        ValueError: ``force`` for a call of an actor.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref.completed()
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() only supported for object refs. Got: {type(ref)}.")
    participant().cancel(ref, force, recursive)
