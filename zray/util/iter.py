"""Iterators whose items are made by actors in parallel.

Semantics: ``ray.util.iter`` of Ray 2.60, which calls it deprecated; tasks, generators and
``zray.util.map_unordered`` do the same for new programs.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zray.api.functions import remote
from zray.api.objects import get, wait
from zray.util.local_iterator import LocalIterator, NextValueNotReady, SharedMetrics

Step = Callable[[LocalIterator], LocalIterator]


def from_items(items: list[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The items, dealt out to so many actors; ``repeat``: for ever."""
    kind = type(items[0]).__name__ if items else "None"
    again = ", repeat=True" if repeat else ""
    return from_iterators(
        [items[number::num_shards] for number in range(num_shards)],
        repeat,
        f"from_items[{kind}, {len(items)}, shards={num_shards}{again}]",
    )


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The numbers below ``n``, a piece for each of so many actors; ``repeat``: for ever."""
    size = n // num_shards
    ends = [*(size * number for number in range(num_shards)), n]
    again = ", repeat=True" if repeat else ""
    return from_iterators(
        [range(*ends[number : number + 2]) for number in range(num_shards)],
        repeat,
        f"from_range[{n}, shards={num_shards}{again}]",
    )


def from_iterators(
    generators: list[Any], repeat: bool = False, name: str | None = None
) -> ParallelIterator:
    """An actor for each iterable, or function without arguments that returns one."""
    worker: Any = remote(ParallelIteratorWorker)
    again = ", repeat=True" if repeat else ""
    name = name or f"from_iterators[shards={len(generators)}{again}]"
    return from_actors([worker.remote(one, repeat) for one in generators], name)


def from_actors(actors: list[Any], name: str | None = None) -> ParallelIterator:
    """The items of actors whose classes are subclasses of ``ParallelIteratorWorker``."""
    name = name or f"from_actors[shards={len(actors)}]"
    return ParallelIterator([_ActorSet(actors, [])], name, [])


class ParallelIterator:
    """Items of several actors, its shards. Made by the functions of this module.

    What ``for_each`` and its like do happens in the actors. Can be passed to tasks and actors; each
    shard is to be read by one process only.
    """

    def __init__(
        self, actor_sets: list[_ActorSet], name: str, parent_iterators: list[ParallelIterator]
    ) -> None:
        self.actor_sets = actor_sets
        self.name = name
        self.parent_iterators = parent_iterators  # their actors are to live for as long

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "You must use it.gather_sync() or it.gather_async() to iterate over the results of a "
            "ParallelIterator."
        )

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def _with(self, step: Step, name: str) -> ParallelIterator:
        sets = [one.with_step(step) for one in self.actor_sets]
        return ParallelIterator(sets, self.name + name, self.parent_iterators)

    # ---- in the actors ---------------------------------------------------------------------

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> ParallelIterator:
        """What ``fn`` makes of each shard."""
        return self._with(lambda items: items.transform(fn), ".transform()")

    def for_each(
        self,
        fn: Callable[[Any], Any],
        max_concurrency: int = 1,
        resources: dict[str, Any] | None = None,
    ) -> ParallelIterator:
        """``fn`` of each item; arguments as of ``LocalIterator.for_each``."""
        if max_concurrency < 0:
            raise AssertionError("max_concurrency must be non-negative.")
        return self._with(
            lambda items: items.for_each(fn, max_concurrency, resources), ".for_each()"
        )

    def filter(self, fn: Callable[[Any], Any]) -> ParallelIterator:
        """The items for which ``fn`` is true."""
        return self._with(lambda items: items.filter(fn), ".filter()")

    def batch(self, n: int) -> ParallelIterator:
        """Lists of ``n`` items of a shard; its last may be shorter."""
        return self._with(lambda items: items.batch(n), f".batch({n})")

    def flatten(self) -> ParallelIterator:
        """The items of each item."""
        return self._with(lambda items: items.flatten(), ".flatten()")

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> ParallelIterator:
        """The items of what ``fn`` makes of each item."""
        return self._with(lambda items: items.combine(fn), ".combine()")

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Each shard in another order, see ``LocalIterator.shuffle``."""
        name = f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})"
        return self._with(lambda items: items.shuffle(shuffle_buffer_size, seed), name)

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator:
        """The same items in so many shards, dealt out."""
        actors = self._begun()

        def partition(number: int) -> Callable[[], Iterable[Any]]:
            def ask(actor: Any) -> Any:
                return actor.par_iter_slice_batch.remote(num_partitions, number, batch_ms)

            return lambda: _as_ready(actors, ask, 1, None, None)

        worker: Any = remote(ParallelIteratorWorker)
        shards = [worker.remote(partition(number), False) for number in range(num_partitions)]
        name = f"{self.name}.repartition[num_partitions={num_partitions}]"
        return ParallelIterator([_ActorSet(shards, [])], name, [self])

    # ---- here ------------------------------------------------------------------------------

    def gather_sync(self) -> LocalIterator:
        """All items, one of each shard in turn."""
        return self.batch_across_shards().flatten()._named(f"{self}.gather_sync()")

    def batch_across_shards(self) -> LocalIterator:
        """Lists of one item of each shard that has one."""

        def rounds(timeout: float | None) -> Iterator[Any]:
            active = {actor: actor.par_iter_next_batch.remote(0) for actor in self._begun()}
            while active:
                if timeout is not None:
                    while wait([*active.values()], num_returns=len(active), timeout=timeout)[1]:
                        yield NextValueNotReady()
                found = dict(zip(active, get([*active.values()]), strict=True))
                active = {
                    actor: actor.par_iter_next_batch.remote(0)
                    for actor, items in found.items()
                    if items
                }
                if items := [item for batch in found.values() for item in batch]:
                    yield items

        return LocalIterator(rounds, SharedMetrics(), name=f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """All items, as they are ready.

        Args:
            batch_ms: each actor gathers items for so long before it sends them.
            num_async: how many requests each actor has at a time.

        Raises:
            ValueError: one of them is too small.
        """
        _check(num_async, batch_ms, "queue depth")
        metrics = SharedMetrics()

        def items(timeout: float | None) -> Iterator[Any]:
            def ask(actor: Any) -> Any:
                return actor.par_iter_next_batch.remote(batch_ms)

            yield from _as_ready(self._begun(), ask, num_async, timeout, metrics)

        return LocalIterator(items, metrics, name=f"{self}.gather_async()")

    def take(self, n: int) -> list[Any]:
        """The first ``n`` items at most."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print the first ``n`` items at most."""
        self.gather_sync().show(n)

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """The shards of both.

        Raises:
            TypeError: the other one is no ParallelIterator.
        """
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"other must be of type ParallelIterator, got {type(other)}")
        return ParallelIterator(
            [*self.actor_sets, *other.actor_sets],
            f"ParallelUnion[{self}, {other}]",
            [*self.parent_iterators, *other.parent_iterators],
        )

    def select_shards(self, shards_to_keep: list[int]) -> ParallelIterator:
        """Those shards alone.

        Raises:
            ValueError: none, or after ``union``.
        """
        if len(self.actor_sets) > 1:
            raise ValueError("select_shards() is not allowed after union()")
        if not shards_to_keep:
            raise ValueError("at least one shard must be selected")
        (old,) = self.actor_sets
        kept = [actor for number, actor in enumerate(old.actors) if number in shards_to_keep]
        if len(kept) != len(shards_to_keep):
            raise AssertionError("Invalid actor index")
        name = f"{self}.select_shards({len(kept)} total)"
        return ParallelIterator([_ActorSet(kept, old.steps)], name, self.parent_iterators)

    def num_shards(self) -> int:
        """How many there are."""
        return sum(len(one.actors) for one in self.actor_sets)

    def shards(self) -> list[LocalIterator]:
        """All of them."""
        return [self.get_shard(number) for number in range(self.num_shards())]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """The items of one shard; arguments as of ``gather_async``.

        Raises:
            ValueError: there is no such shard, or as of ``gather_async``.
        """
        _check(num_async, batch_ms, "num async")
        places = [(actor, one.steps) for one in self.actor_sets for actor in one.actors]
        if not 0 <= shard_index < len(places):
            raise ValueError("Shard index out of range", shard_index, self.num_shards())
        actor, steps = places[shard_index]

        def items(timeout: float | None) -> Iterator[Any]:
            get(actor.par_iter_init.remote(steps))
            asked = deque(actor.par_iter_next_batch.remote(batch_ms) for _ in range(num_async))
            while True:
                while timeout is not None and wait([asked[0]], timeout=timeout)[1]:
                    yield NextValueNotReady()
                batch = get(asked.popleft())
                if not batch:
                    return
                asked.append(actor.par_iter_next_batch.remote(batch_ms))
                yield from batch

        return LocalIterator(items, SharedMetrics(), name=f"{self.name}.shard[{shard_index}]")

    def _begun(self) -> list[Any]:
        """Its actors, at their first items."""
        for one in self.actor_sets:
            get([actor.par_iter_init.remote(one.steps) for actor in one.actors])
        return [actor for one in self.actor_sets for actor in one.actors]


class ParallelIteratorWorker:
    """The actor of a shard. Classes for ``from_actors`` are subclasses, and call this constructor.

    Args:
        item_generator: an iterable, or a function without arguments that returns one.
        repeat: go on with the first item after the last.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        def made() -> Any:
            return item_generator() if callable(item_generator) else item_generator

        def cycle() -> Iterator[Any]:
            while True:
                items = iter(made())
                if items is item_generator:
                    raise ValueError(
                        f"Cannot iterate over {items} multiple times. Please pass in the base "
                        f"iterable or lambda: {items} instead."
                    )
                yield from items

        self._items: Iterable[Any] = cycle() if repeat else made()
        self._iterator: Iterator[Any] | None = None
        self._dealt: defaultdict[int, deque[Any]] = defaultdict(deque)

    def par_iter_init(self, transforms: list[Step]) -> None:
        """Begin, with these steps."""
        iterator = LocalIterator(lambda _timeout: self._items, SharedMetrics())
        for step in transforms:
            iterator = step(iterator)
        self._iterator = iter(iterator)

    def par_iter_next_batch(self, batch_ms: int) -> list[Any]:
        """The next item, or those of so many milliseconds; empty: there is none any more."""
        assert self._iterator is not None, "must call par_iter_init()"
        items = self._iterator
        return _gathered(lambda: next(items, _END), batch_ms)

    def par_iter_slice_batch(self, step: int, start: int, batch_ms: int) -> list[Any]:
        """The same of every ``step``-th item from ``start`` on; the others are kept for others."""
        return _gathered(lambda: self._slice(step, start), batch_ms)

    def _slice(self, step: int, start: int) -> Any:
        assert self._iterator is not None, "must call par_iter_init()"
        if not self._dealt[start]:
            for number in range(step):
                if (item := next(self._iterator, _END)) is not _END:
                    self._dealt[number].append(item)
        return self._dealt[start].popleft() if self._dealt[start] else _END


class _ActorSet:
    """Actors, and what they are to do with their items."""

    def __init__(self, actors: list[Any], steps: list[Step]) -> None:
        self.actors = actors
        self.steps = steps

    def with_step(self, step: Step) -> _ActorSet:
        return _ActorSet(self.actors, [*self.steps, step])


_END = object()


def _gathered(take: Callable[[], Any], batch_ms: int) -> list[Any]:
    items: list[Any] = []
    end = time.monotonic() + batch_ms / 1000
    while not items or time.monotonic() < end:
        item = take()
        if item is _END:
            break
        items.append(item)
    return items


def _as_ready(
    actors: list[Any],
    ask: Callable[[Any], Any],
    num_async: int,
    timeout: float | None,
    metrics: SharedMetrics | None,
) -> Iterator[Any]:
    """What actors answer, in whatever order; each is asked again until it has no more."""
    asked = {ask(actor): actor for _ in range(num_async) for actor in actors}
    while asked:
        ready, _ = wait([*asked], num_returns=len(asked), timeout=timeout or 0)
        if not ready and timeout is None:
            ready, _ = wait([*asked])
        for ref in ready:
            actor = asked.pop(ref)
            batch = get(ref)
            if not batch:
                continue
            asked[ask(actor)] = actor
            for item in batch:
                if metrics is not None:
                    metrics.get().current_actor = actor
                yield item
        if timeout is not None:
            yield NextValueNotReady()


def _check(num_async: int, batch_ms: int, what: str) -> None:
    if num_async < 1:
        raise ValueError(f"{what} must be positive")
    if batch_ms < 0:
        raise ValueError("batch time must be positive")
