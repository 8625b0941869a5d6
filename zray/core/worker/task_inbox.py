"""The TaskInbox machine: which task a worker runs next, and what it gives back.

Delivered is not started: until ``next`` hands a task out, ``recall`` and ``cancel`` can take it
back. The shell calls these from two threads, under one lock of its own. Before it is delivered, a
task may wait in a queue from which the raylet takes it back itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from zray import limits
from zray.core.identity import Identity
from zray.ids import split_tasks
from zray.protocol import messages as m


class Delivered(NamedTuple):
    """A task with the values of its arguments, as the worker got it."""

    assignment: m.Assignment
    values: list[m.Outcome]  # of the dependencies, in their order


class TaskInbox:
    """What a worker was given, in order, and what it has to tell of it."""

    def __init__(self, me: Identity) -> None:
        self.me = me
        self.setup: m.Setup | None = None
        self.templates: dict[bytes, m.Template] = {}
        self.functions: dict[bytes, m.Export] = {}
        self._by_function: dict[bytes, dict[bytes, None]] = {}  # templates
        self.forgotten: list[bytes] = []  # functions that are to be unloaded
        self._lent: dict[bytes, None] = {}  # functions of which the raylet has not told
        self.current: m.Assignment | None = None
        self.exiting = False
        self.spent = False  # nothing more is to start in this process
        self.blocked = False
        self._inbox: deque[Delivered] = deque()
        self._packet: m.Tasks | None = None  # out of the queue, behind all that
        self._delivered = 0
        self._done: list[m.TaskDone] = []
        self._oldest_done = 0.0
        self._hands_on = False  # a result refers to objects that this process may drop soon
        # The part of a worker's table of messages that is about running tasks.
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Tasks: self._on_delivery,
            m.Template: self.on_template,
            m.Export: self.on_export,
            m.Forget: self.on_forget,
            m.Setup: self.on_setup,
            m.Exit: self.on_exit,
        }

    # ---- in --------------------------------------------------------------------------------

    def _on_delivery(self, message: m.Tasks) -> None:
        """Tasks to start at once."""
        self._delivered += len(message.tasks)
        self.on_tasks(message)

    def on_tasks(self, message: m.Tasks) -> None:
        """Tasks are delivered, with the values of their arguments."""
        by_id = {outcome.object_id: outcome for outcome in message.values}
        for assignment in message.tasks:
            values = [by_id[oid] for oid in assignment.spec.dependencies]
            self._inbox.append(Delivered(assignment, values))

    def takes(self) -> bool:
        """Whether a packet of tasks is to be taken out of the queue, as nothing else is here."""
        return not (self._inbox or self.spent) and self._packet is None

    def on_packet(self, message: m.Tasks) -> None:
        """These were taken; what was sent before may still have to be read.

        That is what they are made of and, as ``seq`` counts, tasks that come before them.
        """
        self._packet = message

    def _open_packet(self) -> None:
        packet = self._packet
        if packet is None or packet.seq > self._delivered:
            return
        if all(map(self._is_known, packet.tasks)):
            self._packet = None
            self.on_tasks(packet)

    def names(self, template_id: bytes) -> tuple[str, str]:
        """Of tasks of a template, and of their function."""
        template = self.templates[template_id]
        function = self.functions.get(template.function_id)
        return template.name, template.name if function is None else function.name

    def _is_known(self, assignment: m.Assignment) -> bool:
        template = self.templates.get(assignment.spec.template_id)
        return template is not None and (template.by_name or template.function_id in self.functions)

    def on_template(self, message: m.Template) -> None:
        """Tasks may name this template from now on."""
        self._lent.pop(message.function_id, None)
        self._add_template(message)

    def _add_template(self, message: m.Template) -> None:
        self.templates[message.template_id] = message
        self._by_function.setdefault(message.function_id, {})[message.template_id] = None

    def on_export(self, message: m.Export) -> None:
        """Templates may name this function from now on."""
        self._lent.pop(message.function_id, None)
        self.functions[message.function_id] = message

    def on_forget(self, message: m.Forget) -> None:
        """Nobody needs these functions any more, but for what may still be in the inbox."""
        named = {delivered.assignment.spec.template_id for delivered in self._inbox}
        if self._packet is not None:
            named.update(assignment.spec.template_id for assignment in self._packet.tasks)
        if self.current is not None:
            named.add(self.current.spec.template_id)
        for function_id in split_tasks(message.function_ids):
            if not named.intersection(self._by_function.get(function_id, ())):
                self._lent.pop(function_id, None)
                self.functions.pop(function_id, None)
                self.forgotten.append(function_id)
                for template_id in self._by_function.pop(function_id, ()):
                    del self.templates[template_id]

    def lend(self, template: m.Template, function: m.Export | None) -> None:
        """The same as the raylet tells, from a submitter, which has it forgotten as well."""
        function_id = template.function_id
        if function_id not in self._by_function and function_id not in self.functions:
            self._lent[function_id] = None
        self._add_template(template)
        if function is not None:
            self.functions[function_id] = function

    def take_back_lent(self, function_ids: Iterable[bytes]) -> None:
        """A submitter needs these no more; those that the raylet has told of stay."""
        lent = [each for each in function_ids if each in self._lent]
        if lent:
            self.on_forget(m.Forget(0, b"".join(lent)))

    def trim_lent(self) -> None:
        """Of what was lent, and is not taken back any more, the last ones stay."""
        self.take_back_lent([*self._lent][: -limits.LEASE_FUNCTIONS_MAX])

    def on_setup(self, message: m.Setup) -> None:
        """Which job the worker serves."""
        self.setup = message

    def on_exit(self, message: m.Exit) -> None:
        """The worker is to end once there is nothing more to run."""
        self.exiting = True

    # ---- running ---------------------------------------------------------------------------

    def next(self) -> Delivered | None:
        """The task to start now; from here on it has started."""
        assert self.current is None
        if not self._inbox:
            self._open_packet()
            if not self._inbox:
                return None
        delivered = self._inbox.popleft()
        self.current = delivered.assignment
        return delivered

    def runs(self, message: m.CancelTask) -> bool:
        """Whether this attempt is the current one."""
        current = self.current
        if current is None or current.spec.task_id != message.task_id:
            return False
        return current.attempt == message.attempt

    def finished(
        self,
        status: int,
        results: list[m.Outcome],
        seconds: float,
        borrowed: list[bytes],
        now: float,
    ) -> None:
        """The current task has ended; ``seconds``: how long it ran."""
        self.tell(self.end(status, results, seconds, borrowed), now)

    def end(
        self, status: int, results: list[m.Outcome], seconds: float, borrowed: list[bytes]
    ) -> m.TaskDone:
        """The same for an end that is to be told later, with ``tell``."""
        assert self.current is not None
        current, self.current = self.current, None
        return m.TaskDone(
            current.spec.task_id,
            current.attempt,
            status,
            results,
            seconds,
            borrowed,
            self.me.process_id if borrowed else b"",
        )

    def tell(self, done: m.TaskDone, now: float) -> None:
        """This end can be told from now on."""
        if not self._done:
            self._oldest_done = now
        for outcome in done.results:
            if outcome.contained:
                self._hands_on = True
        if done.borrowed:
            self._hands_on = True
        self._done.append(done)

    def take_done(self, now: float, *, next_is_short: bool) -> m.Done | None:
        """Results that must leave now: before a task not known to be short, else soon.

        At once where they hand references on: a DROP that follows must not overtake them.
        """
        if not self._done:
            return None
        fresh = now - self._oldest_done < limits.RESULT_DELAY_S
        if next_is_short and self._inbox and fresh and not self._hands_on:
            return None
        self._hands_on = False
        done, self._done = self._done, []
        return m.Done(0, done)

    def holds(self) -> bool:
        """Whether something is here that has not started, or has ended and is not told."""
        return bool(self._inbox or self._done) or self._packet is not None

    def next_values(self) -> list[m.Outcome] | None:
        """The dependencies of the task that comes after the current one; None: it is not here."""
        return self._inbox[0].values if self._inbox else None

    # ---- giving back -----------------------------------------------------------------------

    def recall(self) -> m.Returned:
        """Everything that has not started, in order of delivery."""
        ids = b"".join(d.assignment.spec.task_id for d in self._inbox)
        self._inbox.clear()
        packet, self._packet = self._packet, None
        if packet is not None:
            ids += b"".join(assignment.spec.task_id for assignment in packet.tasks)
        return m.Returned(0, ids)

    def untake(self) -> m.Returned | None:
        """A packet that was taken too early, as the task that starts now comes first; or None.

        In the queue it was not yet bound to this worker, and here it is until that task ends.
        """
        packet, self._packet = self._packet, None
        if packet is None:
            return None
        return m.Returned(0, b"".join(assignment.spec.task_id for assignment in packet.tasks))

    def cancel(self, message: m.CancelTask) -> m.Returned | None:
        """Give a task back that has not started; None where there is none such."""
        for delivered in self._inbox:
            assignment = delivered.assignment
            if assignment.spec.task_id == message.task_id and assignment.attempt == message.attempt:
                self._inbox.remove(delivered)
                return m.Returned(0, message.task_id)
        for assignment in self._packet.tasks if self._packet is not None else ():
            if assignment.spec.task_id == message.task_id and assignment.attempt == message.attempt:
                assert self._packet is not None
                self._packet.tasks.remove(assignment)
                return m.Returned(0, message.task_id)
        return None
