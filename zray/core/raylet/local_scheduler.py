"""The raylet's LocalScheduler: the only authority on this node's resources and workers.

Resources are taken when a worker gets tasks and given back when it has none left or blocks.
Unblocking never waits: it may over-commit, and nothing new starts until that is paid back. Jobs
have their turns; of one the deepest tasks start first, and past the bound on workers no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zray import limits
from zray.core import bundles, resources
from zray.core.machine import NEVER
from zray.core.raylet.gpus import Gpus
from zray.core.raylet.job_queues import JobQueues
from zray.core.raylet.local_records import LocalTask, PoolKey, WorkerSlot
from zray.core.raylet.worker_bound import Floors, WorkerBound
from zray.core.resources import CPU, Needs, Vector


class LocalScheduler:
    """The node's resources, its workers, and the tasks that wait for either."""

    def __init__(self, total: Vector, gpu_count: int, max_workers: int | None = None) -> None:
        """``max_workers``: processes that may have tasks at a time, as NodeOptions has it."""
        self.total = dict(total)
        self._kept = max(total.get(CPU, 0) // limits.RESOURCE_UNIT, 1)  # idle workers
        self.free = dict(total)
        self.gpus = Gpus(gpu_count)
        self.max_workers = max_workers or default_max_workers(total.get(CPU, 0))
        self.bound = WorkerBound(self.max_workers)
        self.active = self.bound.active
        self.blocked = self.bound.blocked
        self.queues: dict[Needs, JobQueues] = {}
        self.queued = 0
        self.queued_bytes = 0
        self.queued_near = 0
        self.given_near = 0  # near tasks that workers were given, in all
        self.queued_jobs: dict[bytes, int] = {}
        self.workers: dict[bytes, WorkerSlot] = {}
        self.idle: dict[PoolKey, dict[bytes, WorkerSlot]] = {}
        self.released: Vector = {}

    # ---- queue -----------------------------------------------------------------------------

    def push(self, task: LocalTask, *, front: bool = False) -> None:
        """A task can start; ``front``: before the others of its depth, but for new actors."""
        task.worker = None
        queue = self.queues.get(task.template.needs)
        if queue is None:
            queue = self.queues[task.template.needs] = JobQueues()
        if front:
            queue.push_front(task)
        else:
            queue.push(task)
        self.queued += 1
        self.queued_bytes += task.bytes()
        self.queued_near += task.near is not None
        job_id = task.assignment.job_id
        self.queued_jobs[job_id] = self.queued_jobs.get(job_id, 0) + 1

    def pop(self, queue: JobQueues) -> LocalTask:
        """Take the next one out of a queue."""
        return self._popped(queue.pop())

    def _popped(self, task: LocalTask) -> LocalTask:
        self.queued -= 1
        self.queued_bytes -= task.bytes()
        self.queued_near -= task.near is not None
        job_id = task.assignment.job_id
        self.queued_jobs[job_id] -= 1
        if not self.queued_jobs[job_id]:
            del self.queued_jobs[job_id]
        return task

    def remove(self, task: LocalTask) -> bool:
        """Take one task out of its queue; False: it is not queued."""
        queue = self.queues.get(task.template.needs)
        if queue is None or not queue.remove(task):
            return False
        self._popped(task)
        return True

    def room(self) -> int:
        """How many more tasks may wait here."""
        if self.queued_bytes >= limits.RAYLET_UNSTARTED_BYTES:
            return 0
        return max(0, limits.RAYLET_UNSTARTED_TASKS - self.queued)

    def reclaim(self, wanted: Needs, count: int) -> list[LocalTask]:
        """Up to ``count`` tasks that have not started, from the end of the queue."""
        queue = self.queues.get(wanted)
        taken: list[LocalTask] = []
        while queue and len(taken) < count:
            taken.append(self._popped(queue.pop_last()))
        return taken

    def take_of(self, group_id: bytes) -> list[LocalTask]:
        """Take all tasks that have not started and need a bundle of the group."""
        taken: list[LocalTask] = []
        for wanted in [one for one in self.queues if bundles.group_of(one) == group_id]:
            queue = self.queues.pop(wanted)
            while queue:
                taken.append(self._popped(queue.pop()))
        return taken

    def take_in(self, job_id: bytes, environment: str) -> list[LocalTask]:
        """Take all tasks of a job that have not started and need that environment, or none."""
        taken: list[LocalTask] = []
        for wanted, queue in self.queues.items():
            if self.pool_key(job_id, wanted, ())[3] == environment:
                for theirs in [one for job, one in queue.jobs() if job == job_id]:
                    found = queue.take_upto(job_id, theirs.deepest, lambda task: True)
                    taken += map(self._popped, found)
        return taken

    def take_near(self) -> list[LocalTask]:
        """Take all near tasks that have not started."""
        taken: list[LocalTask] = []
        for queue in self.queues.values():
            for job_id, theirs in queue.jobs() if self.queued_near else ():
                found = queue.take_upto(job_id, theirs.deepest, lambda task: task.near is not None)
                taken += map(self._popped, found)
        return taken

    # ---- the bound on workers ----------------------------------------------------------------

    def held_back(self) -> list[LocalTask]:
        """Take the head's tasks that are not to start: in the queue they are in the way of others.

        Near ones are not: other nodes may have them at any time.
        """
        taken: list[LocalTask] = []
        if self.queued == self.queued_near:
            return taken
        for wanted, queue in self.queues.items() if self.bound.reached() else ():
            for job_id, _ in queue.jobs():
                floor = _floor(self.bound.floors(job_id), wanted)
                if floor >= 0:
                    found = queue.take_upto(job_id, floor, _may_be_elsewhere)
                    taken.extend(map(self._popped, found))
        return taken

    def _may_start(self, task: LocalTask) -> bool:
        """Whether the bound lets it; an actor may, it has a process to itself."""
        if not self.bound.reached() or task.assignment.actor is not None:
            return True
        floors = self.bound.floors(task.assignment.job_id)
        return task.depth > _floor(floors, task.template.needs)

    # ---- placement -------------------------------------------------------------------------

    def place(
        self, now: float, *, may_fork: bool
    ) -> Iterator[tuple[PoolKey, WorkerSlot | None, list[LocalTask]]]:
        """What can start now: tasks for a worker, or (``may_fork``) for a new one with that key.

        The caller makes the new worker known with ``add_worker`` and calls ``give`` for each.
        """
        for wanted, queue in self.queues.items():
            while queue and resources.fits(self.free, wanted):
                found = self.gpus.pick(wanted)
                if found is None:
                    break
                if not queue.turn_to(self._may_start):
                    break
                task = queue.first()
                key = self.pool_key(task.assignment.job_id, wanted, found[1])
                pool = self.idle.get(key)
                slot = self._chosen(task, pool) if pool else None
                if slot is None and not may_fork:
                    break
                lanes = resources.slots(self.free, wanted) + self._running(wanted)
                yield key, slot, self._batch(queue, task.assignment.job_id, lanes)
                queue.turn(task.assignment.job_id)

    @staticmethod
    def _chosen(task: LocalTask, pool: dict[bytes, WorkerSlot]) -> WorkerSlot:
        """Of idle workers the last one used: its memory is warm; for an actor the first.

        The last may have been made just now, and not be ready.
        """
        order = reversed(pool.values()) if task.assignment.actor is None else iter(pool.values())
        return next(order)

    def _running(self, wanted: Needs) -> int:
        return sum(
            s.busy and s.needs == wanted and not (s.actor or s.lease) for s in self.workers.values()
        )

    @staticmethod
    def batch_size(task: LocalTask) -> int:
        """How many of its kind a worker may have at once: one, or several short ones."""
        if not task.template.short():
            return 1
        by_time = int(limits.WORKER_BATCH_S / max(task.template.seconds or 0.0, 1e-6))
        return max(1, min(limits.WORKER_BATCH_TASKS_MAX, by_time))

    def _batch(self, queue: JobQueues, job_id: bytes, lanes: int) -> list[LocalTask]:
        """Tasks from the head of the queue for one worker: one, or several short ones."""
        share = -(-len(queue) // max(lanes, 1))
        size = min(self.batch_size(queue.first()), share)
        batch = [self._popped(queue.pop())]
        while queue.deepest == batch[0].level and len(batch) < size:
            task = queue.first()
            if not task.template.short() or task.assignment.job_id != job_id:
                break
            batch.append(self._popped(queue.pop()))
        return batch

    @staticmethod
    def pool_key(job_id: bytes, wanted: Needs, gpus: Iterable[int]) -> PoolKey:
        """Which workers may run a job's tasks that need this, on these GPUs."""
        threads, environment = 1, ""
        for name, amount in wanted:
            if bundles.is_cpu(name):
                threads = max(1, amount // limits.RESOURCE_UNIT)
            elif name.startswith(resources.ENVIRONMENT):
                environment = name
        return job_id, tuple(gpus), threads, environment

    # ---- workers ---------------------------------------------------------------------------

    def add_worker(self, slot: WorkerSlot) -> None:
        """A worker is about to start; it is not idle yet."""
        self.workers[slot.worker_id] = slot

    def lacks_spare(self, key: PoolKey, wanted: int) -> bool:
        """Whether the next actors would have to wait for a process. A GPU is taken too seldom."""
        return not key[1] and len(self.idle.get(key, ())) < min(wanted, self._kept)

    def rest(self, slot: WorkerSlot, now: float) -> None:
        """The worker is new, and waits for work."""
        slot.progress = now
        self.idle.setdefault(slot.key, {})[slot.worker_id] = slot

    def withdraw(self, slot: WorkerSlot) -> None:
        """The worker is idle no more: it gets nothing unless it is given it."""
        pool = self.idle.get(slot.key)
        if pool is not None:
            pool.pop(slot.worker_id, None)

    def give(self, slot: WorkerSlot, tasks: list[LocalTask], now: float) -> None:
        """The worker gets these tasks; the first ones take the resources."""
        if not slot.busy:
            slot.needs = tasks[0].template.needs
            slot.gpu_place, slot.gpus = self.gpus.pick(slot.needs) or ("", {})
            resources.take(self.free, slot.needs)
            self.gpus.take(slot.gpu_place, slot.gpus)
            slot.busy = True
            if tasks[0].assignment.actor is None:
                self.bound.add(slot)
            self.bound.moved(slot, now, starts=True)
            slot.progress = now
            self.withdraw(slot)
        for task in tasks:
            task.worker = slot
            slot.inflight[task.task_id] = task
            self.given_near += task.near is not None
            if task.assignment.actor is not None:
                slot.class_name = task.assignment.actor.class_name

    def ended(self, slot: WorkerSlot, task_id: bytes, now: float) -> LocalTask | None:
        """A task left the worker; without any left, its resources are free."""
        task = slot.inflight.pop(task_id, None)
        slot.behind.pop(task_id, None)
        slot.full = False
        slot.condemned.pop(task_id, None)
        slot.progress = now
        self.bound.moved(slot, now)
        if not slot.inflight and slot.lease is None:
            self._rest(slot)
        return task

    def withdrawn(self, slot: WorkerSlot, task_id: bytes) -> None:
        """The worker has not taken the task, and will not: it waits here again, as the next."""
        task = slot.inflight.pop(task_id, None)
        if task is not None:
            self.push(task, front=True)
            self.bound.changed(slot)
        if not slot.inflight and slot.lease is None:
            self._rest(slot)  # what came before has ended

    def last_rested(self, key: PoolKey) -> WorkerSlot | None:
        """The idle worker of a pool that was used last: its memory is warm."""
        pool = self.idle.get(key)
        return next(reversed(pool.values())) if pool else None

    def engage(self, slot: WorkerSlot, wanted: Needs, now: float) -> None:
        """The worker is leased: it holds resources without a task from here."""
        slot.needs = wanted
        resources.take(self.free, wanted)
        slot.busy = True
        slot.was_leased = True
        self.bound.add(slot)
        self.bound.moved(slot, now, starts=True)
        slot.progress = now
        self.withdraw(slot)

    def disengage(self, slot: WorkerSlot, now: float) -> None:
        """Its lease is over, and its resources are free."""
        slot.progress = now
        self.bound.moved(slot, now)
        self._rest(slot)

    def keep(self, slot: WorkerSlot, task_id: bytes, held: Needs) -> LocalTask | None:
        """The worker has become an actor: it keeps ``held`` of what its creation took."""
        task = slot.inflight.pop(task_id, None)
        slot.condemned.clear()
        slot.recalled = False
        self.unblock(slot)
        resources.give(self.free, slot.needs)
        resources.take(self.free, held)
        slot.needs = held
        if not any(bundles.is_gpu(name) for name, _ in held):
            self._release_gpus(slot)
        return task

    def _release_gpus(self, slot: WorkerSlot) -> None:
        self.gpus.give(slot.gpu_place, slot.gpus)
        slot.gpus = {}

    def _rest(self, slot: WorkerSlot) -> None:
        if slot.busy:
            self.unblock(slot)
            resources.give(self.free, slot.needs)
            self._release_gpus(slot)
            slot.busy = False
            slot.needs = ()
            self.bound.remove(slot)
        slot.recalled = False
        slot.condemned.clear()
        if slot.worker_id in self.workers and not slot.exiting:
            self.idle.setdefault(slot.key, {})[slot.worker_id] = slot

    def block(self, slot: WorkerSlot) -> None:
        """The worker's task waits for others: its CPU is theirs meanwhile."""
        if slot.busy and not slot.blocked and not slot.actor:  # actors keep what they hold
            slot.blocked = True
            self.bound.block(slot)
            resources.give(self.free, slot.cpu_part())
            resources.give(self.released, slot.cpu_part())

    def unblock(self, slot: WorkerSlot) -> None:
        """It goes on, with its CPU, whoever else has one."""
        if slot.blocked:
            slot.blocked = False
            self.bound.unblock(slot)
            resources.take(self.free, slot.cpu_part())
            resources.take(self.released, slot.cpu_part())

    def remove_worker(self, slot: WorkerSlot) -> list[LocalTask]:
        """The process is gone; returns what it had, in order of delivery."""
        self.workers.pop(slot.worker_id, None)
        left = list(slot.inflight.values())
        slot.inflight = {}
        slot.behind.clear()
        self._rest(slot)
        self.withdraw(slot)
        return left

    def crowded(self) -> bool:
        """Whether there are more workers than CPUs."""
        if len(self.workers) <= self._kept:
            return False
        return sum(not slot.actor for slot in self.workers.values()) > self._kept

    def surplus(self, starting: PoolKey | None = None) -> list[WorkerSlot]:
        """Idle workers beyond the CPUs, those first that have rested longest.

        ``starting``: a worker of that pool is about to start. Each pool may have so many then:
        where jobs take turns, forking for each turn would take longer than their tasks do.
        """
        idle = [slot for pool in self.idle.values() for slot in pool.values()]
        most = self._kept
        if starting is not None:
            pools = {starting, *(slot.key for slot in self.workers.values() if not slot.actor)}
            most = max(most, min(most * len(pools), self.max_workers)) - 1
        idle.sort(key=lambda slot: slot.progress)
        return idle[: max(0, len(idle) - most)]

    def overrun(self, now: float) -> list[WorkerSlot]:
        """Workers whose started task keeps others waiting that only they can give back."""
        return [s for s in self._crowded() if now >= s.progress + self._patience_s(s)]

    def overrun_deadline(self) -> float:
        """When a task has kept others of its worker from starting for too long."""
        return min([s.progress + self._patience_s(s) for s in self._crowded()], default=NEVER)

    def _crowded(self) -> list[WorkerSlot]:
        return [
            s
            for s in self.active.values()
            if len(s.inflight) > 1 + len(s.behind) and not s.recalled
        ]

    def _patience_s(self, slot: WorkerSlot) -> float:
        idle = resources.fits(self.free, slot.needs) and not self.bound.holds(slot.key[0])
        return limits.RECALL_IDLE_S if idle else limits.RECALL_S


def _floor(floors: Floors, wanted: Needs) -> int:
    return floors[0] if any(bundles.is_cpu(name) for name, _ in wanted) else floors[1]


def _may_be_elsewhere(task: LocalTask) -> bool:
    return task.assignment.actor is None and task.near is None


def default_max_workers(cpu: int) -> int:
    """Of a node with so many CPUs, in units of 1/10000."""
    return max(limits.WORKERS_MIN, limits.WORKERS_PER_CPU * cpu // limits.RESOURCE_UNIT)
