"""The bound on workers that have tasks at a time, and which tasks start past it.

Whoever blocks lets another task have the CPU, and that may block as well. Past the bound only
deeper tasks of the same job start, for which those that are blocked may wait; but a job that has
less than its part of the workers starts what it likes, as none of its tasks waits for those of
others. Some jobs do so side by side: more would only share the CPUs, with processes for each. The
blocked may wait for others all the same: when nothing of a job has moved for a while, one more of
it starts, whatever it is.
"""

from __future__ import annotations

from zray import limits
from zray.core.machine import NEVER
from zray.core.raylet.local_records import WorkerSlot

Floors = tuple[int, int]  # only deeper ones start, of those that take a CPU and of the others
ANY = -1
OTHERS = b""  # in place of a job: those that have no worker with tasks
_NONE: Floors = (ANY, ANY)


class _JobWorkers:
    """Those of one job that have tasks."""

    __slots__ = ("active", "floors", "lifted", "moved")

    def __init__(self) -> None:
        self.active: dict[bytes, WorkerSlot] = {}
        self.moved = 0.0  # when one of them last got or finished a task
        self.lifted = False  # for too long nothing has moved: one more starts
        self.floors: Floors | None = None  # as found last, while nothing has changed


class WorkerBound:
    """Which workers have tasks, and which of these wait for others.

    Attributes:
        active: those with tasks; none that makes an actor.
        blocked: those whose task waits; of these some make actors.
    """

    def __init__(self, most: int) -> None:
        """``most``: as NodeOptions has it."""
        self.most = most
        self.active: dict[bytes, WorkerSlot] = {}
        self.blocked: dict[bytes, WorkerSlot] = {}
        self._jobs: dict[bytes, _JobWorkers] = {}
        self._opened = False  # for too long nothing at all has moved: another job may begin

    # ---- who is active -----------------------------------------------------------------------

    def add(self, slot: WorkerSlot) -> None:
        """The worker has tasks from now on."""
        self.active[slot.worker_id] = slot
        job = self._jobs.get(slot.key[0])
        if job is None:
            job = self._jobs[slot.key[0]] = _JobWorkers()
            self._opened = False
        job.active[slot.worker_id] = slot

    def remove(self, slot: WorkerSlot) -> None:
        """It has none any more."""
        if self.active.pop(slot.worker_id, None) is not None:
            job = self._jobs[slot.key[0]]
            del job.active[slot.worker_id]
            if not job.active:
                del self._jobs[slot.key[0]]

    def block(self, slot: WorkerSlot) -> None:
        """Its task waits for others."""
        self.blocked[slot.worker_id] = slot
        self.changed(slot)

    def unblock(self, slot: WorkerSlot) -> None:
        """It goes on."""
        del self.blocked[slot.worker_id]
        self.changed(slot)

    def moved(self, slot: WorkerSlot, now: float, *, starts: bool = False) -> None:
        """It got a task (``starts``), or ended one."""
        job = self._jobs.get(slot.key[0])
        if job is not None:
            job.floors = None
            job.moved = now
            if starts:
                job.lifted = False

    def changed(self, slot: WorkerSlot) -> None:
        """What it runs, or whether that waits, is not as it was."""
        job = self._jobs.get(slot.key[0])
        if job is not None:
            job.floors = None

    # ---- the bound ---------------------------------------------------------------------------

    def reached(self) -> bool:
        """Whether as many workers have tasks as the node allows."""
        return len(self.active) >= self.most

    def holds(self, job_id: bytes) -> bool:
        """Whether that bounds a job: it has its part of them, or enough others have theirs."""
        if len(self.active) < self.most:
            return False
        job = self._jobs.get(job_id)
        if job is None:
            return len(self._jobs) >= max(2, self.most // 2)
        return len(job.active) >= max(1, self.most // len(self._jobs))

    def floors(self, job_id: bytes) -> Floors:
        """Of a job."""
        if not self.holds(job_id):
            return _NONE
        job = self._jobs.get(job_id)
        if job is None:
            return self._of_others()
        if job.floors is None:
            job.floors = self._find(job)
        return job.floors

    def _of_others(self) -> Floors:
        """They begin when there are fewer workers again; or what is deep, by whomever that is."""
        if self._opened:
            return _NONE
        found = [self.floors(job_id) for job_id in self._jobs]
        return max(cpu for cpu, _ in found), max(free for _, free in found)

    def bounded(self) -> list[tuple[bytes, Floors]]:
        """The jobs that have floors, and these; where others have, all that are no others."""
        if not self.reached():
            return []
        others = self.floors(OTHERS)
        found = [(job_id, self.floors(job_id)) for job_id in self._jobs]
        if others != _NONE:
            return [(OTHERS, others), *found]
        return [(job_id, floors) for job_id, floors in found if floors != _NONE]

    def _find(self, job: _JobWorkers) -> Floors:
        slots = job.active.values()
        blocked = max((slot.depth() for slot in slots if slot.blocked), default=ANY)
        if job.lifted and all(slot.blocked for slot in slots):
            return _NONE
        # To those without a CPU the bound is what CPUs are to others: they wait for one another.
        others = max((slot.depth() for slot in slots if not slot.cpu_part()), default=ANY)
        free = max(blocked, others)
        if free < 0:
            free = max(slot.depth() for slot in slots)
        return ANY if job.lifted else blocked, free

    def deepest_blocked(self) -> dict[bytes, int]:
        """By job: the depth of what may be waited for here is more than that."""
        found: dict[bytes, int] = {}
        for slot in self.blocked.values():
            found[slot.key[0]] = max(found.get(slot.key[0], ANY), slot.depth())
        return found

    # ---- past it -----------------------------------------------------------------------------

    def lift(self, now: float) -> None:
        """Let one more of a job start if nothing of it has moved for long, and some are blocked."""
        if not (self.blocked and self.reached()):
            return
        for job_id, job in self._jobs.items():
            if not job.lifted and now >= self._lift_at(job_id, job):
                job.lifted = True
                job.floors = None
        if now >= self._open_at():
            self._opened = True

    def lift_deadline(self) -> float:
        """When the bound may have to be lifted for one more."""
        if not (self.blocked and self.reached()):
            return NEVER
        due = [self._lift_at(job_id, job) for job_id, job in self._jobs.items() if not job.lifted]
        return min(*due, self._open_at()) if due else self._open_at()

    def _open_at(self) -> float:
        """When another job may begin, whatever the others have."""
        if self._opened or not self.holds(OTHERS):
            return NEVER
        return max(job.moved for job in self._jobs.values()) + limits.STALL_S

    def _lift_at(self, job_id: bytes, job: _JobWorkers) -> float:
        waits = self.holds(job_id) and any(slot.blocked for slot in job.active.values())
        return job.moved + limits.STALL_S if waits else NEVER
