from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy
import pytest

from zray.runtime import serialization
from zray.runtime.linux import segments
from zray.runtime.linux.segments import Mapping

ROOT = Path(__file__).parents[2]
MB = 1 << 20
DEADLINE_S = 20.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def writer(stack: ExitStack, size: int = MB) -> Mapping:
    mapping = Mapping(segments.create(size), writable=True)
    stack.callback(mapping.close)
    return mapping


def reader(stack: ExitStack, of: Mapping) -> Mapping:
    segments.protect(of.fd)
    mapping = Mapping(os.dup(of.fd))
    stack.callback(mapping.close)
    return mapping


def no_more() -> None:
    """For views whose end does not matter."""


def mapped_segments() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:zray-segment")


# ---- protection ----------------------------------------------------------------------------


def test_a_protected_segment_is_writable_only_where_it_was_mapped_before(stack: ExitStack) -> None:
    mapping = writer(stack)
    fd = mapping.fd
    assert not segments.is_protected(fd)
    segments.protect(fd)
    segments.protect(fd)
    assert segments.is_protected(fd)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, MB)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    mapping.write(10, [b"abc"])
    assert bytes(mapping.view(10, 3, no_more)) == b"abc"


def test_a_reader_cannot_make_its_mapping_writable(stack: ExitStack) -> None:
    mapping = reader(stack, writer(stack))
    with mmap.mmap(mapping.fd, MB, prot=mmap.PROT_READ) as mapped:
        libc = ctypes.CDLL(None, use_errno=True)
        address = numpy.frombuffer(mapped, dtype=numpy.uint8).ctypes.data
        wanted = mmap.PROT_READ | mmap.PROT_WRITE
        assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(MB), wanted) == -1
    with pytest.raises(ValueError, match="for reading only"):
        mapping.write(0, [b"x"])


def test_the_size_never_changes(stack: ExitStack) -> None:
    mapping = writer(stack)
    for size in (MB - 1, MB + 1, 0):
        with pytest.raises(PermissionError):
            os.ftruncate(mapping.fd, size)


def test_what_others_could_change_is_not_mapped_for_reading(stack: ExitStack) -> None:
    mapping = writer(stack)
    fd = os.dup(mapping.fd)
    with pytest.raises(ValueError, match="not protected"):
        Mapping(fd)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_cannot_be_mapped_leaves_no_descriptor(stack: ExitStack) -> None:
    with pytest.raises(OSError):
        Mapping(segments.create(0), writable=True)


# ---- writing -------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [False, True])
def test_pieces_arrive_whole_cold_and_warm(stack: ExitStack, protected: bool) -> None:
    random = numpy.random.default_rng(1)
    mapping = writer(stack, 32 * MB)
    if protected:
        segments.protect(mapping.fd)
    expected = numpy.zeros(32 * MB, dtype=numpy.uint8)
    # Past the touched part, across its end, within it, and with a gap before.
    for start, sizes in (
        (0, (100_001, 7, 90_000)),
        (100, (3 * MB,)),
        (64, (100,)),
        (9 * MB, (MB,)),
    ):
        at = start
        pieces = []
        for size in sizes:
            data = random.integers(0, 255, size, dtype=numpy.uint8)
            expected[at : at + size] = data
            pieces.append(memoryview(data))
            at += size
        mapping.write(start, pieces)
    found = numpy.frombuffer(mapping.view(0, 32 * MB, no_more), dtype=numpy.uint8)
    assert (found == expected).all()
    del found


def test_protecting_in_the_middle_of_cold_writes_loses_nothing(stack: ExitStack) -> None:
    mapping = writer(stack, 64 * MB)
    data = numpy.random.default_rng(2).integers(0, 255, 64 * MB, dtype=numpy.uint8)
    thread = threading.Thread(target=mapping.write, args=(0, [memoryview(data)]))
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not os.fstat(mapping.fd).st_blocks and time.monotonic() < deadline:
        pass
    segments.protect(mapping.fd)
    thread.join(DEADLINE_S)
    found = numpy.frombuffer(mapping.view(0, len(data), no_more), dtype=numpy.uint8)
    assert (found == data).all()
    del found


def test_nothing_is_written_past_the_end(stack: ExitStack) -> None:
    mapping = writer(stack)
    for offset, size in ((MB, 1), (MB - 1, 2), (0, MB + 1), (-1, 1), (2 * MB, 1)):
        with pytest.raises(ValueError, match="not within"):
            mapping.write(offset, [bytes(size)])
        with pytest.raises(ValueError, match="not within"):
            mapping.view(offset, size, no_more)
    with pytest.raises(ValueError, match="not within"):
        mapping.view(0, -1, no_more)


# ---- views ---------------------------------------------------------------------------------


def test_a_view_is_released_once_with_the_last_of_what_was_made_of_it(stack: ExitStack) -> None:
    source = writer(stack)
    parts = serialization.dumps_parts([numpy.arange(1000), "text", numpy.ones(50)])
    source.write(64, parts.pieces)
    mapping = reader(stack, source)
    released: list[int] = []
    view = mapping.view(64, parts.size, lambda: released.append(1))
    first, _, second = serialization.loads(view)
    del view
    row = first.reshape(10, 100)[3]
    slices = memoryview(second)[10:20]
    del first, second
    assert row.tolist() == [*range(300, 400)]
    assert not row.flags.writeable and slices.readonly
    with pytest.raises(ValueError):
        row.flags.writeable = True
    del row
    assert released == []
    del slices
    assert released == [1]
    gc.collect()
    assert released == [1]


def test_views_of_one_region_are_released_apart(stack: ExitStack) -> None:
    mapping = writer(stack)
    released: list[str] = []
    one = mapping.view(0, 100, lambda: released.append("one"))
    two = mapping.view(0, 100, lambda: released.append("two"))
    del one
    assert released == ["one"]
    del two
    assert released == ["one", "two"]


def test_a_view_in_a_cycle_is_released_by_the_collector(stack: ExitStack) -> None:
    mapping = writer(stack)
    released: list[int] = []
    cycle: list[Any] = [
        numpy.frombuffer(mapping.view(0, 100, lambda: released.append(1)), dtype=numpy.uint8)
    ]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert released == [1]


def test_a_value_without_arrays_holds_no_view(stack: ExitStack) -> None:
    mapping = writer(stack)
    parts = serialization.dumps_parts(["x" * 100_000, b"y" * 100_000])
    mapping.write(0, parts.pieces)
    released: list[int] = []
    value = serialization.loads(mapping.view(0, parts.size, lambda: released.append(1)))
    assert released == [1]
    assert value == ["x" * 100_000, b"y" * 100_000]


def test_views_are_dropped_in_any_thread(stack: ExitStack) -> None:
    mapping = writer(stack)
    released: list[int] = []

    def work() -> None:
        for _ in range(500):
            view = mapping.view(0, 1000, lambda: released.append(1))
            numpy.frombuffer(view, dtype=numpy.uint8)[5:].sum()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(released) == 2000


def test_a_closed_mapping_lives_until_its_last_view_is_gone() -> None:
    before = mapped_segments()
    mapping = Mapping(segments.create(MB), writable=True)
    mapping.write(0, [b"content"])
    view = mapping.view(0, 7, no_more)
    mapping.close()
    mapping.close()
    assert mapping.fd == -1
    assert bytes(view) == b"content"
    assert mapped_segments() == before + 1
    del view
    assert mapped_segments() == before
    for use in (lambda: mapping.view(0, 1, no_more), lambda: mapping.write(0, [b"x"])):
        with pytest.raises(ValueError, match="is closed"):
            use()


# ---- sending -------------------------------------------------------------------------------


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_descriptors_arrive_with_their_tags(stack: ExitStack, channel: Any) -> None:
    ours, theirs = channel
    made = [writer(stack), writer(stack)]
    for number, mapping in enumerate(made):
        mapping.write(0, [b"content %d" % number])
        segments.protect(mapping.fd)
        segments.send(ours, b"tag %d" % number, mapping.fd)
    for number in range(2):
        tag, fd = segments.receive(theirs, 100)
        assert tag == b"tag %d" % number
        assert fd is not None and not os.get_inheritable(fd)
        mapping = Mapping(fd)
        stack.callback(mapping.close)
        assert bytes(mapping.view(0, 9, no_more)) == b"content %d" % number
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        segments.receive(theirs, 100)
    ours.close()
    with pytest.raises(EOFError):
        segments.receive(theirs, 100)


def test_a_message_may_have_no_descriptor(channel: Any) -> None:
    ours, theirs = channel
    ours.send(b"tag")
    assert segments.receive(theirs, 100) == (b"tag", None)


@pytest.mark.parametrize("descriptors", [2, 30])
def test_a_message_with_several_descriptors_leaves_none(
    stack: ExitStack, channel: Any, descriptors: int
) -> None:
    ours, theirs = channel
    fd = writer(stack).fd
    socket.send_fds(ours, [b"tag"], [fd] * descriptors)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="refused"):
        segments.receive(theirs, 100)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tag_that_is_too_long_leaves_no_descriptor(stack: ExitStack, channel: Any) -> None:
    ours, theirs = channel
    segments.send(ours, b"x" * 101, writer(stack).fd)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="refused"):
        segments.receive(theirs, 100)
    assert len(os.listdir("/proc/self/fd")) == before


# ---- deaths --------------------------------------------------------------------------------

PEER = """
import os, socket, sys
from zray.runtime.linux import segments
from zray.runtime.linux.segments import Mapping
channel = socket.socket(fileno=int(sys.argv[2]))
size = 256 << 20
if sys.argv[1] == "writer":
    mapping = Mapping(segments.create(size), writable=True)
    mapping.write(0, [b"x" * size])
    segments.send(channel, b"mine", mapping.fd)
else:
    mapping = Mapping(segments.receive(channel, 100)[1])
    view = mapping.view(0, size, lambda: None)
    assert view[-1] == ord("x")
    channel.send(b"read")
channel.recv(1)
"""


def shared_memory_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Shmem:"))


def reached(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def start(stack: ExitStack, role: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(ours)
    ours.settimeout(DEADLINE_S)
    with theirs:
        peer = subprocess.Popen(
            [sys.executable, "-c", PEER, role, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
    stack.callback(peer.wait)
    stack.callback(peer.kill)
    return peer, ours


def test_what_a_killed_writer_wrote_stays_readable_and_nothing_stays_of_killed_ones(
    stack: ExitStack,
) -> None:
    size = 256 << 20
    writing, channel = start(stack, "writer")
    tag, fd = segments.receive(channel, 100)
    assert tag == b"mine"
    stack.callback(lambda: fd_closed or os.close(fd))
    fd_closed = False
    writing.send_signal(signal.SIGKILL)
    writing.wait(DEADLINE_S)
    segments.protect(fd)
    reading, channel = start(stack, "reader")
    segments.send(channel, b"yours", fd)
    assert channel.recv(100) == b"read"
    assert os.fstat(fd).st_blocks * 512 == size
    os.close(fd)
    fd_closed = True
    held = shared_memory_bytes()
    reading.send_signal(signal.SIGKILL)
    reading.wait(DEADLINE_S)
    assert reached(lambda: shared_memory_bytes() < held - size // 2)
