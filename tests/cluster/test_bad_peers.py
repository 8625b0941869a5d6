"""What a stranger or a broken peer sends: it is told or dropped, and nobody else notices."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

import zray
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.connection import parse_address
from zray.runtime.keys import ClusterKey

MALFORMED = "ZR-2001"
VERSION = "ZR-2005"
CLUSTER = "ZR-2007"
FORBIDDEN = "ZR-1410"
HEAD_GROWTH_BYTES = 150_000_000
DEEP = 100_000


@pytest.fixture(scope="module")
def attacked(_module_leaves_nothing: Path, new_cluster: Callable[[Path], Any]) -> Iterator[Any]:
    """A cluster with one node, on which a driver has run a task."""
    cluster = new_cluster(_module_leaves_nothing)
    try:
        cluster.start_head()
        cluster.start_node("one")
        cluster.connect()
        yield cluster
    finally:
        zray.shutdown()
        cluster.close()


@pytest.fixture(autouse=True)
def nobody_else_notices(attacked: Any) -> Iterator[None]:
    @zray.task
    def double(number: int) -> int:
        return 2 * number

    epoch = attacked.epoch()
    assert zray.get(double.remote(20), timeout=10) == 40
    yield
    assert zray.get([double.remote(number) for number in range(20)], timeout=10)
    assert attacked.head.process.poll() is None
    assert attacked.epoch() == epoch
    assert attacked.node("one").state == "ALIVE"
    assert peak(attacked.head.pid) < HEAD_GROWTH_BYTES


def peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        found = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return int(found[0]) * 1024


@pytest.mark.parametrize(
    "said",
    [
        os.urandom(4096),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(512),
        b"\xff" + bytes(8) + b"\x7f",
        b"",
    ],
    ids=["random", "http", "tls", "half a greeting", "nothing"],
)
def test_other_protocols_on_the_port(attacked: Any, said: bytes) -> None:
    for _ in range(5):
        with socket.create_connection(parse_address(attacked.address), 5) as stranger:
            stranger.settimeout(0.2)
            stranger.sendall(said)
            try:
                while stranger.recv(4096):  # a greeting, perhaps; then the end or silence
                    pass
            except OSError:
                pass


@pytest.mark.parametrize("with_key", [False, True], ids=["without a key", "with another's key"])
def test_zmq_peers_without_the_clusters_key(attacked: Any, with_key: bool) -> None:
    info = attacked.info()
    context = sockets.context()
    try:
        if with_key:
            stranger = ClusterKey.create().client()
            peer = context.socket(zmq.DEALER)
            peer.curve_serverkey = info.server_public
            peer.curve_publickey, peer.curve_secretkey = stranger.public, stranger.secret
        else:
            peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(f"tcp://{info.addresses[0]}")
        peer.send_multipart([m.KIND, b"\x92\x00\x90"])
        assert not peer.poll(500)
    finally:
        context.destroy(0)


def payload(*messages: Any, epoch: int = 0) -> bytes:
    """As the codec would write them, without its checks."""
    return msgspec.msgpack.encode((epoch, messages))


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"", b""],
        [m.KIND],
        [b"zray9", b"\x92\x00\x90"],
        [m.KIND, *[b"x"] * 12],
        [m.KIND, b""],
        [m.KIND, os.urandom(300)],
        [m.KIND, b"\xc1"],
        [m.KIND, payload()[:-1]],
        [m.KIND, payload() + b"\x00"],
        [m.KIND, b"\x92\x00\xdd\xff\xff\xff\xff"],
        [m.KIND, b"\x92\x00\xdf\xff\xff\xff\xff"],
        [m.KIND, b"\x92\x00\xc6\xff\xff\xff\xff"],
        [m.KIND, b"\x92\x00" + b"\x91" * DEEP + b"\xc0"],
        [m.KIND, b"\x92\x00\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000],
        [m.KIND, payload({1: 2}, None, 3.5, "text")],
        [m.KIND, payload([999, 0])],
        [m.KIND, payload([33, -1, 1], [33, 2**63, 1], [33, True, 1], [33, 0.5, 1])],
        [m.KIND, payload([5, 0, "now"], [5], [5, 0])],
        [m.KIND, b"\x92\x00\x91\x93\x05\x00\xa2\xff\xfe"],
    ],
    ids=range(20),
)
@pytest.mark.parametrize("welcome", [False, True], ids=["stranger", "member"])
def test_malformed_messages_are_refused(attacked: Any, frames: list[bytes], welcome: bool) -> None:
    peer = attacked.peer(hello=welcome)
    try:
        peer.frames(*frames)
        assert peer.receive(m.Rejected).code == MALFORMED
        if welcome:  # the session goes on
            peer.send(m.Ping(0, 1.5))
            assert peer.receive(m.Pong).sent_s == 1.5
    finally:
        peer.close()


def test_the_good_messages_of_a_payload_with_a_bad_one_count(attacked: Any) -> None:
    peer = attacked.peer()
    try:
        peer.frames(m.KIND, payload([5, 0, 1.5], [33, 77, "status"], [5, 0, 2.5], epoch=peer.epoch))
        assert [peer.receive(m.Pong).sent_s for _ in range(2)] == [1.5, 2.5]
        refused = peer.receive(m.Rejected)
        assert refused.about == 77 and refused.code == MALFORMED
    finally:
        peer.close()


def test_a_frame_over_the_limit_ends_the_connection(attacked: Any) -> None:
    peer = attacked.peer()
    try:
        monitor = sockets.Monitor(peer.socket)
        peer.frames(m.KIND, bytes((64 << 20) + 1))
        attacked.until(
            lambda: any(event.event == zmq.EVENT_DISCONNECTED for event in monitor.read()),
            10,
            "the head hangs up",
        )
        monitor.close()
    finally:
        peer.close()


def test_messages_before_hello_and_under_another_epoch(attacked: Any) -> None:
    peer = attacked.peer(hello=False)
    try:
        peer.send(m.Query(1, m.STATUS))
        assert "HELLO" in peer.receive(m.Rejoin).text
        peer.send(peer.hello(m.ROLE_OBSERVER))
        peer.receive(m.Welcome)
        for epoch in (0, peer.epoch - 1, peer.epoch + 1, 2**52):
            peer.send(m.Query(1, m.STATUS), epoch=epoch)
            assert "epoch" in peer.receive(m.Rejoin).text
        peer.send(m.Query(1, m.STATUS))
        assert peer.receive(m.Status).about == 1
    finally:
        peer.close()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"protocol": 0}, VERSION, ["1", "0"]),
        ({"protocol": 999}, VERSION, ["1", "999"]),
        ({"cluster_id": b"x" * 16}, CLUSTER, [(b"x" * 4).hex()]),
        ({"role": 99}, MALFORMED, ["99"]),
        ({"role": m.ROLE_NODE}, MALFORMED, []),
        ({"role": m.ROLE_DRIVER}, MALFORMED, []),
        (
            {"role": m.ROLE_DRIVER, "versions": m.Versions("2.7", "0", "")},
            VERSION,
            ["2.7", "Python 3."],
        ),
    ],
    ids=["protocol 0", "protocol 999", "cluster", "role", "no node", "no job", "python"],
)
def test_a_hello_that_does_not_fit_is_refused_with_the_reason(
    attacked: Any, change: dict[str, Any], code: str, words: list[str]
) -> None:
    peer = attacked.peer(hello=False)
    try:
        peer.send(msgspec.structs.replace(peer.hello(m.ROLE_OBSERVER), **change))
        refused = peer.receive(m.Refused)
        assert refused.code == code
        assert all(word in refused.text for word in words), refused.text
    finally:
        peer.close()


def test_a_role_may_say_only_what_is_its_own(attacked: Any) -> None:
    observer = attacked.peer()
    driver = attacked.peer(m.ROLE_DRIVER)
    try:
        me = observer.process_id
        for message in (
            m.Submit(7, me, me, []),
            m.Kv(7, "put", b"a", b"b"),
            m.Done(7, []),
            m.Cancel(7, me, True, True),
        ):
            observer.send(message)
            refused = observer.receive(m.Rejected)
            assert (refused.about, refused.code) == (7, FORBIDDEN)
        for message in (m.Done(7, []), m.Announce(7, [], [], []), m.Shutdown(7, "stop")):
            driver.send(message)
            refused = driver.receive(m.Rejected)
            assert (refused.about, refused.code) == (7, FORBIDDEN)
        driver.send(m.Goodbye(0, "done"))
    finally:
        observer.close()
        driver.close()


def test_a_node_that_reports_other_peoples_tasks_changes_nothing(attacked: Any) -> None:
    @zray.task
    def known() -> str:
        return "right"

    ref = known.remote()
    assert zray.get(ref, timeout=10) == "right"
    task_id = ref.id[:16]
    info = m.NodeInfo("liar", "127.0.0.1", os.getpid(), [], [], "")
    peer = attacked.peer(hello=False)
    try:
        peer.send(msgspec.structs.replace(peer.hello(m.ROLE_NODE), node=info))
        peer.receive(m.Welcome)
        peer.send(m.Announce(0, [], [], []), m.Credit(0, 100))
        stale = dict(attacked.status().counters)["stale"]
        wrong = m.Outcome(ref.id, m.VALUE, 5, b"wrong")
        dones = [
            m.TaskDone(task_id, attempt, status, [wrong])
            for attempt in (0, 1, 2, 9)
            for status in (m.FINISHED, m.FAILED, m.CRASHED, m.CANCELLED)
        ]
        unknown = m.Outcome(bytes(20), m.VALUE, 5, b"wrong")
        dones.append(m.TaskDone(bytes(16), 1, m.FINISHED, [unknown]))
        peer.send(m.Done(1, dones), m.Returned(0, task_id + bytes(16)))
        peer.receive(m.Ack)
        assert dict(attacked.status().counters)["stale"] == stale + len(dones)
        peer.send(m.Goodbye(0, "done"))
    finally:
        peer.close()

    @zray.task
    def echo(value: str) -> str:
        return value

    assert zray.get(ref, timeout=10) == "right"
    assert zray.get(echo.remote(ref), timeout=10) == "right"
