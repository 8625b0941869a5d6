"""What was asked and who waits for the answer, without the client."""

from __future__ import annotations

import pytest

from tests.core.benches import identity
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter
from zray.protocol import messages as m

ME, ACTOR = identity("d1"), identity("a1")
INFO = m.ActorInfo("Counter", identity("f"), [])
TASK = m.TaskSpec(ACTOR, identity("t"), b"")


def find(number: int) -> m.Message:
    return m.FindActor(number, ME, "", "name")


def create(number: int, get_if_exists: bool) -> m.Message:
    return m.CreateActor(number, ME, ME, TASK, INFO, get_if_exists)


def test_each_request_has_a_number_of_its_own_under_which_it_is_taken_once() -> None:
    outbox: list[m.Message] = []
    requests, waiter = Requests(outbox), Waiter()
    answer = requests.ask(lambda number: m.Sync(number), waiter)
    requests.ask(find, waiter)
    assert waiter.remaining == 2
    first, second = outbox
    asked = requests.take(first.seq)
    assert asked is not None and asked.request is first and asked.answer is answer
    assert requests.take(first.seq) is None
    assert requests.take(requests.number()) is None
    assert first.seq != second.seq


def test_a_new_session_gets_what_is_unanswered_as_it_was_and_in_order() -> None:
    outbox: list[m.Message] = []
    requests = Requests(outbox)
    for make in (find, m.Sync, find):
        requests.ask(make, Waiter())
    requests.take(outbox[0].seq)
    assert requests.unanswered() == outbox[1:]


@pytest.mark.parametrize(
    ("make", "may"),
    [
        (find, True),
        (lambda number: create(number, get_if_exists=True), True),
        (lambda number: create(number, get_if_exists=False), False),
        (lambda number: m.Query(number, m.STATUS), False),
    ],
    ids=["find", "get_if_exists", "create", "query"],
)
def test_drops_wait_while_an_answer_may_bring_a_handle(make: object, may: bool) -> None:
    outbox: list[m.Message] = []
    requests = Requests(outbox)
    requests.ask(make, Waiter())  # type: ignore[arg-type]
    assert requests.may_bring_handle() is may
    requests.take(outbox[0].seq)
    assert not requests.may_bring_handle()


def test_at_the_end_whoever_waits_is_let_go_without_an_answer() -> None:
    requests, waiter = Requests([]), Waiter()
    answer = requests.ask(find, waiter)
    requests.release_all()
    assert (waiter.remaining, answer, requests.unanswered()) == (0, [], [])
    assert not requests.may_bring_handle()
