"""What a new head does until everybody of before the restart is back, or dead.

Outcomes return before those who hold them, tasks before their specs, submitters before the nodes
that run what they submitted: each is kept until the others have told what they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zray.core.head.members import Member, NodeMember
from zray.core.head.task_records import ASSIGNED, WAITING, TaskRecord, TemplateRecord
from zray.errors import NodeDiedError, WorkerCrashedError
from zray.protocol.messages import FINISHED, HeldTask, TaskDone, TaskSpec

if TYPE_CHECKING:
    from zray.core.head.gcs import Gcs

HOLDER = b"recovery"  # holds what came back before those who hold it


class Recovery:
    def __init__(self, gcs: Gcs, *, restarted: bool) -> None:
        self._gcs = gcs
        self.active = restarted or bool(gcs.members.awaited or gcs.members.jobs)
        self._nodes_back = False
        self._parked: list[TaskRecord] = []
        self._inherited: dict[bytes, None] = {}  # tasks that a node told of
        self._past_failures: dict[bytes, int] = {}  # of tasks yet to be resubmitted

    def hold(self, object_id: bytes) -> bool:
        """Keep an object until everybody has told what it holds; False: that is over."""
        if self.active:
            self._gcs.objects.hold(HOLDER, object_id, process=True)
        return self.active

    # ---- tasks -----------------------------------------------------------------------------

    def submitted(self, record: TaskRecord, spec: TaskSpec, sender: Member) -> None:
        """A task came that is not known yet, while ``active``: one of before may run somewhere."""
        record.failures = self._past_failures.get(spec.task_id, 0)
        if not sender.resynced:  # the nodes may all be back, or dead, before it
            self._park(record)

    def _park(self, record: TaskRecord) -> None:
        record.parked = True
        self._parked.append(record)

    def inherit(self, task_id: bytes) -> None:
        """A node has an attempt of the task; another node may have a later one."""
        if self._gcs.members.recovering():
            self._inherited[task_id] = None

    def is_inherited(self, task_id: bytes) -> bool:
        """Whether what is known of its attempts may not be all."""
        return task_id in self._inherited

    def returned(self, task_id: bytes, record: TaskRecord) -> None:
        """An attempt is over and another is due, unless that runs already."""
        if task_id in self._inherited:
            self._park(record)

    def adopted(
        self, record: TaskRecord, spec: TaskSpec, template: TemplateRecord, submitter: bytes
    ) -> None:
        """The spec came of a task that only its node had told of."""
        tasks, unknown = self._gcs.tasks, record.template is None
        tasks.adopt(spec.task_id, record, spec, template)
        tasks.move(spec.task_id, record, submitter)
        if unknown and record.node is not None:
            self._gcs.scheduler.settle_adopted(record)

    def outcome_found(self, done: TaskDone, sender: NodeMember) -> bool:
        """The end of a task that nobody has told of yet; False: it is stale."""
        if not self.active or done.status != FINISHED:
            return False
        for outcome in done.results:
            self.hold(outcome.object_id)
            self._gcs.holdings.found(outcome, sender.process_id)
        return True

    def failed_before(self, held: HeldTask) -> None:
        """A raylet remembers an attempt that failed, which the head of before knew of."""
        record = self._gcs.tasks.get(held.task_id)
        if held.makes_actor:
            return  # restarts of actors are counted in their rows
        if record is None:
            known = self._past_failures.get(held.task_id, 0)
            self._past_failures[held.task_id] = max(known, held.failures)
        else:
            record.failures = max(record.failures, held.failures)
            if record.exhausted() and record.state != ASSIGNED:
                self.give_up(record)

    def give_up(self, record: TaskRecord) -> None:
        """Its retries were used up under the head of before, which did not live to tell."""
        assert record.spec is not None
        failure, record.failure = record.failure, None
        if failure is not None:
            self._gcs.commit(record.spec.task_id, record, failure, ())
            return
        text = "its worker or node died when the head was about to be restarted"
        self._gcs.fail(record.spec.task_id, record, WorkerCrashedError, text)

    # ---- the end ---------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Go on: all nodes are back or dead; then, everybody has told what it holds."""
        gcs = self._gcs
        if not gcs.members.recovering():
            if self._parked:
                parked, self._parked = self._parked, []
                self._inherited.clear()
                for record in parked:
                    self._unpark(record)
            if not self._nodes_back:
                self._nodes_back = True
                gcs.actors.nodes_are_back(now)
        if not gcs.members.resynced():
            return
        self.active = False
        self._inherited.clear()
        self._past_failures.clear()
        gcs.objects.vanish(HOLDER)
        gcs.transfers.retry()
        gcs.holdings.postpone(now)
        gcs.actors.owners_are_back(now)
        gcs.definitions.recovered()
        for task_id, record in [*gcs.tasks.items()]:
            if record.spec is None:  # whoever submitted it is gone
                gcs.cancel(task_id, record, force=False)

    def _unpark(self, record: TaskRecord) -> None:
        gcs = self._gcs
        if not record.parked or record.state != WAITING:
            return
        record.parked = False
        if record.spec is None or record.template is None:
            return  # it waits for them
        record.failures += gcs.members.may_have_run(record.template.needs)
        if record.exhausted():
            text = "a node that may have run the task did not return after the head's restart"
            gcs.fail(record.spec.task_id, record, NodeDiedError, text)
        else:
            gcs.advance(record)
