"""The ActorCaller machine: one actor as one process calls it.

Numbers the calls of each incarnation, keeps every call until it is answered, and decides what
becomes of those that an incarnation took with it. Knows no references and no transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zray import limits
from zray.core.identity import Identity
from zray.protocol.messages import (
    ACTOR_ALIVE,
    ACTOR_DEAD,
    ACTOR_RESTARTING,
    ActorInfo,
    ActorState,
    Call,
    CallDone,
    Calls,
)

UNDECIDED = 0  # nothing is sent
DIRECT = 1  # over a socket between the two processes
RELAYED = 2  # by way of the head

HANDLE_INDEX = 0  # of the actor's object whose holders are those who have a handle


class PendingCall:
    """A call without an answer. ``retries``: how often it may still fail, by the end of an
    incarnation or with an error that ``retry`` covers; -1: any number.

    ``box``: the object that holds its arguments where they are large; then ``arguments`` is empty,
    or they were too large only for the way that the call went. ``group``, ``retry``, ``quiet``: as
    in CALL.

    One that is ``given_up`` has its error already. It is kept until the actor answers, since that
    may have it: its number is not free before, nor is what it refers to.
    """

    __slots__ = (
        *("task_id", "method", "num_returns", "arguments", "dependencies", "nested", "parent"),
        *("retries", "box", "group", "retry", "cancelled", "recursive", "seq", "actor"),
        *("may_have_run", "given_up", "yields", "unread_max", "quiet"),
    )

    def __init__(
        self,
        actor: ActorCaller,
        task_id: bytes,
        method: str,
        num_returns: int,
        retries: int,
        arguments: bytes,
        dependencies: list[bytes],
        nested: list[bytes],
        parent: bytes,
        box: bytes,
        group: str = "",
        retry: bytes = b"",
        yields: int = 0,
        unread_max: int = 0,
        quiet: bool = False,
    ) -> None:
        self.actor = actor
        self.task_id = task_id
        self.method = method
        self.num_returns = num_returns
        self.retries = retries
        self.arguments = arguments
        self.dependencies = dependencies
        self.nested = nested
        self.parent = parent
        self.box = box
        self.group = group
        self.retry = retry
        self.cancelled = False
        self.recursive = False  # and so are those that it has made
        self.seq = -1  # not sent to the present incarnation
        self.may_have_run = False  # an incarnation ended that had it, or it has failed
        self.given_up = False
        self.yields = yields
        self.unread_max = unread_max
        self.quiet = quiet


class ActorCaller:
    """One process's calls of one actor, in order."""

    def __init__(self, actor_id: bytes, caller: bytes) -> None:
        self.actor_id = actor_id
        self.caller = caller
        self.info: ActorInfo | None = None
        self.state = 0  # nothing known yet
        self.incarnation = 0
        self.worker_id = b""
        self.node_id = b""
        self.machine = ""
        self.text = ""
        self.error = b""
        self.away = False  # it lives, but what goes by way of the head does not reach it
        self.broken = False  # its socket was closed, whatever that means
        self.path = UNDECIDED
        self.waiting: deque[PendingCall] = deque()
        self.sent: dict[int, PendingCall] = {}
        self.unsettled: dict[int, None] = {}  # answered, but the answer may not be forgotten yet
        self.acknowledge = False  # an answer came that the actor still keeps
        self.kept_alive = False  # its handle is counted for the calls without an answer
        self.ended: ActorState | None = None  # to be applied once its socket is read to the end
        self.relinked = False  # what was said by way of the head before that may be lost
        self._link = -1
        self._next = 0
        self._bytes = 0
        self._given_up = 0  # of those that were sent

    def unanswered(self) -> int:
        """How many calls wait here or at the actor."""
        return len(self.waiting) + len(self.sent)

    def open_calls(self) -> int:
        """How many of these have no error yet."""
        return len(self.waiting) + len(self.sent) - self._given_up

    def out_of_reach(self) -> bool:
        """Whether nothing reaches the actor at present, which lives as far as is known."""
        return self.away and self.path == RELAYED

    # ---- out -------------------------------------------------------------------------------

    def take_calls(
        self, make: Callable[[PendingCall], Call], may_leave: Callable[[PendingCall], bool]
    ) -> Calls | None:
        """The calls to send now, as many as go into one message; None: nothing is to be sent.

        A call that may not leave yet keeps those behind it, unless order does not matter.
        """
        if self.path == UNDECIDED or self.ended is not None or self.out_of_reach():
            return None
        calls: list[Call] = []
        size = 0
        passed: list[PendingCall] = []
        while self.waiting and size < limits.SUBMIT_BYTES_MAX and self._open():
            if not may_leave(self.waiting[0]):
                if not self._may_pass(len(passed)):
                    break
                passed.append(self.waiting.popleft())
                continue
            call = self.waiting.popleft()
            call.seq = self._next
            self._next += 1
            self.sent[call.seq] = call
            self._bytes += len(call.arguments)
            made = make(call)
            calls.append(made)
            size += _size(made) if made.values else len(made.arguments)
        if passed:
            self.waiting.extendleft(reversed(passed))
        if not calls and not self.acknowledge:
            return None
        return self._message(calls)

    def _may_pass(self, passed: int) -> bool:
        """Whether calls may leave before one that may not, and ``passed`` others."""
        in_any_order = self.info is not None and self.info.out_of_order
        return in_any_order and passed < limits.ACTOR_PASSED_CALLS_MAX

    def _open(self) -> bool:
        return (
            len(self.sent) < limits.ACTOR_WINDOW_CALLS and self._bytes < limits.ACTOR_WINDOW_BYTES
        )

    def _message(self, calls: list[Call]) -> Calls:
        self.acknowledge = False
        return Calls(0, self.actor_id, self.incarnation, self.caller, self._upto(), calls)

    def _upto(self) -> int:
        lowest = next(iter(self.sent), self._next)
        return min(lowest, min(self.unsettled, default=lowest))

    def calls_again(self, make: Callable[[PendingCall], Call]) -> list[Calls]:
        """Everything unanswered once more, unchanged: the way there may have lost it."""
        messages = []
        calls: list[Call] = []
        size = 0
        for call in self.sent.values():
            calls.append(make(call))
            size += _size(calls[-1])
            if size >= limits.SUBMIT_BYTES_MAX:
                messages.append(self._message(calls))
                calls, size = [], 0
        return [*messages, self._message(calls)]

    # ---- in --------------------------------------------------------------------------------

    def answered(self, done: CallDone, incarnation: int) -> PendingCall | None:
        """The call that this ends, if it is still open."""
        call = self.sent.get(done.seq)
        if incarnation != self.incarnation or call is None or call.task_id != done.task_id:
            return None
        del self.sent[done.seq]
        self._bytes -= len(call.arguments)
        self._given_up -= call.given_up
        self.acknowledge = True
        return call

    def again(self, calls: list[PendingCall]) -> None:
        """The calls have failed, and are made again before those that have not been sent."""
        for call in calls:
            call.seq = -1
            call.may_have_run = True
            call.retries -= call.retries > 0
        self.waiting.extendleft(reversed(calls))

    def withdraw(self, call: PendingCall) -> bool:
        """Take back a call that was not sent; False: it was."""
        if call.seq >= 0:
            return False
        self.waiting.remove(call)
        return True

    def news(self, state: ActorState) -> bool:
        """What the head says of the actor. True: all that is unanswered has to be sent again.

        Calls that the end of an incarnation interrupts are for ``interrupted`` to judge.
        """
        # What was not sent while it was away, and perhaps lost on its way before, is sent then.
        self.relinked = self.away or self._link not in (-1, state.link)
        self._link = state.link
        self.text = state.text
        self.state = state.state
        self.error = state.error
        self.away = state.away
        if state.state != ACTOR_ALIVE:
            self.path = UNDECIDED
            return False
        if state.incarnation != self.incarnation:
            self.incarnation = state.incarnation
            self.worker_id = state.worker_id
            self.node_id = state.node_id
            self.machine = state.machine
            self.path = UNDECIDED
            return False
        return self.path == RELAYED and self.relinked

    def ends_incarnation(self, state: ActorState) -> bool:
        """Whether what was sent to the present incarnation got its last answer before this."""
        if state.state == ACTOR_ALIVE:
            return state.incarnation != self.incarnation and bool(self.incarnation)
        return state.state in (ACTOR_RESTARTING, ACTOR_DEAD)

    def interrupted(self) -> list[PendingCall]:
        """The incarnation is over: calls that may not run again; the others wait for the next."""
        sent, self.sent = self.sent, {}
        self.unsettled.clear()
        self.acknowledge = False
        self._next = self._bytes = self._given_up = 0
        self.broken = False
        lost = []
        again = []
        for call in sent.values():
            if call.retries and not (call.cancelled or call.given_up):
                again.append(call)
            else:
                lost.append(call)
        self.again(again)
        for call in lost:
            call.seq = -1
            call.may_have_run = True
        return lost

    def give_up(self) -> list[PendingCall]:
        """The way to the actor is cut: of the calls that were sent, those that get their error now.

        The others are sent again once there is a way, unchanged, which is no retry.
        """
        lost = []
        for call in self.sent.values():
            if not call.given_up and (call.cancelled or not call.retries):
                lost.append(call)
                call.given_up = call.may_have_run = True
                self._bytes -= len(call.arguments)
                call.arguments = b""
        self._given_up += len(lost)
        return lost

    def unavailable(self) -> list[PendingCall]:
        """The actor cannot be called now: of the calls that wait, those that may not wait for that.

        One that an incarnation's end has interrupted may: that was one of its retries.
        """
        lost = [call for call in self.waiting if not (call.retries or call.may_have_run)]
        if lost:
            self.waiting = deque(call for call in self.waiting if call.retries or call.may_have_run)
        return lost

    def refused(self) -> list[PendingCall]:
        """The actor is dead: what waits will not be sent any more."""
        waiting, self.waiting = self.waiting, deque()
        return list(waiting)


class ActorCallers(dict[bytes, ActorCaller]):
    """One process's: by actor."""

    def __init__(self, me: Identity) -> None:
        super().__init__()
        self._me = me

    def of(self, actor_id: bytes) -> ActorCaller:
        """The actor's; made if there is none."""
        actor = self.get(actor_id)
        if actor is None:
            actor = self[actor_id] = ActorCaller(actor_id, self._me.process_id)
        return actor

    def nodes(self, machine: str) -> set[bytes]:
        """Those on that machine where actors are, or were."""
        return {actor.node_id for actor in self.values() if actor.machine == machine} - {b""}


def _size(call: Call) -> int:
    """The bytes of values in a call as it travels."""
    size = len(call.arguments)
    for value in call.values:
        size += len(value.value)
    return size
