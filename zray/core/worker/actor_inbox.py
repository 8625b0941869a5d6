"""The ActorInbox machine: in which order an actor runs its calls, and what it has answered.

Calls of one caller start in the order of their numbers, whatever path brought them; a number that
was seen is not run again. Ends are kept until their caller acknowledges them. The shell calls this
from several threads, under one lock of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from zray import limits
from zray.core import failures
from zray.protocol.messages import (
    CANCELLED,
    ERROR,
    FINISHED,
    Call,
    CallDone,
    Calls,
    Outcome,
    Replies,
)

Route = TypeVar("Route")  # where a caller's answers go, as the shell names it


class Entry:
    """A call that has arrived. ``missing``: dependencies whose values are not here."""

    __slots__ = ("call", "caller", "cancelled", "ended", "missing", "running", "values")

    def __init__(self, caller: bytes, call: Call) -> None:
        self.caller = caller
        self.call = call
        self.values: dict[bytes, Outcome] = {value.object_id: value for value in call.values}
        self.missing = 0
        self.running = False
        self.ended = False
        self.cancelled = False


class Line(Generic[Route]):
    """The calls of one caller."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.next = 0  # the number that comes next
        self.ahead: dict[int, Call] = {}  # arrived before others that precede them
        self.queue: deque[Entry] = deque()  # in order; the first waits for its values
        self.open: dict[bytes, Entry] = {}  # by task: arrived in order, not ended
        self.kept: dict[int, tuple[CallDone, object]] = {}
        self.heard = True  # something came since ``silent`` was asked last


class ActorInbox(Generic[Route]):
    """``may_serve``: asked before each call starts; None: an actor that nobody starts again."""

    def __init__(
        self,
        actor_id: bytes,
        incarnation: int,
        max_concurrency: int,
        may_serve: Callable[[], bool] | None = None,
    ) -> None:
        self.actor_id = actor_id
        self.incarnation = incarnation
        self._may_serve = may_serve
        self.paused = False  # calls wait until it may serve again, of which nobody tells
        self.running = 0
        self.closing = False  # no more calls are taken
        self._max = max_concurrency
        self._lines: dict[bytes, Line[Route]] = {}
        self._ready: deque[Entry] = deque()
        self._waiting = 0  # entries in the lines' queues
        self._replies: dict[bytes, list[CallDone]] = {}

    # ---- in --------------------------------------------------------------------------------

    def receive(self, message: Calls, route: Route) -> list[Entry]:
        """Take a caller's calls; returns the new ones whose values the shell has to get.

        For each of those it adds to ``missing`` what it awaits, and calls ``arrived`` as that
        comes, and once more when it has counted.
        """
        if message.actor_id != self.actor_id or message.incarnation != self.incarnation:
            return []
        line = self._lines.get(message.caller)
        if line is None:
            line = self._lines[message.caller] = Line(route)
        line.route = route
        line.heard = True
        while line.kept and (oldest := next(iter(line.kept))) < message.upto:
            del line.kept[oldest]
        for call in message.calls:
            kept = line.kept.get(call.seq)
            if kept is not None:
                self._replies.setdefault(message.caller, []).append(kept[0])
            elif call.seq >= line.next:
                line.ahead[call.seq] = call
        return self._in_order(message.caller, line)

    def _in_order(self, caller: bytes, line: Line[Route]) -> list[Entry]:
        incomplete = []
        while line.ahead and not self.closing:
            call = line.ahead.pop(line.next, None)
            if call is None:
                break
            line.next += 1
            entry = Entry(caller, call)
            line.open[call.task_id] = entry
            line.queue.append(entry)
            self._waiting += 1
            if len(entry.values) < len(call.dependencies):
                entry.missing = 1  # until the shell has counted
                incomplete.append(entry)
        self._advance(line)
        return incomplete

    def _advance(self, line: Line[Route]) -> None:
        queue = line.queue
        while queue and (queue[0].ended or not queue[0].missing):
            entry = queue.popleft()
            self._waiting -= 1
            if entry.ended:
                continue
            failed = next((v for v in entry.values.values() if v.kind & ERROR), None)
            if failed is not None:
                self._end(entry, FINISHED, errors(entry.call, failed.value), None)
            else:
                self._ready.append(entry)

    def arrived(self, entry: Entry, outcome: Outcome | None = None) -> None:
        """One of the values that the call lacks is here."""
        if outcome is not None:
            entry.values[outcome.object_id] = outcome
        entry.missing -= 1
        line = self._lines.get(entry.caller)
        if line is not None and not entry.missing:
            self._advance(line)

    def silent(self) -> list[bytes]:
        """The callers of which nothing came since this was asked last: they may have ended."""
        found = []
        for caller, line in self._lines.items():
            if not line.heard:
                found.append(caller)
            line.heard = False
        return found

    def forget(self, caller: bytes) -> None:
        """The caller is gone: nobody wants its answers, and what has not started does not start."""
        line = self._lines.pop(caller, None)
        self._replies.pop(caller, None)
        if line is not None:
            self._waiting -= len(line.queue)
            for entry in line.open.values():
                entry.ended = not entry.running

    # ---- running ---------------------------------------------------------------------------

    def next(self) -> Entry | None:
        """The call to start now; from here on it has started."""
        if self._may_serve is not None and self._ready:
            self.paused = not self._may_serve()
            if self.paused:
                return None
        while self._ready and self.running < self._max:
            entry = self._ready.popleft()
            if not entry.ended:
                entry.running = True
                self.running += 1
                return entry
        return None

    def ended(self, entry: Entry, status: int, results: list[Outcome], pins: object) -> None:
        """A call has ended. ``pins`` is kept along with its answer until that is acknowledged."""
        self.running -= 1
        entry.running = False
        if not entry.ended:
            self._end(entry, status, results, pins)

    def _end(self, entry: Entry, status: int, results: list[Outcome], pins: object) -> None:
        entry.ended = True
        line = self._lines.get(entry.caller)
        if line is None:
            return
        line.open.pop(entry.call.task_id, None)
        done = CallDone(entry.call.seq, entry.call.task_id, status, results)
        line.kept[done.seq] = (done, pins)
        replies = self._replies.get(entry.caller)
        if replies is None:
            self._replies[entry.caller] = [done]
        else:
            replies.append(done)

    def cancel(
        self, caller: bytes, task_id: bytes, outcomes: Callable[[Call], list[Outcome]]
    ) -> Entry | None:
        """Drop a call that has not started, with these outcomes; returns one that runs."""
        line = self._lines.get(caller)
        entry = line.open.get(task_id) if line is not None else None
        if entry is None or entry.ended:
            return None
        entry.cancelled = True
        if entry.running:
            return entry
        self._end(entry, CANCELLED, outcomes(entry.call), None)
        self._advance(self._lines[caller])
        return None

    def owes(self, route: Route) -> bool:
        """Whether an answer has not been acknowledged that went that way or refers to objects."""
        return any(
            line.route == route or any(pins for _, pins in line.kept.values())
            for line in self._lines.values()
            if line.kept
        )

    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self.running or self._ready or self._waiting)

    # ---- out -------------------------------------------------------------------------------

    def take_replies(self) -> list[tuple[Route, Replies]]:
        """The answers that have not left yet."""
        if not self._replies:
            return []
        replies, self._replies = self._replies, {}
        return [
            (
                self._lines[caller].route,
                Replies(0, self.actor_id, self.incarnation, caller, dones),
            )
            for caller, dones in replies.items()
        ]

    def keep(self, caller: bytes, done: CallDone, pins: object) -> None:
        """What is to be answered again, if need be, is this: it refers to what ``pins`` keeps."""
        line = self._lines.get(caller)
        if line is not None and done.seq in line.kept:
            line.kept[done.seq] = (done, (line.kept[done.seq][1], pins))

    def reroute(self, caller: bytes, route: Route) -> None:
        """The way to a caller is gone, and perhaps some answers with it."""
        line = self._lines.get(caller)
        if line is not None:
            line.route = route
            if line.kept:
                self._replies[caller] = [done for done, _ in line.kept.values()]

    def callers(self, route: Route) -> list[bytes]:
        """Whose answers go that way."""
        return [caller for caller, line in self._lines.items() if line.route == route]


def errors(call: Call, value: bytes) -> list[Outcome]:
    """The same error for each of a call's returns."""
    return failures.outcomes(call.task_id, call.num_returns, value)


def staying(results: list[Outcome]) -> frozenset[bytes]:
    """Which results of a call are too large, by themselves or in all, to be relayed."""
    found = []
    room = limits.INLINE_TOTAL_BYTES_MAX
    for result in results:
        if len(result.value) > min(limits.INLINE_BYTES_MAX, room):
            found.append(result.object_id)
        else:
            room -= len(result.value)
    return frozenset(found)
