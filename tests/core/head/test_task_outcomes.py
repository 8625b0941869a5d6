"""The one outcome of each task: who is told, what is held, and what goes with the task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray.core.head.task_outcomes import TaskOutcomes
from zray.core.head.task_records import GONE, TaskRecord
from zray.core.incidents import Incidents
from zray.errors import InternalFaultError, TaskCancelledError
from zray.protocol import messages as m

WORK = template()
TWO = template("two", returns=2)
NONE = template("none", returns=0)
T, NODE = identity("t"), identity("n1")
OID = object_of(T)


class NoLineage:
    def again(self, outcome: m.Outcome) -> bool:
        raise AssertionError("nothing is made again here")


class Creations:
    """Constructors of actors that will not run."""

    def __init__(self) -> None:
        self.failed: list[bytes] = []

    def creation_failed(self, task_id: bytes, task: TaskRecord, text: str) -> None:
        self.failed.append(task_id)


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.creations = Creations()
        self.woken: list[TaskRecord] = []
        holders = self.make_holders(wake=self.woken.append)
        self.outcomes = TaskOutcomes(
            outbox=self.outbox,
            incidents=Incidents(),
            events=self.events,
            counters=self.counters,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actors,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            recovery=self.recovery,
            holders=holders,
            lineage=NoLineage(),  # type: ignore[arg-type]
            incarnations=self.creations,  # type: ignore[arg-type]
        )
        self.node("n1")
        self.job = self.driver("d")

    def submitted(self, made_of: m.Template = WORK, **more: Any) -> TaskRecord:
        self.job.unfinished += 1
        return self.task(spec("t", made_of, **more), made_of, self.job)

    def counts(self) -> tuple[int, int]:
        return self.job.unfinished, self.job.finished


def test_its_submitter_is_told_and_holds_what_it_returns() -> None:
    bench = Bench()
    record = bench.submitted()
    bench.outcomes.commit(T, record, [value(T)], (NODE,))
    assert [one.value for one in bench.told(bench.job.process_id)] == [b"value"]
    known = bench.objects.get(OID)
    assert known is not None and known.holders == bench.job.process_id
    assert [*known.locations] == [NODE, bench.job.process_id]  # it has the value by then
    assert T not in bench.tasks and record.state == GONE and bench.counts() == (0, 1)


def test_a_task_without_returns_is_told_and_holds_nothing() -> None:
    bench = Bench()
    record = bench.submitted(NONE)
    bench.outcomes.commit(T, record, [value(T, b"")], (NODE,))
    assert len(bench.told(bench.job.process_id)) == 1
    assert not bench.objects.held_by.get(bench.job.process_id)


def test_arguments_are_let_go_and_who_waits_for_its_result_is_woken() -> None:
    bench = Bench()
    argument, nested = object_of(identity("a")), object_of(identity("b"))
    record = bench.submitted(dependencies=[argument], nested=[nested])
    for oid in (argument, nested):
        bench.objects.hold(T, oid)
    waiter = bench.task(spec("u", WORK, dependencies=[OID]), WORK, bench.job)
    waiter.waiting = 1
    bench.objects.make(OID).waiters = [identity("u")]
    bench.outcomes.commit(T, record, [value(T)], (NODE,))
    assert all(bench.objects.records[oid].holders is None for oid in (argument, nested))
    assert bench.woken == [waiter]


def test_what_came_ahead_of_its_task_stands() -> None:
    bench = Bench()
    bench.objects.settle(value(T, b"first"), (identity("n2"),))
    bench.outcomes.commit(T, bench.submitted(), [value(T, b"second")], (NODE,))
    assert [one.value for one in bench.told(bench.job.process_id)] == [b"first"]
    known = bench.objects.get(OID)
    assert known is not None and [*known.locations] == [identity("n2"), NODE]


def test_an_error_is_the_outcome_of_each_return() -> None:
    bench = Bench()
    record = bench.submitted(TWO)
    bench.scheduler.push(record)
    bench.outcomes.cancelled(T, record)
    told = bench.told(bench.job.process_id)
    assert [one.object_id for one in told] == [OID, object_of(T, 1)]
    assert all(one.kind & m.ERROR for one in told)
    assert all(TaskCancelledError.code.encode() in one.value for one in told)
    assert not bench.scheduler.group_of(record).ready


def test_a_task_that_the_head_could_not_deal_with_ends_and_leaves_its_node() -> None:
    bench = Bench()
    record = bench.submitted()
    view = bench.members.nodes[NODE].view
    free = dict(view.free)
    bench.scheduler.adopt(view, T, record)
    bench.outcomes.fault(T, "taking the end of a task", ValueError("odd"), 0.0)
    (told,) = bench.told(bench.job.process_id)
    assert InternalFaultError.code.encode() in told.value and b"odd" in told.value
    assert not view.assigned and view.free == free


def test_one_whose_retries_were_used_up_before_ends_as_its_last_attempt_did() -> None:
    bench = Bench()
    record = bench.submitted()
    record.failure = [m.Outcome(OID, m.ERROR, 3, b"why")]
    bench.outcomes.give_up(record)
    assert [one.value for one in bench.told(bench.job.process_id)] == [b"why"]


@pytest.mark.parametrize("known", [True, False])
def test_who_submits_again_is_told_again_if_there_is_an_outcome(known: bool) -> None:
    bench = Bench()
    made_of = bench.submitted().template
    assert made_of is not None
    bench.tasks.remove(T)
    if known:
        bench.objects.settle(value(T), (NODE,))
    else:
        bench.objects.hold(identity("other"), OID)
    assert bench.outcomes.resend(spec("t", WORK), made_of, bench.job.process_id) is known
    assert len(bench.told(bench.job.process_id)) == known
    held = bench.objects.held_by.get(bench.job.process_id, {})
    assert (OID in held) is not known  # of what is yet to be made it is a holder from now on


def test_while_the_head_recovers_an_outcome_stays_for_holders_that_are_not_back() -> None:
    bench = Bench(awaited="n2")
    record = bench.submitted()
    record.spec = None  # only its node has told of it
    bench.outcomes.commit(T, record, [value(T)], (NODE,))
    assert not bench.objects.sweep(lambda oid, known: False)
    bench.recovery.end()
    assert [oid for oid, _ in bench.objects.sweep(lambda oid, known: False)] == [OID]
