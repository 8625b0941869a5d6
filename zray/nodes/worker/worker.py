"""A worker process: runs tasks one after the other, gives back on request what has not started.

The main thread runs user code and reads the task socket when it has nothing to do or waits; the
control thread (`control`) is parked on the control socket, for RECALL and CANCEL_TASK. Forked from
the zygote; no zmq here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import Entry
from zray.core.worker.task_inbox import Delivered, TaskInbox
from zray.ids import IdSource
from zray.nodes.worker.actor_worker import ActorServer
from zray.nodes.worker.attempts import Attempts
from zray.nodes.worker.control import ControlThread
from zray.nodes.worker.introspection import Introspection
from zray.nodes.worker.poller import Poller
from zray.nodes.worker.task_waits import TaskWaits
from zray.nodes.worker.user_code import UserCode
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
        self.task_inbox = TaskInbox(worker_id)
        self._page = open_page(page_fd)
        self._started = 0
        self._task = socket.socket(fileno=task_fd)
        self._control = ControlThread(self._lock, self._flush, self.on_control, control_fd)
        self._reader = FrameReader()
        self._writer = FrameWriter(self._task)
        self.poller = Poller()
        self.poller.watch(self._task)
        self._ready: list[int] | None = None  # what the last poll found, if nobody read since
        self.code = UserCode(self, self.task_inbox)
        self._attempts = Attempts(self.code, self.client.references, self._become)
        self._main = threading.main_thread().ident or 0
        self._forked = False  # this process is a child of the worker
        self._shown: m.Template | None = None  # whose name the process carries
        self._keeps_drops = False  # results not yet sent contain references
        self._pump: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of an async actor
        self._look: Callable[[], object] = bool  # what that does when something came
        self._stop_in_loop: Callable[[Entry], object] = bool
        self._acknowledge_at = 0.0
        self._handlers = self._table()
        self._waits = TaskWaits(self.task_inbox, self.tell_raylet, self.client.has_callbacks)

    def _table(self) -> dict[type[m.Message], Callable[[Any], None]]:
        """Which message of the raylet's goes to whom; what is not here is the client's."""
        return {
            **self.task_inbox.handlers,
            m.Calls: self._on_calls,
            # By the control socket, since they cannot wait for user code:
            m.Recall: self._on_recall,
            m.CancelTask: self._on_cancel_task,
            m.CancelCall: self._on_cancel_call,
        }

    # ---- transport -------------------------------------------------------------------------

    def _transmit(self) -> None:
        outbox = self.client.take_outbox()
        if outbox:
            self.tell_raylet(outbox)

    def tell_raylet(self, messages: list[m.Message]) -> None:
        """To the raylet. With the lock held."""
        try:
            for payload in codec.encode_local(messages):
                self._writer.send(payload)
        except OSError:
            os._exit(0)  # the raylet is gone

    def _poll(self, timeout_s: float) -> None:
        self._ready = self.poller.poll(timeout_s)

    def _wake(self) -> None:
        self.poller.wake()

    def _lead_s(self) -> float:
        if self._waits.threads and not self.task_inbox.blocked and self.actor is None:
            return limits.IDLE_S
        return ACKNOWLEDGE_S if self.client.calls.unacknowledged() else 1.0

    def _respond(self) -> None:
        super()._respond()
        if self.actor is None and self._waits.may_lend():
            self._waits.lend()
        now = time.monotonic()
        if now >= self._acknowledge_at and self.client.calls.unacknowledged():
            self._acknowledge_at = now + ACKNOWLEDGE_S
            self._flush()

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

    def _store_name(self) -> bytes:
        return self.task_inbox.setup.node_id if self.task_inbox.setup is not None else b""

    def _link_closed(self, link: DirectLink) -> None:
        self.poller.forget(link)

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
                self._handlers.get(type(message), self.client.message)(message)
        if ended:
            os._exit(0)  # the raylet is gone
        if self.task_inbox.blocked or self._waits.lends():
            self._give_back()

    def _on_calls(self, message: m.Calls) -> None:
        if self.actor is not None:
            self.actor.receive(message, None)

    def _give_back(self) -> None:
        returned = self.task_inbox.recall()
        if returned.task_ids:
            self.tell_raylet([returned])

    def _before_blocking(self) -> None:
        if self.actor is not None:
            self.actor.send_replies()
        elif threading.get_ident() != self._main:
            self._waits.threads += 1
        elif self.task_inbox.current is not None:
            self._waits.begin()

    def _after_blocking(self) -> None:
        if threading.get_ident() != self._main:
            if self.actor is None:
                self._waits.threads -= 1
                self._waits.lend()
        elif self.task_inbox.blocked:
            self._waits.end()

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
        self._handlers.get(type(message), self.client.message)(message)

    def _on_recall(self, message: m.Recall) -> None:
        done = self.task_inbox.take_done(time.monotonic(), next_is_short=False)
        self.tell_raylet([*([done] if done is not None else []), self.task_inbox.recall()])

    def _on_cancel_task(self, message: m.CancelTask) -> None:
        returned = self.task_inbox.cancel(message)
        if returned is not None:
            self.tell_raylet([returned])
        elif self._is_current(message):
            self._attempts.cancel(message.task_id)

    def _on_cancel_call(self, message: m.CancelCall) -> None:
        running = self.actor.cancel(message) if self.actor is not None else None
        if running is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_in_loop, running)

    def _is_current(self, message: m.CancelTask) -> bool:
        current = self.task_inbox.current
        if current is None or current.spec.task_id != message.task_id:
            return False
        return current.attempt == message.attempt

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
        self._attempts.handle_signals()
        self._control.start()
        while True:
            with self._lock:
                delivered = self._next()
            if delivered is None:
                return 0
            self._execute(delivered)
            if self.actor is not None:
                return self._serve(self.actor)

    def _become(self, instance: Any, made: m.Assignment) -> None:
        self.actor = ActorServer(self, instance, made, self.code.error)

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
            delivered = self.task_inbox.next()
            if delivered is not None:
                self._attempts.expect()
                self._started += 1
                self._page.count = self._started
                self.assignment = delivered.assignment
                return delivered
            self._send_done()
            if self.task_inbox.exiting:
                return None
            self.code.rest()
            if not self._leading:
                self._lead_once(60.0)
                if self.task_inbox.setup is not None and self.client.job_id == bytes(16):
                    self._set_up(self.task_inbox.setup)

    def _send_done(self) -> None:
        """Results, and before them whatever they refer to."""
        self._flush()
        done = self.task_inbox.take_done(time.monotonic(), next_is_short=True)
        if done is not None:
            self.tell_raylet([done])
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
        template = self.task_inbox.templates[spec.template_id]
        if template is not self._shown:
            self._shown = template
            made = assignment.actor
            set_process_name(f"zray:{made.class_name if made else template.name}"[:15])
        status, outcomes, seconds = self._attempts.run(delivered, template)
        self.end_if_forked()
        with interrupts, self._lock:
            self._collect_dropped()
            borrowed = self.client.references.end_task()
            if self.client.tasks.backlog:
                self._flush()
            while self.client.tasks.backlog and not self.client.stopped:  # the window is full
                self._drain_backlog()
            self.task_inbox.finished(status, outcomes, seconds, borrowed, time.monotonic())
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


def main(worker_id: bytes, task_fd: int, control_fd: int, page_fd: int) -> int:
    """Entry of a forked worker; see ``zray.runtime.linux.zygote``."""
    gc.freeze()
    return Worker(worker_id, task_fd, control_fd, page_fd).run()
