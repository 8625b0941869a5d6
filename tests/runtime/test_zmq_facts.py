"""What a simulated ZeroMQ network assumes, shown on real sockets with the shipped options.

Where one of these fails after an upgrade of libzmq, the simulator and the shells are wrong too.
"""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest
import zmq

from zray import limits
from zray.errors import AuthenticationError
from zray.runtime import probe, sockets
from zray.runtime.keys import ClusterKey


def numbers(texts: list[bytes]) -> list[int]:
    return [int(text[:8]) for text in texts if text[:8].isdigit()]


def message(number: int, size: int = 1024) -> bytes:
    return b"%08d" % number + bytes(size - 8)


def null_client(network: Any, port: int) -> Any:
    socket = network.plain(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)
    return network.client(port, socket)


def offer(client: Any, text: bytes) -> bool:
    """Send to a head that may have hung up already; a send that waits would wait for ever."""
    try:
        client.socket.send(text, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


# ---- order and loss ------------------------------------------------------------------------


def test_a_connection_keeps_the_order_both_ways(network: Any) -> None:
    head = network.head()
    client, peer = network.admitted(head)
    for number in range(500):
        client.socket.send(message(number))
        head.router.send_multipart([peer, message(number)])
    network.until(lambda: len(client.received) == 500 and len(head.received) == 501)
    assert numbers(head.texts()) == list(range(500))
    assert numbers([frames[-1] for frames in client.received]) == list(range(500))


def test_a_cut_loses_a_suffix_and_never_the_middle(network: Any) -> None:
    head = network.head()
    link = network.link(head.port, up_bytes=300_000)
    client, peer = network.admitted(head, link.port)
    for number in range(900):  # 900 KB and the queue takes it: a send is no delivery
        client.socket.send(message(number), zmq.DONTWAIT)
    network.until(lambda: link.stalled["up"])
    link.cut()
    network.until(lambda: "DISCONNECTED" in client.names())
    network.drop(client)
    successor, new_peer = network.admitted(head)
    for number in range(900, 1000):
        successor.socket.send(message(number))
    network.until(lambda: len(head.texts(new_peer)) == 101)
    network.settle()
    before = numbers(head.texts(peer))
    assert 0 < len(before) < 900
    assert before == list(range(len(before)))
    assert numbers(head.texts(new_peer)) == list(range(900, 1000))


def test_a_cut_leaves_no_part_of_a_multipart_message(network: Any) -> None:
    head = network.head()
    link = network.link(head.port, up_bytes=150_000)
    client, _ = network.admitted(head, link.port)
    client.socket.send_multipart([message(0), bytes(100_000)])
    client.socket.send_multipart([message(1), bytes(100_000)])
    network.until(lambda: link.stalled["up"])
    link.cut()
    network.until(lambda: any(event.name == "DISCONNECTED" for event in head.events))
    network.settle()
    whole = [[len(frame) for frame in frames[1:]] for frames in head.received[1:]]
    assert whole in ([], [[1024, 100_000]])


# ---- the ROUTER and its peers --------------------------------------------------------------


def test_a_mandatory_router_says_that_a_peer_is_unknown(network: Any) -> None:
    head = network.head()
    with pytest.raises(zmq.ZMQError) as raised:
        head.router.send_multipart([b"\0none", b"text"], zmq.DONTWAIT)
    assert raised.value.errno == errno.EHOSTUNREACH


def test_a_router_that_is_not_mandatory_drops_without_a_word(network: Any) -> None:
    head = network.head()
    head.router.setsockopt(zmq.ROUTER_MANDATORY, 0)
    head.router.send_multipart([b"\0none", b"text"], zmq.DONTWAIT)


def test_a_mandatory_router_says_again_where_a_peer_reads_nothing(network: Any) -> None:
    head = network.head()
    link = network.link(head.port, down_bytes=20_000)
    _, peer = network.admitted(head, link.port)
    sent = 0
    with pytest.raises(zmq.Again):
        while sent < 100_000:
            head.router.send_multipart([peer, bytes(16384)], zmq.DONTWAIT)
            sent += 1
    # Beside what the kernel's buffers hold; the refused message left no frame of itself behind.
    assert sent >= sockets.SEND_QUEUE_MESSAGES
    other, other_peer = network.admitted(head)
    head.router.send_multipart([other_peer, b"text"], zmq.DONTWAIT)
    network.until(lambda: other.received == [[b"text"]])


def test_a_peer_that_returns_is_another_and_gets_nothing_that_was_queued(network: Any) -> None:
    head = network.head()
    link = network.link(head.port, down_bytes=50_000)
    client, peer = network.admitted(head, link.port)
    for number in range(200):
        head.router.send_multipart([peer, message(number)], zmq.DONTWAIT)
    network.until(lambda: link.stalled["down"])
    link.cut()
    network.until(lambda: "DISCONNECTED" in client.names())
    network.until(lambda: any(event.name == "DISCONNECTED" for event in head.events))
    received = numbers([frames[-1] for frames in client.received])
    assert received == list(range(len(received))) and len(received) < 200
    network.drop(client)
    successor, new_peer = network.admitted(head)
    assert new_peer != peer
    with pytest.raises(zmq.ZMQError) as raised:
        head.router.send_multipart([peer, b"text"], zmq.DONTWAIT)
    assert raised.value.errno == errno.EHOSTUNREACH
    head.router.send_multipart([new_peer, b"text"])
    network.until(lambda: bool(successor.received))
    network.settle()
    assert successor.received == [[b"text"]]


def test_the_monitor_names_the_descriptor_that_messages_came_over(network: Any) -> None:
    head = network.head()
    clients = [network.admitted(head)[0] for _ in range(3)]
    descriptors = [sockets.peer_fd(frames[-1]) for frames in head.received]
    assert len(set(descriptors)) == 3
    assert [sockets.peer_fd(frames[0]) for frames in head.received] == descriptors
    network.drop(clients[1])
    network.until(lambda: any(event.name == "DISCONNECTED" for event in head.events))
    lost = [event.value for event in head.events if event.name == "DISCONNECTED"]
    assert lost == [descriptors[1]]


# ---- one socket, one session ---------------------------------------------------------------


def test_a_lost_head_is_reported_and_nothing_leaks_to_its_successor(network: Any) -> None:
    head = network.head()
    client, _ = network.admitted(head)
    network.drop(head)
    network.until(lambda: "DISCONNECTED" in client.names(), timeout_s=1.0)
    # The event is a moment ahead of the socket, which may still take a message, for nobody.
    network.until(lambda: not offer(client, b"late"), timeout_s=1.0)
    successor = network.head(port=head.port)
    network.settle(0.3)
    assert not successor.received and not successor.events
    assert client.names()[-1] == "DISCONNECTED"


def test_a_refused_connect_is_not_tried_again(network: Any) -> None:
    head = network.head()
    network.drop(head)
    client = network.client(head.port)
    client.socket.send(b"HELLO", zmq.DONTWAIT)  # taken, though it will never leave
    network.until(lambda: "CLOSED" in client.names())
    successor = network.head(port=head.port)
    network.settle(0.3)
    assert not successor.events and client.names() == ["CLOSED"]


# ---- who is let in -------------------------------------------------------------------------


def test_every_frame_carries_the_user_of_its_key(network: Any) -> None:
    head = network.head()
    client, _ = network.admitted(head)
    client.socket.send_multipart([b"kind", b"payload"])
    network.until(lambda: len(head.received) == 2)
    assert {sockets.user_id(frame) for frames in head.received for frame in frames} == {"member"}


def test_a_client_without_the_key_learns_so_in_time(network: Any) -> None:
    head = network.head()
    stranger = ClusterKey.create().client()
    start = time.monotonic()
    client = network.client(head.port, client_public=stranger.public, client_secret=stranger.secret)
    offer(client, b"HELLO")
    network.until(lambda: "DISCONNECTED" in client.names())
    assert time.monotonic() - start < limits.AUTH_TIMEOUT_S
    refused = client.event("HANDSHAKE_FAILED_AUTH")
    assert refused is not None and refused.value == 400
    error = probe.explain_monitor_event(refused.event, refused.value, "127.0.0.1:1")
    assert isinstance(error, AuthenticationError)
    network.settle()
    assert not head.received


def test_a_client_with_another_server_key_hears_a_hang_up(network: Any) -> None:
    head = network.head()
    client = network.client(head.port, server_public=ClusterKey.create().server.public)
    network.until(lambda: "DISCONNECTED" in client.names())
    assert client.names() == ["CONNECTED", "HANDSHAKE_FAILED_NO_DETAIL", "DISCONNECTED"]
    failed = client.event("HANDSHAKE_FAILED_NO_DETAIL")
    assert failed is not None and failed.value in (errno.EPIPE, errno.ECONNRESET)
    network.until(lambda: len(head.events) >= 2)
    assert head.events[0].value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC


def test_a_client_that_does_not_encrypt_is_refused(network: Any) -> None:
    head = network.head()
    client = null_client(network, head.port)
    offer(client, b"HELLO")
    network.until(lambda: "DISCONNECTED" in client.names() and len(head.events) >= 2)
    # Who reads the other's greeting first names the reason; the other hears a hang-up.
    values = {event.value for event in (*client.events, *head.events)}
    assert zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH in values
    failures = {"HANDSHAKE_FAILED_NO_DETAIL", "HANDSHAKE_FAILED_PROTOCOL"}
    assert failures.intersection(client.names())
    assert failures.intersection(event.name for event in head.events)
    network.settle()
    assert not head.received


def test_a_router_without_authenticator_admits_nobody(network: Any) -> None:
    head = network.head(authenticate=False)
    client = network.client(head.port)
    offer(client, b"HELLO")
    # It hangs up at once, or when the handshake's time is over.
    network.until(lambda: bool(head.events))
    network.settle()
    assert head.events[0].name == "HANDSHAKE_FAILED_NO_DETAIL"
    assert "HANDSHAKE_SUCCEEDED" not in client.names()
    assert not head.received


@pytest.mark.parametrize("excess", [0, 1])
def test_the_frame_limit_counts_the_encrypted_frame(network: Any, excess: int) -> None:
    size = 10_000
    head = network.head()
    limit = size + sockets.CURVE_FRAME_OVERHEAD_BYTES
    head.router.setsockopt(zmq.MAXMSGSIZE, limit)  # for what is bound from here on
    client, peer = network.admitted(head, sockets.bind(head.router, "127.0.0.1", 0))
    client.socket.send(bytes(size + excess))
    if excess:
        network.until(lambda: "DISCONNECTED" in client.names())
    else:
        network.until(lambda: len(head.texts(peer)) == 2)
