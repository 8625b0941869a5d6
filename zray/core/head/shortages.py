"""What each node lacks of what tasks need, and who has it: for whoever asks why they wait."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from zray import limits
from zray.core import resources
from zray.core.causes import age
from zray.core.head.lease_table import LeaseTable
from zray.core.head.members import JobMember, Members, NodeMember
from zray.core.head.scheduling_class import SchedulingClass
from zray.core.head.task_records import NodeView
from zray.core.resources import Needs

TOLD_MAX = 8  # nodes
HOLDERS_LOOKED_MAX = 256  # tasks and leases of one node


class Shortages:
    """Looks at ``limits.WHY_NODES_MAX`` nodes at most, and tells of those that come closest."""

    def __init__(self, members: Members, leases: LeaseTable) -> None:
        self._members = members
        self._leases = leases

    def of(self, group: SchedulingClass, now: float) -> tuple[list[tuple[str, str]], int]:
        """Name and text of each node that is told of, and how many others there are."""
        nodes = self._members.nodes
        found = []
        for node in islice(nodes.values(), limits.WHY_NODES_MAX):
            rank, text = self._of_node(node, group, now)
            found.append((rank, text, node))
        found.sort(key=lambda one: one[0])
        told = []
        for rank, text, node in found[:TOLD_MAX]:
            taken = self._taken_by(node.view) if rank == 0 else ""
            told.append((node.info.name, f"{text}; {taken}" if taken else text))
        return told, len(nodes) - len(told)

    def _of_node(self, node: NodeMember, group: SchedulingClass, now: float) -> tuple[int, str]:
        """How far it is from running them, and in words what is in the way there."""
        view, needs = node.view, group.needs
        never = resources.missing(view.total, needs)
        if never:
            return 3 + len(never), f"never: {_never(view, never)}"
        if not view.usable:
            return 2, self.silence(node, now)
        lacking = resources.missing(view.free, needs)
        if lacking:
            return 0, resources.shortage(view.free, view.total, lacking)
        if view.bounds(group.queues, group.takes_cpu):
            return 1, "has as many workers as it may (zray-worker --max-workers)"
        if view.credit() <= 0:
            return 1, "has as many tasks that wait there as it takes"
        return 1, "has what is needed, so one starts there at once"

    @staticmethod
    def silence(node: NodeMember, now: float) -> str:
        """Why a node gets no work."""
        silent = max(0.0, now - node.heard)
        if not node.connected:
            return f"away: it has no connection; last heard of {age(silent)} ago"
        if not node.announced:
            return "joining: it has not told yet what it has"
        return f"silent for {age(silent)}, so it gets no new work"

    def _taken_by(self, view: NodeView) -> str:
        """Which jobs have what is in use there."""
        leased = _counted(lease.job_id for lease in self._leases.of_node(view.node_id))
        tasks = _counted(task.job_id for task in view.assigned.values())
        parts = []
        for job_id in [*dict.fromkeys((*leased, *tasks))][:3]:
            what = []
            if count := leased.get(job_id):
                what.append(f"{count} leased worker{'s' if count > 1 else ''}")
            if count := tasks.get(job_id):
                what.append(f"{count} task{'s' if count > 1 else ''}")
            parts.append(f"{' and '.join(what)} of {self.job_in_words(job_id)}")
        near, waiting = view.near_counts()
        if near - waiting > 0:
            parts.append(f"{near - waiting} of its own workers' tasks")
        return f"taken by {', '.join(parts)}" if parts else ""

    def job_in_words(self, job_id: bytes) -> str:
        """Which job that is, for people."""
        job = self._members.jobs.get(job_id)
        return job_in_words(job) if job is not None else f"job {job_id.hex()}"


def job_in_words(job: JobMember) -> str:
    """Its id as the status shows it, and its program."""
    return job_named(job.process_id, job.info.entrypoint)


def job_named(job_id: bytes, entrypoint: str) -> str:
    """The same of a job that may have ended."""
    program = entrypoint.rpartition("/")[2][:60]
    return f"job {job_id.hex()[:8]}{f' ({program})' if program else ''}"


def _counted(job_ids: Iterable[bytes]) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for job_id in islice(job_ids, HOLDERS_LOOKED_MAX):
        counts[job_id] = counts.get(job_id, 0) + 1
    return counts


def _never(view: NodeView, lacking: Needs) -> str:
    parts = []
    for name, amount in lacking:
        if resources.countable(((name, amount),)):
            has = view.total.get(name, 0)
            has_it, wanted = resources.figure(name, has), resources.figure(name, amount)
            parts.append(f"has {has_it} {name} in all, needs {wanted}")
        else:
            parts.append(f"does not have {resources.in_words(((name, amount),))}")
    return ", ".join(parts)
