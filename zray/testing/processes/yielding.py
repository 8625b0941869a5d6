"""What simulated tasks and calls yield, on its way: the shipped OutgoingStream machine.

Does what the real worker does, and decides nothing. A program yields an item with the step Yield.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import staying
from zray.core.worker.outgoing_stream import OutgoingStream
from zray.ids import is_item, origin_of
from zray.protocol import messages as m
from zray.testing.processes.host import Host
from zray.testing.processes.pins import Pins
from zray.testing.processes.steps import (
    Fail,
    Interrupted,
    Program,
    Ref,
    Returned,
    TaskFailed,
    Until,
    Yield,
)

LOOK_S = limits.STREAM_AGAIN_S / 4


class Source(NamedTuple):
    """Which task or call yields. ``send``: tells its consumer; ``maker``: in the items."""

    task_id: bytes
    consumer: bytes
    unread_max: int
    maker: bytes
    send: Callable[[m.Items], None]
    wanted: frozenset[int] = frozenset()


class Running:
    """One that runs."""

    def __init__(self, source: Source, machine: OutgoingStream[Pins]) -> None:
        self.source = source
        self.machine = machine
        self.waiter: Waiter | None = None

    def heard(self) -> None:
        """The consumer has said something: whoever waits looks again."""
        if self.waiter is not None:
            self.waiter.remaining = 0


class SimStreams:
    """Of one worker."""

    def __init__(self, worker: Host) -> None:
        self._worker = worker
        self._running: dict[bytes, Running] = {}

    def on_taken(self, message: m.Taken) -> None:
        """A consumer tells how far it is."""
        running = self._running.get(message.task_id)
        if running is not None:
            running.machine.on_taken(message, self._worker.clock.now)
            running.heard()

    def yields(self, oid: bytes) -> bool:
        """Whether that is an item of something that runs here."""
        return is_item(oid) and origin_of(oid) in self._running

    def forget(self, consumer: bytes) -> None:
        """The consumer has ended."""
        for running in self._running.values():
            if running.source.consumer == consumer:
                running.machine.gone()
                running.heard()

    def keep_something(self) -> bool:
        """Whether a consumer may have yet to hold what items refer to, and large ones."""
        return any(not running.machine.is_settled() for running in self._running.values())

    def run(self, source: Source, program: Program) -> Program:
        """The program with what it yields sent; it ends when its consumer has that."""
        worker = self._worker
        machine: OutgoingStream[Pins] = OutgoingStream(
            *(source.task_id, worker.client.process_id, source.consumer, source.unread_max),
            worker.clock.now,
        )
        running = self._running[source.task_id] = Running(source, machine)
        self._look(running)
        value: Any = None
        error: BaseException | None = None
        try:
            while True:
                try:
                    step = program.send(value) if error is None else program.throw(error)
                except (StopIteration, TaskFailed) as end:
                    yield from self._until(running, machine.is_settled)
                    if isinstance(end, TaskFailed):
                        raise
                    return Returned(machine.yielded)
                value = error = None
                if isinstance(step, Yield):
                    self._add(running, step)
                    yield from self._until(running, machine.may_go_on)
                    continue
                if isinstance(step, Fail):
                    yield from self._until(running, machine.is_settled)
                try:
                    value = yield step
                except (TaskFailed, Interrupted) as raised:
                    error = raised
        finally:
            if self._running.get(source.task_id) is running:
                if worker.alive and machine.fresh():
                    self._flush(running)
                del self._running[source.task_id]

    def _until(self, running: Running, enough: Callable[[], bool]) -> Program:
        if running.machine.fresh() and not enough():
            self._flush(running)
        while not enough():
            running.waiter = Waiter()
            running.waiter.remaining = 1
            yield Until(running.waiter, [])
        running.waiter = None

    def _add(self, running: Running, step: Yield) -> None:
        worker, source, machine = self._worker, running.source, running.machine
        client = worker.client
        data, contained = worker.encode(Returned(*step), source.maker)
        oid = machine.next_id()
        outcome = m.Outcome(oid, m.VALUE, len(data), data, contained)
        client.references.publish(contained)
        pins = [worker.borrow(inner) for inner in contained]
        if staying([outcome]) if source.consumer else machine.yielded + 1 in source.wanted:
            client.references.adopt(oid)
            pins.append(Ref(worker, oid))
            client.outbox.append(m.Put(0, worker.worker_id, outcome))
            outcome = m.Outcome(oid, m.VALUE | m.LOCATED, outcome.size, b"", contained)
        for ref in pins:
            worker.references.remove(ref)
        machine.add(outcome, [Pins(pins)] if pins else [])
        if not source.consumer:
            worker.transmit()
        elif machine.due(worker.clock.now):
            self._flush(running)
        else:
            worker.clock.after(limits.STREAM_DELAY_S, self._flush_later, running)

    def _flush_later(self, running: Running) -> None:
        """The control thread sends what the program does not."""
        worker = self._worker
        if not worker.alive or not running.machine.fresh():
            return
        if worker.clock.now < worker.frozen_until:
            worker.clock.at(worker.frozen_until, self._flush_later, running)
        elif self._running.get(running.source.task_id) is running:
            self._flush(running)

    def _flush(self, running: Running) -> None:
        self._worker.transmit()  # what the items refer to comes first
        running.source.send(running.machine.take(self._worker.clock.now))

    def _goes_on(self, running: Running) -> bool:
        return self._worker.alive and self._running.get(running.source.task_id) is running

    def _look(self, running: Running) -> None:
        """The control thread looks now and then."""
        worker = self._worker
        if not self._goes_on(running):
            return
        worker.clock.after(LOOK_S, self._look, running)
        if worker.clock.now < worker.frozen_until:
            return
        worker.read_aside()
        if self._goes_on(running):
            again = running.machine.again(worker.clock.now)
            if again is not None and (again.outcomes or running.waiter is not None):
                running.source.send(again)
