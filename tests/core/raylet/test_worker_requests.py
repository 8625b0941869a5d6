"""What a raylet keeps and says on behalf of its workers, without the raylet."""

from __future__ import annotations

from itertools import count
from typing import Any

from msgspec.structs import replace

from tests.core.benches import FUNCTION, identity, object_of, spec, template, value
from zray.core.machine import Outbox
from zray.core.raylet.objects import LocalObjects
from zray.core.raylet.worker_requests import WorkerRequests
from zray.protocol import messages as m

JOB, W1, W2 = identity("job"), identity("w1"), identity("w2")
WORK = template(returns=2)
TASK = spec("t", WORK)


class Bench:
    """Two workers; the first one knows a template."""

    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.to_head: list[Any] = []
        self.objects = LocalObjects(self.to_head.append)
        self.requests = WorkerRequests(self.outbox, self.objects, self.to_head.append, count(1))
        for worker in (W1, W2):
            self.requests.employ(worker, JOB)
        self.requests.definitions.on_template(W1, WORK)
        self.to_head.clear()

    def submit(self) -> None:
        self.requests.on_submit(W1, m.Submit(0, JOB, W1, [TASK]))

    def told(self, *kinds: type[m.Message]) -> list[Any]:
        messages = [message for message in self.to_head if isinstance(message, kinds)]
        self.to_head.clear()
        return messages

    def resumed(self, *kinds: type[m.Message]) -> list[Any]:
        self.to_head.clear()
        self.requests.resume({})
        self.requests.resume_requests()
        return self.told(*kinds)


def result(*indices: int, seq: int = 0) -> m.Result:
    outcomes = [value(TASK.task_id, index=index) for index in indices]
    return m.Result(seq, W1, outcomes)


def test_a_task_is_submitted_again_until_its_outcome_is_committed() -> None:
    bench = Bench()
    bench.submit()
    assert bench.told(m.Submit) == [m.Submit(0, JOB, W1, [TASK])]
    bench.requests.on_result(result(0))  # the other part may get lost with its head
    assert bench.resumed(m.Submit) == [m.Submit(0, JOB, W1, [TASK])]
    bench.requests.on_result(result(1, seq=7))
    assert bench.told(m.ResultAck) == [m.ResultAck(0, W1, 7)]
    assert bench.resumed(m.Submit) == []
    assert [type(message) for message in bench.outbox.take()[W1]] == [m.Result, m.Result]


def test_a_new_session_hears_which_results_of_it_nobody_wants() -> None:
    bench = Bench()
    bench.submit()
    first, second = (object_of(TASK.task_id, index) for index in (0, 1))
    bench.requests.on_drop(W1, m.Drop(0, W1, first))
    submit, drop = bench.resumed(m.Submit, m.Drop)
    assert submit.tasks == [TASK] and drop.object_ids == first
    assert [held.object_ids for held in bench.requests.holds()] == [second, b""]


def test_an_answer_comes_back_under_the_worker_s_own_number_and_once() -> None:
    bench = Bench()
    for worker in (W1, W2):
        bench.requests.on_request(worker, m.Kv(5, "get", b"key"))
    first, second = bench.told(m.Kv)
    assert first.seq != second.seq
    assert [again.seq for again in bench.resumed(m.Kv)] == [first.seq, second.seq]
    answer = m.KvReply(0, second.seq, True, b"data")
    bench.requests.on_answer(answer)
    bench.requests.on_answer(answer)
    assert bench.outbox.take() == {W2: [replace(answer, about=5)]}
    bench.requests.dismiss(W1)
    bench.requests.on_answer(replace(answer, about=first.seq))
    assert not bench.outbox and bench.resumed(m.Kv) == []


def test_a_refusal_reaches_the_worker_whose_message_it_is_about() -> None:
    bench = Bench()
    bench.requests.definitions.on_export(W2, m.Export(9, FUNCTION, "work", b"code"))
    (export,) = bench.told(m.Export)
    assert export.holder == W2
    refusal = m.Rejected(0, export.seq, "ZR-1", "too large")
    assert bench.requests.refused(refusal)
    assert bench.outbox.take() == {W2: [replace(refusal, about=9)]}
    assert not bench.requests.refused(replace(refusal, about=10_000))


def test_what_is_here_is_answered_here() -> None:
    bench = Bench()
    here = value(identity("a"))
    bench.objects.put(here)
    away = object_of(identity("b"))
    bench.requests.on_watch(W1, m.Watch(0, W1, here.object_id + away))
    assert bench.told(m.Watch) == [m.Watch(0, W1, away)]
    assert bench.outbox.take() == {W1: [m.Result(0, W1, [here])]}


def test_a_worker_may_go_when_nothing_depends_on_it() -> None:
    bench = Bench()
    assert bench.requests.idle(W1)
    bench.submit()
    bench.requests.on_result(result(0, 1, seq=1))
    assert not bench.requests.idle(W1), "it holds the results"
    returns = b"".join(object_of(TASK.task_id, index) for index in (0, 1))
    bench.requests.on_drop(W1, m.Drop(0, W1, returns))
    assert bench.requests.idle(W1)
    bench.requests.borrowed(W1, [object_of(identity("a"))])
    assert not bench.requests.idle(W1)
