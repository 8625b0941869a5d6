"""Attempts of tasks: runs user code once, and knows which cancel is for it.

A cancel comes while user code runs, from another thread, and interrupts the main thread. Only what
runs in the attempt that was meant is interrupted.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from zray import limits
from zray.core import failures
from zray.core.client.references import ClientReferences
from zray.core.worker.reports import Reports
from zray.core.worker.task_inbox import Delivered
from zray.errors import TaskCancelledError, TaskTimeoutError
from zray.ids import object_id
from zray.nodes.worker.construction import Construction
from zray.nodes.worker.user_code import UserCode
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts
from zray.runtime.retries import covers
from zray.runtime.tracing import CARRIED, traced

LIBRARY = os.path.dirname(os.path.dirname(limits.__file__))


class Attempts:
    """Of one worker, one after the other, in the main thread.

    ``become``: this process is the actor from now on that a constructor made. ``reports``: takes
    what has run.

    Attributes:
        construction: of the actor that this process is, or should have become.
    """

    def __init__(
        self,
        code: UserCode,
        references: ClientReferences,
        become: Callable[[Any, Delivered, m.Assignment], None],
        reports: Reports,
    ) -> None:
        self._code = code
        self._references = references
        self._become = become
        self.construction: Construction | None = None
        self._reports = reports
        self._note = reports.spans.append
        self._began = 0.0  # when the task began that runs
        self._main = threading.main_thread().ident or 0
        self._running: bytes | None = None  # the task whose user code runs now
        self._cancelled: bytes | None = None  # the task that a cancel is for
        self._timed_out = False  # since it has run too long
        self._interrupted = False  # it was raised in that task

    def handle_signals(self) -> None:
        """From now on a cancel, which is a SIGINT, comes here."""
        interrupts.install(signal.SIGINT, self._on_interrupt)

    def cancel(self, task_id: bytes, *, timed_out: bool = False) -> None:
        """Interrupt the task, which was handed out and has not ended; from any thread."""
        self._timed_out = timed_out
        self._cancelled = task_id
        signal.pthread_kill(self._main, signal.SIGINT)

    def runs_since(self, task_id: bytes) -> float | None:
        """Since when user code of that task runs, by time.perf_counter."""
        return self._began if self._running == task_id else None

    def expect(self) -> None:
        """A task was handed out: whatever was to be cancelled before is not this one."""
        self._cancelled = None

    def _on_interrupt(self, _number: int, _frame: object) -> None:
        """In the main thread: only the task that was meant is interrupted."""
        if self._cancelled is not None and self._cancelled == self._running:
            self._cancelled = None
            self._interrupted = True
            raise KeyboardInterrupt

    def run(self, delivered: Delivered, template: m.Template) -> tuple[int, list[m.Outcome], float]:
        """Run user code once: status, outcomes and run time in seconds.

        Raises:
            SystemExit: a constructor wants this process to end, as a failure of its actor.
        """
        spec = delivered.assignment.spec
        began = self._began = time.perf_counter()
        retry: Any = False
        try:
            try:
                function, retry = self._code.function(
                    template, delivered.assignment.actor is not None
                )
                if delivered.assignment.actor is not None:
                    self._references.own_handle = object_id(spec.task_id)
                    self.construction = Construction(template.name)
                    function = self.construction.of(function)
                args, kwargs = self._code.arguments(delivered)
                if CARRIED in kwargs:
                    function = traced(function, kwargs, template.name)
                self._running = spec.task_id
                self._on_interrupt(0, None)  # for what came before user code
                value = function(*args, **kwargs)
                del args, kwargs
                if template.yields:
                    failed = partial(self._code.keep_task, delivered, template)
                    value = self._code.yielded(spec, template, value, retry, failed)
            finally:
                self._running = None
            if delivered.assignment.actor is not None:
                made = delivered.assignment
                if template.by_name:
                    made = self._code.imports.as_offered(made, template.name)
                self._become(value, delivered, made)
                outcomes = [m.Outcome(object_id(spec.task_id), m.VALUE, 0)]
            else:
                outcomes = self._code.outcomes(spec.task_id, template, value)
            seconds = time.perf_counter() - began
            if not self._reports.silent:
                before = delivered.assignment.failures
                self._note((template.name, spec.task_id, began, seconds, before, spec.parent))
            return m.FINISHED, outcomes, seconds
        except BaseException as error:
            seconds = time.perf_counter() - began
            if isinstance(error, SystemExit) and self.construction is not None:
                data, status = self.construction.left(error), m.FINISHED
            elif not (isinstance(error, KeyboardInterrupt) and self._interrupted):
                data = self._code.error(error, template.name)
                again = retry is True and not isinstance(error, KeyboardInterrupt)
                status = m.FAILED if again or covers(retry, error) else m.FINISHED
            elif self._timed_out:
                how = f"was interrupted{_place(error)}"
                data = failures.of_timeout(template.name, template.timeout_s, how, self._code.node)
                status = m.FAILED if covers(retry, TaskTimeoutError()) else m.FINISHED
            else:
                data = failures.encode(TaskCancelledError, "the task was cancelled", template.name)
                status = m.CANCELLED
            self._failed(delivered, template, began, seconds, data)
            if self.construction is not None:
                self.construction.failed()  # before the end is told, after which it may be killed
            return status, failures.outcomes(spec.task_id, template.num_returns, data), seconds
        finally:
            self._cancelled = None
            self._interrupted = False

    def _failed(
        self,
        delivered: Delivered,
        template: m.Template,
        began: float,
        seconds: float,
        error: bytes,
    ) -> None:
        """Note an attempt that has ended with that error."""
        if not self._reports.silent:
            made = delivered.assignment
            spec = made.spec
            ran = (template.name, spec.task_id, began, seconds, made.failures, spec.parent)
            self._note(ran)
            self._reports.failed(ran, error)
            self._code.keep_task(delivered, template, error)


def _place(error: BaseException) -> str:
    """Where user code was that has been interrupted, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(LIBRARY)]
    return f" in line {users[-1].lineno} of {users[-1].filename}" if users else ""
