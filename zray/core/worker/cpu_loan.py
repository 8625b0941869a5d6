"""The CpuLoan machine: whether others have the CPU of a task that waits beside its main thread.

A thread of it waits for the cluster, or a future or coroutine does. What the main thread does
meanwhile nobody knows: a process that uses no CPU for a while needs none.
"""

from __future__ import annotations

from zray import limits


class CpuLoan:
    """Of one worker: which task's CPU others have."""

    def __init__(self) -> None:
        self.task_id: bytes | None = None  # whose CPU others have
        self._measured = (0.0, 0.0)  # when it was looked at last, and the CPU time until then

    def step(self, task_id: bytes, waits: bool, now: float, used: float) -> bool | None:
        """True: others may have it from now on; False: no longer; None: all stays as it is.

        ``used``: seconds of CPU time of the process until now.
        """
        lent = self.task_id == task_id
        since, before = self._measured
        idle = False
        if waits:
            if now - since < limits.IDLE_S:
                return None
            self._measured = now, used
            if now - since > 4 * limits.IDLE_S:
                return None  # it was looked at in another wait
            idle = used - before < limits.IDLE_SHARE * (now - since)
        if idle == lent:
            return None
        self.task_id = task_id if idle else None
        return idle
