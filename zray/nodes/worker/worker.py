"""A worker process: runs tasks one after the other, gives back on request what has not started.

The main thread runs user code and reads the task socket when it has nothing to do or waits; the
control thread (`control`) is parked on the control socket, for RECALL and CANCEL_TASK. Forked from
the zygote; no zmq here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core import failures
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import Entry
from zray.core.worker.task_inbox import CpuLoan, Delivered, TaskInbox
from zray.errors import TaskCancelledError
from zray.ids import IdSource, object_id
from zray.nodes.worker.actor_worker import ActorServer
from zray.nodes.worker.control import ControlThread
from zray.nodes.worker.introspection import Introspection
from zray.nodes.worker.user_code import UserCode, covers
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import references, session
from zray.runtime.interrupts import interrupts
from zray.runtime.linux.channels import open_page
from zray.runtime.linux.clock import boot_time
from zray.runtime.linux.direct import DirectLink
from zray.runtime.linux.zygote import set_process_name
from zray.runtime.quiet_lock import QuietLock
from zray.runtime.stream import FrameReader, FrameWriter, read_available

if TYPE_CHECKING:
    import asyncio

ACKNOWLEDGE_S = 0.5  # how long a blocked worker keeps it to itself that calls were answered


class Worker(Introspection):
    def __init__(self, worker_id: bytes, task_fd: int, control_fd: int, page_fd: int) -> None:
        ids = IdSource(os.urandom(8))
        super().__init__(Client(worker_id, bytes(16), ids, remote=False))
        self.worker_id = worker_id
        self.sequence = TaskInbox(worker_id)
        self._page = open_page(page_fd)
        self._started = 0
        self._task = socket.socket(fileno=task_fd)
        self._control = ControlThread(self._lock, self._flush, self.on_control, control_fd)
        self._reader = FrameReader()
        self._writer = FrameWriter(self._task)
        self.poller = select.epoll()
        self.poller.register(self._task, select.POLLIN)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.poller.register(self._wake_read, select.POLLIN)
        self._ready: list[int] | None = None  # what the last poll found, if nobody read since
        self.code = UserCode(self, self.sequence)
        self._main = threading.main_thread().ident or 0
        self._forked = False  # this process is a child of the worker
        self._running: bytes | None = None  # the task whose user code runs now
        self._interrupt: bytes | None = None  # the task that a cancel is for
        self._shown: m.Template | None = None  # whose name the process carries
        self._interrupted = False  # it was raised in that task
        self._keeps_drops = False  # results not yet sent contain references
        self._pump: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of an async actor
        self._look: Callable[[], object] = bool  # what that does when something came
        self._stop_in_loop: Callable[[Entry], object] = bool
        self._acknowledge_at = 0.0
        self._waiting = 0  # threads of user code that wait, but for the main thread
        self._loan = CpuLoan()

    # ---- transport -------------------------------------------------------------------------

    def _transmit(self) -> None:
        outbox = self.client.take_outbox()
        if outbox:
            self.send(outbox)

    def send(self, messages: list[m.Message]) -> None:
        """To the raylet. With the lock held."""
        try:
            for payload in codec.encode_local(messages):
                self._writer.send(payload)
        except OSError:
            os._exit(0)  # the raylet is gone

    def _poll(self, timeout_s: float) -> None:
        self._ready = [fd for fd, _ in self.poller.poll(timeout_s)]
        if self._wake_read in self._ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b".")

    def _lead_s(self) -> float:
        if self._waiting and not self.sequence.blocked and self.actor is None:
            return limits.IDLE_S
        return ACKNOWLEDGE_S if self.client.calls.unacknowledged() else 1.0

    def _respond(self) -> None:
        super()._respond()
        if self._waiting or self._loan.task_id is not None or self.client.has_callbacks():
            self._lend()
        now = time.monotonic()
        if now >= self._acknowledge_at and self.client.calls.unacknowledged():
            self._acknowledge_at = now + ACKNOWLEDGE_S
            self._flush()

    def _links_changed(self) -> None:
        for link in self._links.values():
            writes = select.POLLOUT if link.writer.pending else 0
            try:
                self.poller.modify(link, select.POLLIN | writes)
            except FileNotFoundError:
                self.poller.register(link, select.POLLIN | writes)
        self.attend_writes()

    def _store_changed(self) -> None:
        if self._store is not None:
            events = select.POLLIN | (select.POLLOUT if self._store_waits else 0)
            try:
                self.poller.modify(self._store.link, events)
            except FileNotFoundError:
                self.poller.register(self._store.link, events)

    def _store_leaves(self) -> None:
        if self._store is not None:
            with contextlib.suppress(OSError):
                self.poller.unregister(self._store.link)

    def _store_name(self) -> bytes:
        return self.sequence.setup.node_id if self.sequence.setup is not None else b""

    def _link_closed(self, link: DirectLink) -> None:
        with contextlib.suppress(OSError):
            self.poller.unregister(link)

    def _read(self) -> None:
        ready, self._ready = self._ready, None
        if self._links:
            self._read_links()
        if self._store is not None:
            self._read_store()
        if self.actor is not None:
            self.actor.read(ready)
            if ready is not None and self._task.fileno() not in ready:
                return
        self._read_task()
        if self._loop is not None and threading.get_ident() != self._main:
            self._loop.call_soon_threadsafe(self._look)

    def _read_task(self) -> None:
        frames, ended = read_available(self._task, self._reader)
        for frame in frames:
            for message in codec.decode(frame).messages:
                if self.sequence.receive(message):
                    continue
                if self.actor is not None and isinstance(message, m.Calls):
                    self.actor.receive(message, None)
                else:
                    self.client.message(message)
        if ended:
            os._exit(0)  # the raylet is gone
        if self.sequence.blocked or self._lends():
            self._give_back()

    def _give_back(self) -> None:
        returned = self.sequence.recall()
        if returned.task_ids:
            self.send([returned])

    def _before_blocking(self) -> None:
        """A task waits: nothing may be stuck behind it, and its CPU is free meanwhile."""
        if self.actor is not None:
            self.actor.send_replies()
        elif threading.get_ident() == self._main and self.sequence.current is not None:
            self.sequence.blocked = True
            self._say_blocked()
        elif threading.get_ident() != self._main:
            self._waiting += 1

    def _after_blocking(self) -> None:
        if threading.get_ident() != self._main:
            if self.actor is None:
                self._waiting -= 1
                self._lend()
        elif self.sequence.blocked:
            self.sequence.blocked = False
            self._loan.task_id = None
            self.send([m.Unblocked(0)])

    def _say_blocked(self) -> None:
        done = self.sequence.take_done(time.monotonic(), next_is_short=False)
        returned = self.sequence.recall()
        self.send([*([done] if done is not None else []), returned, m.Blocked(0)])

    def _lend(self) -> None:
        """Let others have the CPU of a task that waits by other means than its main thread.

        A thread of it waits, or a future or coroutine; whether the task computes meanwhile, the
        CPU time of the process says. With the lock held.
        """
        current = self.sequence.current
        if current is None or self.actor is not None or self.sequence.blocked:
            return
        waits = bool(self._waiting) or self.client.has_callbacks()
        now, used = time.monotonic(), time.process_time()
        lends = self._loan.step(current.spec.task_id, waits, now, used)
        if lends:
            self._say_blocked()
        elif lends is not None:
            self.send([m.Unblocked(0)])

    def _lends(self) -> bool:
        current = self.sequence.current
        return current is not None and current.spec.task_id == self._loan.task_id

    def _attend(self) -> None:
        """User code does not block but expects something: a thread reads for it from now on."""
        if self._pump_needed() and self._pump is None and self._loop is None:
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
        with self._lock:
            while self._pump_needed():
                if self._leading:
                    self._follow(None, 0.05)
                    continue
                self._lead_once(0.05)
            self._pump = None

    # ---- cancelling and giving back --------------------------------------------------------

    def on_control(self, message: m.Message) -> None:
        """The raylet asks for something while user code runs. With the lock held."""
        self._read()  # what was delivered before counts as delivered
        if isinstance(message, m.Recall):
            done = self.sequence.take_done(time.monotonic(), next_is_short=False)
            self.send([*([done] if done is not None else []), self.sequence.recall()])
        elif isinstance(message, m.CancelTask):
            returned = self.sequence.cancel(message)
            if returned is not None:
                self.send([returned])
            elif self._is_current(message):
                self._interrupt = message.task_id
                signal.pthread_kill(self._main, signal.SIGINT)
        elif isinstance(message, m.CancelCall) and self.actor is not None:
            running = self.actor.cancel(message)
            if running is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop_in_loop, running)

    def _is_current(self, message: m.CancelTask) -> bool:
        current = self.sequence.current
        if current is None or current.spec.task_id != message.task_id:
            return False
        return current.attempt == message.attempt

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        """In the main thread: only the task that was meant is interrupted."""
        if self._interrupt is not None and self._interrupt == self._running:
            self._interrupt = None
            self._interrupted = True
            raise KeyboardInterrupt

    def abandon(self) -> None:
        """In a forked child: this connection is the parent's."""
        self._forked = True
        self._abandon_store()

    # ---- for the actor that this worker is ---------------------------------------------------

    def lease_holds(self) -> bool:
        """Whether the head counts this node in for certain, as its raylet has said."""
        return boot_time() < self._page.lease_until

    @property
    def lock(self) -> QuietLock:
        return self._lock

    def flush(self) -> None:
        """Send what is to be sent. With the lock held."""
        self._flush()

    def flush_if_due(self) -> None:
        """Send holds, drops and what else waits, if there is any. With the lock held."""
        if references.pending() or self.client.unsaid() or self._store_due():
            self._flush()

    def wait_for(self, waiter: Waiter) -> None:
        """Wait as one that runs nothing yet. With the lock held."""
        self._wait(waiter, float("inf"))

    def keep_drops(self) -> None:
        """A result that contains references is about to leave."""
        self._keeps_drops = True

    def wake(self) -> None:
        """End the main thread's wait."""
        self._wake()

    def collect_dropped(self) -> None:
        """Count references that were dropped. With the lock held."""
        self._collect_dropped()

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
        self._poll(0)
        self._read()
        self._respond()
        self._notify()
        if self._leading:
            self._wake()

    def end_if_forked(self) -> None:
        """User code may have forked; its child has no connection, and runs nothing else."""
        if self._forked:
            os._exit(0)

    def complete_due(self) -> None:
        """Call what waits for values that have come."""
        self._complete()

    # ---- running ---------------------------------------------------------------------------

    def run(self) -> int:
        interrupts.install(signal.SIGINT, self._on_interrupt)
        self._control.start()
        while True:
            with self._lock:
                delivered = self._next()
            if delivered is None:
                return 0
            self._execute(delivered)
            if self.actor is not None:
                return self._serve(self.actor)

    @staticmethod
    def _serve(actor: ActorServer) -> int:
        """The rest of this process's life."""
        if not (actor.info.is_async or actor.info.max_concurrency > 1):
            return actor.run()
        from zray.nodes.worker import actor_modes  # takes long to import

        if actor.info.is_async:
            return actor_modes.AsyncMode(actor).run()
        return actor_modes.ThreadedMode(actor).run()

    def _next(self) -> Delivered | None:
        """The next task; waits for it. None: the worker is to end. With the lock held."""
        while True:
            if self._leading:
                self._follow(None, 0.05)  # the pump of a former task reads
            delivered = self.sequence.next()
            if delivered is not None:
                self._interrupt = None
                self._started += 1
                self._page.count = self._started
                self.assignment = delivered.assignment
                return delivered
            self._send_done()
            if self.sequence.exiting:
                return None
            self.code.rest()
            if not self._leading:
                self._lead_once(60.0)
                if self.sequence.setup is not None and self.client.job_id == bytes(16):
                    self._set_up(self.sequence.setup)

    def _send_done(self) -> None:
        """Results, and before them whatever they refer to."""
        self._flush()
        done = self.sequence.take_done(time.monotonic(), next_is_short=True)
        if done is not None:
            self.send([done])
            self._keeps_drops = False

    def _collect_dropped(self) -> None:
        """A reference in a result is dropped only after the result holds its object."""
        if not self._keeps_drops:
            super()._collect_dropped()

    def _set_up(self, setup: m.Setup) -> None:
        """Take the place of the driver's process: its directory and import path, if it is here."""
        self.client.job_id = setup.job_id
        if setup.local:
            with contextlib.suppress(OSError):
                os.chdir(setup.job.directory)
            known = set(sys.path)
            sys.path[:0] = [path for path in setup.job.python_path if path not in known]
        self.namespace = setup.job.namespace
        self.machine = setup.machine
        references.connect(self)
        session.set_participant(self)

    def _execute(self, delivered: Delivered) -> None:
        assignment = delivered.assignment
        spec = assignment.spec
        template = self.sequence.templates[spec.template_id]
        if template is not self._shown:
            self._shown = template
            made = assignment.actor
            set_process_name(f"zray:{made.class_name if made else template.name}"[:15])
        status, outcomes, seconds = self._attempt(delivered, template)
        self.end_if_forked()
        with interrupts, self._lock:
            self._collect_dropped()
            borrowed = self.client.references.end_task()
            if self.client.backlog:
                self._flush()
            while self.client.backlog and not self.client.stopped:  # the window is full
                self._drain_backlog()
            self.sequence.finished(status, outcomes, seconds, borrowed, time.monotonic())
            self._send_done()
        self.assignment = None

    def _drain_backlog(self) -> None:
        """Submitted tasks reach the head before the result that may name them."""
        if self._leading:
            self._follow(None, 0.05)
            return
        self._before_blocking()
        self._lead_once(1.0)
        self._flush()
        self._after_blocking()

    def _attempt(
        self, delivered: Delivered, template: m.Template
    ) -> tuple[int, list[m.Outcome], float]:
        """Run user code once: status, outcomes and run time in seconds."""
        spec = delivered.assignment.spec
        began = time.perf_counter()
        retry: Any = False
        try:
            try:
                function, retry = self.code.function(
                    template, delivered.assignment.actor is not None
                )
                if delivered.assignment.actor is not None:
                    self.client.references.own_handle = object_id(spec.task_id)
                args, kwargs = self.code.arguments(delivered)
                self._running = spec.task_id
                self._on_interrupt(signal.SIGINT, None)  # for what came before user code
                value = function(*args, **kwargs)
                del args, kwargs
            finally:
                self._running = None
            if delivered.assignment.actor is not None:
                made = delivered.assignment
                if template.by_name:
                    made = self.code.imports.as_offered(made, template.name)
                self.actor = ActorServer(self, value, made, self.code.error)
                outcomes = [m.Outcome(object_id(spec.task_id), m.VALUE, 0)]
            else:
                outcomes = self.code.outcomes(spec.task_id, template, value)
            return m.FINISHED, outcomes, time.perf_counter() - began
        except BaseException as error:
            seconds = time.perf_counter() - began
            if isinstance(error, KeyboardInterrupt) and self._interrupted:
                data = failures.encode(TaskCancelledError, "the task was cancelled", template.name)
                status = m.CANCELLED
            else:
                data = self.code.error(error, template.name)
                status = m.FAILED if covers(retry, error) else m.FINISHED
            return status, failures.outcomes(spec.task_id, template.num_returns, data), seconds
        finally:
            self._interrupt = None
            self._interrupted = False


def main(worker_id: bytes, task_fd: int, control_fd: int, page_fd: int) -> int:
    """Entry of a forked worker; see ``zray.runtime.linux.zygote``."""
    gc.freeze()
    return Worker(worker_id, task_fd, control_fd, page_fd).run()
