"""The GCS's functions, and the templates that name them: who needs which, and for how long.

A function is needed by the processes that have sent it or a template of it, until they let it go
or end, and by tasks, actors and lineage made of it. What nobody needs is forgotten everywhere.
After a head's restart everything stays until everybody has told what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from zray.core.head.catalog import Catalog
from zray.core.head.members import JobMember, Member, Members, NodeMember
from zray.core.head.object_table import ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.task_records import WAITING, FunctionUse, TaskRecord, TemplateRecord
from zray.core.machine import Outbox
from zray.ids import split_tasks
from zray.protocol.messages import Export, Exported, Forget, Message, Template


class Definitions:
    """``hold``: a function refers to an object. ``wake``: a task's function is there."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        members: Members,
        processes: Processes,
        objects: ObjectTable,
        catalog: Catalog,
        recovery: Recovery,
        hold: Callable[[bytes, bytes, float], object],
        wake: Callable[[TaskRecord], None],
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._processes = processes
        self._objects = objects
        self._catalog = catalog
        self._recovery = recovery
        self._hold_object = hold
        self._wake = wake
        self.templates: dict[bytes, TemplateRecord] = {}
        self._functions: dict[bytes, FunctionUse] = {}
        self._held_by: dict[bytes, dict[bytes, None]] = {}  # process -> functions
        self._unconfirmed: dict[bytes, dict[bytes, None]] = {}  # the same, of earlier sessions
        self._storing: dict[bytes, FunctionUse] = {}  # by id
        self._unneeded: dict[bytes, None] = {}  # to be looked at in the end of this turn
        for function_id in catalog.functions:
            self._function(function_id)
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Export: self.on_export,
            Template: self.on_template,
            Forget: self.on_forget,
        }

    # ---- from processes --------------------------------------------------------------------

    def on_export(self, sender: Member, message: Export, now: float) -> None:
        """A process sends a function: tasks of it start once it is durable."""
        function_id = message.function_id
        for inner in message.contained:
            self._hold_object(function_id, inner, now)
        function = self._function(function_id)
        self._hold(self._holder(sender, message.holder), function)
        self._storing[function_id] = function

        def durable() -> None:
            function.ready = True
            self._storing.pop(function_id, None)
            waiting, function.waiting = function.waiting, []
            for task in waiting:
                if task.state == WAITING:
                    self._wake(task)
            self._outbox.send(sender.process_id, Exported(0, [function_id], message.seq))
            self._look_at(function)  # who sent it may be gone

        self._catalog.export(message, durable)

    def on_template(self, sender: Member, message: Template, now: float) -> None:
        """A node tells of all that it has, when it returns, and by whose holder in earnest."""
        holder = self._holder(sender, message.holder)
        known = message.template_id in self.templates
        if not (holder or known or self._recovery.active):
            self._outbox.send(sender.process_id, Forget(0, message.function_id))
            return
        record = self.take(message)
        self._hold(holder, record.function)

    def on_forget(self, sender: Member, message: Forget, now: float) -> None:
        """A process will not name these functions any more, without sending them again."""
        holder = self._holder(sender, message.holder)
        for function_id in split_tasks(message.function_ids):
            self._release(holder, function_id)

    def _holder(self, sender: Member, holder: bytes) -> bytes:
        if isinstance(sender, JobMember):
            return sender.process_id
        if holder:
            self._processes.note_worker(sender, holder)
        return holder

    # ---- what is needed --------------------------------------------------------------------

    def take(self, message: Template) -> TemplateRecord:
        """The record of a template, made if need be.

        Without who sent it: it goes to other nodes, which tell of it, as of all that they have.
        """
        record = self.templates.get(message.template_id)
        if record is None:
            function = self._function(message.function_id)
            function.ready = function.ready or message.by_name
            record = TemplateRecord(msgspec.structs.replace(message, holder=b""), function)
            self.templates[message.template_id] = record
            function.templates[message.template_id] = None
            self._look_at(function)
        return record

    def _function(self, function_id: bytes) -> FunctionUse:
        function = self._functions.get(function_id)
        if function is None:
            ready = function_id in self._catalog.functions
            function = self._functions[function_id] = FunctionUse(function_id, ready)
        return function

    def use(self, template: TemplateRecord) -> None:
        """Something is made of it, besides tasks, which the table of tasks counts."""
        template.function.uses += 1

    def unuse(self, template: TemplateRecord) -> None:
        """That is no more."""
        template.function.uses -= 1
        self._look_at(template.function)

    def unused(self, template: TemplateRecord) -> None:
        """No task, actor or origin is made of its function any more."""
        self._look_at(template.function)

    def _look_at(self, function: FunctionUse) -> None:
        if not (function.uses or function.holders):
            self._unneeded[function.function_id] = None

    def _hold(self, holder: bytes, function: FunctionUse) -> None:
        if not holder:
            self._look_at(function)
            return
        function.holders[holder] = None
        self._held_by.setdefault(holder, {})[function.function_id] = None
        unconfirmed = self._unconfirmed.get(holder)
        if unconfirmed is not None:
            unconfirmed.pop(function.function_id, None)

    def _release(self, holder: bytes, function_id: bytes) -> None:
        held = self._held_by.get(holder, {})
        held.pop(function_id, None)
        if not held:
            self._held_by.pop(holder, None)
        function = self._functions.get(function_id)
        if function is not None:
            function.holders.pop(holder, None)
            self._look_at(function)

    # ---- processes -------------------------------------------------------------------------

    def session_begins(self, member: Member) -> None:
        """What it needs it tells anew, before it tells all that it holds."""
        workers = member.workers if isinstance(member, NodeMember) else ()
        for process in (member.process_id, *workers):
            if process in self._held_by:
                self._unconfirmed[process] = dict(self._held_by[process])

    def confirmed(self, process: bytes) -> None:
        """It has told all that it holds: what it did not name it does not need."""
        for function_id in self._unconfirmed.pop(process, ()):
            self._release(process, function_id)

    def process_gone(self, process: bytes) -> None:
        """A driver or worker has ended."""
        self._unconfirmed.pop(process, None)
        for function_id in [*self._held_by.get(process, ())]:
            self._release(process, function_id)

    # ---- turn ------------------------------------------------------------------------------

    def recovered(self) -> None:
        """Everybody of before the restart has told what it needs."""
        for function in self._functions.values():
            self._look_at(function)

    def settle(self, _now: float) -> None:
        """Forget what nobody needs."""
        if not self._unneeded or self._recovery.active:
            return
        gone = []
        candidates, self._unneeded = self._unneeded, {}
        for function_id in candidates:
            function = self._functions.get(function_id)
            if function is None or function.uses or function.holders:
                continue
            if self._catalog.is_being_stored(function_id):
                continue  # it is looked at again when that is done
            gone.append(function_id)
            self._drop(function)
        if gone:
            for node in self._members.nodes.values():
                node.known.difference_update(gone)
                self._outbox.send(node.process_id, Forget(0, b"".join(gone)))

    def _drop(self, function: FunctionUse) -> None:
        del self._functions[function.function_id]
        for template_id in function.templates:
            del self.templates[template_id]
            for node in self._members.nodes.values():
                node.known.discard(template_id)
        for inner in self._catalog.forget(function.function_id):
            self._objects.drop(function.function_id, inner)

    def start_soon(self, job_id: bytes) -> bool:
        """Whether tasks of this job only wait for their function to be stored."""
        return any(
            task.job_id == job_id and task.state == WAITING
            for function in self._storing.values()
            for task in function.waiting
        )

    def waits(self, task: TaskRecord) -> None:
        """The task can start once its function is durable."""
        assert task.template is not None
        task.template.function.waiting.append(task)
