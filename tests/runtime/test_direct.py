"""The queue of a leased worker: either process takes what is in it, whatever the other one does."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from zray.runtime.linux import direct
from zray.runtime.linux.direct import PACKET_BYTES_MAX, DirectLink, TaskQueue

DEADLINE_S = 20.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(stack: ExitStack) -> tuple[DirectLink, DirectLink]:
    """Submitter's and worker's end of a link."""
    worker_id = os.urandom(16)
    listener = stack.enter_context(closing(direct.listen(worker_id)))
    ours = direct.connect(worker_id)
    theirs = direct.accept(listener)
    assert ours is not None and theirs is not None
    return stack.enter_context(closing(ours)), stack.enter_context(closing(theirs))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def reading_process(stack: ExitStack, queue: TaskQueue, results: int) -> int:
    """Another process, which takes packets and writes each as a line of ``results``."""
    ours, theirs = connected(stack)
    pid = os.fork()
    if not pid:
        try:
            queue.close()
            ours.close()
            received = None
            while received is None:
                received = TaskQueue.received(theirs)
            while (data := received.take()) != b"end":
                if data is not None:
                    os.write(results, data + b"\n")
        finally:
            os._exit(0)
    stack.callback(os.waitpid, pid, 0)
    stack.callback(os.kill, pid, signal.SIGCONT)
    queue.hand_over(ours)
    return pid


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def test_packets_come_out_whole_and_in_order(stack: ExitStack) -> None:
    ours, theirs = connected(stack)
    queue = stack.enter_context(closing(TaskQueue.make()))
    assert TaskQueue.received(theirs) is None
    queue.hand_over(ours)
    ours.writer.send_nowait(b"first frame")
    received = TaskQueue.received(theirs)
    assert received is not None
    stack.enter_context(closing(received))
    assert theirs.socket.recv(100).endswith(b"first frame")
    assert queue.put(b"one") and queue.put(b"x" * PACKET_BYTES_MAX) and queue.put(b"three")
    assert received.take() == b"one"
    assert received.take() == b"x" * PACKET_BYTES_MAX
    assert queue.take() == b"three"
    assert received.take() is None and queue.take() is None
    assert not os.get_inheritable(received.fileno()) and not os.get_inheritable(queue.fileno())


def test_it_says_when_it_is_full(stack: ExitStack) -> None:
    queue = stack.enter_context(closing(TaskQueue.make()))
    assert not queue.put(b"x" * (PACKET_BYTES_MAX + 1))
    count = 0
    while queue.put(b"short"):
        count += 1
    assert count > 200  # far more than max_dgram_qlen
    assert not queue.put(b"more") and queue.take() == b"short"
    assert sum(1 for _ in iter(queue.take, None)) == count - 1
    assert queue.put(b"more")


def test_what_a_stopped_process_has_not_taken_is_taken_back(stack: ExitStack) -> None:
    reads, writes = os.pipe()
    stack.callback(os.close, reads)
    stack.callback(os.close, writes)
    queue = TaskQueue.make()
    pid = reading_process(stack, queue, writes)
    assert queue.put(b"taken")
    assert os.read(reads, 100) == b"taken\n"
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")
    assert queue.put(b"one") and queue.put(b"two")
    assert [queue.take(), queue.take(), queue.take()] == [b"one", b"two", None]
    os.kill(pid, signal.SIGCONT)
    assert queue.put(b"end")
    until(lambda: state(pid) == "Z")
    queue.close()
    os.set_blocking(reads, False)
    with pytest.raises(BlockingIOError):
        os.read(reads, 100)


def test_each_packet_is_taken_once(stack: ExitStack) -> None:
    reads, writes = os.pipe()
    queue = TaskQueue.make()
    pid = reading_process(stack, queue, writes)
    os.close(writes)
    sent: set[bytes] = set()
    taken: list[bytes] = []
    other = b""
    os.set_blocking(reads, False)
    for number in range(3000):
        data = b"%d" % number
        until(lambda data=data: queue.put(data))  # type: ignore[misc]
        sent.add(data)
        if number % 3 == 0 and (mine := queue.take()) is not None:
            taken.append(mine)
        try:
            other += os.read(reads, 1 << 16)
        except BlockingIOError:
            pass
    until(lambda: queue.put(b"end"))
    os.set_blocking(reads, True)
    while chunk := os.read(reads, 1 << 16):
        other += chunk
    os.close(reads)
    until(lambda: state(pid) == "Z")
    theirs = other.split()
    assert theirs and len(taken) + len(theirs) == len(sent)
    assert {*taken, *theirs} == sent
    assert queue.take() is None
    queue.close()


def test_whoever_takes_can_wake_whoever_gives(stack: ExitStack) -> None:
    ours, theirs = connected(stack)
    queue = stack.enter_context(closing(TaskQueue.make()))
    queue.hand_over(ours)
    worker = TaskQueue.received(theirs)
    assert worker is not None
    rung = select.poll()
    rung.register(queue.bell(), select.POLLIN)
    assert queue.put(b"task") and not rung.poll(0)
    for _ in range(3):
        worker.ring()
        assert rung.poll(5000)
        queue.hear()
        assert not rung.poll(0)
    for _ in range(100_000):  # though nobody hears it
        worker.ring()
    queue.hear()
    assert not rung.poll(0)
    assert worker.take() == b"task" and worker.take() is None  # it goes the other way
    worker.ring()
    queue.close()
    worker.ring()
    worker.close()
    assert queue.bell() == -1
    queue.hear()


def test_nothing_is_left_behind(stack: ExitStack) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    ours, theirs = connected(stack)
    queue = TaskQueue.make()
    queue.hand_over(ours)
    received = TaskQueue.received(theirs)
    assert received is not None and queue.put(b"lost")
    queue.close()
    assert received.take() == b"lost" and received.take() is None
    received.close()
    stack.pop_all().close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_connection_that_begins_otherwise_is_none(stack: ExitStack) -> None:
    ours, theirs = connected(stack)
    ours.writer.send_nowait(b"hello")
    with pytest.raises(ValueError):
        TaskQueue.received(theirs)
    ours, theirs = connected(stack)
    socket.send_fds(ours.socket, [b"q"], [0])
    with pytest.raises((ValueError, OSError)):
        TaskQueue.received(theirs)
    ours, theirs = connected(stack)
    ours.close()
    with pytest.raises(EOFError):
        TaskQueue.received(theirs)


def test_a_caller_does_not_wait_behind_others(stack: ExitStack) -> None:
    """The worker is stopped, and somebody else has filled its line of callers."""
    worker_id = os.urandom(16)
    stack.enter_context(closing(direct.listen(worker_id)))
    for _ in range(1000):
        link = direct.connect(worker_id)
        if link is None:
            return
        stack.enter_context(closing(link))
    raise AssertionError("everybody had room")


def test_without_descriptors_there_is_no_way(stack: ExitStack) -> None:
    worker_id = os.urandom(16)
    stack.enter_context(closing(direct.listen(worker_id)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert direct.connect(worker_id) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_ends_is_not_connected_to_though_its_socket_still_listens(
    stack: ExitStack,
) -> None:
    """Whoever finds its connection closed tries another, and would take the process for alive."""
    for _ in range(30):
        worker_id, (reads, writes) = os.urandom(16), os.pipe()
        pid = os.fork()
        if not pid:
            listener = direct.listen(worker_id)
            os.write(writes, b"x")
            while (link := direct.accept(listener)) is None:
                time.sleep(0.001)
            ballast = bytearray(20 << 20)
            link.socket.send(b"y")
            time.sleep(DEADLINE_S)
            os._exit(len(ballast) and 1)
        try:
            os.read(reads, 1)
            link = direct.connect(worker_id)
            assert link is not None
            stack.callback(link.close)
            assert link.socket.recv(1) == b"y"
            os.kill(pid, signal.SIGKILL)
            assert link.socket.recv(1) == b""
            assert direct.connect(worker_id) is None
        finally:
            os.waitpid(pid, 0)
            os.close(reads)
            os.close(writes)
