"""JoinableQueue: ``multiprocessing.JoinableQueue`` for processes on any node.

An actor has the items. The queue can be passed to tasks, actors and pools, as multiprocessing's own
cannot.
"""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from zray.api.actor_handles import ActorHandle
from zray.api.actors import actor
from zray.api.objects import get

WAITING_MAX = 1_000_000  # calls that wait for items, for room and for the end, together


class _Items:
    """The items, and how many of them are not done."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, items: list[Any], timeout: float | None) -> bool:
        """Whether there was room for the one item in time."""
        try:
            if timeout == 0:
                self._queue.put_nowait(items[0])
            else:
                await asyncio.wait_for(self._queue.put(items[0]), timeout)
        except (asyncio.QueueFull, TimeoutError):
            return False
        return True

    async def get(self, timeout: float | None) -> list[Any]:
        """A list of the next item; of nothing where there was none in time."""
        try:
            if timeout == 0:
                return [self._queue.get_nowait()]
            return [await asyncio.wait_for(self._queue.get(), timeout)]
        except (asyncio.QueueEmpty, TimeoutError):
            return []

    async def task_done(self) -> bool:
        """Whether there was an item that was not done."""
        try:
            self._queue.task_done()
        except ValueError:
            return False
        return True

    async def join(self) -> None:
        """Return when all items are done."""
        await self._queue.join()

    async def qsize(self) -> int:
        """How many items are there."""
        return self._queue.qsize()


_ItemsActor = actor(num_cpus=0, max_concurrency=WAITING_MAX)(_Items)


class JoinableQueue:
    """A queue whose users can wait until all that was put into it is done.

    Args:
        maxsize: how many items it may have; 0: any number.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        self._maxsize = max(0, maxsize)
        self._items: ActorHandle[_Items] = _ItemsActor.remote(self._maxsize)
        self._closed = False

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item into it.

        Raises:
            queue.Full: there was no room in so many seconds, or now where it is not to ``block``.
            ValueError: it was closed here.
        """
        self._check_open()
        if not get(self._items.put.remote([obj], _seconds(block, timeout))):
            raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item out of it.

        Raises:
            queue.Empty: there was none in so many seconds, or now where it is not to ``block``.
            ValueError: it was closed here.
        """
        self._check_open()
        found = get(self._items.get.remote(_seconds(block, timeout)))
        if not found:
            raise queue.Empty
        return found[0]

    def put_nowait(self, obj: Any) -> None:
        """As ``put`` without waiting."""
        self.put(obj, block=False)

    def get_nowait(self) -> Any:
        """As ``get`` without waiting."""
        return self.get(block=False)

    def task_done(self) -> None:
        """One item that was taken out is done.

        Raises:
            ValueError: called more often than items were put.
        """
        if not get(self._items.task_done.remote()):
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until all items are done."""
        get(self._items.join.remote())

    def qsize(self) -> int:
        """How many items there are now."""
        found: int = get(self._items.qsize.remote())
        return found

    def empty(self) -> bool:
        """Whether there are none now."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is room for none now."""
        return 0 < self._maxsize <= self.qsize()

    def close(self) -> None:
        """This process puts no more into it, and takes nothing out of it."""
        self._closed = True

    def join_thread(self) -> None:
        """As in multiprocessing, where a thread sends the items: here ``put`` has done so."""

    def cancel_join_thread(self) -> None:
        """As ``join_thread``."""

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")


def _seconds(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0
    return None if timeout is None else max(0, timeout)
