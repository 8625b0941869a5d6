"""How a driver or worker reads what the tasks yield that it has submitted, on ClientStreams.

A part of Participant.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from zray.core.client.waiters import Waiter
from zray.errors import ClusterShutdownError
from zray.nodes.participant.shared_values import SharedValues
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef, counted

if TYPE_CHECKING:
    import asyncio


class ItemStreams(SharedValues):
    def next_item(self, task_id: bytes) -> ObjectRef[Any] | None:
        """The next item's reference; waits for it. None: there are no more.

        Raises:
            ClusterShutdownError: there is no cluster to bring it.
        """
        with interrupts, self._lock:
            while (oid := self._take_item(task_id)) is None:
                if self.client.streams.is_over(task_id):
                    return None
                self._wait_for_item(task_id, None)
            return counted(oid)

    async def next_item_in_loop(self, task_id: bytes) -> ObjectRef[Any] | None:
        """The same for a coroutine."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            with interrupts, self._lock:
                if (oid := self._take_item(task_id)) is not None:
                    return counted(oid)
                if self.client.streams.is_over(task_id):
                    return None
                self._raise_if_stopped()
                future = self._item_future(task_id, loop)
            await future

    def has_next_item(self, task_id: bytes) -> bool:
        """Whether the next item is there."""
        with interrupts, self._lock:
            self._look_for_item(task_id)
            return self.client.streams.has_next(task_id)

    def items_are_over(self, task_id: bytes) -> bool:
        """Whether the task has ended and all of its items were taken."""
        with interrupts, self._lock:
            self._look_for_item(task_id)
            return self.client.streams.is_over(task_id)

    def next_item_id(self, task_id: bytes) -> bytes:
        """The object that is ready when the next item is there, or is known not to come."""
        with interrupts, self._lock:
            return self.client.streams.next_id(task_id)

    # ---- with the lock held ----------------------------------------------------------------

    def _take_item(self, task_id: bytes) -> bytes | None:
        oid = self.client.streams.take(task_id)
        if oid is not None and self.client.streams.tells:
            self.client.streams.tells = False
            self._flush()
        return oid

    def _wait_for_item(self, task_id: bytes, timeout: float | None) -> None:
        oid, waiter = self.client.streams.next_id(task_id), Waiter()
        self.client.want_outcome(oid, waiter)
        try:
            self._await(waiter, timeout, lambda: oid)
        finally:
            if waiter.remaining > 0:
                self.client.forget_waiter([oid], waiter)
        if timeout is None:
            self._raise_if_stopped()

    def _look_for_item(self, task_id: bytes) -> None:
        streams = self.client.streams
        if not (streams.has_next(task_id) or streams.is_over(task_id)):
            self._wait_for_item(task_id, 0.0)

    def _raise_if_stopped(self) -> None:
        if self.client.stopped:
            raise ClusterShutdownError(f"the next item will not come: {self.client.stopped}")

    def _item_future(self, task_id: bytes, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        future: asyncio.Future[None] = loop.create_future()

        def come() -> None:
            if not future.done():
                future.set_result(None)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(come)

        waiter = Waiter(lambda: self._completions.append(tell))
        self.client.want_outcome(self.client.streams.next_id(task_id), waiter)
        self._flush()
        self._attend()
        return future
