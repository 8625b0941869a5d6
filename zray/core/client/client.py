"""The Client machine: what a driver, or a worker that submits, knows and has asked for.

The composition: which of its machines takes which message, what a flush consists of, and what a new
session is told. Owns the session, and what is said to the user.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zray.core.client.actor_caller import ActorCallers
from zray.core.client.call_results import CallResults
from zray.core.client.calls import ClientCalls
from zray.core.client.creations import ClientCreations
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.far_leases import FarLeases
from zray.core.client.lease_class import LeaseClasses
from zray.core.client.lease_queues import LeaseQueues
from zray.core.client.leased_tasks import LeasedTasks
from zray.core.client.leases import ClientLeases
from zray.core.client.near_values import NearValues
from zray.core.client.prints import ClientPrints
from zray.core.client.readiness import Readiness
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.streams import ClientStreams
from zray.core.client.tasks import ClientTasks
from zray.core.client.unasked import UnaskedErrors
from zray.core.client.values import ClientValues
from zray.core.client.waiters import Waiter, Waiters
from zray.core.identity import Identity
from zray.core.known_heads import KnownHeads
from zray.errors import MessageTooLargeError
from zray.ids import task_of
from zray.protocol import messages as m
from zray.protocol.codec import Payload, Unsent
from zray.protocol.splitting import Joiner
from zray.protocol.versions import unfit

if TYPE_CHECKING:
    from zray.core.client.causes import ClientCauses


class Client:
    """``remote``: over a network, where large values stay here and are served in chunks."""

    def __init__(self, me: Identity, *, remote: bool) -> None:
        self.me = me
        self.epoch = 0
        self.cluster_id = b""
        self.head_id = b""  # of the head that it was welcome to last
        self.head_minor = m.PROTOCOL_MINOR  # of its protocol
        self.linked = not remote
        self.known_heads = KnownHeads()
        self.refused: m.Refused | None = None
        self.stopped = ""  # why the cluster ended
        self.parted = False  # the head has heard this driver's GOODBYE
        self.last_word: m.Pong | None = None  # of the head, about the cluster
        self.outbox: list[m.Message] = []  # the same list for ever: the machines put into it
        self.prints = ClientPrints()
        self.outcomes: dict[bytes, m.Outcome] = {}
        self.unresolved: dict[bytes, m.TaskSpec] = {}
        self._remote = remote
        self.new_task = me.new_task
        self._joiner = Joiner()
        self._make_machines()
        self._handlers = self._table()

    def _make_machines(self) -> None:
        """Whatever a machine needs of a later one is a callback."""
        self.call_results = CallResults()
        actors = ActorCallers(self.me)
        self.requests = Requests(self.outbox)
        self.waiters = Waiters(
            self.outcomes,
            lives=lambda oid: oid in self.references.counts,
            expected=self._is_expected,
            watch=self._watch,
            pull=lambda oid: self.values.pull(oid),
        )
        self.values = ClientValues(self.outbox.append, self._pulled)
        self.unasked = UnaskedErrors(self.prints.say if self._remote else None, self.outcomes)
        self.near = NearValues(self.outcomes, self.waiters.values.__contains__)
        self.readiness = Readiness(self.outcomes, self.near.reached, self.waiters)
        self.references = ClientReferences(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.call_results,
            actors=actors,
            waiters=self.waiters,
            values=self.values,
            near=self.near,
            handle_dropped=lambda actor_id: self.calls.handle_dropped(actor_id),
            hurry=lambda task_id: self.tasks.hurry(task_id),
            unasked=self.unasked,
            remote=self._remote,
        )
        self.definitions = ClientDefinitions(
            *(self.outbox, self.references.publish, self.requests.number), remote=self._remote
        )
        self.tasks = ClientTasks(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.call_results,
            waiters=self.waiters,
            references=self.references,
            definitions=self.definitions,
            remote=self._remote,
        )
        self._make_lease_machines()
        self._make_actor_machines(actors)
        self.ask = self.requests.ask
        self.want_value = self.waiters.want_value
        self.want_outcome = self.waiters.want_outcome
        self.want_located = self.waiters.want_located
        self.first_ready = self.readiness.first_ready
        self.want_some, self.forget_waiter = self.readiness.want_some, self.waiters.forget
        self.forget_some = self.waiters.forget_some
        self.has_callbacks = self.waiters.has_callbacks

    def _make_lease_machines(self) -> None:
        self._lease_classes = classes = LeaseClasses()
        self.far_leases = FarLeases(
            me=self.me,
            outbox=self.outbox,
            linked=lambda: self.linked,
            said=lambda lease_id, message: self.leases.link_message(lease_id, message),
            returned=lambda *what: self.leases.returned(*what),
            ended=lambda lease_id, reached: self.leases.link_ended(lease_id, reached),
            caught_up=lambda lease_id: self.leases.caught_up(lease_id),
        )
        queues = LeaseQueues(
            *(self.me, self.outcomes, self.references, self.definitions),
            self.far_leases,
        )
        self.leased_tasks = LeasedTasks(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.call_results,
            classes=classes,
            references=self.references,
            definitions=self.definitions,
            by_head=self.tasks.take_over,
            taken_back=queues.taken_back,
            remote=self._remote,
        )
        self.leases = ClientLeases(
            me=self.me,
            outbox=self.outbox,
            classes=classes,
            tasks=self.leased_tasks,
            queues=queues,
            far=self.far_leases,
            references=self.references,
            requests=self.requests,
            items=lambda message: self.streams.on_items(message),
        )

    def _make_actor_machines(self, actors: ActorCallers) -> None:
        self.creations = ClientCreations(
            me=self.me,
            actors=actors,
            references=self.references,
            definitions=self.definitions,
            requests=self.requests,
            unsubmitted=self.tasks.unsubmitted.__contains__,
            submit=self.tasks.hurry,
            refuse=lambda actor, text: self.calls.refuse(actor, text),
            asked=lambda actor_id: self.calls.creation_asked(actor_id),
        )
        self.calls = ClientCalls(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            results=self.call_results,
            actors=actors,
            references=self.references,
            creations=self.creations,
            requests=self.requests,
        )
        self.streams = ClientStreams(
            me=self.me,
            outcomes=self.outcomes,
            results=self.call_results,
            references=self.references,
            waiters=self.waiters,
            requests=self.requests,
            say=self._say_taken,
            yielded_large=self.leased_tasks.yielded_large,
        )

    @cached_property
    def causes(self) -> ClientCauses:
        """What is known here of why something is as it is; made when somebody asks."""
        from zray.core.client.causes import ClientCauses

        return ClientCauses(
            *(self.me, self.outbox, self.outcomes, self.call_results, self.definitions),
            *(self.tasks, self.leased_tasks, self._lease_classes, self.calls, self.waiters),
        )

    def _table(self) -> dict[type[m.Message], Callable[[Any], None]]:
        """Which message goes to whom, but for what is of a session: see `_on_session`."""
        calls, values = self.calls, self.values
        return {
            m.Result: self._on_result,
            m.Exported: lambda msg: self.definitions.durable(msg.function_ids, msg.about),
            m.Pull: lambda msg: values.on_pull(msg, self.here(msg.object_id)),
            **values.handlers,
            m.Cancel: self._on_cancel,
            m.Replies: calls.on_replies,
            m.Items: self.streams.on_items,
            m.ActorState: calls.on_state,
            **self.leases.handlers,
            **self.far_leases.handlers,
            **dict.fromkeys(m.ANSWERS, self._on_answer),
            m.Rejected: self._on_rejected,
            **self.prints.handlers,
            m.AskWhy: lambda msg: self.causes.on_ask(msg),
            **self.tasks.handlers,
            **self.known_heads.handlers,
            m.Pong: self._on_pong,
            m.Shutdown: lambda msg: self.stop(msg.reason),
            m.Goodbye: self._on_goodbye,
        }

    @property
    def process_id(self) -> bytes:
        return self.me.process_id

    @property
    def job_id(self) -> bytes:
        return self.me.job_id

    def take_outbox(self) -> list[m.Message]:
        """What is to be sent, in order; the caller owns it."""
        taken = [*self.outbox]
        self.outbox.clear()
        return taken

    # ---- functions and tasks ---------------------------------------------------------------

    def export(self, message: m.Export) -> None:
        """Make a function known, once."""
        self.definitions.export(message)

    def template(self, message: m.Template) -> None:
        """Make a template known, once."""
        self.definitions.template(message)

    def submit(self, spec: m.TaskSpec, num_returns: int) -> list[bytes]:
        """Queue a task; the ids of its returns, each counted once for the caller's reference."""
        returns = self.leased_tasks.submit(spec, num_returns) if self._remote else None
        return self.tasks.submit(spec, num_returns) if returns is None else returns

    def flush(self) -> None:
        """Move holds, drops and the backlog, as far as the window allows, into the outbox."""
        self.references.flush_holds()
        if self.tasks.backlog:
            self.tasks.flush()
        self.calls.flush()  # they may refer to what was submitted
        self.flush_leases()
        if self.references.new_drops and not self.requests.may_bring_handle():  # else undone
            self.references.drop_some(self.tasks.unsubmitted)
        if self.tasks.ack_upto:
            self.tasks.acknowledge()

    def flush_leases(self) -> None:
        """Give tasks to leased workers; what is not for those goes to the head."""
        self.leased_tasks.fresh = 0
        self.leases.flush()
        if self.tasks.backlog:
            self.tasks.flush()

    def in_flight(self) -> int:
        """How many tasks have left, or wait for a worker, and have no outcome."""
        return self.tasks.in_flight + len(self.leased_tasks) - self.leased_tasks.fresh

    def fresh(self) -> int:
        """How many tasks were submitted and wait for ``flush``."""
        return len(self.tasks.backlog) + self.leased_tasks.fresh

    def unsent(self) -> bool:
        """Whether ``flush`` has more to do soon."""
        leased = self._remote and self.leases.unsent()
        if leased or self.tasks.backlog or self.calls.unsent():
            return True
        return bool(self.references.new_drops) and not self.requests.may_bring_handle()

    def unsaid(self) -> bool:
        """Whether ``flush`` has anything to tell."""
        told = self.outbox or self.references.new_holds or self.tasks.ack_upto
        return bool(told or self.calls.due() or self.unsent())

    def owes(self) -> bool:
        """Whether others may wait for what ends with this process: its tasks, and promises."""
        return bool(self.unresolved) or self.calls.has_promised()

    def too_large(self, found: list[Unsent]) -> None:
        """Messages, each of one thing, are too large for the head: that thing fails alone."""
        for message, text in found:
            if isinstance(message, m.Submit):
                self.tasks.too_large(message.tasks, text)
            else:
                self.prints.warn(MessageTooLargeError.code, text)
        self.leases.heard_of_head()

    def cancel(self, task_id: bytes, force: bool, recursive: bool, index: int = 0) -> None:
        """Cancel a task, by its result of that index; one that is still in the backlog ends here
        and now."""
        self.flush()
        if not self._cancel_own(task_id, force, recursive):
            self.tasks.cancel(task_id, force, recursive, index)
            self.leases.heard_of_head()

    def _cancel_own(self, task_id: bytes, force: bool, recursive: bool) -> bool:
        return self.calls.cancel(task_id, recursive) or self.leased_tasks.cancel(
            task_id, force, recursive
        )

    def _on_cancel(self, message: m.Cancel) -> None:
        """Somebody else cancels what the head knows only that it is this process's."""
        self._cancel_own(message.task_id, message.force, message.recursive)

    # ---- waiting ---------------------------------------------------------------------------

    def here(self, oid: bytes) -> m.Outcome | None:
        """The outcome with its value, if both are in this process."""
        outcome = self.outcomes.get(oid)
        return outcome if outcome is not None and not outcome.kind & m.LOCATED else None

    def fetch(self, oid: bytes, come: Callable[[m.Outcome | None], None]) -> None:
        """Hold an object until its value is here, which ``come`` gets; None: there will be none."""

        def arrived() -> None:
            outcome = self.here(oid)
            self.references.remove(oid)
            come(outcome)

        self.references.add(oid)
        waiter = Waiter(arrived)
        self.want_value(oid, waiter)
        if waiter.remaining <= 0:
            arrived()

    def _is_expected(self, oid: bytes) -> bool:
        return task_of(oid) in self.unresolved or oid in self.call_results.awaited

    def _watch(self, oid: bytes) -> None:
        self.outbox.append(m.Watch(0, self.process_id, oid))

    # ---- in --------------------------------------------------------------------------------

    def receive(self, payload: Payload, now: float) -> None:
        """One payload from the head (driver)."""
        handlers, epoch = self._handlers, payload.epoch
        for message in payload.messages:
            handler = handlers.get(type(message))
            if handler is None or not self.linked or epoch < self.epoch:
                self._on_session(message, epoch)
            else:
                handler(message)

    def _on_session(self, message: m.Message, epoch: int) -> None:
        """What begins or ends a session, or comes outside of one."""
        if isinstance(message, m.Welcome):
            self._on_welcome(message, epoch)
        elif isinstance(message, m.Refused):
            self.refused = message
            if message.code == m.FENCED:
                self.stop(message.text)
        elif isinstance(message, m.NotLeader):
            self.refused = self.known_heads.not_leader(message)
        elif isinstance(message, m.Rejected) and not self.linked:  # its HELLO
            self.refused = m.Refused(0, message.code, message.text)
        elif isinstance(message, m.Rejoin) or epoch < self.epoch:
            self.refused = m.Refused(0, "", "the head asked for a new session")
        else:
            self.message(message)

    def message(self, message: m.Message) -> None:
        """One message from the head, from this worker's raylet, or from an actor's worker."""
        if (handler := self._handlers.get(type(message))) is not None:
            handler(message)

    def _on_result(self, message: m.Result) -> None:
        self.tasks.on_result(message)
        self.leases.heard_of_head()

    def _on_answer(self, message: m.Message) -> None:
        """What was asked is answered, perhaps in several parts."""
        whole = self._joiner.take(message)
        if whole is None:
            return
        asked = self.requests.take(whole.about)  # type: ignore[attr-defined]
        if asked is not None:
            self.creations.on_answer(asked.request, whole)
            asked.answer.append(whole)
            asked.waiter.arrived()

    def _say_taken(self, message: m.Taken) -> None:
        """To a worker, the way that its task went."""
        lease = self.leased_tasks.lease_of(message.task_id)
        if lease is not None and lease.worker_id == message.target:
            self.leases.queues.say(lease, message)
        elif self.calls.goes_direct(message.task_id, message.target):
            self.calls.direct.send(message.target, message)
        else:
            self.outbox.append(message)

    def _on_pong(self, message: m.Pong) -> None:
        self.last_word = message

    def _on_goodbye(self, message: m.Goodbye) -> None:
        self.parted = True

    def _on_rejected(self, message: m.Rejected) -> None:
        """What was asked or said will not be done: whoever waits for it has an error."""
        asked = self.requests.take(message.about)
        if asked is not None:
            self.creations.on_refusal(asked.request)
            asked.answer.append(message)
            asked.waiter.arrived()
            return
        function_id = self.definitions.refuse(message.about, message.code, message.text)
        if not function_id:
            self.prints.warn(message.code, f"the head refused it: {message.text}")
            return
        self.creations.class_refused(function_id, f"the head refused its class: {message.text}")
        self.leased_tasks.definition_refused()
        self.tasks.definition_refused()
        self.leases.heard_of_head()

    def stop(self, reason: str) -> None:
        """The cluster has ended: whoever waits need wait no longer."""
        self.stopped = reason or "the cluster was shut down"
        self.waiters.release_all()
        self.requests.release_all()
        self.leases.stop()

    def _pulled(self, outcome: m.Outcome) -> None:
        oid = outcome.object_id
        if oid in self.references.counts:
            self.outcomes[oid] = outcome
            self.near.arrived(oid, outcome)
        self.waiters.wake(oid, outcome)

    # ---- sessions --------------------------------------------------------------------------

    def disconnected(self) -> None:
        """The link is cut: what was in the outbox is told to the next session as state."""
        self.linked = False
        self.outbox.clear()
        self.tasks.disconnected()
        self._joiner.clear()

    def _on_welcome(self, message: m.Welcome, epoch: int) -> None:
        self.refused = unfit(message, epoch, self.epoch)
        if self.refused is not None:
            return
        another_head = epoch > self.epoch
        self.epoch = epoch
        self.cluster_id = message.cluster_id
        self.head_id, self.head_minor = message.head_id, message.minor
        self.known_heads.welcomed(message.heads, epoch)
        self.linked = True
        self._resume(another_head)

    def _resume(self, another_head: bool) -> None:
        """The full state for a new session: idempotent, whatever the head knows."""
        self.outbox.clear()
        self.definitions.resume()
        if another_head:  # values of before are known by those who have them
            self.references.serve_held()
        self.values.announce(self.process_id)
        self.tasks.resubmit()
        if self.waiters.watched:
            self.outbox.append(m.Watch(0, self.process_id, b"".join(self.waiters.watched)))
        self.values.resume()
        self.references.resume(self.tasks.unsubmitted)
        self.tasks.cancel_again()
        self.outbox += self.requests.unanswered()
        self.calls.resume()  # actors are asked for by then
        self.leases.resume()
