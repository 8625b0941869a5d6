"""What waits at workers behind the tasks that run there, so that no worker waits for its next task.

Delivered is not started: what the worker has not taken out of its queue this node takes back
alone, whatever the worker does. So a task waits behind another only until it could run elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from zray import limits
from zray.core import resources
from zray.core.deadlines import Deadlines
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.job_queues import JobQueues
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.worker_bound import ANY
from zray.core.resources import Needs
from zray.protocol import messages as m


class Behind:
    """Of one incarnation of the raylet. What waits there holds no resources."""

    def __init__(
        self,
        scheduler: LocalScheduler,
        outbox: Outbox[bytes],
        take_back: Callable[[bytes], list[m.Tasks]],
    ) -> None:
        """``outbox``: messages to workers. ``take_back``: empties a worker's queue."""
        self._scheduler = scheduler
        self._outbox = outbox
        self._slots: dict[bytes, WorkerSlot] = {}  # behind whose tasks others may wait
        self._due = NEVER
        self._ends = Deadlines()  # by worker, of long tasks: when they should end soon
        self._ending: dict[bytes, WorkerSlot] = {}  # those that should by now
        self._take_back = take_back
        self.packets: list[tuple[bytes, m.Tasks]] = []  # for the shell: by worker, for its queue

    def runs(self, slot: WorkerSlot) -> None:
        """What the worker runs is another task than before, or none."""
        self._ending.pop(slot.worker_id, None)
        current = slot.current()
        seconds = current.template.seconds if current is not None else None
        if seconds is not None and seconds >= limits.PREFETCH_ONE_S:
            self._ends.put(slot.worker_id, slot.progress + seconds - limits.BEHIND_S)
        elif self._ends:
            self._ends.drop(slot.worker_id)

    def ending(self) -> int:
        """So much CPU have long tasks that should end soon.

        None while others are blocked: what these wait for is to have it.
        """
        if self._scheduler.blocked:
            return 0
        return sum(amount for slot in self._ending.values() for _, amount in slot.cpu_part())

    # ---- taking back -----------------------------------------------------------------------

    def recall(self, slot: WorkerSlot) -> bool:
        """What its worker has not taken waits here again, as the next; whether there was any."""
        self._slots.pop(slot.worker_id, None)
        if not slot.behind:
            return False
        messages = self._take_back(slot.worker_id)
        if self.packets:
            messages += [message for worker, message in self.packets if worker == slot.worker_id]
            self.packets = [pair for pair in self.packets if pair[0] != slot.worker_id]
        slot.behind.clear()
        for message in reversed(messages):
            self._withdraw(slot, message)
        if not slot.inflight:
            self.runs(slot)  # what ran before has ended
        return bool(messages)

    def _withdraw(self, slot: WorkerSlot, message: m.Tasks) -> None:
        for assignment in reversed(message.tasks):
            slot.behind.pop(assignment.spec.task_id, None)
            self._scheduler.withdrawn(slot, assignment.spec.task_id)

    def refused(self, worker_id: bytes, message: m.Tasks) -> None:
        """The queue of the worker does not take the packet."""
        slot = self._scheduler.workers.get(worker_id)
        if slot is not None:
            self._withdraw(slot, message)
            slot.full = slot.busy

    def withdraw(self, task: LocalTask) -> None:
        """The task is to wait here, if its worker has not taken it."""
        slot = task.worker
        if slot is not None and task.task_id in slot.behind:
            self.recall(slot)

    def surrender(self, wanted: Needs, count: int) -> None:
        """Have so many tasks of a class wait here, which others can start sooner."""
        scheduler = self._scheduler
        queue = scheduler.queues.get(wanted)
        missing = count - (len(queue) if queue is not None else 0)
        for slot in self._latest_first(wanted):
            if missing <= 0:
                return
            missing -= len(slot.behind)
            self.recall(slot)

    def _latest_first(self, wanted: Needs) -> list[WorkerSlot]:
        slots = [slot for slot in self._slots.values() if slot.behind and slot.needs == wanted]
        slots.reverse()  # of two that end at the same time, the one that got its own last
        slots.sort(key=_end, reverse=True)
        return slots

    def retract(self, now: float) -> None:
        """Take back what is not to wait where it does."""
        if not self._slots:
            return
        floors = self._scheduler.bound.deepest_blocked()
        for slot in [*self._slots.values()]:
            owed = slot.behind_depth > floors.get(slot.key[0], ANY)
            stays = slot.behind and owed and self._may_stay(slot, now)
            if not stays or slot.blocked or slot.exiting:
                self.recall(slot)

    def _may_stay(self, slot: WorkerSlot, now: float) -> bool:
        wanted, depth = slot.needs, slot.behind_depth
        if not _is_patient(slot, now) or self._is_owed(wanted):
            return False
        queue = self._scheduler.queues.get(wanted)
        if queue and (queue.deepest > depth or queue.first().assignment.actor is not None):
            return False
        return not self._has_rivals(wanted) or slot.all_short()

    def _is_owed(self, wanted: Needs) -> bool:
        """Whether more runs here than should: nothing starts until that is paid back."""
        return any(self._scheduler.free.get(name, 0) < 0 for name, _ in wanted)

    def _has_rivals(self, wanted: Needs) -> bool:
        """Whether tasks wait that need something else: a worker that goes on starves them."""
        queues = self._scheduler.queues
        return any(queue and other != wanted for other, queue in queues.items())

    def spread(self, *, may_fork: bool) -> bool:
        """Where a CPU is free, what is behind a task can start; whether there was any."""
        scheduler = self._scheduler
        for wanted in dict.fromkeys(slot.needs for slot in self._slots.values()):
            idle = resources.fits(scheduler.free, wanted) and not scheduler.queues.get(wanted)
            for slot in self._latest_first(wanted) if idle else ():
                if scheduler.bound.holds(slot.key[0]):
                    continue
                if (may_fork or scheduler.last_rested(slot.key)) and self.recall(slot):
                    return True
        return False

    # ---- giving ----------------------------------------------------------------------------

    def fill(self, now: float) -> None:
        """Give workers what they run next, those first that have the least."""
        self._due = NEVER
        for worker_id in self._ends.due(now):
            slot = self._scheduler.workers.get(worker_id)
            if slot is not None and slot.inflight:
                self._ending[worker_id] = slot
        if self._scheduler.queued:
            # What others wait for goes first, if it is here by the time at which something ends.
            floors = self._scheduler.bound.deepest_blocked()
            for wanted, queue in self._scheduler.queues.items():
                if not queue or not queue.first().template.cpu_only:
                    continue
                if queue.deepest > floors.get(queue.first().assignment.job_id, ANY):
                    self._fill(wanted, queue, now)
        for slot in self._slots.values():
            self._due = min(self._due, _patience_ends(slot, now))

    def _fill(self, wanted: Needs, queue: JobQueues, now: float) -> None:
        scheduler = self._scheduler
        if self._is_owed(wanted):
            return
        lanes = [
            slot
            for slot in scheduler.active.values()
            if slot.needs == wanted
            and not (slot.blocked or slot.recalled or slot.lease or slot.exiting or slot.full)
        ]
        lanes.sort(key=_load)
        rivals = self._has_rivals(wanted)
        share = -(-len(queue) // (len(lanes) + resources.slots(scheduler.free, wanted) or 1))
        while lanes:
            left = []
            for slot in lanes:
                if not queue or queue.first().assignment.actor is not None:
                    return
                room = min(self._room(slot, queue.first(), now, rivals=rivals), share)
                if room > 0:
                    self._give(slot, queue, room, now)
                    left.append(slot)
            lanes = left

    def _room(self, slot: WorkerSlot, first: LocalTask, now: float, *, rivals: bool) -> int:
        """How many more it may have: of short ones half as many as at first, else one or a few."""
        if slot.key[0] != first.assignment.job_id:
            return 0
        count = len(slot.inflight)
        if first.template.short():
            at_first = self._scheduler.batch_size(first)
            if count <= at_first and slot.all_short():
                return max(1, at_first // 2)
        if rivals or count > limits.BEHIND_TASKS_MAX:
            return 0
        if not _is_patient(slot, now):
            self._due = min(self._due, _patience_begins(slot, now))
            return 0
        if count > 1:
            others = [*slot.inflight.values()][1:]
            if sum(map(_seconds, others)) + _seconds(first) > limits.WORKER_BATCH_S:
                return 0
        return 1 if first.bytes_in_all() <= limits.PACKET_TASKS_BYTES_MAX else 0

    def _give(self, slot: WorkerSlot, queue: JobQueues, most: int, now: float) -> None:
        """One packet: one task, or several short ones."""
        scheduler = self._scheduler
        first = scheduler.pop(queue)
        tasks, size = [first], first.bytes_in_all()
        while len(tasks) < most and queue.deepest == first.level:
            task = queue.first()
            size += task.bytes_in_all()
            if size > limits.PACKET_TASKS_BYTES_MAX or task.assignment.actor is not None:
                break
            if not task.template.short() or task.assignment.job_id != slot.key[0]:
                break
            tasks.append(scheduler.pop(queue))
        scheduler.give(slot, tasks, now)
        depth = min(slot.behind_depth, first.depth) if slot.behind else first.depth
        slot.behind_depth = depth
        slot.behind.update(dict.fromkeys([task.task_id for task in tasks]))
        self._slots[slot.worker_id] = slot
        for message in slot.delivery(tasks):
            if isinstance(message, m.Tasks):
                message.seq = slot.delivered  # which the worker has to read first
                self.packets.append((slot.worker_id, message))
            else:
                self._outbox.send(slot.worker_id, message)

    def deadline(self) -> float:
        """When something is to be taken back, or can be given, although nothing arrives."""
        return min(self._due, self._ends.soonest())


# ---- when a task may wait behind another -------------------------------------------------------
#
# It may in the beginning, since that may end at any time; and again when that should end soon. Of
# tasks that are not known to run long that is the same time.


def _seconds(task: LocalTask) -> float:
    """That it is expected to take; for nobody knows, so much that nothing else is put beside it."""
    seconds = task.template.seconds
    return limits.WORKER_BATCH_S if seconds is None else seconds


def _expected_s(slot: WorkerSlot) -> float:
    current = slot.current()
    return (current.template.seconds or 0.0) if current is not None else 0.0


def _end(slot: WorkerSlot) -> float:
    """When what it runs should end."""
    return slot.progress + _expected_s(slot)


def _load(slot: WorkerSlot) -> tuple[int, float]:
    return len(slot.inflight), _end(slot)


def _windows(slot: WorkerSlot) -> tuple[float, float, float]:
    """Until when others may wait behind what it runs; from when on again, and until when."""
    since, expected = slot.progress, _expected_s(slot)
    again = since
    if expected >= limits.PREFETCH_ONE_S:
        again += expected - limits.BEHIND_S
    return since + limits.RECALL_S, again, since + 2 * expected + limits.RECALL_S


def _is_patient(slot: WorkerSlot, now: float) -> bool:
    first, again, last = _windows(slot)
    return now < first or again <= now < last


def _patience_ends(slot: WorkerSlot, now: float) -> float:
    first, again, last = _windows(slot)
    return first if now < first < again else last


def _patience_begins(slot: WorkerSlot, now: float) -> float:
    _, again, _ = _windows(slot)
    return again if now < again else NEVER
