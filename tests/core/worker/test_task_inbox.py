"""The worker's sequence: delivered is not started, and what is finished leaves in time."""

from __future__ import annotations

from tests.core.benches import identity, object_of, spec, template, value
from zray import limits
from zray.core.worker.task_inbox import CpuLoan, TaskInbox
from zray.ids import split_tasks
from zray.protocol import messages as m

WORK = template()


def sequence(*names: str) -> TaskInbox:
    made = TaskInbox(identity("w1"))
    tasks = [m.Assignment(1, identity("job"), spec(name, WORK)) for name in names]
    assert made.receive(WORK) and made.receive(m.Tasks(0, tasks))
    return made


def finish(made: TaskInbox, now: float, **fields: list[bytes]) -> None:
    assert made.current is not None
    result = value(made.current.spec.task_id, contained=fields.get("contained", []))
    made.finished(m.FINISHED, [result], 0.001, fields.get("borrowed", []), now)


def test_tasks_run_in_the_order_of_delivery_with_their_values() -> None:
    argument = value(identity("a"))
    made = TaskInbox(identity("w1"))
    task = spec("t0", WORK, dependencies=[object_of(identity("a"))])
    made.receive(m.Tasks(0, [m.Assignment(2, identity("job"), task)], [argument]))
    delivered = made.next()
    assert delivered is not None
    assert (delivered.assignment.attempt, delivered.values) == (2, [argument])
    finish(made, 1.0)
    assert made.next() is None


def test_a_recall_returns_what_has_not_started() -> None:
    made = sequence("t0", "t1", "t2")
    made.next()
    assert split_tasks(made.recall().task_ids) == [identity("t1"), identity("t2")]
    assert made.recall().task_ids == b""
    finish(made, 1.0)
    assert made.next() is None


def test_a_cancel_takes_back_only_what_waits() -> None:
    made = sequence("t0", "t1", "t2")
    made.next()
    assert made.cancel(m.CancelTask(0, identity("t0"), 1, False)) is None
    assert made.cancel(m.CancelTask(0, identity("t1"), 9, False)) is None
    returned = made.cancel(m.CancelTask(0, identity("t1"), 1, False))
    assert returned == m.Returned(0, identity("t1"))
    assert split_tasks(made.recall().task_ids) == [identity("t2")]


def test_results_wait_for_company_but_not_for_long() -> None:
    made = sequence("t0", "t1", "t2")
    made.next()
    finish(made, 1.0)
    assert made.take_done(1.0, next_is_short=True) is None
    made.next()
    finish(made, 1.001)
    assert made.take_done(1.0 + limits.RESULT_DELAY_S / 2, next_is_short=True) is None
    done = made.take_done(1.0 + limits.RESULT_DELAY_S, next_is_short=True)
    assert done is not None and len(done.tasks) == 2
    assert made.take_done(9.0, next_is_short=False) is None


def test_results_leave_before_a_long_task_and_when_nothing_is_left() -> None:
    made = sequence("t0", "t1")
    made.next()
    finish(made, 1.0)
    assert made.take_done(1.0, next_is_short=False) is not None
    made.next()
    finish(made, 1.0)
    assert made.take_done(1.0, next_is_short=True) is not None


def test_results_that_hand_references_on_leave_at_once() -> None:
    for fields in ({"contained": [object_of(identity("x"))]}, {"borrowed": [identity("y")]}):
        made = sequence("t0", "t1")
        made.next()
        finish(made, 1.0, **fields)
        done = made.take_done(1.0, next_is_short=True)
        assert done is not None
        assert done.tasks[0].worker_id == (identity("w1") if "borrowed" in fields else b"")


def test_what_is_not_about_running_tasks_is_for_the_client() -> None:
    made = sequence()
    assert not made.receive(m.Result(1, identity("w1"), []))
    assert made.receive(m.Exit(0)) and made.exiting


# ---- lending the CPU -------------------------------------------------------------------------

TASK, NEXT = b"a" * 16, b"b" * 16


def test_a_process_that_waits_and_uses_no_cpu_lends_it_until_it_computes_or_waits_no_more() -> None:
    loan, step = CpuLoan(), 1.1 * limits.IDLE_S
    assert loan.step(TASK, True, 100.0, 5.0) is None  # nothing to compare it with
    assert loan.step(TASK, True, 100.0 + step / 2, 5.0) is None
    assert loan.step(TASK, True, 100.0 + step, 5.0 + step / 2) is None  # it computes
    assert loan.step(TASK, True, 100.0 + 2 * step, 5.0 + step / 2) is True
    assert loan.step(TASK, True, 100.0 + 3 * step, 5.0 + step / 2) is None
    assert loan.step(TASK, True, 100.0 + 4 * step, 5.0 + 3 * step) is False
    assert loan.step(TASK, True, 100.0 + 5 * step, 5.0 + 3 * step) is True
    assert loan.step(TASK, False, 100.0 + 5 * step, 5.0 + 3 * step) is False


def test_what_one_task_has_lent_says_nothing_of_the_next() -> None:
    loan, step = CpuLoan(), 1.1 * limits.IDLE_S
    loan.step(TASK, True, 100.0, 0.0)
    assert loan.step(TASK, True, 100.0 + step, 0.0) is True
    assert loan.step(NEXT, False, 100.0 + 2 * step, 0.0) is None
    assert loan.step(NEXT, True, 200.0, 0.0) is None  # measured too long ago
    assert loan.step(NEXT, True, 200.0 + step, 0.0) is True
