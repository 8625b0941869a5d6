"""The lives of worker processes, without the raylet."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import reports
from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.effects import KillWorker, StartWorker
from zray.core.raylet.local_records import PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.workers import Workers
from zray.ids import IdSource
from zray.protocol import messages as m

JOB = b"job".ljust(16, b"\0")
KEY: PoolKey = (JOB, (), 1, "")


class Requests:
    """Which workers something still has to be done for."""

    def __init__(self) -> None:
        self.busy: set[bytes] = set()

    def employ(self, worker_id: bytes, job_id: bytes) -> None:
        assert job_id == JOB

    def idle(self, worker_id: bytes) -> bool:
        return worker_id not in self.busy


class Bench:
    def __init__(self, cpus: int = 4) -> None:
        self.effects: list[Any] = []
        self.told: list[m.Message] = []
        self.outbox: Outbox[bytes] = Outbox()
        self.requests = Requests()
        total = {"CPU": cpus * limits.RESOURCE_UNIT}
        self.scheduler = LocalScheduler(total, 0, None)
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        self.workers = Workers(
            node="n1",
            ids=IdSource(b"raylet00"),
            outbox=self.outbox,
            scheduler=self.scheduler,
            worker_requests=self.requests,  # type: ignore[arg-type]
            effect=self.effects.append,
            setup=lambda key: m.Setup(0, key[0], job, bytes(16), "n1", True, "machine", [], ""),
            tell_head=self.told.append,
            reports=reports(),
        )

    def start(self) -> WorkerSlot:
        slot = self.workers.start(KEY)
        self.workers.started(slot.worker_id, 4711, int)
        return slot


def test_a_worker_is_asked_for_and_told_who_it_is_first() -> None:
    bench = Bench()
    slot = bench.start()
    assert bench.effects == [StartWorker(slot.worker_id, KEY)]
    assert [type(message) for message in bench.outbox.take()[slot.worker_id]] == [m.Setup]
    assert bench.workers.named(slot.worker_id, "a driver") == "worker 4711"
    assert bench.workers.named(bytes(16), "a driver") == "a driver"


def test_a_worker_is_killed_once_for_the_first_reason() -> None:
    bench = Bench()
    slot = bench.start()
    bench.effects.clear()
    bench.workers.kill(slot, "its job has ended")
    bench.workers.kill(slot, "it does not answer")
    assert bench.effects == [KillWorker(slot.worker_id)] and bench.workers.killed(slot.worker_id)
    assert bench.workers.exited(slot, 1, "signal 9", 0.0) == "its job has ended"
    assert not bench.workers.killed(slot.worker_id)


def test_workers_that_cannot_start_are_followed_later_and_later() -> None:
    bench = Bench()
    now, pauses = 128.0, []
    for _ in range(8):
        assert bench.workers.may_start(now)
        bench.workers.exited(bench.start(), 0, "exit code 1; no module", now)
        assert not bench.workers.may_start(now)
        pauses.append(bench.workers.deadline() - now)
        now = bench.workers.deadline()
    assert pauses[:2] == pytest.approx([limits.FORK_RETRY_FIRST_S, 2 * limits.FORK_RETRY_FIRST_S])
    assert pauses[-2:] == pytest.approx([limits.FORK_RETRY_MAX_S] * 2)
    (line,) = bench.told[0].lines  # type: ignore[attr-defined]
    assert "ended before it began anything (exit code 1)" in line


def test_one_that_has_begun_something_or_was_meant_to_end_delays_nobody() -> None:
    bench = Bench()
    bench.workers.exited(bench.start(), 1, "signal 11", 0.0)
    slot = bench.start()
    bench.workers.let_go(slot)
    bench.workers.exited(slot, 0, "exit code 0", 0.0)
    assert bench.workers.may_start(0.0) and not bench.told


def test_only_workers_that_nobody_waits_for_are_retired() -> None:
    bench = Bench()
    free, busy = bench.start(), bench.start()
    bench.requests.busy.add(busy.worker_id)
    bench.outbox.take()
    bench.workers.retire([free, busy])
    assert free.exiting and not busy.exiting
    assert list(bench.outbox.take()) == [free.worker_id]


def test_a_task_that_does_not_obey_a_cancel_costs_its_worker() -> None:
    bench = Bench()
    slot = bench.start()
    slot.condemn(b"task".ljust(16, b"\0"), 5.0)
    assert bench.workers.deadline() == 5.0
    bench.workers.tend(4.9)
    assert not bench.workers.killed(slot.worker_id)
    bench.workers.tend(5.0)
    assert bench.workers.killed(slot.worker_id) and bench.workers.deadline() == NEVER


def test_an_incarnation_that_is_over_kills_all_and_tells_none() -> None:
    bench = Bench()
    slots = [bench.start() for _ in range(3)]
    bench.effects.clear()
    bench.workers.kill_all()
    assert bench.effects == [KillWorker(slot.worker_id) for slot in slots]
    assert not bench.outbox


def test_one_that_takes_no_more_is_let_go_once_nothing_depends_on_it() -> None:
    bench = Bench()
    slot = bench.start()
    bench.outbox.take()
    slot.busy = True
    bench.requests.busy.add(slot.worker_id)
    bench.workers.on_exiting(slot, m.Exiting(0, ""), 0.0)
    bench.workers.tend(0.0)
    slot.busy = False  # its task has ended
    bench.workers.tend(0.0)
    assert not bench.outbox and slot.exiting

    bench.requests.busy.clear()
    bench.workers.tend(0.0)
    bench.workers.tend(0.0)
    assert [type(message) for message in bench.outbox.take()[slot.worker_id]] == [m.Exit]
    bench.workers.exited(slot, 0, "exit code 0", 0.0)
    assert bench.workers.may_start(0.0) and not bench.told


def test_after_several_in_a_row_what_waits_for_one_waits_in_vain() -> None:
    bench = Bench()
    now = 128.0
    for number in range(limits.STILLBORN_MAX):
        assert not bench.workers.hopeless(KEY), number
        bench.workers.exited(bench.start(), 0, "exit code 1; no module", now)
        bench.workers.exited(bench.start(), 0, "exit code 1", now)  # together with that one
        now = bench.workers.deadline()
        assert bench.workers.may_start(now)
    why = bench.workers.hopeless(KEY)
    assert "node n1 cannot run it: the last 8 workers" in why and why.endswith("by exit code 1")
    another_environment = (*KEY[:3], "environment:x")
    assert not bench.workers.hopeless(another_environment)
    bench.workers.exited(bench.start(), 1, "signal 9", now)
    assert not bench.workers.hopeless(KEY)


def test_while_another_of_the_program_works_no_end_is_one_too_many() -> None:
    bench = Bench()
    works = bench.workers.start(KEY)
    bench.workers.started(works.worker_id, 4712, lambda: 3)
    now = 128.0
    for _ in range(3 * limits.STILLBORN_MAX):
        bench.scheduler.remove_worker(slot := bench.start())
        bench.workers.exited(slot, 0, "exit code 1", now)
        now = bench.workers.deadline()
        assert bench.workers.may_start(now) and not bench.workers.hopeless(KEY)


def test_once_one_has_begun_something_there_is_hope_though_it_lives_on() -> None:
    bench = Bench()
    now = 128.0
    for _ in range(limits.STILLBORN_MAX):
        bench.scheduler.remove_worker(slot := bench.start())
        bench.workers.exited(slot, 0, "exit code 1", now)
        now = bench.workers.deadline()
    assert bench.workers.hopeless(KEY)
    begun = [0]
    slot = bench.workers.start(KEY)
    bench.workers.started(slot.worker_id, 4712, lambda: begun[0])
    assert bench.workers.hopeless(KEY)
    begun[0] = 1
    assert not bench.workers.hopeless(KEY)


def test_with_its_job_such_a_row_is_forgotten() -> None:
    bench = Bench()
    now = 128.0
    for _ in range(limits.STILLBORN_MAX):
        bench.workers.exited(bench.start(), 0, "exit code 1", now)
        now = bench.workers.deadline()
    bench.workers.end_job(JOB, now)
    assert not bench.workers.hopeless(KEY)
