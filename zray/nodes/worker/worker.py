"""A worker process: runs tasks one after the other, gives back on request what has not started.

The main thread runs user code and reads the task socket when it has nothing to do or waits. What it
runs next it takes out of a queue, as the raylet does that wants it back. The control thread
(`control`) is parked on the control socket, for RECALL and CANCEL_TASK. Forked from the zygote; no
zmq here.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from zray import limits
from zray.core.client.client import Client
from zray.core.identity import NOBODY, Identity
from zray.core.worker.task_inbox import Delivered, TaskInbox
from zray.errors import TaskTimeoutError
from zray.ids import IdSource
from zray.nodes.worker.actor_worker import ActorServer
from zray.nodes.worker.attempts import Attempts
from zray.nodes.worker.job_setup import take_place
from zray.nodes.worker.leased import LeaseServer
from zray.nodes.worker.questions import Questions
from zray.nodes.worker.quiet_methods import hush
from zray.nodes.worker.streams import StreamServer
from zray.nodes.worker.task_teller import TaskTeller
from zray.nodes.worker.task_waits import TaskWaits
from zray.nodes.worker.transport import Transport
from zray.nodes.worker.user_code import UserCode
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import references, session
from zray.runtime.environment import take_on
from zray.runtime.interrupts import interrupts
from zray.runtime.linux.channels import open_page
from zray.runtime.linux.clock import boot_time
from zray.runtime.linux.direct import TaskQueue
from zray.runtime.linux.prints import ask_whose
from zray.runtime.linux.process_title import ProcessTitle
from zray.runtime.linux.zygote import set_process_name
from zray.runtime.stream import read_available

IDLE = b"zray::IDLE"  # a title
ACKNOWLEDGE_S = 0.5  # how long a blocked worker keeps it to itself that calls were answered


class Worker(Transport):
    """Made in the zygote, once for all that are forked there: `live` is the life of one of them."""

    def __init__(self) -> None:
        self.me = me = Identity(NOBODY, NOBODY, IdSource(bytes(8)))
        super().__init__(Client(me, remote=False))
        self.task_inbox = TaskInbox(me)
        self._started = 0
        self.streams = StreamServer(self, self._attend_items)
        self._items_due = False  # the control thread is about to send what was yielded
        self.code = UserCode(self, self.task_inbox, self.streams)
        self.leases = LeaseServer(self, self.streams)
        self.teller = TaskTeller(
            *(me, self.task_inbox, self.tell_aside, self._control.remind, self)
        )
        self.reports = self.teller.reports
        self._attempts = Attempts(self.code, self.client.references, self._become, self.reports)
        self.teller.runs_since = self._attempts.runs_since
        self.teller.begun = lambda: self._started
        self._run = self._attempts.run
        self._main = threading.main_thread().ident or 0
        self._forked = False  # this process is a child of the worker
        self._shown: m.Template | None = None  # whose name the process carries
        self._task_title = IDLE
        self._calls: dict[bytes, int] = {}  # of functions that may run only so often here
        self._keeps_drops = False  # results not yet sent contain references
        self._acknowledge_at = 0.0
        self._handlers = self._table()
        self._waits = TaskWaits(self.task_inbox, self._tell, self.client.has_callbacks)

    def _inherit(
        self, worker_id: bytes, task_fd: int, control_fd: int, page_fd: int, queue_fd: int
    ) -> None:
        self.me.become(worker_id, os.getpid(), os.urandom(8))
        self.inherit_sockets(task_fd, control_fd)
        self._page = open_page(page_fd)
        self._queue = TaskQueue.inherited(queue_fd)
        self.poller.watch(self._queue, once=True)  # it is looked at before each sleep
        self.title = ProcessTitle()
        ask_whose(self.running_task)

    @property
    def worker_id(self) -> bytes:
        return self.me.process_id

    def _table(self) -> dict[type[m.Message], Callable[[Any], None]]:
        """Which message of the raylet's goes to whom; what is not here is the client's."""
        return {
            **self.task_inbox.handlers,
            m.Calls: self._on_calls,
            m.Taken: self.streams.on_taken,
            m.Grant: self.leases.on_grant,
            # By the control socket, since they cannot wait for user code:
            m.Recall: self._on_recall,
            m.Cancel: self._on_cancel,
            m.CancelTask: self._on_cancel_task,
            m.CancelCall: self._on_cancel_call,
            m.Revoke: self.leases.on_revoke,
            m.Trace: self.teller.on_trace,
            **Questions(self.runs, self.tell_raylet, self.client.tasks.held).handlers,
        }

    # ---- transport -------------------------------------------------------------------------

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

    def _store_name(self) -> bytes:
        return self.task_inbox.setup.node_id if self.task_inbox.setup is not None else b""

    def _read(self) -> None:
        ready, self._ready = self._ready, None
        if self._links:
            self._read_links()
        if self._store is not None:
            self._read_store()
        if self.leases.sockets:
            self.leases.read(ready)
        if self.actor is not None:
            self.actor.read(ready)
        serves = self.actor is not None or self.leases.lease is not None
        if serves and ready is not None and self._task.fileno() not in ready:
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

    def _on_calls(self, message: m.Calls) -> None:
        if self.actor is not None:
            self.actor.receive(message, None)

    def look_on(self) -> None:
        """The control thread looks now and then from now on. With the lock held."""
        self._control.look_on()

    def _look_after(self) -> bool:
        leased = self.leases.look(reads=not self._leading)
        return self.streams.look(reads=not self._leading) or leased

    def _flush(self) -> None:
        super()._flush()
        self._items_due = False
        self.streams.flush()

    def _attend_items(self) -> None:
        """What was yielded leaves soon, though user code goes on. With the lock held."""
        if not self._items_due:
            self._items_due = True
            self._control.look_on()
            self._control.nudge()

    def tell_items(self, items: m.Items) -> None:
        """To the consumer of the task that runs. With the lock held."""
        self._tell([items])

    def _tell(self, messages: list[m.Message]) -> None:
        """Tell whoever has sent the tasks that are here."""
        if self.leases.lease is not None:
            self.leases.tell(messages)
        else:
            self.tell_raylet(messages)

    def _writes_pending(self) -> bool:
        return super()._writes_pending() or self.leases.writes_pending()

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

    def task_names(self) -> tuple[str, str]:
        made = self.assignment
        return self.task_inbox.names(made.spec.template_id) if made is not None else ("", "")

    # ---- cancelling and giving back --------------------------------------------------------

    def on_control(self, message: m.Message) -> None:
        """The raylet asks for something while user code runs. With the lock held."""
        self._read()  # what was delivered before counts as delivered
        self._handlers.get(type(message), self.client.message)(message)
        if self._leading:
            self._wake()  # what it waits for may have been read here

    def _on_recall(self, message: m.Recall) -> None:
        done = self.task_inbox.take_done(time.monotonic(), next_is_short=False)
        self.tell_raylet([*([done] if done is not None else []), self.task_inbox.recall()])

    def _on_cancel_task(self, message: m.CancelTask) -> None:
        self._cancel_below(message)
        if self.leases.lease is not None:
            if self.leases.on_cancel(message):
                self._attempts.cancel(message.task_id, timed_out=message.timed_out)
            return
        returned = self.task_inbox.cancel(message)
        if returned is not None:
            self.tell_raylet([returned])
        elif self.task_inbox.runs(message):
            self._attempts.cancel(message.task_id, timed_out=message.timed_out)

    def _on_cancel(self, message: m.Cancel) -> None:
        """Somebody else cancels what this process has called, or has submitted by a lease."""
        self.client.message(message)
        self._flush()

    def _cancel_below(self, message: m.CancelTask | m.CancelCall) -> None:
        if message.recursive and self.client.calls.cancel_below(message.task_id):
            self._flush()

    def _on_cancel_call(self, message: m.CancelCall) -> None:
        self._cancel_below(message)
        running = self.actor.cancel(message) if self.actor is not None else None
        if running is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_in_loop, running)

    def tell_spans(self) -> None:
        """What has run here, before this process ends."""
        with self._lock:
            self.teller.last_words()

    def abandon(self) -> None:
        """In a forked child: this connection is the parent's."""
        self._forked = True
        self._abandon_store()

    def _report(self) -> None:
        self.teller.report()

    # ---- for the actor that this worker is ---------------------------------------------------

    def lease_holds(self) -> bool:
        """Whether the head counts this node in for certain, as its raylet has said."""
        return boot_time() < self._page.lease_until

    def keep_drops(self) -> None:
        """A result that contains references is about to leave."""
        self._keeps_drops = True

    def collect_dropped(self) -> None:
        """Count references that were dropped. With the lock held."""
        self._collect_dropped()

    def end_if_forked(self) -> None:
        """User code may have forked; its child has no connection, and runs nothing else."""
        if self._forked:
            os._exit(0)

    # ---- running ---------------------------------------------------------------------------

    def live(
        self, worker_id: bytes, task_fd: int, control_fd: int, page_fd: int, queue_fd: int
    ) -> int:
        """In a process that was just forked: serve until the end; its exit code."""
        gc.freeze()
        self._inherit(worker_id, task_fd, control_fd, page_fd, queue_fd)
        code = self._run_tasks()
        self.tell_spans()
        return code

    def _run_tasks(self) -> int:
        self._attempts.handle_signals()
        self._control.start()
        with interrupts, self._lock:
            delivered = self._next()
        while delivered is not None:
            delivered = self._execute(delivered)
            if self.actor is not None:
                return self._serve(self.actor)
        return 0

    def leaves(self) -> None:
        """The actor that this is, or is being made, is to end."""
        if self.actor is not None:
            self.actor.leaves()
        elif self._attempts.construction is not None:
            self._attempts.construction.leaves()

    def _become(self, instance: Any, delivered: Delivered, made: m.Assignment) -> None:
        what = (instance, made, delivered.values, self.code.error, self.code.keep_call)
        self.actor = ActorServer(self, *what, self.streams)
        hush(self.actor)
        self.reports.actor = (made.spec.task_id, self.actor.info.class_name)
        self.teller.calls = self.actor.now_running

    @staticmethod
    def _serve(actor: ActorServer) -> int:
        """The rest of this process's life."""
        info = actor.info
        if not (info.is_async or info.max_concurrency > 1 or info.groups):
            return actor.run()
        from zray.nodes.worker import actor_modes  # takes long to import

        if actor.info.is_async:
            return actor_modes.AsyncMode(actor).run()
        return actor_modes.ThreadedMode(actor).run()

    def _next(self) -> Delivered | None:
        """The next task; waits for it. None: the worker is to end. With the lock held."""
        while True:
            if self.task_inbox.spent and self.leases.lease is None:
                self._give_back()
            self._control.hear()
            delivered = self.task_inbox.next()
            if delivered is None:
                delivered = self._take() if self.leases.lease is None else self.leases.next()
            if delivered is not None:
                if self.client.job_id == NOBODY:  # the first, which came with what it needs
                    self._begin()
                self._attempts.expect()
                self._started += 1
                self._page.count = self._started
                self.assignment = delivered.assignment
                if self.leases.lease is not None:
                    self.leases.begin(delivered)
                elif (early := self.task_inbox.untake()) is not None:
                    self.tell_raylet([early])
                return delivered
            self._send_done()
            if self.task_inbox.exiting:
                return None
            self.title.show(IDLE)
            self.code.rest()
            rest_s = 60.0
            if self.leases.lease is not None and (rest_s := self.leases.rests_s()) <= 0:
                continue
            if self._leading:
                self._follow(None, 0.05)  # the pump of a former task reads
                continue
            self._lead_once(rest_s)
            if self.client.job_id == NOBODY:
                self._begin()

    def _take(self) -> Delivered | None:
        """The next task, out of the queue; None: there is none.

        The queue is left empty, or with a packet taken out of it: the sleep that follows ends for
        what comes later alone.
        """
        while self.task_inbox.takes() and (packet := self._queue.take()) is not None:
            (tasks,) = codec.decode(packet).messages
            assert isinstance(tasks, m.Tasks)
            self.task_inbox.on_packet(tasks)
            if self._leading:
                self._read_task()  # what it is made of was sent before
            else:
                self._lead_once(0.0)  # all that: there is no other time where always one waits
            if (delivered := self.task_inbox.next()) is not None:
                return delivered
        return None

    def _send_done(self) -> None:
        """Results, and before them whatever they refer to."""
        if self.client.outbox:
            self._flush()
        else:
            self.flush_if_due()
        done = self.task_inbox.take_done(time.monotonic(), next_is_short=True)
        if done is not None:
            self._tell([done])
            self._keeps_drops = False

    def _collect_dropped(self) -> None:
        """A reference in a result is dropped only after the result holds its object."""
        if not self._keeps_drops:
            super()._collect_dropped()

    def _begin(self) -> None:
        """Serve a job as soon as it is known which."""
        if self.task_inbox.setup is not None:
            self._set_up(self.task_inbox.setup)

    def _set_up(self, setup: m.Setup) -> None:
        """Take the place of the driver's process: its directory and import path, if it is here."""
        self.me.job_id = setup.job_id
        self.namespace = setup.job.namespace
        self.machine = setup.machine
        take_place(self, setup)
        references.connect(self)
        session.set_participant(self)

    def _execute(self, delivered: Delivered) -> Delivered | None:
        """Run a task, and wait for the next one; None: there is none for this loop."""
        assignment = delivered.assignment
        spec = assignment.spec
        template = self.task_inbox.templates[spec.template_id]
        if template is not self._shown:
            self._show(template, assignment)
        self.title.show(self._task_title)
        reports = self.reports
        if not reports.due:
            self.teller.remind()
        status, outcomes, seconds = self._run(delivered, template)
        self.end_if_forked()
        if not reports.due:
            self.teller.remind()
        with interrupts, self._lock:
            leased = self.leases.lease is not None
            if leased:
                self.leases.pin(outcomes)
                self._keeps_drops = False
            if references.pending():
                self._collect_dropped()
            borrowed = self.client.references.end_task()
            if self.client.tasks.backlog:
                self._flush()
            while self.client.tasks.backlog and not self.client.stopped:  # the window is full
                self._drain_backlog()
            if leased:
                self.leases.finished(status, outcomes, seconds, borrowed)
            else:
                self.task_inbox.finished(status, outcomes, seconds, borrowed, time.monotonic())
            if template.max_calls:
                self._count_call(template)
            if reports.urgent:
                self.teller.tell_failures()
            self._send_done()
            self.assignment = None
            return self._next() if self.actor is None else None

    def _show(self, template: m.Template, assignment: m.Assignment) -> None:
        """Another function than before is about to run, or the first."""
        if self._shown is None and template.environment is not None:
            take_on(template.environment)  # that of all tasks which this process gets
            self.env_vars = tuple(template.environment.env_vars)
        self._shown = template
        self._run = self._run_in_time if template.timeout_s else self._attempts.run
        self.reports.shows(template)
        made = assignment.actor
        title = f"zray::{made.class_name if made else template.name}"
        set_process_name(title)
        self._task_title = self.title.cut(title)

    def _run_in_time(
        self, delivered: Delivered, template: m.Template
    ) -> tuple[int, list[m.Outcome], float]:
        """The node is to see to it that the attempt ends in time."""
        retried = self.code.retries(template, TaskTimeoutError())
        what = delivered.assignment
        deadline = (what.spec.task_id, what.attempt, template.timeout_s, self._started, retried)
        with interrupts, self._lock:
            self.tell_raylet([m.Deadline(0, *deadline)])
        return self._attempts.run(delivered, template)

    def _count_call(self, template: m.Template) -> None:
        """A function has run that may so only so often in one process."""
        calls = self._calls.get(template.function_id, 0) + 1
        self._calls[template.function_id] = calls
        if calls >= template.max_calls and not self.task_inbox.spent:
            self.task_inbox.spent = True
            self.tell_raylet([m.Exiting(0, "")])  # before the end, after which it is given more
            if self.leases.lease is not None:
                self.leases.leave()

    def _give_back(self) -> None:
        """Tasks came that this process does not start any more."""
        returned = self.task_inbox.recall()
        if returned.task_ids:
            self.tell_raylet([returned])


def prepare() -> Callable[[bytes, int, int, int, int], int]:
    """Entry of the zygote; see ``zray.runtime.linux.zygote``."""
    return Worker().live
