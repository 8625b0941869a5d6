"""What is bad for leased workers and their drivers: strangers, floods, crashes, no descriptors."""

from __future__ import annotations

import array
import os
import resource
import select
import socket
import time
from typing import Any

import psutil
import pytest

import zray
from tests.real_cluster import Peer
from zray.errors import TaskCancelledError
from zray.limits import RESOURCE_UNIT
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import identity, serialization
from zray.runtime.linux import direct
from zray.runtime.stream import read_available

CPU = [("CPU", RESOURCE_UNIT)]
FUNCTION, TEMPLATE = b"f" * 16, b"t" * 16


class LeasingDriver(Peer):
    """A driver that speaks by hand, on this machine."""

    def __init__(self, cluster: Any) -> None:
        self.machine = cluster.node("one").info.machine
        self.link: Any = None
        self.queue: Any = None
        super().__init__(cluster.info(), role=m.ROLE_DRIVER)

    def hello(self, role: int) -> m.Hello:
        job = m.JobInfo("peer", "/", [], self.machine, "", os.getpid())
        versions = identity.versions(pickles=False)
        return m.Hello(
            *(0, m.PROTOCOL_VERSION, role, self.process_id, 1, b"", versions, [], None, job)
        )

    def lease(self) -> m.HeldLease:
        """Ask for a worker until there is one."""
        for _ in range(50):
            self.send(m.Demand(0, self.process_id, self.process_id, CPU, 1))
            try:
                return self.receive(m.Leased, 0.2).lease
            except TimeoutError:
                continue
        raise TimeoutError("no worker was leased")

    def join(self, held: m.HeldLease, *more: m.Message) -> None:
        """Connect to the worker as a submitter does."""
        self.link = direct.connect(held.worker_id)
        assert self.link is not None
        self.queue = direct.TaskQueue.make()
        self.queue.hand_over(self.link)
        ids = (held.lease_id, self.process_id, self.process_id)
        for payload in codec.encode_local([m.Grant(0, *ids, CPU), *more]):
            self.link.writer.send_nowait(payload)

    def put(self, message: m.Message) -> None:
        """Into the queue of tasks."""
        [payload] = codec.encode_local([message])
        assert self.queue.put(payload)

    def task(self, number: int, dependencies: list[bytes]) -> m.Tasks:
        spec = m.TaskSpec(number.to_bytes(16, "big"), TEMPLATE, b"", dependencies)
        return m.Tasks(0, [m.Assignment(1, self.process_id, spec)])

    def answer(self) -> m.TaskDone:
        """The end of the only task that was given."""
        while True:
            frames, ended = read_available(self.link.socket, self.link.reader)
            for frame in frames:
                for message in codec.decode(frame).messages:
                    if isinstance(message, m.Done):
                        return message.tasks[0]
            assert not ended
            assert select.select([self.link], [], [], 5)[0], "the worker does not answer"

    def over(self, held: m.HeldLease) -> None:
        """Wait until the head says that the lease is over, in peace."""
        ended = self.receive(m.LeaseEnded)
        assert (ended.lease_id, ended.text) == (held.lease_id, "")

    def leave(self) -> None:
        self.link.close()
        self.queue.close()


@pytest.fixture
def one(bare: Any) -> Any:
    """A head, and a node with a CPU."""
    bare.start_head()
    bare.start_node("one", 1)
    return bare


def workers(cluster: Any) -> list[psutil.Process]:
    """Of all nodes."""
    nodes = [one for one in cluster.programs if one.name in ("one", "two")]
    return [worker for node in nodes for zygote in node.children() for worker in zygote.children()]


def call(worker_id: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(f"\0zray-{worker_id.hex()}")
    return sock


def known() -> list[m.Message]:
    """A function that returns 7."""
    code = eval("lambda: 7", {"__name__": "__main__"})
    blob = serialization.dumps_function(code, False).blob
    return [
        m.Export(0, FUNCTION, "f", blob),
        m.Template(0, TEMPLATE, FUNCTION, "f", CPU, 1, 0),
    ]


def test_strangers_at_its_socket_end_neither_a_worker_nor_its_lease(one: Any) -> None:
    driver = LeasingDriver(one)
    held = driver.lease()
    [worker] = workers(one)
    strangers = []
    for said in (b"", b"x", b"garbage" * 100, b"\xff" * 100_000, b"q" * 10):
        strangers.append(call(held.worker_id))
        strangers[-1].setblocking(False)
        strangers[-1].send(said) if said else None
    pairs = [
        socket.socketpair(socket.AF_UNIX, kind)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
    ]
    for descriptor in (0, *(pair[0].fileno() for pair in pairs)):
        strangers.append(call(held.worker_id))
        passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        strangers[-1].sendmsg([b"q"], [passed])
        strangers[-1].send(b"and nothing that is a frame" * 100)
    try:
        driver.join(held, *known())
        driver.put(driver.task(1, []))
        assert driver.answer().status == m.FINISHED
        assert worker.is_running() and worker.num_fds() < 20  # it has let go of all of them
    finally:
        for sock in (*strangers, *(end for pair in pairs for end in pair)):
            sock.close()
        driver.leave()
    driver.over(held)
    driver.close()


def test_a_submitter_that_sends_nonsense_loses_its_lease_alone(one: Any) -> None:
    driver = LeasingDriver(one)
    missing = driver.task(1, [b"x" * 20])
    pid = 0
    for number in range(6):
        held = driver.lease()
        [worker] = workers(one)
        assert pid in (0, worker.pid)  # the same worker all along
        pid = worker.pid
        driver.join(held, *(known() if number else []))
        if number == 0:
            driver.put(driver.task(1, []))  # of a function that nobody has told of
        elif number == 1:
            assert driver.queue.put(b"nonsense")
        elif number == 2:
            driver.put(m.Ping(0, 1.0))
        elif number == 3:
            driver.put(missing)
        elif number == 4:
            driver.link.socket.send(b"\xff" * 1000)
        driver.over(held)
        driver.leave()
    driver.close()
    one.connect()

    @zray.task
    def plus(number: int) -> int:
        return number + 1

    assert zray.get([plus.remote(at) for at in range(300)], timeout=20) == [*range(1, 301)]


def test_a_task_that_crashes_for_ever_keeps_nobody_waiting(connected: Any) -> None:
    @zray.task(max_retries=-1)
    def crashes() -> None:
        os._exit(3)

    @zray.task
    def plus(number: int) -> int:
        return number + 1

    assert zray.get([plus.remote(at) for at in range(300)], timeout=20) == [*range(1, 301)]
    bad = [crashes.remote() for _ in range(6)]
    for _ in range(3):
        assert zray.get([plus.remote(at) for at in range(50)], timeout=10) == [*range(1, 51)]
    for ref in bad:
        zray.cancel(ref)
    for ref in bad:
        with pytest.raises(TaskCancelledError):
            zray.get(ref, timeout=10)
    connected.until(connected.at_rest, 10, "all is free again")


def test_a_worker_does_not_keep_functions_that_were_defined_anew(one: Any) -> None:
    one.connect()

    def define(number: int) -> Any:
        blob = os.urandom(200_000)

        @zray.task
        def work() -> int:
            return len(blob) + number

        return work

    def memory() -> int:
        return max(worker.memory_info().rss for worker in workers(one))

    for number in range(20):
        work = define(number)
        assert zray.get([work.remote() for _ in range(3)], timeout=10) == [200_000 + number] * 3
    before = memory()
    for number in range(300):
        work = define(number)
        assert zray.get([work.remote() for _ in range(3)], timeout=10) == [200_000 + number] * 3
    assert memory() - before < 20_000_000


@pytest.mark.parametrize("left", [1, 2, 3, 6])
def test_a_driver_without_descriptors_goes_on(connected: Any, left: int) -> None:
    @zray.task
    def work(number: int) -> int:
        time.sleep(0.001)
        return number

    assert zray.get([work.remote(at) for at in range(50)], timeout=20) == [*range(50)]
    connected.until(connected.at_rest, 5, "the leases have ended")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 1, hard))
        for _ in range(left):
            os.close(opened.pop())
        assert zray.get([work.remote(at) for at in range(200)], timeout=20) == [*range(200)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)
    assert zray.get([work.remote(at) for at in range(200)], timeout=20) == [*range(200)]
    connected.until(connected.at_rest, 5, "all is free again")
