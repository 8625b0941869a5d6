"""What a driver and a worker share: the calls of the API, on the Client machine behind one lock.

Owns no transport and no decision. Values are pickled and unpickled outside of the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from zray import limits
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.errors import ClusterShutdownError, GetTimeoutError, ObjectLostError, ZrayError
from zray.ids import index_of, object_id, origin_of
from zray.nodes.participant.actor_calls import COALESCE_TASKS, EAGER_TASKS, FEED_TASKS
from zray.nodes.participant.explaining import WHY_S
from zray.nodes.participant.following import Following
from zray.nodes.participant.shared_values import load
from zray.protocol import messages as m
from zray.runtime import references, serialization, session
from zray.runtime.interrupts import interrupts
from zray.runtime.references import ObjectRef, counted

if TYPE_CHECKING:  # they take longer to import than everything else here
    import asyncio
    import concurrent.futures

    Awaited = tuple[ObjectRef[Any], asyncio.Future[Any]]

COALESCE_S = 0.001  # after this, what there is goes together


class Participant(Following):
    runs_tasks = False  # whose placement groups may be those of what they submit
    _leaves = False  # tasks may be left for whoever has the lock next

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._attended = False  # somebody takes the lock within COALESCE_S, or clears this
        self._awaited: dict[asyncio.AbstractEventLoop, list[Awaited]] = {}
        self.namespace = ""
        self.environment: m.Environment | None = None  # of what is made from here
        self.packages: dict[str, bytes] = {}  # that were sent: objects, by digest

    def _prints_due(self) -> bool:
        """Whether there is something to be shown before a value is returned."""
        return False

    def _prints_came(self) -> None:
        """There is something to be shown of this process's own. Called with the lock."""

    def _show_prints(self) -> None:
        """Values are about to be returned: what came before them is shown first."""

    # ---- references ------------------------------------------------------------------------

    def borrow(self, object_id: bytes) -> ObjectRef[Any]:
        """A reference that came inside a value."""
        self.count(object_id)
        return counted(object_id)

    def count(self, object_id: bytes) -> None:
        """There is one more reference to the object."""
        with interrupts, self._lock:
            self.client.references.add(object_id)

    def pin(self, object_id: bytes) -> None:
        """A reference was pickled where nobody can follow it: it is held until the job ends."""
        with interrupts, self._lock:
            self.client.references.add(object_id)
            self.client.references.publish([object_id])

    def _collect_dropped(self) -> None:
        dropped, unnamed = references.take_dropped(), references.take_unnamed()
        unread = references.take_unread()
        if self._left:  # a task that was submitted before one of these was dropped
            self._admit()
        remove = self.client.references.remove
        for oid in dropped:
            remove(oid)
        for function_id in unnamed:
            self.client.definitions.unname(function_id)
        for task_id in unread:
            self.client.streams.close(task_id)
        if self.client.prints:
            self._prints_came()

    def state_of(self, object_id: bytes) -> str:
        outcome = self.client.outcomes.get(object_id)
        if outcome is None:
            return "pending"
        return "failed" if outcome.kind & m.ERROR else "ready"

    # ---- submitting ------------------------------------------------------------------------

    def export(self, function: m.Export, template: m.Template) -> references.FunctionName:
        """Make them known, for as long as the returned name lives."""
        with interrupts, self._lock:
            self.client.export(function)
            self.client.template(template)
            self.client.definitions.name(function.function_id)
            self._exported(function)
            return references.FunctionName(function.function_id)

    def _exported(self, function: m.Export) -> None:
        """It is known by now. With the lock held."""

    def name(self, template: m.Template) -> None:
        """Make the template of a name known."""
        with interrupts, self._lock:
            self.client.template(template)

    def submit(
        self, template: m.Template, arguments: serialization.Arguments
    ) -> list[ObjectRef[Any]]:
        """Queue a task. Never waits; the references of its returns, in order."""
        if self._attended and not template.yields and arguments.is_small():
            return self._leave(template, arguments)
        near = self.written(arguments, limits.INLINE_BYTES_MAX)
        with interrupts, self._lock:
            client = self.client
            data, dependencies, box = arguments.data, arguments.dependencies, None
            if near is not None or arguments.parts or len(data) > limits.ARGUMENT_BYTES_MAX:
                box = self._box(arguments, near)
                data, dependencies = b"", [box, *dependencies]
            spec = m.TaskSpec(
                client.new_task(),
                template.template_id,
                data,
                dependencies,
                arguments.nested,
                self.running_task(),
                box is not None,
            )
            if template.yields == m.ITEMS:
                spec = replace(spec, consumer=client.process_id)
            returns = client.submit(spec, template.num_returns)
            if template.yields == m.ITEMS:
                client.streams.open(spec.task_id, limited=bool(template.unread_max))
            if box is not None:
                client.references.remove(box)
            self._submitted(feed=not client.fresh() % FEED_TASKS)
            return [counted(object_id) for object_id in returns]

    def _submitted(self, *, feed: bool) -> None:
        """Send what was submitted, or see to it that it is. With the lock held."""
        client = self.client
        waiting = client.fresh()
        if client.in_flight() + waiting <= EAGER_TASKS or waiting >= COALESCE_TASKS:
            self._flush()
            return
        if waiting == 1 or (self._leaves and not self._attended):
            self._attend()
            self._attended = self._leaves
        if feed:
            self._feed()

    def _leave(self, template: m.Template, arguments: serialization.Arguments) -> list[Any]:
        """Submit one of many tasks: whoever has the lock next queues it with others.

        Most of what a task costs at its submitter is to take the lock. A signal handler may raise
        at any place here: then the task was submitted or not, as anywhere else.
        """
        data, dependencies, nested, _ = arguments
        task_id = self.client.new_task()
        spec = m.TaskSpec(task_id, template.template_id, data, dependencies, nested)
        count, left = template.num_returns, self._left
        if count == 1:
            refs = [counted(object_id(task_id))]
        else:
            refs = [counted(object_id(task_id, index)) for index in range(count)]
        left.append((spec, count))
        if len(left) >= FEED_TASKS or not self._attended:
            with interrupts, self._lock:
                self._submitted(feed=True)
        return refs

    def _flush_if_due(self) -> None:
        due = references.pending() or self.client.unsaid() or self._store_due()
        if due or self._held_up():
            self._flush()

    def _held_up(self) -> bool:
        """Whether the transport has not taken all that was sent."""
        return False

    def _flush(self) -> None:
        if references.pending():
            self._collect_dropped()
        self.client.flush()
        self._tend_calls()
        self._tend_leases()
        self._tend_store()
        self._transmit()

    def tell_unsaid(self) -> bool:
        """Tell what this process has recorded; whether there was anything, and somebody to tell."""
        with interrupts, self._lock:
            told = session.take_unsaid(self) if self.client.linked and not self.lost() else []
            self.client.outbox += told
            self._transmit()
            return bool(told)

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        with interrupts, self._lock:
            if ref.id in self.client.outcomes:
                return  # it has ended, and what it has submitted goes on
            task_id = origin_of(ref.id)
            if force and self.client.calls.is_open(task_id):
                raise ValueError(
                    "force=True is not supported for actor tasks: end the actor with "
                    "zray.kill(), or cancel the call without force"
                )
            self.client.cancel(task_id, force, recursive, index_of(ref.id))
            self.client.leases.flush()
            self._tend_calls()
            self._tend_leases()
            self._transmit()

    def lost(self) -> bool:
        """Whether the cluster has ended, or has given this process up."""
        return bool(self.client.stopped)

    # ---- waiting ---------------------------------------------------------------------------

    def get(self, wanted: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values, in order; an error among them is raised instead, as soon as it is known."""
        client = self.client
        here = client.here
        present = [found for ref in wanted if (found := here(ref.id)) is not None]
        if len(present) == len(wanted) and not self._prints_due():
            try:
                return [load(outcome) for outcome in present]
            except BaseException:
                self._asked_for(present)
                raise
        ids = [ref.id for ref in wanted]
        waiter = Waiter(until_error=True)
        waiter.failed = next((one.object_id for one in present if one.kind & m.ERROR), None)
        with interrupts, self._lock:
            for object_id in ids if waiter.failed is None else ():
                client.want_value(object_id, waiter)
            try:
                arrived = not waiter.remaining or self._await(
                    waiter,
                    timeout,
                    lambda: next((oid for oid in ids if client.here(oid) is None), b""),
                )
            except BaseException:  # an interrupt
                client.forget_waiter(ids, waiter)
                raise
            missing = []
            if not arrived or waiter.failed is not None:
                client.forget_waiter(ids, waiter)
            if waiter.failed is not None:
                ids = [waiter.failed]
            elif not arrived:
                missing = [oid for oid in ids if client.here(oid) is None]
            outcomes = [client.here(object_id) for object_id in ids]
            if arrived and None in outcomes and not client.stopped:
                outcomes = self.here_again(ids)
            stopped = client.stopped
            self._show_prints()
        if missing:
            raise GetTimeoutError(self._timeout_text(missing, len(ids), timeout))
        for outcome in outcomes:
            if outcome is None and not stopped:
                raise ObjectLostError(
                    "the reference was collected before this call: a finalizer that needs the "
                    "value has to get it sooner"
                )
            if outcome is None:
                raise ClusterShutdownError(f"the value will not come: {stopped}")
        return self._loaded_all(outcomes)

    def _loaded_all(self, outcomes: Sequence[m.Outcome | None]) -> list[Any]:
        """Their values, or the error that one of them is."""
        try:
            return [load(outcome) for outcome in outcomes]  # type: ignore[arg-type]
        except BaseException:
            self._asked_for(outcomes)
            raise

    def _asked_for(self, outcomes: Sequence[m.Outcome | None]) -> None:
        """The error that one of them is was raised: all have been asked for."""
        for outcome in outcomes:
            if outcome is not None and outcome.kind & m.ERROR:
                self.client.unasked.asked(outcome)

    def here_again(self, ids: list[bytes]) -> list[m.Outcome | None]:
        """All values at once, though some were let go of before all had come: memory was short.

        None where there is no value any more. With the lock held.
        """
        client = self.client
        kept: dict[bytes, m.Outcome] = {}
        waiter = Waiter(values=kept)
        while True:
            kept.update((oid, found) for oid in ids if (found := client.here(oid)) is not None)
            again = [oid for oid in ids if oid not in kept and oid in client.references]
            if not again or client.stopped:
                return [kept.get(oid) for oid in ids]
            try:
                for oid in again:
                    client.want_value(oid, waiter)
                self._await(waiter, None)
            except BaseException:  # an interrupt
                client.forget_waiter(ids, waiter)
                raise

    def wait(
        self, ids: list[bytes], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> list[int]:
        """The places of those that are ready, ``num_returns`` at most; no two of ``ids`` alike."""
        client = self.client
        places = client.first_ready(ids, num_returns, whole=fetch_local)
        if len(places) < num_returns:
            with interrupts, self._lock:
                waiter = client.want_some(ids, num_returns, whole=fetch_local)
                try:
                    self._await(
                        waiter,
                        timeout,
                        lambda: next((oid for oid in ids if oid in waiter.missing), b""),
                    )
                finally:
                    client.forget_some(waiter)
                places = client.first_ready(ids, num_returns, whole=fetch_local)
        client.unasked.seen(ids[place] for place in places)
        return places

    def ask(self, make: Callable[[int], m.Message], timeout: float) -> m.Message | None:
        """A request and its answer; None: there was none in time."""
        waiter = Waiter()
        with interrupts, self._lock:
            self.client.leases.account()  # it may be asked about
            answer = self.client.ask(make, waiter)
            self._await(waiter, timeout)
        if answer and isinstance(answer[0], m.Rejected):
            raise ZrayError(answer[0].text, code=answer[0].code)
        return answer[0] if answer else None

    def complete(self, ref: ObjectRef[Any], future: concurrent.futures.Future[Any]) -> None:
        """Set the future when the value is here."""

        def settle() -> None:
            if future.done() or not (future.running() or future.set_running_or_notify_cancel()):
                return
            try:
                value = self._loaded(ref)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        with interrupts, self._lock:
            waiter = Waiter(lambda: self._completions.append(settle))
            self.client.want_value(ref.id, waiter)
            if waiter.remaining:
                self._flush()
                self._attend_future()
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

        with interrupts, self._lock:
            waiter = Waiter(arrived)
            self.client.want_value(ref.id, waiter)
            if waiter.remaining:
                self._flush()
                self._attend()
                return
        self._settle([(ref, future)])

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """One call for all that came at once for this loop."""
        with interrupts, self._lock:
            batch = self._awaited.pop(loop, [])
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
        if outcome is None and not self.client.stopped:
            return self.get([ref], None)[0]  # memory was short, so it was let go of
        if outcome is None:
            raise ClusterShutdownError(f"the value will not come: {self.client.stopped}")
        return self._loaded_all([outcome])[0]

    def _timeout_text(self, missing: list[bytes], total: int, timeout: float | None) -> str:
        text = f"after {timeout:g} s {len(missing)} of {total} values are not ready"
        if not self.client.linked:
            word = self._head_word()
            return f"{text}: there is no connection to the head at the moment{word and '; '}{word}"
        if not timeout:
            return f"{text}; a timeout above 0 s asks the head for the reason"
        try:
            with interrupts, self._lock:
                asked = self._ask_why(missing[0], WHY_S / 2)
                why = self._in_one_sentence(self._explanation(asked, WHY_S))
        except ZrayError:  # the head does not say
            return text
        return f"{text}; the first ({missing[0].hex()}): {why}" if why else text
