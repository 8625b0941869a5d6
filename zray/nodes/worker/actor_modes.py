"""Actors that run several calls at once: in threads, or in an event loop. See `actor_worker`."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor

from zray import limits
from zray.core.worker.actor_inbox import Entry
from zray.nodes.worker.actor_worker import ActorServer, current_call
from zray.runtime.actor_exit import ActorExit


class ThreadedMode:
    """The main thread reads and hands calls to threads, which are made as they are needed."""

    def __init__(self, server: ActorServer) -> None:
        self._server = server
        self._pool = ThreadPoolExecutor(server.info.max_concurrency, "zray-call")

    def run(self) -> int:
        """Serve until told to end; the process's exit code."""
        server, worker = self._server, self._server.worker
        with worker.lock:
            while not server.over():
                self._start()
                server.send_replies()
                worker.flush_if_due()
                worker.lead_or_follow(server.look_after_s())
        return server.leave()

    def _start(self) -> None:
        while (entry := self._server.inbox.next()) is not None:
            self._pool.submit(self._execute, entry)

    def _execute(self, entry: Entry) -> None:
        server = self._server
        ended = server.execute(entry)
        if ended is not None:
            server.finish(entry, ended)
        with server.worker.lock:
            server.send_replies()
            server.worker.flush_if_due()
            self._start()
            if server.over():
                server.worker.wake()


class AsyncMode:
    """The main thread runs an event loop, which also reads."""

    def __init__(self, server: ActorServer) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[Entry, asyncio.Task[None]] = {}
        self._flushing = False
        self._looks_soon = False
        self._ended = self._loop.create_future()

    def run(self) -> int:
        """Serve until told to end; the process's exit code."""
        asyncio.set_event_loop(self._loop)
        worker = self._server.worker
        worker.read_in_loop(self._loop, self._look, self._cancel)
        self._look_again()
        self._loop.run_until_complete(self._ended)
        return self._server.leave()

    def _look(self) -> None:
        """Something has come: start what can start."""
        server, worker = self._server, self._server.worker
        with worker.lock:
            worker.read()
            while (entry := server.inbox.next()) is not None:
                self._tasks[entry] = self._loop.create_task(self._execute(entry))
            over = server.over()
            server.send_replies()
            worker.flush()
        worker.complete_due()
        if server.inbox.paused and not self._looks_soon:
            self._looks_soon = True
            self._loop.call_later(limits.LEASE_LOOK_S, self._look_soon)
        if over and not self._ended.done():
            self._ended.set_result(None)

    def _look_again(self) -> None:
        """Now and then, though nothing has come: callers may have ended."""
        self._look()
        self._loop.call_later(limits.ACTOR_CALLERS_CHECK_S, self._look_again)

    def _look_soon(self) -> None:
        """It may serve again."""
        self._looks_soon = False
        self._look()

    def _cancel(self, entry: Entry) -> None:
        """In the loop: ask a running call to stop."""
        task = self._tasks.get(entry)
        if task is not None:
            task.cancel()

    async def _execute(self, entry: Entry) -> None:
        server = self._server
        current_call.set(entry)
        try:
            method, args, kwargs = server.prepare(entry)
            try:
                value = method(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
            finally:
                server.worker.end_if_forked()
            ended = server.results(entry, value)
        except ActorExit as leaving:
            server.exit(str(leaving))
            self._look()
            return
        except asyncio.CancelledError as error:
            ended = server.stopped(entry) if entry.cancelled else server.error(entry, error)
        except BaseException as error:
            ended = server.error(entry, error)
        finally:
            self._tasks.pop(entry, None)
        server.finish(entry, ended)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._look()
