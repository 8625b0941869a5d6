"""The lives of a node's worker processes: when one is forked, is let go, or has to end.

Owns why workers were killed and when others may be started. Which tasks they run is
`local_scheduler`; the shell forks and kills, as the effects say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.effects import Effect, KillWorker, StartWorker
from zray.core.raylet.local_records import PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.task_reports import JOB_ENDED, TaskReports
from zray.core.raylet.timeouts import Timeouts
from zray.core.raylet.tracing import Tracing
from zray.core.raylet.worker_requests import WorkerRequests
from zray.ids import IdSource
from zray.protocol import messages as m
from zray.protocol.errors import cut_text

if TYPE_CHECKING:  # loaded when a program has recorded something
    from zray.core.recorded_metrics import RecordedMetrics


class Workers:
    """Of one incarnation of the raylet.

    Args:
        node: its name, for texts.
        outbox: messages to workers.
        effect: takes what the shell is to do.
        setup: what a new worker of a pool is told first.
        tell_head: as ``HeadSession.tell``.
        reports: hears of workers that start.

    Attributes:
        recorded: what their programs have recorded; None: nothing.
    """

    def __init__(
        self,
        *,
        node: str,
        ids: IdSource,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        worker_requests: WorkerRequests,
        effect: Callable[[Effect], None],
        setup: Callable[[PoolKey], m.Setup],
        tell_head: Callable[[m.Message], None],
        reports: TaskReports,
    ) -> None:
        self._node = node
        self._ids = ids
        self._outbox = outbox
        self._scheduler = scheduler
        self._worker_requests = worker_requests
        self._effect = effect
        self._setup = setup
        self._tell_head = tell_head
        self._reports = reports
        self.timeouts = Timeouts(outbox)
        self.tracing = Tracing(outbox, scheduler, tell_head)
        self.recorded: RecordedMetrics | None = None
        # What workers say of themselves, as a part of the raylet's table.
        self.handlers: dict[type[m.Message], Callable[[WorkerSlot, Any, float], None]] = {
            m.Deadline: self.timeouts.on_deadline,
            m.Traced: self.tracing.on_traced,
            m.TaskReport: reports.on_report,
            m.Recorded: self.on_recorded,
            m.Exiting: self.on_exiting,
        }
        self._killed: dict[bytes, str] = {}  # ended on purpose, and why
        self._leaving: dict[bytes, WorkerSlot] = {}  # those that take no more tasks
        self._retire_at = NEVER
        self._fork_at = 0.0  # not sooner: workers have ended before they began anything
        self._fork_pause_s = 0.0
        self._stillborn_at = -NEVER
        self._in_a_row: dict[tuple[bytes, str], int] = {}  # such ones, by job and environment
        self._last_cause = ""  # of the last of them
        self._made_actor_at = -NEVER

    def on_recorded(self, slot: WorkerSlot, message: m.Recorded, now: float) -> None:
        """A worker tells what its program has recorded."""
        if self.recorded is None:
            from zray.core.recorded_metrics import RecordedMetrics

            self.recorded = RecordedMetrics()
        self.recorded.recorded(slot.worker_id, slot.key[0], message, now)

    def named(self, process_id: bytes, otherwise: str) -> str:
        """A worker, for people."""
        slot = self._scheduler.workers.get(process_id)
        return f"worker {slot.pid}" if slot is not None else otherwise

    # ---- beginnings ------------------------------------------------------------------------

    def start(self, key: PoolKey) -> WorkerSlot:
        """Have a worker forked for a pool; what it is told first is in the outbox."""
        self.retire(self._scheduler.surplus(key))
        slot = WorkerSlot(self._ids.process_id(), key)
        self._scheduler.add_worker(slot)
        self._worker_requests.employ(slot.worker_id, key[0])
        self._effect(StartWorker(slot.worker_id, key))
        self._outbox.send(slot.worker_id, self._setup(key))
        self.tracing.begin(slot.worker_id)
        return slot

    def started(self, worker_id: bytes, pid: int, begun: Callable[[], int]) -> None:
        """It has been forked, and is that process. ``begun``: tasks in its life, as of now."""
        slot = self._scheduler.workers.get(worker_id)
        if slot is not None:
            slot.pid, slot.begun = pid, begun
            self._reports.started(slot)

    def may_start(self, now: float) -> bool:
        """Whether workers may be forked now: not while those before ended too soon."""
        if now >= self._fork_at:
            self._fork_at = 0.0
        return not self._fork_at

    def replenish(self, key: PoolKey, now: float) -> None:
        """An actor has taken a worker for good: others wait for the next ones, ready."""
        in_a_row = now - self._made_actor_at < limits.IDLE_WORKER_S
        self._made_actor_at = now
        wanted = limits.SPARE_WORKERS if in_a_row else 1
        for _ in range(wanted):  # each may send an idle one away, of this pool or another
            if self._scheduler.lacks_spare(key, wanted) and not self._fork_at:
                self._scheduler.rest(self.start(key), now)

    # ---- ends ------------------------------------------------------------------------------

    def on_exiting(self, slot: WorkerSlot, message: m.Exiting, now: float) -> None:
        """A worker is about to end by its own wish.

        One that is no actor waits until it is let go: what it has may be needed still.
        """
        slot.exiting = True
        if not slot.makes_actor():
            self._leaving[slot.worker_id] = slot
        slot.exit_reason = cut_text(message.reason, limits.CAUSE_BYTES_MAX)

    def end_job(self, job_id: bytes, now: float) -> None:
        """Nobody wants what the workers of a job still do."""
        if self.recorded is not None:
            self.recorded.job_ended(job_id, now)
        for which in [one for one in self._in_a_row if one[0] == job_id]:
            del self._in_a_row[which]
        for slot in [s for s in self._scheduler.workers.values() if s.key[0] == job_id]:
            self.kill(slot, JOB_ENDED)

    def retire(self, slots: list[WorkerSlot]) -> None:
        """Let these end, but for whom something still has to be done."""
        for slot in slots:
            if self._worker_requests.idle(slot.worker_id):
                self.let_go(slot)

    def let_go(self, slot: WorkerSlot) -> None:
        """Let a worker end by itself."""
        self._scheduler.withdraw(slot)
        slot.exiting = True
        self._outbox.send(slot.worker_id, m.Exit(0))

    def retire_rested(self, now: float) -> None:
        """Let idle workers end that nobody has needed for a while."""
        if now >= self._retire_at:
            rested = now - limits.IDLE_WORKER_S
            self.retire([slot for slot in self._scheduler.surplus() if slot.progress <= rested])
            self._retire_at = NEVER
        if self._retire_at == NEVER and self._scheduler.crowded():
            self._retire_at = now + limits.IDLE_WORKER_S

    def kill(self, slot: WorkerSlot, why: str) -> None:
        """Have a worker killed; the first reason stands."""
        if slot.worker_id not in self._killed:
            self._killed[slot.worker_id] = why
            self._effect(KillWorker(slot.worker_id))

    def killed(self, worker_id: bytes) -> bool:
        """Whether this node wants the worker dead."""
        return worker_id in self._killed

    def kill_all(self) -> None:
        """Nothing may live on."""
        for worker_id in self._scheduler.workers:
            self._effect(KillWorker(worker_id))
            self._outbox.discard(worker_id)

    def tend(self, now: float) -> None:
        """Ask back what long tasks keep from starting; end what runs too long or does not obey."""
        for slot in [*self._leaving.values()] if self._leaving else ():
            if not (slot.busy or slot.inflight) and self._worker_requests.idle(slot.worker_id):
                del self._leaving[slot.worker_id]
                self.let_go(slot)
        self.timeouts.step(now)
        self.tracing.step(now)
        for slot in self._scheduler.overrun(now):
            slot.recalled = True
            self._outbox.send(slot.worker_id, m.Recall(0))
        for slot in self._scheduler.workers.values():
            if slot.condemned and now >= slot.kill_at() and not self.killed(slot.worker_id):
                self.kill(slot, "it did not stop within the grace of a cancel")

    def exited(self, slot: WorkerSlot, started: int, cause: str, now: float) -> str:
        """A worker is gone; why it was killed, or empty. ``started``: tasks begun in its life."""
        why = self._killed.pop(slot.worker_id, "")
        self.tracing.exited(slot.worker_id)
        if self.recorded is not None:
            self.recorded.ended(slot.worker_id)
        self._leaving.pop(slot.worker_id, None)
        if started:
            self._in_a_row.pop((slot.key[0], slot.key[3]), None)
        elif not (why or slot.exiting):
            self._stillborn(slot, cause, now)
        return why

    def hopeless(self, key: PoolKey) -> str:
        """Why what waits for a worker of the pool, in words, waits in vain; empty: it does not."""
        which = (key[0], key[3])
        in_a_row = self._in_a_row.get(which, 0)
        if in_a_row < limits.STILLBORN_MAX:
            return ""
        if self._works(which):
            del self._in_a_row[which]
            return ""
        return (
            f"node {self._node} cannot run it: the last {in_a_row} workers that were started for "
            f"the program ended before they began anything, the last one by {self._last_cause}"
        )

    def _stillborn(self, slot: WorkerSlot, cause: str, now: float) -> None:
        """A worker could not start: others would not either, for now."""
        if now < self._fork_at:
            return  # one of several that ended together
        again = now - self._stillborn_at < 2 * limits.FORK_RETRY_MAX_S
        pause = 2 * self._fork_pause_s if again else limits.FORK_RETRY_FIRST_S
        self._fork_pause_s = min(pause, limits.FORK_RETRY_MAX_S)
        self._stillborn_at = now
        self._fork_at = now + self._fork_pause_s
        what = cause.partition(";")[0]  # its last words were shown already
        which, self._last_cause = (slot.key[0], slot.key[3]), what
        if self._works(which):
            self._in_a_row.pop(which, None)
        else:
            self._in_a_row[which] = self._in_a_row.get(which, 0) + 1
        text = f"a worker ended before it began anything ({what}); the next one is started in"
        line = f"{text} {self._fork_pause_s:g} s"
        self._tell_head(m.Log(0, slot.key[0], "worker", slot.pid, self._node, True, [line]))

    def _works(self, which: tuple[bytes, str]) -> bool:
        """Whether a worker of that job and environment has begun something, and lives."""
        workers = self._scheduler.workers.values()
        return any((one.key[0], one.key[3]) == which and one.begun() > 0 for one in workers)

    def deadline(self) -> float:
        """When there is something to do although nothing arrives."""
        due = min(self._retire_at, self._fork_at or NEVER)
        due = min(due, self.timeouts.deadline(), self.tracing.deadline())
        for slot in self._scheduler.workers.values():
            if slot.condemned and not self.killed(slot.worker_id):
                due = min(due, slot.kill_at())
        return due
