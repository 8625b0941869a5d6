"""A raylet between a submitter on another machine and a worker that is leased to it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, identity, spec, template
from zray import limits
from zray.core.raylet.lease_relays import LeaseRelays
from zray.protocol import codec
from zray.protocol import messages as m

NODE, DRIVER, OTHER = identity("n"), identity("d"), identity("e")
LEASE, WORKER = identity("l"), identity("w")
HELD = m.HeldLease(LEASE, DRIVER, DRIVER, [("CPU", UNIT)], WORKER)


class Sockets:
    """To one worker."""

    def __init__(self) -> None:
        self.reachable = True
        self.room = 2
        self.pending = 0
        self.queue: list[bytes] = []
        self.stream: list[bytes] = []
        self.unread: list[bytes] = []
        self.deeds: list[str] = []
        self.machine: Any = None

    def connect(self, lease: m.HeldLease) -> bool:
        return self.reachable

    def put(self, lease_id: bytes, packet: bytes) -> bool:
        if len(self.queue) >= self.room:
            return False
        self.queue.append(packet)
        return True

    def send(self, lease_id: bytes, payload: bytes) -> int:
        self.stream.append(payload)
        return self.pending

    def take(self, lease_id: bytes) -> list[bytes]:
        taken, self.queue = self.queue, []
        return taken

    def read(self, lease_id: bytes) -> None:
        unread, self.unread = self.unread, []
        for payload in unread:
            self.machine.said(lease_id, payload)

    def hold(self, lease_id: bytes, held: bool) -> None:
        self.deeds.append("hold" if held else "read on")

    def close(self, lease_id: bytes) -> None:
        self.deeds.append("close")


class Bench:
    def __init__(self, *, hello: bool = True) -> None:
        self.leases = {LEASE: HELD}
        self.to_head: list[Any] = []
        self.sockets = Sockets()
        self.relays = LeaseRelays(NODE, lambda: b"", self.leases.get, self.to_head.append)
        self.relays.links = self.sockets.machine = self.sockets
        self.sockets.machine = self.relays
        self.number = 1
        if hello:
            self.hello("p", 1)
            self.taken("p")

    def hello(self, peer: str, path: int, who: bytes = DRIVER, role: int = m.ROLE_DRIVER) -> None:
        versions = m.Versions("3", "0", "3")
        self.relays.on_hello(peer, m.Hello(0, m.PROTOCOL_VERSION, role, who, path, b"", versions))

    def relay(self, *words: m.LeaseWord, path: int = 1, upto: int = 0, who: bytes = DRIVER) -> Any:
        message = m.Relay(0, who, NODE, LEASE, path, self.number, upto, [*words])
        self.number += len(words)
        return message

    def say(self, *words: m.LeaseWord, peer: str = "p", **more: Any) -> None:
        self.relays.on_relay(peer, self.relay(*words, **more))

    def taken(self, peer: str = "p") -> list[Any]:
        self.relays.step(0.0)
        return self.relays.outbox.take().get(peer, [])

    def words(self, peer: str = "p") -> list[tuple[int, bytes]]:
        relays = [message for message in self.taken(peer) if isinstance(message, m.Relay)]
        return [(word.kind, word.data) for message in relays for word in message.words]


def packet(*names: str) -> bytes:
    tasks = [m.Assignment(1, DRIVER, spec(name, template())) for name in names]
    (payload,) = codec.encode_local([m.Tasks(0, tasks)])
    return payload


def tasks(*names: str) -> m.LeaseWord:
    return m.LeaseWord(m.WORD_TASKS, packet(*names))


def ids(*names: str) -> bytes:
    return b"".join(identity(name) for name in names)


def test_what_passes_is_not_looked_into() -> None:
    bench = Bench()
    bench.say(m.LeaseWord(m.WORD_PAYLOAD, b"anything"), m.LeaseWord(m.WORD_TASKS, b"anything"))
    assert (bench.sockets.stream, bench.sockets.queue) == ([b"anything"], [b"anything"])
    bench.relays.said(LEASE, b"an answer")
    assert bench.words() == [(m.WORD_PAYLOAD, b"an answer")]


def test_what_is_in_the_queue_is_given_back() -> None:
    bench = Bench()
    bench.say(tasks("a", "b"), tasks("c"), tasks("d"))
    assert bench.words() == [(m.WORD_FULL, ids("d"))]
    bench.say(m.LeaseWord(m.WORD_RECALL))
    assert bench.words() == [(m.WORD_RETURNED, ids("a", "b", "c"))]
    bench.say(m.LeaseWord(m.WORD_RECALL))
    assert bench.words() == [(m.WORD_RETURNED, b"")]


def test_the_end_of_a_lease_comes_behind_all_that_was_said() -> None:
    bench = Bench()
    bench.say(tasks("a"))
    bench.sockets.unread = [b"one", b"two"]
    assert bench.relays.conclude(LEASE) == 3
    bench.relays.ended(LEASE)
    assert bench.words() == [
        *((m.WORD_PAYLOAD, b"one"), (m.WORD_PAYLOAD, b"two")),
        *((m.WORD_RETURNED, ids("a")), (m.WORD_ENDED, b"")),
    ]
    assert bench.relays.conclude(identity("of this machine")) == 0
    bench.say(tasks("b"), m.LeaseWord(m.WORD_CLOSE))  # it will be told that this was not begun
    (last,) = bench.taken()
    assert last.upto == 3 and bench.sockets.deeds == ["close"]


def test_a_worker_that_cannot_be_reached_is_given_nothing() -> None:
    bench = Bench()
    bench.sockets.reachable = False
    bench.say(tasks("a"))
    kinds = [kind for kind, _ in bench.words()]
    assert kinds == [m.WORD_ENDED, m.WORD_RETURNED] and not bench.sockets.queue
    bench.say(m.LeaseWord(m.WORD_RECALL), m.LeaseWord(m.WORD_CLOSE))
    assert bench.sockets.deeds == []


def test_another_way_gets_what_the_one_before_may_have_lost() -> None:
    bench = Bench()
    bench.say(tasks("a"))
    bench.relays.said(LEASE, b"one")
    assert bench.words() == [(m.WORD_PAYLOAD, b"one")]
    bench.hello("q", 2)
    welcome, again = bench.taken("q")
    assert isinstance(welcome, m.Welcome) and [word.data for word in again.words] == [b"one"]
    bench.say(tasks("late"))  # by the old way
    assert isinstance(bench.taken("p")[0], m.Rejoin)
    bench.number -= 1
    bench.say(tasks("b"), peer="q", path=2, upto=1)
    assert bench.sockets.queue == [packet("a"), packet("b")]
    bench.hello("r", 2)
    assert isinstance(bench.taken("r")[0], m.Refused)


def test_by_way_of_the_head_until_there_is_another() -> None:
    bench = Bench()
    bench.say(tasks("a"))
    bench.relays.said(LEASE, b"one")
    bench.relays.on_relay_by_head(bench.relay(tasks("b"), path=3))
    assert bench.words("p") == []
    (told,) = bench.to_head
    assert (told.source, told.target, told.path, told.upto) == (NODE, DRIVER, 3, 2)
    assert [word.data for word in told.words] == [b"one"]
    bench.relays.new_session()
    bench.relays.step(0.0)
    assert bench.to_head[1].words == told.words
    bench.relays.on_relay_by_head(bench.relay(path=2))  # an old word
    bench.hello("q", 4)
    assert [type(message) for message in bench.taken("q")] == [m.Welcome, m.Relay]
    bench.relays.said(LEASE, b"two")
    assert bench.words("q") == [(m.WORD_PAYLOAD, b"two")] and len(bench.to_head) == 2


def test_only_whose_lease_it_is_reaches_the_worker() -> None:
    bench = Bench(hello=False)
    bench.say(tasks("a"))
    assert isinstance(bench.taken()[0], m.Rejoin)
    bench.relays.on_ping("p", m.Ping(0, 1.0))
    assert isinstance(bench.taken()[0], m.Rejoin)
    bench.hello("p", 1, role=m.ROLE_NODE)
    assert bench.taken()[0].code == m.FORBIDDEN
    bench.hello("p", 1, who=OTHER)
    bench.relays.on_ping("p", m.Ping(0, 1.0))
    assert [type(message) for message in bench.taken()] == [m.Welcome, m.Pong]
    bench.say(tasks("a"))
    bench.say(tasks("a"), who=OTHER)
    bench.relays.on_relay_by_head(bench.relay(tasks("a"), who=OTHER, path=2))
    refusals = [*bench.taken(), *bench.to_head]
    assert [(type(one), one.code) for one in refusals] == [(m.RelayRefused, m.FORBIDDEN)] * 3
    bench.hello("q", 1)
    bench.number = 1
    bench.say(tasks("a"), peer="q")
    bench.hello("p", 9, who=OTHER)
    bench.say(tasks("b"), who=OTHER, path=9)
    assert [type(message) for message in bench.taken("p")] == [m.Welcome, m.RelayRefused]
    assert bench.sockets.queue == [packet("a")]


@pytest.mark.parametrize("lie", ["acknowledged", "a gap", "too long"])
def test_who_lies_loses_the_lease(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_SAID_BYTES_MAX", 1000)
    bench = Bench()
    bench.say(tasks("a"))
    if lie == "acknowledged":
        bench.say(upto=5)
    elif lie == "a gap":
        bench.number += 1
        bench.say(tasks("b"))
    else:
        bench.say(*[m.LeaseWord(m.WORD_PAYLOAD, bytes(600), True)] * 2)
    assert [type(message) for message in bench.taken()] == [m.RelayRefused]
    assert bench.sockets.deeds == ["close"]


def test_who_does_not_read_holds_up_his_own_worker_alone() -> None:
    bench = Bench()
    bench.say(tasks("a"))
    part = bytes(limits.LEASE_SAID_BYTES_MAX // 2)
    for _ in range(3):
        bench.relays.said(LEASE, part)
    assert bench.sockets.deeds == ["hold"]
    last = bench.taken()[-1]
    bench.say(upto=last.first + len(last.words) - 1)
    assert bench.sockets.deeds == ["hold", "read on"]
    bench.sockets.pending = limits.LEASE_SAID_BYTES_MAX + 1
    bench.say(m.LeaseWord(m.WORD_PAYLOAD, b"and more"))
    assert [type(message) for message in bench.taken()] == [m.RelayRefused]


def test_nothing_is_left_of_a_job_that_has_ended() -> None:
    bench = Bench()
    bench.say(tasks("a"))
    bench.relays.job_ended(DRIVER)
    assert bench.sockets.deeds == ["close"]
    bench.relays.said(LEASE, b"nobody hears that")
    bench.say(tasks("b"))
    assert [type(message) for message in bench.taken()] == [m.Rejoin]


def test_who_only_says_hello_is_forgotten_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_SUBMITTERS_MAX", 3)
    bench = Bench(hello=False)
    for number in range(5):
        bench.hello(f"p{number}", 1, who=identity(f"d{number}"))
    bench.relays.lost("p4")

    bench.taken()
    for number in range(5):
        bench.relays.on_ping(f"p{number}", m.Ping(0, 1.0))
    answers = bench.relays.outbox.take()
    assert [type(answers[f"p{number}"][-1]) for number in range(5)] == [
        *(m.Rejoin, m.Rejoin, m.Pong, m.Pong, m.Rejoin),
    ]
