"""A worker process: runs tasks one after the other, gives back on request what has not started.

Two threads: the main thread runs user code and reads the task socket when it has nothing to do or
waits; the control thread is parked on the control socket and answers RECALL and CANCEL_TASK. Forked
from the zygote; no zmq here.
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
from typing import Any

from zray.core import failures
from zray.core.client import Client
from zray.core.worker import Delivered, WorkerSequence
from zray.errors import TaskCancelledError
from zray.ids import IdSource, object_id
from zray.nodes.participant import COALESCE_S, Participant
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import references, serialization, session, task_errors
from zray.runtime.linux.channels import open_counter
from zray.runtime.linux.zygote import set_process_name
from zray.runtime.stream import FrameReader, FrameWriter, read_available

Function = Callable[..., Any]


class Worker(Participant):
    def __init__(self, worker_id: bytes, task_fd: int, control_fd: int, counter_fd: int) -> None:
        ids = IdSource(os.urandom(8))
        super().__init__(Client(worker_id, bytes(16), ids, remote=False))
        self.worker_id = worker_id
        self.sequence = WorkerSequence(worker_id)
        self._counter = open_counter(counter_fd)
        self._started = 0
        self._task = socket.socket(fileno=task_fd)
        self._control = socket.socket(fileno=control_fd)
        self._reader = FrameReader()
        self._writer = FrameWriter(self._task)
        self._poller = select.poll()
        self._poller.register(self._task, select.POLLIN)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._poller.register(self._wake_read, select.POLLIN)
        self._functions: dict[bytes, tuple[Function, Any]] = {}
        self._main = threading.main_thread().ident or 0
        self._pid = os.getpid()
        self._running: bytes | None = None  # the task whose user code runs now
        self._interrupt: bytes | None = None  # the task that a cancel is for
        self._shown: m.Template | None = None  # whose name the process carries
        self._interrupted = False  # it was raised in that task
        self._keeps_drops = False  # results not yet sent contain references
        self._nudge_read, self._nudge_write = os.pipe()
        self._pump: threading.Thread | None = None
        self.assignment: m.Assignment | None = None

    # ---- transport -------------------------------------------------------------------------

    def _transmit(self) -> None:
        outbox, self.client.outbox = self.client.outbox, []
        if outbox:
            self._send(outbox)

    def _send(self, messages: list[m.Message]) -> None:
        try:
            self._writer.send(codec.encode_local(messages))
        except OSError:
            os._exit(0)  # the raylet is gone

    def _poll(self, timeout_s: float) -> None:
        for fd, _ in self._poller.poll(timeout_s * 1000):
            if fd == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)

    def _wake(self) -> None:
        os.write(self._wake_write, b".")

    def _read(self) -> None:
        frames, ended = read_available(self._task, self._reader)
        for frame in frames:
            for message in codec.decode(frame).messages:
                if not self.sequence.receive(message):
                    self.client.message(message)
        if ended:
            os._exit(0)  # the raylet is gone
        if self.sequence.blocked:
            self._give_back()

    def _give_back(self) -> None:
        returned = self.sequence.recall()
        if returned.task_ids:
            self._send([returned])

    def _before_blocking(self) -> None:
        """A task waits: nothing may be stuck behind it, and its CPU is free meanwhile."""
        if threading.get_ident() == self._main and self.sequence.current is not None:
            self.sequence.blocked = True
            done = self.sequence.take_done(time.monotonic(), next_is_short=False)
            returned = self.sequence.recall()
            self._send([*([done] if done is not None else []), returned, m.Blocked(0)])

    def _after_blocking(self) -> None:
        if threading.get_ident() == self._main and self.sequence.blocked:
            self.sequence.blocked = False
            self._send([m.Unblocked(0)])

    def _attend(self) -> None:
        """User code does not block but expects something: a thread reads for it from now on."""
        if self._completions_expected() and self._pump is None:
            self._pump = threading.Thread(target=self._pump_loop, name="zray-pump", daemon=True)
            self._pump.start()
        else:
            os.write(self._nudge_write, b".")

    def _completions_expected(self) -> bool:
        return bool(self._completions) or self.client.has_callbacks()

    def _pump_loop(self) -> None:
        with self._lock:
            while self._completions_expected():
                if self._leading:
                    self._follow(None, 0.05)
                    continue
                self._lead_once(0.05)
            self._pump = None

    # ---- the control thread ----------------------------------------------------------------

    def _control_loop(self) -> None:
        reader = FrameReader()
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._nudge_read, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._nudge_read:
                    os.read(self._nudge_read, 4096)
                    time.sleep(COALESCE_S)  # what follows in this time goes along
                    with self._lock:
                        self._flush()
                else:
                    self._read_control(reader)

    def _read_control(self, reader: FrameReader) -> None:
        frames, ended = read_available(self._control, reader)
        for frame in frames:
            for message in codec.decode(frame).messages:
                with self._lock:
                    self._on_control(message)
        if ended:
            os.killpg(0, signal.SIGKILL)  # the raylet is gone, and so is everything of it

    def _on_control(self, message: m.Message) -> None:
        self._read()  # what was delivered before counts as delivered
        if isinstance(message, m.Recall):
            done = self.sequence.take_done(time.monotonic(), next_is_short=False)
            self._send([*([done] if done is not None else []), self.sequence.recall()])
        elif isinstance(message, m.CancelTask):
            returned = self.sequence.cancel(message)
            if returned is not None:
                self._send([returned])
            elif self._is_current(message):
                self._interrupt = message.task_id
                signal.pthread_kill(self._main, signal.SIGINT)

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

    # ---- running ---------------------------------------------------------------------------

    def run(self) -> int:
        signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._control_loop, name="zray-control", daemon=True).start()
        while True:
            with self._lock:
                delivered = self._next()
            if delivered is None:
                return 0
            self._execute(delivered)

    def _next(self) -> Delivered | None:
        """The next task; waits for it. None: the worker is to end. With the lock held."""
        while True:
            if self._leading:
                self._follow(None, 0.05)  # the pump of a former task reads
            delivered = self.sequence.next()
            if delivered is not None:
                self._interrupt = None
                self._started += 1
                self._counter.value = self._started
                self.assignment = delivered.assignment
                return delivered
            self._send_done()
            if self.sequence.exiting:
                return None
            if not self._leading:
                self._lead_once(60.0)
                if self.sequence.setup is not None and self.client.job_id == bytes(16):
                    self._set_up(self.sequence.setup)

    def _send_done(self) -> None:
        """Results, and before them whatever they refer to."""
        self._flush()
        done = self.sequence.take_done(time.monotonic(), next_is_short=True)
        if done is not None:
            self._send([done])
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
        references.connect(self)
        session.set_participant(self)

    def _execute(self, delivered: Delivered) -> None:
        assignment = delivered.assignment
        spec = assignment.spec
        template = self.sequence.templates[spec.template_id]
        if template is not self._shown:
            self._shown = template
            set_process_name(f"zray:{template.name}"[:15])
        status, outcomes, seconds = self._attempt(delivered, template)
        if os.getpid() != self._pid:
            os._exit(0)  # the task forked, and this is its child: it has no connection
        with self._lock:
            self._collect_dropped()
            borrowed = self.client.end_task()
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
                function, retry = self._function(template)
                args, kwargs = self._arguments(delivered)
                self._running = spec.task_id
                self._on_interrupt(signal.SIGINT, None)  # for what came before user code
                value = function(*args, **kwargs)
                del args, kwargs
            finally:
                self._running = None
            outcomes = self._outcomes(spec.task_id, template, value)
            return m.FINISHED, outcomes, time.perf_counter() - began
        except BaseException as error:
            seconds = time.perf_counter() - began
            if isinstance(error, KeyboardInterrupt) and self._interrupted:
                data = failures.encode(TaskCancelledError, "the task was cancelled", template.name)
                status = m.CANCELLED
            else:
                data = self._error(error, template.name)
                status = m.FAILED if _covers(retry, error) else m.FINISHED
            return status, failures.outcomes(spec.task_id, template.num_returns, data), seconds
        finally:
            self._interrupt = None
            self._interrupted = False

    def _error(self, error: BaseException, name: str) -> bytes:
        node = self.sequence.setup.node_name if self.sequence.setup is not None else ""
        return task_errors.dump_exception(error, name, node, os.getpid())

    def _function(self, template: m.Template) -> tuple[Function, Any]:
        found = self._functions.get(template.function_id)
        if found is None:
            blob = self.sequence.functions[template.function_id].blob
            found = self._functions[template.function_id] = serialization.loads_function(blob)
        return found

    def _arguments(self, delivered: Delivered) -> tuple[tuple[Any, ...], dict[str, Any]]:
        spec = delivered.assignment.spec
        values = delivered.values
        data = spec.arguments
        if spec.boxed:
            data, values = values[0].value, values[1:]
        with self._lock:
            self.client.begin_task(spec.nested)
        if not values:
            return serialization.loads_arguments(data, ())
        loaded = [serialization.loads(outcome.value) for outcome in values]
        return serialization.loads_arguments(data, loaded)

    def _outcomes(self, task_id: bytes, template: m.Template, value: Any) -> list[m.Outcome]:
        count = template.num_returns
        if count == 1:
            values = [value]
        elif count == 0:
            values = [None]
        else:
            try:
                values = list(value)
            except TypeError:
                values = [value]
            if len(values) != count:
                found = "a value" if len(values) == 1 else f"{len(values)} values"
                raise ValueError(
                    f"{template.name} was declared with num_returns={count} but returned {found}"
                )
        outcomes = []
        for index, one in enumerate(values):
            data, contained = serialization.dumps(one, f"the result of {template.name}")
            if contained:
                with self._lock:
                    self.client.publish(contained)  # while ``value`` keeps its references alive
                    self._keeps_drops = True
            oid = object_id(task_id, index)
            outcomes.append(m.Outcome(oid, m.VALUE, len(data), data, contained))
        return outcomes


def _covers(retry: Any, error: BaseException) -> bool:
    """Whether the task's ``retry_exceptions`` covers the error."""
    if retry is True:
        return isinstance(error, Exception)
    return bool(retry) and isinstance(error, tuple(retry))


def main(worker_id: bytes, task_fd: int, control_fd: int, counter_fd: int) -> int:
    """Entry of a forked worker; see ``zray.runtime.linux.zygote``."""
    gc.freeze()
    return Worker(worker_id, task_fd, control_fd, counter_fd).run()
