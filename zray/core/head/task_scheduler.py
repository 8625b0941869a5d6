"""The cluster's TaskScheduler: which raylet gets which ready task, and who gives some back.

One queue per scheduling class and job, so that picking costs O(classes), never O(tasks). The head
keeps an estimate per raylet (its resources minus what was assigned since); the raylet decides.
"""

from __future__ import annotations

from itertools import pairwise

from zray import limits
from zray.core import resources
from zray.core.depth_queue import DepthQueue
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import ASSIGNED, READY, NodeView, TaskRecord
from zray.core.machine import NEVER
from zray.core.resources import CPU, Needs

WAIT_RESOURCES = "WAIT_RESOURCES"


class TaskScheduler:
    """Which nodes there are, what they have free, and which tasks are ready."""

    def __init__(self) -> None:
        self.classes: dict[Needs, SchedulingClass] = {}
        self.local: dict[tuple[Needs, bytes], SchedulingClass] = {}  # those near a node
        self.nodes: dict[bytes, NodeView] = {}
        self._turn = 0

    # ---- tasks -----------------------------------------------------------------------------

    def push(self, record: TaskRecord, *, front: bool = False) -> None:
        """A task has become ready (again)."""
        assert record.template is not None
        record.state = READY
        record.node = None
        group = self._group(record)
        queue = group.queues.get(record.job_id)
        if queue is None:
            queue = group.queues[record.job_id] = DepthQueue()
        if front:
            queue.push_front(record, record.depth)
        else:
            queue.push(record, record.depth)
        group.ready += 1

    def _group(self, record: TaskRecord) -> SchedulingClass:
        assert record.template is not None
        wanted = record.template.needs
        if not record.near:
            return self._class(wanted)
        group = self.local.get((wanted, record.near))
        if group is None:
            group = self.local[wanted, record.near] = SchedulingClass(wanted, record.near)
        return group

    def _class(self, wanted: Needs) -> SchedulingClass:
        group = self.classes.get(wanted)
        if group is None:
            group = self.classes[wanted] = SchedulingClass(wanted)
        return group

    def group_of(self, record: TaskRecord) -> SchedulingClass:
        """The class in which a ready task waits."""
        return self._group(record)

    def groups(self) -> list[SchedulingClass]:
        """All classes."""
        return [*self.classes.values(), *self.local.values()]

    def withdraw(self, record: TaskRecord, state: int) -> None:
        """A ready task will not run; its place in the queue is skipped later."""
        assert record.state == READY and record.template is not None
        record.state = state
        group = self._group(record)
        group.withdrawn()

    def adopt(self, node: NodeView, task_id: bytes, record: TaskRecord) -> None:
        """A raylet said that it holds the task."""
        record.state = ASSIGNED
        record.node = node
        node.assigned[task_id] = record
        if record.template is not None:
            resources.take(node.free, record.template.needs)

    def settle_adopted(self, record: TaskRecord) -> None:
        """The template of an adopted task has become known."""
        assert record.template is not None and record.node is not None
        resources.take(record.node.free, record.template.needs)

    def release(self, task_id: bytes, record: TaskRecord) -> None:
        """The task left its node: ended, returned, or gone with it."""
        node = record.node
        assert node is not None
        node.assigned.pop(task_id, None)
        record.node = None
        if record.template is None:
            return
        wanted = record.template.needs
        if node.ahead.get(wanted, 0) > 0:
            node.ahead[wanted] -= 1  # the next one sent ahead takes over the slot
            self.classes[wanted].ahead -= 1
        else:
            resources.give(node.free, wanted)

    def _assign(self, node: NodeView, records: list[TaskRecord]) -> None:
        node.sent += len(records)
        assigned = node.assigned
        for record in records:
            assert record.spec is not None
            record.state = ASSIGNED
            record.node = node
            record.attempt += 1
            assigned[record.spec.task_id] = record

    # ---- nodes -----------------------------------------------------------------------------

    def add_node(self, node: NodeView) -> None:
        """Its tasks can go there once it has announced all."""
        self.nodes[node.node_id] = node
        for group in self.classes.values():
            group.infeasible_since = None
            group.warned = False

    def remove_node(self, node: NodeView) -> dict[bytes, TaskRecord]:
        """Forget a dead incarnation; returns what it held."""
        self.nodes.pop(node.node_id, None)
        for wanted, count in node.ahead.items():
            self.classes[wanted].ahead -= count
        node.ahead.clear()
        held, node.assigned = node.assigned, {}
        return held

    # ---- placement -------------------------------------------------------------------------

    def schedule(self, now: float) -> list[tuple[NodeView, list[TaskRecord]]]:
        """Assign what can be assigned now; each pair is for one TASKS message."""
        for node in self.nodes.values():
            if node.ahead:
                self._started_there(node)
        if self.local:
            self._tire(now)
        if not (self.local or any(group.ready for group in self.classes.values())):
            return []
        usable = [node for node in self.nodes.values() if node.usable and node.credit() > 0]
        if not usable:
            return []
        self._turn += 1
        shift = self._turn % len(usable)
        usable = usable[shift:] + usable[:shift]
        plan: list[tuple[NodeView, list[TaskRecord]]] = []
        if self.local:
            self._start_near(plan, now)
        for group in self.classes.values():
            if group.ready:
                self._start_now(group, usable, plan)
            if group.ready and group.cpu_only:
                self._send_ahead(group, usable, plan)
        return plan

    def _started_there(self, node: NodeView) -> None:
        """Tasks sent ahead take what others of that node have given back, as they do there."""
        for wanted, ahead in node.ahead.items():
            count = min(ahead, resources.slots(node.free, wanted)) if ahead else 0
            if count:
                node.ahead[wanted] = ahead - count
                self.classes[wanted].ahead -= count
                resources.take(node.free, wanted, count)

    def _tire(self, now: float) -> None:
        """Tasks that have waited long for the node that has their arguments go to any."""
        for key, group in [*self.local.items()]:
            if group.since is None:
                group.since = now
            if group.near not in self.nodes or now - group.since >= limits.LOCALITY_WAIT_S:
                del self.local[key]
                for record in group.pop(group.ready):
                    record.near = b""
                    self.push(record)

    def _start_near(self, plan: list[tuple[NodeView, list[TaskRecord]]], now: float) -> None:
        """Tasks start on the node that has their large arguments."""
        for key, group in [*self.local.items()]:
            before = group.ready
            near = [self.nodes[group.near]]
            self._start_now(group, near, plan)
            if group.ready and group.cpu_only and near[0].usable and group.is_brief():
                self._send_ahead(group, near, plan)
            if not group.ready:
                del self.local[key]
            elif group.ready < before:
                group.since = now  # the node is getting on with them

    def _start_now(
        self,
        group: SchedulingClass,
        usable: list[NodeView],
        plan: list[tuple[NodeView, list[TaskRecord]]],
    ) -> None:
        rooms = []
        for node in usable:
            if not node.usable:
                continue
            room = min(resources.slots(node.free, group.needs), node.credit())
            if room <= 0:
                continue
            floor = node.floor_for(group.takes_cpu)
            if floor >= 0:
                self._start(group, node, group.pop(min(room, group.ready), floor), plan)
            elif not node.ahead.get(group.needs):
                rooms.append((room, node))
        if len(rooms) == 1:
            ((room, node),) = rooms
            self._start(group, node, group.pop(min(room, group.ready)), plan)
        elif rooms:
            for node, share in _spread(rooms, group.ready):
                self._start(group, node, group.pop(share), plan)

    def _start(
        self,
        group: SchedulingClass,
        node: NodeView,
        records: list[TaskRecord],
        plan: list[tuple[NodeView, list[TaskRecord]]],
    ) -> None:
        if records:
            resources.take(node.free, group.needs, len(records))
            self._assign(node, records)
            plan.append((node, records))

    def _send_ahead(
        self,
        group: SchedulingClass,
        usable: list[NodeView],
        plan: list[tuple[NodeView, list[TaskRecord]]],
    ) -> None:
        for node in usable:
            lanes = min(resources.slots(node.total, group.needs), 64)
            if not lanes or not group.ready or node.floor_for(group.takes_cpu) >= 0:
                continue
            template = group.first().template
            assert template is not None
            if template.seconds is None:
                wanted = limits.PREFETCH_UNKNOWN_TASKS
            else:
                wanted = int(limits.PREFETCH_S * lanes / max(template.seconds, 1e-6))
                if template.seconds < limits.PREFETCH_ONE_S:
                    wanted = max(wanted, lanes)  # else each lane idles for a round trip
            fair = group.ready // (2 * len(usable))
            room = min(wanted, limits.PREFETCH_TASKS_MAX, fair) - node.ahead.get(group.needs, 0)
            room = min(room, node.credit())
            if room > 0:
                records = group.pop(room)
                self._assign(node, records)
                node.ahead[group.needs] = node.ahead.get(group.needs, 0) + len(records)
                self._class(group.needs).ahead += len(records)
                plan.append((node, records))

    # ---- stealing --------------------------------------------------------------------------

    def reclaims(self, now: float) -> list[tuple[NodeView, SchedulingClass, int]]:
        """From whom to take tasks back, because another raylet could start them now."""
        found = []
        for group in self.classes.values():
            if group.ahead and not group.ready:
                victim = self._victim(group)
                if victim is not None and now >= self._steal_time(group, victim):
                    victim.reclaiming = True
                    found.append((victim, group, max(1, victim.ahead[group.needs] // 2)))
        return found

    def steal_deadline(self) -> float:
        """When ``reclaims``, or tasks that wait for a node, may find what they do not find now."""
        waiting = [group.since for group in self.local.values() if group.since is not None]
        when = min(waiting) + limits.LOCALITY_WAIT_S if waiting else NEVER
        for group in self.classes.values():
            if group.ahead and not group.ready:
                victim = self._victim(group)
                if victim is not None:
                    when = min(when, self._steal_time(group, victim))
        return when

    def returned(self, node: NodeView, count: int, now: float) -> None:
        """A node has answered a RECLAIM with so many tasks; if with none, it is left alone for a
        while."""
        node.reclaiming = False
        if not count:
            node.reclaim_after = now + limits.STEAL_PAUSE_S

    def _victim(self, group: SchedulingClass) -> NodeView | None:
        idle = False
        fullest: NodeView | None = None
        most = 0
        for node in self.nodes.values():
            if not node.usable:
                continue
            ahead = node.ahead.get(group.needs, 0)
            if ahead > most and not node.reclaiming:
                fullest, most = node, ahead
            elif not ahead and resources.fits(node.free, group.needs) and node.credit() > 0:
                idle = idle or node.floor_for(group.takes_cpu) < 0
        return fullest if idle else None

    def _steal_time(self, group: SchedulingClass, victim: NodeView) -> float:
        """A raylet that still finishes tasks will soon be through with what it has."""
        return max(victim.reclaim_after, victim.last_done + limits.STEAL_IDLE_S)

    # ---- reasons ---------------------------------------------------------------------------

    def infeasible(self, group: SchedulingClass) -> bool:
        """Whether there are nodes, and none ever has what these tasks need."""
        return bool(self.nodes) and not any(
            resources.fits(node.total, group.needs) for node in self.nodes.values()
        )

    def reason(self, group: SchedulingClass) -> str:
        """Why the ready tasks of a class are not running, and what would help."""
        wanted = resources.in_words(group.needs)
        if group.near in self.nodes:
            return f"WAIT_LOCALITY: needs {wanted} on the node that has its large arguments"
        workers = [node for node in self.nodes.values() if node.total.get(CPU)]
        if not workers and (not self.nodes or dict(group.needs).get(CPU)):
            return "NO_NODES: no worker node has joined; start one with zray-worker"
        if self.infeasible(group):
            nearest = min(
                self.nodes.values(),
                key=lambda node: len(resources.missing(node.total, group.needs)),
            )
            lacking = resources.missing(nearest.total, group.needs)
            has = resources.in_words((name, nearest.total.get(name, 0)) for name, _ in lacking)
            counts = resources.countable(lacking)
            advice = "add a node that has it, or ask for less" if counts else "see --import"
            return (
                f"INFEASIBLE: needs {wanted}; no node ever has {resources.in_words(lacking)} "
                f"(the nearest has {has}); {advice}"
            )
        if not any(node.usable for node in self.nodes.values()):
            return "NO_NODES: no node has been heard of for some seconds; see zray status"
        able = [n for n in self.nodes.values() if resources.fits(n.total, group.needs)]
        if any(node.usable and node.floor_for(group.takes_cpu) >= 0 for node in able):
            return (
                f"WAIT_WORKERS: needs {wanted}; a node that has it has as many workers as it may "
                "(zray-worker --max-workers), and what is free there is for tasks that others "
                "wait for"
            )
        return f"{WAIT_RESOURCES}: needs {wanted}; all of it is in use on every node that has it"

    def warnings(self, now: float) -> list[tuple[SchedulingClass, str]]:
        """Classes that have been infeasible for long enough to tell their users, once each."""
        due = []
        for group in self.classes.values():
            if not group.ready or not self.infeasible(group):
                group.infeasible_since = None
            elif group.infeasible_since is None:
                group.infeasible_since = now
            elif not group.warned and now - group.infeasible_since >= limits.INFEASIBLE_WARNING_S:
                group.warned = True
                due.append((group, self.reason(group)))
        return due


def _spread(rooms: list[tuple[int, NodeView]], ready: int) -> list[tuple[NodeView, int]]:
    """Shares of ``ready`` tasks: everything that fits, else evenly, the emptiest nodes first."""
    if sum(room for room, _ in rooms) <= ready:
        return [(node, room) for room, node in rooms]
    rooms = sorted(rooms, key=lambda pair: -pair[0])
    assert all(a[0] >= b[0] for a, b in pairwise(rooms))
    shares = [0] * len(rooms)
    while ready:
        for place, (room, _) in enumerate(rooms):
            if ready and shares[place] < room:
                shares[place] += 1
                ready -= 1
    return [(node, share) for (_, node), share in zip(rooms, shares, strict=True) if share]
