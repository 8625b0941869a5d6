"""What a new head does until everybody of before the restart is back, or dead.

Outcomes return before those who hold them, tasks before their specs, submitters before the nodes
that run what they submitted: each is kept until the others have told what they have.
"""

from __future__ import annotations

from zray.core.head.members import Member, Members
from zray.core.head.object_table import ObjectTable
from zray.core.head.task_records import TaskRecord
from zray.core.resources import Needs
from zray.protocol.messages import HeldTask, TaskSpec

HOLDER = b"recovery"  # holds what came back before those who hold it


class Recovery:
    """``restarted``: there was a head before that left something."""

    def __init__(self, objects: ObjectTable, members: Members, *, restarted: bool) -> None:
        self._objects = objects
        self._members = members
        self.active = restarted or bool(members.awaited or members.jobs)
        self._nodes_back = False
        self._parked: list[TaskRecord] = []
        self._newly_parked: list[TaskRecord] = []  # since ``take_free``
        self._inherited: dict[bytes, None] = {}  # tasks that a node told of
        self._past_failures: dict[bytes, int] = {}  # of tasks yet to be resubmitted
        self._looked = 0  # so many nodes were not back when ``take_free`` was asked last
        self._may_be_held: dict[Needs, bool] = {}  # what one of those may have

    def in_words(self, epoch: int) -> str:
        """What a head that was started again waits for."""
        missing = len(self._members.awaited)
        return f"RECOVERING epoch {epoch}: {missing} nodes and their tasks not back yet"

    def hold(self, object_id: bytes) -> bool:
        """Keep an object until everybody has told what it holds; False: that is over."""
        if self.active:
            self._objects.hold(HOLDER, object_id, process=True)
        return self.active

    # ---- tasks -----------------------------------------------------------------------------

    def submitted(self, record: TaskRecord, spec: TaskSpec, sender: Member) -> None:
        """A task came that is not known yet, while ``active``: one of before may run somewhere."""
        record.failures = max(spec.failures, self._past_failures.get(spec.task_id, 0))
        if not sender.resynced:  # the nodes may all be back, or dead, before it
            self._park(record)

    def _park(self, record: TaskRecord) -> None:
        record.parked = True
        self._newly_parked.append(record)

    def inherit(self, task_id: bytes) -> None:
        """A node has an attempt of the task; another node may have a later one."""
        if self._members.recovering():
            self._inherited[task_id] = None

    def is_inherited(self, task_id: bytes) -> bool:
        """Whether what is known of its attempts may not be all."""
        return task_id in self._inherited

    def returned(self, task_id: bytes, record: TaskRecord) -> None:
        """An attempt is over and another is due, unless that runs already."""
        if task_id in self._inherited:
            self._park(record)

    def failed_before(self, held: HeldTask) -> None:
        """An attempt has failed of a task that is yet to be resubmitted."""
        known = self._past_failures.get(held.task_id, 0)
        self._past_failures[held.task_id] = max(known, held.failures)

    # ---- the end -----------------------------------------------------------------------------

    def take_free(self) -> list[TaskRecord]:
        """Tasks that no node can have that is not back yet: by their resources."""
        parked, self._newly_parked = self._newly_parked, []
        awaited = len(self._members.awaited)
        if awaited != self._looked:  # they only become fewer
            self._looked = awaited
            self._may_be_held.clear()
            parked += self._parked
            self._parked = []
        free = []
        for record in parked:
            if self._is_held_elsewhere(record):
                self._parked.append(record)
            else:
                assert record.spec is not None
                self._inherited.pop(record.spec.task_id, None)
                free.append(record)
        return free

    def _is_held_elsewhere(self, record: TaskRecord) -> bool:
        """Whether a node that is not back yet may have it, for all that is known."""
        if record.spec is None or record.template is None:
            return True
        needs = record.template.needs
        found = self._may_be_held.get(needs)
        if found is None:
            found = self._may_be_held[needs] = self._members.may_be_held(needs)
        return found

    def take_parked(self) -> list[TaskRecord]:
        """All nodes are back or dead: tasks that one of those might have had can go on."""
        parked = self._parked + self._newly_parked
        self._parked, self._newly_parked = [], []
        if parked:
            self._inherited.clear()
        return parked

    def nodes_are_back(self) -> bool:
        """The same, once: whether it is new."""
        back, self._nodes_back = self._nodes_back, True
        return not back

    def end(self) -> None:
        """Everybody has told what it holds."""
        self.active = False
        self._inherited.clear()
        self._past_failures.clear()
        self._objects.vanish(HOLDER)
