"""How fast a large value goes from node to node, beside plain copies between the same machines.

No test: ``python -m pytest -s tests/cluster/measure_transfer.py``, on a machine that does nothing
else. All go from namespace ``one`` to ``two``, in turns; a table of GB/s is printed. The copies are
made over a TCP socket, and over an encrypted ZeroMQ socket in messages of a chunk: the limit of
anything that is encrypted as nodes' traffic is.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

import zray
from zray import limits

SIZE = 200_000_000
REPEATS = 7
ONE, TWO = ({"resources": {name: 1}, "num_cpus": 0} for name in ("one", "two"))

# Each receiver says when it listens, then takes copies into the same memory, and answers each.
TCP_RECEIVER = """
import socket
memory = memoryview(bytearray(SIZE))
memory[:] = bytes(SIZE)  # its pages are there
server = socket.create_server(("0.0.0.0", PORT))
print("listens", flush=True)
peer, _ = server.accept()
while True:
    at = 0
    while at < SIZE:
        count = peer.recv_into(memory[at:at + CHUNK])
        if not count:
            raise SystemExit
        at += count
    peer.sendall(b".")
"""
TCP_SENDER = """
import socket, sys, time
memory = memoryview(bytes(SIZE))
peer = socket.create_connection((ADDRESS, PORT))
for _ in sys.stdin:
    began = time.perf_counter()
    for at in range(0, SIZE, CHUNK):
        peer.sendall(memory[at:at + CHUNK])
    peer.recv(1)
    print(time.perf_counter() - began, flush=True)
"""
CURVE_RECEIVER = """
import zmq
memory = memoryview(bytearray(SIZE))
memory[:] = bytes(SIZE)
socket = zmq.Context().socket(zmq.PAIR)
socket.curve_server = 1
socket.curve_publickey, socket.curve_secretkey = KEYS
socket.bind(f"tcp://0.0.0.0:{PORT}")
print("listens", flush=True)
while True:
    at = 0
    while at < SIZE:
        frame = socket.recv(copy=False).buffer
        if not len(frame):
            socket.context.destroy()
            raise SystemExit
        memory[at:at + len(frame)] = frame
        at += len(frame)
    socket.send(b".")
"""
CURVE_SENDER = """
import sys, time, zmq
memory = memoryview(bytes(SIZE))
socket = zmq.Context().socket(zmq.PAIR)
socket.hwm = 16
socket.curve_serverkey = KEYS[0]
socket.curve_publickey, socket.curve_secretkey = KEYS
socket.connect(f"tcp://{ADDRESS}:{PORT}")
for _ in sys.stdin:
    began = time.perf_counter()
    for at in range(0, SIZE, CHUNK):
        socket.send(memory[at:at + CHUNK], copy=False)
    socket.recv()
    print(time.perf_counter() - began, flush=True)
socket.send(b"")
socket.context.destroy(1000)
"""


class Copier:
    """A connection from one namespace to another, over which a program of each copies."""

    def __init__(self, network: Any, port: int, receiver: str, sender: str) -> None:
        known = {"SIZE": SIZE, "CHUNK": limits.CHUNK_BYTES, "PORT": port, "ADDRESS": "10.231.2.2"}
        known["KEYS"] = zmq.curve_keypair()
        head = "".join(f"{name} = {value!r}\n" for name, value in known.items())
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        there = [*network.inside("two"), sys.executable, "-c", head + receiver]
        self._receiver = subprocess.Popen(there, **pipes)
        assert self._receiver.stdout.readline() == "listens\n"  # type: ignore[union-attr]
        here = [*network.inside("one"), sys.executable, "-c", head + sender]
        self._sender = subprocess.Popen(here, **pipes)

    def copy(self) -> float:
        """Seconds for one copy."""
        self._sender.stdin.write("\n")  # type: ignore[union-attr]
        self._sender.stdin.flush()  # type: ignore[union-attr]
        return float(self._sender.stdout.readline())  # type: ignore[union-attr]

    def close(self) -> None:
        for process in (self._sender, self._receiver):
            process.communicate()


@zray.task
def make(number: int) -> Any:
    return np.full(SIZE, number, np.uint8)


@zray.task
def last(values: Any) -> int:
    return int(values[-1])


def transfer(number: int) -> float:
    """Seconds for one value, beyond those of a task that finds it there."""
    made = make.options(**ONE).remote(number)
    zray.wait([made], fetch_local=False, timeout=60)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        assert zray.get(last.options(**TWO).remote(made), timeout=60) == number
        times.append(time.perf_counter() - began)
    return times[0] - times[1]


def test_node_to_node(apart: Any) -> None:
    cluster, network = apart
    network.join()
    tcp = Copier(network, 9000, TCP_RECEIVER, TCP_SENDER)
    curve = Copier(network, 9001, CURVE_RECEIVER, CURVE_SENDER)
    numbers = iter(range(100))
    ways: dict[str, Callable[[], float]] = {
        "TCP copy": tcp.copy,
        "CURVE copy": curve.copy,
        "node to node": lambda: transfer(next(numbers)),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + REPEATS):
        for name, way in ways.items():
            found[name].append(way())
    tcp.close()
    curve.close()
    assert dict(cluster.status().counters)["relayed_bytes"] == 0
    print()
    for name, times in found.items():
        rates = sorted(SIZE / 1e9 / seconds for seconds in times[1:])
        pairs = zip(found["TCP copy"][1:], times[1:], strict=True)
        ratio = statistics.median(raw / own for raw, own in pairs)
        middle = statistics.median(rates)
        print(f"{name:13} {middle:5.2f} GB/s ({rates[0]:.2f}-{rates[-1]:.2f})  {ratio:.2f} of TCP")
