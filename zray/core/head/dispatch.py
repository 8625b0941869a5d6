"""Ready tasks on their way to nodes, with all that a node has to know first; and back."""

from __future__ import annotations

from collections.abc import Callable

from zray.core import resources
from zray.core.head.actor_table import ActorTable
from zray.core.head.catalog import Catalog
from zray.core.head.members import Members, NodeMember
from zray.core.head.object_table import ObjectTable
from zray.core.head.task_records import NodeView, TaskRecord, TemplateRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.machine import Outbox
from zray.errors import MessageTooLargeError, ZrayError
from zray.protocol.messages import Assignment, Export, Job, Outcome, Reclaim, Tasks


class Dispatch:
    """``assignment``: of a task that makes an actor. ``fail``: a task cannot be sent, being what it
    is. ``fault``: the head could not."""

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        actors: ActorTable,
        catalog: Catalog,
        scheduler: TaskScheduler,
        assignment: Callable[[bytes, TaskRecord], Assignment],
        fail: Callable[[bytes, TaskRecord, type[ZrayError], str], None],
        fault: Callable[[bytes, str, Exception, float], None],
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._actors = actors
        self._catalog = catalog
        self._scheduler = scheduler
        self._assignment = assignment
        self._fail = fail
        self._fault = fault

    def assign(self, now: float) -> None:
        """Send what the scheduler has placed by now."""
        for view, records in self._scheduler.schedule(now):
            try:
                self._dispatch(view, records)
            except Exception as error:
                for record in records:
                    assert record.spec is not None
                    self._fault(record.spec.task_id, "sending a task to its node", error, now)

    def too_large(self, message: Tasks, text: str) -> None:
        """The message could not be sent to its node: its tasks fail."""
        for assignment in message.tasks:
            task_id = assignment.spec.task_id
            record = self._tasks.get(task_id)
            if record is not None and record.node is not None:
                record.node.sent -= 1
                self._scheduler.release(task_id, record)
                self._fail(task_id, record, MessageTooLargeError, text)

    def reclaim(self, now: float) -> None:
        """Ask nodes for tasks that others could start sooner."""
        for view, group, count in self._scheduler.reclaims(now):
            wanted = list(resources.at_node(group.needs))
            self._outbox.send(view.node_id, Reclaim(0, wanted, count))

    def _dispatch(self, view: NodeView, records: list[TaskRecord]) -> None:
        node = self._members.nodes[view.node_id]
        assignments = []
        values: dict[bytes, Outcome] = {}
        for record in records:
            spec, template = record.spec, record.template
            assert spec is not None and template is not None
            if spec.template_id not in node.known:
                self._introduce(node, template)
            if record.job_id not in node.known:
                self.tell_job(node, record.job_id)
            for oid in spec.dependencies:
                known = self._objects.get(oid)
                assert known is not None
                if view.node_id not in known.locations and oid not in values:
                    value = self._objects.value(oid)
                    if value is not None:
                        values[oid] = Outcome(oid, known.kind, known.size, value)
            if spec.task_id not in self._actors:
                ids = (record.attempt, record.job_id, spec)
                assignment = Assignment(*ids, record.failures, None, record.depth)
            else:
                assignment = self._assignment(spec.task_id, record)
            assignments.append(assignment)
        self._outbox.send(view.node_id, Tasks(0, assignments, list(values.values())))

    def tell_job(self, node: NodeMember, job_id: bytes) -> None:
        """The node hears of the job, once in a session."""
        if job_id not in node.known:
            node.known.add(job_id)
            self._outbox.send(node.process_id, Job(0, job_id, self._members.jobs[job_id].info))

    def _introduce(self, node: NodeMember, template: TemplateRecord) -> None:
        message = template.message
        node.known.add(message.template_id)
        if not message.by_name and message.function_id not in node.known:
            node.known.add(message.function_id)
            row = self._catalog.functions[message.function_id]
            self._outbox.send(node.process_id, Export(0, message.function_id, row.name, row.blob))
        self._outbox.send(node.process_id, message)
