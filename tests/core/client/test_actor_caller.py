"""One actor as one process calls it: numbers, windows, ends, and what is sent again."""

from __future__ import annotations

import pytest

from tests.core.benches import FUNCTION, identity
from zray import limits
from zray.core.client.actor_caller import DIRECT, RELAYED, ActorCaller, PendingCall
from zray.protocol import messages as m

ACTOR = identity("a1")
ME = identity("d1")


def state(kind: int, incarnation: int = 1, link: int = 1, away: bool = False) -> m.ActorState:
    worker_id = identity(f"w{incarnation}")
    return m.ActorState(*(0, ME, ACTOR, kind, incarnation, link, b"", worker_id, "", "", b"", away))


class Bench:
    def __init__(self, path: int = DIRECT) -> None:
        self.caller = ActorCaller(ACTOR, ME)
        self.blocked: set[bytes] = set()
        self.caller.news(state(m.ACTOR_ALIVE))
        self.caller.path = path

    def add(self, name: str, retries: int = 0, size: int = 0) -> PendingCall:
        call = PendingCall(
            *(self.caller, identity(name), "f", 1, retries, bytes(size), [], [], b"", b""),
        )
        self.caller.waiting.append(call)
        return call

    def make(self, call: PendingCall) -> m.Call:
        return m.Call(call.seq, call.task_id, call.method, 1, call.arguments)

    def take(self) -> m.Calls | None:
        return self.caller.take_calls(self.make, lambda call: call.task_id not in self.blocked)

    def taken(self) -> list[tuple[int, str]]:
        message = self.take()
        return named(message.calls) if message is not None else []

    def answer(self, seq: int, name: str, incarnation: int = 1) -> PendingCall | None:
        return self.caller.answered(m.CallDone(seq, identity(name), m.FINISHED, []), incarnation)


def named(calls: list[m.Call]) -> list[tuple[int, str]]:
    return [(call.seq, call.task_id.rstrip(b"\0").decode()) for call in calls]


def test_nothing_is_sent_before_there_is_a_way() -> None:
    caller = ActorCaller(ACTOR, ME)
    bench = Bench()
    bench.caller = caller
    bench.add("c1")
    assert bench.take() is None
    caller.news(state(m.ACTOR_PENDING, 0))
    assert bench.take() is None
    caller.news(state(m.ACTOR_ALIVE))
    assert bench.take() is None
    caller.path = RELAYED
    assert bench.taken() == [(0, "c1")]


def test_calls_are_numbered_in_their_order_and_acknowledged_with_the_next() -> None:
    bench = Bench()
    for name in ("c1", "c2", "c3"):
        bench.add(name)
    assert bench.taken() == [(0, "c1"), (1, "c2"), (2, "c3")]
    assert bench.take() is None
    assert bench.answer(1, "c2") and not bench.answer(1, "c2")
    message = bench.take()
    assert message is not None and (message.upto, message.calls) == (0, [])  # 0 is open
    bench.answer(0, "c1")
    bench.add("c4")
    message = bench.take()
    assert message is not None and message.upto == 2 and named(message.calls) == [(3, "c4")]


def test_an_answer_that_refers_to_something_is_acknowledged_once_that_is_held() -> None:
    bench = Bench()
    bench.add("c1")
    bench.add("c2")
    bench.take()
    bench.caller.unsettled[0] = None
    bench.answer(0, "c1")
    bench.answer(1, "c2")
    message = bench.take()
    assert message is not None and message.upto == 0
    del bench.caller.unsettled[0]
    bench.caller.acknowledge = True
    message = bench.take()
    assert message is not None and message.upto == 2


def test_answers_of_other_incarnations_and_to_other_calls_do_not_count() -> None:
    bench = Bench()
    bench.add("c1")
    bench.take()
    assert bench.answer(0, "c1", incarnation=2) is None
    assert bench.answer(0, "c9") is None
    assert bench.answer(5, "c1") is None
    assert bench.answer(0, "c1") is not None


@pytest.mark.parametrize("size", [0, limits.ACTOR_WINDOW_BYTES // 4])
def test_a_window_bounds_what_is_unanswered(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ACTOR_WINDOW_CALLS", 4)
    bench = Bench()
    for number in range(6):
        bench.add(f"c{number}", size=size)
    sent = []
    while some := bench.taken():
        sent += some
    assert [seq for seq, _ in sent] == [0, 1, 2, 3]
    bench.answer(2, "c2")
    assert bench.taken() == [(4, "c4")]


def test_a_call_that_may_not_leave_keeps_those_behind_it() -> None:
    bench = Bench()
    for name in ("c1", "c2", "c3"):
        bench.add(name)
    bench.blocked = {identity("c2")}
    assert bench.taken() == [(0, "c1")]
    assert bench.taken() == []
    bench.blocked = set()
    assert bench.taken() == [(1, "c2"), (2, "c3")]


def test_where_order_does_not_matter_others_leave_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.caller.info = m.ActorInfo("C", FUNCTION, [], out_of_order=True)
    for name in ("c1", "c2", "c3", "c4"):
        bench.add(name)
    bench.blocked = {identity("c1"), identity("c3")}
    assert bench.taken() == [(0, "c2"), (1, "c4")]
    bench.blocked = set()
    assert bench.taken() == [(2, "c1"), (3, "c3")]
    monkeypatch.setattr(limits, "ACTOR_PASSED_CALLS_MAX", 1)
    for name in ("c5", "c6", "c7"):
        bench.add(name)
    bench.blocked = {identity("c5"), identity("c6")}
    assert bench.taken() == []  # it is not looked for any further
    bench.blocked = set()
    assert bench.taken() == [(4, "c5"), (5, "c6"), (6, "c7")]


def test_the_end_of_an_incarnation_fails_what_may_not_run_twice() -> None:
    bench = Bench()
    calls = [
        bench.add(name, retries) for name, retries in [("c1", 0), ("c2", 1), ("c3", -1), ("c4", 0)]
    ]
    bench.take()
    bench.add("c5")
    bench.answer(3, "c4")
    restarting = state(m.ACTOR_RESTARTING)
    assert bench.caller.ends_incarnation(restarting)
    bench.caller.news(restarting)
    assert bench.caller.interrupted() == [calls[0]]
    assert calls[0].may_have_run and calls[1].may_have_run and not calls[3].may_have_run
    assert bench.take() is None
    bench.caller.news(state(m.ACTOR_ALIVE, 2))
    bench.caller.path = DIRECT
    assert bench.taken() == [(0, "c2"), (1, "c3"), (2, "c5")]
    bench.caller.news(state(m.ACTOR_RESTARTING, 2))
    assert [call.task_id for call in bench.caller.interrupted()] == [
        identity("c2"),
        identity("c5"),
    ]


def test_a_cancelled_call_is_not_sent_to_the_next_incarnation() -> None:
    bench = Bench()
    call = bench.add("c1", -1)
    bench.take()
    call.cancelled = True
    bench.caller.news(state(m.ACTOR_RESTARTING))
    assert bench.caller.interrupted() == [call]


def test_only_what_was_not_sent_can_be_withdrawn() -> None:
    bench = Bench()
    first = bench.add("c1")
    bench.take()
    second = bench.add("c2")
    assert not bench.caller.withdraw(first)
    assert bench.caller.withdraw(second)
    assert bench.caller.unanswered() == 1


@pytest.mark.parametrize(
    ("path", "link", "again"), [(RELAYED, 1, False), (RELAYED, 2, True), (DIRECT, 2, False)]
)
def test_calls_are_sent_again_where_the_way_may_have_lost_them(
    path: int, link: int, again: bool
) -> None:
    bench = Bench(path)
    for name in ("c1", "c2", "c3"):
        bench.add(name)
    bench.take()
    bench.answer(1, "c2")
    assert bench.caller.news(state(m.ACTOR_ALIVE, 1, link)) is again
    (message,) = bench.caller.calls_again(bench.make)
    assert named(message.calls) == [(0, "c1"), (2, "c3")] and message.upto == 0


def test_what_is_sent_again_comes_in_messages_of_bounded_size() -> None:
    bench = Bench(RELAYED)
    for number in range(5):
        bench.add(f"c{number}", size=limits.SUBMIT_BYTES_MAX // 2)
    while bench.take() is not None:
        pass
    messages = bench.caller.calls_again(bench.make)
    assert [len(message.calls) for message in messages] == [2, 2, 1]


def test_out_of_reach_nothing_is_sent_but_over_a_socket() -> None:
    for path, sends in ((RELAYED, False), (DIRECT, True)):
        bench = Bench(path)
        bench.caller.news(state(m.ACTOR_ALIVE, away=True))
        assert bench.caller.out_of_reach() is not sends
        bench.add("c1", retries=1)
        assert (bench.take() is not None) is sends


def test_what_is_given_up_keeps_its_number_and_is_counted_no_more() -> None:
    bench = Bench(RELAYED)
    calls = [
        bench.add(name, retries, size=10)
        for name, retries in [("c1", 0), ("c2", 1), ("c3", -1), ("c4", 0)]
    ]
    calls[2].cancelled = True
    bench.take()
    assert bench.caller.give_up() == [calls[0], *calls[2:]]
    assert bench.caller.give_up() == []
    assert all(call.may_have_run and not call.arguments for call in (calls[0], *calls[2:]))
    assert (bench.caller.open_calls(), bench.caller.unanswered()) == (1, 4)
    (message,) = bench.caller.calls_again(bench.make)
    assert [seq for seq, _ in named(message.calls)] == [0, 1, 2, 3]
    assert bench.answer(0, "c1") is calls[0]
    assert (bench.caller.open_calls(), bench.caller.unanswered()) == (1, 3)
    bench.caller.news(state(m.ACTOR_RESTARTING))
    assert bench.caller.interrupted() == calls[2:]
    assert (bench.caller.open_calls(), bench.caller.unanswered()) == (1, 1)


def test_once_it_is_reached_again_all_is_sent_again_whatever_link_was_lost_meanwhile() -> None:
    bench = Bench(RELAYED)
    bench.add("c1", retries=1)
    bench.take()
    assert not bench.caller.news(state(m.ACTOR_ALIVE, away=True))
    bench.caller.news(state(m.ACTOR_ALIVE, link=2, away=True))  # the caller's own session
    assert bench.caller.news(state(m.ACTOR_ALIVE, link=2))
