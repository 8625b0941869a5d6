"""A raylet's session with the head, without the raylet."""

from __future__ import annotations

from typing import Any

from tests.core.benches import CLUSTER
from zray import limits
from zray.core.incidents import Incidents
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.head_session import HEAD, HeadSession
from zray.errors import VersionMismatchError
from zray.protocol import messages as m
from zray.protocol.codec import Payload


class Bench:
    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.incidents = Incidents()
        self.heard: list[m.Message] = []
        self.welcomes = self.fences = 0
        self.session = HeadSession(self.outbox, self.incidents, self._welcomed, self._fenced)
        self.session.start_over(
            {m.Ack: self._hear, m.Free: self._fail, m.Pong: self.session.on_pong}
        )

    def _welcomed(self) -> None:
        self.welcomes += 1

    def _fenced(self) -> None:
        self.fences += 1

    def _hear(self, message: m.Message, now: float) -> None:
        self.heard.append(message)

    def _fail(self, message: m.Message, now: float) -> None:
        raise ValueError("broken")

    def say(self, *messages: m.Message, epoch: int = 1, now: float = 100.0) -> None:
        self.session.receive(Payload(epoch, list(messages), []), now)

    def told(self) -> list[Any]:
        return self.outbox.take().get(HEAD, [])


def welcome() -> m.Welcome:
    return m.Welcome(0, 1, CLUSTER, 1 << 20, 2.0, head_id=b"h" * 16)


def linked(epoch: int = 1) -> Bench:
    bench = Bench()
    bench.say(welcome(), epoch=epoch)
    return bench


def test_nothing_is_told_or_heard_outside_a_session() -> None:
    bench = Bench()
    bench.session.tell(m.WorkerDied(0, bytes(16)))
    bench.session.ping(0.0)
    bench.say(m.Ack(0, 1))
    assert not bench.told() and not bench.heard
    bench.say(welcome(), m.Ack(0, 2))
    bench.session.tell(m.WorkerDied(0, bytes(16)))
    assert bench.heard == [m.Ack(0, 2)] and bench.welcomes == 1
    bench.session.disconnected()
    assert not bench.told(), "the next session tells all anew"
    assert bench.session.deadline() == NEVER


def test_a_head_of_the_past_is_not_followed() -> None:
    bench = linked(epoch=3)
    bench.session.disconnected()
    bench.say(welcome(), epoch=2)
    assert not bench.session.linked and bench.session.refused is not None
    bench.session.refused = None
    bench.say(welcome(), epoch=3)
    bench.say(m.Ack(0, 1), epoch=2)
    assert bench.session.refused is not None and not bench.heard


def test_a_message_that_is_lost_here_begins_one_new_session_and_then_costs_itself_alone() -> None:
    bench = linked()
    bench.say(m.Free(0, b""), m.Ack(0, 1))
    assert bench.session.refused is not None and not bench.heard, "who has what is told anew"
    bench.session.disconnected()
    bench.say(welcome())
    assert bench.session.refused is None
    bench.say(m.Free(0, b""), m.Ack(0, 2), now=100.0 + limits.FRESH_START_S)
    assert bench.session.refused is None and bench.heard == [m.Ack(0, 2)]
    assert bench.incidents.total == 2


def test_a_declared_death_is_told_and_a_refused_hello_is_kept_for_who_asks() -> None:
    bench = linked()
    bench.say(m.Refused(0, m.FENCED, "too late"))
    assert bench.fences == 1
    bench = Bench()
    bench.say(m.Rejected(0, 0, "ZR-1", "no such version"))
    assert bench.session.refused == m.Refused(0, "ZR-1", "no such version") and not bench.fences


def test_the_lease_counts_from_when_the_ping_was_sent() -> None:
    bench = linked()
    bench.session.ping(100.0)
    (ping,) = bench.told()
    bench.say(m.Pong(0, ping.sent_s, ""), now=104.0)
    assert bench.session.lease_until == 100.0 + limits.ACTOR_LEASE_S
    bench.session.start_over({})
    assert bench.session.lease_until == 0.0, "the next incarnation has none"


def test_a_ping_is_due_at_once_and_then_at_intervals() -> None:
    bench = linked()
    assert bench.session.deadline() == 100.0
    for now in (100.0, 100.1, 101.9, 102.0):
        bench.session.ping(now)
    assert [ping.sent_s for ping in bench.told()] == [100.0, 102.0]
    bench.incidents.record("tending the store", "", OSError("full"), 103.0)
    bench.session.ping(bench.session.deadline())
    assert "tending the store" in bench.told()[0].trouble


def test_a_head_that_reads_no_prints_is_asked_for_a_word_and_then_gets_no_more() -> None:
    bench = linked()
    bench.session.ping(100.0)
    line = "x" * (1 << 20)

    def print_lines(count: int) -> int:
        for _ in range(count):
            bench.session.log(m.Log(0, bytes(16), "work", 1, "n1", False, [line]))
        return sum(isinstance(message, m.Log) for message in bench.told())

    assert print_lines(limits.LOG_ACK_BYTES >> 20) == limits.LOG_ACK_BYTES >> 20
    assert bench.session.deadline() == 0.0
    assert print_lines(100) < (limits.LOG_UNREAD_BYTES >> 20)
    assert print_lines(1) == 0
    bench.say(m.Ack(0, 1))
    assert print_lines(1) == 1


def test_a_head_of_a_far_version_is_none() -> None:
    bench = Bench()
    far = welcome()
    far.minor = m.PROTOCOL_MINOR + 2
    bench.say(far)
    refused = bench.session.refused
    assert refused is not None and refused.code == VersionMismatchError.code
    assert not bench.session.linked and not bench.welcomes
    bench.say(welcome())
    assert bench.session.linked and bench.session.head_minor == 0
