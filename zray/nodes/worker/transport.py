"""A worker's sockets: what is sent to its raylet, and which of its threads waits and reads.

Owns the poller and the thread that reads while user code expects something; what is read is dealt
with by the `worker`.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import Entry
from zray.nodes.worker.control import ControlThread
from zray.nodes.worker.introspection import Introspection
from zray.nodes.worker.poller import Poller
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.linux.direct import DirectLink
from zray.runtime.quiet_lock import QuietLock
from zray.runtime.stream import FrameReader, FrameWriter

LOOP_READS_S = 0.02  # a loop that has not read for so long may be held up

if TYPE_CHECKING:  # loaded where they are needed
    import asyncio

    from zray.core.worker.progress_bars import ProgressBars
    from zray.nodes.worker.progress import WorkerBar


class Transport(Introspection):
    """Made before the process is: what is of that comes with ``inherit``."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._control = ControlThread(
            *(self._lock, self._flush, self.on_control, self._look_after),
            self._report,
        )
        self._reader = FrameReader()
        self.tellings = 0  # how often the raylet was told something
        self._bars: ProgressBars | None = None
        self._ready: list[int] | None = None  # what the last poll found, if nobody read since
        self._pump: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of an async actor
        self._looks = 0  # how often that has read
        self._look: Callable[[], object] = bool  # what that does when something came
        self._stop_in_loop: Callable[[Entry], object] = bool

    def inherit_sockets(self, task_fd: int, control_fd: int) -> None:
        """In the process whose it is, with its ends of them."""
        self._task = socket.socket(fileno=task_fd)
        self._writer = FrameWriter(self._task)
        self.poller = Poller()
        self.poller.watch(self._task)
        self._control.inherit(control_fd)

    def on_control(self, message: m.Message) -> None:
        """The raylet asks for something while user code runs. With the lock held."""
        raise NotImplementedError

    def _report(self) -> None:
        """Tell what has run. With the lock held."""
        raise NotImplementedError

    def _look_after(self) -> bool:
        """Now and then, from another thread; False: no more. With the lock held."""
        return False

    # ---- sockets ---------------------------------------------------------------------------

    def _transmit(self) -> None:
        outbox = self.client.take_outbox()
        if outbox:
            self.tell_raylet(outbox)

    def tell_raylet(self, messages: list[m.Message]) -> None:
        """To the raylet. With the lock held."""
        self.tellings += 1
        self.tell_aside(messages)

    def tell_aside(self, messages: list[m.Message]) -> None:
        """The same for what changes nothing: nobody has to know when it has come."""
        try:
            for payload in codec.encode_local(messages):
                self._writer.send(payload)
        except OSError:
            os._exit(0)  # the raylet is gone

    def open_bar(self, label: str, total: int, unit: str = "") -> WorkerBar:
        from zray.core.worker.progress_bars import ProgressBars
        from zray.nodes.worker.progress import WorkerBar

        if self._bars is None:
            self._bars = ProgressBars()
        return WorkerBar(self, self._bars, label, total, unit)

    def _poll(self, timeout_s: float) -> None:
        self._ready = self.poller.poll(timeout_s)

    def _wake(self) -> None:
        self.poller.wake()

    def _links_changed(self) -> None:
        for link in self._links.values():
            self.poller.watch(link, writes=bool(link.writer.pending))
        self.attend_writes()

    def _store_changed(self) -> None:
        if self._store is not None:
            self.poller.watch(self._store.link, writes=self._store_waits)

    def _store_leaves(self) -> None:
        if self._store is not None:
            self.poller.forget(self._store.link)

    def _link_closed(self, link: DirectLink) -> None:
        self.poller.forget(link)

    def _drain_backlog(self) -> None:
        """Submitted tasks reach the head before the result that may name them."""
        if self._leading:
            self._follow(None, 0.05)
            return
        self._before_blocking()
        self._lead_once(1.0)
        self._flush()
        self._after_blocking()

    # ---- who reads while user code runs ------------------------------------------------------

    def _attend(self) -> None:
        """User code does not block but expects something: a thread reads for it from now on."""
        if self._loop is None:
            self._read_by_pump()
        else:
            self._control.nudge()

    def _attend_future(self) -> None:
        if self._loop is not None:
            self._read_by_pump()  # the loop does not, where its thread waits for the future itself
        self._attend()

    def _read_by_pump(self) -> None:
        if self._pump_needed() and self._pump is None:
            self._pump = threading.Thread(target=self._pump_loop, name="zray-pump", daemon=True)
            self._pump.start()
        else:
            self._control.nudge()

    def _send_calls(self) -> None:
        super()._send_calls()
        if self.client.calls.waiting() and self._pump is None:
            self._attend()  # who calls and then computes has called

    def attend_writes(self) -> None:
        """A socket does not take all that is to be sent: somebody waits until it does."""
        if self._pump is None and not self._leading and self._writes_pending():
            self._attend()

    def _writes_pending(self) -> bool:
        return any(link.writer.pending for link in self._links.values()) or (
            self.actor is not None and self.actor.writes_pending()
        )

    def _pump_needed(self) -> bool:
        return (
            bool(self._completions)
            or self.client.has_callbacks()
            or self.client.calls.waiting()
            or self._writes_pending()
        )

    def _pump_loop(self) -> None:
        looks = -1
        with self._lock:
            while self._pump_needed():
                if self._leading:
                    self._follow(None, 0.05)
                elif self._loop is not None and self._looks != looks:
                    looks = self._looks
                    self._unlocked(time.sleep, LOOP_READS_S)
                else:
                    self._lead_once(0.05)
            self._pump = None

    # ---- for the parts of the worker -------------------------------------------------------

    @property
    def lock(self) -> QuietLock:
        return self._lock

    def flush(self) -> None:
        """Send what is to be sent. With the lock held."""
        self._flush()

    def flush_if_due(self) -> None:
        """Send holds, drops and what else waits, if there is any. With the lock held."""
        self._flush_if_due()

    def wait_for(self, waiter: Waiter) -> None:
        """Wait as one that runs nothing yet. With the lock held."""
        self._wait(waiter, float("inf"))

    def wait_some(self, waiter: Waiter, patience_s: float | None) -> None:
        """Wait a while; for so long as one that goes on soon, else as one that blocks. With the
        lock held."""
        if patience_s is not None:
            self._wait(waiter, time.monotonic() + patience_s)
        else:
            self._await(waiter, limits.STREAM_AGAIN_S)

    def send_outbox(self) -> None:
        """Send what the client has to say, but no tasks. With the lock held."""
        self.client.references.flush_holds()
        self._transmit()

    def wake(self) -> None:
        """End the main thread's wait."""
        self._wake()

    def hear_control(self) -> None:
        """Between tasks: take what the raylet asks for. With the lock held."""
        self._control.hear()

    def lead_or_follow(self, timeout_s: float) -> None:
        """Wait until something has come. With the lock held."""
        if self._leading:
            self._follow(None, 0.05)
        else:
            self._lead_once(timeout_s)

    def read_in_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[], object],
        cancel: Callable[[Entry], object],
    ) -> None:
        """From now on ``loop`` calls ``look`` when there is something to read."""
        self._loop, self._look, self._stop_in_loop = loop, look, cancel
        loop.add_reader(self.poller.fileno(), look)

    def read(self) -> None:
        """Read what is there, for a loop. With the lock held."""
        self._looks += 1
        self._poll(0)
        self._read()
        self._respond()
        self._notify()
        if self._leading:
            self._wake()

    def read_aside(self) -> None:
        """Read what is there, while the main thread runs user code. With the lock held."""
        self._read()
        self._respond()
        self._notify()

    def complete_due(self) -> None:
        """Call what waits for values that have come."""
        self._complete()
