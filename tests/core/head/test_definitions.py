"""Functions and templates stay for as long as somebody needs them, and no longer."""

from __future__ import annotations

import msgspec

from tests.core.benches import (
    FUNCTION,
    HeadBench,
    RayletBench,
    done,
    identity,
    object_of,
    somebody,
    spec,
    template,
    value,
)
from zray.core.client.client import Client
from zray.core.head.catalog import FunctionRow
from zray.protocol import messages as m
from zray.protocol.codec import Payload

WORK = template()
FORGET = m.Forget(0, FUNCTION)
WORKER = identity("w")


def known(head: HeadBench) -> bool:
    """Whether the function is kept; if not, nothing of it is."""
    kept = FUNCTION in head.gcs.catalog.functions
    assert kept == (WORK.template_id in head.gcs.definitions.templates)
    return kept


class Head(HeadBench):
    """Also remembers every row that it has stored."""

    def __init__(self, rows: object = None, epoch: int = 1) -> None:
        self.stored: list[object] = []
        super().__init__(rows, epoch)

    def commit(self) -> None:
        self.stored += [row for _, rows in self.rows for row in rows]
        super().commit()


# ---- the head ------------------------------------------------------------------------------


def test_functions_end_with_the_last_job_that_needs_them() -> None:
    head = Head()
    head.node("n1")
    head.driver("d1", WORK)
    head.driver("d2", WORK)
    head.say("d1", m.Goodbye(0, "done"))
    assert known(head)
    head.say("d2", m.Goodbye(0, "done"))
    assert not known(head) and ("functions", FUNCTION, None) in head.stored
    assert head.taken("n1", m.Forget) == [FORGET]


def test_a_function_that_is_let_go_stays_until_its_tasks_have_ended() -> None:
    head = Head()
    head.node("n1")
    head.driver("d", WORK)
    head.submit("d", spec("t", WORK))
    head.say("d", FORGET)
    assert known(head)
    head.say("n1", m.Done(1, [done(identity("t"))]))
    assert not known(head)
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), WORK)
    assert known(head)
    head.taken("n1")
    head.submit("d", spec("again", WORK))
    assert [type(message) for message in head.taken("n1")] == [m.Export, m.Template, m.Tasks]


def test_a_node_that_tells_of_a_template_is_not_the_home_of_whoever_sent_it() -> None:
    """Else its next announcement, which does not list that worker, would bury it."""
    head = Head()
    head.driver("d")
    head.node("n1", cpus=0)
    head.node("n2", cpus=2)
    made = msgspec.structs.replace(WORK, holder=WORKER)
    head.say("n1", m.Export(0, FUNCTION, "work", b"code", [], WORKER), made)
    head.say("n1", m.Submit(0, identity("d"), WORKER, [spec("t", WORK)]))
    (told,) = head.taken("n2", m.Template)
    held = [m.HeldTask(identity("t"), 1, identity("d"), WORK.template_id)]
    head.say("n2", head.hello_node("n2", 1, 2))
    head.say("n2", told, m.Announce(0, held, [], []), m.Credit(0, 1 << 40))
    assert head.taken("n2", m.CancelTask) == []
    head.taken("n1")
    head.say("n2", m.Done(1, [done(identity("t"))]))
    (result,) = head.taken("n1", m.Result)
    assert result.target == WORKER


def test_an_actor_needs_its_class() -> None:
    head = Head()
    head.node("n1")
    head.driver("d", WORK)
    info = m.ActorInfo("Actor", FUNCTION, [], name="it", detached=True)
    head.say("d", m.CreateActor(0, identity("d"), identity("d"), spec("a", WORK), info))
    head.say("d", m.Goodbye(0, "done"))
    assert known(head)
    head.driver("d2")
    head.say("d2", m.KillActor(0, identity("a"), True), m.Goodbye(0, "done"))
    assert not known(head)


def test_what_a_worker_needs_goes_with_the_worker() -> None:
    head = Head()
    head.node("n1")
    made = msgspec.structs.replace(WORK, holder=WORKER)
    head.say("n1", m.Export(0, FUNCTION, "work", b"code", [], WORKER), made)
    assert known(head)
    head.say("n1", m.WorkerDied(0, WORKER))
    assert not known(head)


def test_a_session_tells_anew_what_is_needed() -> None:
    head = Head()
    head.driver("d", WORK)
    head.hear("d2", msgspec.structs.replace(head.hello_driver("d")))
    head.turn()
    assert known(head)
    head.say("d2", m.Hold(0, identity("d"), b"", True))
    assert not known(head)


def test_an_export_whose_sender_has_gone_meanwhile_is_not_kept() -> None:
    head = Head()
    head.say("d", head.hello_driver("d"))
    head.durable = False
    head.say("d", m.Export(0, FUNCTION, "work", b"code"), WORK)
    head.say("d", m.Goodbye(0, "done"))
    head.durable = True
    head.turn()
    head.turn()
    assert not known(head) and head.stored[-1] == ("functions", FUNCTION, None)


def test_a_new_head_keeps_functions_until_everybody_has_told_what_it_needs() -> None:
    row = msgspec.msgpack.encode(FunctionRow("work", b"code", []))
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    head = Head({"functions": {FUNCTION: row}, "jobs": {identity("d"): job}}, epoch=2)
    head.turn()
    assert FUNCTION in head.gcs.catalog.functions
    head.say("d", head.hello_driver("d"))
    head.say("d", WORK, m.Hold(0, identity("d"), b"", True))
    assert known(head)
    head.say("d", m.Goodbye(0, "done"))
    assert not known(head)


def test_a_new_head_forgets_functions_that_nobody_comes_back_for() -> None:
    row = msgspec.msgpack.encode(FunctionRow("work", b"code", []))
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    head = Head({"functions": {FUNCTION: row}, "jobs": {identity("d"): job}}, epoch=2)
    head.say("d", head.hello_driver("d"))
    head.say("d", m.Hold(0, identity("d"), b"", True))
    assert not known(head) and ("functions", FUNCTION, None) in head.stored


def test_a_node_that_returns_with_a_forgotten_template_is_told() -> None:
    head = Head()
    head.node("n1")
    head.say("n1", WORK)
    assert head.taken("n1", m.Forget) == [FORGET]
    assert not known(head)


# ---- nodes and workers ---------------------------------------------------------------------


def test_a_raylet_forgets_and_tells_the_workers_that_know() -> None:
    bench = RayletBench()
    bench.head(WORK)
    bench.give(spec("t", WORK))
    (worker,) = bench.workers()
    bench.worker(worker, m.Done(0, [done(identity("t"))]))
    bench.to_workers.clear()
    bench.head(FORGET)
    assert bench.to_workers[worker] == [FORGET]
    assert not bench.raylet.tasks.templates and not bench.raylet.tasks.functions
    bench.to_workers.clear()
    bench.head(m.Export(0, FUNCTION, "work", b"code"), WORK)
    bench.give(spec("again", WORK))
    kinds = [type(message) for message in bench.to_workers[worker]]
    assert kinds == [m.Export, m.Template, m.Tasks]


def test_a_raylet_tells_a_new_session_what_each_worker_needs() -> None:
    bench = RayletBench()
    bench.head(WORK)
    bench.give(spec("t", WORK))
    (worker,) = bench.workers()
    other = template("other")
    bench.worker(worker, m.Export(0, FUNCTION, "other", b"code"), other)
    bench.to_head.clear()
    bench.welcome()
    told = [msgspec.structs.replace(each, seq=0) for each in bench.told(m.Template)]
    assert msgspec.structs.replace(other, holder=worker) in told
    bench.worker(worker, FORGET)
    assert bench.told(m.Forget) == [m.Forget(0, FUNCTION, worker)]
    bench.welcome()
    assert worker not in [message.holder for message in bench.told(m.Template)]


def test_a_function_stays_while_a_part_of_its_results_may_get_lost() -> None:
    """Its worker, which has heard a part of them, takes the task for ended."""
    bench = RayletBench()
    bench.head(WORK, m.Crowded(0, True))  # what workers submit goes by way of the head
    bench.give(spec("t", WORK))
    (worker,) = bench.workers()
    two = template("two", returns=2)
    bench.worker(worker, m.Export(0, FUNCTION, "two", b"code"), two)
    bench.worker(worker, m.Submit(0, identity("job"), worker, [spec("child", two)]))
    bench.head(m.Result(0, worker, [value(identity("child"))]))
    bench.to_head.clear()
    bench.worker(worker, FORGET)
    assert not bench.told(m.Forget)
    bench.welcome()  # the other part was lost with the session
    assert two.template_id in [
        each.template_id for each in bench.to_head if type(each) is m.Template
    ]
    assert [task.task_id for one in bench.told(m.Submit) for task in one.tasks] == [
        identity("child")
    ]
    bench.head(
        m.Result(0, worker, [value(identity("child"))]),
        m.Result(1, worker, [value(identity("child"), index=1)]),
    )
    assert bench.told(m.Forget) == [m.Forget(0, FUNCTION, worker)]
    bench.welcome()
    assert not bench.told(m.Submit)


def test_a_function_that_comes_back_before_it_could_go_stays() -> None:
    bench = RayletBench()
    bench.head(WORK, m.Crowded(0, True))  # what workers submit goes by way of the head
    bench.give(spec("t", WORK))
    (worker,) = bench.workers()
    two = template("two", returns=2)
    bench.worker(worker, m.Export(0, FUNCTION, "two", b"code"), two)
    bench.worker(worker, m.Submit(0, identity("job"), worker, [spec("child", two)]))
    bench.head(m.Result(0, worker, [value(identity("child"))]))
    bench.worker(worker, FORGET)
    bench.worker(worker, m.Export(0, FUNCTION, "two", b"code"), two)
    bench.head(m.Result(1, worker, [value(identity("child"), index=1)]))
    assert not bench.told(m.Forget)


# ---- the client ----------------------------------------------------------------------------


def test_a_client_lets_go_what_is_unnamed_and_has_no_task_left() -> None:
    client = Client(somebody(identity("d")), remote=True)
    client.receive(Payload(1, [m.Welcome(0, 1, b"c" * 16, 1, 1.0)], []), 0.0)
    export = m.Export(0, FUNCTION, "work", b"code")
    client.export(export)
    client.template(WORK)
    client.definitions.name(FUNCTION)
    client.definitions.name(FUNCTION)
    task = m.TaskSpec(client.new_task(), WORK.template_id, b"")
    client.submit(task, 1)
    client.flush()
    client.definitions.unname(FUNCTION)
    client.definitions.unname(FUNCTION)
    assert FORGET not in client.outbox
    outcome = m.Outcome(object_of(task.task_id), m.VALUE, 5, b"value")
    client.message(m.Result(1, identity("d"), [outcome]))
    assert client.outbox[-1] == FORGET and not client.definitions.templates
    client.export(export)
    client.template(WORK)
    assert [msgspec.structs.replace(each, seq=0) for each in client.outbox[-2:]] == [export, WORK]


def test_functions_are_forgotten_after_the_nodes_have_heard_that_their_job_has_ended() -> None:
    """And that only once it is stored: else a worker may meet a task without its template."""
    head = HeadBench()
    head.node("n1")
    head.driver("d", WORK)
    head.submit("d", spec("t0", WORK))
    head.taken("n1")
    head.durable = False
    head.say("d", m.Goodbye(0, "done"))
    told = [type(message) for message in head.taken("n1")]
    assert m.JobEnded not in told and m.Forget not in told
    head.durable = True
    head.turn()
    told = [type(message) for message in head.taken("n1")]
    assert told.index(m.JobEnded) < told.index(m.Forget)
