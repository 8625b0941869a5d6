"""What the raylet hears while a task waits, without the worker."""

from __future__ import annotations

from tests.core.benches import identity, somebody, spec, template, value
from zray.core.worker.task_inbox import TaskInbox
from zray.nodes.worker.task_waits import TaskWaits
from zray.protocol import messages as m

WORK = template()


class Bench:
    def __init__(self, *names: str) -> None:
        self.inbox = TaskInbox(somebody(identity("w1")))
        self.told: list[m.Message] = []
        self.expects = False
        self.waits = TaskWaits(self.inbox, self.told.extend, lambda: self.expects)
        self.inbox.on_template(WORK)
        tasks = [m.Assignment(1, identity("job"), spec(name, WORK)) for name in names]
        self.inbox.on_tasks(m.Tasks(0, tasks))


def test_nothing_is_stuck_behind_a_task_that_waits() -> None:
    bench = Bench("t0", "t1", "t2")
    bench.inbox.next()
    bench.inbox.finished(m.FINISHED, [value(identity("t0"))], 0.001, [], 1.0)
    bench.inbox.next()
    bench.waits.begin()
    done, *others = bench.told
    assert isinstance(done, m.Done) and done.tasks[0].task_id == identity("t0")
    assert others == [m.Returned(0, identity("t2")), m.Blocked(0)]
    assert bench.inbox.blocked
    bench.told.clear()
    bench.waits.end()
    assert bench.told == [m.Unblocked(0)] and not bench.inbox.blocked


def test_what_waits_in_the_main_thread_is_not_lent_once_more() -> None:
    bench = Bench("t0")
    bench.inbox.next()
    bench.waits.begin()
    bench.told.clear()
    bench.waits.threads = 1
    bench.waits.lend()
    assert not bench.told


def test_there_is_nothing_to_lend_unless_something_beside_the_main_thread_waits() -> None:
    bench = Bench("t0")
    bench.inbox.next()
    assert not bench.waits.may_lend()
    bench.waits.threads = 1
    assert bench.waits.may_lend()
    bench.waits.threads, bench.expects = 0, True
    assert bench.waits.may_lend()
