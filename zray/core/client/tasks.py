"""The part of the Client that has its tasks: the redo log, the window and the backlog.

Keeps each spec until its outcome is committed, and those that are not submitted yet because too
much is under way. A task that cannot be made, or was cancelled in time, ends here.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import failures
from zray.core.client.call_results import CallResults
from zray.core.client.definitions import ClientDefinitions
from zray.core.client.references import ClientReferences
from zray.core.client.waiters import Waiters
from zray.core.identity import Identity
from zray.errors import MessageTooLargeError, TaskCancelledError, ZrayError
from zray.ids import object_id, task_of
from zray.protocol import messages as m
from zray.protocol.errors import system_error


class ClientTasks:
    """``remote``: as for the client.

    Args:
            outcomes: those known here, of this process's references.
        unresolved: the redo log.
        results: of calls that this process has made.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outbox: list[m.Message],
        outcomes: dict[bytes, m.Outcome],
        unresolved: dict[bytes, m.TaskSpec],
        results: CallResults,
        waiters: Waiters,
        references: ClientReferences,
        definitions: ClientDefinitions,
        remote: bool,
    ) -> None:
        self._me = me
        self._outbox = outbox
        self._outcomes = outcomes
        self.unresolved = unresolved
        self._results = results
        self._waiters = waiters
        self._references = references
        self._definitions = definitions
        self._remote = remote
        self.backlog: deque[m.TaskSpec] = deque()
        self.unsubmitted: dict[bytes, None] = {}  # the tasks in the backlog
        self.in_flight = 0
        self._in_flight_bytes = 0
        self._cancels: dict[bytes, m.Cancel] = {}  # of tasks whose outcome is not known here
        self.ack_upto = 0  # the last RESULT of which the head was not told that it came; 0: none
        self._early: list[bytes] = []  # tasks of whose outcomes the last part is to come

    # ---- submitting ------------------------------------------------------------------------

    def submit(self, spec: m.TaskSpec, num_returns: int) -> list[bytes]:
        """Queue a task; returns the ids of its returns, for each of which the caller makes a
        reference (already counted here)."""
        references = self._references
        if references.own or self._results.awaited or references.unpublished:
            references.publish_arguments(spec)
        if spec.dependencies or spec.nested:
            for oid in (*spec.dependencies, *spec.nested):
                references.add(oid)  # the backlog's: no DROP may come before the SUBMIT
            references.passed_on((*spec.dependencies, *spec.nested))
        self.unresolved[spec.task_id] = spec
        self._definitions.use(spec.template_id)
        self.backlog.append(spec)
        self.unsubmitted[spec.task_id] = None
        if num_returns == 1:
            returns = [object_id(spec.task_id)]
        else:
            returns = [object_id(spec.task_id, index) for index in range(num_returns)]
        references.hold_returns(returns)
        refusal = self._definitions.refusal(spec.template_id) if self._definitions.refused else None
        if refusal is not None:
            self._give_up(spec, *refusal)
        elif spec.template_id in self._definitions.urgent and not self._window_open():
            self.hurry(spec.task_id)
        return returns

    def take_over(self, spec: m.TaskSpec, returns: list[bytes], at_once: bool) -> None:
        """Queue a task that was to go straight to a worker; all of it is counted.

        Where others have heard of its results, they may be waited for by what fills the window.
        """
        self._references.publish(spec.dependencies)
        self._references.publish(spec.nested)
        self.unresolved[spec.task_id] = spec
        self.backlog.append(spec)
        self.unsubmitted[spec.task_id] = None
        promised = bool(self._results.promised) and any(map(self._results.is_promised, returns))
        self._references.entrust(returns)
        if promised or at_once:
            self.hurry(spec.task_id)

    def hurry(self, task_id: bytes) -> None:
        """The task does not wait for the window, nor do those whose results it needs."""
        if task_id not in self.unsubmitted:
            return
        needed = [self.unresolved[task_id]]
        for one in needed:  # grows with what that needs
            for oid in (*one.dependencies, *one.nested):
                if task_of(oid) in self.unsubmitted:
                    needed.append(self.unresolved[task_of(oid)])
        for one in reversed(needed):
            if self.unsubmitted.pop(one.task_id, 0) is None:
                self._submit([one], len(one.arguments))
        self._tidy_backlog()

    def flush(self) -> None:
        """Move the backlog, as far as the window allows, into the outbox."""
        while self.backlog and self._window_open():
            self._submit_some()

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
            if self.unsubmitted.pop(spec.task_id, 0) == 0:
                continue  # it was withdrawn
            size += len(spec.arguments)
            specs.append(spec)
        self._submit(specs, size)

    def _submit(self, specs: list[m.TaskSpec], size: int) -> None:
        self.in_flight += len(specs)
        self._in_flight_bytes += size
        self._outbox.append(m.Submit(0, self._me.job_id, self._me.process_id, specs))
        for spec in specs:
            self._unreference(spec)
        self._references.submitted(specs)

    def _unreference(self, spec: m.TaskSpec) -> None:
        """The task is not in the backlog any more; the cluster holds what it refers to."""
        for oid in (*spec.dependencies, *spec.nested):
            self._references.remove(oid)

    # ---- cancelling and giving up ----------------------------------------------------------

    def cancel(self, task_id: bytes, force: bool, recursive: bool, index: int = 0) -> None:
        """Cancel a task; one that is still in the backlog ends here and now."""
        if task_id in self.unsubmitted:
            self._withdraw(self.unresolved[task_id])
            return
        self._cancels[task_id] = m.Cancel(0, task_id, force, recursive, index)
        self._outbox.append(self._cancels[task_id])

    def _withdraw(self, spec: m.TaskSpec) -> None:
        """A task that was not submitted will not be: its returns are errors of this process."""
        del self.unsubmitted[spec.task_id], self.unresolved[spec.task_id]
        self._tidy_backlog()
        self._unreference(spec)
        text = "the task was cancelled before it was submitted"
        self._refused(spec, TaskCancelledError, text)
        self._definitions.unuse(spec.template_id)

    def _tidy_backlog(self) -> None:
        """What was withdrawn stays in the backlog until it is at its front, or most of it."""
        if len(self.backlog) > 2 * len(self.unsubmitted) + 64:
            self.backlog = deque(spec for spec in self.backlog if spec.task_id in self.unsubmitted)
        while self.backlog and self.backlog[0].task_id not in self.unsubmitted:
            self.backlog.popleft()

    def too_large(self, specs: list[m.TaskSpec], text: str) -> None:
        """These cannot be sent to the head."""
        for spec in specs:
            if self._resolved(spec.task_id) is not None:
                self._refused(spec, MessageTooLargeError, text)
                self._references.publish(self._returns(spec))  # others may wait for them
                self._definitions.unuse(spec.template_id)

    def definition_refused(self) -> None:
        """The head has refused a function: the tasks that are made of it will not be."""
        for spec in [*self.unresolved.values()]:
            refusal = self._definitions.refusal(spec.template_id)
            if refusal is not None:
                self._give_up(spec, *refusal)

    def _give_up(self, spec: m.TaskSpec, code: str, text: str) -> None:
        """The head has refused what the task is made of."""
        submitted = spec.task_id not in self.unsubmitted
        if not submitted:
            del self.unsubmitted[spec.task_id], self.unresolved[spec.task_id]
            self._tidy_backlog()
            self._unreference(spec)
        else:
            self._resolved(spec.task_id)
            self._outbox.append(m.Cancel(0, spec.task_id, False, False))
        name = self._definitions.templates[spec.template_id].name
        value = system_error(code, f"the head refused its function: {text}", function_name=name)
        for outcome in failures.outcomes(spec.task_id, len(self._returns(spec)), value):
            self._references.take_back(outcome, submitted=submitted)
        self._references.publish(self._returns(spec))  # others may wait for them
        self._definitions.unuse(spec.template_id)

    def _returns(self, spec: m.TaskSpec) -> list[bytes]:
        count = self._definitions.templates[spec.template_id].num_returns
        return [object_id(spec.task_id, index) for index in range(count)]

    def _refused(self, spec: m.TaskSpec, error: type[ZrayError], text: str) -> None:
        """The cluster does not hear of the task: its returns are errors of this process."""
        template = self._definitions.templates[spec.template_id]
        value = failures.encode(error, text, template.name)
        for outcome in failures.outcomes(spec.task_id, template.num_returns, value):
            self._references.take_back(outcome)

    # ---- outcomes --------------------------------------------------------------------------

    def on_result(self, message: m.Result) -> None:
        """Outcomes of tasks, and of objects that are watched."""
        unresolved, references = self.unresolved, self._references.counts
        is_part = self._remote and not message.seq
        if is_part:  # the rest of a task's returns may get lost: it is asked for again then
            self._early += [outcome.object_id[:16] for outcome in message.outcomes]
            unresolved = {}
        elif self._early:
            for task_id in self._early:
                early = self._resolved(task_id)
                if early is not None:
                    self._definitions.unuse(early.template_id)
            self._early.clear()
        watched, for_values, for_ends = (
            *(self._waiters.watched, self._waiters.values, self._waiters.ends),
        )
        for outcome in message.outcomes:
            oid = outcome.object_id
            spec = unresolved.pop(oid[:16], None)
            if spec is not None:
                self.in_flight -= 1
                self._in_flight_bytes -= len(spec.arguments)
                self._cancels.pop(spec.task_id, None)
                self._definitions.unuse(spec.template_id)
            watched.pop(oid, None)
            if oid in references and oid not in self._outcomes:
                self._outcomes[oid] = outcome
                if oid in for_values or oid in for_ends:
                    self._waiters.wake(oid, outcome)
            elif oid not in references:
                self._references.came_unwanted(outcome, again=spec is None)
        if self._remote and message.seq:
            self.ack_upto = message.seq

    def _resolved(self, task_id: bytes) -> m.TaskSpec | None:
        """The task need not be submitted again; None: that was known."""
        spec = self.unresolved.pop(task_id, None)
        if spec is not None:
            self.in_flight -= 1
            self._in_flight_bytes -= len(spec.arguments)
            self._cancels.pop(task_id, None)
        return spec

    def acknowledge(self) -> None:
        """Tell the head which results need not be sent again."""
        self._outbox.append(m.ResultAck(0, self._me.process_id, self.ack_upto))
        self.ack_upto = 0

    # ---- sessions --------------------------------------------------------------------------

    def disconnected(self) -> None:
        """The link is cut: what was to be acknowledged comes again."""
        self.ack_upto = 0
        self._early.clear()

    def resubmit(self) -> None:
        """Tasks without an outcome, and which of their returns nobody here wants any more."""
        again = [spec for spec in self.unresolved.values() if spec.task_id not in self.unsubmitted]
        for start in range(0, len(again), 1000):
            batch = again[start : start + 1000]
            self._outbox.append(m.Submit(0, self._me.job_id, self._me.process_id, batch))
        dropped = []
        for spec in again:
            dropped += [oid for oid in self._returns(spec) if oid not in self._references.held]
        if dropped:
            self._outbox.append(m.Drop(0, self._me.process_id, b"".join(dropped)))

    def cancel_again(self) -> None:
        """Tell a new session what is to be cancelled."""
        self._outbox += self._cancels.values()
