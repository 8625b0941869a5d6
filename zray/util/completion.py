"""Results as they become ready: of references that there are, and of tasks that are submitted.

Semantics: ``ray.util.as_completed`` and ``ray.util.map_unordered`` of Ray 2.60.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zray.api.objects import get, wait
from zray.runtime.references import ObjectRef

CHUNK_SIZE = 10
BACKPRESSURE_SIZE = 100


def as_completed(
    refs: Sequence[ObjectRef[Any]],
    *,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """The values of references, as they become ready.

    Args:
        refs: a list of distinct references.
        chunk_size: for how many at a time to wait; those of a chunk come in the order of ``refs``.
        yield_obj_refs: yield the references that are ready, and not their values.
        kwargs: of ``zray.wait``: ``timeout`` (seconds for a chunk; after it the chunk has what is
            ready, and the next wait begins) and ``fetch_local``.

    Raises:
        ValueError: ``chunk_size`` is less than 1, or ``num_returns`` is given. As all errors of a
            generator, with the first value.
        TaskError, GetTimeoutError and others: as of ``zray.get``, where a value would have come.
    """
    _check(chunk_size, kwargs)
    left = list(refs)
    while left:
        ready, left = _next(left, chunk_size, yield_obj_refs, kwargs)
        yield from ready


def map_unordered(
    fn: Any,
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """``fn.remote(item)`` for each item; the results come as they become ready.

    Args:
        fn: a remote function, or a method of an actor.
        items: an iterable of any length; it is asked for the next item when that can be submitted.
        backpressure_size: how many tasks there are at most that have not ended; None: any number.
        chunk_size, yield_obj_refs, kwargs: as of ``as_completed``.

    Raises:
        ValueError: ``backpressure_size`` is not positive, or as of ``as_completed``.
    """
    if backpressure_size is not None and backpressure_size <= 0:
        raise ValueError("backpressure_size must be positive.")
    _check(chunk_size, kwargs)
    refs: list[ObjectRef[Any]] = []
    for item in items:
        refs.append(fn.remote(item))
        if backpressure_size is not None and len(refs) >= backpressure_size:
            ready, refs = _next(refs, chunk_size, yield_obj_refs, kwargs)
            yield from ready
    yield from as_completed(refs, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


def _check(chunk_size: int, kwargs: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")


def _next(
    refs: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, kwargs: dict[str, Any]
) -> tuple[list[Any], list[ObjectRef[Any]]]:
    """The next chunk, and the references that are left."""
    ready, left = wait(refs, num_returns=min(chunk_size, len(refs)), **kwargs)
    return (ready if yield_obj_refs else get(ready)), left
