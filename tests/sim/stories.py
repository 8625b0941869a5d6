"""What stories of the simulator share: how far they are, and failures that must come."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any

from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Ref, Step, TaskFailed
from zray.testing.processes.worker import SimWorker

Story = Callable[[Any, Random], Program]


def until_done(cluster: SimCluster, within_s: float = 60.0) -> None:
    cluster.run_until(
        lambda: all(driver.idle() for driver in cluster.drivers if driver.alive), within_s
    )


def runs(cluster: SimCluster, name: str) -> list[int]:
    """How often each task of that name was started, in the order of submission."""
    return [len(deed.runs) for deed in cluster.ledger.tasks.values() if deed.name == name]


def started(cluster: SimCluster, name: str, count: int = 1) -> Callable[[], bool]:
    return lambda: sum(runs(cluster, name)) >= count


def workers(cluster: SimCluster) -> list[SimWorker]:
    return list(cluster.workers.values())


def counter(cluster: SimCluster, name: str) -> int:
    assert cluster.head is not None
    return cluster.head.gcs.counters[name]


def failure(refs: Any) -> Generator[Step, Any, TaskFailed]:
    """A step of a story: the error that a get of these raises, as it must."""
    try:
        yield Get(refs)
    except TaskFailed as error:
        return error
    raise AssertionError("there is a value")


def failures(refs: list[Ref]) -> Generator[Step, Any, list[TaskFailed]]:
    """Steps of a story: the errors of those of these that have no value."""
    errors = []
    for ref in refs:
        try:
            yield Get([ref])
        except TaskFailed as error:
            errors.append(error)
    return errors


def leased(cluster: SimCluster, name: str = "") -> int:
    """How many runs, of tasks of that name or of all, came straight from their submitter."""
    deeds = cluster.ledger.tasks.values()
    return sum(
        run.leased for deed in deeds if deed.name == (name or deed.name) for run in deed.runs
    )


def lessees(cluster: SimCluster) -> list[SimWorker]:
    """The workers that are leased now."""
    return [worker for worker in workers(cluster) if worker.lease is not None]


def burst(driver: Any, seconds: float, count: int, **options: Any) -> list[Ref]:
    return [driver.submit("add", [seconds, 0, n], **options)[0] for n in range(count)]
