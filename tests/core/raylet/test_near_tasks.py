"""Tasks that workers submit and that start on their node without the head."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tests.core.benches import (
    FUNCTION,
    UNIT,
    RayletBench,
    done,
    identity,
    object_of,
    spec,
    template,
    value,
)
from zray import limits
from zray.ids import item_id, split_tasks
from zray.protocol import messages as m
from zray.protocol.errors import decode_error

JOB = identity("job")
WORK = template()
PAIR = template("pair", returns=2)
ONCE = template("once", retries=0)
STREAM = replace(WORK, template_id=identity("stream"), name="stream", yields=m.ITEMS)
LEFT = ("Submit", "Begun", "Put", "Made", "Hold", "Drop", "Cancel", "Returned")


class Bench(RayletBench):
    """One task of the head's runs on a node, and waits: its worker submits."""

    def __init__(self, cpus: float = 1, **more: Any) -> None:
        super().__init__(cpus, **more)
        self.head(WORK, PAIR, ONCE)
        self.give(spec("root", WORK), depth=3)
        (self.parent,) = self.workers()
        self.worker(self.parent, m.Blocked(0))
        self.to_head.clear()

    def submit(self, *specs: m.TaskSpec, worker: bytes = b"") -> None:
        worker = worker or self.parent
        self.worker(worker, m.Submit(0, JOB, worker, list(specs)))

    def child(self, name: str, made_of: m.Template = WORK, **fields: Any) -> m.TaskSpec:
        return spec(name, made_of, parent=identity("root"), **fields)

    def runner(self, name: str) -> bytes:
        return next(worker for worker, names in self.running().items() if name in names)

    def ends(self, name: str, **fields: Any) -> None:
        """The worker that has it ends the task."""
        self.worker(self.runner(name), m.Done(0, [done(identity(name), **fields)]))

    def answers(self) -> dict[str, m.Outcome]:
        """What the submitter was told, by task."""
        told = [msg for msg in self.to_workers.pop(self.parent, []) if isinstance(msg, m.Result)]
        return {
            outcome.object_id[:16].rstrip(b"\0").decode(): outcome
            for result in told
            for outcome in result.outcomes
        }

    def left(self) -> list[str]:
        """What the head was told of tasks and objects, by kind."""
        messages, self.to_head = self.to_head, []
        kinds = [type(message).__name__ for message in messages]
        return [kind for kind in kinds if kind in LEFT]


def of(outcome: m.Outcome) -> str:
    return decode_error(outcome.value).code


# ---- kept, and answered ------------------------------------------------------------------------


def test_a_child_starts_and_ends_without_the_head() -> None:
    bench = Bench()
    bench.submit(bench.child("a"))
    assert bench.running()[bench.runner("a")] == ["a"]
    bench.ends("a")
    assert bench.answers() == {"a": value(identity("a"))}
    assert bench.left() == []


def test_the_deepest_go_first_and_others_wait_for_a_cpu() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b"))
    inner = bench.runner("a")
    bench.worker(inner, m.Submit(0, JOB, inner, [spec("aa", WORK, parent=identity("a"))]))
    bench.worker(inner, m.Blocked(0))
    assert [names for names in bench.running().values() if names == ["aa"]]
    assert "b" not in [name for names in bench.running().values() for name in names]
    assert bench.left() == []


@pytest.mark.parametrize(
    ("resources", "fields"),
    [
        ((("CPU", 2),), {}),
        ((("CPU", 1), ("memory", 1)), {}),
        ((), {}),
        ((("CPU", 1),), {"dependencies": [object_of(identity("elsewhere"))]}),
    ],
)
def test_what_the_node_cannot_settle_goes_to_the_head(resources: Any, fields: Any) -> None:
    bench = Bench()
    other = template("other", resources=resources)
    bench.worker(bench.parent, m.Export(0, FUNCTION, "other", b"code"), other)
    bench.to_head.clear()
    bench.submit(bench.child("a", other, **fields))
    assert bench.left() == ["Submit"]


def test_what_a_task_submits_is_deeper_than_it_though_the_end_before_it_is_not_told() -> None:
    """Ends of short tasks are told together: the worker runs a later one than the first."""
    bench = Bench()
    bench.submit(*(bench.child(name) for name in "ab"))
    runner = bench.runner("a")
    slot = bench.raylet.scheduler.workers[runner]
    assert [*slot.inflight] == [identity("a"), identity("b")]  # one runs, one is behind it
    bench.submit(spec("c", WORK, parent=identity("b")), worker=runner)
    task = bench.raylet.near_tasks.tasks[identity("c")]
    assert task.depth == 5


def test_what_does_not_start_soon_is_handed_up_with_its_depth() -> None:
    bench = Bench()
    bench.submit(*map(bench.child, "abc"))  # the second one is behind the first
    bench.now += limits.NEAR_WAIT_S / 2
    bench.turn()
    assert bench.left() == []
    bench.now += limits.NEAR_WAIT_S
    bench.turn()
    (submit,) = bench.told(m.Submit)
    assert [(task.task_id, task.depth) for task in submit.tasks] == [(identity("c"), 4)]
    assert bench.raylet.scheduler.queued == 0


def test_nothing_is_kept_while_tasks_of_other_jobs_wait() -> None:
    bench = Bench()
    bench.submit(*map(bench.child, "abc"))
    bench.head(m.Crowded(0, True))
    assert bench.left() == ["Submit"], "what nobody has"
    bench.submit(bench.child("d"))
    assert bench.left() == ["Submit"]
    bench.head(m.Crowded(0, False))
    bench.submit(bench.child("e"))
    assert bench.left() == []
    bench.head(m.Tasks(0, [m.Assignment(1, identity("another"), spec("x", WORK))]))
    assert bench.left() == ["Submit"], "one of another job waits here"


def test_another_node_gets_the_shallowest_and_so_many_as_it_asks_for() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), *(bench.child(name) for name in "bcd"))
    bench.head(m.Reclaim(0, [("CPU", UNIT)], 2))
    told = [message for message in bench.to_head if isinstance(message, m.Submit | m.Returned)]
    assert [type(message) for message in told] == [m.Returned, m.Submit, m.Submit]
    assert isinstance(told[0], m.Returned)
    assert split_tasks(told[0].task_ids) == [identity("d"), identity("c")]


def test_a_bound_on_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NEAR_TASKS", 2)
    bench = Bench()
    bench.submit(*(bench.child(name) for name in "abcd"))
    (submit,) = bench.told(m.Submit)
    assert [task.task_id for task in submit.tasks] == [identity("c"), identity("d")]


# ---- arguments -----------------------------------------------------------------------------


def test_a_result_is_the_argument_of_another_and_the_head_hears_of_neither() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b", dependencies=[object_of(identity("a"))]))
    assert bench.running()[bench.runner("a")] == ["a"]
    bench.worker(bench.parent, m.Drop(0, bench.parent, object_of(identity("a"))))
    bench.ends("a")
    tasks = [
        message
        for messages in bench.to_workers.values()
        for message in messages
        if isinstance(message, m.Tasks)
    ]
    assert tasks[-1].values == [value(identity("a"))]
    bench.ends("b")
    assert bench.answers().keys() == {"a", "b"} and bench.left() == []


def test_an_argument_that_is_an_error_is_the_result() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b", dependencies=[object_of(identity("a"))]))
    oid = object_of(identity("a"))
    bench.ends("a", results=[m.Outcome(oid, m.ERROR, 3, b"why")])
    assert {name: told.value for name, told in bench.answers().items()} == {
        "a": b"why",
        "b": b"why",
    }


def test_a_long_chain_of_errors_needs_no_deep_stack() -> None:
    bench = Bench()
    chain = [bench.child("c0")]
    for number in range(1, 900):
        before = object_of(identity(f"c{number - 1}"))
        chain.append(bench.child(f"c{number}", dependencies=[before]))
    bench.submit(*chain)
    oid = object_of(identity("c0"))
    bench.ends("c0", results=[m.Outcome(oid, m.ERROR, 3, b"why")])
    assert len(bench.answers()) == 900


def test_what_is_handed_up_takes_along_what_it_needs_and_what_needs_it() -> None:
    bench = Bench()
    bench.submit(bench.child("ready"))
    bench.ends("ready")
    ready = object_of(identity("ready"))
    bench.submit(
        bench.child("runs"),
        bench.child("waits", dependencies=[ready, object_of(identity("runs"))]),
        bench.child("last", dependencies=[object_of(identity("waits"))]),
    )
    bench.left()
    bench.worker(bench.parent, m.Publish(0, object_of(identity("last"))))
    told = [msg for msg in bench.to_head if type(msg).__name__ in ("Submit", "Begun", "Put")]
    assert [type(message).__name__ for message in told] == ["Begun", "Put", "Submit", "Submit"]
    assert isinstance(told[0], m.Begun) and isinstance(told[2], m.Submit)
    assert (told[0].tasks[0].spec.task_id, told[0].tasks[0].attempt) == (identity("runs"), 1)
    assert told[2].tasks[0].task_id == identity("waits")


def test_references_in_arguments_are_held_by_the_node_while_the_task_may_run() -> None:
    bench = Bench()
    inner = object_of(identity("known"))
    for name in ("a", "b"):
        bench.submit(bench.child(name, nested=[inner]))
    held = [message for message in bench.told(m.Hold) if message.holder == identity("n1")]
    assert [message.object_ids for message in held] == [inner], "once for both"
    bench.ends("a")
    assert bench.left() == []
    bench.ends("b", borrowed=[inner])
    assert bench.left() == ["Hold", "Drop"], "who keeps it holds it before the node does not"


# ---- references that leave -----------------------------------------------------------------


def test_a_result_that_is_there_is_put_when_its_reference_leaves() -> None:
    bench = Bench()
    bench.submit(bench.child("a"))
    bench.ends("a")
    for _ in range(2):
        bench.worker(bench.parent, m.Publish(0, object_of(identity("a"))))
    (put,) = bench.told(m.Put)
    assert (put.holder, put.outcome) == (bench.parent, value(identity("a")))
    bench.worker(bench.parent, m.Drop(0, bench.parent, object_of(identity("a"))))
    assert bench.left() == ["Drop"]


def test_a_task_that_runs_is_the_heads_from_then_on() -> None:
    bench = Bench()
    bench.submit(bench.child("a", PAIR))
    bench.worker(bench.parent, m.Drop(0, bench.parent, object_of(identity("a"), 1)))
    bench.worker(bench.parent, m.Publish(0, object_of(identity("a"))))
    assert bench.left() == ["Begun", "Drop"]
    results = [value(identity("a"), index=index) for index in range(2)]
    bench.ends("a", results=results)
    assert [end.task_id for message in bench.told(m.Done) for end in message.tasks] == [
        identity("a")
    ]
    assert bench.answers() == {}


@pytest.mark.parametrize(
    "outcome",
    [
        value(identity("a"), contained=[object_of(identity("known"))]),
        m.Outcome(object_of(identity("a")), m.VALUE | m.LOCATED, 1 << 20),
    ],
)
def test_of_large_results_and_of_references_in_them_the_head_hears_at_once(
    outcome: m.Outcome,
) -> None:
    bench = Bench()
    bench.submit(bench.child("a"))
    bench.ends("a", results=[outcome])
    made = ["Made"] if outcome.kind & m.LOCATED else []
    assert bench.left() == ["Put", *made]
    assert bench.answers() == {"a": outcome}


@pytest.mark.parametrize("size", [5, 1 << 20])
def test_of_large_items_the_head_hears_how_they_are_made_again(size: int) -> None:
    bench = Bench()
    bench.head(STREAM)
    bench.submit(bench.child("a", STREAM, consumer=bench.parent))
    runner = bench.runner("a")
    item = m.Outcome(item_id(identity("a"), 1), m.VALUE | m.LOCATED, size)
    other = m.Outcome(object_of(identity("put")), m.VALUE | m.LOCATED, size)
    bench.worker(runner, m.Put(0, runner, item if size > 5 else other))
    bench.ends("a", results=[value(identity("a"))])
    assert bench.left() == ["Put", *(["Made"] if size > 5 else [])]


def test_what_nobody_wants_is_not_kept() -> None:
    bench = Bench()
    bench.submit(bench.child("a"))
    bench.worker(bench.parent, m.Drop(0, bench.parent, object_of(identity("a"))))
    oid = object_of(identity("a"))
    bench.ends("a", results=[m.Outcome(oid, m.VALUE | m.LOCATED, 1 << 20)])
    assert bench.left() == [] and not bench.raylet.near_tasks.results
    bench.submit(bench.child("b"))
    bench.ends("b")
    bench.worker(bench.parent, m.Drop(0, bench.parent, object_of(identity("b"))))
    assert bench.left() == [] and not bench.raylet.near_tasks.results


def test_who_asks_why_hears_it_from_the_head() -> None:
    bench = Bench()
    bench.submit(*map(bench.child, "abc"))
    asked = [object_of(identity(name)) for name in "abc"]
    bench.worker(bench.parent, m.Query(7, m.WHY, asked))
    kinds = [type(message).__name__ for message in bench.to_head]
    assert [kind for kind in kinds if kind in (*LEFT, "Query")] == [
        *("Begun", "Begun", "Submit", "Query")
    ]


# ---- what goes wrong -----------------------------------------------------------------------


def test_a_worker_that_dies_costs_a_retry_and_the_last_one_is_told_of() -> None:
    bench = Bench()
    one = template("one", retries=1)
    bench.head(one)
    bench.submit(bench.child("a", one))
    for attempt in (1, 2):
        worker = bench.runner("a")
        slot = bench.raylet.scheduler.workers[worker]
        assert slot.inflight[identity("a")].assignment.attempt == attempt
        slot.pid = 40 + attempt
        bench.raylet.worker_exited(worker, 1, "signal 11", bench.now)
        bench.turn()
    outcome = bench.answers()["a"]
    record = decode_error(outcome.value)
    assert "(pid 42, node n1) that ran one died: signal 11" in record.message
    assert "Submit" not in bench.left()


def test_an_error_that_is_retried_and_one_that_is_not() -> None:
    bench = Bench()
    oid = object_of(identity("a"))
    error = [m.Outcome(oid, m.ERROR, 3, b"why")]
    bench.submit(bench.child("a", ONCE))
    bench.ends("a", status=m.FAILED, results=error)
    assert bench.answers()["a"].value == b"why"
    bench.submit(bench.child("b"))
    bench.ends("b", status=m.FAILED)
    assert bench.answers() == {}
    bench.ends("b", attempt=2)
    assert bench.answers().keys() == {"b"}


def test_with_a_worker_ends_what_it_has_submitted() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b"))
    runner = bench.runner("a")
    bench.to_workers.clear()
    bench.raylet.worker_exited(bench.parent, 1, "signal 9", bench.now)
    bench.turn()
    cancels = [each for each in bench.to_workers[runner] if isinstance(each, m.CancelTask)]
    assert [each.task_id for each in cancels] == [identity("a")]
    bench.ends("a", status=m.CANCELLED)
    assert not bench.raylet.near_tasks.tasks and not bench.raylet.near_tasks.results
    assert "Submit" not in bench.left()


def test_with_a_job_ends_everything_of_it() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b", dependencies=[object_of(identity("a"))]))
    bench.head(m.JobEnded(0, JOB))
    near = bench.raylet.near_tasks
    assert not (near.tasks or near._children or near._dependents or bench.raylet.near_tasks.results)


# ---- cancelling ------------------------------------------------------------------------------


def test_a_queued_one_and_a_running_one_are_cancelled_here() -> None:
    bench = Bench()
    bench.submit(bench.child("a"), bench.child("b"))
    bench.worker(bench.parent, m.Cancel(0, identity("b"), False, False))
    assert of(bench.answers()["b"]) == "ZR-3002"
    bench.worker(bench.parent, m.Cancel(0, identity("a"), False, False))
    bench.ends("a", status=m.CANCELLED)
    record = decode_error(bench.answers()["a"].value)
    word = f"the task was cancelled (task work {identity('a').hex()})"
    assert (record.code, record.message) == ("ZR-3002", word)
    assert bench.left() == []


def test_those_below_a_cancelled_task_are_as_well_whoever_knows_them() -> None:
    bench = Bench(2)
    bench.submit(bench.child("a"))
    inner = bench.runner("a")
    bench.worker(inner, m.Submit(0, JOB, inner, [spec("aa", WORK, parent=identity("a"))]))
    bench.left()
    bench.head(m.Cancel(0, identity("root"), True, True))
    killed = [effect.worker_id for effect in bench.effects if hasattr(effect, "worker_id")]
    assert {inner, bench.runner("aa")} <= {*killed}
    told = bench.told(m.Cancel)
    assert {(each.task_id, each.force, each.recursive) for each in told} == {
        (identity("a"), True, True),
        (identity("aa"), True, True),
    }
    bench.head(m.Cancel(0, identity("a"), True, True))
    assert bench.told(m.Cancel) == [], "the head sends back what it hears"


def test_what_a_worker_keeps_to_itself_it_is_asked_to_cancel() -> None:
    bench = Bench(2)
    bench.head(m.Cancel(0, identity("call"), False, True, target=bench.parent))
    (asked,) = [one for one in bench.to_workers[bench.parent] if isinstance(one, m.Cancel)]
    assert asked.task_id == identity("call")
    bench.head(m.Cancel(0, identity("call"), False, True, target=identity("gone")))
    assert bench.left() == []


# ---- the head's picture ----------------------------------------------------------------------


def test_the_head_hears_how_many_there_are_now_and_then() -> None:
    bench = Bench()
    bench.submit(*map(bench.child, "abc"))
    (near,) = bench.told(m.Near)
    assert near.jobs == [m.NearJob(JOB, 3, 0, 0)]
    assert near.classes == [m.NearClass([("CPU", UNIT)], JOB, 1, "work")]
    bench.ends("a")
    assert bench.told(m.Near) == []
    bench.now = bench.raylet.deadline()
    bench.ends("b")
    bench.ends("c")
    told = bench.told(m.Near)
    bench.now += limits.NEAR_REPORT_S
    bench.turn()
    told += bench.told(m.Near)
    assert told[-1].jobs == [m.NearJob(JOB, 0, 3, 0)]
    bench.now += 1
    bench.turn()
    assert bench.told(m.Near) == []


def test_what_they_have_is_not_free() -> None:
    bench = Bench(2)
    bench.now += 1
    bench.submit(bench.child("a"))
    told = bench.told(m.Credit)
    assert told[-1].released == [], "one waits, and lets another have its CPU"
    bench.now += 1
    bench.submit(bench.child("b"))
    assert bench.told(m.Credit)[-1].released == [("CPU", -UNIT)]


def test_a_new_session_does_not_hear_of_them() -> None:
    bench = Bench()
    bench.submit(bench.child("a", nested=[object_of(identity("known"))]))
    bench.raylet.session.disconnected()
    bench.to_head.clear()
    bench.welcome()
    (announce,) = [each for each in bench.to_head if isinstance(each, m.Announce)]
    assert [task.task_id for task in announce.tasks] == [identity("root")]
    mine = {holds.holder: holds.object_ids for holds in announce.holds}
    assert mine[identity("n1")] == object_of(identity("known"))
    assert not [each for each in bench.to_head if isinstance(each, m.Submit)]


def test_what_has_begun_is_said_to_have_in_a_new_session() -> None:
    bench = Bench()
    bench.raylet.session.disconnected()
    bench.submit(bench.child("a"))
    bench.worker(bench.parent, m.Publish(0, object_of(identity("a"))))
    bench.welcome()
    (begun,) = bench.told(m.Begun)
    assert [(task.spec.task_id, task.attempt) for task in begun.tasks] == [(identity("a"), 1)]
