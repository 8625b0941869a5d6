"""What a workload would do on an imagined cluster: when it is done, and where its tasks wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from msgspec import Struct

from zray import limits
from zray.errors import WorkloadError
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing import workload as workloads
from zray.testing.imagined_cluster import ImaginedCluster
from zray.testing.processes.contexts import TaskContext
from zray.testing.processes.driver import SimDriver
from zray.testing.processes.steps import Library, Program, Ref, Returned, Sleep, Wait
from zray.testing.workload import Workload

OVERHEAD_S = 100e-6  # of a worker, for each task: measured, see docs/simulate.md
TOGETHER_S = 0.001  # what is submitted within this is submitted at once
VALUES_BYTES_MAX = 256 << 20  # of all results in this process's memory; larger ones are scaled
FOREVER_S = 1e10
STUCK_S = 600.0  # simulated, without any task that begins, ends or runs
READY_S = 60.0


class Node(Struct, frozen=True):
    """One imagined node. ``utilisation``: of its CPUs' time, until the last task has ended."""

    name: str
    resources: dict[str, float]
    tasks: int
    busy_s: float
    utilisation: float


class Waits(Struct, frozen=True):
    """For what tasks have waited, in seconds of all tasks together.

    ``dependencies``: for tasks whose results they need; ``queue``: for room on a node, and to be
    sent there; ``transfer``: for large arguments that were elsewhere.
    """

    dependencies: float
    queue: float
    transfer: float


class Forecast(Struct, frozen=True):
    """Times in seconds. ``work_s``: that all functions run; ``critical_path_s``: no cluster is
    faster than that. ``queue_p50_s`` and the others: of the waits for room of single tasks.
    ``scale``: so many bytes are one byte here, where results would not fit into memory."""

    tasks: int
    makespan_s: float
    utilisation: float
    waits: Waits
    queue_p50_s: float
    queue_p99_s: float
    queue_max_s: float
    work_s: float
    critical_path_s: float
    nodes: list[Node]
    seed: int
    scale: float
    simulated_events: int


class Terms(NamedTuple):
    """What is imagined beside the nodes."""

    latency_s: float = 0.0003
    bytes_per_s: float = 1e9
    overhead_s: float = OVERHEAD_S
    seed: int = 0


def run_task(context: TaskContext, seconds: float, size: int, padding: bytes, *_: Any) -> Program:
    """One of the recorded tasks."""
    yield Sleep(seconds)
    return Returned(0, size=size)


LIBRARY = Library({"task": run_task}, {}, {})


class _Program:
    """What the driver does: it submits what was recorded, when it was, and waits for all."""

    def __init__(self, workload: Workload, terms: Terms, scale: float) -> None:
        self._workload = workload
        self.tasks = len(workload.tasks)
        self._terms = terms
        self._scale = scale
        self.submitted: list[float] = []
        self.ids: list[bytes] = []
        self.__name__ = "workload"

    def __call__(self, driver: SimDriver, random: Random) -> Program:
        clock, start = driver.clock, driver.clock.now
        refs: list[Ref] = []
        for task in self._workload.tasks:
            due = start + task.submitted_s
            if due - clock.now > TOGETHER_S:
                yield Sleep(due - clock.now)
            needs = dict(task.resources)
            cpus = needs.pop("CPU", 0.0)
            others = {name: round(value * limits.RESOURCE_UNIT) for name, value in needs.items()}
            seconds = task.seconds + self._terms.overhead_s
            padding = bytes(self._scaled(task.argument_bytes))
            given = (seconds, self._scaled(task.result_bytes), padding)
            waits_for = [refs[number] for number in task.after]
            (ref,) = driver.submit("task", (*given, *waits_for), cpus=cpus, resources=others)
            refs.append(ref)
            self.ids.append(ref.oid[:16])
            self.submitted.append(clock.now)
        yield Wait(refs, FOREVER_S)  # values stay where they are

    def _scaled(self, size: int) -> int:
        """What is large stays so, since it goes another way than what is small."""
        if size <= limits.INLINE_BYTES_MAX:
            return size
        return max(limits.INLINE_BYTES_MAX + 1, round(size / self._scale))


class _Arrivals:
    """When tasks came to their nodes, and when their arguments were there."""

    def __init__(self, cluster: ImaginedCluster) -> None:
        self._clock = cluster.clock
        self.came: dict[bytes, float] = {}
        self.whole: dict[bytes, float] = {}
        for raylet in cluster.raylets:
            self._watch(raylet)

    def _watch(self, raylet: Any) -> None:
        take, tasks = raylet.take, raylet.raylet.tasks
        ready = tasks.ready

        def taken(payload: codec.Payload) -> None:
            for message in payload.messages:
                if isinstance(message, m.Tasks):
                    for assignment in message.tasks:
                        if assignment.spec.dependencies:
                            self.came[assignment.spec.task_id] = self._clock.now
            take(payload)

        def is_whole(task: Any) -> None:
            if task.assignment.spec.dependencies:
                self.whole[task.task_id] = self._clock.now
            ready(task)

        raylet.take, tasks.ready = taken, is_whole


def forecast(workload: Workload, nodes: Sequence[Mapping[str, float]], terms: Terms) -> Forecast:
    """Run a workload on a cluster of such nodes; the same arguments give the same numbers.

    Args:
        nodes: the resources of each, in whole units.

    Raises:
        WorkloadError: a task needs what no node has, or the cluster comes to rest before all have
            ended.
    """
    workloads.fits(workload, nodes)
    large = sum(
        size
        for task in workload.tasks
        for size in (task.result_bytes, task.argument_bytes)
        if size > limits.INLINE_BYTES_MAX
    )
    scale = max(1.0, large / VALUES_BYTES_MAX)
    cluster = ImaginedCluster(
        LIBRARY,
        nodes,
        seed=terms.seed,
        latency_s=terms.latency_s,
        bytes_per_s=terms.bytes_per_s / scale,
    )
    clock = cluster.clock
    began = clock.now
    while not cluster.ready():
        clock.step()
        if clock.now - began > READY_S:
            raise WorkloadError("the imagined cluster has not come up: its latency is too high")
    arrivals = _Arrivals(cluster)
    program = _Program(workload, terms, scale)
    start = clock.now
    thread = cluster.driver.run(program, terms.seed)
    _run(cluster, lambda: thread.done, program)
    if cluster.observer.failure is not None:
        raise WorkloadError(f"a task failed in the imagined cluster: {cluster.observer.failure}")
    ended = cluster.observer.ended_at
    lost = sum(task_id not in ended for task_id in program.ids)
    if lost:
        raise WorkloadError(
            f"{lost:,} of {len(program.ids):,} tasks came to nothing in the imagined cluster: its "
            "values are on their way for longer than its processes wait for each other; imagine "
            "more --bandwidth"
        )
    return _summary(workload, cluster, program, arrivals, start, terms, scale)


def _run(cluster: ImaginedCluster, done: Any, program: _Program) -> None:
    clock, observer = cluster.clock, cluster.observer
    last, moved_at = (-1, -1), clock.now
    while not done():
        clock.step()
        if clock.now - moved_at > STUCK_S:
            submitted = len(program.submitted)
            moved = observer.moves, submitted
            still = moved == last and not observer.running
            if still and submitted == program.tasks:
                raise WorkloadError(
                    f"the imagined cluster has come to rest when {len(observer.ended_at):,} tasks "
                    "had ended: what is left waits for something that does not come, or its values "
                    "need more --bandwidth"
                )
            last, moved_at = moved, clock.now


def _summary(
    workload: Workload,
    cluster: ImaginedCluster,
    program: _Program,
    arrivals: _Arrivals,
    start: float,
    terms: Terms,
    scale: float,
) -> Forecast:
    observer = cluster.observer
    ended = [observer.ended_at[task_id] for task_id in program.ids]
    makespan = cluster.clock.now - start
    for_dependencies = for_transfer = 0.0
    queued: list[float] = []
    busy = {raylet.name: 0.0 for raylet in cluster.raylets}
    counts = dict.fromkeys(busy, 0)
    for number, task in enumerate(workload.tasks):
        task_id, submitted = program.ids[number], program.submitted[number]
        known = max((ended[other] for other in task.after), default=submitted)
        known = max(known, submitted)
        began = observer.began[task_id]
        came = arrivals.came.get(task_id, known)
        transfer = max(0.0, min(began, arrivals.whole.get(task_id, came)) - max(came, known))
        for_dependencies += known - submitted
        for_transfer += transfer
        queued.append(max(0.0, began - known - transfer))
        name = observer.places[task_id].raylet.name
        busy[name] += (ended[number] - began) * task.resources.get("CPU", 0.0)
        counts[name] += 1
    nodes = [
        Node(
            raylet.name,
            resources := {
                name: amount / limits.RESOURCE_UNIT for name, amount in raylet.raylet.info.resources
            },
            counts[raylet.name],
            busy[raylet.name],
            _share(busy[raylet.name], resources.get("CPU", 0.0) * makespan),
        )
        for raylet in cluster.raylets
    ]
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    queued.sort()
    return Forecast(
        tasks=len(workload.tasks),
        makespan_s=makespan,
        utilisation=_share(sum(busy.values()), cpus * makespan),
        waits=Waits(for_dependencies, sum(queued), for_transfer),
        queue_p50_s=queued[len(queued) // 2],
        queue_p99_s=queued[min(len(queued) - 1, len(queued) * 99 // 100)],
        queue_max_s=queued[-1],
        work_s=sum(task.seconds for task in workload.tasks),
        critical_path_s=workloads.critical_path_s(workload),
        nodes=nodes,
        seed=terms.seed,
        scale=scale,
        simulated_events=cluster.clock.events,
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
