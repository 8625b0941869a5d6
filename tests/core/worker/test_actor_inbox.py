"""The order in which an actor runs its calls, and what it keeps of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import identity, object_of, value
from zray import limits
from zray.core.worker.actor_inbox import ActorInbox, Entry
from zray.protocol import messages as m

ACTOR = identity("a1")
A, B = identity("d1"), identity("d2")


def call(seq: int, **fields: Any) -> m.Call:
    return m.Call(seq, identity(f"c{seq}"), "f", 1, b"", **fields)


class Bench:
    def __init__(self, max_concurrency: int = 1, **options: Any) -> None:
        self.inbox: ActorInbox[str] = ActorInbox(ACTOR, 1, max_concurrency, **options)

    def calls(
        self, *calls: m.Call, caller: bytes = A, upto: int = 0, incarnation: int = 1, way: str = "x"
    ) -> list[Entry]:
        return self.inbox.receive(m.Calls(0, ACTOR, incarnation, caller, upto, list(calls)), way)

    def started(self) -> list[int]:
        """Numbers of all calls that start now; each ends at once."""
        found = []
        while (entry := self.inbox.next()) is not None:
            found.append(entry.call.seq)
            self.inbox.ended(entry, m.FINISHED, [value(entry.call.task_id)], None)
        return found

    def replies(self) -> list[tuple[str, bytes, list[int]]]:
        return [
            (way, message.caller, [done.seq for done in message.replies])
            for way, message in self.inbox.take_replies()
        ]


def test_calls_start_in_the_order_of_their_numbers_whatever_way_they_come() -> None:
    bench = Bench()
    bench.calls(call(2), way="relayed")
    assert bench.started() == []
    bench.calls(call(0), way="direct")
    assert bench.started() == [0]
    bench.calls(call(1), way="relayed")
    assert bench.started() == [1, 2]


def test_a_number_runs_once_and_its_answer_is_given_again() -> None:
    bench = Bench()
    bench.calls(call(0), call(1))
    bench.calls(call(0), call(1))
    assert bench.started() == [0, 1]
    assert bench.replies() == [("x", A, [0, 1])]
    bench.calls(call(0), call(1), way="y")
    assert bench.started() == []
    assert bench.replies() == [("y", A, [0, 1])]
    bench.calls(upto=2)
    bench.calls(call(0), call(1))
    assert bench.started() == [] and bench.replies() == []


def test_a_running_call_that_comes_again_neither_runs_twice_nor_is_answered_early() -> None:
    bench = Bench()
    bench.calls(call(0))
    entry = bench.inbox.next()
    assert entry is not None
    bench.calls(call(0), way="y")
    assert bench.inbox.next() is None and bench.replies() == []
    bench.inbox.ended(entry, m.FINISHED, [], None)
    assert bench.replies() == [("y", A, [0])]


def test_calls_of_another_incarnation_are_not_heard() -> None:
    bench = Bench()
    bench.calls(call(0), incarnation=2)
    assert bench.started() == []


def test_callers_do_not_wait_for_each_other() -> None:
    bench = Bench()
    missing = object_of(identity("t1"))
    (entry,) = bench.calls(call(0, dependencies=[missing]), call(1))
    entry.missing += 1
    bench.inbox.arrived(entry)
    bench.calls(call(0), caller=B)
    assert bench.started() == [0]
    assert bench.replies() == [("x", B, [0])]
    bench.inbox.arrived(entry, value(identity("t1")))
    assert bench.started() == [0, 1]


def test_a_failed_argument_answers_the_call_without_a_start() -> None:
    bench = Bench()
    failed = m.Outcome(object_of(identity("t1")), m.ERROR, 3, b"why")
    bench.calls(call(0, dependencies=[failed.object_id], values=[failed]), call(1))
    assert bench.started() == [1]
    ((_, message),) = bench.inbox.take_replies()
    assert [done.results[0].value for done in message.replies] == [b"why", b"value"]


def test_so_many_run_at_once_as_may() -> None:
    bench = Bench(max_concurrency=2)
    bench.calls(call(0), call(1), call(2))
    first, second = bench.inbox.next(), bench.inbox.next()
    assert first and second and bench.inbox.next() is None
    bench.inbox.ended(second, m.FINISHED, [], None)
    third = bench.inbox.next()
    assert third is not None and third.call.seq == 2
    assert not bench.inbox.idle()


def test_each_group_has_a_limit_of_its_own() -> None:
    bench = Bench(groups={"io": 2, "rest": 1}, group_of={"f": "io"})
    bench.calls(*(call(seq) for seq in range(3)), call(3, group="rest"), call(4, group="rest"))
    running = [bench.inbox.next() for _ in range(4)]
    assert [entry and entry.call.seq for entry in running] == [0, 1, 3, None]
    assert running[0] is not None and running[0].group.name == "io"
    bench.inbox.ended(running[0], m.FINISHED, [], None)
    entry = bench.inbox.next()
    assert entry is not None and entry.call.seq == 2 and bench.inbox.next() is None
    assert bench.inbox.busy() and not bench.inbox.idle()


def test_a_call_that_waits_for_an_argument_keeps_those_of_its_group_only() -> None:
    bench = Bench(groups={"io": 1})
    missing = object_of(identity("t1"))
    (entry,) = bench.calls(call(0, dependencies=[missing]), call(1), call(2, group="io"))
    entry.missing += 1
    bench.inbox.arrived(entry)
    assert bench.started() == [2]
    bench.inbox.arrived(entry, value(identity("t1")))
    assert bench.started() == [0, 1]


def test_a_call_of_a_group_that_there_is_not_is_answered() -> None:
    bench = Bench(groups={"io": 1}, unknown_group=lambda call: call.group.encode())
    bench.calls(call(0, group="nope"), call(1))
    assert bench.started() == [1]
    ((_, message),) = bench.inbox.take_replies()
    assert [done.results[0].value for done in message.replies] == [b"nope", b"value"]


def test_where_order_does_not_matter_a_call_waits_for_its_own_arguments_only() -> None:
    bench = Bench(out_of_order=True)
    missing = object_of(identity("t1"))
    (entry,) = bench.calls(call(0, dependencies=[missing]), call(1), call(2))
    entry.missing += 1
    bench.inbox.arrived(entry)
    assert bench.started() == [1, 2] and not bench.inbox.idle()
    bench.inbox.arrived(entry, value(identity("t1")))
    assert bench.started() == [0] and bench.inbox.idle()


def test_the_same_of_one_that_is_cancelled_or_whose_caller_is_gone() -> None:
    for gone in (False, True):
        bench = Bench(out_of_order=True)
        (entry,) = bench.calls(call(0, dependencies=[object_of(identity("t1"))]))
        entry.missing += 1
        bench.inbox.arrived(entry)
        if gone:
            bench.inbox.forget(A)
        else:
            bench.inbox.cancel(A, identity("c0"))
        assert bench.inbox.idle()
        bench.inbox.arrived(entry, value(identity("t1")))
        assert bench.started() == [] and bench.inbox.idle()


def test_after_a_call_that_has_ended_the_actor_nothing_starts() -> None:
    bench = Bench(max_concurrency=2)
    bench.calls(call(0), call(1), call(2))
    leaves, other = bench.inbox.next(), bench.inbox.next()
    assert leaves is not None and other is not None
    bench.inbox.left(leaves)
    assert bench.inbox.next() is None and bench.inbox.busy()
    bench.inbox.ended(other, m.FINISHED, [], None)
    assert not bench.inbox.busy() and bench.started() == []
    assert bench.replies() == [("x", A, [1])]


def test_a_cancelled_call_does_not_start_nor_keep_others_waiting() -> None:
    bench = Bench()
    missing = object_of(identity("t1"))
    (entry,) = bench.calls(call(0, dependencies=[missing]), call(1), call(2))
    entry.missing += 1
    bench.inbox.arrived(entry)
    assert bench.inbox.cancel(A, identity("c0")) is None
    assert bench.inbox.cancel(A, identity("c2")) is None
    assert bench.started() == [1]
    bench.inbox.arrived(entry, value(identity("t1")))
    assert bench.started() == [] and bench.inbox.idle()
    ((_, message),) = bench.inbox.take_replies()
    assert {done.seq: done.status for done in message.replies} == {
        0: m.CANCELLED,
        1: m.FINISHED,
        2: m.CANCELLED,
    }


def test_a_cancel_that_comes_before_its_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACTOR_CANCELS_MAX", 2)
    bench = Bench(cancelled=lambda call: b"cancelled")
    bench.calls(call(0))
    for name in ("c9", "c1", "c8"):
        assert bench.inbox.cancel(A, identity(name)) is None
    bench.calls(call(1), call(2))
    assert bench.started() == [0, 2]
    ((_, message),) = bench.inbox.take_replies()
    assert [done.status for done in message.replies] == [m.CANCELLED, m.FINISHED, m.FINISHED]


def test_a_cancel_names_a_call_that_runs_and_no_other() -> None:
    bench = Bench()
    bench.calls(call(0))
    entry = bench.inbox.next()
    assert entry is not None
    assert bench.inbox.cancel(A, identity("c0")) is entry and entry.cancelled
    assert bench.inbox.cancel(A, identity("c9")) is None
    assert bench.inbox.cancel(B, identity("c0")) is None
    bench.inbox.ended(entry, m.CANCELLED, [], None)
    assert bench.inbox.cancel(A, identity("c0")) is None


def test_pins_are_kept_until_the_answer_is_acknowledged() -> None:
    bench = Bench()
    bench.calls(call(0), call(1))
    for pin in ("first", "second"):
        entry = bench.inbox.next()
        assert entry is not None
        bench.inbox.ended(entry, m.FINISHED, [], [pin])
    assert bench.inbox.owes("another way")
    bench.calls(upto=1)
    assert bench.inbox.owes("another way")
    bench.calls(upto=2)
    assert not bench.inbox.owes("x")


def test_an_answer_without_pins_is_owed_only_on_a_way_that_may_lose_it() -> None:
    bench = Bench()
    bench.calls(call(0))
    bench.started()
    assert bench.inbox.owes("x") and not bench.inbox.owes("another way")


def test_a_way_that_is_gone_is_replaced_and_what_it_may_have_lost_is_sent_again() -> None:
    bench = Bench()
    bench.calls(call(0), call(1), way="socket")
    assert bench.started() == [0, 1]
    bench.inbox.take_replies()
    assert bench.inbox.callers("socket") == [A]
    bench.inbox.reroute(A, "raylet")
    assert bench.replies() == [("raylet", A, [0, 1])]
    assert bench.inbox.callers("socket") == []


def test_a_caller_that_is_gone_is_forgotten_and_what_has_not_started_does_not() -> None:
    bench = Bench()
    bench.calls(call(0), call(1))
    running = bench.inbox.next()
    assert running is not None
    assert bench.inbox.silent() == [] and bench.inbox.silent() == [A]
    bench.calls(call(2))
    assert bench.inbox.silent() == []
    bench.inbox.forget(A)
    bench.inbox.ended(running, m.FINISHED, [], None)
    assert bench.started() == [] and bench.replies() == []
    assert bench.inbox.idle() and bench.inbox.silent() == []


def test_one_that_closes_takes_no_more_and_is_idle_at_the_end() -> None:
    bench = Bench()
    bench.calls(call(0))
    bench.inbox.closing = True
    bench.calls(call(1))
    assert not bench.inbox.idle()
    assert bench.started() == [0]
    assert bench.inbox.idle()


def test_what_may_not_serve_keeps_its_calls_until_it_may() -> None:
    may = [True]
    inbox: ActorInbox[str] = ActorInbox(ACTOR, 1, 2, lambda: may[0])
    inbox.receive(m.Calls(0, ACTOR, 1, b"caller-1", 0, [call(0), call(1)]), "way")
    first = inbox.next()
    assert first is not None and not inbox.paused
    may[0] = False
    assert inbox.next() is None and inbox.paused
    inbox.ended(first, m.FINISHED, [], None)  # what runs may end, and is answered
    assert [done.seq for _, replies in inbox.take_replies() for done in replies.replies] == [0]
    may[0] = True
    second = inbox.next()
    assert second is not None and second.call.seq == 1 and not inbox.paused


@pytest.mark.parametrize("queued", [False, True])
def test_a_call_that_was_given_up_only_takes_its_number_unless_it_has_come(queued: bool) -> None:
    bench = Bench()
    bench.calls(call(0))
    if queued:
        (entry,) = bench.calls(call(1, dependencies=[object_of(identity("t1"))]))
        entry.missing += 1
        bench.inbox.arrived(entry)
    given_up = [
        m.Call(seq, identity(f"c{seq}"), "add", 0, b"", given_up=True) for seq in (0, 1 + queued)
    ]
    bench.calls(*given_up, call(2 + queued), way="y")
    ((_, replies),) = bench.inbox.take_replies()
    assert [(done.seq, done.status, done.results) for done in replies.replies] == [
        (1 + queued, m.CANCELLED, [])
    ]
    if queued:
        bench.inbox.arrived(entry, value(identity("t1")))
    assert bench.started() == [0, *([1] if queued else []), 2 + queued]
    bench.replies()
    bench.calls(*given_up, way="z")
    assert bench.replies() == [("z", A, [0, 1 + queued])]
    bench.calls(upto=3 + queued)
    assert not bench.inbox.owes("z")
