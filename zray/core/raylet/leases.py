"""The leases that workers of this node serve: which worker has which, and how each ends.

The head grants; whether a worker is free for it is decided here. What a leased worker runs passes
by: of that only its prints, its blocking and its end are heard.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from zray import limits
from zray.core import resources
from zray.core.machine import Outbox
from zray.core.raylet.completions import Completions
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.task_reports import TaskReports
from zray.core.raylet.workers import Workers
from zray.protocol import messages as m


class HostedLeases:
    """Of one incarnation of the raylet.

    Args:
        node_id, info: of the node.
        outbox: messages to workers.
        tell_head: as ``HeadSession.tell``.
        jobs: those that the node knows of.
        conclude: as of ``LeaseRelays``.
        reports: counts what leased workers run.
        is_built: as ``Environments.is_ready``.
    """

    def __init__(
        self,
        node_id: bytes,
        info: m.NodeInfo,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        workers: Workers,
        completions: Completions,
        tell_head: Callable[[m.Message], None],
        jobs: Container[bytes],
        conclude: Callable[[bytes], int],
        reports: TaskReports,
        is_built: Callable[[bytes, str], bool],
    ) -> None:
        self._node_id = node_id
        self._info = info
        self._outbox = outbox
        self._scheduler = scheduler
        self._workers = workers
        self._completions = completions
        self._tell_head = tell_head
        self._jobs = jobs
        self._conclude = conclude
        self._reports = reports
        self._is_built = is_built
        self._slots: dict[bytes, WorkerSlot] = {}  # by lease

    def announced(self) -> list[m.HeldLease]:
        """The leases that go on here, for the head's new session."""
        return [slot.lease for slot in self._slots.values() if slot.lease is not None]

    def held(self, lease_id: bytes) -> m.HeldLease | None:
        """The lease of that id, if a worker has it."""
        slot = self._slots.get(lease_id)
        return slot.lease if slot is not None else None

    def worker_of(self, lease_id: bytes) -> WorkerSlot | None:
        """The worker that serves it, if one does."""
        return self._slots.get(lease_id)

    def is_of_another(self, job_id: bytes) -> bool:
        """Whether a worker is leased to a program of another job than this."""
        return any(
            slot.lease is not None and slot.lease.job_id != job_id for slot in self._slots.values()
        )

    # ---- from the head ---------------------------------------------------------------------

    def on_grant(self, message: m.Grant, now: float) -> None:
        """A worker is to serve a submitter, if one is free for it."""
        if message.lease_id in self._slots:
            return
        scheduler, needs = self._scheduler, resources.needs(message.resources)
        key = scheduler.pool_key(message.job_id, needs, ())
        slot = scheduler.last_rested(key)
        room = resources.fits(scheduler.free, needs) and not scheduler.bound.holds(message.job_id)
        possible = resources.is_cpu_only(needs) and message.job_id in self._jobs
        possible = possible and self._is_built(message.job_id, key[3])
        possible = possible and not self._workers.hopeless(key)
        if not (room and possible and (slot is not None or self._workers.may_start(now))):
            self._completions.lease_ended(message.lease_id)
            return
        slot = slot or self._workers.start(key)
        slot.lease = m.HeldLease(
            *(message.lease_id, message.job_id, message.submitter),
            *(message.resources, slot.worker_id),
        )
        self._slots[message.lease_id] = slot
        scheduler.engage(slot, needs, now)
        self._outbox.send(slot.worker_id, message)

    def on_revoke(self, message: m.Revoke) -> None:
        """Others need what the lease holds: it ends when the task that runs has ended."""
        slot = self._slots.get(message.lease_id)
        if slot is not None:
            self._outbox.send(slot.worker_id, message)

    def on_cancel(self, message: m.CancelLeased, now: float) -> None:
        """Stop a task that a leased worker runs, or with the task the worker.

        The worker says RETURNED when the task is not there, or not any more: it is spared then.
        """
        slot = self._slots.get(message.lease_id)
        if slot is None:
            return
        grace = limits.LEASE_FORCE_S if message.force else limits.CANCEL_GRACE_S
        slot.condemn(message.task_id, now + grace)
        what = (message.task_id, message.attempt, message.force, message.recursive)
        cancel = m.CancelTask(0, *what)
        self._outbox.send(slot.worker_id, cancel)

    # ---- from workers ----------------------------------------------------------------------

    def on_leased(self, slot: WorkerSlot, message: m.Leased) -> None:
        """The worker waits for its submitter."""
        lease = slot.lease
        if lease is not None and lease.lease_id == message.lease.lease_id:
            place = (self._info.machine, self._info.name, self._node_id)
            self._tell_head(m.Leased(0, lease, *place))

    def on_runs(self, slot: WorkerSlot, message: m.Runs, now: float) -> None:
        """Of which function the tasks are whose prints come next."""
        self._reports.on_runs(slot, message, now)
        slot.leased_name = message.name

    def on_ended(self, slot: WorkerSlot, message: m.LeaseEnded, now: float) -> None:
        """A lease is over, in peace; the worker is free for others."""
        lease = slot.lease
        if lease is None or lease.lease_id != message.lease_id:
            return
        slot.finished += message.begun
        self._reports.lease_ended(slot, message.begun)
        self._forget(slot, lease)
        self._scheduler.disengage(slot, now)
        told = self._conclude(lease.lease_id)
        self._completions.lease_ended(lease.lease_id, lease, message.begun, told=told)

    def exited(
        self, slot: WorkerSlot, begun: int, cause: str, late: m.Deadline | None = None
    ) -> None:
        """The worker is gone, having begun so many tasks that it had not answered by then.

        ``late``: what it ran had to stop, and did not.
        """
        lease = slot.lease
        if lease is None:
            return
        self._forget(slot, lease)
        text = f"(pid {slot.pid}, node {self._info.name})\n{cause}"
        told = self._conclude(lease.lease_id)
        status = m.CRASHED
        if late is not None:
            status = m.FAILED if late.retried else m.FINISHED
        self._completions.lease_ended(lease.lease_id, lease, begun, text, told, status)

    def _forget(self, slot: WorkerSlot, lease: m.HeldLease) -> None:
        slot.lease = None
        slot.leased_name = ""
        del self._slots[lease.lease_id]
