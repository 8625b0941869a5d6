"""What the raylet hears while the running task waits.

Nothing may be stuck behind the task, and others may have its CPU meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zray.core.worker.cpu_loan import CpuLoan
from zray.core.worker.task_inbox import TaskInbox
from zray.protocol import messages as m


class TaskWaits:
    """Everything with the worker's lock held.

    ``tell``: takes what is for the raylet, and for whoever has sent the tasks. ``expects``: whether
    user code is called when some value arrives.
    """

    def __init__(
        self,
        task_inbox: TaskInbox,
        tell: Callable[[list[m.Message]], None],
        expects: Callable[[], bool],
    ) -> None:
        self._task_inbox = task_inbox
        self._tell = tell
        self._expects = expects
        self._loan = CpuLoan()
        self.threads = 0  # of user code that wait, but for the main thread

    def begin(self) -> None:
        """The task waits in its main thread."""
        self._task_inbox.blocked = True
        self._say_blocked()

    def end(self) -> None:
        """It goes on."""
        self._task_inbox.blocked = False
        self._loan.task_id = None
        self._tell([m.Unblocked(0)])

    def _say_blocked(self) -> None:
        inbox = self._task_inbox
        done = inbox.take_done(time.monotonic(), next_is_short=False)
        returned = inbox.recall()
        self._tell([*([done] if done is not None else []), returned, m.Blocked(0)])

    def may_lend(self) -> bool:
        """Whether ``lend`` may find that something has changed."""
        return bool(self.threads) or self._loan.task_id is not None or self._expects()

    def lend(self) -> None:
        """Let others have the CPU of a task that waits by other means than its main thread.

        A thread of it waits, or a future or coroutine; whether the task computes meanwhile, the
        CPU time of the process says.
        """
        current = self._task_inbox.current
        if current is None or self._task_inbox.blocked:
            return
        waits = bool(self.threads) or self._expects()
        now, used = time.monotonic(), time.process_time()
        lends = self._loan.step(current.spec.task_id, waits, now, used)
        if lends:
            self._say_blocked()
        elif lends is not None:
            self._tell([m.Unblocked(0)])
