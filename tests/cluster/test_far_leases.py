"""Workers leased to a driver on another machine: tasks that pass the head by over a network.

Needs the right to make network namespaces (root); where that is missing, these tests fail and say
so, and `-m "not system"` leaves them out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import zmq

import zray
from tests.cluster.leasing import leased
from tests.cluster.network import Network, ip
from zray import limits
from zray.core.head.roles import FORBIDDEN
from zray.errors import GetTimeoutError, TaskCancelledError, WorkerCrashedError
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import identity, sockets
from zray.runtime.connection import parse_address
from zray.runtime.keys import ClusterKey

pytestmark = pytest.mark.system


LOAD = """
    import time
    import zray
    from zray.errors import GetTimeoutError

    zray.init()

    @zray.task
    def work():
        time.sleep(0.01)

    while True:
        refs = [work.remote() for _ in range(100)]
        try:
            zray.get(refs, timeout=0.001)
        except GetTimeoutError as error:
            if "leased to this process" in str(error):
                print("leased", flush=True)
        zray.get(refs)
"""


@pytest.fixture
def near_and_far(apart: Any) -> Iterator[tuple[Any, Network]]:
    """As ``apart``; this process, on a third machine, so to speak, reaches both nodes."""
    cluster, network = apart
    network.join_own()
    yield cluster, network


def cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_a_burst_passes_the_head_by_and_uses_all_nodes(near_and_far: Any) -> None:
    cluster, _ = near_and_far

    @zray.task
    def double(number: int) -> tuple[int, str]:
        return 2 * number, zray.get_runtime_context().get_node_id()

    leased(double, 1)
    before, nodes = cpu_s(cluster.head.pid), set()
    for _ in range(5):
        values = zray.get([double.remote(number) for number in range(2000)], timeout=60)
        assert [value for value, _ in values] == [2 * number for number in range(2000)]
        nodes.update(node for _, node in values)
    assert cpu_s(cluster.head.pid) - before < 0.5  # by way of it, they take more than a second
    assert len(nodes) == 2  # one burst may be over before the second worker has had any
    cluster.until(cluster.at_rest, 5, "the leases have ended")


def test_a_port_behind_a_wall_keeps_nobody_waiting(apart: Any) -> None:
    """What is sent there is dropped without a word: tasks go by way of the head."""
    _, network = apart
    ip("route", "add", "10.231.0.0/16", "via", "10.231.0.1")  # where nobody forwards it

    @zray.task
    def work() -> int:
        time.sleep(0.001)
        return os.getpid()

    zray.get(work.remote(), timeout=10)
    for _ in range(10):
        began = time.monotonic()
        with pytest.raises(GetTimeoutError) as told:
            zray.get([work.remote() for _ in range(200)], timeout=0.01)
        assert "leased" not in str(told.value)
        zray.get([work.remote() for _ in range(20)], timeout=10)
        assert time.monotonic() - began < 2
    assert network.nodes


@pytest.mark.slow_limit(90)
@pytest.mark.parametrize("seconds", [0.5, 6.0])
def test_a_way_that_is_cut_in_the_middle_loses_nothing(
    near_and_far: Any, records: Any, seconds: float
) -> None:
    """The head reaches both ends meanwhile."""
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        if number >= 0:
            write(number)
        time.sleep(0.02)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(300)]
    records.until(50)
    ip("route", "replace", "blackhole", "10.231.1.0/24")
    ip("route", "replace", "blackhole", "10.231.2.0/24")
    time.sleep(seconds)  # the length of the fault
    ip("route", "delete", "blackhole", "10.231.1.0/24")
    ip("route", "delete", "blackhole", "10.231.2.0/24")
    assert zray.get(refs, timeout=40) == list(range(300))
    assert sorted(map(int, records.lines())) == list(range(300))
    leased(work, -1)  # once more, at last


def test_a_worker_that_dies_is_charged_with_what_it_had_begun(
    near_and_far: Any, records: Any
) -> None:
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        import sys

        if number >= 0:
            write(number)
        time.sleep(0.005)
        if number == 20:
            print("these are its last words", file=sys.stderr)
            os._exit(7)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(100)]
    with pytest.raises(WorkerCrashedError) as crash:
        zray.get(refs[20], timeout=20)
    text = str(crash.value)
    assert "exit code 7" in text and "these are its last words" in text and "pid" in text
    rest = refs[:20] + refs[21:]
    assert zray.get(rest, timeout=20) == [*range(20), *range(21, 100)]
    assert sorted(map(int, records.lines())) == list(range(100))


def test_a_node_that_is_killed_costs_retries_and_nothing_else(
    near_and_far: Any, records: Any
) -> None:
    cluster, _ = near_and_far
    write = records.write

    @zray.task
    def work(number: int) -> int:
        if number >= 0:
            write(number)
        time.sleep(0.01)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(400)]
    records.until(100)
    os.kill(cluster.node("one").info.pid, signal.SIGKILL)
    assert zray.get(refs, timeout=40) == list(range(400))
    began = list(map(int, records.lines()))
    assert len({*began}) == 400 and len(began) <= 410


def test_they_go_on_while_the_head_restarts(near_and_far: Any, records: Any) -> None:
    cluster, _ = near_and_far
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        if number >= 0:
            write(number)
        time.sleep(0.02)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(400)]
    records.until(50)
    cluster.head.kill()
    count = len(records.lines())
    records.until(count + 50)  # without a head
    cluster.start_head("--host", "0.0.0.0", port=-1)
    assert zray.get(refs, timeout=40) == list(range(400))
    assert sorted(map(int, records.lines())) == list(range(400))


def test_a_driver_that_is_killed_leaves_nothing(near_and_far: Any) -> None:
    cluster, _ = near_and_far
    driver = cluster.run("load", LOAD)
    driver.says("leased", 30)
    driver.kill()

    @zray.task
    def work() -> int:
        return os.getpid()

    assert zray.get([work.remote() for _ in range(10)], timeout=20)
    cluster.until(cluster.at_rest, limits.DRIVER_LOST_S + 10, "its job has ended, and all is free")


def test_tasks_are_cancelled_wherever_they_are(near_and_far: Any, records: Any) -> None:
    write = records.write

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        if number >= 0:
            write(number)
            time.sleep(30)
        return number

    leased(work, -1)
    refs = [work.remote(number) for number in range(8)]
    records.until(2)
    began = time.monotonic()
    for number, ref in enumerate(refs):
        zray.cancel(ref, force=number % 2 == 0)
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            zray.get(ref, timeout=20)
    assert time.monotonic() - began < 8
    assert zray.get([work.remote(-1) for _ in range(20)], timeout=20) == [-1] * 20


def test_values_and_prints_come_from_there(
    near_and_far: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, _ = near_and_far

    @zray.task
    def work(size: int, refs: Any = ()) -> bytes:
        if size:
            print("printed", size)
        return bytes([size % 251]) * size + b"".join(zray.get([*refs]))

    leased(work, 0)
    large = [work.remote(300_000 + number) for number in range(4)]
    values = zray.get(large, timeout=20)
    assert [(len(value), value[0]) for value in values] == [
        (300_000 + number, (300_000 + number) % 251) for number in range(4)
    ]
    until = time.monotonic() + 10
    printed = ""
    while printed.count("printed") < 4 and time.monotonic() < until:
        zray.get(work.remote(0))
        printed += capsys.readouterr().out
    assert "(work pid=" in printed and "node=" in printed
    nested = zray.put(b"nested")
    assert zray.get(work.remote(3, [nested]), timeout=20) == bytes([3]) * 3 + b"nested"
    del large, values, nested
    cluster.until(cluster.at_rest, 5, "all is free again")


def test_what_is_behind_a_long_task_goes_elsewhere(near_and_far: Any) -> None:
    @zray.task
    def work(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    leased(work, 0.002)
    for place in (0, 50):
        refs = [work.remote(4 if at == place else 0.002) for at in range(100)]
        long = refs.pop(place)
        began = time.monotonic()
        zray.get(refs, timeout=20)
        assert time.monotonic() - began < 2
        assert zray.wait([long], timeout=0) == ([], [long])
        zray.get(long, timeout=20)


class Liar:
    """Somebody with a key, at a raylet's own port."""

    def __init__(self, cluster: Any, address: str, *, key: bool = True) -> None:
        info = cluster.info()
        self.context = sockets.context()
        if not key:
            stranger = ClusterKey.create().client()
            info = type(info)(
                **{
                    **{name: getattr(info, name) for name in info.__slots__},
                    "client_public": stranger.public,
                    "client_secret": stranger.secret,
                }
            )
        self.socket = sockets.dealer(self.context, info, cluster.info().client_public)
        sockets.connect(self.socket, *parse_address(address))
        self.process_id = IdSource(os.urandom(8)).process_id()

    def hello(self, process_id: bytes, path: int = 1, role: int = m.ROLE_DRIVER) -> None:
        versions = identity.versions(pickles=False)
        self.send(m.Hello(0, m.PROTOCOL_VERSION, role, process_id, path, b"", versions))

    def send(self, *messages: m.Message) -> None:
        for payload in codec.encode(0, messages):
            self.socket.send_multipart([m.KIND, payload], zmq.NOBLOCK)

    def hears(self) -> m.Message:
        assert self.socket.poll(5000), "no answer"
        return codec.decode(self.socket.recv_multipart()[1]).messages[0]

    def close(self) -> None:
        self.context.destroy(0)


def test_liars_at_a_nodes_port_reach_nobody(near_and_far: Any) -> None:
    """Of another job, without HELLO, with nonsense, with another's key, in masses."""
    cluster, _ = near_and_far

    @zray.task(max_retries=0)
    def work(number: int) -> int:
        time.sleep(0.002)
        return number

    leased(work, 1)
    node = cluster.node("one")
    liar = Liar(cluster, node.info.liveness)
    stranger = Liar(cluster, node.info.liveness, key=False)
    try:
        refs = [work.remote(number) for number in range(1000)]
        junk = [m.LeaseWord(kind, os.urandom(100)) for kind in range(9)]
        ids = (liar.process_id, node.node_id, os.urandom(16))
        liar.send(m.Relay(0, *ids, 1, 1, 0, junk))
        assert isinstance(liar.hears(), m.Rejoin)
        liar.hello(liar.process_id, role=m.ROLE_OBSERVER)
        assert isinstance(liar.hears(), m.Refused)
        liar.hello(liar.process_id)
        assert isinstance(liar.hears(), m.Welcome)
        liar.send(m.Relay(0, *ids, 1, 1, 0, junk))
        refused = liar.hears()
        assert isinstance(refused, m.RelayRefused) and refused.code == FORBIDDEN
        liar.send(m.Relay(0, node.node_id, node.node_id, os.urandom(16), 1, 1, 0, junk))
        assert isinstance(liar.hears(), m.RelayRefused)
        with contextlib.suppress(zmq.Again):  # it is cut off already
            stranger.hello(stranger.process_id)
        assert not stranger.socket.poll(500)
        for _ in range(2000):
            with contextlib.suppress(zmq.Again):  # it is held back by then
                liar.send(m.Relay(0, *ids, 1, 1, 0, junk))
                liar.socket.send_multipart([m.KIND, os.urandom(50)], zmq.NOBLOCK)
                liar.socket.send_multipart([b"x", os.urandom(50), b"y"], zmq.NOBLOCK)
        assert zray.get(refs, timeout=60) == list(range(1000))
    finally:
        liar.close()
        stranger.close()
    assert cluster.node("one").state == "ALIVE"
