"""What a raylet keeps: ends until they are acknowledged, crashes for a head that forgot them."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.core.benches import RayletBench, done, identity, object_of, spec, template
from zray import limits
from zray.core import failures
from zray.core.raylet.completions import Completions
from zray.protocol import messages as m

WORK = template()
JOB = identity("job")


def announced(bench: RayletBench, epoch: int) -> m.Announce:
    """What the raylet tells another head."""
    bench.raylet.session.disconnected()
    bench.to_head.clear()
    bench.welcome(epoch)
    (message,) = bench.told(m.Announce)
    return message  # type: ignore[no-any-return]


def test_a_crash_is_told_of_once_as_an_end_and_later_as_a_failure_of_the_past() -> None:
    bench = RayletBench()
    bench.head(WORK)
    bench.give(spec("t", WORK))
    (worker,) = bench.workers()
    bench.raylet.worker_exited(worker, 1, "signal 9", bench.now)
    bench.turn()
    before = announced(bench, 2)
    assert [task.task_id for task in before.tasks] == [identity("t")]
    assert before.failed == [], "its end follows, and counts by itself"
    bench.head(m.Ack(0, 1), epoch=2)
    after = announced(bench, 3)
    assert after.tasks == []
    assert [(task.task_id, task.failures) for task in after.failed] == [(identity("t"), 1)]


def test_of_a_task_that_ended_twice_the_last_attempt_counts() -> None:
    """And with it all its failures: the head may have died before it acknowledged the first end."""
    bench = RayletBench()
    bench.head(WORK)
    for attempt in (2, 3):
        task = m.Assignment(attempt, identity("job"), spec("t", WORK), failures=attempt - 1)
        bench.head(m.Tasks(0, [task], []))
        (worker,) = bench.workers()
        bench.raylet.worker_exited(worker, 1, "signal 9", bench.now)
        bench.turn()
    told = announced(bench, 2)
    assert [(task.attempt, task.failures) for task in told.tasks] == [(3, 2)]


# ---- without the raylet --------------------------------------------------------------------


class Bench:
    def __init__(self) -> None:
        self.to_head: list[Any] = []
        self.completions = Completions(self.to_head.append, count(1))

    def add(self, name: str, status: int = m.FINISHED, *, actor: bool = False) -> m.TaskDone:
        info = m.ActorInfo("Actor", bytes(16), []) if actor else None
        end = done(identity(name), status=status)
        self.completions.add(m.Assignment(1, JOB, spec(name, WORK), actor=info), end)
        return end

    def told(self) -> list[Any]:
        messages = [*self.to_head]
        self.to_head.clear()
        return messages


def test_ends_of_one_turn_go_together_and_again_until_they_are_acknowledged() -> None:
    bench = Bench()
    first, second = bench.add("a"), bench.add("b")
    bench.completions.flush()
    bench.completions.flush()
    third = bench.add("c")
    bench.completions.flush()
    assert bench.told() == [m.Done(1, [first, second]), m.Done(2, [third])]
    bench.completions.acked(1)
    bench.completions.tell_again()
    assert bench.told() == [m.Done(2, [third])]
    assert [held.task_id for held in bench.completions.held()] == [identity("c")]


def test_what_has_ended_between_sessions_is_not_told_before_the_rest() -> None:
    bench = Bench()
    end = bench.add("a")
    bench.completions.new_session()
    bench.completions.flush()
    assert bench.told() == []
    bench.completions.tell_again()
    assert bench.told() == [m.Done(1, [end])]


def test_an_end_that_the_head_refuses_is_told_as_an_error_under_a_number_of_its_own() -> None:
    bench = Bench()
    bench.add("a")
    bench.add("actor", actor=True)
    bench.completions.flush()
    bench.told()
    unwanted = bench.completions.refused(m.Rejected(0, 1, "ZR-1", "too large"))
    assert unwanted is not None and [held.task_id for held in unwanted] == [identity("actor")]
    (again,) = bench.told()
    assert again.seq == 2 and [end.task_id for end in again.tasks] == [
        identity("a"),
        identity("actor"),
    ]
    for end in again.tasks:
        (outcome,) = end.results
        assert outcome.kind & m.ERROR and "too large" in failures.read(outcome.value).message
    assert bench.completions.refused(m.Rejected(0, 1, "ZR-1", "too large")) is None


def test_what_an_end_refers_to_is_named_before_it_is_brought_up_to_date() -> None:
    bench = Bench()
    borrowed, inner = object_of(identity("x")), object_of(identity("y"))
    result = m.Outcome(object_of(identity("a")), m.VALUE, 1, b"v", [inner])
    end = m.TaskDone(identity("a"), 1, m.FINISHED, [result], borrowed=[borrowed])
    bench.completions.add(m.Assignment(1, JOB, spec("a", WORK)), end)
    bench.completions.flush()
    bench.told()
    dropped = m.TaskDone(identity("a"), 1, m.FINISHED, [result])
    assert [*bench.completions.renew(lambda end: dropped)] == [borrowed, inner]
    bench.completions.tell_again()
    assert bench.told() == [m.Done(1, [dropped])]


def test_crashes_are_remembered_within_a_bound_until_their_job_ends() -> None:
    bench = Bench()
    for number in range(limits.FAILURES_KEPT_MAX + 5):
        bench.add(f"t{number}", m.CRASHED)
        bench.completions.flush()
        bench.completions.acked(number + 1)
    failed = bench.completions.failed()
    assert len(failed) == limits.FAILURES_KEPT_MAX
    assert (failed[0].task_id, failed[0].failures) == (identity("t5"), 1)
    bench.completions.job_ended(identity("another"))
    assert len(bench.completions.failed()) == limits.FAILURES_KEPT_MAX
    bench.completions.job_ended(JOB)
    assert not bench.completions.failed()
