"""Generators that run in this worker: what they yield, on its way to its consumer.

The OutgoingStream machines decide. Items of one turn leave together: the first at once, those that
follow within STREAM_DELAY_S. A task's or call's end is told once its consumer has all items, so
whoever dies before, the task is not over, and its next attempt yields the same again.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.outgoing_stream import OutgoingStream
from zray.errors import TaskCancelledError
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef, counted
from zray.runtime.returns import encoded, generated

if TYPE_CHECKING:
    from zray.nodes.worker.host import Host

Send = Callable[[m.Items], None]


class Source(NamedTuple):
    """Which task or call yields.

    ``consumer``, ``wanted``: as in TaskSpec.
    ``send``: tells its consumer, with the worker's lock held. ``stopped``: whether it is cancelled.
    ``error``: what it has raised, as an item; None: that is not its last item, but its end.
    """

    task_id: bytes
    consumer: bytes
    unread_max: int
    name: str
    portable: bool
    send: Send
    stopped: Callable[[], bool]
    error: Callable[[Exception], bytes | None]
    wanted: frozenset[int] = frozenset()


class Running:
    """One that runs. ``waiter``, ``wake``: who waits for its consumer, and is called then.

    ``ahead``: 1 while it may make an item that is not there yet, where all of them share a bound.
    """

    __slots__ = ("ahead", "machine", "source", "waiter", "wake")

    def __init__(self, source: Source, worker_id: bytes) -> None:
        self.source = source
        self.machine: OutgoingStream[ObjectRef[Any]] = OutgoingStream(
            *(source.task_id, worker_id, source.consumer, source.unread_max, time.monotonic())
        )
        self.ahead = 0
        self.waiter: Waiter | None = None
        self.wake: Callable[[], object] | None = None

    def heard(self) -> None:
        """The consumer has said something: whoever waits looks again."""
        if self.waiter is not None:
            self.waiter.remaining = 0
        if self.wake is not None:
            self.wake()

    def waits(self) -> bool:
        """Whether it waits for its consumer."""
        return self.waiter is not None or self.wake is not None

    def send(self, message: m.Items | None) -> None:
        """To its consumer."""
        if message is not None:
            self.source.send(message)


class StreamServer:
    """``attend``: have ``flush`` called soon, and ``look`` now and then, from another thread.

    ``unread_max``: as in ActorInfo.
    """

    def __init__(self, worker: Host, attend: Callable[[], None]) -> None:
        self._worker = worker
        self._attend = attend
        self.unread_max = 0
        self._running: dict[bytes, Running] = {}

    # ---- with the lock held ----------------------------------------------------------------

    def on_taken(self, message: m.Taken) -> None:
        """A consumer tells how far it is."""
        running = self._running.get(message.task_id)
        if running is not None:
            running.machine.on_taken(message, time.monotonic())
            self._heard(running)

    def forget(self, consumer: bytes) -> None:
        """The consumer has ended."""
        for running in self._running.values():
            if running.source.consumer == consumer:
                running.machine.gone()
                self._heard(running)

    def _heard(self, running: Running) -> None:
        for one in self._running.values() if self.unread_max else (running,):
            one.heard()

    def _may_go_on(self, running: Running) -> bool:
        """Whether a generator may make another item, which where all share a bound it then may."""
        if not running.machine.may_go_on():
            return False
        if not self.unread_max or running.machine.closed or running.ahead:
            return True
        unread = sum(one.ahead + one.machine.unread() for one in self._running.values())
        running.ahead = int(unread < self.unread_max)
        return bool(running.ahead)

    def waits(self) -> bool:
        """Whether a generator waits for its consumer."""
        return bool(self._running) and any(map(Running.waits, self._running.values()))

    def flush(self) -> None:
        """Send what has not left."""
        for running in self._running.values():
            if running.machine.fresh():
                self._flush(running)

    def look(self, *, reads: bool) -> bool:
        """Now and then; ``reads``: nobody else does. Returns whether to look again."""
        owing = [one for one in self._running.values() if not one.machine.is_settled()]
        if owing and reads:
            self._worker.read_aside()
        for running in owing:
            running.send(running.machine.again(time.monotonic()))
        return bool(owing)

    def _flush(self, running: Running) -> None:
        if self._worker.client.outbox:
            self._worker.send_outbox()  # what the items refer to comes first
        running.send(running.machine.take(time.monotonic()))

    # ---- running ---------------------------------------------------------------------------

    def drive(self, source: Source, values: Any) -> None:
        """Yield all of ``values``, and what they raise; returns when the consumer has that.

        Raises:
            TypeError: these are not what a generator returns.
            Whatever they raise that is the end of the task or call.
        """
        running = self._begin(source, values)
        try:
            try:
                go_on = functools.partial(self._may_go_on, running)
                iterator = iter(values)
                while True:
                    if self.unread_max or not running.machine.may_go_on():
                        self._wait(running, go_on)
                    if source.stopped():
                        raise TaskCancelledError("it was cancelled")
                    try:
                        value = next(iterator)
                    except StopIteration:
                        break
                    self._add(running, value)
                    del value
            except Exception as error:
                if not self._add_error(running, error):
                    self._settle(running)
                    raise
            self._settle(running)
        finally:
            self._end(running)

    async def drive_in_loop(self, source: Source, values: AsyncIterator[Any]) -> None:
        """The same for an asynchronous generator."""
        running = self._begin(source, values)
        try:
            try:
                go_on = functools.partial(self._may_go_on, running)
                if self.unread_max:
                    await self._wait_in_loop(running, go_on)
                async for value in values:
                    self._add(running, value)
                    del value
                    if self.unread_max or not running.machine.may_go_on():
                        await self._wait_in_loop(running, go_on)
            except Exception as error:
                if not self._add_error(running, error):
                    await self._wait_in_loop(running, running.machine.is_settled)
                    raise
            await self._wait_in_loop(running, running.machine.is_settled)
        finally:
            self._end(running)

    def _begin(self, source: Source, values: Any) -> Running:
        generated(values, source.name)
        running = Running(source, self._worker.worker_id)
        with interrupts, self._worker.lock:
            self._running[source.task_id] = running
        return running

    def _end(self, running: Running) -> None:
        with interrupts, self._worker.lock:
            if running.machine.fresh():
                self._flush(running)
            del self._running[running.source.task_id]
            if self.unread_max:
                self._heard(running)  # others may have been kept by what it had

    def _add(self, running: Running, value: Any) -> None:
        source, machine, worker = running.source, running.machine, self._worker
        if not source.consumer:
            self._replace(running, value)
            return
        oid = machine.next_id()
        parts = encoded(value, f"an item of {source.name}", portable=source.portable)
        with interrupts:
            outcome = worker.kept(parts, oid)
            with worker.lock:
                pins = self._pins(outcome) if outcome.contained or outcome.kind else []
                machine.add(outcome, pins)
                running.ahead = 0
                if machine.due(time.monotonic()):
                    self._flush(running)
                else:
                    self._attend()

    def _add_error(self, running: Running, error: Exception) -> bool:
        data = running.source.error(error)
        if data is None:
            return False
        with interrupts, self._worker.lock:
            if self._worker.teller.reports.urgent:
                self._worker.teller.tell_failures()  # before whoever waits for the item knows of it
            outcome = m.Outcome(running.machine.next_id(), m.ERROR, len(data), data)
            if not running.source.consumer and self._is_wanted(running):
                self._put(outcome)
            running.machine.add(outcome, [])
        return True

    @staticmethod
    def _is_wanted(running: Running) -> bool:
        return running.machine.yielded + 1 in running.source.wanted

    def _replace(self, running: Running, value: Any) -> None:
        """An item that was lost is here again, or one that nobody lacks."""
        machine, oid = running.machine, running.machine.next_id()
        if not self._is_wanted(running):
            machine.add(m.Outcome(oid, m.VALUE, 0), [])
            return
        source = running.source
        parts = encoded(value, f"an item of {source.name}", portable=source.portable)
        with interrupts:
            outcome = self._worker.kept(parts, oid)
            with self._worker.lock:
                pins = self._pins(outcome)
                if not outcome.kind & m.LOCATED:
                    pins.append(self._put(outcome))
                machine.add(outcome, pins)
                self._worker.send_outbox()

    def _put(self, outcome: m.Outcome) -> ObjectRef[Any]:
        """The object is the cluster's; with the reference goes this process's hold."""
        client = self._worker.client
        client.references.adopt(outcome.object_id)
        client.outbox.append(m.Put(0, self._worker.worker_id, outcome))
        return counted(outcome.object_id)

    def _pins(self, outcome: m.Outcome) -> list[ObjectRef[Any]]:
        """What keeps all that an item refers to until its consumer holds it."""
        client, pins = self._worker.client, []
        client.references.publish(outcome.contained)
        for oid in outcome.contained:
            client.references.add(oid)
            pins.append(counted(oid))
        if outcome.kind & m.LOCATED:  # it is an object of this process's meanwhile
            pins.append(self._put(outcome))
        return pins

    # ---- waiting ---------------------------------------------------------------------------

    def _settle(self, running: Running) -> None:
        self._wait(running, running.machine.is_settled)

    def _wait(self, running: Running, enough: Callable[[], bool]) -> None:
        """Until the consumer has said so."""
        patience: float | None = limits.STREAM_PATIENCE_S
        with interrupts, self._worker.lock:
            if running.machine.fresh():
                self._flush(running)
            while not enough():
                running.waiter = Waiter()
                running.waiter.remaining = 1
                self._worker.wait_some(running.waiter, patience)
                patience = None
                running.send(running.machine.again(time.monotonic()))
            running.waiter = None

    async def _wait_in_loop(self, running: Running, enough: Callable[[], bool]) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        with self._worker.lock:
            if running.machine.fresh():
                self._flush(running)
            running.wake = lambda: loop.call_soon_threadsafe(heard.set)
        while not enough():
            try:
                await asyncio.wait_for(heard.wait(), limits.STREAM_AGAIN_S)
            except TimeoutError:
                with self._worker.lock:
                    running.send(running.machine.again(time.monotonic()))
            heard.clear()
        running.wake = None
