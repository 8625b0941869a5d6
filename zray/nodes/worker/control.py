"""A worker's control thread: it is there while user code runs.

Owns the control socket, on which the raylet asks for tasks back and cancels, and the nudge by which
the main thread has sent soon what it does not send itself. Decides nothing.

The main thread reads that socket as well, between tasks: one that often releases the GIL, each time
for a moment, may have it back before another thread that waits for it is awake, for seconds.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

from zray import limits
from zray.nodes.participant.participant import COALESCE_S
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.quiet_lock import QuietLock
from zray.runtime.stream import FrameReader, read_available

REMIND = b"r"  # in the pipe: look at the time


class ControlThread:
    """``flush`` sends what there is to be sent, ``handle`` takes what the raylet asks for; ``look``
    is called now and then from ``look_on`` until it is False; ``report`` once after ``remind``. All
    with the lock held."""

    def __init__(
        self,
        lock: QuietLock,
        flush: Callable[[], object],
        handle: Callable[[m.Message], object],
        look: Callable[[], bool],
        report: Callable[[], object],
    ) -> None:
        self._lock = lock
        self._look = look
        self._looks = False
        self._report = report
        self._report_at = 0.0
        self._flush = flush
        self._handle = handle
        self._reader = FrameReader()
        self._hear_at = 0.0

    def inherit(self, control_fd: int) -> None:
        """In the process whose it is, with its end of the control socket."""
        self._socket = socket.socket(fileno=control_fd)
        self._nudge_read, self._nudge_write = os.pipe()

    def start(self) -> None:
        threading.Thread(target=self._run, name="zray-control", daemon=True).start()

    def nudge(self) -> None:
        """Have sent soon what there is to be sent."""
        os.write(self._nudge_write, b".")

    def look_on(self) -> None:
        """Look after the main thread now and then."""
        if not self._looks:
            self._looks = True
            self.nudge()

    def remind(self, after_s: float) -> None:
        """Call ``report`` after so many seconds."""
        self._report_at = time.monotonic() + after_s
        os.write(self._nudge_write, REMIND)

    def hear(self) -> None:
        """Read what has come, unless that was done just now. With the lock held."""
        now = time.monotonic()
        if now >= self._hear_at:
            self._hear_at = now + limits.RECALL_IDLE_S
            self._read()

    def _wait_ms(self) -> float | None:
        wait_ms = limits.RECALL_S * 1000 if self._looks else None
        if self._report_at:
            left_ms = max(0.0, (self._report_at - time.monotonic()) * 1000 + 1)
            wait_ms = left_ms if wait_ms is None else min(wait_ms, left_ms)
        return wait_ms

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._nudge_read, select.POLLIN)
        while True:
            ready = poller.poll(self._wait_ms())
            if self._report_at and time.monotonic() >= self._report_at:
                self._report_at = 0.0
                with self._lock:
                    self._report()
            if self._looks and not ready:
                with self._lock:
                    self._looks = self._look()
            for fd, _ in ready:
                if fd == self._nudge_read:
                    if os.read(self._nudge_read, 4096).strip(REMIND) == b"":
                        continue
                    time.sleep(COALESCE_S)  # what follows in this time goes along
                    with self._lock:
                        self._flush()
                else:
                    with self._lock:
                        self._read()

    def _read(self) -> None:
        frames, ended = read_available(self._socket, self._reader)
        for frame in frames:
            for message in codec.decode(frame).messages:
                self._handle(message)
        if ended:
            os.killpg(0, signal.SIGKILL)  # the raylet is gone, and so is everything of it
