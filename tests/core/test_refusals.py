"""What the head or a node refuses is answered: whoever waits for it has an error, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import (
    FUNCTION,
    RayletBench,
    done,
    identity,
    object_of,
    somebody,
    spec,
    template,
)
from zray import limits
from zray.core import failures
from zray.core.client.client import Client
from zray.core.client.waiters import Waiter
from zray.core.incidents import Incidents
from zray.protocol import codec
from zray.protocol import messages as m

WORK = template()
OTHER = template("other")
ACTOR = identity("actor")
NO = ("ZR-2001", "a name of 300 characters")


def worker_of(bench: RayletBench) -> bytes:
    bench.head(WORK)
    bench.give(spec("t", WORK))
    return bench.workers()[0]


def client() -> Client:
    made = Client(somebody(identity("driver")), remote=True)
    made.linked = True
    return made


def said(of: Client, kind: type[m.Message]) -> list[Any]:
    return [message for message in of.outbox if isinstance(message, kind)]


# ---- the client ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [m.Template, m.Export])
def test_tasks_of_a_function_that_is_refused_fail_and_others_do_not(kind: type[m.Message]) -> None:
    driver = client()
    driver.export(m.Export(0, FUNCTION, "work", b"code"))
    driver.template(WORK)
    other = m.Template(0, identity("o"), identity("else"), "other", [], 1, 0)
    driver.export(m.Export(0, identity("else"), "other", b"code"))
    driver.template(other)
    tasks = [spec(f"t{number}", WORK) for number in range(3)]
    waiters = []
    for task in [*tasks[:2], m.TaskSpec(identity("fine"), other.template_id, b"")]:
        (oid,) = driver.submit(task, 1)
        driver.flush()
        waiters.append(Waiter())
        driver.want_value(oid, waiters[-1])
    (refused, *_) = said(driver, kind)
    driver.message(m.Rejected(0, refused.seq, *NO))
    assert [waiter.remaining for waiter in waiters] == [0, 0, 1]
    for task in tasks[:2]:
        record = failures.read(driver.outcomes[object_of(task.task_id)].value)
        assert record.code == NO[0] and NO[1] in record.message
    # The second one waited here for a lease.
    assert [cancel.task_id for cancel in said(driver, m.Cancel)] == [tasks[0].task_id]
    # Later ones do not wait, either.
    (oid,) = driver.submit(tasks[2], 1)
    assert driver.here(oid) is not None and tasks[2].task_id not in driver.tasks.unsubmitted


def test_a_request_that_is_refused_is_answered() -> None:
    driver = client()
    waiter = Waiter()
    answer = driver.ask(lambda seq: m.FindActor(seq, driver.process_id, "", "x" * 300), waiter)
    driver.message(m.Rejected(0, said(driver, m.FindActor)[0].seq, *NO))
    assert waiter.remaining == 0 and isinstance(answer[0], m.Rejected)
    assert not driver.requests.may_bring_handle()


def test_calls_of_an_actor_whose_creation_is_refused_fail() -> None:
    driver = client()
    driver.template(WORK)
    info = m.ActorInfo("C", FUNCTION, [("f", 1)])
    waiter = Waiter()
    driver.creations.create(spec("actor", WORK), info, False, waiter)
    (result,) = driver.calls.call(ACTOR, info, "f", 1, 0, (b"", [], [], b"", b""))
    driver.message(m.Rejected(0, said(driver, m.CreateActor)[0].seq, *NO))
    assert waiter.remaining == 0
    assert NO[1] in failures.read(driver.outcomes[result].value).message


# ---- the node on behalf of its workers ---------------------------------------------------------


def test_what_the_head_refuses_of_a_worker_reaches_the_worker_under_its_number() -> None:
    bench = RayletBench()
    worker = worker_of(bench)
    numbered = m.Template(41, OTHER.template_id, FUNCTION, "other", [], 1, 0)
    create = m.CreateActor(
        42, identity("job"), worker, spec("a", WORK), m.ActorInfo("C", ACTOR, [])
    )
    bench.worker(worker, numbered, create, m.Sync(43))
    by_kind = {type(message): message.seq for message in bench.to_head}
    bench.to_workers.clear()
    for kind in (m.Template, m.CreateActor, m.Sync):
        bench.head(m.Rejected(0, by_kind[kind], *NO))
    told = [message for message in bench.to_workers[worker] if isinstance(message, m.Rejected)]
    assert [message.about for message in told] == [41, 42, 43]


def test_a_workers_unreadable_message_is_refused_or_costs_the_worker() -> None:
    bench = RayletBench(incidents=Incidents())
    worker = worker_of(bench)
    bench.raylet.worker_refused(worker, [codec.Bad(7, "too long")], bench.now)
    bench.turn()
    (told,) = [msg for msg in bench.to_workers[worker] if isinstance(msg, m.Rejected)]
    assert told.about == 7 and "too long" in told.text
    assert not bench.raylet.workers.killed(worker)
    bench.raylet.worker_refused(worker, [codec.Bad(0, "no such verb")], bench.now)
    assert bench.raylet.workers.killed(worker)
    assert "reading a worker's message" in bench.raylet.incidents.trouble(bench.now)


# ---- ends --------------------------------------------------------------------------------------


def test_an_end_that_is_refused_is_told_again_and_not_taken_for_acknowledged() -> None:
    bench = RayletBench()
    worker = worker_of(bench)
    bench.worker(worker, m.Done(0, [done(identity("t"))]))
    (first,) = bench.told(m.Done)
    bench.head(m.Rejected(0, first.seq, *NO), m.Ack(0, first.seq))
    (again,) = bench.told(m.Done)
    assert again.seq > first.seq
    (end,) = again.tasks
    assert end.task_id == identity("t") and end.results[0].kind == m.ERROR
    assert NO[1] in failures.read(end.results[0].value).message
    assert list(bench.raylet.completions.unacked) == [again.seq]
    bench.head(m.Ack(0, again.seq))
    assert not bench.raylet.completions.unacked


def make_actor(bench: RayletBench) -> bytes:
    bench.head(WORK)
    info = m.ActorInfo("C", FUNCTION, [])
    bench.give(spec("actor", WORK), actor=info)
    worker = bench.workers()[0]
    bench.worker(worker, m.Done(0, [done(ACTOR)]))
    bench.to_head.clear()
    return worker


def test_the_last_words_of_an_actor_are_cut_to_what_a_message_takes() -> None:
    bench = RayletBench()
    worker = make_actor(bench)
    cause = "exit code 1; its last words:\n" + "\n".join("\ud800" + "x" * 16_000 for _ in range(20))
    bench.raylet.worker_exited(worker, 1, cause + "\nthe very last", bench.now)
    bench.turn()
    (exited,) = bench.told(m.ActorExited)
    assert len(exited.text) <= limits.TEXT_MAX
    assert "exit code 1" in exited.text and "the very last" in exited.text
    (payload,) = codec.encode(1, [exited])
    assert codec.decode(payload).messages == [exited]


def test_the_end_of_an_actor_that_is_refused_is_told_with_another_text() -> None:
    bench = RayletBench()
    worker = make_actor(bench)
    bench.raylet.worker_exited(worker, 1, "odd", bench.now)
    bench.turn()
    (first,) = bench.told(m.ActorExited)
    bench.head(m.Rejected(0, first.seq, *NO))
    (again,) = bench.told(m.ActorExited)
    assert again.seq > first.seq and again.actor_id == ACTOR and NO[1] in again.text
    assert [held.actor_id for held in bench.raylet.completions.held_actors()] == [ACTOR]
