"""The ActorInbox machine: in which order an actor runs its calls, and what it has answered.

Calls of one caller start in the order of their numbers, whatever path brought them, in each
concurrency group by itself; a number that was seen is not run again. Where order does not matter,
each starts once its arguments are here. Ends are kept until their caller acknowledges them. The
shell calls this from several threads, under one lock of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
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


class Group:
    """Calls that share a limit of how many of them run at once."""

    __slots__ = ("limit", "name", "ready", "running")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.running = 0
        self.ready: deque[Entry] = deque()


class Entry:
    """A call that has arrived. ``missing``: dependencies whose values are not here.

    ``queued``: it waits for these, or behind one that does.
    """

    __slots__ = (
        *("call", "caller", "cancelled", "ended", "group", "missing", "queued", "running"),
        "values",
    )

    def __init__(self, caller: bytes, call: Call, group: Group) -> None:
        self.caller = caller
        self.call = call
        self.group = group
        self.queued = False
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
        # By group, in order; the first waits for its values.
        self.queues: dict[str, deque[Entry]] = {}
        self.open: dict[bytes, Entry] = {}  # by task: arrived in order, not ended
        self.kept: dict[int, tuple[CallDone, object]] = {}
        self.cancels: dict[bytes, None] = {}  # of tasks that are not here: they may overtake these
        self.heard = True  # something came since ``silent`` was asked last


class ActorInbox(Generic[Route]):
    """Args:
    groups: how many calls of each concurrency group run at once; of the others, max_concurrency.
    group_of: by method, the group of its calls that name none.
    out_of_order: calls that wait for their arguments do not hold up others.
    may_serve: asked before each call starts; None: an actor that nobody starts again.
    unknown_group: the error of a call that names a group which there is not.
    cancelled: the error of a call that was cancelled before it started.
    """

    def __init__(
        self,
        actor_id: bytes,
        incarnation: int,
        max_concurrency: int,
        may_serve: Callable[[], bool] | None = None,
        *,
        class_name: str = "Actor",
        groups: Mapping[str, int] | None = None,
        group_of: Mapping[str, str] | None = None,
        out_of_order: bool = False,
        unknown_group: Callable[[Call], bytes] = lambda _call: b"",
        cancelled: Callable[[Call], bytes] = lambda _call: b"",
    ) -> None:
        self.actor_id = actor_id
        self._class_name = class_name
        self.incarnation = incarnation
        self._may_serve = may_serve
        self.paused = False  # calls wait until it may serve again, of which nobody tells
        self.closing = False  # no more calls are taken
        self.stopped = False  # no more calls start
        self._default = Group("", max_concurrency)
        self._groups = {"": self._default}
        for name, limit in (groups or {}).items():
            self._groups[name] = Group(name, limit)
        self._all = [*self._groups.values()]
        self._group_of = group_of or {}
        self._in_any_order = out_of_order
        self._unknown_group = unknown_group
        self._cancelled = cancelled
        self._lines: dict[bytes, Line[Route]] = {}
        self._waiting = 0  # entries that are queued
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
            group: Group | None = self._default
            if call.group or self._group_of:
                group = self._groups.get(call.group or self._group_of.get(call.method, ""))
            entry = Entry(caller, call, group or self._default)
            line.open[call.task_id] = entry
            if call.given_up:
                self._end(entry, CANCELLED, [], None)
                continue
            if not (call.dependencies or line.cancels or line.queues or group is None):
                entry.group.ready.append(entry)
                continue
            if line.cancels and line.cancels.pop(call.task_id, 0) is None:
                entry.cancelled = True
                self._end(entry, CANCELLED, errors(call, self._cancelled(call)), None)
                continue
            if group is None:
                self._end(entry, FINISHED, errors(call, self._unknown_group(call)), None)
                continue
            if len(entry.values) < len(call.dependencies):
                entry.missing = 1  # until the shell has counted
                incomplete.append(entry)
            elif self._in_any_order or not line.queues.get(entry.group.name):
                self._complete(entry)
                continue
            entry.queued = True
            self._waiting += 1
            if not self._in_any_order:
                line.queues.setdefault(entry.group.name, deque()).append(entry)
        return incomplete

    def _complete(self, entry: Entry) -> None:
        """It is the call's turn, and it has all that it needs."""
        failed = None
        if entry.values:
            failed = next((v for v in entry.values.values() if v.kind & ERROR), None)
        if failed is not None:
            value = failures.of_argument(failed.value, f"{self._class_name}.{entry.call.method}")
            self._end(entry, FINISHED, errors(entry.call, value), None)
        else:
            entry.group.ready.append(entry)

    def _advance(self, line: Line[Route], entry: Entry) -> None:
        """The queued call has what it lacked, or has ended."""
        if not entry.queued:
            return
        if self._in_any_order:
            self._unqueue(entry)
            return
        queue = line.queues[entry.group.name]
        while queue and (queue[0].ended or not queue[0].missing):
            self._unqueue(queue.popleft())
        if not queue:
            del line.queues[entry.group.name]

    def _unqueue(self, entry: Entry) -> None:
        entry.queued = False
        self._waiting -= 1
        if not entry.ended:
            self._complete(entry)

    def arrived(self, entry: Entry, outcome: Outcome | None = None) -> None:
        """One of the values that the call lacks is here."""
        if outcome is not None:
            entry.values[outcome.object_id] = outcome
        entry.missing -= 1
        line = self._lines.get(entry.caller)
        if line is not None and not entry.missing:
            self._advance(line, entry)

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
            for entry in line.open.values():
                entry.ended = not entry.running
                self._waiting -= entry.queued
                entry.queued = False

    # ---- running ---------------------------------------------------------------------------

    def next(self) -> Entry | None:
        """The call to start now; from here on it has started."""
        if self.stopped:
            return None
        if self._may_serve is not None and any(group.ready for group in self._all):
            self.paused = not self._may_serve()
            if self.paused:
                return None
        for group in self._all:
            while group.ready and group.running < group.limit:
                entry = group.ready.popleft()
                if not entry.ended:
                    entry.running = True
                    group.running += 1
                    return entry
        return None

    def ended(self, entry: Entry, status: int, results: list[Outcome], pins: object) -> None:
        """A call has ended. ``pins`` is kept along with its answer until that is acknowledged."""
        entry.group.running -= 1
        entry.running = False
        if not entry.ended:
            self._end(entry, status, results, pins)

    def left(self, entry: Entry | None) -> None:
        """The actor is to end: no other call starts. ``entry``: which wants that, and so gets no
        answer."""
        self.stopped = self.closing = True
        if entry is not None:
            entry.group.running -= 1
            entry.running = False
            entry.ended = True

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

    def cancel(self, caller: bytes, task_id: bytes) -> Entry | None:
        """Drop a call that has not started, or has not come yet; returns one that runs."""
        line = self._lines.get(caller)
        if line is None:
            return None
        entry = line.open.get(task_id)
        if entry is None:
            line.cancels[task_id] = None
            if len(line.cancels) > limits.ACTOR_CANCELS_MAX:
                del line.cancels[next(iter(line.cancels))]
            return None
        if entry.ended:
            return None
        entry.cancelled = True
        if entry.running:
            return entry
        self._end(entry, CANCELLED, errors(entry.call, self._cancelled(entry.call)), None)
        self._advance(line, entry)
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
        return not self._waiting and not any(group.running or group.ready for group in self._all)

    def running(self, task_id: bytes) -> Call | None:
        """The call, if it runs here now."""
        for line in self._lines.values():
            entry = line.open.get(task_id)
            if entry is not None and entry.running:
                return entry.call
        return None

    def busy(self) -> bool:
        """Whether a call runs."""
        return any(group.running for group in self._all)

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

    def route_of(self, caller: bytes) -> tuple[Route] | None:
        """The way to a caller; None: it is not known any more."""
        line = self._lines.get(caller)
        return (line.route,) if line is not None else None

    def heard(self, caller: bytes) -> None:
        """Something else than calls came from the caller."""
        line = self._lines.get(caller)
        if line is not None:
            line.heard = True

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
