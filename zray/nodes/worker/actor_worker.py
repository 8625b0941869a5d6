"""A worker that has become an actor: runs the calls of its methods, in order or at once.

The ActorInbox machine decides what runs next. Calls come over sockets of callers on this machine,
or by way of the raylet; answers go back the way the last calls came. A plain actor runs calls in
the main thread, one with max_concurrency in threads, one with ``async def`` methods in a loop.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable
from typing import Any

from zray import limits
from zray.core import failures
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import ActorInbox, Entry, staying
from zray.errors import ProtocolError, TaskCancelledError
from zray.ids import object_id, split_tasks
from zray.nodes.participant.shared_values import bytes_of, load
from zray.nodes.worker.host import Host
from zray.nodes.worker.returns import encoded, several
from zray.protocol import codec
from zray.protocol import messages as m
from zray.protocol.errors import cut_text
from zray.runtime import pickling, serialization
from zray.runtime.actor_exit import ActorExit
from zray.runtime.linux import direct
from zray.runtime.linux.direct import DirectLink
from zray.runtime.references import ObjectRef
from zray.runtime.stream import read_available

Route = DirectLink | None  # None: by the raylet
# The outcomes of a call, and references that have to live until its caller has them.
Ended = tuple[list[m.Outcome], list[ObjectRef[Any]]]
current_call: contextvars.ContextVar[Entry | None] = contextvars.ContextVar("call", default=None)


class ActorServer:
    """``worker``'s lock guards everything here, but for the user's code. ``error``: the record of
    what that has raised, in a call of that name."""

    def __init__(
        self,
        worker: Host,
        instance: Any,
        assignment: m.Assignment,
        error: Callable[[BaseException, str], bytes],
    ) -> None:
        assert assignment.actor is not None
        self.worker = worker
        self._lock = worker.lock
        self._record = error
        self.instance = instance
        self.info = assignment.actor
        self.actor_id = assignment.spec.task_id
        self.incarnation = assignment.attempt
        self.assignment = assignment
        self.inbox: ActorInbox[Route] = ActorInbox(
            self.actor_id,
            self.incarnation,
            self.info.max_concurrency,
            worker.lease_holds if self.info.max_restarts else None,
        )
        self._listener = direct.listen(worker.worker_id)
        self._links: dict[int, DirectLink] = {}
        self._methods: dict[str, Callable[..., Any]] = {}
        self._seconds: dict[str, float] = {}  # measured, by method
        self._unsent_since = 0.0  # when the oldest answer was made that has not left
        self._exit_reason: str | None = None
        self._unsure = 0  # answers that wait until the cluster knows what their calls kept
        self._check_at = time.monotonic() + limits.ACTOR_CALLERS_CHECK_S
        worker.poller.watch(self._listener)

    # ---- sockets ---------------------------------------------------------------------------

    def read(self, ready: list[int] | None) -> None:
        """Read callers' sockets: those that are ``ready``, or all. With the lock held."""
        if ready is None or self._listener.fileno() in ready:
            self._accept()
        for fd in [*self._links] if ready is None else ready:
            link = self._links.get(fd)
            if link is not None:
                self._read_link(fd, link)
        if time.monotonic() >= self._check_at:
            self._check_callers()

    def _accept(self) -> None:
        while (link := direct.accept(self._listener)) is not None:
            self._links[link.fileno()] = link
            self.worker.poller.watch(link)

    def _read_link(self, fd: int, link: DirectLink) -> None:
        with contextlib.suppress(OSError):
            if link.writer.pending and link.writer.flush():
                self.worker.poller.watch(fd)
        try:
            frames, ended = read_available(link.socket, link.reader)
            for frame in frames:
                for message in codec.decode(frame).messages:
                    if isinstance(message, m.Calls):
                        self.receive(message, link)
        except ProtocolError:  # whoever that is, it is no caller
            ended = True
        if ended:
            self.worker.poller.forget(fd)
            del self._links[fd]
            link.close()
            for caller in self.inbox.callers(link):
                self.inbox.reroute(caller, None)

    def receive(self, message: m.Calls, route: Route) -> None:
        """Calls have come. With the lock held."""
        for entry in self.inbox.receive(message, route):
            self._get_values(entry)

    def _get_values(self, entry: Entry) -> None:
        """Ask for the values of the call's arguments that did not come along."""
        for oid in entry.call.dependencies:
            if oid not in entry.values:
                entry.missing += 1
                self.worker.client.fetch(oid, functools.partial(self.inbox.arrived, entry))
        self.inbox.arrived(entry)
        self.worker.flush()

    def _check_callers(self) -> None:
        """Forget callers that have ended: nobody else tells."""
        self._check_at = time.monotonic() + limits.ACTOR_CALLERS_CHECK_S
        silent = self.inbox.silent()
        if not silent:
            return

        def known() -> None:
            for message in answer:
                if isinstance(message, m.Gone):
                    for caller in split_tasks(message.process_ids):
                        self.inbox.forget(caller)

        client = self.worker.client
        answer = client.ask(lambda seq: m.AskGone(seq, b"".join(silent)), Waiter(known))
        self.worker.flush()

    def cancel(self, message: m.CancelCall) -> Entry | None:
        """Drop a call, or mark a running one, which is returned. With the lock held."""

        def outcomes(call: m.Call) -> list[m.Outcome]:
            text = "the call was cancelled before it started"
            value = failures.encode(TaskCancelledError, text, self._name(call.method))
            return failures.outcomes(call.task_id, call.num_returns, value)

        running = self.inbox.cancel(message.caller, message.task_id, outcomes)
        self.send_replies()
        return running

    # ---- answers ---------------------------------------------------------------------------

    def send_replies(self) -> None:
        """With the lock held."""
        self._unsent_since = 0.0
        if self.worker.client.outbox:
            self.worker.flush()  # what the answers refer to comes first
        for route, replies in self.inbox.take_replies():
            if route is None:
                self._send_by_raylet(replies)
                continue
            try:
                for payload in codec.encode_local([replies]):
                    route.writer.send_nowait(payload)
            except OSError:
                continue  # reading tells
            if route.writer.pending and route.fileno() in self._links:
                self.worker.poller.watch(route, writes=True)
                self.worker.attend_writes()

    def writes_pending(self) -> bool:
        """Whether sockets of callers have not taken all that is to be sent."""
        return any(link.writer.pending for link in self._links.values())

    def _send_by_raylet(self, replies: m.Replies) -> None:
        """Large results stay with the raylet; their caller pulls them."""
        for place, done in enumerate(replies.replies):
            if stay := staying(done.results):
                replies.replies[place] = self._put_away(replies.caller, done, stay)
        self.worker.tell_raylet([replies])

    def _put_away(self, caller: bytes, done: m.CallDone, stay: frozenset[bytes]) -> m.CallDone:
        client = self.worker.client
        results = []
        pins: list[ObjectRef[Any]] = []
        for result in done.results:
            if result.object_id in stay:
                client.references.adopt(result.object_id)
                pins.append(ObjectRef(result.object_id))
                self.worker.tell_raylet([m.Put(0, self.worker.worker_id, result)])
                kind = result.kind | m.LOCATED
                located = m.Outcome(result.object_id, kind, result.size, b"", result.contained)
                results.append(located)
            else:
                results.append(result)
        changed = m.CallDone(done.seq, done.task_id, done.status, results)
        self.inbox.keep(caller, changed, pins)
        return changed

    # ---- running ---------------------------------------------------------------------------

    def run(self) -> int:
        """Serve one call after the other until told to end; the process's exit code."""
        entry: Entry | None = None
        ended: Ended | None = None
        while True:
            with self._lock:  # once for each call
                if entry is not None and ended is not None:
                    self._finish(entry, ended)
                entry = ended = None  # nothing of it is kept here while the next is waited for
                entry = self._next()
            if entry is None:
                return self.leave()
            ended = self.execute(entry)

    def _next(self) -> Entry | None:
        """The next call; waits for it. None: the actor is to end. With the lock held."""
        worker = self.worker
        while self._exit_reason is None:
            entry = self.inbox.next()
            if entry is not None:
                self._hurry(entry)
                return entry
            self.send_replies()
            if self.over():
                return None
            worker.flush_if_due()
            worker.lead_or_follow(self.look_after_s())
        return None

    def look_after_s(self) -> float:
        """How long to wait for something to come, at most."""
        return limits.LEASE_LOOK_S if self.inbox.paused else limits.ACTOR_CALLERS_CHECK_S

    def _hurry(self, entry: Entry) -> None:
        """Answers leave before a call that is not known to be short starts, else soon."""
        if self._unsent_since:
            short = self._seconds.get(entry.call.method, 1.0) < limits.SHORT_TASK_S
            if not short or time.monotonic() - self._unsent_since > limits.RESULT_DELAY_S:
                self.send_replies()
                self.worker.flush_if_due()

    def over(self) -> bool:
        """Whether it is to end, and nothing is left to do. With the lock held."""
        if self.worker.task_inbox.exiting:
            self.inbox.closing = True
        return self._exit_reason is not None or (self.inbox.closing and self.inbox.idle())

    def leave(self) -> int:
        """Deliver the answers that there are, and end."""
        worker, deadline = self.worker, time.monotonic() + limits.ACTOR_LINGER_S
        with self._lock:
            self.inbox.closing = True
            self.send_replies()
            while self._undelivered() and (left := deadline - time.monotonic()) > 0:
                worker.lead_or_follow(left)
                self.send_replies()
            if self._exit_reason is not None:
                worker.tell_raylet([m.Exiting(0, self._exit_reason)])
        return 0

    def _undelivered(self) -> bool:
        """Whether an answer may still get lost. What a socket has taken is as good as read."""
        if self._unsure or self.writes_pending() or self.worker.client.owes():
            return True
        return self._exit_reason is not None and self.inbox.owes(None)

    def execute(self, entry: Entry) -> Ended | None:
        """Run one call in this thread, to be finished; None: the actor has left."""
        call = entry.call
        token = current_call.set(entry)
        began = time.perf_counter()
        try:
            ended = self._attempt(entry)
        finally:
            current_call.reset(token)
        seconds = time.perf_counter() - began
        known = self._seconds.get(call.method, seconds)
        self._seconds[call.method] = known + (seconds - known) * 0.2
        return ended

    def _attempt(self, entry: Entry) -> Ended | None:
        try:
            method, args, kwargs = self.prepare(entry)
            try:
                value = method(*args, **kwargs)
            finally:
                self.worker.end_if_forked()
            return self.results(entry, value)
        except ActorExit as leaving:
            self.exit(str(leaving))
            return None
        except BaseException as error:
            return self.error(entry, error)

    def prepare(self, entry: Entry) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The method of a call, and its arguments."""
        call = entry.call
        method = self._methods.get(call.method) or self._method(call.method)
        values = [entry.values[oid] for oid in call.dependencies]
        data: bytes | memoryview = call.arguments
        if call.boxed:
            data, values = bytes_of(values[0]), values[1:]
        loaded = [load(outcome) for outcome in values]
        args, kwargs = serialization.loads_arguments(data, loaded)
        return method, args, kwargs

    def _method(self, name: str) -> Callable[..., Any]:
        own: dict[str, Callable[..., Any]] = {
            "__ray_ready__": lambda: True,
            "__ray_call__": lambda function, *a, **k: function(self.instance, *a, **k),
            "__ray_terminate__": self._terminate,
        }
        method = own.get(name) or getattr(self.instance, name)
        self._methods[name] = method
        return method

    def _terminate(self) -> None:
        raise ActorExit("__ray_terminate__ was called")

    def _name(self, method: str) -> str:
        return f"{self.info.class_name}.{method}"

    def results(self, entry: Entry, value: Any) -> Ended:
        """What a call has returned."""
        call = entry.call
        values = [value]
        if call.num_returns == 0:
            return [], []
        if call.num_returns > 1:
            values = several(value, call.num_returns, self._name(call.method))
        outcomes = []
        pins: list[ObjectRef[Any]] = []
        for index, one in enumerate(values):
            what = f"the result of {self._name(call.method)}"
            parts = encoded(one, what, portable=self.info.by_name)
            if parts.contained:
                with self._lock:  # while ``value`` has references
                    self.worker.client.references.publish(parts.contained)
                pins += [self.worker.borrow(oid) for oid in parts.contained]
            outcome = self.worker.kept(parts, object_id(call.task_id, index))
            if outcome.kind & m.LOCATED:
                pins.append(self._put(outcome))
            outcomes.append(outcome)
        if call.num_returns > 1:
            references = sum(len(outcome.contained) for outcome in outcomes)
            pickling.check_count(references, f"the results of {self._name(call.method)}")
        return outcomes, pins

    def _put(self, outcome: m.Outcome) -> ObjectRef[Any]:
        """A large result is an object of this process's until its caller holds it."""
        with self._lock:
            self.worker.client.references.adopt(outcome.object_id)
            self.worker.tell_raylet([m.Put(0, self.worker.worker_id, outcome)])
        return ObjectRef(outcome.object_id)

    def error(self, entry: Entry, error: BaseException) -> Ended:
        """The same for what a call raised."""
        call = entry.call
        data = self._record(error, self._name(call.method))
        return failures.outcomes(call.task_id, call.num_returns, data), []

    def stopped(self, entry: Entry) -> Ended:
        """The same for a call that stopped because it was cancelled."""
        call = entry.call
        data = failures.encode(
            TaskCancelledError, "the call was cancelled", self._name(call.method)
        )
        return failures.outcomes(call.task_id, call.num_returns, data), []

    def finish(self, entry: Entry, ended: Ended) -> None:
        """Answer a call; with references that it keeps, once the cluster knows that it does."""
        with self._lock:
            self._finish(entry, ended)

    def _finish(self, entry: Entry, ended: Ended) -> None:
        outcomes, pins = ended
        call = entry.call
        borrowed = list(call.nested)
        for value in call.values:
            borrowed += value.contained
        if borrowed:
            self.worker.collect_dropped()
            if any(oid in self.worker.client.references for oid in borrowed):
                self._answer_later(entry, outcomes, pins)
                return
        self._answer(entry, outcomes, pins)

    def _answer(self, entry: Entry, outcomes: list[m.Outcome], pins: list[ObjectRef[Any]]) -> None:
        status = m.CANCELLED if entry.cancelled else m.FINISHED
        self.inbox.ended(entry, status, outcomes, pins)
        if not self._unsent_since:
            self._unsent_since = time.monotonic()

    def _answer_later(
        self, entry: Entry, outcomes: list[m.Outcome], pins: list[ObjectRef[Any]]
    ) -> None:
        def known() -> None:
            self._unsure -= 1
            self._answer(entry, outcomes, pins)
            self.send_replies()

        self._unsure += 1
        self.worker.flush()
        self.worker.client.ask(lambda seq: m.Sync(seq), Waiter(known))
        self.worker.flush()

    def exit(self, reason: str) -> None:
        """User code wants the actor to end."""
        with self._lock:
            self._exit_reason = cut_text(
                reason or "exit_actor() was called", limits.CAUSE_BYTES_MAX
            )
            self.worker.wake()

    def cancelled(self) -> bool:
        """Whether the running call was cancelled."""
        entry = current_call.get()
        return entry is not None and entry.cancelled
