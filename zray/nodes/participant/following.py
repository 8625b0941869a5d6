"""A wait that somebody watches: how many of the objects are here is told while it lasts.

A part of Participant. Where that is shown is the driver's and the worker's own business.
"""

from __future__ import annotations

import time
from typing import Protocol

from zray.core.client.waiters import Waiter
from zray.nodes.participant.explaining import Explaining
from zray.runtime.interrupts import interrupts

TOLD_S = 0.1  # how often


class ProgressBar(Protocol):
    """``close`` leaves it as it is, and for good. All may be called without the lock only."""

    def update(self, done: int) -> None: ...

    def describe(self, label: str, total: int) -> None: ...

    def close(self) -> None: ...


class Following(Explaining):
    def open_bar(self, label: str, total: int, unit: str = "") -> ProgressBar:
        """A bar at the driver. ``total`` 0: it is not known how much there is; ``unit``: of what.

        One that is let go is closed, sooner or later.
        """
        raise NotImplementedError

    def follow(self, ids: list[bytes], timeout: float | None, label: str) -> None:
        """Show how many of the values are here until all are, one is an error, or the timeout.

        No two of ``ids`` are alike. The task waits as in ``get``.
        """
        bar = self.open_bar(label, len(ids))
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        waiter = Waiter(until_error=True)
        try:
            with interrupts, self._lock:
                for object_id in ids:
                    self.client.want_value(object_id, waiter)
                try:
                    self._await_watched(waiter, deadline, len(ids), bar)
                finally:
                    self.client.forget_waiter(ids, waiter)
        finally:
            if waiter.failed is None:
                bar.update(len(ids) - waiter.remaining)
            bar.close()

    def _await_watched(self, waiter: Waiter, deadline: float, total: int, bar: ProgressBar) -> None:
        self._flush_if_due()
        if waiter.remaining <= 0:
            return
        self._before_blocking()
        try:
            while waiter.remaining > 0 and not self.client.stopped:
                now = time.monotonic()
                if now >= deadline:
                    return
                self._unlocked(bar.update, total - waiter.remaining)
                self._wait(waiter, min(deadline, now + TOLD_S))
        finally:
            self._after_blocking()
            self._pass_on()
