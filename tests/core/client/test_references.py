"""What a process refers to, without the client: what the cluster is told of it, and when."""

from __future__ import annotations

import sys

from tests.core.benches import identity, object_of, value
from tests.core.client.benches import ME, Lower
from zray import limits
from zray.core.client.actor_caller import ActorCaller, PendingCall
from zray.protocol import messages as m

CALL = identity("call")
OID = object_of(CALL)


def located(oid: bytes) -> m.Outcome:
    return m.Outcome(oid, m.VALUE | m.LOCATED, 1 << 20)


def called(lower: Lower) -> None:
    """An actor was called, and has not answered; the result has one reference."""
    caller = ActorCaller(identity("a1"), ME)
    call = PendingCall(caller, CALL, "f", 1, 0, b"", [], [], b"", b"")
    lower.results.awaited[OID] = call
    lower.references.count(OID)


def answered(lower: Lower, outcome: m.Outcome) -> None:
    del lower.results.awaited[OID]
    promised = lower.results.take_promise(OID)
    if outcome.kind & m.LOCATED:
        lower.references.take_located(outcome, promised=promised)
    else:
        lower.references.take_result(outcome, promised=promised)


def test_the_result_of_a_call_is_nobody_else_s_business_before_and_after_the_answer() -> None:
    lower = Lower()
    called(lower)
    lower.references.add(OID)
    answered(lower, value(CALL))
    lower.references.remove(OID)
    lower.references.remove(OID)
    assert not lower.told(m.Message) and OID not in lower.outcomes


def test_a_result_that_left_before_the_answer_is_promised_once_and_put_when_it_is_there() -> None:
    lower = Lower()
    called(lower)
    for _ in range(2):
        lower.references.publish([OID])
    assert lower.taken() == [m.Promise(0, ME, OID)]
    answered(lower, value(CALL))
    (put,) = lower.taken()
    assert put == m.Put(0, ME, value(CALL))
    lower.references.remove(OID)
    assert lower.told(m.Drop) == [OID]


def test_a_promise_is_kept_though_this_process_dropped_the_result_meanwhile() -> None:
    lower = Lower()
    called(lower)
    lower.references.publish([OID])
    lower.references.remove(OID)
    assert lower.told(m.Drop) == [OID]
    answered(lower, value(CALL))
    assert [type(message) for message in lower.taken()] == [m.Put]
    assert lower.told(m.Drop) == [OID]  # the PUT has made this process a holder again


def test_what_comes_back_before_the_answer_is_promised_again_and_not_said_to_be_there() -> None:
    lower = Lower()
    called(lower)
    lower.references.publish([OID])
    lower.references.remove(OID)
    assert lower.told(m.Drop) == [OID]
    lower.taken()
    lower.references.add(OID)
    assert lower.taken() == [m.Promise(0, ME, OID)]
    answered(lower, located(OID))
    assert lower.told(m.Hold) == [OID]


def test_a_result_that_stays_with_its_node_is_held_from_then_on() -> None:
    lower = Lower()
    called(lower)
    answered(lower, located(OID))
    assert lower.told(m.Hold) == [OID]
    lower.references.remove(OID)
    assert lower.told(m.Drop) == [OID]


def test_a_handle_that_an_answer_brings_undoes_a_drop_that_was_not_told() -> None:
    lower = Lower()
    lower.references.adopt(OID)
    lower.references.remove(OID)
    lower.references.adopt(OID)
    assert not lower.told(m.Message)
    lower.references.remove(OID)
    assert lower.told(m.Drop) == [OID]


def test_an_actor_does_not_keep_itself_alive() -> None:
    lower = Lower(remote=False)
    lower.references.own_handle = OID
    lower.references.add(OID)
    assert not lower.told(m.Hold)
    lower.references.remove(OID)
    assert not lower.told(m.Drop)


def test_a_large_value_that_leaves_a_driver_stays_there_and_is_served() -> None:
    for size in (limits.INLINE_BYTES_MAX, limits.INLINE_BYTES_MAX + 1):
        lower = Lower()
        oid = lower.references.put(bytes(size), [])
        lower.references.publish([oid])
        (put,) = lower.taken()
        assert bool(put.outcome.kind & m.LOCATED) == (size > limits.INLINE_BYTES_MAX)
        assert lower.values.served[oid].value == bytes(size)


def test_whoever_waits_for_what_was_collected_is_let_go_and_actors_hear_of_their_handle() -> None:
    lower = Lower()
    lower.references.add(OID)
    waiter = lower.waits(OID)
    lower.actors.of(CALL)
    lower.references.remove(OID)
    assert waiter.remaining == 0 and lower.gone_handles == [CALL]


def test_values_may_be_nested_deeper_than_python_s_stack() -> None:
    depth = 3 * sys.getrecursionlimit()
    for leaves in (True, False):
        lower = Lower()
        oid = lower.references.put(b"", [])
        for _ in range(depth):
            inner, oid = oid, lower.references.put(b"", [oid])
            lower.references.remove(inner)
        if leaves:
            lower.references.publish([oid])
            puts = [message.outcome for message in lower.taken()]
            assert len(puts) == depth + 1
            assert all(puts[at].contained == [puts[at - 1].object_id] for at in range(1, depth))
        lower.references.remove(oid)
        assert not lower.references.counts and not lower.references.own
