"""Scheduling classes of tasks that run in placement groups, and where the bundles of these are.

Each group has its own, which go with it; so nobody looks through those of all groups.
"""

from __future__ import annotations

from collections import OrderedDict

from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import READY, WAITING, NodeView, TaskRecord
from zray.core.resources import Needs


class GroupClasses:
    """``homes``: of each group, the nodes with bundles in which tasks can run."""

    def __init__(self) -> None:
        self.homes: dict[bytes, dict[NodeView, None]] = {}
        self._classes: dict[bytes, dict[Needs, SchedulingClass]] = {}
        self._ready: dict[Needs, SchedulingClass] = {}

    def get(self, group_id: bytes, wanted: Needs) -> SchedulingClass | None:
        """The class of tasks that need this; None: there were none yet."""
        return self._classes.get(group_id, {}).get(wanted)

    def add(self, group_id: bytes, wanted: Needs) -> SchedulingClass:
        """There are such tasks."""
        found = self._classes.setdefault(group_id, {})[wanted] = SchedulingClass(wanted)
        return found

    def pushed(self, group: SchedulingClass) -> None:
        """A task of the class is ready."""
        self._ready[group.needs] = group

    def ready(self) -> list[SchedulingClass]:
        """Those that have ready tasks."""
        for needs, group in [*self._ready.items()]:
            if not group.ready:
                del self._ready[needs]
        return [*self._ready.values()]

    def places(self, group: SchedulingClass) -> OrderedDict[NodeView, None]:
        """Where tasks of the class may run."""
        return OrderedDict.fromkeys(self.homes.get(group.group, ()))

    def at_home(self, group_id: bytes, view: NodeView) -> None:
        """The node has a bundle of the group that can be used."""
        self.homes.setdefault(group_id, {})[view] = None

    def gone(self, group_id: bytes, view: NodeView) -> None:
        """The node has none any more."""
        self.homes.get(group_id, {}).pop(view, None)

    def forget(self, group_id: bytes) -> list[TaskRecord]:
        """A group is no more; returns the tasks that were ready to run in it, as not ready."""
        left: list[TaskRecord] = []
        for group in self._classes.pop(group_id, {}).values():
            queued = [record for queue in group.queues.values() for record in queue]
            left += [record for record in queued if record.state == READY]
            self._ready.pop(group.needs, None)
        self.homes.pop(group_id, None)
        for record in left:
            record.state = WAITING
        return left
