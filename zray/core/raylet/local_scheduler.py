"""The raylet's LocalScheduler: the only authority on this node's resources and workers.

Resources are taken when a worker gets tasks and given back when it has none left or blocks.
Unblocking never waits: it may over-commit, and nothing new starts until that is paid back. The
deepest tasks start first, and past a bound on workers only those that are deeper than the blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zray import limits
from zray.core import bundles, resources
from zray.core.depth_queue import DepthQueue
from zray.core.machine import NEVER
from zray.core.raylet.gpus import Gpus
from zray.core.raylet.local_records import LocalTask, PoolKey, WorkerSlot
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
        self.active: dict[bytes, WorkerSlot] = {}  # those with tasks; none that makes an actor
        self.blocked: dict[bytes, WorkerSlot] = {}
        self._moved = 0.0  # when a worker last got or finished a task
        self._lifted = False  # for too long nothing has moved: one more starts
        self._floors: tuple[int, int] | None = None  # as last told, while nothing has changed
        self._takes_cpu: dict[Needs, bool] = {}
        self.queues: dict[Needs, DepthQueue[LocalTask]] = {}
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
            queue = self.queues[task.template.needs] = DepthQueue()
        if front:
            actors = []
            if task.assignment.actor is None:
                while queue.deepest == task.level and queue.first().assignment.actor is not None:
                    actors.append(queue.pop())
            queue.push_front(task, task.level)
            while actors:
                queue.push_front(actors.pop(), task.level)
        else:
            queue.push(task, task.level)
        self.queued += 1
        self.queued_bytes += task.bytes()
        self.queued_near += task.near is not None
        job_id = task.assignment.job_id
        self.queued_jobs[job_id] = self.queued_jobs.get(job_id, 0) + 1

    def pop(self, queue: DepthQueue[LocalTask]) -> LocalTask:
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
        if queue is None or not queue.remove(task, task.level):
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
        for wanted in [one for one in self._takes_cpu if bundles.group_of(one) == group_id]:
            del self._takes_cpu[wanted]
        return taken

    def take_near(self) -> list[LocalTask]:
        """Take all near tasks that have not started."""
        taken: list[LocalTask] = []
        for queue in self.queues.values():
            if queue and self.queued_near:
                found = queue.take_upto(queue.deepest, lambda task: task.near is not None)
                taken += map(self._popped, found)
        return taken

    # ---- the bound on workers ----------------------------------------------------------------
    #
    # Whoever blocks lets another task have the CPU, and that may block as well. Past the bound
    # only deeper tasks start, for which those that are blocked may wait. But these may wait for
    # others as well: when nothing has moved for a while, one more starts, whatever it is.

    def at_bound(self) -> bool:
        """Whether as many workers have tasks as the node allows."""
        return len(self.active) >= self.max_workers

    def floors(self) -> tuple[int, int]:
        """Only deeper tasks start, of those that take a CPU and of the others; -1: any."""
        if not self.at_bound():
            return -1, -1
        if self._floors is None:
            self._floors = self._find_floors()
        return self._floors

    def _find_floors(self) -> tuple[int, int]:
        blocked = max((slot.depth() for slot in self.blocked.values()), default=-1)
        if self._lifted and self.active.keys() <= self.blocked.keys():
            return -1, -1
        # To those without a CPU the bound is what CPUs are to others: they wait for one another.
        takes_cpu = self._takes_cpu
        for slot in self.active.values():
            if slot.needs not in takes_cpu:
                takes_cpu[slot.needs] = bool(slot.cpu_part())
        others = [slot.depth() for slot in self.active.values() if not takes_cpu[slot.needs]]
        free = max(blocked, *others) if others else blocked
        if free < 0:
            free = max(slot.depth() for slot in self.active.values())
        return -1 if self._lifted else blocked, free

    def _floor(self, wanted: Needs) -> int:
        cpu, free = self.floors()
        return cpu if any(bundles.is_cpu(name) for name, _ in wanted) else free

    def deepest_blocked(self) -> int:
        """The depth of what may be waited for here is more than that; -1: nobody waits."""
        return max((slot.depth() for slot in self.blocked.values()), default=-1)

    def _held_back(self, task: LocalTask, wanted: Needs) -> bool:
        """Whether it is not to start; an actor may, it has a process to itself."""
        return (
            self.at_bound() and task.assignment.actor is None and task.depth <= self._floor(wanted)
        )

    def held_back(self) -> list[LocalTask]:
        """Take the head's tasks that are not to start: in the queue they are in the way of others.

        Near ones are not: other nodes may have them at any time.
        """
        taken: list[LocalTask] = []
        if self.queued == self.queued_near:
            return taken
        for wanted, queue in self.queues.items():
            if not queue or not self.at_bound():
                continue
            floor = self._floor(wanted)
            if floor >= 0:
                found = queue.take_upto(floor, _may_be_elsewhere)
                taken.extend(map(self._popped, found))
        return taken

    def lift(self, now: float) -> None:
        """Let one more start if nothing has moved for long, and some are blocked."""
        if not (self.blocked or self._lifted):
            return
        self._floors = None
        self._lifted = now >= self.lift_deadline() or (self._lifted and self.at_bound())

    def lift_deadline(self) -> float:
        """When the bound on workers may have to be lifted for one more."""
        waiting = self.blocked and not self._lifted and self.at_bound()
        return self._moved + limits.STALL_S if waiting else NEVER

    def _move(self, now: float) -> None:
        self._floors = None
        self._moved = now
        self._lifted = False

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
                task = queue.first()
                if self._held_back(task, wanted):
                    break
                key = self.pool_key(task.assignment.job_id, wanted, found[1])
                pool = self.idle.get(key)
                slot = self._chosen(task, pool) if pool else None
                if slot is None and not may_fork:
                    break
                lanes = resources.slots(self.free, wanted) + self._running(wanted)
                yield key, slot, self._batch(queue, task.assignment.job_id, lanes)

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

    def _batch(self, queue: DepthQueue[LocalTask], job_id: bytes, lanes: int) -> list[LocalTask]:
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
        self._floors = None
        if not slot.busy:
            slot.needs = tasks[0].template.needs
            slot.gpu_place, slot.gpus = self.gpus.pick(slot.needs) or ("", {})
            resources.take(self.free, slot.needs)
            self.gpus.take(slot.gpu_place, slot.gpus)
            slot.busy = True
            if tasks[0].assignment.actor is None:
                self.active[slot.worker_id] = slot
            self._move(now)
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
        self._floors = None
        task = slot.inflight.pop(task_id, None)
        slot.behind.pop(task_id, None)
        slot.full = False
        slot.condemned.pop(task_id, None)
        slot.progress = now
        self._moved = now
        if not slot.inflight and slot.lease is None:
            self._rest(slot)
        return task

    def withdrawn(self, slot: WorkerSlot, task_id: bytes) -> None:
        """The worker has not taken the task, and will not: it waits here again, as the next."""
        task = slot.inflight.pop(task_id, None)
        if task is not None:
            self.push(task, front=True)
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
        self.active[slot.worker_id] = slot
        self._move(now)
        slot.progress = now
        self.withdraw(slot)

    def disengage(self, slot: WorkerSlot, now: float) -> None:
        """Its lease is over, and its resources are free."""
        slot.progress = now
        self._moved = now
        self._rest(slot)

    def keep(self, slot: WorkerSlot, task_id: bytes, held: Needs) -> LocalTask | None:
        """The worker has become an actor: it keeps ``held`` of what its creation took."""
        self._floors = None
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
        self._floors = None
        if slot.busy:
            self.unblock(slot)
            resources.give(self.free, slot.needs)
            self._release_gpus(slot)
            slot.busy = False
            slot.needs = ()
            self.active.pop(slot.worker_id, None)
        slot.recalled = False
        slot.condemned.clear()
        if slot.worker_id in self.workers and not slot.exiting:
            self.idle.setdefault(slot.key, {})[slot.worker_id] = slot

    def block(self, slot: WorkerSlot) -> None:
        """The worker's task waits for others: its CPU is theirs meanwhile."""
        if slot.busy and not slot.blocked and not slot.actor:  # actors keep what they hold
            self._floors = None
            slot.blocked = True
            self.blocked[slot.worker_id] = slot
            resources.give(self.free, slot.cpu_part())
            resources.give(self.released, slot.cpu_part())

    def unblock(self, slot: WorkerSlot) -> None:
        """It goes on, with its CPU, whoever else has one."""
        if slot.blocked:
            self._floors = None
            slot.blocked = False
            del self.blocked[slot.worker_id]
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
        idle = resources.fits(self.free, slot.needs) and not self.at_bound()
        return limits.RECALL_IDLE_S if idle else limits.RECALL_S


def _may_be_elsewhere(task: LocalTask) -> bool:
    return task.assignment.actor is None and task.near is None


def default_max_workers(cpu: int) -> int:
    """Of a node with so many CPUs, in units of 1/10000."""
    return max(limits.WORKERS_MIN, limits.WORKERS_PER_CPU * cpu // limits.RESOURCE_UNIT)
