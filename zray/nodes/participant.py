"""What a driver and a worker share: the Client machine behind one lock, and who reads for whom.

Leader and follower: a thread that blocks reads from the transport itself (no hand-off per task);
others wait for it. The subclass owns the transport and decides who leads when nobody blocks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.client import Client, Waiter
from zray.errors import ClusterShutdownError, GetTimeoutError
from zray.ids import task_of
from zray.protocol import messages as m
from zray.runtime import references, serialization, task_errors
from zray.runtime.references import ObjectRef

if TYPE_CHECKING:  # they take longer to import than everything else here
    import asyncio
    import concurrent.futures

    Awaited = tuple[ObjectRef[Any], asyncio.Future[Any]]

EAGER_TASKS = 8  # up to so many in flight, each submit is sent at once
COALESCE_TASKS = 256  # beyond, so many go together, or what there is after COALESCE_S
COALESCE_S = 0.001
WHY_S = 0.5  # how long a timed-out get waits for its explanation
_NO_DEADLINE = float("inf")


class Participant:
    """``client`` and the transport are used under ``_lock`` only."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._leading = False
        self._followers = 0
        self._completions: deque[Callable[[], None]] = deque()
        self._awaited: dict[asyncio.AbstractEventLoop, list[Awaited]] = {}
        self.namespace = ""
        self.address = ""  # of the head, as far as this process knows it

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

    def _before_blocking(self) -> None:
        """A task is about to wait. Called with the lock."""

    def _after_blocking(self) -> None:
        """It goes on. Called with the lock."""

    def _attend(self) -> None:
        """Something has to be done although nobody blocks. Called with the lock."""

    def _lead_s(self) -> float:
        """How long a leader may sleep at most."""
        return 1.0

    # ---- references ------------------------------------------------------------------------

    def borrow(self, object_id: bytes) -> ObjectRef[Any]:
        """A reference that came inside a value."""
        with self._lock:
            self.client.add_reference(object_id)
        return ObjectRef(object_id)

    def pin(self, object_id: bytes) -> None:
        """A reference was pickled where nobody can follow it: it is held until the job ends."""
        with self._lock:
            self.client.add_reference(object_id)
            self.client.publish([object_id])

    def _collect_dropped(self) -> None:
        for object_id in references.take_dropped():
            self.client.remove_reference(object_id)

    def state_of(self, object_id: bytes) -> str:
        outcome = self.client.outcomes.get(object_id)
        if outcome is None:
            return "pending"
        return "failed" if outcome.kind & m.ERROR else "ready"

    # ---- submitting ------------------------------------------------------------------------

    def export(self, function: m.Export, template: m.Template) -> None:
        with self._lock:
            self.client.export(function)
            self.client.template(template)

    def submit(
        self, template: m.Template, arguments: serialization.Arguments, parent: bytes
    ) -> list[ObjectRef[Any]]:
        """Queue a task. Never waits; the references of its returns, in order."""
        with self._lock:
            client = self.client
            data, dependencies, boxed = arguments.data, arguments.dependencies, False
            box = None
            if len(data) > limits.ARGUMENT_BYTES_MAX:
                box = client.put(data, arguments.nested)
                data, dependencies, boxed = b"", [box, *dependencies], True
            spec = m.TaskSpec(
                *(client.new_task(), template.template_id, data, dependencies),
                *(arguments.nested, parent, boxed),
            )
            returns = client.submit(spec, template.num_returns)
            if box is not None:
                client.remove_reference(box)
            waiting = len(client.backlog)
            if client.in_flight + waiting <= EAGER_TASKS or waiting >= COALESCE_TASKS:
                self._flush()
            elif waiting == 1:
                self._attend()
        return [ObjectRef(object_id) for object_id in returns]

    def _flush(self) -> None:
        self._collect_dropped()
        self.client.flush()
        self._transmit()

    def put(self, value: Any) -> ObjectRef[Any]:
        data, contained = serialization.dumps(value)
        with self._lock:
            return ObjectRef(self.client.put(data, contained))

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        with self._lock:
            self.client.cancel(task_of(ref.id), force, recursive)
            self._transmit()

    # ---- waiting ---------------------------------------------------------------------------

    def get(self, wanted: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values, in order; the first error among them is raised instead."""
        ids = [ref.id for ref in wanted]
        waiter = Waiter()
        with self._lock:
            client = self.client
            for object_id in ids:
                client.want_value(object_id, waiter)
            if waiter.remaining and not self._await(waiter, timeout):
                client.forget_waiter(ids, waiter)
                missing = [oid for oid in ids if client.here(oid) is None]
            else:
                missing = []
            outcomes = [client.here(object_id) for object_id in ids]
            stopped = client.stopped
        if missing:
            raise GetTimeoutError(self._timeout_text(missing, len(ids), timeout))
        values = []
        for outcome in outcomes:
            if outcome is None:
                raise ClusterShutdownError(
                    f"the value will not come: {stopped or 'the reference was dropped'}"
                )
            values.append(_value(outcome))
        return values

    def wait(
        self,
        wanted: Sequence[ObjectRef[Any]],
        num_returns: int,
        timeout: float | None,
        fetch_local: bool,
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split into ready (at most ``num_returns``) and others, both in the given order."""
        ids = [ref.id for ref in wanted]
        with self._lock:
            client = self.client
            ready = client.here if fetch_local else client.outcomes.get
            have = sum(1 for object_id in ids if ready(object_id) is not None)
            if have < num_returns:
                waiter = Waiter()
                want = client.want_value if fetch_local else client.want_outcome
                for object_id in ids:
                    want(object_id, waiter)
                surplus = waiter.remaining - (num_returns - have)
                waiter.remaining -= surplus
                self._await(waiter, timeout)
                client.forget_waiter(ids, waiter)
            done = [ready(object_id) is not None for object_id in ids]
        first: list[ObjectRef[Any]] = []
        others: list[ObjectRef[Any]] = []
        for ref, is_done in zip(wanted, done, strict=True):
            if is_done and len(first) < num_returns:
                first.append(ref)
            else:
                others.append(ref)
        return first, others

    def ask(self, make: Callable[[int], m.Message], timeout: float) -> m.Message | None:
        """A request and its answer; None: there was none in time."""
        waiter = Waiter()
        with self._lock:
            answer = self.client.ask(make, waiter)
            self._await(waiter, timeout)
        return answer[0] if answer else None

    def complete(self, ref: ObjectRef[Any], future: concurrent.futures.Future[Any]) -> None:
        """Set the future when the value is here."""

        def settle() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(self._loaded(ref))
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            waiter = Waiter(lambda: self._completions.append(settle))
            self.client.want_value(ref.id, waiter)
            if waiter.remaining:
                self._flush()
                self._attend()
                return
        settle()

    def complete_in_loop(self, ref: ObjectRef[Any], future: asyncio.Future[Any]) -> None:
        """As ``complete`` for a future of the loop that runs in this thread."""
        loop = future.get_loop()

        def arrived() -> None:
            batch = self._awaited.get(loop)
            if batch is not None:
                batch.append((ref, future))
            else:
                self._awaited[loop] = [(ref, future)]
                self._completions.append(lambda: self._hand_over(loop))

        with self._lock:
            waiter = Waiter(arrived)
            self.client.want_value(ref.id, waiter)
            if waiter.remaining:
                self._flush()
                self._attend()
                return
        self._settle([(ref, future)])

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """One call for all that came at once for this loop."""
        with self._lock:
            batch = self._awaited.pop(loop)
        try:
            loop.call_soon_threadsafe(self._settle, batch)
        except RuntimeError:
            pass  # the loop is closed: nobody awaits these any more

    def _settle(self, batch: list[Awaited]) -> None:
        for ref, future in batch:
            if future.done():
                continue  # cancelled
            try:
                future.set_result(self._loaded(ref))
            except Exception as error:
                future.set_exception(error)

    def _loaded(self, ref: ObjectRef[Any]) -> Any:
        outcome = self.client.here(ref.id)
        if outcome is None:
            raise ClusterShutdownError(f"the value will not come: {self.client.stopped}")
        return _value(outcome)

    def _await(self, waiter: Waiter, timeout: float | None) -> bool:
        """Wait until the waiter has all it counts, leading if nobody does; with the lock held.

        Returns False at the timeout.
        """
        self._flush()
        if waiter.remaining <= 0:
            return True
        if timeout is not None and timeout <= 0:
            if not self._leading:
                self._lead(waiter, 0.0)
            return waiter.remaining <= 0
        deadline = _NO_DEADLINE if timeout is None else time.monotonic() + timeout
        self._before_blocking()
        try:
            while waiter.remaining > 0 and not self.client.stopped:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if self._leading:
                    self._follow(min(left, 1.0))
                else:
                    self._lead(waiter, deadline)
        finally:
            self._after_blocking()
        return True

    def _follow(self, timeout_s: float) -> None:
        self._followers += 1
        try:
            self._turn.wait(timeout_s)
        finally:
            self._followers -= 1

    def _lead(self, waiter: Waiter, deadline: float) -> None:
        """Read until the waiter is done or there is something to complete; at least once."""
        self._leading = True
        try:
            while True:
                left = deadline - time.monotonic()
                self._step(max(0.0, min(left, self._lead_s())))
                if waiter.remaining <= 0 or left <= 0 or self.client.stopped:
                    break
                if self._completions:
                    break
        finally:
            self._leave_lead()
        if self._completions:
            self._run_completions()

    def _lead_once(self, timeout_s: float) -> None:
        """One round as leader for whoever waits; nobody else may lead at the moment."""
        self._leading = True
        try:
            self._step(timeout_s)
        finally:
            self._leave_lead()
        if self._completions:
            self._run_completions()

    def _leave_lead(self) -> None:
        self._leading = False
        if self._followers:
            self._turn.notify_all()

    def _step(self, timeout_s: float) -> None:
        """One round of the leader: sleep, read, send. With the lock held, but for the sleep."""
        self._lock.release()
        try:
            self._poll(timeout_s)
        finally:
            self._lock.acquire()
        self._read()
        if self.client.outbox:
            self._transmit()
        if self._followers:
            self._turn.notify_all()

    def _run_completions(self) -> None:
        """Without the lock and the lead: what is called may use the API itself, and may block."""
        self._lock.release()
        try:
            while self._completions:
                try:
                    complete = self._completions.popleft()
                except IndexError:
                    break  # another thread took the last one
                complete()
        finally:
            self._lock.acquire()

    def _timeout_text(self, missing: list[bytes], total: int, timeout: float | None) -> str:
        text = f"after {timeout:g} s {len(missing)} of {total} values are not ready"
        if not self.client.linked:
            return f"{text}: there is no connection to the head at the moment"
        if not timeout:
            return f"{text}; a timeout above 0 s asks the head for the reason"
        answer = self.ask(lambda seq: m.Query(seq, m.WHY, missing[:1]), WHY_S)
        if isinstance(answer, m.Reasons) and answer.reasons and answer.reasons[0]:
            return f"{text}; the first ({missing[0].hex()}): {answer.reasons[0]}"
        return text


def _value(outcome: m.Outcome) -> Any:
    if outcome.kind & m.ERROR:
        raise task_errors.load_exception(outcome.value)
    return serialization.loads(outcome.value)
