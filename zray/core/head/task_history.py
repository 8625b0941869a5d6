"""What has become of tasks that are no more, and what runs: the last ones, and how many of all.

Owns the memory for it, which has bounds: of ended tasks the last ones are kept, failed ones apart
from others, so that these never displace them; all are counted by name. What tasks did where the
head does not see it, workers and nodes report.
"""

from __future__ import annotations

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.core.head.history import History
from zray.core.head.task_records import Tally, TaskRecord, TemplateRecord
from zray.ids import split_tasks
from zray.protocol import messages as m

OTHERS = "(others)"  # in place of names beyond those that are counted


class TaskHistory:
    """``dropped``: how many ended attempts were only counted."""

    def __init__(self) -> None:
        self.finished = History(m.ListedTask, limits.FINISHED_TASKS_BYTES)
        self.failed = History(m.ListedTask, limits.FAILED_TASKS_BYTES)
        self.dropped = 0
        self.unsubmitted = 0  # attempts that have ended of what did not pass the head
        self._tallies: dict[tuple[str, str], Tally] = {}  # by name and type
        self._unlisted = Tally()  # of what is not to be told of
        self._running: dict[bytes, list[m.ListedTask]] = {}  # by worker
        self._by_task: dict[bytes, m.ListedTask] = {}

    # ---- what the head sees itself -----------------------------------------------------------

    def tally_of(self, template: TemplateRecord, *, creates: bool = False) -> Tally:
        """Where attempts of a function are counted; it is looked up once."""
        if template.tally is None:
            message = template.message
            if not message.events:
                template.tally = self._unlisted
            elif creates:
                template.tally = self._tally(message.name, m.ACTOR_CREATION_TASK)
            else:
                template.tally = self._tally(message.name, m.NORMAL_TASK)
        return template.tally

    def _tally(self, name: str, kind: str) -> Tally:
        tally = self._tallies.get((name, kind))
        if tally is None:
            if len(self._tallies) >= limits.TASK_NAMES_MAX:
                name = OTHERS
            tally = self._tallies.setdefault((name, kind), Tally())
        return tally

    def attempt_failed(
        self, record: TaskRecord, done: m.TaskDone, node_id: bytes, now_s: float
    ) -> None:
        """An attempt is to be made again, or its worker died, which cannot tell of it any more."""
        if record.template is not None:
            self.tally_of(record.template).failed += 1
            if done.status == m.CRASHED and done.results:
                what = failures.read(done.results[0].value)
                self._note(
                    *(record, done.task_id, what.code, what.message, node_id, now_s - done.seconds),
                    *(now_s, record.failures),
                )

    def failed_here(
        self, task_id: bytes, record: TaskRecord, code: str, text: str, now_s: float
    ) -> None:
        """A task gets an error of the cluster's own."""
        if record.template is not None:
            self.tally_of(record.template).failed += 1
            attempt = record.failures - record.exhausted()
            self._note(record, task_id, code, text, b"", 0.0, now_s, max(0, attempt))

    def _note(
        self,
        record: TaskRecord,
        task_id: bytes,
        code: str,
        text: str,
        node_id: bytes,
        started_s: float,
        ended_s: float,
        attempt: int,
    ) -> None:
        assert record.template is not None
        template = record.template.message
        if template.events:
            self.failed.add(
                m.ListedTask(
                    task_id=task_id,
                    attempt=attempt,
                    name=template.name,
                    state=m.ENDED_BADLY,
                    job_id=record.job_id,
                    parent_task_id=record.spec.parent if record.spec is not None else b"",
                    node_id=node_id,
                    started_s=started_s,
                    ended_s=ended_s,
                    error_type=m.ERROR_TYPES.get(code, ""),
                    error_code=code,
                    error_message=text[: limits.BRIEF_TEXT_MAX],
                    resources=template.resources,
                )
            )

    def failures(self) -> int:
        """How many attempts have failed."""
        return sum(tally.failed for tally in self._tallies.values())

    # ---- what others report ------------------------------------------------------------------

    def report(self, message: m.TaskReport) -> None:
        """Of a node: what has ended there, and what runs."""
        self.dropped += message.dropped
        for row in message.ended:
            (self.finished if row.state == m.ENDED_WELL else self.failed).add(row)
        for told in message.tallies:
            self.unsubmitted += told.more
            tally = self._tally(told.name, told.type)
            # Below 0 for a moment: one that has failed is taken from all that have ended, which a
            # node may count later.
            if told.state == m.ENDED_WELL:
                tally.finished += told.more
            else:
                tally.failed += told.more
        for worker_id in split_tasks(message.heard):
            self._forget_running(worker_id)
        for row in message.running:
            if len(self._by_task) < limits.RUNNING_TOLD_MAX:
                self._running.setdefault(row.worker_id, []).append(row)
                self._by_task[row.task_id] = row

    def _forget_running(self, worker_id: bytes) -> list[m.ListedTask]:
        rows = self._running.pop(worker_id, [])
        for row in rows:
            if self._by_task.get(row.task_id) is row:
                del self._by_task[row.task_id]
        return rows

    def worker_ended(self, worker_id: bytes, text: str, now_s: float) -> None:
        """What ran there has ended with it."""
        for row in self._forget_running(worker_id):
            dies_with_it = row.type == m.ACTOR_TASK
            code = "ZR-3402" if dies_with_it else "ZR-3003"
            self.failed.add(
                replace(
                    row,
                    state=m.ENDED_BADLY,
                    ended_s=now_s,
                    error_type=m.ERROR_TYPES[code],
                    error_code=code,
                    error_message=text[: limits.BRIEF_TEXT_MAX],
                )
            )
            if dies_with_it:  # the others are counted where they were begun
                self._tally(row.name, row.type).failed += 1

    # ---- looks -------------------------------------------------------------------------------

    def running(self) -> list[bytes]:
        """The tasks that have been running for a while, as was told last."""
        return [*self._by_task]

    def runs(self, task_id: bytes) -> m.ListedTask | None:
        """What was told of a task that runs."""
        return self._by_task.get(task_id)

    def tallies(self) -> list[tuple[str, str, int, int]]:
        """How many attempts have ended well and badly, by name and type."""
        return [
            (name, kind, max(0, tally.finished), max(0, tally.failed))
            for (name, kind), tally in self._tallies.items()
        ]
