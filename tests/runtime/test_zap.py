"""Who is let in, and what the log says about those who are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from zmq.utils import z85

from zray.runtime import sockets
from zray.runtime.keys import ClusterKey, fingerprint
from zray.runtime.zap import ZapServer

KEY = ClusterKey.create()
MEMBER = KEY.client()
OBSERVER = KEY.client("observe")


class Asker:
    """Asks as libzmq does, so that a request can be wrong in ways that libzmq's never are."""

    def __init__(self) -> None:
        self.context = sockets.context()
        self.lines: list[str] = []
        self.now = 1000.0
        self.zap = ZapServer(
            self.context,
            {MEMBER.public: "member", OBSERVER.public: "observe"},
            self.lines.append,
            lambda: self.now,
        )
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect("inproc://zeromq.zap.01")

    def ask(self, *frames: bytes) -> tuple[bytes, bytes]:
        """Status and user of the answer to a request of these frames."""
        self.socket.send_multipart([b"", *frames])
        assert self.zap.socket.poll(2000)
        assert self.zap.handle() == 1
        delimiter, version, request_id, status, _, user, metadata = self.socket.recv_multipart(
            zmq.DONTWAIT
        )
        assert (delimiter, version, request_id, metadata) == (b"", b"1.0", frames[1], b"")
        return status, user

    def curve(self, public: bytes, address: bytes = b"10.0.0.7") -> tuple[bytes, bytes]:
        key = z85.decode(public)
        return self.ask(b"1.0", b"1", b"zray", address, b"", b"CURVE", key)


@pytest.fixture
def asker() -> Iterator[Asker]:
    asker = Asker()
    yield asker
    asker.zap.close()
    asker.context.destroy(0)


def test_a_known_key_is_let_in_as_its_user(asker: Asker) -> None:
    assert asker.curve(MEMBER.public) == (b"200", b"member")
    assert asker.curve(OBSERVER.public) == (b"200", b"observe")
    assert not asker.zap.failures and not asker.lines


def test_a_collection_of_keys_is_let_in_as_members(network: Any) -> None:
    zap = ZapServer(network.context, {MEMBER.public})
    asker = network.plain(zmq.DEALER)
    asker.connect("inproc://zeromq.zap.01")
    key = z85.decode(MEMBER.public)
    asker.send_multipart([b"", b"1.0", b"1", b"zray", b"::1", b"", b"CURVE", key])
    assert zap.socket.poll(2000) and zap.handle() == 1
    _, _, _, status, _, user, _ = asker.recv_multipart(zmq.DONTWAIT)
    assert (status, user) == (b"200", b"member")
    zap.close()


KNOWN = z85.decode(MEMBER.public)


@pytest.mark.parametrize(
    "frames",
    [
        [b"1.0", b"1", b"zray", b"a", b"", b"CURVE", z85.decode(KEY.server.public)],
        [b"1.0", b"1", b"zray", b"a", b"", b"CURVE", MEMBER.public],  # text, not raw
        [b"1.0", b"1", b"zray", b"a", b"", b"CURVE", b""],
        [b"1.0", b"1", b"zray", b"a", b"", b"CURVE"],
        [b"1.0", b"1", b"zray", b"a", b"", b"CURVE", KNOWN, KNOWN],
        [b"1.0", b"1", b"zray", b"a", b"", b"NULL"],
        [b"1.0", b"1", b"zray", b"a", b"", b"PLAIN", b"user", b"password"],
        [b"1.0", b"1", b"zray", b"a", b"", b"GSSAPI", KNOWN],
        [b"1.0", b"1", b"", b"a", b"", b"CURVE", KNOWN],
        [b"1.0", b"1", b"other", b"a", b"", b"CURVE", KNOWN],
        [b"2.0", b"1", b"zray", b"a", b"", b"CURVE", KNOWN],
        [b"1.0", b"1"],
        [b"1.0", b"1", b"zray", b"\xff\xfe", b"", b"CURVE", b"\xff" * 32],
    ],
)
def test_everything_else_is_refused(asker: Asker, frames: list[bytes]) -> None:
    assert asker.ask(*frames) == (b"400", b"")
    assert sum(asker.zap.failures.values()) == 1
    assert asker.curve(MEMBER.public) == (b"200", b"member")


def test_a_request_without_an_id_is_dropped(asker: Asker) -> None:
    for frames in ([b""], [b"", b"1.0"]):
        asker.socket.send_multipart(frames)
    asker.zap.socket.poll(2000)
    while asker.zap.handle():
        asker.zap.socket.poll(10)
    assert not asker.socket.poll(50)
    assert asker.curve(MEMBER.public) == (b"200", b"member")


def test_refusals_are_counted_by_address_and_logged_now_and_then(asker: Asker) -> None:
    stranger = ClusterKey.create().client()
    for _ in range(5):
        asker.curve(stranger.public)
    assert asker.zap.failures == {"10.0.0.7": 5}
    (line,) = asker.lines
    assert "10.0.0.7" in line and fingerprint(stranger.public) in line
    asker.now += 2
    asker.curve(stranger.public)  # the same address again: not within a minute
    asker.curve(stranger.public, b"10.0.0.8")
    asker.curve(stranger.public, b"10.0.0.9")  # a third line: not within a second
    assert len(asker.lines) == 2 and "10.0.0.8" in asker.lines[1]
    asker.now += 60
    asker.curve(stranger.public)
    assert len(asker.lines) == 3 and "7 refused" in asker.lines[2]


def test_counting_takes_bounded_memory(asker: Asker) -> None:
    stranger = ClusterKey.create().client().public
    for number in range(1100):
        asker.curve(stranger, b"10.0.%d.%d" % divmod(number, 256))
    assert len(asker.zap.failures) == 1024
    assert "10.0.0.0" not in asker.zap.failures


def test_one_call_answers_a_bounded_number(asker: Asker) -> None:
    request = [b"", b"1.0", b"1", b"zray", b"::1", b"", b"CURVE", KNOWN]
    for _ in range(300):
        asker.socket.send_multipart(request)
    assert [asker.zap.handle() for _ in range(3)] == [256, 44, 0]


def test_a_real_client_is_named_in_the_log(network: Any) -> None:
    head = network.head()
    stranger = ClusterKey.create().client()
    client = network.client(head.port, client_public=stranger.public, client_secret=stranger.secret)
    network.until(lambda: "DISCONNECTED" in client.names())
    assert head.zap.failures == {"127.0.0.1": 1}
    assert fingerprint(stranger.public) in head.log[0]
