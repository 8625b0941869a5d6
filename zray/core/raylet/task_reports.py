"""What a node tells the head of tasks that the head does not see, and of its workers.

Gathers what its workers report, adds how many leased and near tasks have ended, and tells that now
and then: of so many tasks one by one, of all how many there were. Failures come before successes.
"""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core.machine import NEVER
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.protocol import messages as m
from zray.protocol.histogram import Histogram

OTHERS = "(others)"  # in place of names beyond those that are counted
JOB_ENDED = "its job has ended"  # why a worker is killed whose job is over


class TaskReports:
    """Of one incarnation of the raylet.

    Args:
        node_id, info: of the node.
        linked: whether there is a session with the head. Until then all is kept, within bounds.
        tell_head: as ``HeadSession.tell``.

    Attributes:
        durations: how long attempts took that have ended here, by their type.
    """

    def __init__(
        self,
        node_id: bytes,
        info: m.NodeInfo,
        linked: Callable[[], bool],
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._node_id = node_id
        self._info = info
        self._linked = linked
        self._tell_head = tell_head
        kinds = (m.NORMAL_TASK, m.ACTOR_TASK, m.ACTOR_CREATION_TASK)
        self.durations = {kind: Histogram(limits.TASK_BUCKETS_S) for kind in kinds}
        self._failed: list[m.ListedTask] = []
        self._finished: list[m.ListedTask] = []
        self._dropped = 0
        self._running: dict[bytes, list[m.ListedTask]] = {}  # by worker that has told
        self._tallies: dict[tuple[str, str, str], int] = {}
        self._began: dict[bytes, None] = {}  # workers that the head has not heard of
        self._ended: list[m.ListedWorker] = []
        self._workers: dict[bytes, WorkerSlot] = {}
        self._leased: dict[bytes, WorkerSlot] = {}
        self._rows = float(limits.REPORT_BURST_ROWS)  # of successes that may be told now
        self._rows_at = 0.0
        self._now = 0.0  # of the last turn
        self._due = NEVER
        self._look_at = NEVER  # at how many tasks leased workers have begun

    def new_session(self) -> None:
        """The head may know nothing of the workers here."""
        self._began = dict.fromkeys(self._workers)
        if self._workers:
            self._due = 0.0

    # ---- workers ---------------------------------------------------------------------------

    def started(self, slot: WorkerSlot) -> None:
        """There is such a worker process."""
        self._workers[slot.worker_id] = slot
        self._began[slot.worker_id] = None
        self._due = min(self._due, self._now + limits.REPORT_NODE_S)

    def exited(self, slot: WorkerSlot, begun: int, cause: str, why: str) -> None:
        """It is no more. ``begun``: tasks that it had not answered; ``why``: it was killed, or
        empty."""
        worker_id = slot.worker_id
        if slot.worker_id in self._leased:
            self._count_leased(slot, begun, running=False)
            # What ran has ended with it; but a worker whose job is over may have been idle.
            if begun and (slot.runs_long or why != JOB_ENDED):
                self._count(slot.leased_name, m.NORMAL_TASK, m.ENDED_BADLY, 1, slot)
                self._count(slot.leased_name, m.NORMAL_TASK, m.ENDED_WELL, -1, slot)
            del self._leased[worker_id]
        self._began.pop(worker_id, None)
        if self._workers.pop(worker_id, None) is None:
            return
        intended = bool(why) or slot.exiting
        exit_type = "INTENDED_SYSTEM_EXIT" if intended else "SYSTEM_ERROR"
        if slot.exit_reason:
            exit_type = "INTENDED_USER_EXIT"
        self._ended.append(self._row(slot, alive=False, exit_type=exit_type, text=why or cause))
        if len(self._ended) > limits.REPORT_ROWS_MAX:
            del self._ended[0]
        self._due = 0.0

    def _row(
        self, slot: WorkerSlot, *, alive: bool, exit_type: str = "", text: str = ""
    ) -> m.ListedWorker:
        return m.ListedWorker(
            worker_id=slot.worker_id,
            alive=alive,
            node_id=self._node_id,
            host=self._info.host,
            pid=slot.pid,
            job_id=slot.key[0],
            actor_id=slot.actor.actor_id if slot.actor is not None else b"",
            exit_type=exit_type,
            exit_detail=text[: limits.BRIEF_TEXT_MAX],
        )

    # ---- tasks -----------------------------------------------------------------------------

    def on_report(self, slot: WorkerSlot, message: m.TaskReport, now: float) -> None:
        """A worker tells what has ended there, and what runs."""
        for row in message.ended:
            (self._finished if row.state == m.ENDED_WELL else self._failed).append(row)
        self._dropped += message.dropped
        self._running[slot.worker_id] = message.running
        slot.runs_long = bool(message.running)
        for one in message.tallies:
            self._count(one.name, one.type, one.state, one.more)
        for told in message.durations:
            if told.type in self.durations:
                self.durations[told.type].merge(told.counts, told.seconds)
        self._trim()
        self._due = min(self._due, now + limits.REPORT_NODE_S)

    def _trim(self) -> None:
        for rows in (self._finished, self._failed):
            if (more := len(rows) - limits.REPORT_BURST_ROWS) > 0:
                del rows[:more]
                self._dropped += more

    def _count(
        self, name: str, kind: str, state: str, more: int, slot: WorkerSlot | None = None
    ) -> None:
        if slot is None or slot.lists_tasks:
            key = (name, kind, state)
            if key not in self._tallies and len(self._tallies) >= limits.TASK_NAMES_MAX:
                key = (OTHERS, kind, state)
            self._tallies[key] = self._tallies.get(key, 0) + more

    def near_ended(self, task: LocalTask, done: m.TaskDone) -> None:
        """An attempt of a task has ended of which the head does not hear."""
        message = task.template.message
        if message.events:
            bad = done.status != m.FINISHED or (done.results and done.results[0].kind & m.ERROR)
            self._count(message.name, m.NORMAL_TASK, m.ENDED_BADLY if bad else m.ENDED_WELL, 1)
            self._due = min(self._due, self._now + limits.REPORT_NODE_S)

    # ---- leased workers: by how many tasks they have begun -------------------------------------

    def on_runs(self, slot: WorkerSlot, message: m.Runs, now: float) -> None:
        """A leased worker runs another function than before."""
        if slot.worker_id in self._leased:
            self._count_leased(slot, message.begun, running=False)
        self._leased[slot.worker_id] = slot
        slot.lists_tasks = message.events
        self._look_at = min(self._look_at, now + limits.REPORT_BUSY_S)

    def lease_ended(self, slot: WorkerSlot, begun: int) -> None:
        """A lease has ended in peace, under which a worker has begun so many."""
        if self._leased.pop(slot.worker_id, None) is not None:
            self._count_leased(slot, begun, running=False)
        slot.counted = 0

    def _count_leased(self, slot: WorkerSlot, begun: int, *, running: bool) -> None:
        """Of so many, ``running`` the last, all that are not counted yet have ended."""
        more = begun - running - slot.counted
        if more > 0 or (more and not running):
            self._count(slot.leased_name, m.NORMAL_TASK, m.ENDED_WELL, more, slot)
            slot.counted += more

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Tell the head, if it is time to."""
        self._now = now
        if now >= self._look_at:
            self._look_at = now + limits.REPORT_BUSY_S if self._leased else NEVER
            for slot in self._leased.values():
                self._count_leased(slot, slot.begun() - slot.finished, running=True)
            if self._tallies:
                self._due = now
        if now < self._due or not self._linked():
            return
        self._due = NEVER
        self._tell_head(self._report(now))
        if self._failed or (self._finished and self._rows >= 1):
            self._due = now + limits.REPORT_NODE_S

    def _report(self, now: float) -> m.TaskReport:
        most = float(limits.REPORT_BURST_ROWS)
        self._rows = min(most, self._rows + (now - self._rows_at) * limits.REPORT_ROWS_PER_S)
        self._rows_at = now
        failed = self._failed[: limits.REPORT_ROWS_MAX]
        del self._failed[: limits.REPORT_ROWS_MAX]
        room = limits.REPORT_ROWS_MAX - len(failed)
        told = self._finished[-min(room, int(self._rows)) :] if min(room, int(self._rows)) else []
        left = len(self._finished) - len(told)
        if self._rows - len(told) < 1:  # the others will not be told
            self._dropped += left
            self._finished = []
        else:
            self._finished = self._finished[:left]
        self._rows -= len(told)
        began = [self._row(self._workers[one], alive=True) for one in self._began]
        report = m.TaskReport(
            ended=[*failed, *told],
            running=[row for rows in self._running.values() for row in rows][
                : limits.REPORT_ROWS_MAX
            ],
            heard=b"".join(self._running),
            tallies=[m.Tally(*key, more) for key, more in self._tallies.items() if more],
            dropped=self._dropped,
            workers=[*began, *self._ended],
            seq=0,
        )
        self._running, self._tallies, self._began, self._ended = {}, {}, {}, []
        self._dropped = 0
        return report

    def deadline(self) -> float:
        """When ``step`` has something to do."""
        return min(self._due if self._linked() else NEVER, self._look_at)
