"""An iterator of this process whose items come from elsewhere, with what is done to them here.

Semantics: ``ray.util.iter.LocalIterator`` of Ray 2.60.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from zray.api.functions import remote
from zray.api.objects import get, wait

PULLED_MAX = 100  # from an iterator of the weight "*", in a round
Transform = Callable[[Iterator[Any]], Iterator[Any]]


class NextValueNotReady(Exception):
    """In the place of an item: there is none yet, and others may be asked meanwhile."""


class MetricsContext:
    """What the functions of an iterator count, for ``LocalIterator.get_metrics()``.

    ``current_actor``: of which actor the item is, if that is known.
    """

    def __init__(self) -> None:
        self.counters: defaultdict[str, int] = defaultdict(int)
        self.info: dict[str, Any] = {}
        self.current_actor: Any = None


class SharedMetrics:
    """The metrics of an iterator and of all that are made of it; ``parents`` have the same then."""

    def __init__(self, parents: Iterable[SharedMetrics] = ()) -> None:
        self._parents = [*parents]
        self.share(MetricsContext())

    def share(self, metrics: MetricsContext) -> None:
        """From now on they are these."""
        self._metrics = metrics
        for parent in self._parents:
            parent.share(metrics)

    def get(self) -> MetricsContext:
        """Those of now."""
        return self._metrics


class LocalIterator:
    """Can be iterated over once, in one process; until then it can be passed to tasks and actors.

    What its methods return are iterators with one more step, which has not begun yet. Made by those
    of a ``ParallelIterator``.
    """

    _local = threading.local()

    def __init__(
        self,
        base_iterator: Callable[[float | None], Iterable[Any]],
        shared_metrics: SharedMetrics,
        local_transforms: Iterable[Transform] = (),
        timeout: float | None = None,
        name: str = "unknown",
    ) -> None:
        self.base_iterator = base_iterator
        self.shared_metrics = shared_metrics
        self.local_transforms = [*local_transforms]
        self.timeout = timeout
        self.name = name
        self.built_iterator: Iterator[Any] | None = None

    @staticmethod
    def get_metrics() -> MetricsContext:
        """The metrics of the iterator whose function asks.

        Raises:
            ValueError: it is no such function.
        """
        metrics: MetricsContext | None = getattr(LocalIterator._local, "metrics", None)
        if metrics is None:
            raise ValueError("Cannot access context outside an iterator.")
        return metrics

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        LocalIterator._local.metrics = self.shared_metrics.get()
        return function(*args)

    def __iter__(self) -> Iterator[Any]:
        if self.built_iterator is None:
            iterator = iter(self.base_iterator(self.timeout))
            for transform in self.local_transforms:
                iterator = transform(iterator)
            self.built_iterator = iterator
        return self.built_iterator

    def __next__(self) -> Any:
        return next(iter(self))

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def _with(self, transform: Transform, name: str) -> LocalIterator:
        steps = [*self.local_transforms, transform]
        return LocalIterator(self.base_iterator, self.shared_metrics, steps, None, self.name + name)

    def transform(self, fn: Callable[[Iterable[Any]], Iterable[Any]]) -> LocalIterator:
        """What ``fn`` makes of the whole iterator."""
        return self._with(lambda items: iter(fn(items)), ".transform()")

    def for_each(
        self,
        fn: Callable[[Any], Any],
        max_concurrency: int = 1,
        resources: dict[str, Any] | None = None,
    ) -> LocalIterator:
        """``fn`` of each item.

        Args:
            max_concurrency: with another number than 1, so many tasks run ``fn`` at the same time
                (0: any number), and results come as they are ready.
            resources: options of these tasks, such as ``{"num_cpus": 0.5}``.
        """

        def one_by_one(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, NextValueNotReady):
                    yield item
                    continue
                while isinstance(result := self._call(fn, item), NextValueNotReady):
                    yield result
                yield result

        def in_tasks(items: Iterator[Any]) -> Iterator[Any]:
            task: Any = remote(fn).options(**(resources or {}))
            running: list[Any] = []
            for item in items:
                if isinstance(item, NextValueNotReady):
                    yield item
                    continue
                if max_concurrency and len(running) >= max_concurrency:
                    ready, running = wait(running)
                    yield from get(ready)
                running.append(task.remote(item))
            while running:
                ready, running = wait(running)
                yield from get(ready)

        return self._with(one_by_one if max_concurrency == 1 else in_tasks, ".for_each()")

    def filter(self, fn: Callable[[Any], Any]) -> LocalIterator:
        """The items for which ``fn`` is true."""

        def kept(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, NextValueNotReady) or self._call(fn, item):
                    yield item

        return self._with(kept, ".filter()")

    def batch(self, n: int) -> LocalIterator:
        """Lists of ``n`` items; the last may be shorter."""

        def batches(items: Iterator[Any]) -> Iterator[Any]:
            batch: list[Any] = []
            for item in items:
                if isinstance(item, NextValueNotReady):
                    yield item
                    continue
                batch.append(item)
                if len(batch) >= n:
                    yield batch
                    batch = []
            if batch:
                yield batch

        return self._with(batches, f".batch({n})")

    def flatten(self) -> LocalIterator:
        """The items of each item."""

        def inner(items: Iterator[Any]) -> Iterator[Any]:
            for item in items:
                if isinstance(item, NextValueNotReady):
                    yield item
                else:
                    yield from item

        return self._with(inner, ".flatten()")

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """In another order: each is drawn from so many that have come; the same for one seed."""

        def drawn(items: Iterator[Any]) -> Iterator[Any]:
            chance, buffer = random.Random(seed), list[Any]()
            for item in items:
                if isinstance(item, NextValueNotReady):
                    yield item
                    continue
                buffer.append(item)
                if len(buffer) >= shuffle_buffer_size:
                    yield buffer.pop(chance.randint(0, len(buffer) - 1))
            while buffer:
                yield buffer.pop(chance.randint(0, len(buffer) - 1))

        return self._with(
            drawn, f".shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})"
        )

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> LocalIterator:
        """The items of what ``fn`` makes of each item."""
        return self.for_each(fn).flatten()._named(f"{self.name}.combine()")

    def zip_with_source_actor(self) -> LocalIterator:
        """Pairs of the actor that an item is of, after ``gather_async``, and the item."""

        def paired(item: Any) -> Any:
            actor = LocalIterator.get_metrics().current_actor
            if actor is None:
                raise ValueError("Could not identify source actor of item")
            return actor, item

        return self.for_each(paired)._named(f"{self.name}.zip_with_source_actor()")

    def _named(self, name: str) -> Self:
        self.name = name
        return self

    def take(self, n: int) -> list[Any]:
        """The next ``n`` items at most."""
        taken = []
        for item in self:
            taken.append(item)
            if len(taken) >= n:
                break
        return taken

    def show(self, n: int = 20) -> None:
        """Print the next ``n`` items at most."""
        for item in self.take(n):
            print(item)

    def duplicate(self, n: int) -> list[LocalIterator]:
        """``n`` iterators with all items each; none gets far behind.

        Raises:
            ValueError: there are to be less than two.
        """
        if n < 2:
            raise ValueError("Number of copies must be >= 2")
        queues: list[deque[Any]] = [deque() for _ in range(n)]

        def copy(number: int) -> Callable[[float | None], Iterable[Any]]:
            def items(timeout: float | None) -> Iterator[Any]:
                while True:
                    own = queues[number]
                    if len(own) < max(len(one) for one in queues):
                        yield NextValueNotReady()  # others have to catch up
                        continue
                    if not own:
                        self.timeout = timeout
                        try:
                            item = next(self)
                        except StopIteration:
                            return
                        for one in queues:
                            one.append(item)
                    yield own.popleft()

            return items

        return [
            LocalIterator(
                copy(number), self.shared_metrics, name=f"{self.name}.duplicate[{number}]"
            )
            for number in range(n)
        ]

    def union(
        self,
        *others: LocalIterator,
        deterministic: bool = False,
        round_robin_weights: list[Any] | None = None,
    ) -> LocalIterator:
        """The items of this and of the others.

        Args:
            deterministic: one of each in turn; else as they are ready.
            round_robin_weights: how many of each in a turn, one for each iterator; "*": as many as
                are ready.

        Raises:
            ValueError: another one is no LocalIterator, or there are not as many weights.
        """
        for one in others:
            if not isinstance(one, LocalIterator):
                raise ValueError(f"other must be of type LocalIterator, got {type(one)}")
        sources = [self, *others]
        weights = round_robin_weights or [1] * len(sources)
        if len(weights) != len(sources):
            raise ValueError("Length of round robin weights must equal number of iterators total.")
        metrics = SharedMetrics(one.shared_metrics for one in sources)
        in_turn = deterministic or bool(round_robin_weights)
        active: list[tuple[Any, LocalIterator]] = []
        for weight, one in zip(weights, sources, strict=True):
            patience = None if in_turn and weight != "*" else 0
            steps = one.local_transforms
            active.append((weight, LocalIterator(one.base_iterator, metrics, steps, patience)))

        def items(timeout: float | None) -> Iterator[Any]:
            while active:
                for pair in [*active]:
                    weight, source = pair
                    for _ in range(PULLED_MAX if weight == "*" else _whole(weight)):
                        try:
                            item = next(source)
                        except StopIteration:
                            active.remove(pair)
                            break
                        if isinstance(item, NextValueNotReady):
                            if timeout is not None:
                                yield item
                            break
                        yield item

        return LocalIterator(
            items, metrics, name=f"LocalUnion[{self}, {', '.join(map(str, others))}]"
        )


def _whole(weight: float) -> int:
    """That many in the long run."""
    return int(weight) + (random.random() < weight - int(weight))
