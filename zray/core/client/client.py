"""The Client machine: what a driver, or a worker that submits, knows and has asked for.

Keeps each submitted spec until its outcome is committed (the redo log), the backlog beyond the
window, outcomes of the references alive in this process, and who waits for them.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import failures
from zray.core.client.actor_caller import ActorCaller
from zray.core.client.call_results import CallResults
from zray.core.client.calls import ClientCalls
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.near_values import NearValues
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.values import ClientValues
from zray.core.client.waiters import Waiters
from zray.errors import MessageTooLargeError, ProtocolError, TaskCancelledError, ZrayError
from zray.ids import IdSource, object_id, task_of
from zray.protocol import messages as m
from zray.protocol.codec import Payload, Unsent
from zray.protocol.errors import system_error
from zray.protocol.splitting import Joiner


class Client:
    """``remote``: over a network, where large values stay here and are served in chunks."""

    def __init__(self, process_id: bytes, job_id: bytes, ids: IdSource, *, remote: bool) -> None:
        self.process_id = process_id
        self.job_id = job_id
        self.epoch = 0
        self.cluster_id = b""
        self.head_id = b""  # of the head that it was welcome to last
        self.linked = not remote
        self.refused: m.Refused | None = None
        self.stopped = ""  # why the cluster ended
        self.parted = False  # the head has heard this driver's GOODBYE
        self.health = ""
        self.outbox: list[m.Message] = []  # the same list for ever: the machines put into it
        self.printed = 0  # characters, since this process last said something because of them
        self.prints: list[m.Log | m.Notice] = []
        self.outcomes: dict[bytes, m.Outcome] = {}
        self.unresolved: dict[bytes, m.TaskSpec] = {}
        self.backlog: deque[m.TaskSpec] = deque()
        self._waiting: dict[bytes, None] = {}  # the tasks in the backlog
        self.in_flight = 0
        self._in_flight_bytes = 0
        self._ids = ids
        self._remote = remote
        self.new_task = ids.task_id
        self._cancels: dict[bytes, m.Cancel] = {}  # of tasks whose outcome is not known here
        self._ack_upto = 0
        self._early: list[bytes] = []  # tasks of whose outcomes the last part is to come
        self._joiner = Joiner()
        self._make_machines()

    def _make_machines(self) -> None:
        """Whatever a machine needs of a later one is a callback."""
        self.call_results = CallResults()
        actors: dict[bytes, ActorCaller] = {}
        self.requests = Requests(self.outbox)
        self.waiters = Waiters(
            self.outcomes, self._is_expected, self._watch, lambda oid: self.values.pull(oid)
        )
        self.values = ClientValues(self.outbox.append, self._pulled)
        self.near = NearValues(self.outcomes, self.waiters.values.__contains__)
        self.references = ClientReferences(
            process_id=self.process_id,
            outbox=self.outbox,
            outcomes=self.outcomes,
            unresolved=self.unresolved,
            results=self.call_results,
            actors=actors,
            waiters=self.waiters,
            values=self.values,
            near=self.near,
            new_task=self.new_task,
            handle_dropped=lambda actor_id: self.calls.handle_dropped(actor_id),
            remote=self._remote,
        )
        self.definitions = ClientDefinitions(
            outbox=self.outbox,
            publish=self.references.publish,
            number=self.requests.number,
            remote=self._remote,
        )
        self.calls = ClientCalls(
            process_id=self.process_id,
            job_id=lambda: self.job_id,
            outbox=self.outbox,
            outcomes=self.outcomes,
            results=self.call_results,
            actors=actors,
            references=self.references,
            definitions=self.definitions,
            requests=self.requests,
            new_task=self.new_task,
            unsubmitted=self._waiting.__contains__,
        )
        self.ask = self.requests.ask
        self.want_value = self.waiters.want_value
        self.want_outcome = self.waiters.want_outcome
        self.want_located = self.waiters.want_located
        self.forget_waiter = self.waiters.forget
        self.has_callbacks = self.waiters.has_callbacks

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
        """Queue a task; returns the ids of its returns, for each of which the caller makes a
        reference (already counted here)."""
        references = self.references
        if references.own or self.call_results.awaited:
            references.publish(spec.dependencies)
            references.publish(spec.nested)
        for oid in (*spec.dependencies, *spec.nested):
            references.add(oid)  # the backlog's: no DROP may come before the SUBMIT
        self.unresolved[spec.task_id] = spec
        self.definitions.use(spec.template_id)
        self.backlog.append(spec)
        self._waiting[spec.task_id] = None
        if num_returns == 1:
            returns = [object_id(spec.task_id)]
        else:
            returns = [object_id(spec.task_id, index) for index in range(num_returns)]
        references.hold_returns(returns)
        refusal = self.definitions.refusal(spec.template_id) if self.definitions.refused else None
        if refusal is not None:
            self._give_up(spec, *refusal)
        return returns

    def flush(self) -> None:
        """Move holds, drops and the backlog, as far as the window allows, into the outbox."""
        self.references.flush_holds()
        while self.backlog and self._window_open():
            self._submit_some()
        self.calls.flush()  # they may refer to what was submitted
        if self.references.new_drops and not self.requests.may_bring_handle():  # else undone
            self.references.drop_some(self._waiting)
        if self._ack_upto:
            self.outbox.append(m.ResultAck(0, self.process_id, self._ack_upto))
            self._ack_upto = 0

    def unsent(self) -> bool:
        """Whether ``flush`` has more to do soon."""
        drops = bool(self.references.new_drops) and not self.requests.may_bring_handle()
        return bool(self.backlog) or drops or self.calls.unsent()

    def unsaid(self) -> bool:
        """Whether ``flush`` has anything to tell."""
        told = self.references.new_holds or self.calls.unacknowledged() or self._ack_upto
        return bool(told) or self.unsent()

    def owes(self) -> bool:
        """Whether others may wait for what ends with this process: its tasks, and promises."""
        return bool(self.unresolved) or self.calls.has_promised()

    def in_backlog(self, task_id: bytes) -> bool:
        """Whether the task has not been submitted yet."""
        return task_id in self._waiting

    def too_large(self, found: list[Unsent]) -> None:
        """Messages, each of one thing, are too large for the head: that thing fails alone."""
        for message, text in found:
            if isinstance(message, m.Submit):
                for spec in message.tasks:
                    if self._resolved(spec.task_id) is not None:
                        self._refused(spec, MessageTooLargeError, text)
                        self.references.publish(self._returns(spec))  # others may wait for them
                        self.definitions.unuse(spec.template_id)
            else:
                self.prints.append(m.Notice(0, MessageTooLargeError.code, text))

    def _returns(self, spec: m.TaskSpec) -> list[bytes]:
        count = self.definitions.templates[spec.template_id].num_returns
        return [object_id(spec.task_id, index) for index in range(count)]

    def _refused(self, spec: m.TaskSpec, error: type[ZrayError], text: str) -> None:
        """The cluster does not hear of the task: its returns are errors of this process."""
        template = self.definitions.templates[spec.template_id]
        value = failures.encode(error, text, template.name)
        for outcome in failures.outcomes(spec.task_id, template.num_returns, value):
            self.references.take_back(outcome)

    def _window_open(self) -> bool:
        return (
            self.in_flight < limits.CLIENT_WINDOW_TASKS
            and self._in_flight_bytes < limits.CLIENT_WINDOW_BYTES
        )

    def _submit_some(self) -> None:
        specs: list[m.TaskSpec] = []
        size = 0
        while self.backlog and size < limits.SUBMIT_BYTES_MAX and len(specs) < 10_000:
            spec = self.backlog.popleft()
            if self._waiting.pop(spec.task_id, 0) == 0:
                continue  # it was withdrawn
            size += len(spec.arguments)
            specs.append(spec)
        self.in_flight += len(specs)
        self._in_flight_bytes += size
        self.outbox.append(m.Submit(0, self.job_id, self.process_id, specs))
        for spec in specs:
            self._unreference(spec)
        self.references.submitted(specs)

    def _unreference(self, spec: m.TaskSpec) -> None:
        """The task is not in the backlog any more; the cluster holds what it refers to."""
        for oid in (*spec.dependencies, *spec.nested):
            self.references.remove(oid)

    def cancel(self, task_id: bytes, force: bool, recursive: bool) -> None:
        """Cancel a task; one that is still in the backlog ends here and now."""
        self.flush()
        if self.calls.cancel(task_id):
            return
        if task_id in self._waiting:
            self._withdraw(self.unresolved[task_id])
            return
        self._cancels[task_id] = m.Cancel(0, task_id, force, recursive)
        self.outbox.append(self._cancels[task_id])

    def _withdraw(self, spec: m.TaskSpec) -> None:
        """A task that was not submitted will not be: its returns are errors of this process."""
        del self._waiting[spec.task_id], self.unresolved[spec.task_id]
        self._tidy_backlog()
        self._unreference(spec)
        text = "the task was cancelled before it was submitted"
        self._refused(spec, TaskCancelledError, text)
        self.definitions.unuse(spec.template_id)

    def _tidy_backlog(self) -> None:
        """What was withdrawn stays in the backlog until it is at its front, or most of it."""
        if len(self.backlog) > 2 * len(self._waiting) + 64:
            self.backlog = deque(spec for spec in self.backlog if spec.task_id in self._waiting)
        while self.backlog and self.backlog[0].task_id not in self._waiting:
            self.backlog.popleft()

    # ---- waiting ---------------------------------------------------------------------------

    def here(self, oid: bytes) -> m.Outcome | None:
        """The outcome with its value, if both are in this process."""
        outcome = self.outcomes.get(oid)
        return outcome if outcome is not None and not outcome.kind & m.LOCATED else None

    def is_ready(self, oid: bytes) -> bool:
        """Whether the value is in this process, or was, and is with its node now."""
        outcome = self.outcomes.get(oid)
        here = outcome is not None and not outcome.kind & m.LOCATED
        return here or oid in self.near.reached

    def _is_expected(self, oid: bytes) -> bool:
        return task_of(oid) in self.unresolved or oid in self.call_results.awaited

    def _watch(self, oid: bytes) -> None:
        self.outbox.append(m.Watch(0, self.process_id, oid))

    # ---- in --------------------------------------------------------------------------------

    def receive(self, payload: Payload, now: float) -> None:
        """One payload from the head (driver)."""
        for message in payload.messages:
            if isinstance(message, m.Welcome):
                self._on_welcome(message, payload.epoch)
            elif isinstance(message, m.Refused):
                self.refused = message
                if message.code == m.FENCED:
                    self.stop(message.text)
            elif isinstance(message, m.Rejected) and not self.linked:  # its HELLO
                self.refused = m.Refused(0, message.code, message.text)
            elif isinstance(message, m.Rejoin) or payload.epoch < self.epoch:
                self.refused = m.Refused(0, "", "the head asked for a new session")
            else:
                self.message(message)

    def message(self, message: m.Message) -> None:
        """One message from the head, or from this worker's raylet."""
        if isinstance(message, m.Result):
            self._on_result(message)
        elif isinstance(message, m.Chunk):
            self.values.on_chunk(message)
        elif isinstance(message, m.PullFailed):
            self.values.on_failed(message)
        elif isinstance(message, m.Pull):
            self.values.on_pull(message, self.here(message.object_id))
        elif isinstance(message, m.ChunkAck):
            self.values.server.on_ack(message)
        elif isinstance(message, m.Exported):
            self.definitions.durable(message.function_ids)
        elif isinstance(message, m.Replies):
            self.calls.on_replies(message)
        elif isinstance(message, m.ActorState):
            self.calls.on_state(message)
        elif isinstance(message, m.ANSWERS):
            whole = self._joiner.take(message)
            if whole is None:
                return
            message = whole
            asked = self.requests.take(message.about)  # type: ignore[attr-defined]
            if asked is not None:
                self.calls.on_answer(asked.request, message)
                asked.answer.append(message)
                asked.waiter.arrived()
        elif isinstance(message, m.Free):
            self.values.freed(message.object_ids)
        elif isinstance(message, m.Log | m.Notice):
            self.prints.append(message)
            if isinstance(message, m.Log):
                self.printed += sum(map(len, message.lines))
        elif isinstance(message, m.Rejected):
            self._on_rejected(message)
        elif isinstance(message, m.Pong):
            self.health = message.health
        elif isinstance(message, m.Shutdown):
            self.stop(message.reason)
        elif isinstance(message, m.Goodbye):
            self.parted = True

    def _on_rejected(self, message: m.Rejected) -> None:
        """What was asked or said will not be done: whoever waits for it has an error."""
        asked = self.requests.take(message.about)
        if asked is not None:
            self.calls.on_refusal(asked.request)
            asked.answer.append(message)
            asked.waiter.arrived()
            return
        function_id = self.definitions.refuse(message.about, message.code, message.text)
        if not function_id:
            said = f"the head refused it: {message.text}"
            self.prints.append(m.Notice(0, message.code, said[: limits.TEXT_MAX]))
            return
        self.calls.class_refused(function_id, f"the head refused its class: {message.text}")
        for spec in [*self.unresolved.values()]:
            refusal = self.definitions.refusal(spec.template_id)
            if refusal is not None:
                self._give_up(spec, *refusal)

    def _give_up(self, spec: m.TaskSpec, code: str, text: str) -> None:
        """The head has refused what the task is made of."""
        submitted = spec.task_id not in self._waiting
        if not submitted:
            del self._waiting[spec.task_id], self.unresolved[spec.task_id]
            self._tidy_backlog()
            self._unreference(spec)
        else:
            self._resolved(spec.task_id)
            self.outbox.append(m.Cancel(0, spec.task_id, False, False))
        name = self.definitions.templates[spec.template_id].name
        value = system_error(code, f"the head refused its function: {text}", function_name=name)
        for outcome in failures.outcomes(spec.task_id, len(self._returns(spec)), value):
            self.references.take_back(outcome, submitted=submitted)
        self.references.publish(self._returns(spec))  # others may wait for them
        self.definitions.unuse(spec.template_id)

    def stop(self, reason: str) -> None:
        """The cluster has ended: whoever waits need wait no longer."""
        self.stopped = reason or "the cluster was shut down"
        self.waiters.release_all()
        self.requests.release_all()

    def _on_result(self, message: m.Result) -> None:
        unresolved, references = self.unresolved, self.references.counts
        is_part = self._remote and not message.seq
        if is_part:  # the rest of a task's returns may get lost: it is asked for again then
            self._early += [outcome.object_id[:16] for outcome in message.outcomes]
            unresolved = {}
        elif self._early:
            for task_id in self._early:
                early = self._resolved(task_id)
                if early is not None:
                    self.definitions.unuse(early.template_id)
            self._early.clear()
        watched, for_values, for_ends = (
            *(self.waiters.watched, self.waiters.values, self.waiters.ends),
        )
        for outcome in message.outcomes:
            oid = outcome.object_id
            spec = unresolved.pop(oid[:16], None)
            if spec is not None:
                self.in_flight -= 1
                self._in_flight_bytes -= len(spec.arguments)
                self._cancels.pop(spec.task_id, None)
                self.definitions.unuse(spec.template_id)
            watched.pop(oid, None)
            if oid in references and oid not in self.outcomes:
                self.outcomes[oid] = outcome
                if oid in for_values or oid in for_ends:
                    self.waiters.wake(oid, outcome)
        if self._remote and message.seq:
            self._ack_upto = message.seq

    def _resolved(self, task_id: bytes) -> m.TaskSpec | None:
        """The task need not be submitted again; None: that was known."""
        spec = self.unresolved.pop(task_id, None)
        if spec is not None:
            self.in_flight -= 1
            self._in_flight_bytes -= len(spec.arguments)
            self._cancels.pop(task_id, None)
        return spec

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
        self._ack_upto = 0
        self._early.clear()
        self._joiner.clear()

    def _on_welcome(self, message: m.Welcome, epoch: int) -> None:
        if epoch < self.epoch:
            self.refused = m.Refused(0, ProtocolError.code, "an old head answered")
            return
        another_head = epoch > self.epoch
        self.epoch = epoch
        self.cluster_id = message.cluster_id
        self.head_id = message.head_id
        self.linked = True
        self.refused = None
        self._resume(another_head)

    def _resume(self, another_head: bool) -> None:
        """The full state for a new session: idempotent, whatever the head knows."""
        self.outbox.clear()
        self.definitions.resume()
        if another_head:  # values of before are known by those who have them
            self.references.serve_held()
        self.values.announce(self.process_id)
        self._resubmit()
        if self.waiters.watched:
            self.outbox.append(m.Watch(0, self.process_id, b"".join(self.waiters.watched)))
        self.values.resume()
        self.references.resume(self._waiting)
        self.outbox += self._cancels.values()
        self.outbox += self.requests.unanswered()
        self.calls.resume()  # actors are asked for by then

    def _resubmit(self) -> None:
        """Tasks without an outcome, and which of their returns nobody here wants any more."""
        again = [spec for spec in self.unresolved.values() if spec.task_id not in self._waiting]
        for start in range(0, len(again), 1000):
            batch = again[start : start + 1000]
            self.outbox.append(m.Submit(0, self.job_id, self.process_id, batch))
        dropped = []
        for spec in again:
            dropped += [oid for oid in self._returns(spec) if oid not in self.references.held]
        if dropped:
            self.outbox.append(m.Drop(0, self.process_id, b"".join(dropped)))
