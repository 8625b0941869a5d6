"""The worker's inbox: delivered is not started, and what is finished leaves in time."""

from __future__ import annotations

from tests.core.benches import identity, object_of, somebody, spec, template, value
from zray import limits
from zray.core.worker.task_inbox import TaskInbox
from zray.ids import split_tasks
from zray.protocol import messages as m

WORK = template()


def inbox(*names: str) -> TaskInbox:
    made = TaskInbox(somebody(identity("w1")))
    tasks = [m.Assignment(1, identity("job"), spec(name, WORK)) for name in names]
    made.on_template(WORK)
    made.on_tasks(m.Tasks(0, tasks))
    return made


def finish(made: TaskInbox, now: float, **fields: list[bytes]) -> None:
    assert made.current is not None
    result = value(made.current.spec.task_id, contained=fields.get("contained", []))
    made.finished(m.FINISHED, [result], 0.001, fields.get("borrowed", []), now)


def test_tasks_run_in_the_order_of_delivery_with_their_values() -> None:
    argument = value(identity("a"))
    made = TaskInbox(somebody(identity("w1")))
    task = spec("t0", WORK, dependencies=[object_of(identity("a"))])
    made.on_tasks(m.Tasks(0, [m.Assignment(2, identity("job"), task)], [argument]))
    delivered = made.next()
    assert delivered is not None
    assert (delivered.assignment.attempt, delivered.values) == (2, [argument])
    finish(made, 1.0)
    assert made.next() is None


def test_a_recall_returns_what_has_not_started() -> None:
    made = inbox("t0", "t1", "t2")
    made.next()
    assert split_tasks(made.recall().task_ids) == [identity("t1"), identity("t2")]
    assert made.recall().task_ids == b""
    finish(made, 1.0)
    assert made.next() is None


def test_a_cancel_takes_back_only_what_waits() -> None:
    made = inbox("t0", "t1", "t2")
    made.next()
    assert made.cancel(m.CancelTask(0, identity("t0"), 1, False)) is None
    assert made.cancel(m.CancelTask(0, identity("t1"), 9, False)) is None
    returned = made.cancel(m.CancelTask(0, identity("t1"), 1, False))
    assert returned == m.Returned(0, identity("t1"))
    assert split_tasks(made.recall().task_ids) == [identity("t2")]


def packet(seq: int, *names: str) -> m.Tasks:
    return m.Tasks(seq, [m.Assignment(1, identity("job"), spec(name, WORK)) for name in names])


def begun(made: TaskInbox) -> bytes | None:
    delivered = made.next()
    return delivered.assignment.spec.task_id if delivered is not None else None


def test_a_packet_waits_for_what_was_sent_before_it_however_that_is_cut() -> None:
    made = TaskInbox(somebody(identity("w1")))
    hear = made.handlers
    assert made.takes()
    made.on_packet(packet(2, "behind"))
    assert not made.takes() and begun(made) is None, "nobody has said what it is made of"
    hear[m.Template](WORK)
    hear[m.Export](m.Export(0, WORK.function_id, "work", b"code"))
    hear[m.Tasks](packet(0, "first"))
    assert begun(made) == identity("first")
    finish(made, 1.0)
    assert begun(made) is None, "another one comes before it"
    hear[m.Tasks](packet(0, "second"))
    assert begun(made) == identity("second")
    finish(made, 1.0)
    assert begun(made) == identity("behind")


def test_a_packet_that_was_taken_before_its_turn_is_not_kept_behind_the_task_that_starts() -> None:
    """That may hold the interpreter for long, and another worker may be idle."""
    made = inbox()
    made.on_packet(packet(1, "behind", "too"))
    made.handlers[m.Tasks](packet(0, "first"))
    assert begun(made) == identity("first")
    early = made.untake()
    assert early is not None
    assert split_tasks(early.task_ids) == [identity("behind"), identity("too")]
    assert made.takes() and made.untake() is None


def test_what_is_in_a_packet_is_given_back_too() -> None:
    made = inbox("t0", "t1")
    made.next()
    made.on_packet(packet(0, "t2", "t3", "t4"))
    returned = made.cancel(m.CancelTask(0, identity("t3"), 1, False))
    assert returned == m.Returned(0, identity("t3"))
    assert split_tasks(made.recall().task_ids) == [identity("t1"), identity("t2"), identity("t4")]
    assert made.takes()


def test_results_wait_for_company_but_not_for_long() -> None:
    made = inbox("t0", "t1", "t2")
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
    made = inbox("t0", "t1")
    made.next()
    finish(made, 1.0)
    assert made.take_done(1.0, next_is_short=False) is not None
    made.next()
    finish(made, 1.0)
    assert made.take_done(1.0, next_is_short=True) is not None


def test_results_that_hand_references_on_leave_at_once() -> None:
    for fields in ({"contained": [object_of(identity("x"))]}, {"borrowed": [identity("y")]}):
        made = inbox("t0", "t1")
        made.next()
        finish(made, 1.0, **fields)
        done = made.take_done(1.0, next_is_short=True)
        assert done is not None
        assert done.tasks[0].worker_id == (identity("w1") if "borrowed" in fields else b"")


def test_its_part_of_the_table_is_what_is_about_running_tasks() -> None:
    made = inbox()
    assert m.Result not in made.handlers and m.Calls not in made.handlers
    made.handlers[m.Exit](m.Exit(0))
    assert made.exiting


def test_a_function_is_unloaded_when_it_is_forgotten_unless_a_delivered_task_needs_it() -> None:
    for names in ((), ("t0",)):
        made = inbox(*names)
        made.on_export(m.Export(0, WORK.function_id, "work", b"code"))
        made.on_forget(m.Forget(0, WORK.function_id))
        kept = bool(names)
        assert made.forgotten == ([] if kept else [WORK.function_id])
        assert (WORK.function_id in made.functions) is kept
        assert (WORK.template_id in made.templates) is kept
