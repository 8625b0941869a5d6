"""Attempts that are to end in time: interrupted, then killed, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.benches import RayletBench, done, identity, spec, template
from zray import limits
from zray.core import failures
from zray.core.machine import NEVER
from zray.core.raylet.effects import KillWorker
from zray.protocol import messages as m

WORK = replace(template(), timeout_s=2.0)
CPU = WORK.resources
TASK = identity("t1")
LATE = limits.CANCEL_GRACE_S


@dataclass
class Scene:
    """A node, and a worker of it that has begun a task which is to end within 2 s."""

    bench: RayletBench
    worker: bytes
    begun: list[int]

    def after(self, seconds: float) -> list[Any]:
        """Time passes; what the worker was told, but for what tasks are made of."""
        self.bench.now += seconds
        self.bench.turn()
        return [one for one in self.told() if isinstance(one, m.CancelTask)]

    def told(self) -> list[Any]:
        return self.bench.to_workers.pop(self.worker, [])

    def killed(self) -> bool:
        return KillWorker(self.worker) in self.bench.effects

    def dies(self, began: int = 1) -> None:
        self.bench.raylet.worker_exited(self.worker, began, "signal 9", self.bench.now)
        self.bench.turn()


def scene(*, leased: bool, retried: bool = False) -> Scene:
    bench = RayletBench()
    bench.head(WORK)
    if leased:
        grant = m.Grant(0, identity("lease"), identity("job"), identity("driver"), [*CPU])
        bench.head(grant)
    else:
        bench.give(spec("t1", WORK))
    (worker,) = bench.workers()
    begun = [1]
    bench.raylet.workers.started(worker, 4711, lambda: begun[0])
    bench.worker(worker, m.Deadline(0, TASK, 1, 2.0, 1, retried))
    made = Scene(bench, worker, begun)
    made.told()
    bench.told(m.Message)
    return made


CANCEL = m.CancelTask(0, TASK, 1, False, timed_out=True)
either = pytest.mark.parametrize("leased", [False, True])


@either
def test_what_runs_too_long_is_interrupted_then_its_worker_is_killed(leased: bool) -> None:
    made = scene(leased=leased)
    assert made.bench.raylet.deadline() <= made.bench.now + 2.0
    assert made.after(1.9) == []
    assert made.after(0.1) == [CANCEL]
    assert made.after(LATE - 0.1) == [] and not made.killed()
    assert made.after(0.1) == [] and made.killed()
    made.bench.effects.clear()
    assert made.after(60.0) == [] and not made.killed()  # once is enough


@pytest.mark.parametrize("retried", [False, True])
def test_the_task_of_a_killed_worker_has_the_error(retried: bool) -> None:
    made = scene(leased=False, retried=retried)
    made.after(2.0), made.after(LATE)
    made.dies()
    (told,) = made.bench.told(m.Done)
    (ended,) = told.tasks
    assert ended.status == (m.FAILED if retried else m.FINISHED)
    error = failures.read(ended.results[0].value)
    assert error.code == "ZR-3009" and "(pid 4711, node n1) was killed" in error.message


@pytest.mark.parametrize("retried", [False, True])
def test_a_lease_s_end_says_what_became_of_its_task(retried: bool) -> None:
    made = scene(leased=True, retried=retried)
    made.after(2.0), made.after(LATE)
    made.dies()
    (told,) = made.bench.told(m.LeaseEnded)
    assert told.status == (m.FAILED if retried else m.FINISHED) and told.begun == 1


@either
def test_a_worker_that_dies_in_time_has_crashed(leased: bool) -> None:
    made = scene(leased=leased)
    made.after(1.0)
    made.dies()
    told = made.bench.told(m.Message)
    statuses = [one.status for one in told if isinstance(one, m.LeaseEnded)]
    statuses += [one.tasks[0].status for one in told if isinstance(one, m.Done)]
    assert statuses == [m.CRASHED]
    assert made.bench.raylet.workers.timeouts.deadline() == NEVER


def test_what_ended_in_time_is_left_alone() -> None:
    made = scene(leased=False)
    made.bench.worker(made.worker, m.Done(0, [done(TASK)]))
    assert made.after(60.0) == [] and not made.killed()


@either
def test_what_the_worker_runs_since_is_left_alone(leased: bool) -> None:
    """Of leased tasks nobody says here that they have ended: the counter does."""
    made = scene(leased=leased)
    made.begun[0] = 2
    assert made.after(60.0) == [] and not made.killed()


def test_a_worker_that_answers_that_it_has_ended_is_spared() -> None:
    made = scene(leased=True)
    assert made.after(2.0) == [CANCEL]
    made.bench.worker(made.worker, m.Returned(0, TASK))
    made.after(60.0)
    assert not made.killed()
    made.dies()  # of something else, much later
    (told,) = made.bench.told(m.LeaseEnded)
    assert told.status == m.CRASHED


def test_a_cancel_comes_first() -> None:
    made = scene(leased=False)
    made.bench.head(m.CancelTask(0, TASK, 1, False))
    made.after(2.0), made.after(LATE)
    made.dies()
    (told,) = made.bench.told(m.Done)
    assert told.tasks[0].status == m.CANCELLED
