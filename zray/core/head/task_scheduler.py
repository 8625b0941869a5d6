"""The cluster's TaskScheduler: which raylet gets which ready task, and who gives some back.

One queue per scheduling class and job, so that picking costs O(classes), never O(tasks). The head
keeps an estimate per raylet (its resources minus what was assigned since); the raylet decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain, islice, pairwise

from zray import limits
from zray.core import resources
from zray.core.depth_queue import DepthQueue
from zray.core.head import wait_reasons
from zray.core.head.label_terms import LabelTerms
from zray.core.head.openings import NodeChanges
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import ASSIGNED, READY, NodeView, TaskRecord
from zray.core.head.wait_reasons import WaitReason
from zray.core.machine import NEVER
from zray.core.resources import CPU, Needs
from zray.protocol.histogram import Histogram
from zray.protocol.messages import NearClass

Places = OrderedDict[NodeView, None]
Plan = list[tuple[NodeView, list[TaskRecord]]]


class TaskScheduler:
    """Which nodes there are, what they have free, and which tasks are ready."""

    def __init__(self) -> None:
        self.classes: dict[Needs, SchedulingClass] = {}
        self.local: dict[tuple[Needs, bytes], SchedulingClass] = {}  # those near a node
        self.nodes: dict[bytes, NodeView] = {}
        self.changes = NodeChanges()
        self._labels = LabelTerms()
        self.ranked: dict[bytes, None] = {}  # jobs whose tasks have priorities: none goes ahead
        self._overtaken: dict[NodeView, None] = {}  # where such tasks are ahead all the same
        self.now = 0.0  # of the last turn
        self.waits = Histogram(limits.TASK_BUCKETS_S)  # of tasks, until they were given to a node
        self.stranded: list[NodeView] = []  # where nothing starts: what is ahead there comes back

    # ---- tasks -----------------------------------------------------------------------------

    def push(self, record: TaskRecord, *, front: bool = False) -> None:
        """A task has become ready (again)."""
        assert record.template is not None
        record.state = READY
        record.node = None
        priority = record.template.priority
        if priority and record.job_id not in self.ranked:
            self._rank(record.job_id)
        group = self._group(record)
        queue = group.queues.get(record.job_id)
        if queue is None:
            queue = group.queues[record.job_id] = DepthQueue()
        if front:
            queue.push_front(record, record.depth, priority)
        else:
            queue.push(record, record.depth, priority)
        group.ready += 1

    def _rank(self, job_id: bytes) -> None:
        """From now on the job's tasks go by their priorities: what is ahead comes back."""
        self.ranked[job_id] = None
        for group in self.classes.values():
            self._overtaken.update(group.ahead_at)

    def _group(self, record: TaskRecord) -> SchedulingClass:
        assert record.template is not None
        wanted = record.template.needs
        if not record.near:
            return self._class(wanted)
        group = self.local.get((wanted, record.near))
        if group is None:
            self._labels.learn(wanted, self.nodes.values())
            group = self.local[wanted, record.near] = SchedulingClass(wanted, record.near)
        return group

    def _class(self, wanted: Needs) -> SchedulingClass:
        group = self.classes.get(wanted)
        if group is None:
            self._labels.learn(wanted, self.nodes.values())
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

    def take_out(self, record: TaskRecord) -> None:
        """A ready task is with a node already, and may come back from there."""
        group = self._group(record)
        queue = group.queues.get(record.job_id)
        assert record.template is not None
        if queue is not None and queue.remove(record, record.depth, record.template.priority):
            group.ready -= 1
            if not queue:
                del group.queues[record.job_id]

    def adopt(self, node: NodeView, task_id: bytes, record: TaskRecord) -> None:
        """A raylet said that it holds the task."""
        record.state = ASSIGNED
        record.node = node
        record.since = self.now
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
            self.classes[wanted].sent_ahead(node, -1)  # the next one takes over the slot
            node.changed()
        else:
            node.give(wanted)

    def _assign(self, node: NodeView, records: list[TaskRecord]) -> None:
        node.sent += len(records)
        assigned, now, waited = node.assigned, self.now, self.waits.add
        for record in records:
            assert record.spec is not None
            record.state = ASSIGNED
            record.node = node
            record.attempt += 1
            if record.since >= 0:
                waited(now - record.since)
            record.since = now
            assigned[record.spec.task_id] = record

    # ---- nodes -----------------------------------------------------------------------------

    def add_node(self, node: NodeView) -> None:
        """Its tasks can go there once it has announced all."""
        former = self.nodes.get(node.node_id)
        if former is not None:
            former.live = False
        self.nodes[node.node_id] = node
        node.changes = self.changes.new
        node.changed()
        self._labels.nodes_changed(self.nodes.values())
        for group in self.classes.values():
            group.infeasible_since = None
            group.warned = False

    def remove_node(self, node: NodeView) -> dict[bytes, TaskRecord]:
        """Forget a dead incarnation; returns what it held."""
        self.nodes.pop(node.node_id, None)
        self._labels.nodes_changed(self.nodes.values())
        node.live = node.reclaiming = False
        for group in self.classes.values():
            group.asked.pop(node, None)
        for wanted, count in [*node.ahead.items()]:
            self.classes[wanted].sent_ahead(node, -count)
        node.ahead.clear()
        self.near_wait(node, [])
        held, node.assigned = node.assigned, {}
        return held

    # ---- placement -------------------------------------------------------------------------

    def schedule(self, now: float) -> Plan:
        """Assign what can be assigned now; each pair is for one TASKS message."""
        self.now = now
        for node in self.changes.take(2 * len(self.nodes) + 64):
            if node.ahead:
                self._started_there(node)
        if self.local:
            self._tire(now)
        plan: Plan = []
        if self.local:
            self._start_near(plan, now)
        for group in self.classes.values():
            if group.ready:
                openings = group.openings
                openings.hear(self.changes, self.nodes.values())
                self._start_now(group, openings.start, plan)
                if group.ready and group.cpu_only:
                    self._send_ahead(group, openings.ahead, len(self.nodes), plan)
        return plan

    def _started_there(self, node: NodeView) -> None:
        """Tasks sent ahead take what others of that node have given back, as they do there."""
        for wanted, ahead in node.ahead.items():
            count = min(ahead, resources.slots(node.free, wanted)) if ahead else 0
            if count:
                self.classes[wanted].sent_ahead(node, -count)
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

    def _start_near(self, plan: Plan, now: float) -> None:
        """Tasks start on the node that has their large arguments."""
        for key, group in [*self.local.items()]:
            before = group.ready
            node = self.nodes[group.near]
            self._start_now(group, OrderedDict({node: None}), plan)
            if group.ready and group.cpu_only and group.is_brief():
                self._send_ahead(group, OrderedDict({node: None}), 1, plan)
            if not group.ready:
                del self.local[key]
            elif group.ready < before:
                group.since = now  # the node is getting on with them

    @staticmethod
    def _room(group: SchedulingClass, node: NodeView) -> int:
        """How many tasks could start there now, were it not for its bound on workers."""
        if not node.usable:
            return 0
        return min(resources.slots(node.free, group.needs), node.credit())

    def with_room(self, needs: Needs) -> Iterator[NodeView]:
        """The nodes on which a task that needs this could start now."""
        group = self._class(needs)
        group.openings.hear(self.changes, self.nodes.values())
        places = group.openings.start
        for _ in range(len(places)):
            node = next(iter(places))
            if self._room(group, node) <= 0:
                del places[node]
                continue
            places.move_to_end(node)
            if not node.bounded(group.takes_cpu):
                yield node

    def _start_now(self, group: SchedulingClass, places: Places, plan: Plan) -> None:
        """Of ``places`` those are taken out that have no room."""
        rooms: list[tuple[int, NodeView]] = []
        roomy: list[NodeView] = []
        total = 0
        for _ in range(len(places)):
            if not group.ready or (len(rooms) >= limits.NODES_COMPARED and total >= group.ready):
                break
            node, _ = places.popitem(last=False)
            room = self._room(group, node)
            if room <= 0:
                continue
            roomy.append(node)
            if node.bounded(group.takes_cpu):
                self._start(group, node, group.pop(min(room, group.ready), node), plan)
            elif not node.ahead.get(group.needs):
                rooms.append((room, node))
                total += room
        for node in roomy:
            places[node] = None
        if len(rooms) == 1:
            ((room, node),) = rooms
            self._start(group, node, group.pop(min(room, group.ready)), plan)
        elif rooms:
            for node, share in _spread(rooms, group.ready):
                places.move_to_end(node)  # the next ones go elsewhere
                self._start(group, node, group.pop(share), plan)

    def _start(
        self, group: SchedulingClass, node: NodeView, records: list[TaskRecord], plan: Plan
    ) -> None:
        if records:
            resources.take(node.free, group.needs, len(records))
            self._assign(node, records)
            plan.append((node, records))

    @staticmethod
    def _room_ahead(group: SchedulingClass, node: NodeView) -> int:
        """How many tasks could be sent ahead there, as long as they take."""
        lanes = min(resources.slots(node.total, group.needs), 64)
        if not (lanes and node.usable) or node.reserved or node.bounded(group.takes_cpu):
            return 0
        template = group.first().template
        assert template is not None
        # Else lanes idle for a round trip.
        wanted = node.ending // max(dict(group.needs).get(CPU, 0), 1)
        if template.seconds is None:
            wanted = max(wanted, limits.PREFETCH_UNKNOWN_TASKS)
        else:
            if template.seconds < limits.PREFETCH_ONE_S:
                wanted = lanes
            by_time = int(limits.PREFETCH_S * lanes / max(template.seconds, 1e-6))
            wanted = max(wanted, by_time)
        wanted = min(wanted, limits.PREFETCH_TASKS_MAX)
        return min(wanted - node.ahead.get(group.needs, 0), node.credit())

    def _send_ahead(self, group: SchedulingClass, places: Places, count: int, plan: Plan) -> None:
        """``count``: of all nodes, so that others get their part. As for ``_start_now``."""
        passed = 0
        for _ in range(len(places)):
            if not group.ready or passed >= limits.NODES_COMPARED:
                break
            node, _ = places.popitem(last=False)
            room = self._room_ahead(group, node)
            if room <= 0:
                continue
            places[node] = None
            fair = group.ready // (2 * count)
            room = min(room, fair - node.ahead.get(group.needs, 0))
            if room > 0:
                of_all = self._class(group.needs)
                of_all.brief = group.is_brief()
                records = group.pop(room, but=self.ranked)
                if not records:
                    break
                self._assign(node, records)
                of_all.sent_ahead(node, len(records))
                plan.append((node, records))
            else:
                passed += 1

    # ---- stealing --------------------------------------------------------------------------

    def reclaims(self, now: float) -> list[tuple[NodeView, SchedulingClass, int]]:
        """From whom to take tasks back, because another raylet could start them now."""
        found = []
        overtaken, self._overtaken = self._overtaken, {}
        for node in (*self.stranded, *overtaken):
            needs = next((needs for needs, count in node.ahead.items() if count), None)
            able = node.usable and not node.reclaiming and now >= node.reclaim_after
            if able and needs is not None:
                node.reclaiming = True
                group = self._class(needs)
                group.asked[node] = node.ahead[needs]
                found.append((node, group, node.ahead[needs]))
        for group in self.classes.values():
            if not (group.ahead or group.near_waits):
                continue
            idle = 0 if group.ready else self._idle(group)
            if idle <= 0:
                group.idle_since = None
                continue
            if group.idle_since is None:
                group.idle_since = now
            victim = self._victim(group)
            if victim is not None and now >= self._steal_time(group, victim):
                victim.reclaiming = True
                waiting, half = (
                    victim.waiting(group.needs),
                    group.brief or victim in group.near_waits,
                )
                most = max(1, waiting // 2) if half else min(waiting, idle)
                group.asked[victim] = most
                found.append((victim, group, most))
        return found

    def near_wait(self, node: NodeView, classes: list[NearClass]) -> None:
        """What near tasks wait there now."""
        for wanted in node.near_waiting:
            self._class(wanted).near_waits.pop(node, None)
        node.near_waiting = {resources.needs(told.resources): told for told in classes}
        for wanted in node.near_waiting:
            self._class(wanted).near_waits[node] = None

    def steal_deadline(self) -> float:
        """When ``reclaims``, or tasks that wait for a node, may find what they do not find now."""
        waiting = [group.since for group in self.local.values() if group.since is not None]
        when = min(waiting) + limits.LOCALITY_WAIT_S if waiting else NEVER
        for group in self.classes.values():
            waits = (group.ahead or group.near_waits) and not group.ready
            if waits and self._idle(group) > 0:
                victim = self._victim(group)
                if victim is not None:
                    when = min(when, self._steal_time(group, victim))
        return when

    def returned(self, node: NodeView, count: int, now: float) -> None:
        """A node has answered a RECLAIM with so many tasks; if with none, it is left alone for a
        while."""
        node.reclaiming = False
        self.near_wait(node, [])  # it tells anew
        for group in self.classes.values():
            group.asked.pop(node, None)
        if not count:
            node.reclaim_after = now + limits.STEAL_PAUSE_S

    def _idle(self, group: SchedulingClass) -> int:
        """How many more could start at once where no others wait, or about that.

        Without those that were asked back, and are on their way.
        """
        found = (n for n in self.with_room(group.needs) if not n.waiting(group.needs))
        room = sum(self._room(group, node) for node in islice(found, limits.NODES_COMPARED))
        return room - sum(count for node, count in group.asked.items() if node.reclaiming)

    @staticmethod
    def _victim(group: SchedulingClass) -> NodeView | None:
        """The node with most of those that wait, or about that."""
        full = chain(group.ahead_at, group.near_waits)
        able = (node for node in full if node.usable and not node.reclaiming)
        compared = islice(able, limits.NODES_COMPARED)
        return max(compared, key=lambda node: node.waiting(group.needs), default=None)

    @staticmethod
    def _steal_time(group: SchedulingClass, victim: NodeView) -> float:
        """At once; but a raylet may soon be through with tasks that take no time."""
        if group.idle_since is None or not group.brief:
            return victim.reclaim_after
        return max(victim.reclaim_after, group.idle_since + limits.STEAL_IDLE_S)

    # ---- reasons ---------------------------------------------------------------------------

    def infeasible(self, group: SchedulingClass) -> bool:
        """Whether there are nodes, and none ever has what these tasks need."""
        return wait_reasons.infeasible(group, self.nodes)

    def reason(self, group: SchedulingClass) -> str:
        """Why the ready tasks of a class are not running, and what would help."""
        return str(self.why(group))

    def why(self, group: SchedulingClass) -> WaitReason:
        """The same, in its parts."""
        return wait_reasons.of(group, self.nodes)

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
