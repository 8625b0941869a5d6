"""A worker that is no process: its tasks take clock time and no CPU time.

The shipped TaskInbox, and in place of user code a time at which the current task has ended. It
serves one function, ``nap(seconds, number)``, which returns the number.
"""

from __future__ import annotations

from zray import limits
from zray.core.identity import NOBODY, Identity
from zray.core.machine import NEVER
from zray.core.worker.task_inbox import TaskInbox
from zray.ids import IdSource, object_id
from zray.protocol import messages as m
from zray.runtime import serialization


class TimedWorker:
    """``ends``: when its current task has ended. What it has to tell its raylet is in ``told``."""

    def __init__(self, worker_id: bytes) -> None:
        self._inbox = TaskInbox(Identity(worker_id, NOBODY, IdSource(bytes(8))))
        self._seconds = 0.0
        self._number = 0
        self.ends = NEVER
        self.started = 0  # tasks in its life
        self.told: list[m.Message] = []

    def exits(self) -> bool:
        """Whether it was told to end, and has nothing left to do."""
        return self._inbox.exiting and self.ends == NEVER

    def take(self, messages: list[m.Message], now: float) -> None:
        """What the raylet sends; a task may begin by that."""
        inbox = self._inbox
        for message in messages:
            if isinstance(message, m.Recall):
                self._tell_done(now, wait=False)
                self.told.append(inbox.recall())
            elif isinstance(message, m.CancelTask):
                returned = inbox.cancel(message)
                if returned is not None:
                    self.told.append(returned)
            elif (handler := inbox.handlers.get(type(message))) is not None:
                handler(message)
        if self.ends == NEVER:
            self._begin(now)

    def work(self, now: float) -> None:
        """End what has ended by now. The next begins when the one before ended, not when seen."""
        while self.ends <= now:
            ended, inbox = self.ends, self._inbox
            assert inbox.current is not None
            data, _ = serialization.dumps(self._number)
            outcome = m.Outcome(object_id(inbox.current.spec.task_id), m.VALUE, len(data), data)
            inbox.finished(m.FINISHED, [outcome], self._seconds, [], ended)
            self._begin(ended)
        self._tell_done(now, wait=True)

    def _begin(self, now: float) -> None:
        delivered = self._inbox.next()
        if delivered is None:
            self.ends = NEVER
            return
        self.started += 1
        arguments, _ = serialization.loads_arguments(delivered.assignment.spec.arguments, [])
        self._seconds, self._number = arguments
        self.ends = now + self._seconds

    def _tell_done(self, now: float, *, wait: bool) -> None:
        done = self._inbox.take_done(
            now, next_is_short=wait and self._seconds < limits.SHORT_TASK_S
        )
        if done is not None:
            self.told.append(done)
