"""A fixed set of actors that take one piece of work each at a time.

Semantics: ``ray.util.ActorPool`` of Ray 2.60. Owns which actor is busy with what, and what waits
for a free one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from zray.api.actor_handles import ActorHandle
from zray.api.objects import get, wait
from zray.errors import ActorDiedError

V = TypeVar("V")
Work = Callable[[ActorHandle[Any], V], Any]


class ActorPool:
    """Actors that share work; each has one call at a time.

    Args:
        actors: handles of the actors; all are idle at first.

    A function that is given work makes one call of the actor that it gets, and returns its
    reference (or a list of references, of which the result is the list of values). An actor that
    is found dead stays out of the pool, and whoever takes its result gets the ActorDiedError.
    """

    def __init__(self, actors: Iterable[ActorHandle[Any]]) -> None:
        self._idle = list(actors)
        self._running: dict[Any, tuple[int, ActorHandle[Any]]] = {}  # by reference
        self._by_number: dict[int, Any] = {}  # reference of each piece of work, as submitted
        self._submitted = 0  # numbers given
        self._next = 0  # the number whose result get_next returns
        self._waiting: deque[tuple[Work[Any], Any]] = deque()

    def map(self, fn: Work[V], values: Iterable[V]) -> Iterator[Any]:
        """Results of ``fn(actor, value)`` for each value, in the order of the values.

        What was submitted before is waited for, and its results are dropped. The work is submitted
        at once; results are taken as the iterator goes on.
        """
        self._drop_earlier()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next)

    def map_unordered(self, fn: Work[V], values: Iterable[V]) -> Iterator[Any]:
        """As ``map``, with results in the order in which they are there."""
        self._drop_earlier()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next_unordered)

    def _drop_earlier(self) -> None:
        while self.has_next():
            self._take(self._ready(None))

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def submit(self, fn: Work[V], value: V) -> None:
        """Have ``fn(actor, value)`` called, now or as soon as an actor is free.

        An actor becomes free when its result is taken.
        """
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        ref = fn(actor, value)
        self._running[_key(ref)] = self._submitted, actor
        self._by_number[self._submitted] = ref
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether there are results that nobody has taken."""
        return bool(self._running)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result, in the order of submission.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.
            ignore_if_timedout: that result is dropped if it does not come in time, and the next
                call is for the one after it.

        Raises:
            StopIteration: there is nothing more to take.
            TimeoutError: it did not come in time.
            ValueError: after ``get_next_unordered`` has taken what was submitted later.
            TaskError, ActorDiedError: in place of the result.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        if self._next >= self._submitted:
            raise ValueError("It is not allowed to call get_next() after get_next_unordered().")
        ref = self._by_number[self._next]
        refs = ref if isinstance(ref, list) else [ref]
        if timeout is not None and wait(refs, num_returns=len(refs), timeout=timeout)[1]:
            self._give_up(ref, ignore_if_timedout)
        return self._take(ref)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Whichever result is there first; arguments and errors as of ``get_next``.

        With ``ignore_if_timedout``, the oldest of those that are not there is dropped.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        ref = self._ready(timeout)
        if ref is None:
            self._give_up(self._by_number[min(self._by_number)], ignore_if_timedout)
        return self._take(ref)

    def _ready(self, timeout: float | None) -> Any:
        """The reference of a piece of work that has ended, or None."""
        refs = [ref for key in self._running for ref in (key if isinstance(key, tuple) else (key,))]
        ready = set(wait(refs, timeout=timeout)[0])
        for ref in self._by_number.values():
            if not isinstance(ref, list):
                if ref in ready:
                    return ref
            elif ready & {*ref}:
                left = wait(ref, num_returns=len(ref), timeout=timeout)[1]
                return None if left else ref
        return None

    def _give_up(self, ref: Any, ignore: bool) -> None:
        if not ignore:
            raise TimeoutError("Timed out waiting for result")
        self._give_back(self._end(ref))
        raise TimeoutError(
            f"Timed out waiting for result. The task {ref} has been ignored; its actor goes on "
            "with it before it does anything else"
        )

    def _take(self, ref: Any) -> Any:
        actor = self._end(ref)
        try:
            value = get(ref)
        except ActorDiedError:
            self._start_waiting()
            raise
        except BaseException:
            self._give_back(actor)
            raise
        self._give_back(actor)
        return value

    def _end(self, ref: Any) -> ActorHandle[Any]:
        number, actor = self._running.pop(_key(ref))
        del self._by_number[number]
        self._next = max(self._next, number + 1)
        return actor

    def _give_back(self, actor: ActorHandle[Any]) -> None:
        self._idle.append(actor)
        self._start_waiting()

    def _start_waiting(self) -> None:
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and no work waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> ActorHandle[Any] | None:
        """Take an idle actor out of the pool; None if none is free."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: ActorHandle[Any]) -> None:
        """Add an actor, which takes what waits.

        Raises:
            ValueError: it is in the pool already.
        """
        if actor in self._idle or any(actor == one for _, one in self._running.values()):
            raise ValueError("Actor already belongs to current ActorPool")
        self._give_back(actor)


def _key(ref: Any) -> Any:
    return tuple(ref) if isinstance(ref, list) else ref
