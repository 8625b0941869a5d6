"""A worker that has become an actor: runs the calls of its methods, in order or at once.

The ActorInbox machine decides what runs next. Calls come over sockets of callers on this machine,
or by way of the raylet; answers go back the way the last calls came. A plain actor runs calls in
the main thread, one with max_concurrency in threads, one with ``async def`` methods in a loop.
"""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Callable
from functools import partial
from types import GeneratorType
from typing import Any

from zray import limits
from zray.core import failures
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import ActorInbox, Entry, staying
from zray.core.worker.kept_runs import remembered
from zray.core.worker.reports import CALL, Ran
from zray.errors import TaskCancelledError
from zray.ids import object_id
from zray.nodes.participant.shared_values import bytes_of, load
from zray.nodes.worker import call_errors, last_words
from zray.nodes.worker.actor_links import ActorLinks, Route
from zray.nodes.worker.host import Host
from zray.nodes.worker.method_names import MethodNames
from zray.nodes.worker.streams import Source, StreamServer
from zray.protocol import messages as m
from zray.runtime import pickling, serialization
from zray.runtime.actor_class import groups_of, items_per_yield
from zray.runtime.actor_exit import ActorExit
from zray.runtime.departure import Departure
from zray.runtime.grouped_items import each
from zray.runtime.references import ObjectRef, counted
from zray.runtime.returns import collected, encoded, only, several
from zray.runtime.tracing import CARRIED, traced

# The outcomes of a call, and references that have to live until its caller has them; None in the
# place of outcomes: it has failed with what it is to be made again for.
Ended = tuple[list[m.Outcome] | None, list[ObjectRef[Any]]]
current_call: contextvars.ContextVar[Entry | None] = contextvars.ContextVar("call", default=None)


class ActorServer(ActorLinks):
    """``worker``'s lock guards everything here, but for the user's code. ``error``: the record of
    what that has raised, in a call of that name. ``values``: of the constructor's dependencies.
    ``keep``: has the node keep a call that has failed."""

    def __init__(
        self,
        worker: Host,
        instance: Any,
        assignment: m.Assignment,
        values: list[m.Outcome],
        error: Callable[[BaseException, str, bytes, Any], bytes],
        keep: Callable[[Any, Any, bytes], None],
        streams: StreamServer,
    ) -> None:
        assert assignment.actor is not None
        self._lock = worker.lock
        self._record_of = error
        self._keep = keep
        self.instance = instance
        self.info = assignment.actor
        self.actor_id = assignment.spec.task_id
        self.incarnation = assignment.attempt
        self.assignment = assignment
        self.creation_values = remembered(values)
        inbox: ActorInbox[Route] = ActorInbox(
            self.actor_id,
            self.incarnation,
            self.info.max_concurrency,
            worker.lease_holds if self.info.max_restarts else None,
            class_name=self.info.class_name,
            groups=dict(self.info.groups),
            group_of=groups_of(type(instance)) if self.info.groups else {},
            out_of_order=self.info.out_of_order,
            unknown_group=self._unknown_group,
            cancelled=partial(call_errors.cancelled_early, self.info),
        )
        super().__init__(worker, inbox, streams)
        streams.unread_max = self.info.unread_max
        self._methods: dict[str, Callable[..., Any]] = {}
        self._seconds: dict[str, float] = {}  # measured, by method
        self._unsent_since = 0.0  # when the oldest answer was made that has not left
        self._departure: Departure[Entry] = Departure()
        self._unsure = 0  # answers that wait until the cluster knows what their calls kept
        self._names = MethodNames(self.info.class_name)
        self._titles: dict[str, bytes] = {}  # of the process, by method that runs
        self._reports = worker.teller.reports
        self._running: dict[Entry, float] = {}  # since when, by time.perf_counter
        self._counts: dict[str, tuple[str, list[int]]] = {}  # name and how many ended, by method
        self.idle_title = worker.title.cut(f"zray::{self.info.class_name}")
        worker.title.show(self.idle_title)

    def cancel(self, message: m.CancelCall) -> Entry | None:
        """Drop a call, or mark a running one, which is returned. With the lock held."""
        running = self.inbox.cancel(message.caller, message.task_id)
        self.send_replies()
        return running

    def _record(self, error: BaseException, name: str) -> bytes:
        return self._record_of(error, name, self.actor_id, self.instance)

    def _unknown_group(self, call: m.Call) -> bytes:
        return self._record(call_errors.unknown_group(self.info, call), self._names[call.method])

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
            self._send(route, replies)

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
                pins.append(counted(result.object_id))
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
        while True:
            worker.hear_control()
            entry = self.inbox.next()
            if entry is not None:
                self._hurry(entry)
                return entry
            self.send_replies()
            if self.over():
                return None
            worker.title.show(self.idle_title)
            worker.flush_if_due()
            worker.lead_or_follow(self.look_after_s())

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
        if self._departure.wanted:
            return not self.inbox.busy()
        return self.inbox.closing and self.inbox.idle()

    def leave(self) -> int:
        """Deliver the answers that there are, have user code say goodbye, and end."""
        worker, deadline = self.worker, time.monotonic() + limits.ACTOR_LINGER_S
        with self._lock:
            self.inbox.closing = True
            self.send_replies()
            while self._undelivered() and (left := deadline - time.monotonic()) > 0:
                worker.lead_or_follow(left)
                self.send_replies()
            if self._departure.wanted and not self._departure.failed:
                worker.tell_raylet([m.Exiting(0, self._departure.reason)])
        if self._departure.failed:
            print(self._departure.reason, file=sys.stderr, flush=True)
        last_words.run(self.instance, self._departure.code)
        return self._departure.code

    def _undelivered(self) -> bool:
        """Whether an answer may still get lost. What a socket has taken is as good as read."""
        if self._unsure or self.writes_pending() or self.worker.client.owes():
            return True
        return self._departure.wanted and self.inbox.owes(None)

    def execute(self, entry: Entry) -> Ended | None:
        """Run one call in this thread, to be finished; None: the actor has left."""
        call = entry.call
        token = current_call.set(entry)
        title = self._titles.get(call.method)
        if title is None:
            title = self.worker.title.cut(f"zray::{self._names[call.method]}")
            self._titles[call.method] = title
        self.worker.title.show(title)
        began = self.begins(entry)
        try:
            ended = self._attempt(entry)
        finally:
            current_call.reset(token)
        seconds = self.ran(entry, began)
        known = self._seconds.get(call.method, seconds)
        self._seconds[call.method] = known + (seconds - known) * 0.2
        return ended

    def begins(self, entry: Entry) -> float:
        """Note that a call begins; when that is."""
        began = time.perf_counter()
        reports = self._reports
        if not (reports.silent or entry.call.quiet):
            self._running[entry] = began
            if not reports.due:
                self.worker.teller.remind()
        return began

    def ran(self, entry: Entry, began: float) -> float:
        """Note that a call has ended; how many seconds it took."""
        seconds = time.perf_counter() - began
        reports = self._reports
        call = entry.call
        if not (reports.silent or call.quiet):
            self._running.pop(entry, None)
            counted = self._counts.get(call.method)
            if counted is None:
                name = self._names[call.method][: limits.NAME_MAX]
                counted = self._counts[call.method] = (name, reports.calls_of(name))
            name, counts = counted
            counts[0] += 1
            reports.spans.append((name, call.task_id, began, seconds, CALL, call.parent))
            if not reports.due:
                self.worker.teller.remind()
        return seconds

    def now_running(self) -> list[Ran]:
        """The calls that run."""
        return [
            (self._names[one.call.method], one.call.task_id, began, 0.0, CALL, one.call.parent)
            for one, began in [*self._running.items()]
        ]

    def _attempt(self, entry: Entry) -> Ended | None:
        try:
            method, args, kwargs = self.prepare(entry)
            try:
                value = method(*args, **kwargs)
                if entry.call.yields:
                    value = self.yielded(entry, value)
            finally:
                self.worker.end_if_forked()
            if self._departure.leavers and self.is_leaving(entry):
                raise ActorExit
            return self.stopped(entry) if entry.cancelled else self.results(entry, value)
        except SystemExit as leaving:
            self.exit(entry, leaving)
            return None
        except BaseException as error:
            return self.stopped(entry) if entry.cancelled else self.error(entry, error)

    def yielded(self, entry: Entry, values: Any) -> Any:
        """What a call returns that has returned a generator, which runs here."""
        source = self.source(entry)
        if entry.call.yields == m.REFERENCES:
            return collected(values, source.name, self.worker, source.error)
        self.streams.drive(source, self.each(entry, values))
        return None

    def each(self, entry: Entry, values: Any) -> Any:
        """What a call yields, item by item."""
        return each(values, items_per_yield(type(self.instance), entry.call.method))

    def source(self, entry: Entry) -> Source:
        """The call as one that yields."""
        call, name = entry.call, self._names[entry.call.method]
        return Source(
            *(call.task_id, entry.caller, call.unread_max, name, self.info.by_name),
            *(self._send_items, lambda: entry.cancelled),
            partial(self._yielding_failed, entry),
        )

    def _yielding_failed(self, entry: Entry, error: BaseException) -> bytes | None:
        if entry.cancelled:
            return None
        data = self._record(error, self._names[entry.call.method])
        self._keep(self, entry, data)
        return data

    def prepare(self, entry: Entry) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The method of a call, and its arguments."""
        call = entry.call
        method = self._methods.get(call.method) or self._method(call.method)
        values = [entry.values[oid] for oid in call.dependencies]
        data: bytes | memoryview = call.arguments
        if call.boxed:
            data, values = bytes_of(values[0]), values[1:]
        args, kwargs = serialization.loads_arguments(data, [load(one) for one in values])
        if CARRIED in kwargs:
            method = traced(method, kwargs, self._names[call.method])
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

    def results(self, entry: Entry, value: Any) -> Ended:
        """What a call has returned."""
        call = entry.call
        values = [value]
        if call.num_returns == 0:
            return [], []
        if call.num_returns > 1:
            values = several(value, call.num_returns, self._names[call.method])
        elif type(value) is GeneratorType:
            values = [only(value, self._names[call.method])]
        outcomes = []
        pins: list[ObjectRef[Any]] = []
        for index, one in enumerate(values):
            what = f"the result of {self._names[call.method]}"
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
            pickling.check_count(references, f"the results of {self._names[call.method]}")
        return outcomes, pins

    def _put(self, outcome: m.Outcome) -> ObjectRef[Any]:
        """A large result is an object of this process's until its caller holds it."""
        with self._lock:
            self.worker.client.references.adopt(outcome.object_id)
            self.worker.tell_raylet([m.Put(0, self.worker.worker_id, outcome)])
        return counted(outcome.object_id)

    def error(self, entry: Entry, error: BaseException) -> Ended:
        """The same for what a call raised."""
        call = entry.call
        if call.retry and not entry.cancelled and call_errors.retried(self.instance, call, error):
            return None, []
        data = self._record(error, self._names[call.method])
        self._failed(entry, data)
        self._keep(self, entry, data)
        return failures.outcomes(call.task_id, call.num_returns, data), []

    def calls_ended(self) -> int:
        """How many calls of this actor have ended, of which is told."""
        return sum(counts[0] for _, counts in [*self._counts.values()])

    def _failed(self, entry: Entry, data: bytes) -> None:
        call, began = entry.call, self._running.get(entry)
        if began is not None:
            seconds = time.perf_counter() - began
            name = self._names[call.method]
            self._reports.failed((name, call.task_id, began, seconds, CALL, call.parent), data)

    def stopped(self, entry: Entry) -> Ended:
        """The same for a call that was cancelled while it ran, whatever it made of that."""
        call = entry.call
        data = failures.encode(
            TaskCancelledError, "the call was cancelled", self._names[call.method]
        )
        self._failed(entry, data)
        return failures.outcomes(call.task_id, call.num_returns, data), []

    def finish(self, entry: Entry, ended: Ended) -> None:
        """Answer a call; with references that it keeps, once the cluster knows that it does."""
        with self._lock:
            self._finish(entry, ended)

    def _finish(self, entry: Entry, ended: Ended) -> None:
        outcomes, pins = ended
        call = entry.call
        if self._reports.urgent:
            self.worker.teller.tell_failures()
        borrowed = list(call.nested)
        for value in call.values:
            borrowed += value.contained
        if borrowed:
            self.worker.collect_dropped()
            if any(oid in self.worker.client.references for oid in borrowed):
                self._answer_later(entry, outcomes, pins)
                return
        self._answer(entry, outcomes, pins)

    def _answer(
        self, entry: Entry, outcomes: list[m.Outcome] | None, pins: list[ObjectRef[Any]]
    ) -> None:
        if outcomes is None:
            self.inbox.ended(entry, m.FAILED, [], pins)
        else:
            status = m.CANCELLED if entry.cancelled else m.FINISHED
            self.inbox.ended(entry, status, outcomes, pins)
        if not self._unsent_since:
            self._unsent_since = time.monotonic()

    def _answer_later(
        self, entry: Entry, outcomes: list[m.Outcome] | None, pins: list[ObjectRef[Any]]
    ) -> None:
        def known() -> None:
            self._unsure -= 1
            self._answer(entry, outcomes, pins)
            self.send_replies()

        self._unsure += 1
        self.worker.flush()
        self.worker.client.ask(lambda seq: m.Sync(seq), Waiter(known))
        self.worker.flush()

    def exit(self, entry: Entry | None, leaving: SystemExit) -> None:
        """User code wants the actor to end, in that call, which gets no answer."""
        where = self._names[entry.call.method] if entry is not None else ""
        with self._lock:
            self._departure.want(leaving, where)
            self._departure.leavers.discard(entry)
            self.inbox.left(entry)
            self.worker.wake()

    def was_cancelled(self, entry: Entry) -> bool:
        """Whether somebody wants it no more."""
        return entry.cancelled

    def is_leaving(self, entry: Entry) -> bool:
        """Whether the call has called ``exit_actor``."""
        return entry in self._departure.leavers

    def leaves(self) -> None:
        """``exit_actor`` was called, which user code may not keep from what it does."""
        entry = current_call.get()
        if entry is not None:
            self._departure.leavers.add(entry)
        else:
            self.exit(None, ActorExit())

    def cancelled(self) -> bool:
        """Whether the running call was cancelled."""
        entry = current_call.get()
        return entry is not None and entry.cancelled
