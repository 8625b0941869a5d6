"""Actors in local mode that run several calls at once: in threads, or in event loops."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

from zray.nodes.local.actors import LocalActor
from zray.nodes.local.running import Running, context_of
from zray.nodes.local.streams import LocalStream
from zray.nodes.local.work import Work
from zray.protocol import messages as m
from zray.runtime.actor_exit import ActorExit


class ThreadedActor(LocalActor):
    """Each concurrency group has threads of its own, which are made as they are needed."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self._pools: dict[str, _Threads] = {}

    def begin(self, work: Work) -> None:
        """Run a call elsewhere."""
        group = self.group_of(work)
        with self.lock:
            most = self.most(group)
            pool = self._pools.setdefault(group, _Threads(group, most, self._serve))
        pool.run(work)

    def _serve(self, work: Work) -> None:
        self.run(work)
        self.pump()

    def end(self, reason: str, *, graceful: bool = True) -> None:
        """As ``LocalActor.end``; its threads end with the calls that they run."""
        super().end(reason, graceful=graceful)
        for pool in self._pools.values():
            pool.end()

    def yields_lazily(self) -> bool:
        """They run ahead."""
        return False


class AsyncActor(LocalActor):
    """Calls run in an event loop in a thread of its own; each concurrency group has one."""

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}
        self._tasks: dict[Work, asyncio.Task[None]] = {}

    def begin(self, work: Work) -> None:
        """Run a call elsewhere."""
        group = self.group_of(work)
        with self.lock:
            loop = self._loops.get(group)
            if loop is None:
                loop = self._loops[group] = asyncio.new_event_loop()
                title = f"zray-loop-{group}" if group else "zray-loop"
                threading.Thread(target=_run, args=(loop,), name=title, daemon=True).start()
        loop.call_soon_threadsafe(self._begin, loop, work)

    def _begin(self, loop: asyncio.AbstractEventLoop, work: Work) -> None:
        running = Running(work, 1, self.actor_id, self.info, self._restarts)
        self._tasks[work] = loop.create_task(self._serve(running), context=context_of(running))

    async def _serve(self, running: Running) -> None:
        work = running.work
        try:
            await self._attempts(running)
        finally:
            self._tasks.pop(work, None)
        asyncio.get_running_loop().call_soon(self.pump)

    async def _attempts(self, running: Running) -> None:
        work = running.work
        while True:
            try:
                await self._once_in_loop(running)
            except SystemExit as leaving:
                self.exits(work, leaving)
            except BaseException as error:
                if work.cancelled:
                    self.finish(work, work.stop)
                elif self.covers(work, error) and work.takes_again():
                    running.attempt += 1
                    continue
                else:
                    self.finish(work, partial(self._fail, work, self._record(work, error)))
            return

    async def _once_in_loop(self, running: Running) -> None:
        work = running.work
        if work.cancelled:  # before it has begun
            raise asyncio.CancelledError
        if (record := work.failed_argument()) is not None:
            self.finish(work, partial(self._fail, work, record))
            return
        value = work.bound(self.method(work))()
        if inspect.isawaitable(value):
            value = await value
        if running.leaves:
            raise ActorExit
        if inspect.isasyncgen(value):
            value = await self._items(work, value)
            if work.yields == m.ITEMS:
                return
        elif work.yields == m.ITEMS:
            self._yields(work, running, value)
            return
        if work.yields == m.REFERENCES:
            value = self.collected(work, value)
        self.answer(work, value)

    async def _items(self, work: Work, values: Any) -> Any:
        """Those of an asynchronous generator, or nothing where they went as they came."""
        if work.yields != m.ITEMS:
            return iter([value async for value in values])
        stream: LocalStream | None = self._streams.get(work.task_id)
        if stream is not None:
            record = partial(self._record, work)
            over = partial(self._stream_over, work)
            items = self.each(work, values)
            stream.begin(
                *(items, lambda call: call(), record, lambda error: False, lambda: items, over),
                lazy=False,
            )
            await stream.drive_in_loop(items)
        else:
            self.finish(work, work.stop)
        return None

    def yields_lazily(self) -> bool:
        """They run ahead."""
        return False

    def interrupt(self, work: Work) -> None:
        """Its coroutine is cancelled."""
        super().interrupt(work)
        task = self._tasks.get(work)
        if task is not None:
            task.get_loop().call_soon_threadsafe(_cancel, task)

    def end(self, reason: str, *, graceful: bool = True) -> None:
        """As ``LocalActor.end``; its loops stop when nothing runs there any more."""
        super().end(reason, graceful=graceful)
        for loop in self._loops.values():
            loop.call_soon_threadsafe(_stop, loop)
        self._loops = {}


class _Threads:
    """Those of a concurrency group: as many as calls have run in it at once, ``most`` at most."""

    def __init__(self, group: str, most: int, serve: Callable[[Work], None]) -> None:
        self._name = f"zray-call-{group}" if group else "zray-call"
        self._serve = serve
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._most = most
        self._idle = 0
        self._threads = 0

    def run(self, work: Work) -> None:
        """In one that has nothing to do, or another."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most:  # else one of them is about to be free
                self._threads += 1
                threading.Thread(target=self._live, name=self._name, daemon=True).start()
        self._works.put(work)

    def end(self) -> None:
        """All of them, once they have nothing to do."""
        for _ in range(self._threads):
            self._works.put(None)

    def _live(self) -> None:
        while (work := self._works.get()) is not None:
            self._serve(work)
            with self._lock:
                self._idle += 1


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    """What runs there is cancelled first, so that nothing of it is left behind."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        asyncio.gather(*tasks, return_exceptions=True).add_done_callback(lambda _: loop.stop())
    else:
        loop.stop()


def _cancel(task: asyncio.Task[None]) -> None:
    """One that has not begun sees to it when it does: else nobody would answer the call."""
    coroutine: Any = task.get_coro()
    if inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        task.cancel()
