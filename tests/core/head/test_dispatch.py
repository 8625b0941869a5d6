"""What a node is told before its tasks, and what a task that cannot be sent costs."""

from __future__ import annotations

from typing import Any

from tests.core.benches import FUNCTION, identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.catalog import Catalog, FunctionRow
from zray.core.head.dispatch import Dispatch
from zray.core.head.task_records import TaskRecord
from zray.errors import MessageTooLargeError
from zray.protocol import messages as m

WORK = template()
OTHER = template("other")


def constructor(task_id: bytes, task: TaskRecord) -> m.Assignment:
    raise AssertionError("there is no actor here")


class Bench(Tables):
    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[bytes, Any]] = []
        self.faults: list[tuple[bytes, str]] = []
        self.catalog = Catalog({}, self.journal.persist, self.outbox)
        self.catalog.functions[FUNCTION] = FunctionRow("work", b"code", [])
        self.dispatch = Dispatch(
            outbox=self.outbox,
            members=self.members,
            tasks=self.tasks,
            objects=self.objects,
            actors=self.actors,
            catalog=self.catalog,
            scheduler=self.scheduler,
            assignment=constructor,
            fail=lambda task_id, task, error, text: self.failed.append((task_id, error)),
            fault=lambda task_id, what, error, now: self.faults.append((task_id, str(error))),
        )
        self.n1 = self.node("n1", 4)
        self.job = self.driver("d")

    def ready(self, name: str, made_of: m.Template = WORK, **more: Any) -> TaskRecord:
        record = self.task(spec(name, made_of, **more), made_of, self.job)
        self.scheduler.push(record)
        return record

    def turn(self) -> list[Any]:
        """What the node is sent."""
        self.dispatch.assign(0.0)
        return self.outbox.take().get(self.n1.process_id, [])


def test_a_node_hears_of_function_template_and_job_before_their_first_task_and_once() -> None:
    bench = Bench()
    bench.ready("t1")
    assert [type(one) for one in bench.turn()] == [m.Export, m.Template, m.Job, m.Tasks]
    bench.ready("t2")
    bench.ready("t3", OTHER)  # of the same function
    assert [type(one) for one in bench.turn()] == [m.Template, m.Tasks]
    bench.n1.begin_session(1.0)
    bench.n1.view.new_session()
    bench.n1.view.granted = 100
    bench.ready("t4")
    assert [type(one) for one in bench.turn()] == [m.Export, m.Template, m.Job, m.Tasks]


def test_small_arguments_go_along_once_unless_the_node_has_them() -> None:
    bench = Bench()
    bench.objects.settle(value(identity("a"), b"here"), (identity("n2"),))
    bench.objects.settle(value(identity("b"), b"there"), (bench.n1.process_id,))
    both = [object_of(identity("a")), object_of(identity("b"))]
    bench.ready("t1", dependencies=both)
    bench.ready("t2", dependencies=both)
    *_, tasks = bench.turn()
    assert len(tasks.tasks) == 2
    assert [(one.object_id, one.value) for one in tasks.values] == [(both[0], b"here")]


def test_each_attempt_is_numbered_and_says_how_often_it_has_failed() -> None:
    bench = Bench()
    record = bench.ready("t1")
    record.failures = 2
    record.depth = 3
    *_, tasks = bench.turn()
    (first,) = tasks.tasks
    assert (first.attempt, first.failures, first.depth) == (1, 2, 3)
    bench.scheduler.release(identity("t1"), record)
    bench.scheduler.push(record)
    *_, tasks = bench.turn()
    assert tasks.tasks[0].attempt == 2


def test_tasks_of_a_batch_that_cannot_be_sent_fail_and_the_others_go() -> None:
    bench = Bench()
    bench.ready("bad", template("gone"))
    del bench.catalog.functions[FUNCTION]
    bench.turn()
    assert bench.faults == [(identity("bad"), repr(FUNCTION))]
    bench.catalog.functions[FUNCTION] = FunctionRow("work", b"code", [])
    bench.n1.known.clear()
    bench.ready("good", OTHER)
    assert [type(one) for one in bench.turn()] == [m.Export, m.Template, m.Job, m.Tasks]


def test_a_task_too_large_for_its_node_fails_and_takes_no_credit() -> None:
    bench = Bench()
    credit, free = bench.n1.view.credit(), dict(bench.n1.view.free)
    bench.ready("t1")
    *_, tasks = bench.turn()
    assert bench.n1.view.credit() == credit - 1 and bench.n1.view.free != free
    for _ in range(2):  # whatever was told of it since
        bench.dispatch.too_large(tasks, "too large")
    assert bench.failed == [(identity("t1"), MessageTooLargeError)]
    assert bench.n1.view.credit() == credit and bench.n1.view.free == free


def test_what_one_node_has_too_much_of_is_asked_back_for_an_idle_one() -> None:
    bench = Bench()
    for number in range(40):
        record = bench.ready(f"t{number}")
        assert record.template is not None
        record.template.measured(0.001)
    bench.turn()
    assert bench.n1.view.ahead
    for group in bench.scheduler.groups():
        group.pop(group.ready)
    bench.node("n2", 4)
    bench.dispatch.reclaim(100.0)
    assert not bench.sent(m.Reclaim)  # it will soon be through with them
    bench.dispatch.reclaim(100.0 + limits.STEAL_IDLE_S)
    (asked,) = bench.sent(m.Reclaim)[bench.n1.process_id]
    assert asked.count == max(1, sum(bench.n1.view.ahead.values()) // 2)
    bench.dispatch.reclaim(101.0)
    assert not bench.sent(m.Reclaim)  # it has not answered yet
