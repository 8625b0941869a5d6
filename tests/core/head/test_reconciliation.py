"""What a raylet says that it has, against what the head believes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray.core.head.catalog import Catalog
from zray.core.head.definitions import Definitions
from zray.core.head.reconciliation import Reconciliation
from zray.core.head.task_records import ASSIGNED, GONE, READY, TaskRecord
from zray.protocol import messages as m

WORK = template()
JOB = identity("d")
T = identity("t")


class Lives:
    """What is decided about tasks: the machines above the tables take no part here."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def requeue(self, task_id: bytes, record: TaskRecord) -> None:
        self.done.append(("again", task_id))

    def cancel(self, task_id: bytes, record: TaskRecord, force: bool) -> None:
        self.done.append(("cancel", task_id, force))

    def failed_before(self, held: m.HeldTask) -> None:
        self.done.append(("failed before", held.task_id))

    def commit(self, task_id: bytes, record: TaskRecord, outcomes: Any, places: Any) -> None:
        self.done.append(("commit", task_id, places))


class NoActors:
    def announced(self, node: Any, held: list[m.HeldActor]) -> None:
        assert not held


class NoGroups:
    def announced(self, node: Any, held: list[m.HeldBundle]) -> None:
        assert not held


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.lives = Lives()
        self.ended: list[bytes] = []
        holders = self.make_holders()
        definitions = Definitions(
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            catalog=Catalog({}, self.journal.persist, self.outbox),
            recovery=self.recovery,
            hold=holders.hold,
            wake=lambda task: None,
        )
        definitions.take(WORK)
        self.machine = Reconciliation(
            outbox=self.outbox,
            counters=self.counters,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            scheduler=self.scheduler,
            recovery=self.recovery,
            transfers=self.transfers,
            holders=holders,
            definitions=definitions,
            task_manager=self.lives,  # type: ignore[arg-type]
            task_outcomes=self.lives,  # type: ignore[arg-type]
            actors=NoActors(),  # type: ignore[arg-type]
            leases=self.make_leases(),
            placement_groups=NoGroups(),  # type: ignore[arg-type]
            worker_ended=lambda node, worker_id: self.ended.append(worker_id),
        )
        self.n1 = self.node("n1")
        self.job = self.driver("d")

    def given(self, name: str = "t", attempt: int = 1) -> TaskRecord:
        """A task that the head believes to be with the node."""
        record = self.task(spec(name, WORK), WORK, self.job)
        record.attempt = attempt
        self.scheduler.adopt(self.n1.view, identity(name), record)
        return record

    def announce(self, *tasks: m.HeldTask, **more: Any) -> list[m.HeldTask]:
        """The node tells of all that it has; what it is to throw away."""
        objects, holds = more.pop("objects", []), more.pop("holds", [])
        message = m.Announce(0, list(tasks), objects, holds, **more)
        self.machine.on_announce(self.n1, message, 0.0)
        told = self.sent(m.Discard)
        return [task for discard in told.get(self.n1.process_id, []) for task in discard.tasks]


def held(attempt: int = 1, **more: Any) -> m.HeldTask:
    return m.HeldTask(T, attempt, JOB, WORK.template_id, **more)


def test_what_the_node_has_as_believed_stays_there() -> None:
    bench = Bench()
    record = bench.given()
    assert bench.announce(held()) == []
    assert record.state == ASSIGNED and not bench.lives.done


def test_what_got_lost_on_its_way_to_the_node_is_due_again() -> None:
    bench = Bench()
    bench.given()
    lost = bench.given("u")
    assert bench.announce(held()) == []
    assert bench.lives.done == [("again", identity("u"))] and lost.node is None
    assert [*bench.n1.view.assigned] == [T]


def test_what_was_cancelled_meanwhile_does_not_run_again() -> None:
    bench = Bench()
    gone, there = bench.given("u"), bench.given()
    gone.cancelled = there.cancelled = there.forced = True
    assert bench.announce(held()) == []
    assert bench.lives.done == [("cancel", identity("u"), False), ("cancel", T, True)]
    assert gone.state == GONE


@pytest.mark.parametrize(
    "doubt", ["another attempt", "another node", "its end is known", "nobody knows it"]
)
def test_an_attempt_that_does_not_count_any_more_is_thrown_away(doubt: str) -> None:
    bench = Bench()
    if doubt == "another attempt":
        bench.given(attempt=2)
    elif doubt == "another node":
        record = bench.given()
        bench.scheduler.release(T, record)
        bench.scheduler.adopt(bench.node("n2").view, T, record)
    elif doubt == "its end is known":
        record = bench.given()
        bench.scheduler.release(T, record)
        bench.scheduler.push(record)
    assert bench.announce(held()) == [held()]
    assert T not in bench.n1.view.assigned


def test_a_head_that_recovers_takes_what_a_node_has_as_it_is() -> None:
    bench = Bench(awaited="n1")
    assert bench.announce(held(3, failures=2), failed=[held(2)]) == []
    record = bench.tasks[T]
    assert (record.state, record.attempt, record.failures) == (ASSIGNED, 3, 2)
    assert record.node is bench.n1.view and bench.job.unfinished == 1
    assert bench.lives.done == [("failed before", T)]
    assert not bench.members.awaited


def test_a_resubmitted_task_that_a_node_has_leaves_the_queue() -> None:
    bench = Bench(awaited="n1")
    record = bench.task(spec("t", WORK), WORK, bench.job)
    bench.scheduler.push(record)
    assert bench.announce(held()) == []
    assert record.state == ASSIGNED and not bench.scheduler.group_of(record).ready


def test_a_task_whose_outcome_another_node_told_is_not_wanted() -> None:
    bench = Bench(awaited="n1")
    bench.objects.settle(value(T), (identity("n2"),))
    assert bench.announce(held()) == [held()]


def test_workers_that_are_not_named_have_ended_and_jobs_that_are_unknown_are_over() -> None:
    bench = Bench()
    for name in ("w1", "w2"):
        bench.processes.note_worker(bench.n1, identity(name))
    message = m.Announce(0, [], [], [m.Holds(identity("w2"), b"")], [JOB, identity("old")])
    bench.machine.on_announce(bench.n1, message, 0.0)
    assert bench.ended == [identity("w1")]
    assert bench.sent(m.JobEnded) == {bench.n1.process_id: [m.JobEnded(0, identity("old"))]}


def test_of_what_it_keeps_only_what_somebody_knows_may_stay() -> None:
    bench = Bench()
    inner, outer, junk = (object_of(identity(name)) for name in ("inner", "outer", "junk"))
    bench.objects.hold(JOB, outer, process=True)
    objects = [value(identity("inner")), value(identity("junk"))]
    objects.append(value(identity("outer"), contained=[inner]))
    bench.machine.on_announce(bench.n1, m.Announce(0, [], objects, []), 0.0)
    assert bench.sent(m.Free) == {bench.n1.process_id: [m.Free(0, junk)]}
    assert {inner, outer} == bench.objects.records.keys()


def test_values_of_a_task_that_nobody_holds_are_its_outcome() -> None:
    bench = Bench()
    record = bench.task(spec("t", WORK), WORK, bench.job)
    bench.scheduler.push(record)
    bench.announce(objects=[value(T)])
    assert bench.lives.done == [("commit", T, (bench.n1.process_id,))]


def test_tasks_that_a_node_gives_back_are_due_again_wherever() -> None:
    bench = Bench()
    record = bench.given()
    record.near = bench.n1.process_id
    bench.machine.on_returned(bench.n1, m.Returned(0, T + identity("not there")), 0.0)
    assert bench.lives.done == [("again", T)] and record.near == b""
    assert bench.counters["reclaimed"] == 1
    record.state = READY
    bench.machine.on_returned(bench.n1, m.Returned(0, T), 0.0)  # told again
    assert len(bench.lives.done) == 1


def test_a_copy_of_what_was_freed_meanwhile_goes() -> None:
    bench = Bench()
    bench.objects.settle(value(T), (identity("n2"),))
    gone = object_of(identity("gone"))
    bench.machine.on_have(bench.n1, m.Have(0, object_of(T) + gone), 0.0)
    record = bench.objects.get(object_of(T))
    assert record is not None and bench.n1.process_id in record.locations
    assert bench.sent(m.Free) == {bench.n1.process_id: [m.Free(0, gone)]}
