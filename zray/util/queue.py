"""A queue that many processes put into and take from; its items are kept by an actor.

Semantics: ``ray.util.queue`` of Ray 2.60. A ``Queue`` can be passed to tasks and actors.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

from zray.api.actors import kill
from zray.api.functions import remote
from zray.api.objects import cancel, get, wait

WAITING_MAX = 1_000_000  # calls that wait for items and for room; more would wait unseen


class Empty(queue.Empty):
    """There was nothing to take, in time or at once."""


class Full(queue.Full):
    """There was no room, in time or at once."""


class Queue:
    """First in, first out. Blocking and not, for threads and with ``await``.

    Where several processes put or take at the same time, which of them is first is not said.

    Args:
        maxsize: how many items there may be; 0: any number.
        actor_options: of the actor that keeps the items, such as ``{"num_cpus": 1}`` or a name.

    Raises:
        ValueError, TypeError: an option is wrong.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        options = {"max_concurrency": WAITING_MAX, **(actor_options or {})}
        self.actor: Any = remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items there are."""
        return int(get(self.actor.qsize.remote()))

    def qsize(self) -> int:
        """As ``size``."""
        return self.size()

    def empty(self) -> bool:
        """Whether there is no item."""
        return bool(get(self.actor.empty.remote()))

    def full(self) -> bool:
        """Whether there is no room for another one."""
        return bool(get(self.actor.full.remote()))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item.

        Args:
            block: wait until there is room.
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            Full: there was no room, in time or at once.
            ValueError: ``timeout`` is negative.
        """
        get(self._put(item, block, timeout))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As ``put``, for coroutines; where one is cancelled, the item is not put later."""
        call = self._put(item, block, timeout)
        try:
            await call
        except asyncio.CancelledError:
            cancel(call)
            raise

    def _put(self, item: Any, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.put_nowait.remote(item)
        return self.actor.put.remote(item, _checked(timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the item that was put first.

        Args:
            block: wait until there is one.
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            Empty: there was none, in time or at once.
            ValueError: ``timeout`` is negative.
        """
        return get(self._get(block, timeout))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As ``get``, for coroutines; one that is cancelled takes no item any more."""
        call = self._get(block, timeout)
        try:
            return await call
        except asyncio.CancelledError:
            cancel(call)
            actor = self.actor
            call.future().add_done_callback(lambda ended: _give_back(actor, ended))
            raise

    def _get(self, block: bool, timeout: float | None) -> Any:
        if not block:
            return self.actor.get_nowait.remote()
        return self.actor.get.remote(_checked(timeout))

    def put_nowait(self, item: Any) -> None:
        """``put(item, block=False)``."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all of the items, in order, or none of them.

        Raises:
            Full: there is no room for all of them.
            TypeError: ``items`` is not iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        get(self.actor.put_nowait_batch.remote(list(items)))

    def get_nowait(self) -> Any:
        """``get(block=False)``."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, in order, or none.

        Raises:
            Empty: there are not so many.
            TypeError, ValueError: ``num_items`` is no int, or negative.
        """
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        items: list[Any] = get(self.actor.get_nowait_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the actor; what is in the queue is gone, and whoever waits gets an ActorDiedError.

        Args:
            force: at once, and not after what was asked of it before.
            grace_period_s: seconds for that; then it is killed.
        """
        if self.actor is None:
            return
        if force or wait([self.actor.__ray_terminate__.remote()], timeout=grace_period_s)[1]:
            kill(self.actor, no_restart=True)
        self.actor = None


def _give_back(actor: Any, call: Future[Any]) -> None:
    """Where the call got an item before it was told that nobody wants that any more."""
    if call.exception() is None:
        actor.give_back.remote(call.result())


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout


class _Items(asyncio.Queue[Any]):
    """A queue that takes back what it gave last."""

    def _put(self, item: Any) -> None:
        items: deque[Any] = self._queue  # type: ignore[attr-defined]  # as its _init makes it
        if type(item) is _Returned:
            items.appendleft(item.item)
        else:
            items.append(item)

    def give_back(self, item: Any) -> None:
        """It is the next one again."""
        if self.full():
            self._put(_Returned(item))  # nobody waits for an item then
        else:
            self.put_nowait(_Returned(item))


class _Returned(NamedTuple):
    item: Any


class _QueueActor:
    """Keeps the items, in one event loop."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._queue = _Items(maxsize)

    def qsize(self) -> int:
        return self._queue.qsize()

    def empty(self) -> bool:
        return self._queue.empty()

    def full(self) -> bool:
        return self._queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> None:
        try:
            await asyncio.wait_for(self._queue.put(item), timeout)
        except TimeoutError:
            raise Full from None

    async def get(self, timeout: float | None = None) -> Any:
        try:
            return await asyncio.wait_for(self._queue.get(), timeout)
        except TimeoutError:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        self.put_nowait_batch([item])

    def put_nowait_batch(self, items: list[Any]) -> None:
        if 0 < self._maxsize < len(items) + self.qsize():
            raise Full(
                f"Cannot add {len(items)} items to queue of size {self.qsize()} and maxsize "
                f"{self._maxsize}."
            )
        for item in items:
            self._queue.put_nowait(item)

    def give_back(self, item: Any) -> None:
        self._queue.give_back(item)

    def get_nowait(self) -> Any:
        return self.get_nowait_batch(1)[0]

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self.qsize():
            raise Empty(f"Cannot get {num_items} items from queue of size {self.qsize()}.")
        return [self._queue.get_nowait() for _ in range(num_items)]
