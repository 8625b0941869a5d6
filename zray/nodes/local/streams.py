"""What a generator yields in local mode, from its submission until its caller has taken it all.

A plain one makes an item when somebody waits for one, in that one's thread. Those of actors that
run calls at once make theirs ahead, in the actor's threads or event loops.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from zray.core import failures
from zray.errors import TaskCancelledError
from zray.ids import item_id, object_id
from zray.nodes.local.objects import LocalObjects
from zray.nodes.local.work import Work, outcome_of, stops_the_program
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.returns import encoded, generated

Inside = Callable[[Callable[[], Any]], Any]  # calls something where the generator runs


class LocalStream:
    """Attributes:
    ended: it makes no more.
    lazy: it has begun, and waits to be asked for the next item.
    """

    def __init__(self, objects: LocalObjects, work: Work) -> None:
        self._objects = objects
        self._work = work
        self._values: Any = None
        self._inside: Inside = lambda call: call()
        self._record: Callable[[BaseException], bytes] = work.record
        self._covers: Callable[[BaseException], bool] = lambda error: False
        self._again: Callable[[], Any] = lambda: iter(())
        self._over: Callable[[], None] = lambda: None
        self.lazy = False
        self._items: deque[bytes] = deque()  # made, and not taken
        self._made = 0
        self.ended = False
        self._failed = False  # its end is an error that nobody has taken
        self._closed = False  # nobody takes any more
        self._making = threading.RLock()  # held while a lazy one runs
        self._changed = threading.Condition()
        self._wake: Callable[[], object] = lambda: None  # what waits for room in a loop

    def begin(
        self,
        values: Any,
        inside: Inside,
        record: Callable[[BaseException], bytes],
        covers: Callable[[BaseException], bool],
        again: Callable[[], Any],
        over: Callable[[], None],
        *,
        lazy: bool,
    ) -> None:
        """It makes ``values`` from now on, which ``inside`` runs.

        ``record``: of what it raises; ``covers``: whether it then begins ``again``; ``over``: is
        called at its end.

        Raises:
            TypeError: these are not what a generator returns.
        """
        self._values = generated(values, self._work.name)
        self._inside, self._record, self._covers = inside, record, covers
        self._again, self._over = again, over
        self.lazy = lazy
        if self._closed and lazy:
            self.close()

    # ---- making ----------------------------------------------------------------------------

    def advance(self) -> None:
        """Make an item, or find that there are no more."""
        with self._making:
            if self.ended:
                return
            try:
                value = self._inside(partial(next, self._values))
            except StopIteration:
                self.end()
                return
            except BaseException as error:
                self._raised(error)
                return
            self._yielded(value)

    def _raised(self, error: BaseException) -> None:
        """The generator has raised it: it begins again, or that is its last item."""
        if stops_the_program(error):
            self._work.cancelled = True
            self.end()
            raise error
        data = self._record(error)
        if not self._work.cancelled and self._covers(error):
            if not self._work.takes_again():
                self.fail(data)
                return
            self._values = self._again()
            for _ in range(self._made):
                self._inside(partial(next, self._values, None))
            return
        self._add(m.Outcome(self._last(), m.ERROR, len(data), data))
        self.end()

    def _yielded(self, value: Any) -> None:
        try:
            what = f"an item of {self._work.name}"
            parts = encoded(value, what, portable=self._work.portable)
        except Exception as error:
            self._close_values()
            self._raised(error)
            return
        self._add(outcome_of(self._last(), parts))

    def _last(self) -> bytes:
        """The item that is made next."""
        return item_id(self._work.task_id, self._made + 1)

    def _add(self, outcome: m.Outcome) -> None:
        oid = outcome.object_id
        with self._changed:
            self._made += 1
            if self._closed:
                return
            self._objects.add([oid])
            self._items.append(oid)
        self._objects.settle([outcome])

    def end(self) -> None:
        """There is nothing more."""
        if self._work.cancelled:
            self._end(self._work.stop)
            return
        data, _ = serialization.dumps(None)
        end = m.Outcome(object_id(self._work.task_id), m.VALUE, len(data), data)
        self._end(partial(self._objects.settle, [end]))

    def fail(self, record: bytes) -> None:
        """It has ended with that error, before it has made anything or as a whole."""
        self._failed = not self.ended
        self._end(partial(self._work.fail, record))

    def _end(self, settle: Callable[[], None]) -> None:
        with self._changed:
            if self.ended:
                return
            self.ended = True
            self._changed.notify_all()
        settle()
        self._objects.never(self._last())
        self._over()

    # ---- ahead of whoever takes them ---------------------------------------------------------

    def drive(self) -> None:
        """Make all, while there is room; returns at the end."""
        while not self.ended:
            with self._changed:
                self._changed.wait_for(self._goes_on)
            if self._work.cancelled:
                self._close_values()
                self._add_cancelled()
                self.end()
            else:
                self.advance()

    async def drive_in_loop(self, values: AsyncIterator[Any]) -> None:
        """The same for an asynchronous generator."""
        import asyncio

        loop, room = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(room.set)
        try:
            while not self._goes_on():
                await room.wait()
            async for value in values:
                self._yielded(value)
                while not self._goes_on():
                    room.clear()
                    await room.wait()
                if self.ended:
                    break
            self.end()
        except asyncio.CancelledError:
            if not self.ended:
                self._add_cancelled()
            self.end()
        except Exception as error:
            self._raised(error)
        finally:
            self._wake = lambda: None

    def _goes_on(self) -> bool:
        most = self._work.unread_max
        return not most or len(self._items) < most or self._closed or self._work.cancelled

    # ---- taking ----------------------------------------------------------------------------

    def take(self) -> bytes | None:
        """The next item that is there, or the end that is an error, for a reference of its own."""
        with self._changed:
            if self._items:
                oid = self._items.popleft()
                self._changed.notify_all()
            elif self._failed:
                self._failed = False
                oid = object_id(self._work.task_id)
                self._objects.add([oid])
            else:
                return None
        self._wake()
        return oid

    def has_next(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._items) or self._failed

    def is_over(self) -> bool:
        """Whether nothing more is to be taken, now or later."""
        return self.ended and not self.has_next()

    def next_id(self) -> bytes:
        """What to wait for: it is there when ``take`` has something, or never will have."""
        with self._changed:
            return self._items[0] if self._items else self._last()

    def close(self) -> list[bytes]:
        """Nobody takes any more: a lazy one is closed. What is to be let go of."""
        with self._changed:
            self._closed = True
            unread = [*self._items]
            self._items.clear()
            self._changed.notify_all()
        self._wake()
        if self.lazy:
            self._stop(self.end)
        self._objects.forget_never(self._last())
        return unread

    def cancel(self) -> None:
        """It is to make no more; one that runs ahead finds out by itself."""
        self._work.cancelled = True
        with self._changed:
            self._changed.notify_all()
        self._wake()
        if self.lazy:
            self._stop(self._cancelled)

    def _cancelled(self) -> None:
        self._add_cancelled()
        self.end()

    def _stop(self, then: Callable[[], None]) -> None:
        if self.ended or not self._making.acquire(blocking=False):
            return
        try:
            self._close_values()
            then()
        finally:
            self._making.release()

    def _add_cancelled(self) -> None:
        data = failures.encode(TaskCancelledError, "it was cancelled", self._work.name)
        self._add(m.Outcome(self._last(), m.ERROR, len(data), data))

    def _close_values(self) -> None:
        close = getattr(self._values, "close", None)
        if close is not None:
            try:
                self._inside(close)
            except Exception:  # of code that nobody waits for
                pass
