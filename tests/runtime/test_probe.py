"""Why a head cannot be used: each reason has an error of its own, and comes in time."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import zmq

from zray.errors import (
    AuthenticationError,
    EncryptionMismatchError,
    HeadConnectionError,
    HeadSilentError,
    NothingListensError,
    NotZrayError,
    UnknownHostError,
    WrongHeadError,
)
from zray.runtime import probe
from zray.runtime.keys import ClusterKey
from zray.runtime.probe import diagnose, explain_monitor_event

ADDRESS = "head:10001"


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(5)
                    serve(accepted)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def until_closed(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def mute(connection: socket.socket) -> None:
    until_closed(connection)


def hang_up(connection: socket.socket) -> None:
    connection.recv(1)


def ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    until_closed(connection)


def http(connection: socket.socket) -> None:
    received = b""
    while b"\n" not in received:  # as HTTP servers do, it waits for a line
        received += connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    until_closed(connection)


def tls(connection: socket.socket) -> None:
    connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")
    until_closed(connection)


def half_a_greeting(connection: socket.socket) -> None:
    connection.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x01")
    connection.recv(1024)


def drip_a_greeting(connection: socket.socket) -> None:
    for byte in b"\xff" + bytes(63):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_a_head_has_nothing_wrong(network: Any) -> None:
    head = network.head()
    assert diagnose("127.0.0.1", head.port) == "127.0.0.1"
    # Also under a name that has an address on which nothing listens.
    assert diagnose("localhost", head.port) == "127.0.0.1"


def test_a_head_whose_loop_is_busy_has_nothing_wrong(network: Any) -> None:
    head = network.head()
    assert diagnose("127.0.0.1", head.port, 1.0) == "127.0.0.1"
    assert not head.received and not head.zap.failures


def test_an_unknown_host() -> None:
    start = time.monotonic()
    with pytest.raises(UnknownHostError, match=r"nosuch\.invalid"):
        diagnose("nosuch.invalid", 10001)
    assert time.monotonic() - start < 4


def test_a_name_server_that_does_not_answer_is_waited_for_with_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(10) and [])
    with pytest.raises(UnknownHostError, match="did not say in time"):
        diagnose("head.example", 10001, 0.1)
    answer.set()


def test_a_port_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NothingListensError, match="connection refused") as raised:
        diagnose("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(raised.value)


def test_a_port_that_does_not_answer_is_another_reason_than_refused() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # a full backlog drops what comes next, as a firewall does
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        start = time.monotonic()
        with pytest.raises(NothingListensError, match="no answer in time"):
            diagnose("127.0.0.1", listener.getsockname()[1], 0.3)
        assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (mute, "says nothing"),
        (hang_up, "says nothing"),
        (ssh, "it says 'SSH-2.0"),
        (http, "speaks HTTP"),
        (tls, "speaks TLS"),
        (half_a_greeting, "broke off"),
        (drip_a_greeting, "is no zray head"),
    ],
)
def test_something_else_than_a_head(serve: Callable[[socket.socket], None], words: str) -> None:
    start = time.monotonic()
    with server(serve) as port:
        with pytest.raises(NotZrayError, match=words):
            diagnose("127.0.0.1", port)
        assert time.monotonic() - start < 2


def test_zeromq_without_encryption() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(EncryptionMismatchError, match="NULL"):
            diagnose("127.0.0.1", port)


@pytest.mark.parametrize(
    ("event", "value", "expected"),
    [
        (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400, AuthenticationError),
        (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 500, HeadSilentError),
        (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 300, HeadSilentError),
        (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EAGAIN, HeadSilentError),
        (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.EPIPE, WrongHeadError),
        (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, errno.ECONNRESET, WrongHeadError),
        (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, 0x11000001, WrongHeadError),
        (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, 0x11000002, EncryptionMismatchError),
        (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, 0x10000000, NotZrayError),
    ],
)
def test_events_that_mean_an_error(
    event: int, value: int, expected: type[HeadConnectionError]
) -> None:
    error = explain_monitor_event(event, value, ADDRESS)
    assert type(error) is expected
    assert ADDRESS in str(error)


@pytest.mark.parametrize(
    "event",
    [
        zmq.EVENT_CONNECTED,
        zmq.EVENT_HANDSHAKE_SUCCEEDED,
        zmq.EVENT_DISCONNECTED,
        zmq.EVENT_CLOSED,
    ],
)
def test_events_that_mean_none(event: int) -> None:
    assert explain_monitor_event(event, 0, ADDRESS) is None


def test_another_cluster_s_head_is_told_from_one_that_does_not_encrypt(network: Any) -> None:
    head = network.head()
    client = network.client(head.port, server_public=ClusterKey.create().server.public)
    network.until(lambda: "DISCONNECTED" in client.names())
    errors = [
        error
        for event in client.events
        if (error := explain_monitor_event(event.event, event.value, ADDRESS))
    ]
    assert [type(error) for error in errors] == [WrongHeadError]
    # Another program's port may hang up just so: that is what the greeting is for.
    assert probe.diagnose("127.0.0.1", head.port)
