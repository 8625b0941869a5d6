"""The tasks that a node holds and what the head hears of them, without the raylet."""

from __future__ import annotations

from tests.core.benches import UNIT, identity, object_of, value
from tests.core.raylet.task_bench import JOB, OID, WORK, TaskBench
from zray import limits
from zray.core import failures
from zray.errors import ObjectLostError, TaskCancelledError
from zray.protocol import messages as m


def errors(end: m.TaskDone) -> str:
    (outcome,) = end.results
    assert outcome.kind & m.ERROR
    record = failures.read(outcome.value)
    return f"{record.code} {record.message}"


def test_an_argument_that_is_an_error_is_the_task_s_own_and_nothing_runs() -> None:
    bench = TaskBench()
    text = failures.encode(TaskCancelledError, "it was cancelled")
    bench.objects.put(m.Outcome(OID, m.ERROR, len(text), text))
    bench.give("t", dependencies=[OID])
    (end,) = bench.ends()
    value = failures.of_argument(text, "work")
    assert (end.status, end.results[0].value) == (m.FINISHED, value)
    assert not bench.tasks.held and not bench.scheduler.queued


def test_a_task_that_waits_for_an_argument_lends_and_fails_if_there_is_none() -> None:
    bench = TaskBench()
    bench.give("t", dependencies=[OID])
    (pull,) = bench.told(m.Pull)
    bench.lending.step(limits.LEND_AFTER_S)
    assert bench.lending.lent == {"CPU": UNIT}
    bench.objects.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "gone with n2"))
    (end,) = bench.ends()
    assert errors(end) == f"{ObjectLostError.code} gone with n2"
    assert not any(bench.lending.lent.values())


def test_what_a_withdrawn_task_returns_is_told_to_nobody() -> None:
    bench = TaskBench()
    bench.give("t")
    bench.start()
    bench.tasks.on_discard(m.Discard(0, [m.HeldTask(identity("t"), 1, JOB, WORK.template_id)]))
    assert bench.killed == ["a task of it was withdrawn"]
    late = m.TaskDone(identity("t"), 1, m.FINISHED, [value(identity("t"))])
    bench.tasks.on_worker_done(bench.slot, m.Done(0, [late]), 1.0)
    assert bench.ends() == [] and not bench.objects.stored


def test_a_cancel_ends_what_has_not_started_at_once_and_asks_what_has() -> None:
    bench = TaskBench()
    bench.give("running", "queued")
    bench.start()
    for name in ("running", "queued"):
        bench.tasks.on_cancel(m.CancelTask(0, identity(name), 1, False), 5.0)
    messages = bench.outbox.take()
    assert [type(message) for message in messages[identity("w")]] == [m.CancelTask]
    (end,) = bench.ends()
    assert (end.task_id, end.status) == (identity("queued"), m.CANCELLED)
    assert bench.slot.kill_at() == 5.0 + limits.CANCEL_GRACE_S and not bench.killed


def test_of_a_dead_worker_s_tasks_those_not_begun_start_elsewhere_in_their_order() -> None:
    bench = TaskBench()
    bench.tasks.templates[WORK.template_id].measured(0.00001)
    bench.give("a", "b", "c")
    bench.start()
    left = bench.scheduler.remove_worker(bench.slot)
    bench.tasks.worker_died(bench.slot, left, 1, "signal 9")
    (end,) = bench.ends()
    assert (end.task_id, end.status) == (identity("a"), m.CRASHED)
    assert "signal 9" in errors(end)
    needs = left[0].template.needs
    order = [task.task_id for task in reversed(bench.scheduler.reclaim(needs, 9))]
    assert order == [identity("b"), identity("c")]


def test_an_end_that_is_too_large_to_be_told_is_an_error_here_too() -> None:
    bench = TaskBench()
    bench.give("t")
    bench.start()
    large = m.TaskDone(identity("t"), 1, m.FINISHED, [value(identity("t"), b"x" * 1000)])
    bench.tasks.on_worker_done(bench.slot, m.Done(0, [large]), 1.0)
    bench.completions.flush()
    bench.outbox.take()
    bench.tasks.end_too_large(large, "1000 bytes are too many")
    (end,) = bench.ends()
    assert "1000 bytes are too many" in errors(end)
    assert bench.objects.stored[object_of(identity("t"))] == end.results[0]
