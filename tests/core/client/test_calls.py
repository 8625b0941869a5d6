"""Calls of actors, without the client: by which way they go, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.benches import FUNCTION, identity, object_of
from tests.core.client.benches import ME, Lower
from zray import limits
from zray.core import failures
from zray.core.client.calls import ClientCalls
from zray.errors import ActorDiedError, ActorUnavailableError, TaskCancelledError
from zray.ids import split_objects
from zray.protocol import messages as m

ACTOR, WORKER = identity("a1"), identity("w1")
HANDLE = object_of(ACTOR)
INFO = m.ActorInfo("Counter", FUNCTION, [("add", 1)])


class Bench(Lower):
    def __init__(self) -> None:
        super().__init__()
        self.creations = self.make_creations(
            refuse=lambda actor, text: self.calls.refuse(actor, text),
            asked=lambda actor_id: self.calls.creation_asked(actor_id),
        )
        self.calls = ClientCalls(
            me=self.me,
            outbox=self.outbox,
            outcomes=self.outcomes,
            results=self.results,
            actors=self.actors,
            references=self.references,
            creations=self.creations,
            requests=self.requests,
        )

    def call(self, data: bytes = b"", retries: int = 0, nested: tuple[bytes, ...] = ()) -> bytes:
        (oid,) = self.calls.call(ACTOR, INFO, "add", 1, retries, (data, [], [*nested], b"", b""))
        return oid

    def is_now(
        self, state: int, incarnation: int = 1, link: int = 1, *, away: bool = False
    ) -> None:
        ids = (0, ME, ACTOR, state, incarnation, link, b"", WORKER, "")
        self.calls.on_state(m.ActorState(*ids, "its node died", b"", away))

    def connect(self, *, direct: bool) -> None:
        """The actor lives, and there is a way to it."""
        self.is_now(m.ACTOR_ALIVE)
        self.calls.connected(self.calls.connects.pop(), direct=direct)
        self.taken()

    def connect_after(self, calls: Callable[[], object]) -> None:
        """The same, of an actor that was called before, by way of the head."""
        calls()
        self.connect(direct=False)

    def fail(self, call: Any) -> None:
        """The method has raised what the call is made again for."""
        done = m.CallDone(call.seq, call.task_id, m.FAILED, [])
        self.calls.on_replies(m.Replies(0, ACTOR, 1, ME, [done]))

    def sent(self) -> list[Any]:
        """Calls that leave now over the socket to the worker."""
        self.calls.flush()
        messages = self.calls.direct.take().get(WORKER, [])
        return [call for message in messages for call in message.calls]  # type: ignore[attr-defined]

    def relayed(self) -> list[Any]:
        self.calls.flush()
        return [call for message in self.taken(m.Calls) for call in message.calls]

    def answer(self, call: Any, **fields: Any) -> None:
        outcome = m.Outcome(object_of(call.task_id), m.VALUE, 5, b"value", **fields)
        done = m.CallDone(call.seq, call.task_id, m.FINISHED, [outcome])
        self.calls.on_replies(m.Replies(0, ACTOR, 1, ME, [done]))

    def error(self, oid: bytes) -> Any:
        assert self.outcomes[oid].kind == m.ERROR
        return failures.read(self.outcomes[oid].value)


def test_the_head_is_asked_about_an_actor_once_and_calls_wait_for_a_way() -> None:
    bench = Bench()
    for _ in range(2):
        bench.call()
    assert bench.taken() == [m.ActorWatch(0, ME, [ACTOR])]
    bench.is_now(m.ACTOR_ALIVE)
    assert not bench.sent() and not bench.relayed() and bench.calls.waiting()
    bench.calls.connected(bench.calls.connects.pop(), direct=True)
    assert [call.seq for call in bench.sent()] == [0, 1]


def test_the_actor_lives_until_it_has_answered_whoever_else_has_a_handle() -> None:
    bench = Bench()
    bench.references.adopt(HANDLE)
    oid = bench.call()
    bench.references.remove(HANDLE)
    assert HANDLE in bench.references
    bench.connect(direct=False)
    (call,) = bench.relayed()
    bench.answer(call)
    assert HANDLE not in bench.references
    assert bench.outcomes[oid].value == b"value"


def test_a_call_by_a_handle_that_keeps_nothing_alive_keeps_nothing_alive() -> None:
    bench = Bench()
    bench.call()
    assert HANDLE not in bench.references
    bench.connect(direct=False)
    (call,) = bench.relayed()
    bench.answer(call)
    assert not bench.taken(m.Hold) and not bench.taken(m.Drop)


@pytest.mark.parametrize("direct", [True, False])
def test_large_arguments_become_an_object_only_where_the_head_passes_them_on(direct: bool) -> None:
    bench, data = Bench(), bytes(limits.INLINE_BYTES_MAX + 1)
    bench.call(data)
    bench.connect(direct=direct)
    (call,) = bench.sent() if direct else bench.relayed()
    assert call.boxed is not direct
    if direct:
        assert call.arguments == data and not bench.taken(m.Put)
    else:
        assert not call.arguments
        assert bench.values.served[call.dependencies[0]].value == data


def test_what_the_actor_answered_before_its_end_counts_and_the_rest_may_have_run() -> None:
    bench = Bench()
    first, second = bench.call(), bench.call()
    bench.connect(direct=True)
    call, _ = bench.sent()
    bench.is_now(m.ACTOR_RESTARTING)
    assert not bench.outcomes  # its socket is read to the end first
    bench.answer(call)
    bench.calls.drained(bench.calls.drains.pop())
    assert bench.outcomes[first].value == b"value"
    assert bench.error(second).maybe_executed
    assert bench.calls.closes == [WORKER]


def test_calls_that_may_run_again_wait_for_the_next_incarnation() -> None:
    bench = Bench()
    retried = bench.call(retries=1)
    bench.connect(direct=False)
    bench.relayed()
    bench.is_now(m.ACTOR_RESTARTING)
    unsent = bench.call(retries=1)
    bench.is_now(m.ACTOR_ALIVE, incarnation=2)
    bench.calls.connected(bench.calls.connects.pop(), direct=False)
    calls = bench.relayed()
    assert [object_of(call.task_id) for call in calls] == [retried, unsent]
    assert [call.seq for call in calls] == [0, 1]


def test_calls_that_may_not_run_again_do_not_wait_for_a_restart() -> None:
    bench = Bench()
    bench.unsubmitted.add(identity("t1"))
    bench.connect_after(lambda: bench.call(nested=(object_of(identity("t1")),)))
    (unsent,) = bench.results.awaited
    bench.is_now(m.ACTOR_RESTARTING)
    late = bench.call()
    for oid in (unsent, late):
        error = bench.error(oid)
        assert error.code == ActorUnavailableError.code and not error.maybe_executed
    bench.is_now(m.ACTOR_ALIVE, incarnation=2)
    bench.calls.connected(bench.calls.connects.pop(), direct=False)
    assert not bench.relayed() and bench.call() not in bench.outcomes


def test_calls_wait_for_the_first_incarnation_whatever_they_may() -> None:
    bench = Bench()
    oid = bench.call()
    bench.is_now(m.ACTOR_PENDING, incarnation=0)
    assert oid not in bench.outcomes and bench.calls.waiting()


def test_what_failed_is_made_again_as_often_as_it_may_be() -> None:
    bench = Bench()
    bench.connect_after(lambda: bench.call(retries=1))
    (first,) = bench.relayed()
    assert first.retry == m.RETRY_AS_DECLARED
    bench.fail(first)
    assert not bench.outcomes
    bench.call()
    again, other = bench.relayed()
    assert (again.task_id, again.seq, again.retry) == (first.task_id, 1, b"")
    assert (other.seq, other.retry) == (2, b"")
    bench.answer(again)
    assert bench.outcomes[object_of(first.task_id)].value == b"value"


def test_ends_of_the_actor_and_failures_are_counted_together() -> None:
    bench = Bench()
    bench.connect_after(lambda: bench.call(retries=1))
    (call,) = bench.relayed()
    bench.fail(call)
    bench.relayed()
    bench.is_now(m.ACTOR_RESTARTING)
    error = bench.error(object_of(call.task_id))
    assert error.code == ActorUnavailableError.code and error.maybe_executed


def test_what_failed_and_was_cancelled_is_not_made_again() -> None:
    bench = Bench()
    bench.connect_after(lambda: bench.call(retries=-1))
    (call,) = bench.relayed()
    bench.calls.cancel(call.task_id, recursive=False)
    bench.fail(call)
    assert bench.error(object_of(call.task_id)).code == TaskCancelledError.code
    assert not bench.relayed()


def test_calls_of_a_dead_actor_fail_at_once_and_it_is_forgotten_with_its_last_handle() -> None:
    bench = Bench()
    bench.references.adopt(HANDLE)
    waiting = bench.call()
    bench.is_now(m.ACTOR_DEAD)
    later = bench.call()
    for oid in (waiting, later):
        assert bench.error(oid).code == ActorDiedError.code and not bench.error(oid).maybe_executed
    bench.references.remove(HANDLE)
    bench.calls.handle_dropped(ACTOR)
    assert ACTOR not in bench.actors


def test_a_cancel_ends_what_was_not_sent_and_asks_the_actor_for_the_rest() -> None:
    bench = Bench()
    sent = bench.call()
    bench.connect(direct=True)
    (call,) = bench.sent()
    unsent = bench.call()
    for oid in (sent, unsent):
        assert bench.calls.cancel(oid[:16], recursive=False)
    assert bench.error(unsent).code == TaskCancelledError.code
    assert bench.taken() == [m.CancelCall(0, ACTOR, 1, ME, call.task_id)]
    assert not bench.calls.cancel(identity("no call"), recursive=False)


def test_a_recursive_cancel_of_a_call_reaches_what_it_has_made() -> None:
    bench = Bench()
    sent = bench.call()
    bench.connect(direct=True)
    (call,) = bench.sent()
    assert bench.calls.cancel(sent[:16], recursive=True)
    assert bench.taken() == [
        m.Cancel(0, call.task_id, False, True),  # tasks
        m.CancelCall(0, ACTOR, 1, ME, call.task_id, True),  # and calls
    ]
    assert not bench.calls.cancel_below(call.task_id)
    assert bench.calls.cancel_below(b"")  # of whoever has made this one


def test_an_answer_that_refers_to_something_is_acknowledged_when_the_head_knows_the_holds() -> None:
    bench, inner = Bench(), object_of(identity("x"))
    bench.call()
    bench.connect(direct=False)
    (call,) = bench.relayed()
    bench.answer(call, contained=[inner])
    hold, sync = bench.taken()
    assert inner in split_objects(hold.object_ids) and isinstance(sync, m.Sync)

    def upto() -> int:
        bench.calls.flush()
        return max(message.upto for message in bench.taken(m.Calls))

    assert upto() == 0
    asked = bench.requests.take(sync.seq)
    assert asked is not None
    asked.waiter.arrived()
    assert upto() == 1


def test_a_call_that_needs_a_task_of_the_backlog_keeps_those_behind_it() -> None:
    bench = Bench()
    bench.unsubmitted.add(identity("t1"))
    bench.call(nested=(object_of(identity("t1")),))
    bench.call()
    bench.connect(direct=True)
    assert not bench.sent()
    # What was submitted before it may wait for this call's result: that is not waited for.
    assert identity("t1") in bench.hurried
    bench.unsubmitted.clear()
    assert [call.seq for call in bench.sent()] == [0, 1]


# ---- out of reach ------------------------------------------------------------------------------


def test_what_may_not_be_made_again_does_not_wait_for_a_node_that_is_away() -> None:
    bench = Bench()
    bench.unsubmitted.add(identity("t1"))
    flying: list[bytes] = []
    bench.connect_after(lambda: flying.extend([bench.call(), bench.call(retries=1)]))
    bench.relayed()
    unsent = bench.call(nested=(object_of(identity("t1")),))
    bench.is_now(m.ACTOR_ALIVE, away=True)
    late = bench.call()
    assert bench.error(flying[0]).maybe_executed and flying[1] not in bench.outcomes
    for oid in (flying[0], unsent, late):
        error = bench.error(oid)
        assert error.code == ActorUnavailableError.code and "its node died" in error.message
        assert error.maybe_executed is (oid == flying[0])
    assert bench.calls.unanswered(ACTOR) == 1
    assert "out of reach" in bench.calls.reason(flying[1])[0]
    waits = bench.call(retries=-1)
    assert "out of reach" in bench.calls.reason(waits)[0]
    assert not bench.relayed()
    bench.is_now(m.ACTOR_ALIVE)
    given_up, again, first = bench.relayed()
    assert (given_up.seq, given_up.given_up, given_up.num_returns) == (0, True, 0)
    assert [object_of(call.task_id) for call in (again, first)] == [flying[1], waits]
    assert [call.seq for call in (again, first)] == [1, 2]
    (new,) = [call for call in [bench.call()] if call not in bench.outcomes]
    assert [object_of(call.task_id) for call in bench.relayed()] == [new]


def test_an_answer_after_the_error_changes_nothing_and_lets_all_go() -> None:
    bench, inner = Bench(), object_of(identity("p"))
    bench.references.adopt(HANDLE)
    bench.references.adopt(inner)
    oids: list[bytes] = []
    bench.connect_after(lambda: oids.append(bench.call(nested=(inner,))))
    (call,) = bench.relayed()
    bench.references.remove(inner)
    bench.references.remove(HANDLE)
    bench.is_now(m.ACTOR_ALIVE, away=True)
    before = bench.outcomes[oids[0]]
    assert before.kind == m.ERROR and not bench.calls.is_open(call.task_id)
    assert inner in bench.references and HANDLE in bench.references  # the actor may have it
    assert not bench.calls.cancel(call.task_id, recursive=True)
    bench.is_now(m.ACTOR_ALIVE)
    bench.relayed()
    bench.answer(call, contained=[object_of(identity("q"))])
    assert bench.outcomes[oids[0]] is before
    assert inner not in bench.references and HANDLE not in bench.references
    assert object_of(identity("q")) not in bench.references
    bench.calls.flush()
    (acknowledged,) = bench.taken(m.Calls)
    assert acknowledged.upto == 1


def test_who_has_a_socket_to_the_actor_does_not_care_whether_its_node_is_away() -> None:
    bench = Bench()
    sent = bench.call()
    bench.connect(direct=True)
    bench.sent()
    bench.is_now(m.ACTOR_ALIVE, away=True)
    later = bench.call()
    assert sent not in bench.outcomes
    assert [object_of(call.task_id) for call in bench.sent()] == [later]


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("direct", [False, True])
def test_a_socket_is_closed_and_the_actor_lives(direct: bool, away: bool) -> None:
    """A new one shows that its process does, too; else it may be about to be told dead."""
    bench = Bench()
    oid, waits = bench.call(), bench.call(retries=1)
    bench.connect(direct=True)
    bench.sent()
    bench.calls.link_lost(bench.actors[ACTOR])
    assert bench.taken() == [m.ActorWatch(0, ME, [ACTOR])]
    bench.is_now(m.ACTOR_ALIVE, away=away)
    bench.calls.connected(bench.calls.connects.pop(), direct=direct)
    calls = bench.sent() if direct else bench.relayed()
    if direct:
        error = bench.error(oid)
        assert error.code == ActorUnavailableError.code and error.maybe_executed
        assert "connection" in error.message
        assert [call.given_up for call in calls] == [True, False]
    elif away:
        assert "its node died" in bench.error(oid).message and not calls
    else:
        assert oid not in bench.outcomes and not any(call.given_up for call in calls)
    assert waits not in bench.outcomes


def test_the_end_of_the_actor_is_the_end_of_what_was_given_up() -> None:
    bench, inner = Bench(), object_of(identity("p"))
    bench.references.adopt(inner)
    oids: list[bytes] = []
    bench.connect_after(lambda: oids.append(bench.call(nested=(inner,))))
    bench.relayed()
    bench.references.remove(inner)
    bench.is_now(m.ACTOR_ALIVE, away=True)
    before = bench.outcomes[oids[0]]
    bench.is_now(m.ACTOR_DEAD)
    assert bench.outcomes[oids[0]] is before and inner not in bench.references
