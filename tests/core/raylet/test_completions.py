"""What a raylet keeps: ends until they are acknowledged, crashes for a head that forgot them."""

from __future__ import annotations

from tests.core.benches import RayletBench, identity, spec, template
from zray.protocol import messages as m

WORK = template()


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
