"""The life of a task: taken once, started when it can be, retried, cancelled, and ended once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import FUNCTION, UNIT, done, identity, object_of, spec, template, value
from tests.core.head.tables import Machines
from zray import limits
from zray.core.head.actor_records import ActorRecord
from zray.core.head.members import Member, NodeRow
from zray.errors import NameNotOfferedError, NodeDiedError, ProtocolError, TaskCancelledError
from zray.protocol import messages as m

WORK = template(retries=1)
ONCE = template("once", retries=0)
NEW = msgspec.structs.replace(template("new"), function_id=b"g" * 16)  # not durable yet
T, U, WORKER = identity("t"), identity("u"), identity("w")
OID = object_of(T)


class Bench(Machines):
    """Node n1 with two processors, and driver d."""

    def __init__(self, *, awaited: str = "", resumed: bool = False) -> None:
        super().__init__(WORK, ONCE, awaited=awaited)
        self.definitions.take(NEW)
        self.n1 = self.node("n1", 2)
        self.job = self.driver("d", resumed=resumed)

    def submit(self, *specs: m.TaskSpec, by: Member | None = None, job: str = "d") -> None:
        message = m.Submit(7, identity(job), identity(job), list(specs))
        self.task_manager.on_submit(by or self.job, message, 0.0)

    def end(self, *ends: m.TaskDone, seq: int = 1) -> None:
        self.task_manager.on_done(self.n1, m.Done(seq, list(ends)), 0.0)

    def cancel(self, task_id: bytes, *, recursive: bool = False) -> None:
        self.task_manager.on_cancel(self.job, m.Cancel(0, task_id, False, recursive), 0.0)

    def values(self) -> list[bytes]:
        """Of the outcomes that the driver is told."""
        return [outcome.value for outcome in self.told(self.job.process_id)]


def error_of(value: bytes, error: Any) -> bool:
    return error.code.encode() in value


# ---- taken -------------------------------------------------------------------------------------


def test_who_submits_again_gets_the_same_task_and_later_its_outcome() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    bench.submit(spec("t", WORK))
    assert bench.job.unfinished == 1 and bench.starts() == [(T, 1)]
    bench.end(done(T))
    assert bench.values() == [b"value"]
    bench.submit(spec("t", WORK))
    assert bench.values() == [b"value"] and bench.starts() == []


@pytest.mark.parametrize("node", [True, False])
def test_tasks_of_a_job_that_has_ended_are_refused(node: bool) -> None:
    bench = Bench()
    bench.submit(spec("t", WORK), by=bench.n1 if node else bench.job, job="over")
    assert not bench.tasks
    sent = bench.outbox.take()
    if node:  # it may not know yet, and ends what runs for the job
        assert sent == {bench.n1.process_id: [m.JobEnded(0, identity("over"))]}
    else:
        ((told,),) = sent.values()
        assert isinstance(told, m.Rejected) and (told.about, told.code) == (7, ProtocolError.code)


def test_a_task_of_a_template_that_was_never_sent_is_refused_alone() -> None:
    bench = Bench()
    bench.submit(spec("u", template("never sent")), spec("t", WORK))
    (refused,) = bench.sent(m.Rejected)[bench.job.process_id]
    assert refused.code == ProtocolError.code and U.hex() in refused.text
    assert bench.starts() == [(T, 1)] and bench.job.unfinished == 1


def test_a_name_that_no_node_offers_is_an_error_at_once() -> None:
    bench = Bench()
    named = msgspec.structs.replace(template("sum"), by_name=True)
    bench.definitions.take(named)
    bench.submit(spec("t", named))
    (told,) = bench.values()
    assert error_of(told, NameNotOfferedError) and not bench.tasks
    bench.offers.learn(["sum"])  # as of a node that may come back
    bench.submit(spec("u", named))
    assert bench.values() == [] and U in bench.tasks


# ---- started -----------------------------------------------------------------------------------


def test_a_task_starts_when_the_last_of_its_arguments_has_come() -> None:
    bench = Bench()
    bench.submit(spec("u", WORK, dependencies=[OID, object_of(identity("v"))]))
    bench.submit(spec("t", WORK), spec("v", WORK))
    assert bench.starts() == [(T, 1), (identity("v"), 1)]
    bench.end(done(T))
    assert bench.starts() == []
    bench.end(done(identity("v")), seq=2)
    assert bench.starts() == [(U, 1)]


def test_a_task_starts_when_its_function_is_durable() -> None:
    bench = Bench()
    bench.definitions.on_export(bench.job, m.Export(0, NEW.function_id, "new", b"code"), 0.0)
    bench.submit(spec("t", NEW))
    assert bench.starts() == []
    bench.commit()
    assert bench.starts() == [(T, 1)]


# ---- ended -------------------------------------------------------------------------------------


def test_a_crash_is_retried_as_often_as_it_may_and_then_told() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    error = m.Outcome(OID, m.ERROR, 3, b"why")
    for attempt in (1, 2):
        assert bench.values() == [] and bench.starts() == [(T, attempt)]
        bench.end(done(T, attempt, m.CRASHED, results=[error]), seq=attempt)
    assert bench.values() == [b"why"] and bench.starts() == []
    known = bench.objects.get(OID)
    assert known is not None and not known.locations  # a node keeps nothing of a crash


def test_the_end_of_an_attempt_that_counts_no_more_changes_nothing_and_its_copy_goes() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    assert bench.starts() == [(T, 1)]
    bench.end(done(T, 1, m.CRASHED, results=[]))
    assert bench.starts() == [(T, 2)]
    bench.outbox.take()
    bench.end(done(T, 1, results=[value(T, b"late")]), seq=2)
    assert bench.sent(m.Free) == {bench.n1.process_id: [m.Free(0, OID)]}
    assert bench.values() == [] and bench.counters["stale"] == 1
    bench.end(done(T, 2), seq=3)
    bench.end(done(T, 2), seq=3)  # told again
    assert bench.values() == [b"value"] and bench.job.finished == 1


def test_a_worker_holds_what_it_has_kept_of_a_task() -> None:
    bench = Bench()
    argument = object_of(identity("argument"))
    bench.objects.settle(value(identity("argument")), (bench.n1.process_id,))
    bench.submit(spec("t", WORK, dependencies=[argument]))
    bench.starts()
    bench.end(done(T, borrowed=[argument], worker_id=WORKER))
    assert not bench.objects.sweep(lambda oid, known: False)
    assert WORKER in bench.n1.workers  # with whose end the hold ends
    bench.objects.vanish(WORKER)
    assert [oid for oid, _ in bench.objects.sweep(lambda oid, known: False)] == [argument]


def test_an_end_is_acknowledged_when_what_follows_of_it_is_durable() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    bench.starts()
    bench.end(done(T), seq=1)
    assert bench.acknowledged(bench.n1) == [1]
    info = m.ActorInfo("Counter", FUNCTION, [])
    made_of = bench.definitions.templates[WORK.template_id]
    job = bench.job.process_id
    record = ActorRecord(info, spec("u", WORK), made_of, job, job)
    bench.actors.add(record)
    bench.incarnations.launch(record, 0.0)
    bench.starts()
    bench.end(done(U, worker_id=WORKER), seq=0)  # others follow
    bench.end(seq=2)
    assert bench.acknowledged(bench.n1) == [1]
    bench.commit()
    assert bench.acknowledged(bench.n1) == [2]
    bench.end(seq=3)
    assert bench.acknowledged(bench.n1) == [3]  # nothing more has followed


# ---- cancelled ---------------------------------------------------------------------------------


def test_a_cancelled_task_ends_where_it_is() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    bench.starts()
    bench.submit(spec("u", WORK))
    bench.cancel(U)
    assert [error_of(told, TaskCancelledError) for told in bench.values()] == [True]
    bench.cancel(T)
    asked = bench.sent(m.CancelTask)
    assert asked == {bench.n1.process_id: [m.CancelTask(0, T, 1, False)]} and T in bench.tasks
    bench.end(done(T, 1, m.CRASHED, results=[]))  # which is not retried any more
    assert [error_of(told, TaskCancelledError) for told in bench.values()] == [True]
    assert bench.starts() == []


def test_a_cancel_by_somebody_else_that_overtakes_its_task_counts() -> None:
    """Who has a reference may have got it by a faster way than that of the task to the head."""
    bench = Bench()
    other = bench.driver("e")
    for task_id in (T, U):
        bench.task_manager.on_cancel(other, m.Cancel(0, task_id, False, False), 0.0)
    bench.submit(spec("t", WORK), spec("v", WORK))
    assert bench.tasks.get(T) is None and bench.tasks.get(identity("v")) is not None
    promise = m.Promise(0, bench.job.process_id, object_of(U))
    bench.holders.on_promise(bench.job, promise, 1.0)
    (passed_on,) = bench.sent(m.Cancel)[bench.job.process_id]
    assert (passed_on.task_id, passed_on.target) == (U, bench.job.process_id)
    bench.holders.on_promise(bench.job, promise, 1.0)
    assert not bench.sent(m.Cancel)


def test_a_cancel_that_is_for_nothing_is_forgotten() -> None:
    bench = Bench()
    kept = bench.holders.early_cancels
    for number in range(limits.EARLY_CANCELS_MAX + 5):
        bench.task_manager.on_cancel(
            bench.job, m.Cancel(0, identity(f"{number}"), False, False), 0.0
        )
    assert len(kept) == limits.EARLY_CANCELS_MAX
    later = limits.UNKNOWN_OBJECT_S
    assert kept.take(identity("9999"), later) is None
    bench.task_manager.on_cancel(bench.job, m.Cancel(0, T, False, False), later)
    assert len(kept) == 1


def test_tasks_below_a_cancelled_one_go_with_it_if_that_is_wanted() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK), spec("u", WORK, parent=T), spec("v", WORK, parent=U))
    bench.cancel(identity("v"))
    assert [*bench.tasks] == [T, U]
    bench.cancel(T, recursive=True)
    assert not bench.tasks and len(bench.values()) == 3


# ---- after a restart of the head -----------------------------------------------------------------


def test_a_task_of_before_starts_again_only_when_no_node_can_have_it() -> None:
    bench = Bench(awaited="n2", resumed=True)
    bench.submit(spec("t", WORK), spec("u", ONCE))
    assert bench.starts() == []
    bench.members.gone(identity("n2"), NodeRow(1, False, "n2", [("CPU", UNIT)]))
    for record in bench.recovery.take_parked():
        bench.task_manager.unpark(record)
    assert bench.starts() == [(T, 1)]  # the node may have run both: one may not run twice
    (told,) = bench.values()
    assert error_of(told, NodeDiedError) and U not in bench.tasks


def test_an_end_that_comes_before_its_task_is_the_outcome() -> None:
    bench = Bench(awaited="n2", resumed=True)
    bench.end(done(T, 3))
    bench.end(done(U, 1, m.CRASHED))
    assert not bench.objects.sweep(lambda oid, known: False)  # nobody holds it so far
    bench.submit(spec("t", WORK), spec("u", WORK))
    assert bench.values() == [b"value"] and [*bench.tasks] == [U]


def test_failures_that_the_head_of_before_knew_of_count() -> None:
    bench = Bench(awaited="n2", resumed=True)
    held = m.HeldTask(T, 2, bench.job.process_id, WORK.template_id, failures=2)
    bench.task_manager.failed_before(held)
    bench.submit(spec("t", WORK))
    assert len(bench.values()) == 1 and not bench.tasks
