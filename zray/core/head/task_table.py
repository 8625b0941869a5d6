"""The GCS's tasks that have no outcome yet, and who has which: by job, submitter and parent.

So that a message about some tasks costs nothing for all the others.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice

from zray.core.head.task_records import TaskRecord, TemplateRecord
from zray.protocol.messages import TaskSpec

Group = dict[bytes, TaskRecord]  # the tasks of one submitter in one job


class TaskTable(dict[bytes, TaskRecord]):
    """By task id. Changed by ``add``, ``adopt`` and ``remove`` alone.

    ``unused`` is told of a template when its function has no task, actor or origin any more.
    """

    def __init__(self, unused: Callable[[TemplateRecord], None]) -> None:
        super().__init__()
        self._unused = unused
        self._by_job: dict[bytes, dict[bytes, Group]] = {}  # job -> submitter -> tasks
        self._by_submitter: dict[bytes, dict[bytes, Group]] = {}  # submitter -> job -> tasks
        self._children: dict[bytes, dict[bytes, None]] = {}
        # The group that lost its last task last is kept: who submits one by one needs it again.
        self._empty: tuple[bytes, bytes] = (b"", b"")

    def add(self, task_id: bytes, record: TaskRecord) -> None:
        """A task has become known."""
        self[task_id] = record
        groups = self._by_job.get(record.job_id)
        group = groups.get(record.submitter) if groups is not None else None
        if group is None:
            group = self._new_group(record)
        group[task_id] = record
        record.group = group
        if record.template is not None:
            record.template.function.uses += 1
        if record.spec is not None and record.spec.parent:
            self._children.setdefault(record.spec.parent, {})[task_id] = None

    def adopt(
        self, task_id: bytes, record: TaskRecord, spec: TaskSpec, template: TemplateRecord
    ) -> None:
        """What a task is has become known, of which a node has told before its submitter did."""
        record.spec = spec
        if record.template is None:
            record.template = template
            template.function.uses += 1
        if spec.parent:
            self._children.setdefault(spec.parent, {})[task_id] = None

    def move(self, task_id: bytes, record: TaskRecord, submitter: bytes) -> None:
        """Another process is the task's submitter."""
        del record.group[task_id]
        if not record.group:
            self._emptied(record)
        record.submitter = submitter
        group = self._by_job.get(record.job_id, {}).get(submitter)
        record.group = self._new_group(record) if group is None else group
        record.group[task_id] = record

    def remove(self, task_id: bytes) -> None:
        """The task has its outcome, or is nobody's any more."""
        record = self.pop(task_id)
        del record.group[task_id]
        if not record.group:
            self._emptied(record)
        if record.spec is not None and record.spec.parent:
            siblings = self._children[record.spec.parent]
            del siblings[task_id]
            if not siblings:
                del self._children[record.spec.parent]
        if record.template is not None:
            function = record.template.function
            function.uses -= 1
            if not (function.uses or function.holders):
                self._unused(record.template)

    def _new_group(self, record: TaskRecord) -> Group:
        group: Group = {}
        self._by_job.setdefault(record.job_id, {})[record.submitter] = group
        self._by_submitter.setdefault(record.submitter, {})[record.job_id] = group
        return group

    def _emptied(self, record: TaskRecord) -> None:
        """The record was the last of its group."""
        key = (record.job_id, record.submitter)
        if key != self._empty:
            self._close(*self._empty)
            self._empty = key

    def _close(self, job_id: bytes, submitter: bytes) -> None:
        if self._by_job.get(job_id, {}).get(submitter, True):
            return  # it has tasks again, or there never was one
        for table, key, other in (
            (self._by_job, job_id, submitter),
            (self._by_submitter, submitter, job_id),
        ):
            del table[key][other]
            if not table[key]:
                del table[key]

    # ---- looks -----------------------------------------------------------------------------

    def of_job(self, job_id: bytes) -> list[tuple[bytes, TaskRecord]]:
        """The tasks of a job."""
        groups = self._by_job.get(job_id, {})
        return [item for group in groups.values() for item in group.items()]

    def of_submitter(self, submitter: bytes) -> list[tuple[bytes, TaskRecord]]:
        """The tasks that a process has submitted, in any job."""
        groups = self._by_submitter.get(submitter, {})
        return [item for group in groups.values() for item in group.items()]

    def some_of_job(self, job_id: bytes, most: int) -> list[TaskRecord]:
        """Tasks of a job, so many at most."""
        groups = self._by_job.get(job_id, {})
        return [*islice(chain.from_iterable(group.values() for group in groups.values()), most)]

    def child(self, parent: bytes) -> bytes:
        """The first task made by this one that has no outcome; empty: there is none."""
        return next(iter(self._children.get(parent, ())), b"")

    def descendants(self, parent: bytes) -> list[bytes]:
        """The tasks made by a task or by such tasks in turn, nearest first."""
        found = [*self._children.get(parent, ())]
        seen = dict.fromkeys((parent, *found))
        for task_id in found:  # grows while it is walked
            for child in self._children.get(task_id, ()):
                if child not in seen:
                    seen[child] = None
                    found.append(child)
        return found
