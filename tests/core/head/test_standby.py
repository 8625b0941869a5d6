"""A head that stands by: one answer to whoever comes, and who waits for a leader."""

from __future__ import annotations

import pytest

from tests.core.benches import VERSIONS, identity
from zray import limits
from zray.core.head.standby import Leading, Standby
from zray.protocol import messages as m
from zray.protocol.codec import Payload, encode
from zray.protocol.head_messages import HeadInfo, NotLeader


def head(name: str, *addresses: str) -> HeadInfo:
    return HeadInfo(identity(name), [*(addresses or (f"{name}:10001",))], name, 1, "0", 0.0)


H1, H2, H3 = head("h1"), head("h2"), head("h3")
LED = Leading(H2, 57, (H1, H2, H3))


def hello(role: int = m.ROLE_DRIVER, minor: int = m.PROTOCOL_MINOR) -> m.Hello:
    ids = (identity("p"), 0, b"")
    return m.Hello(0, m.PROTOCOL_VERSION, role, *ids, VERSIONS, minor=minor)


def say(standby: Standby, route: bytes, *messages: m.Message, now: float = 1.0) -> None:
    standby.receive(route, "user", Payload(0, [*messages], []), now)


def answers(standby: Standby) -> dict[bytes, list[m.Message]]:
    return standby.routed.take()


@pytest.fixture
def standby() -> Standby:
    return Standby()


@pytest.mark.parametrize("role", [m.ROLE_DRIVER, m.ROLE_NODE, m.ROLE_OBSERVER])
def test_a_hello_of_any_role_is_told_who_leads(standby: Standby, role: int) -> None:
    standby.learn(LED)
    say(standby, b"r", hello(role))
    [answer] = answers(standby)[b"r"]
    assert isinstance(answer, NotLeader)
    assert answer.epoch == standby.epoch == 57
    assert [(one.host, one.leads) for one in answer.heads] == [
        *(("h2", True), ("h1", False), ("h3", False))
    ]
    assert answer.text == "this head stands by; h2:10001 leads (epoch 57)"


def test_a_peer_that_does_not_know_the_message_is_refused_in_words(standby: Standby) -> None:
    standby.learn(LED)
    say(standby, b"r", hello(minor=0))
    assert answers(standby)[b"r"] == [
        m.Refused(0, "ZR-1504", "this head stands by; h2:10001 leads (epoch 57)")
    ]
    standby.link_lost(b"r", 2.0)
    say(standby, b"r", hello(), now=3.0)
    assert isinstance(answers(standby)[b"r"][0], NotLeader)


def test_what_is_no_hello_or_cannot_be_read_is_told_the_same(standby: Standby) -> None:
    standby.learn(LED)
    say(standby, b"a", m.Ping(0, 1.0), m.Query(1, m.STATUS))
    standby.refuse(b"b", 0, "no message")
    found = answers(standby)
    assert {route: [type(one) for one in said] for route, said in found.items()} == {
        b"a": [NotLeader],
        b"b": [NotLeader],
    }


def test_a_connection_that_stays_is_answered_a_few_times_only(standby: Standby) -> None:
    standby.learn(LED)
    for _ in range(10_000):
        say(standby, b"r", *[hello()] * 3)
    assert len(answers(standby)[b"r"]) == limits.STANDBY_ANSWERS_MAX
    standby.link_lost(b"r", 2.0)
    say(standby, b"r", hello())
    assert len(answers(standby)[b"r"]) == 1


def test_while_no_head_leads_a_hello_waits_for_one_that_does(standby: Standby) -> None:
    standby.learn(Leading(None, 57, (H1, H2), "etcd does not answer"))
    say(standby, b"r", hello(), now=1.0)
    say(standby, b"r", m.Ping(0, 1.0), now=1.1)
    standby.settle(1.5)
    assert not answers(standby)
    assert standby.deadline() == 1.0 + limits.STANDBY_HOLD_S
    standby.learn(Leading(H1, 60, (H1, H2)))
    [answer] = answers(standby)[b"r"]
    assert isinstance(answer, NotLeader)
    assert answer.heads[0].leads and answer.epoch == 60
    assert standby.deadline() == float("inf")


def test_a_hello_that_has_waited_is_told_that_no_head_leads_and_why(standby: Standby) -> None:
    standby.learn(Leading(None, 57, (H1, H2), "etcd does not answer"))
    say(standby, b"r", hello(), now=1.0)
    say(standby, b"s", hello(), now=1.5)
    standby.settle(1.0 + limits.STANDBY_HOLD_S)
    found = answers(standby)
    assert [*found] == [b"r"]
    [answer] = found[b"r"]
    assert isinstance(answer, NotLeader)
    assert not any(one.leads for one in answer.heads)
    assert answer.text == "this head stands by; no head leads now: etcd does not answer"
    say(standby, b"r", hello(), now=3.0)
    assert answers(standby)[b"r"], "it has waited once, and polls now"


def test_who_waits_is_handed_on_when_this_head_leads(standby: Standby) -> None:
    say(standby, b"r", hello(), now=1.0)
    say(standby, b"gone", hello(), now=1.0)
    standby.link_lost(b"gone", 1.1)
    [greeting] = standby.take_waiting()
    assert (greeting.route, greeting.user) == (b"r", "user")
    assert isinstance(greeting.payload.messages[0], m.Hello)
    standby.settle(9.0)
    assert not answers(standby)


def test_not_more_wait_than_there_is_room_for(standby: Standby) -> None:
    for number in range(limits.STANDBY_GREETINGS_MAX + 5):
        say(standby, b"%d" % number, hello())
    assert len(answers(standby)) == 5
    assert len(standby.take_waiting()) == limits.STANDBY_GREETINGS_MAX


def test_the_largest_answer_can_be_sent(standby: Standby) -> None:
    long = "x" * limits.NAME_MAX
    many = [
        HeadInfo(bytes([n]) * 16, [long] * limits.HEAD_ADDRESSES_MAX, long, 1, long, 0.0)
        for n in range(limits.HEADS_MAX + 4)
    ]
    standby.learn(Leading(many[-1], 1, tuple(many), long * 100))
    say(standby, b"r", hello())
    unsent: list[object] = []
    payload = encode(standby.epoch, answers(standby)[b"r"], unsent)  # type: ignore[arg-type]
    assert payload and not unsent
