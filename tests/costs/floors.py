"""What a task or call cannot cost less than: the bare ways between processes, and coding.

No cluster: plain processes that do nothing but pass messages on. CPU time is that of all of them.
"""

from __future__ import annotations

import os
import pickle
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import zmq

from tests.core.benches import identity, object_of
from tests.costs.processes import use_of
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import serialization

MESSAGE = b"m" * 64
STOP = b"stop"
ROUNDS = 7
TURNS = 500  # a round
TURNS_BUSY = 60


class Floor(NamedTuple):
    """Seconds for one; of ``cpu_s`` the processes' sum. None: it is the same."""

    title: str
    wall_s: float
    cpu_s: float | None = None


Channel = tuple[Callable[[], bytes], Callable[[bytes], object]]  # receive, send


class Pair:
    """A link of two processes: a socket pair."""

    def __init__(self) -> None:
        self._ends = socket.socketpair()

    def near(self) -> Channel:
        """The end of the one who asks; in its own process."""
        return partial(self._ends[0].recv, 100), self._ends[0].sendall

    def far(self) -> Channel:
        """The end of the one who answers; in its own process."""
        return partial(self._ends[1].recv, 100), self._ends[1].sendall

    def close(self) -> None:
        """What is open of it in this process."""
        for end in self._ends:
            end.close()


class Curve:
    """The same with ZeroMQ over TCP, encrypted, as drivers and nodes talk with the head."""

    def __init__(self) -> None:
        self._public, self._secret = zmq.curve_keypair()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def _open(self, kind: int) -> zmq.Socket[bytes]:
        self._context = zmq.Context()
        return self._context.socket(kind)

    def near(self) -> Channel:
        end = self._open(zmq.DEALER)
        end.curve_serverkey = self._public
        end.curve_publickey, end.curve_secretkey = zmq.curve_keypair()
        end.connect(self._address)
        return end.recv, end.send

    def far(self) -> Channel:
        end = self._open(zmq.ROUTER)
        end.curve_server = True
        end.curve_publickey, end.curve_secretkey = self._public, self._secret
        end.bind(self._address)
        route = b""

        def receive() -> bytes:
            nonlocal route
            route, message = end.recv_multipart()
            return message

        return receive, lambda message: end.send_multipart([route, message])

    def close(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=1000)  # what was sent goes out


def all_floors() -> Iterator[Floor]:
    yield round_trip("two processes, a socket pair", Pair())
    yield round_trip("two processes, ZeroMQ over TCP with CURVE", Curve())
    yield round_trip("driver, raylet, worker: ZeroMQ, a socket pair", Curve(), Pair())
    yield round_trip(
        "driver, head, raylet, worker: ZeroMQ twice, a socket pair", Curve(), Curve(), Pair()
    )
    yield round_trip(
        *("the same, with 5 ms of other work before each", Curve(), Curve(), Pair()),
        busy_s=0.005,
    )
    yield thread_wake_up()
    yield encode_and_decode()
    yield pickle_and_unpickle()


# ---- between processes -----------------------------------------------------------------------


def round_trip(title: str, *links: Pair | Curve, busy_s: float = 0.0) -> Floor:
    """There and back through a chain of processes, of which this is the first.

    ``busy_s``: of CPU time that it spends before each turn, and that is not counted.
    """
    children = [
        _forked(link, links[index] if index < len(links) else None)
        for index, link in enumerate(links, 1)
    ]
    receive, send = links[0].near()

    walls, cpus, turns = [], [], TURNS_BUSY if busy_s else TURNS
    for _ in range(1 + ROUNDS):
        used, wall, own = use_of([os.getpid(), *children]).cpu_s, 0.0, 0.0
        for _ in range(turns):
            if busy_s:
                own += _busy(busy_s)
            began = time.perf_counter()
            send(MESSAGE)
            receive()
            wall += time.perf_counter() - began
        walls.append(wall / turns)
        cpus.append((use_of([os.getpid(), *children]).cpu_s - used - own) / turns)
    del walls[0], cpus[0]  # the first round warms up
    send(STOP)
    for link in links:
        link.close()
    for pid in children:
        os.waitpid(pid, 0)
    return Floor(title, statistics.median(walls), statistics.median(cpus))


def _busy(seconds: float) -> float:
    began = time.thread_time()
    while time.thread_time() < began + seconds:
        sum(range(300))
    return time.thread_time() - began


def _forked(behind: Pair | Curve, ahead: Pair | Curve | None) -> int:
    """A process that passes on what comes, and the answer back; with nobody ahead: it answers."""
    pid = os.fork()
    if pid:
        return pid
    try:
        receive, send = behind.far()
        if ahead is None:
            while (message := receive()) != STOP:
                send(message)
        else:
            take, give = ahead.near()
            while (message := receive()) != STOP:
                give(message)
                send(take())
            give(STOP)
            ahead.close()
    finally:
        os._exit(0)


# ---- in one process --------------------------------------------------------------------------


def thread_wake_up() -> Floor:
    """One thread hands over to another, by a lock."""
    mine, others = threading.Lock(), threading.Lock()
    mine.acquire()
    others.acquire()

    def other() -> None:
        for _ in range(ROUNDS * TURNS):
            others.acquire()
            mine.release()

    thread = threading.Thread(target=other)
    thread.start()
    walls, cpus = [], []
    for _ in range(ROUNDS):
        used, began = time.process_time(), time.perf_counter()
        for _ in range(TURNS):
            others.release()
            mine.acquire()
        walls.append((time.perf_counter() - began) / 2 / TURNS)
        cpus.append((time.process_time() - used) / 2 / TURNS)
    thread.join()
    return Floor("a thread wakes another", statistics.median(walls), statistics.median(cpus))


def encode_and_decode() -> Floor:
    """The messages of one task on its way: submitted, assigned, done twice, its result."""
    task, me = identity("t"), identity("d")
    spec = m.TaskSpec(task, identity("f"), serialization.dumps_arguments((), {}, object).data)
    value, _ = serialization.dumps(b"ok")
    outcome = m.Outcome(object_of(task), m.VALUE, len(value), value)
    done = m.Done(1, [m.TaskDone(task, 1, m.FINISHED, [outcome])])
    messages: list[m.Message] = [
        *(m.Submit(0, me, me, [spec]), m.Tasks(0, [m.Assignment(1, me, spec)])),
        *(done, done, m.Result(1, me, [outcome])),
    ]

    def once() -> None:
        for message in messages:
            for payload in codec.encode_local([message]):
                codec.decode(payload)

    return Floor("msgspec: five messages of a task, encoded and decoded", _repeat(once))


def pickle_and_unpickle() -> Floor:
    """The arguments of a call without any, and a result."""

    def once() -> None:
        pickle.loads(pickle.dumps(((), {}), 5))
        pickle.loads(pickle.dumps(b"ok", 5))

    return Floor("pickle: no arguments and a small result, there and back", _repeat(once))


def _repeat(once: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            once()
        best = min(best, time.perf_counter() - began)
    return best / 1000
