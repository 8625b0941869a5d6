"""Near tasks, as the head hears of them: how many each node has, and who else wants what they have.

Raylets start what their workers submit without the head. What the head knows of it are figures; it
says when tasks of other jobs wait, and takes what waits there for nodes that have nothing to do.
"""

from __future__ import annotations

from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.head.lease_table import LeaseTable
from zray.core.head.members import Members, NodeMember
from zray.core.head.task_records import NodeView
from zray.core.head.task_scheduler import TaskScheduler
from zray.core.machine import NEVER, Outbox
from zray.core.resources import Needs
from zray.protocol import messages as m

Waits = frozenset[tuple[bytes, Needs]]  # jobs that have tasks that wait, and for what


class NearTasks:
    """Of all nodes."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        counters: dict[str, int],
        members: Members,
        scheduler: TaskScheduler,
        leases: LeaseTable,
    ) -> None:
        self._outbox = outbox
        self._counters = counters
        self._members = members
        self._scheduler = scheduler
        self._leases = leases
        self._nodes: dict[bytes, NodeMember] = {}  # those that have any
        self._new: dict[bytes, NodeMember] = {}  # of these, those that have told of it since
        self._waited: Waits = frozenset()  # who has waited when the others were looked at last
        # Those that were told that others wait, and when; the first that was told comes first.
        self._crowded: dict[bytes, tuple[NodeView, float]] = {}
        self._several_at = -NEVER  # when several jobs have waited last

    # ---- nodes -----------------------------------------------------------------------------

    def on_near(self, node: NodeMember, message: m.Near, now: float) -> None:
        """A node tells what near tasks it has."""
        view = node.view
        for told in message.jobs:
            job = self._members.jobs.get(told.job_id)
            if job is None:
                continue
            before = view.near.get(told.job_id)
            view.near[told.job_id] = told
            more = told.finished - (before.finished if before is not None else 0)
            retried = told.retried - (before.retried if before is not None else 0)
            job.finished += max(0, more)
            view.finished += max(0, more)
            self._counters["finished"] += max(0, more)
            self._counters["retried"] += max(0, retried)
        self._scheduler.near_wait(view, message.classes)
        if any(told.unfinished for told in view.near.values()):
            self._nodes[node.process_id] = self._new[node.process_id] = node
        else:
            self._nodes.pop(node.process_id, None)

    def cancel_below(self, task_id: bytes, force: bool) -> None:
        """A task is cancelled with those that it has submitted: some may be near."""
        for node in self._nodes.values():
            self._outbox.send(node.process_id, m.Cancel(0, task_id, force, True))

    def places(self) -> list[bytes]:
        """The nodes that have any, some of them."""
        return [*islice(self._nodes, limits.WHY_ASKED_MAX)]

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Once the ready tasks have their places: who waits for what near tasks have."""
        if not (self._nodes or self._crowded):
            return
        waiting = self._waiting()
        if len({job_id for job_id, _ in waiting}) > 1:
            self._several_at = now
        looked_at = self._new if waiting == self._waited else self._nodes
        self._waited = waiting
        for node in [*looked_at.values()] if waiting else ():
            self._look(node, waiting, now)
        self._new.clear()
        while self._crowded and now >= self.deadline():
            node_id = next(iter(self._crowded))
            view, since = self._crowded.pop(node_id)
            if view.crowded_at != since:
                continue  # it has a new session, or has ended
            if self._others_wait(view, self._jobs(view), waiting):
                view.crowded_at = now
                self._crowded[node_id] = view, now
            else:
                view.crowded_at = None
                self._outbox.send(node_id, m.Crowded(0, False))

    def _look(self, node: NodeMember, waiting: Waits, now: float) -> None:
        view = node.view
        jobs = self._jobs(view)
        if node.ended or not jobs:
            self._nodes.pop(node.process_id, None)
        elif view.crowded_at is None and self._others_wait(view, jobs, waiting):
            view.crowded_at = now
            self._crowded.pop(node.process_id, None)
            self._crowded[node.process_id] = view, now
            self._outbox.send(node.process_id, m.Crowded(0, True))

    def _jobs(self, view: NodeView) -> set[bytes]:
        """Those that have near tasks there."""
        for job_id in [one for one in view.near if one not in self._members.jobs]:
            del view.near[job_id]
        return {job_id for job_id, told in view.near.items() if told.unfinished}

    def _waiting(self) -> Waits:
        """Jobs that have tasks that wait, and for what."""
        waiting: set[tuple[bytes, Needs]] = set()
        for group in self._scheduler.groups():
            if group.ready:
                jobs = [job_id for job_id, queue in group.queues.items() if queue]
                waiting.update((job_id, group.needs) for job_id in jobs)
        for demand in self._leases.active.values():
            if demand.open is not False and demand.wanting() > 0:
                waiting.add((demand.job_id, demand.needs))
        return frozenset(waiting)

    def _others_wait(self, view: NodeView, jobs: set[bytes], waiting: Waits) -> bool:
        ranked = self._scheduler.ranked  # of these, their own count: one order is for all
        return any(
            (job_id not in jobs or len(jobs) > 1 or job_id in ranked)
            and resources.fits(view.total, needs)
            for job_id, needs in waiting
        )

    def deadline(self) -> float:
        """When ``step`` may find that nobody waits any more."""
        if not self._crowded:
            return NEVER
        _, since = next(iter(self._crowded.values()))
        return max(since, self._several_at) + limits.LEASE_PAUSE_S
