"""The ServedLease machine: this worker runs the tasks of one submitter, which sends them itself.

Owns what the submitter has made known, a packet that came before that, what its results refer to
until the submitter holds that itself, and when the lease is over. Tasks are in the TaskInbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from zray import limits
from zray.core.machine import NEVER
from zray.core.worker.task_inbox import TaskInbox
from zray.errors import ProtocolError
from zray.ids import split_tasks
from zray.protocol import messages as m

Pin = TypeVar("Pin")  # what keeps an object, as the shell has it


class ServedLease(Generic[Pin]):
    """One lease, from GRANT until nothing of it is left.

    Attributes:
        handlers: for what the submitter says over the link.
        ending: nothing more is begun under it.
        unsure: ends that are not told before the cluster knows what their tasks keep.
        kept: by the number of a DONE, what is kept until that is acknowledged.
        sentenced: the running task, if the raylet ends this worker should it not end.
        begun: how many of its tasks have started.
    """

    def __init__(self, grant: m.Grant, task_inbox: TaskInbox, now: float) -> None:
        self.grant = grant
        self.handlers: dict[type[m.Message], Callable[[Any], None]] = {
            m.Template: self._on_template,
            m.Export: self._on_export,
            m.Forget: self._on_forget,
            m.Ack: self._on_ack,
        }
        self.ending = False
        self.unsure = 0
        self.kept: dict[int, list[Pin]] = {}
        self.sentenced = b""
        self.begun = 0
        self._seen = 0  # of these, when ``takes_long`` was asked last
        self._task_inbox = task_inbox
        # The raylet does not know what the submitter has told, and may have it forgotten.
        self._templates: dict[bytes, m.Template] = {}
        self._functions: dict[bytes, m.Export] = {}
        self._of_functions: dict[bytes, list[bytes]] = {}  # templates
        self._early: m.Tasks | None = None
        self._pins: list[Pin] = []  # of ends that have not left
        self._numbers = 0
        self._until = now + limits.LEASE_CONNECT_S  # without a task by then, it is over
        self._idle_s = limits.LEASE_IDLE_S

    def held(self) -> m.HeldLease:
        """The lease as others are told of it."""
        grant = self.grant
        return m.HeldLease(
            *(grant.lease_id, grant.job_id, grant.submitter, grant.resources),
            self._task_inbox.me.process_id,
        )

    # ---- from the submitter ----------------------------------------------------------------

    def _on_template(self, message: m.Template) -> None:
        self._templates[message.template_id] = message
        self._of_functions.setdefault(message.function_id, []).append(message.template_id)

    def _on_export(self, message: m.Export) -> None:
        self._functions[message.function_id] = message

    def _on_forget(self, message: m.Forget) -> None:
        """The submitter needs a function no more, or sends it again."""
        function_ids = split_tasks(message.function_ids)
        for function_id in function_ids:
            self._functions.pop(function_id, None)
            for template_id in self._of_functions.pop(function_id, ()):
                self._templates.pop(template_id, None)
        self._task_inbox.take_back_lent(function_ids)

    def _on_ack(self, message: m.Ack) -> None:
        """The submitter holds what these ends refer to."""
        while self.kept and (oldest := next(iter(self.kept))) <= message.upto:
            del self.kept[oldest]

    def hear(self, messages: Iterable[m.Message]) -> None:
        """What the submitter says over its socket; anything else passes by."""
        for message in messages:
            handler = self.handlers.get(type(message))
            if handler is not None:
                handler(message)

    def connected(self, now: float) -> None:
        """The submitter can send tasks from now on."""
        self._until = now + self._idle_s

    def spare(self, now: float) -> None:
        """Others could use this worker: it does not rest for long any more."""
        if self._until < now + self._idle_s:  # it rests, and not for its submitter to connect
            self._until = min(self._until, now + limits.LEASE_SPARE_S)
        self._idle_s = limits.LEASE_SPARE_S

    def gone(self) -> None:
        """The submitter wants nothing of it any more."""
        self.ending = True
        self.kept.clear()

    # ---- packets ---------------------------------------------------------------------------

    def takes(self) -> bool:
        """Whether another packet is to be taken, now that nothing is left of the one before."""
        return not self.ending and self._early is None

    def deliver(self, packet: m.Tasks) -> bool:
        """A packet was taken. False: ``deliver_early`` when what its tasks are made of is here.

        Raises:
            ProtocolError: an argument is missing; whoever sent it is no submitter.
        """
        if not all(self._is_known(task.spec.template_id) for task in packet.tasks):
            self._early = packet
            return False
        try:
            self._task_inbox.on_tasks(packet)
        except KeyError as error:
            raise ProtocolError(f"a task came without its argument {error}") from None
        return True

    def deliver_early(self) -> None:
        """Deliver what was taken too early, if that can be by now."""
        if self._early is not None:
            packet, self._early = self._early, None
            self.deliver(packet)

    def _is_known(self, template_id: bytes) -> bool:
        inbox = self._task_inbox
        template = inbox.templates.get(template_id) or self._templates.get(template_id)
        if template is None:
            return False
        function = inbox.functions.get(template.function_id)
        if function is None:
            function = self._functions.get(template.function_id)
            if function is None and not template.by_name:
                return False
            inbox.lend(template, function)
        elif template_id not in inbox.templates:
            inbox.lend(template, None)
        return True

    def begins(self) -> None:
        """One of its tasks starts."""
        self._until = NEVER
        self.begun += 1

    def at_stake(self) -> bool:
        """Whether a task that takes long could hold up others, or what is to be said."""
        return bool(self.kept or self.unsure or self._early) or self._task_inbox.holds()

    def takes_long(self) -> bool:
        """Whether a task runs that did so when this was asked before."""
        seen, self._seen = self._seen, self.begun
        return seen == self.begun and self._task_inbox.current is not None

    # ---- giving back -----------------------------------------------------------------------

    def recall(self) -> m.Returned:
        """Everything that was taken and has not started, in order."""
        ids = self._task_inbox.recall().task_ids
        early, self._early = self._early, None
        for task in early.tasks if early is not None else ():
            ids += task.spec.task_id
        return m.Returned(0, ids)

    def cancel(self, message: m.CancelTask) -> m.Returned | None:
        """Give a task back that has not started; None where there is none such."""
        early = self._early
        for task in early.tasks if early is not None else ():
            if (task.spec.task_id, task.attempt) == (message.task_id, message.attempt):
                assert early is not None
                early.tasks.remove(task)
                return m.Returned(0, message.task_id)
        return self._task_inbox.cancel(message)

    # ---- ends ------------------------------------------------------------------------------

    def keep(self, pins: list[Pin]) -> None:
        """What an end refers to, which leaves with the next DONE."""
        self._pins += pins

    def number(self, done: m.Done) -> None:
        """The ends that are not told yet leave; they are to be acknowledged if need be."""
        if self._pins:
            self._numbers += 1
            done.seq = self._numbers
            self.kept[done.seq], self._pins = self._pins, []

    def rests_s(self, now: float) -> float:
        """Nothing is here to be run: how long to wait for more; 0: the lease is over."""
        if self._until == NEVER:
            self._until = now + self._idle_s
        if self.unsure:
            return limits.LEASE_IDLE_S
        return 0.0 if self.ending else max(0.0, self._until - now)
