"""An actor in local mode: its instance, the calls that wait for it, and its end.

A plain one runs each call where it is made, or behind the one that runs already. Which thread or
loop others run theirs in is in ``calls_at_once``.
"""

from __future__ import annotations

import inspect
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from zray.core import failures
from zray.errors import ActorDiedError, ActorUnavailableError, TaskCancelledError
from zray.ids import object_id
from zray.nodes.local.objects import LocalObjects
from zray.nodes.local.running import Running, apart, context_of
from zray.nodes.local.streams import LocalStream
from zray.nodes.local.work import Work, stops_the_program
from zray.protocol import messages as m
from zray.protocol.errors import system_error
from zray.runtime import serialization
from zray.runtime.actor_class import groups_of, items_per_yield, retried
from zray.runtime.actor_exit import ActorExit
from zray.runtime.departure import Departure
from zray.runtime.grouped_items import each
from zray.runtime.retries import covers
from zray.runtime.returns import Putter, collected


class LocalActor:
    """``make``: its class, or what stands for it. ``over``: is told of each call that is answered,
    and of its creation once it is dead, when it ``ended``.

    Attributes:
        dead: why it is, empty while it lives.
        thread: which runs a call of a plain one.
    """

    def __init__(
        self,
        objects: LocalObjects,
        creation: Work,
        info: m.ActorInfo,
        make: Callable[..., Any],
        streams: dict[bytes, LocalStream],
        putter: Putter,
        over: Callable[[Work], None],
        ended: Callable[[LocalActor], None],
    ) -> None:
        self.actor_id = creation.task_id
        self.info = info
        self._objects = objects
        self._creation = creation
        self._make = make
        self._streams = streams
        self._putter = putter
        self._over = over
        self._ended = ended
        self.instance: Any = None
        self.dead = ""
        self._error = b""  # the record of what its constructor has raised
        self._restarts = 0
        self._departure: Departure[Work] = Departure()
        self.lock = threading.RLock()  # never held while user code runs
        self.waiting: deque[Work] = deque()
        self.running: list[Work] = []
        self._counts: Counter[str] = Counter()  # of those that run, by group
        self._groups: dict[str, str] = {}
        self._made = False
        self._retired = False  # nobody has a handle
        self.thread = 0
        self.stream: LocalStream | None = None  # a lazy one, which keeps a plain one from others

    @property
    def template(self) -> m.Template | None:
        """That of its constructor."""
        return self._creation.template

    # ---- its making ------------------------------------------------------------------------

    def construct(self) -> None:
        """Run the constructor, here."""
        work = self._creation
        record = work.failed_argument()
        if record is None:
            running = Running(work, self._restarts + 1, self.actor_id, self.info, self._restarts)
            try:
                make = partial(work.bound, self._make)
                self.instance = apart(context_of(running), work.environment, lambda: make()())
                if running.leaves:
                    raise ActorExit
            except SystemExit as leaving:
                self._departure.want(ActorExit() if running.leaves else leaving, work.name)
                self.end(self._departure.reason)
                return
            except BaseException as error:
                if stops_the_program(error):
                    self.end("the program was stopped in its constructor")
                    raise
                record = work.record(error)
        if record is not None:
            self._error = record
            self.end(failures.of_constructor(record))
            return
        if self.info.groups:
            self._groups = groups_of(type(self.instance))
        self._made = True
        end = m.Outcome(object_id(self.actor_id), m.VALUE, 0, serialization.dumps(None)[0])
        self._objects.settle([end])
        self.pump()

    def _restart(self) -> None:
        """Begin again, after a failure; the calls that wait stay."""
        self._restarts += 1
        self._departure = Departure()
        self._made = False
        self.construct()

    def _restarts_left(self) -> bool:
        most = self.info.max_restarts
        return most < 0 or self._restarts < most

    # ---- calls -----------------------------------------------------------------------------

    def call(self, work: Work) -> None:
        """Run a call as soon as its turn has come and its arguments are there."""
        with self.lock:
            dead = self.dead
            if not dead:
                self.waiting.append(work)
        if dead:
            self.finish(work, partial(work.fail, self._obituary(work, ran=False)))
            return
        if not work.is_ready():
            self._objects.watch(work.dependencies, self._arguments_came)
        self.pump()

    def _arguments_came(self) -> None:
        """Whoever brought them is not to run what waits for them."""
        threading.Thread(target=self.pump, name="zray-call", daemon=True).start()

    def unanswered(self) -> int:
        """How many calls wait or run."""
        return len(self.waiting) + len(self.running)

    def pump(self) -> None:
        """Run what can run."""
        while (work := self._next()) is not None:
            self.begin(work)

    def _next(self) -> Work | None:
        with self.lock:
            if not self._made or self.dead or self._departure.wanted or self.stream is not None:
                return None
            for work in self.waiting:
                if not work.is_ready():
                    if self.info.out_of_order:
                        continue
                    return None
                if self._has_room(work):
                    self.waiting.remove(work)
                    self.running.append(work)
                    self._counts[self.group_of(work)] += 1
                    return work
        return None

    def group_of(self, work: Work) -> str:
        """The concurrency group that a call runs in."""
        return work.group or self._groups.get(work.method, "")

    def most(self, group: str) -> int:
        """How many calls of a group run at once."""
        return dict(self.info.groups).get(group, self.info.max_concurrency)

    def _has_room(self, work: Work) -> bool:
        group = self.group_of(work)
        return self._counts[group] < self.most(group)

    def begin(self, work: Work) -> None:
        """Run a call: here."""
        self.thread = threading.get_ident()
        try:
            self.run(work)
        finally:
            self.thread = 0

    def run(self, work: Work) -> None:
        """Run a call in this thread, until it is answered or yields."""
        attempt = 1
        while True:
            running = Running(work, attempt, self.actor_id, self.info, self._restarts)
            try:
                apart(context_of(running), self._creation.environment, self._once, running)
            except SystemExit as leaving:
                self.exits(work, leaving)
            except BaseException as error:
                if stops_the_program(error):
                    work.cancelled = True
                    self.finish(work, work.stop)
                    raise
                if work.cancelled:
                    self.finish(work, work.stop)
                elif self.covers(work, error) and work.takes_again():
                    attempt += 1
                    continue
                else:
                    record = work.record(error, self.actor_id, self.instance)
                    self.finish(work, partial(self._fail, work, record))
            return

    def _fail(self, work: Work, record: bytes) -> None:
        stream = self._streams.get(work.task_id)
        (stream.fail if stream is not None else work.fail)(record)

    def _once(self, running: Running) -> None:
        work = running.work
        if (record := work.failed_argument()) is not None:
            self.finish(work, partial(self._fail, work, record))
            return
        value = work.bound(self.method(work))()
        if running.leaves:
            raise ActorExit
        if work.yields == m.ITEMS:
            self._yields(work, running, value)
            return
        if work.yields == m.REFERENCES:
            value = self.collected(work, value)
        self.answer(work, value)

    def answer(self, work: Work, value: Any) -> None:
        """It has returned that.

        Raises:
            SerializationError, ValueError: it cannot be a result.
        """
        if work.cancelled:
            self.finish(work, work.stop)
            return
        work.settle(value)
        self.finish(work, lambda: None)

    def _record(self, work: Work, error: BaseException) -> bytes:
        return work.record(error, self.actor_id, self.instance)

    def method(self, work: Work) -> Callable[..., Any]:
        """What a call calls.

        Raises:
            ValueError: it is to run in a group that there is not.
        """
        known = [name for name, _ in self.info.groups]
        if work.group and work.group not in known:
            raise ValueError(
                f"{work.name} was to run in the concurrency group {work.group!r}, which this actor "
                f"does not have; it has: {known}"
            )
        own: dict[str, Callable[..., Any]] = {
            "__ray_ready__": lambda: True,
            "__ray_call__": lambda function, *a, **k: function(self.instance, *a, **k),
            "__ray_terminate__": self._terminate,
        }
        return own.get(work.method) or getattr(self.instance, work.method)

    def _terminate(self) -> None:
        raise ActorExit("__ray_terminate__ was called")

    def covers(self, work: Work, error: BaseException) -> bool:
        """Whether the call is made again, for this error."""
        if work.retry == m.RETRY_AS_DECLARED:
            return covers(retried(getattr(type(self.instance), work.method, None)), error)
        return bool(work.retry) and covers(serialization.loads(work.retry), error)

    def collected(self, work: Work, values: Any) -> Any:
        """All that a call yields, as its value."""
        record = partial(self._record, work)
        return collected(self.each(work, values), work.name, self._putter, record)

    def each(self, work: Work, values: Any) -> Any:
        """What a call yields, item by item."""
        return each(values, items_per_yield(type(self.instance), work.method))

    # ---- generators ------------------------------------------------------------------------

    def _yields(self, work: Work, running: Running, values: Any) -> None:
        stream = self._streams.get(work.task_id)
        if stream is None:  # its caller has dropped it before it began
            self.finish(work, work.stop)
            return
        inside = partial(apart, context_of(running), self._creation.environment)
        lazy = self.yields_lazily()
        with self.lock:
            self.stream = stream if lazy else None
        over = partial(self._stream_over, work)
        record = partial(self._record, work)
        again, covered = partial(self._again, work), partial(self.covers, work)
        items = self.each(work, values)
        stream.begin(items, inside, record, covered, again, over, lazy=lazy)
        if not lazy:
            stream.drive()

    def yields_lazily(self) -> bool:
        """Whether its generators wait to be asked."""
        return True

    def _again(self, work: Work) -> Any:
        return self.each(work, work.bound(self.method(work))())

    def _stream_over(self, work: Work) -> None:
        with self.lock:
            self.stream = None
        self.finish(work, lambda: None)
        if not self.thread:
            self.pump()

    # ---- ends of calls -----------------------------------------------------------------------

    def finish(self, work: Work, settle: Callable[[], None]) -> None:
        """A call is over, as ``settle`` tells."""
        with self.lock:
            if work in self.running:
                self.running.remove(work)
                self._counts[self.group_of(work)] -= 1
        settle()
        stream = self._streams.get(work.task_id)
        if stream is not None and not stream.ended:
            stream.end()
        self._over(work)
        if self.running or self.dead:
            return
        if self._departure.wanted:
            self._depart()
        elif self._retired and not self.waiting:
            self.end("its last handle is gone")

    def cancel(self, work: Work) -> None:
        """A call is not wanted any more."""
        with self.lock:
            waits = work in self.waiting
            if waits:
                self.waiting.remove(work)
        work.cancelled = True
        if waits:
            text = "the call was cancelled before it started"
            record = failures.encode(TaskCancelledError, text, work.name)
            self.finish(work, partial(self._fail, work, record))
        else:
            self.interrupt(work)

    def interrupt(self, work: Work) -> None:
        """It runs: it can only look whether it is wanted."""
        stream = self._streams.get(work.task_id)
        if stream is not None:
            stream.cancel()

    # ---- its end ---------------------------------------------------------------------------

    def exits(self, work: Work, leaving: SystemExit) -> None:
        """A call wants it to end, which gets no other answer."""
        self._departure.want(leaving, work.name)
        failed = self._departure.failed
        again = failed and self._restarts_left()
        if again and work.takes_again():
            with self.lock:
                self.running.remove(work)
                self._counts[self.group_of(work)] -= 1
                self.waiting.appendleft(work)
            self._depart()
            return
        error = ActorUnavailableError if again else ActorDiedError
        record = self._death(error, self._departure.reason, work, ran=True)
        self.finish(work, partial(self._fail, work, record))

    def _depart(self) -> None:
        departure = self._departure
        if departure.failed:
            print(departure.reason, file=sys.stderr, flush=True)
        if departure.failed and self._restarts_left():
            self._last_words()
            self._restart()
        else:
            reason = departure.reason
            self.end(reason if departure.failed else f"it ended by itself: {reason}")

    def retire(self) -> None:
        """Nobody has a handle any more: it ends after the calls that there are."""
        self._retired = True
        if not (self.running or self.waiting):
            self.end("its last handle is gone")

    def kill(self, *, no_restart: bool) -> None:
        """End it at once, or let it begin again: calls that run elsewhere go on unheard."""
        with self.lock:
            cut, self.running = self.running, []
            self._counts.clear()
            self.stream = None
        again = not no_restart and self._restarts_left()
        reason = "it was killed with zray.kill()"
        error = ActorUnavailableError if again else ActorDiedError
        for work in cut:
            work.cancelled = True
            self._fail(work, self._death(error, reason, work, ran=True))
            self.interrupt(work)
            self._over(work)
        if again:
            self._restart()
        else:
            self.end(reason, graceful=False)

    def end(self, reason: str, *, graceful: bool = True) -> None:
        """It is dead from now on: calls that wait fail."""
        with self.lock:
            if self.dead:
                return
            self.dead = reason
            left, made = [*self.waiting], self._made
            self.waiting.clear()
        for work in left:
            self.finish(work, partial(self._fail, work, self._obituary(work, ran=False)))
        record = self._error or failures.encode(ActorDiedError, reason, self.info.class_name)
        self._objects.settle([m.Outcome(object_id(self.actor_id), m.ERROR, len(record), record)])
        self._objects.unasked.seen([object_id(self.actor_id)])  # its calls tell
        if graceful and made:
            self._last_words()
        self.instance = None
        self._over(self._creation)
        self._ended(self)

    def _last_words(self) -> None:
        shutdown = getattr(self.instance, "__ray_shutdown__", None)
        if shutdown is None:
            return
        try:
            waits = shutdown()
            if inspect.iscoroutine(waits):
                import asyncio

                asyncio.run(waits)
        except Exception:
            traceback.print_exc()

    def _obituary(self, work: Work, *, ran: bool) -> bytes:
        return self._death(ActorDiedError, self.dead, work, ran=ran)

    def _death(self, error: Any, reason: str, work: Work, *, ran: bool) -> bytes:
        what = "the call may have run" if ran else "the call did not run"
        return system_error(
            error.code,
            f"{reason}; {what} ({work.name}, actor {self.actor_id.hex()})",
            function_name=work.name,
            maybe_executed=ran,
            actor_id=self.actor_id,
            cause=failures.read(self._error) if self._error else None,
        )
