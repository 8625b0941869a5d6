"""A node in another language is possible: the least that it must say, with msgpack and zmq alone.

The node below knows nothing of zray's own modules: what it sends is what docs/PROTOCOL.md says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

import zray

HELLO, WELCOME, PING, PONG, GOODBYE, TEMPLATE = 1, 2, 5, 6, 7, 16
PULL, CHUNK, CREDIT, TASKS, DONE, ACK, RECLAIM, RETURNED = 27, 28, 48, 49, 50, 51, 52, 53
FREE, ANNOUNCE = 55, 59
NODE, FINISHED, VALUE, ERROR = 2, 0, 0, 1
ROOM = 16


class MinimalNode:
    """Runs ``tiny.upper`` and ``tiny.fail``, one task after the other."""

    def __init__(self, connection: Path) -> None:
        info = json.loads(connection.read_text())
        self.node_id = os.urandom(16)
        self.epoch = self.seq = self.received = 0
        self.names: dict[bytes, str] = {}
        self.kept: dict[bytes, tuple[int, bytes]] = {}  # kind and value of results: until FREE
        self.unacked: dict[int, list[Any]] = {}
        self.pinged = 0.0
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 1000
        self.socket.reconnect_ivl = -1
        self.socket.curve_serverkey = info["server_public"].encode()
        self.socket.curve_publickey = info["client_public"].encode()
        self.socket.curve_secretkey = info["client_secret"].encode()
        self.socket.connect(f"tcp://{info['addresses'][0]}")
        offers = ["tiny.upper", "tiny.fail"]
        about = ["tiny", "localhost", os.getpid(), [], [], "", "", offers]
        versions = ["", "tiny 1", ""]
        self.send([HELLO, 0, 1, NODE, self.node_id, 1, b"", versions, ["tasks"], about, None])
        assert self.turn(5.0) == [WELCOME]
        self.send([ANNOUNCE, 0, [], [], [], [], [], []], [CREDIT, 0, ROOM, []])

    def send(self, *messages: list[Any]) -> None:
        self.socket.send_multipart([b"zray1", msgpack.packb([self.epoch, messages])])

    def turn(self, timeout_s: float) -> list[int]:
        """Handle what comes within the time; the verbs that came."""
        now = time.monotonic()
        if self.epoch and now - self.pinged > 2.0:
            self.pinged = now
            self.send([PING, 0, now])
        if not self.socket.poll(timeout_s * 1000):
            return []
        _, payload = self.socket.recv_multipart()
        self.epoch, messages = msgpack.unpackb(payload)
        for message in messages:
            self.handle(*message)
        return [message[0] for message in messages]

    def handle(self, verb: int, seq: int, *fields: Any) -> None:
        if verb == TEMPLATE:
            self.names[fields[0]] = fields[2]
        elif verb == TASKS:
            self.received += len(fields[0])
            self.seq += 1
            self.unacked[self.seq] = [self.run(*task) for task in fields[0]]
            room = self.received + ROOM
            self.send([DONE, self.seq, self.unacked[self.seq]], [CREDIT, 0, room, []])
        elif verb == ACK:
            self.unacked = {s: done for s, done in self.unacked.items() if s > fields[0]}
        elif verb == RECLAIM:
            self.send([RETURNED, 0, b""])  # all that came has started
        elif verb == FREE:
            for start in range(0, len(fields[0]), 20):
                self.kept.pop(fields[0][start : start + 20], None)
        elif verb == PULL:
            transfer, object_id = fields
            kind, value = self.kept[object_id]  # none is so large that it needs two chunks
            self.send([CHUNK, 0, transfer, kind, 0, len(value), value, []])

    def run(self, attempt: int, job: bytes, spec: list[Any], *_: Any) -> list[Any]:
        task_id, template, arguments = spec[:3]
        assert arguments[:1] == b"M"
        (text,), _named = msgpack.unpackb(arguments[1:])
        object_id = task_id + bytes(4)
        if self.names[template] == "tiny.upper":
            value, kind = b"M" + msgpack.packb(text.upper()), VALUE
        else:
            value = msgpack.packb(["ZR-3001", f"cannot do {text}", "TinyError", "tiny.fail"])
            kind = ERROR
        self.kept[object_id] = (kind, value)
        outcome = [object_id, kind, len(value), value, []]
        return [task_id, attempt, FINISHED, [outcome], 0.001, [], b""]

    def serve(self, refs: list[Any]) -> None:
        """Until all these are there."""
        deadline = time.monotonic() + 20
        while len(zray.wait(refs, num_returns=len(refs), timeout=0)[0]) < len(refs):
            assert time.monotonic() < deadline
            self.turn(0.02)

    def close(self) -> None:
        self.send([GOODBYE, 0, "the test is over"])
        self.context.destroy(1000)


@pytest.fixture
def tiny(cluster: Any) -> Iterator[MinimalNode]:
    node = MinimalNode(cluster.connection)
    try:
        with zray.init(cluster.address()):
            yield node
    finally:
        node.close()


def test_it_joins_runs_tasks_and_leaves(tiny: MinimalNode) -> None:
    upper = zray.task_by_name("tiny.upper").options(num_cpus=0)
    refs = [upper.remote(f"word {number}") for number in range(100)]

    tiny.serve(refs)

    assert zray.get(refs, timeout=5) == [f"WORD {number}" for number in range(100)]
    assert {node["NodeName"]: node["State"] for node in zray.nodes()}["tiny"] == "ALIVE"
    count = len(tiny.kept)
    del refs
    deadline = time.monotonic() + 10
    while tiny.kept or tiny.unacked:
        assert time.monotonic() < deadline, "every result is acknowledged, and freed"
        tiny.turn(0.02)
    assert count == 100


def test_its_errors_are_fields(tiny: MinimalNode) -> None:
    fail = zray.task_by_name("tiny.fail").options(num_cpus=0)
    ref = fail.remote("sums")

    tiny.serve([ref])

    with pytest.raises(zray.errors.TaskError, match="cannot do sums"):
        zray.get(ref, timeout=5)


def test_others_use_its_results(tiny: MinimalNode) -> None:
    @zray.task
    def length(text: str) -> int:
        return len(text)

    upper = zray.task_by_name("tiny.upper").options(num_cpus=0)
    size = length.remote(upper.remote("four"))

    tiny.serve([size])

    assert zray.get(size, timeout=5) == 4
