"""Actors that run several calls at once: in threads, or in event loops. See `actor_worker`."""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zray import limits
from zray.core.worker.actor_inbox import Entry
from zray.nodes.worker.actor_worker import ActorServer, current_call
from zray.protocol import messages as m
from zray.runtime.actor_exit import ActorExit


class ThreadedMode:
    """The main thread reads and hands calls to threads, which are made as they are needed.

    Each concurrency group has threads of its own.
    """

    def __init__(self, server: ActorServer) -> None:
        self._server = server
        limits_of = [("", server.info.max_concurrency), *server.info.groups]
        self._pools = {
            name: ThreadPoolExecutor(limit, f"zray-call-{name}" if name else "zray-call")
            for name, limit in limits_of
        }

    def run(self) -> int:
        """Serve until told to end; the process's exit code."""
        server, worker = self._server, self._server.worker
        with worker.lock:
            while True:
                self._start()
                server.send_replies()
                if server.over():
                    break
                worker.flush_if_due()
                worker.lead_or_follow(server.look_after_s())
        return server.leave()

    def _start(self) -> None:
        while (entry := self._server.inbox.next()) is not None:
            self._pools[entry.group.name].submit(self._execute, entry)

    def _execute(self, entry: Entry) -> None:
        server = self._server
        ended = server.execute(entry)
        if ended is not None:
            server.finish(entry, ended)
        with server.worker.lock:
            server.send_replies()
            server.worker.flush_if_due()
            self._start()
            if server.inbox.idle():
                server.worker.title.show(server.idle_title)
            if server.over():
                server.worker.wake()


class AsyncMode:
    """The main thread runs the event loop that the constructor has seen, which also reads.

    With concurrency groups it only reads: each group has a loop in a thread of its own, so that
    what blocks one does not block the others.
    """

    def __init__(self, server: ActorServer) -> None:
        self._server = server
        self._loop = _constructors()
        self._loops: dict[str, asyncio.AbstractEventLoop] = {}  # by group
        if server.info.groups:
            self._loops[""] = self._started("", self._loop)
            self._loop = asyncio.new_event_loop()
            for name, _ in server.info.groups:
                self._loops[name] = self._started(name, asyncio.new_event_loop())
        self._tasks: dict[Entry, asyncio.Task[None]] = {}
        self._flushing = False
        self._looks_soon = False
        self._ended = self._loop.create_future()

    def run(self) -> int:
        """Serve until told to end; the process's exit code."""
        asyncio.set_event_loop(self._loop)
        server, worker = self._server, self._server.worker
        worker.read_in_loop(self._loop, self._look, self._cancel)
        self._look_again()
        while not self._ended.done():
            try:
                self._loop.run_until_complete(self._ended)
            except (SystemExit, KeyboardInterrupt) as error:
                self._raised(error)
            except RuntimeError:
                if self._loop.is_closed():
                    raise  # else user code has stopped the loop, which is not its own
        return server.leave()

    def _raised(self, error: SystemExit | KeyboardInterrupt) -> None:
        """A task that a coroutine has made, for which nobody waits, has raised this."""
        if isinstance(error, SystemExit):
            self._server.exit(None, error)
            self._loop.call_soon_threadsafe(self._look)
        else:
            traceback.print_exception(error)

    def _started(self, name: str, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """The event loop, which runs in a thread of its own from now on."""

        def run() -> None:
            asyncio.set_event_loop(loop)
            while True:
                try:
                    loop.run_forever()  # again, if user code has stopped it
                except (SystemExit, KeyboardInterrupt) as error:
                    self._raised(error)

        title = f"zray-loop-{name}" if name else "zray-loop"
        threading.Thread(target=run, name=title, daemon=True).start()
        return loop

    def _look(self) -> None:
        """Something has come: start what can start."""
        server, worker = self._server, self._server.worker
        with worker.lock:
            worker.read()
            while (entry := server.inbox.next()) is not None:
                if self._loops:
                    loop = self._loops[entry.group.name]
                    loop.call_soon_threadsafe(self._begin, loop, entry)
                else:
                    self._begin(self._loop, entry)
            over = server.over()
            server.send_replies()
            worker.flush()
        worker.complete_due()
        if server.inbox.paused and not self._looks_soon:
            self._looks_soon = True
            self._loop.call_later(limits.LEASE_LOOK_S, self._look_soon)
        if over and not self._ended.done():
            self._ended.set_result(None)

    def _begin(self, loop: asyncio.AbstractEventLoop, entry: Entry) -> None:
        self._tasks[entry] = loop.create_task(self._execute(entry))

    def _look_again(self) -> None:
        """Now and then, though nothing has come: callers may have ended."""
        self._look()
        self._loop.call_later(limits.ACTOR_CALLERS_CHECK_S, self._look_again)

    def _look_soon(self) -> None:
        """It may serve again."""
        self._looks_soon = False
        self._look()

    def _cancel(self, entry: Entry) -> None:
        """In the main loop: ask a running call to stop."""
        task = self._tasks.get(entry)
        if task is not None:
            task.get_loop().call_soon_threadsafe(self._stop, entry)

    def _stop(self, entry: Entry) -> None:
        task = self._tasks.get(entry)
        if task is None:
            return
        execution: Any = task.get_coro()
        # One that has not begun sees to it when it does: else nobody would answer the call.
        if inspect.getcoroutinestate(execution) != inspect.CORO_CREATED:
            task.cancel()

    async def _execute(self, entry: Entry) -> None:
        server = self._server
        current_call.set(entry)
        began = server.begins(entry)
        try:
            if server.was_cancelled(entry):  # before it has begun
                raise asyncio.CancelledError
            method, args, kwargs = server.prepare(entry)
            try:
                value = method(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
                if entry.call.yields:
                    value = await self._yielded(entry, value)
            finally:
                server.worker.end_if_forked()
            if server.is_leaving(entry):
                raise ActorExit
            ended = server.stopped(entry) if entry.cancelled else server.results(entry, value)
        except SystemExit as leaving:
            server.exit(entry, leaving)
            self._loop.call_soon_threadsafe(self._look)
            return
        except BaseException as error:
            ended = server.stopped(entry) if entry.cancelled else server.error(entry, error)
        finally:
            self._tasks.pop(entry, None)
            server.ran(entry, began)
        server.finish(entry, ended)
        if not self._flushing:
            self._flushing = True
            if self._loops:
                self._loop.call_soon_threadsafe(self._flush)
            else:
                self._loop.call_soon(self._flush)

    async def _yielded(self, entry: Entry, values: Any) -> Any:
        """What a call returns that has returned a generator: one that is no coroutine holds up
        the loop, as other methods do."""
        server = self._server
        if not inspect.isasyncgen(values):
            return server.yielded(entry, values)
        if entry.call.yields == m.REFERENCES:
            found = [value async for value in values]
            return server.yielded(entry, iter(found))
        await server.streams.drive_in_loop(server.source(entry), server.each(entry, values))
        return None

    def _flush(self) -> None:
        self._flushing = False
        self._look()


def _constructors() -> asyncio.AbstractEventLoop:
    """The loop that ``asyncio.get_event_loop()`` has given to the constructor, if it asked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:  # newer Pythons make none
        return asyncio.new_event_loop()
