"""Which thread reads for the whole process: the leader; others that wait follow it.

A thread that blocks reads from the transport itself, with no hand-off per task. Owns the lock, the
lead, and what is to be called when a value has come; a subclass owns the transport, and decides who
leads when nobody blocks. Must never know what the messages say.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m
from zray.runtime.interrupts import interrupts
from zray.runtime.quiet_lock import QuietLock

FOLLOW_S = 1.0  # a follower looks by itself after this
NAP_MIN_S = 0.0003  # a shorter one saves nothing
_NO_DEADLINE = float("inf")


class LeaderFollower:
    """``client`` and the transport are used under ``_lock`` only, and what the user calls takes it
    inside of a block of ``interrupts``."""

    def __init__(self, client: Client) -> None:
        self.client = client
        # Tasks that were submitted without the lock, and how many returns each has.
        self._left: deque[tuple[m.TaskSpec, int]] = deque()
        self._lock = QuietLock(self._left, self._admit)
        self._leading = False
        self._leader = 0  # the thread that leads, or did last
        self._napping = False
        self._following: dict[threading.Lock, Waiter | None] = {}  # what each follower sleeps on
        self._completions: deque[Callable[[], None]] = deque()

    def _admit(self) -> None:
        """Queue the tasks that were left for whoever has the lock."""
        left, submit = self._left, self.client.submit
        while left:
            submit(*left.popleft())

    # ---- the transport: subclasses ---------------------------------------------------------

    def _transmit(self) -> None:
        """Send the client's outbox. Called with the lock."""
        raise NotImplementedError

    def _poll(self, timeout_s: float) -> None:
        """Wait for something to read or a wake-up. Called without the lock."""
        raise NotImplementedError

    def _read(self) -> None:
        """Read and handle what has arrived. Called with the lock."""
        raise NotImplementedError

    def _wake(self) -> None:
        """End another thread's ``_poll``. Called with the lock."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send everything that is to be sent. Called with the lock."""
        raise NotImplementedError

    def _flush_if_due(self) -> None:
        """The same, if there is anything. Called with the lock."""
        raise NotImplementedError

    def _before_blocking(self) -> None:
        """A task is about to wait. Called with the lock."""

    def _after_blocking(self) -> None:
        """It goes on. Called with the lock."""

    def _lead_s(self) -> float:
        """How long a leader may sleep at most."""
        return 1.0

    def _nap_s(self, waiter: Waiter | None) -> float:
        """For how long the waiter has no need of what comes, if nobody else waits; None: nobody."""
        return 0.0

    def _nap(self, seconds: float) -> None:
        """Wait for a wake-up alone. Called without the lock."""
        raise NotImplementedError

    # ---- waiting ---------------------------------------------------------------------------

    def _await(
        self,
        waiter: Waiter,
        timeout: float | None,
        missing: Callable[[], bytes] | None = None,
    ) -> bool:
        """Wait until the waiter has all it counts, leading if nobody does; with the lock held.

        ``missing``: something that it waits for; if it takes long, that is said. Returns False at
        the timeout.
        """
        self._flush_if_due()
        if waiter.remaining <= 0:
            return True
        if timeout is not None and timeout <= 0:
            if self._may_lead():
                self._lead(waiter, 0.0)
            return waiter.remaining <= 0
        deadline = _NO_DEADLINE if timeout is None else time.monotonic() + timeout
        self._before_blocking()
        try:
            if missing is not None:
                return self._wait_aloud(waiter, deadline, missing)
            return self._wait(waiter, deadline)
        finally:
            self._after_blocking()
            self._pass_on()

    def _wait_aloud(self, waiter: Waiter, deadline: float, missing: Callable[[], bytes]) -> bool:
        """As ``_wait``; says what is waited for while nothing comes."""
        raise NotImplementedError

    def _wait(self, waiter: Waiter, deadline: float) -> bool:
        while waiter.remaining > 0 and not self.client.stopped:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._may_lead():
                self._lead(waiter, deadline)
            else:
                self._follow(waiter, min(left, FOLLOW_S))
        return True

    def _may_lead(self) -> bool:
        """Nobody leads, or this very thread: what it calls here is a finalizer or signal handler
        that has interrupted its sleep."""
        return not self._leading or self._leader == threading.get_ident()

    def _follow(self, waiter: Waiter | None, timeout_s: float) -> None:
        """Sleep until the waiter is done or the lead is free; with None: until something came."""
        ticket = threading.Lock()
        ticket.acquire()
        self._following[ticket] = waiter
        if self._napping:
            self._wake()
        try:
            self._unlocked(ticket.acquire, True, timeout_s)
        finally:
            self._following.pop(ticket, None)

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """Read until the waiter is done or there is something to complete; at least once."""
        nested = self._take_lead()
        try:
            while True:
                left = deadline - time.monotonic()
                self._step(max(0.0, min(left, self._lead_s())))
                if waiter.remaining <= 0 or left <= 0 or self.client.stopped:
                    break
                if self._completions:
                    break
                nap_s = 0.0 if self._following else min(left, self._nap_s(waiter))
                if nap_s >= NAP_MIN_S:
                    self._napping = True
                    self._unlocked(self._nap, nap_s)
        finally:
            self._leave_lead(nested)
        if self._completions:
            self._unlocked(self._complete)

    def _lead_once(self, timeout_s: float) -> None:
        """One round as leader for whoever waits; nobody else may lead at the moment."""
        nested = self._take_lead()
        try:
            self._step(timeout_s)
        finally:
            self._leave_lead(nested)
        if self._completions:
            self._unlocked(self._complete)

    def _take_lead(self) -> bool:
        """Returns whether this thread leads already, in what this call interrupts."""
        nested = self._leading
        self._leading = True
        self._leader = threading.get_ident()
        return nested

    def _leave_lead(self, nested: bool) -> None:
        if nested:
            self._wake()  # what came meanwhile is handled, so its sleep would be too long
        else:
            self._leading = False
            self._pass_on()

    def _pass_on(self) -> None:
        """Wake a follower to lead, if nobody does."""
        if self._following and not self._leading:
            ticket = next(iter(self._following))
            del self._following[ticket]
            ticket.release()

    def _notify(self) -> None:
        """Wake the followers for whom the wait is over."""
        stopped = bool(self.client.stopped)
        for ticket, waiter in [*self._following.items()]:
            if stopped or waiter is None or waiter.remaining <= 0:
                del self._following[ticket]
                ticket.release()

    def _step(self, timeout_s: float) -> None:
        """One round of the leader: sleep, read, send. With the lock held, but for the sleep."""
        self._napping = False
        self._unlocked(self._poll, timeout_s)
        self._read()
        self._respond()
        if self._following:
            self._notify()

    def _respond(self) -> None:
        """Send what reading has led to. With the lock held."""
        if self.client.outbox:
            self._transmit()

    def _unlocked(self, call: Callable[..., object], *arguments: object) -> None:
        """Call without the lock; an interrupt comes there, or not before the lock is back."""
        self._lock.release()
        try:
            interrupts.allow(call, *arguments)
        finally:
            self._lock.take_back()

    def _complete(self) -> None:
        """Call what is due. Without lock and lead: it may use the API itself, and may block."""
        while self._completions:
            try:
                complete = self._completions.popleft()
            except IndexError:
                break  # another thread took the last one
            try:
                complete()
            except BaseException:  # an interrupt: it is as if it had not been called
                self._completions.appendleft(complete)
                raise
