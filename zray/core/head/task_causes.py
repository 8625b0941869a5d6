"""Why tasks that the head knows have no outcome yet: the stored reason, and what is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.causes import WAIT_DEPS, Link, cause
from zray.core.head.control_store import ControlStore
from zray.core.head.members import Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectTable
from zray.core.head.recovery import Recovery
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.shortages import Shortages
from zray.core.head.task_records import ASSIGNED, TaskRecord
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.head.task_table import TaskTable
from zray.core.head.wait_reasons import WAIT_PLACEMENT_GROUP, WAIT_RESOURCES
from zray.ids import origin_of, task_of
from zray.protocol import messages as m

DEPENDENCIES_LOOKED_MAX = 1000  # of one task
ADVICE = {
    WAIT_RESOURCES: "it starts once that is free; more nodes (zray-worker) or smaller requests "
    "start it sooner",
    "WAIT_LOCALITY": f"it goes to any node after {limits.LOCALITY_WAIT_S:g} s",
    "WAIT_WORKERS": "raise --max-workers there, or let fewer tasks wait for others",
}


class TaskCauses:
    """``epoch``: of the head. Tasks of actors' constructors are told of as those of actors."""

    def __init__(
        self,
        *,
        epoch: int,
        store: ControlStore,
        members: Members,
        tasks: TaskTable,
        objects: ObjectTable,
        scheduler: TaskScheduler,
        recovery: Recovery,
        shortages: Shortages,
    ) -> None:
        self._epoch = epoch
        self._store = store
        self._members = members
        self._tasks = tasks
        self._objects = objects
        self._scheduler = scheduler
        self._recovery = recovery
        self._shortages = shortages

    def of(self, task_id: bytes, task: TaskRecord, now: float) -> Link:
        """Why it has no outcome yet, and what that depends on."""
        name = _name(task)
        since_s = max(0.0, now - task.since) if task.since >= 0 else -1.0

        def link(
            code: str,
            text: str,
            details: list[tuple[str, str]] | None = None,
            more: int = 0,
            advice: str = "",
            then: bytes = b"",
            asks: tuple[bytes, ...] = (),
        ) -> Link:
            found = cause(
                *("task", task_id, name, code, text),
                since_s=since_s,
                details=details or (),
                more=more,
                advice=advice,
            )
            return Link(found, then, asks)

        if task.state == ASSIGNED and task.node is not None:
            node_id = task.node.node_id
            node = self._members.nodes.get(node_id)
            text = self._where(name, node, node_id, task.attempt)
            heard = node is not None and node.connected and now - node.heard < limits.SILENT_S
            if heard:
                return link("LEASED", text, asks=(node_id,))
            return link("LEASED", text, then=node_id)
        if task.parked or task.spec is None:
            text = f"{name}; {self._recovery.in_words(self._epoch)}"
            advice = f"nodes that do not return are given up after {limits.DEAD_S:g} s"
            return link("HEAD_RECOVERING", text, advice=advice)
        if task.waiting:
            missing = [*self._missing(task)]
            text = f"{name} waits for {task.waiting} of its arguments{self._first(task)}"
            details = [(self._named(oid), self._state(oid)) for oid in missing]
            more = max(0, task.waiting - len(details))
            if len(details) < 2:
                details = []
            return link(WAIT_DEPS, text, details, more, then=self._main(missing))
        if task.template is not None and not task.template.function.ready:
            trouble = f"; the control store: {self._store.trouble}" if self._store.trouble else ""
            advice = "see the head's log, and the disk of its data directory" if trouble else ""
            text = f"the function of {name} is being stored{trouble}"
            return link("WAIT_FUNCTION", text, advice=advice)
        if task.template is not None:
            group = self._scheduler.group_of(task)
            found = self.of_class(group, task.job_id, now)
            text = f"{found.text} (task {name}, {group.ready} waiting like it)"
            told = [(one.name, one.text) for one in found.details]
            if found.code == WAIT_PLACEMENT_GROUP:
                return link(found.code, text, then=group.group)
            return link(found.code, text, told, found.more, found.advice)
        return link("UNKNOWN", name)

    def of_class(self, group: SchedulingClass, job_id: bytes, now: float) -> m.Cause:
        """What is missing for tasks that need the same."""
        code, text, advice = self._scheduler.why(group)
        bare = code == WAIT_PLACEMENT_GROUP or not self._members.nodes
        told, more = ([], 0) if bare else self._shortages.of(group, now)
        others = self._others(group, job_id)
        never = code in ("INFEASIBLE", "NO_NODES")
        if others and not never:
            told.append(("behind", others))
        return cause(
            *("class", b"", resources.in_words(group.needs), code, text),
            details=told,
            more=more,
            advice=advice or ADVICE.get(code, ""),
        )

    def further(self, oid: bytes) -> bytes:
        """What a task waits for that waits for arguments, if that waits for arguments, too."""
        missing = self._argument(oid)
        return missing if missing and self._argument(missing) else b""

    def _argument(self, oid: bytes) -> bytes:
        """The argument with which the chain goes on behind a task that waits for some."""
        task = self._tasks.get(origin_of(oid))
        if task is None or task.state == ASSIGNED or task.parked or not task.spec:
            return b""
        return self._main([*self._missing(task)]) if task.waiting else b""

    # ---- parts -----------------------------------------------------------------------------

    @staticmethod
    def _where(name: str, node: NodeMember | None, node_id: bytes, attempt: int) -> str:
        where = node.info.name if node is not None else node_id.hex()
        state = node.state() if node is not None else "gone"
        trouble = f"; in trouble: {node.trouble}" if node is not None and node.trouble else ""
        return f"{name} is with node {where} ({state}), attempt {attempt}{trouble}"

    def _missing(self, task: TaskRecord) -> Iterator[bytes]:
        """Arguments that are not there yet, some of them."""
        assert task.spec is not None
        looked_at = islice(task.spec.dependencies, DEPENDENCIES_LOOKED_MAX)
        found = (oid for oid in dict.fromkeys(looked_at) if self._is_pending(oid))
        return islice(found, limits.WHY_DETAILS_MAX)

    def _is_pending(self, oid: bytes) -> bool:
        known = self._objects.get(oid)
        return known is None or known.kind == PENDING

    def _main(self, missing: list[bytes]) -> bytes:
        """The argument with which the chain goes on: one that waits itself, if there is one."""
        waits = (oid for oid in missing if self._state(oid) == "waits itself")
        return next(waits, missing[0] if missing else b"")

    def _first(self, task: TaskRecord) -> str:
        assert task.spec is not None
        for oid in islice(task.spec.dependencies, DEPENDENCIES_LOOKED_MAX):
            inner = self._tasks.get(task_of(oid))
            if inner is not None and inner is not task:
                return f"; the first is the result of {_name(inner)}, which {self._state(oid)}"
        return ""

    def _named(self, oid: bytes) -> str:
        inner = self._tasks.get(task_of(oid))
        return f"result of {_name(inner)}" if inner is not None else f"object {oid.hex()}"

    def _state(self, oid: bytes) -> str:
        inner = self._tasks.get(task_of(oid))
        if inner is None:
            return "is not the head's to know"
        return "waits itself" if inner.state != ASSIGNED else "runs"

    def _others(self, group: SchedulingClass, job_id: bytes) -> str:
        """Whose other tasks wait for the same, with which this job has turns."""
        queues = islice(group.queues.items(), limits.WHY_NODES_MAX)
        counts = {other: len(queue) for other, queue in queues if other != job_id and queue}
        if not counts:
            return ""
        first = next(iter(counts))
        more = f" and {_others(len(counts) - 1)}" if len(counts) > 1 else ""
        waiting = f"{sum(counts.values()):,} tasks of {self._shortages.job_in_words(first)}{more}"
        return f"{waiting} wait for the same; jobs have it in turn"


def _others(count: int) -> str:
    return f"{count} other jobs" if count > 1 else "another job"


def _name(task: TaskRecord) -> str:
    return task.template.message.name if task.template is not None else "a task"
