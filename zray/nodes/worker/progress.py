"""The progress bars of a worker's tasks: they are shown at the driver of their job."""

from __future__ import annotations

import os
import time
from typing import Protocol

from zray.core.client.client import Client
from zray.core.worker.progress_bars import ProgressBars
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts
from zray.runtime.quiet_lock import QuietLock


class Teller(Protocol):
    """A worker, as far as it is needed here."""

    client: Client

    @property
    def lock(self) -> QuietLock: ...

    def tell_raylet(self, messages: list[m.Message]) -> None: ...


class WorkerBar:
    """One of them."""

    def __init__(
        self, worker: Teller, bars: ProgressBars, label: str, total: int, unit: str
    ) -> None:
        self._worker = worker
        self._bars = bars
        self._number = 0
        with interrupts, worker.lock:
            self._number = bars.open(label, total, unit)
            self._tell(bars.due(time.monotonic()))

    def update(self, done: int) -> None:
        """So much is done."""
        with interrupts, self._worker.lock:
            self._bars.update(self._number, done)
            self._tell(self._bars.due(time.monotonic()))

    def describe(self, label: str, total: int) -> None:
        """It says something else from now on."""
        with interrupts, self._worker.lock:
            self._bars.describe(self._number, label, total)
            self._tell(self._bars.due(time.monotonic()))

    def close(self) -> None:
        """No more of it will be done."""
        with interrupts, self._worker.lock:
            self._tell(self._bars.close(self._number))

    def __del__(self) -> None:
        self._bars.dropped.append(self._number)  # may run anywhere, so that is all it does

    interrupts.spare(__del__.__code__)

    def _tell(self, bars: list[m.Bar]) -> None:
        if bars:
            job_id = self._worker.client.job_id
            self._worker.tell_raylet([m.Progress(0, job_id, "", os.getpid(), "", bars)])
