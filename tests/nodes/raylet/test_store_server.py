"""A node's store server with real sockets, segments and files, and processes that are not real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zray import limits
from zray.core.raylet.objects import LocalObjects
from zray.errors import ObjectLostError
from zray.ids import IdSource
from zray.nodes.raylet.store_server import StoreServer
from zray.protocol import messages as m
from zray.runtime.disk import OwnDirectory
from zray.runtime.linux import segments, store_socket
from zray.runtime.loop import Loop

MB = 1 << 20
MARK = 8 * MB
ATTEMPT_S = 10.0


def oid(name: str) -> bytes:
    return name.encode().ljust(20, b"\0")


class Process:
    """The process's end of a session, with one segment of its own."""

    def __init__(self, bench: Bench, name: str) -> None:
        link = store_socket.connect(bench.node_id)
        assert link is not None
        self.link = link
        self.bench = bench
        self.process_id = name.encode().ljust(16, b"\0")
        self.heard: list[tuple[Any, int | None]] = []
        self.ended = False
        self.fd = segments.create(4 * MARK)
        self.memory = segments.Mapping(os.dup(self.fd), writable=True)
        self.is_new = True  # no object of the segment was sealed

    def attach(self) -> Process:
        self.say(m.Attach(0, self.process_id))
        assert isinstance(self.hears(m.Attached), m.Attached)
        return self

    def say(self, message: m.Message, fd: int | None = None) -> None:
        self.link.send(message, fd)
        self.bench.turn()

    def put(self, name: str, offset: int, size: int = MB) -> None:
        """Write an object and seal it. The first one has the segment come along."""
        self.memory.write(offset, [name.encode()])
        fd = self.fd if self.is_new else None
        self.is_new = False
        self.say(m.Sealed(0, oid(name), m.VALUE, 1, offset, size), fd)

    def _read(self) -> None:
        found, self.ended = self.link.receive()
        self.heard += found

    def hears(self, kind: type[m.Message]) -> Any:
        """The next message of a kind; those before it are forgotten."""
        message, fd = self.hears_with(kind)
        if fd is not None:
            os.close(fd)
        return message

    def hears_with(self, kind: type[m.Message]) -> tuple[Any, int | None]:
        """The same, and the descriptor that came along."""
        found: list[tuple[Any, int | None]] = []

        def look() -> bool:
            self._read()
            while self.heard and not found:
                message, fd = self.heard.pop(0)
                if isinstance(message, kind):
                    found.append((message, fd))
                elif fd is not None:
                    os.close(fd)
            return bool(found)

        self.bench.until(look)
        return found[0]

    def hears_nothing(self) -> bool:
        self._read()
        return not self.heard and not self.ended

    def is_cut_off(self) -> bool:
        self._read()
        return self.ended

    def close(self) -> None:
        for _, fd in self.heard:
            if fd is not None:
                os.close(fd)
        self.link.close()
        self.memory.close()
        os.close(self.fd)


class Bench:
    def __init__(self, spill: Path) -> None:
        self.failures: list[str] = []
        self.to_head: list[Any] = []
        self.loop = Loop(lambda what, error: self.failures.append(f"{what}: {error}"))
        self.node_id = IdSource(os.urandom(8)).process_id()
        self.local = LocalObjects(self.to_head.append)
        self.server = StoreServer(
            *(self.loop, self.node_id, lambda: self.local, MARK, OwnDirectory(spill, "spill")),
            *(lambda process_id: False, lambda process_id: process_id.rstrip(b"\0").decode()),
            lambda what, error: self.failures.append(f"{what}: {error}"),
        )
        self.local.attach(self.server.objects)
        self.processes: list[Process] = []

    def process(self, name: str) -> Process:
        self.processes.append(Process(self, name))
        return self.processes[-1]

    def turn(self, timeout_s: float = 0.0) -> None:
        self.loop.turn(timeout_s)
        self.server.tend(b"", self.loop.now())

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ATTEMPT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            self.turn(0.01)

    def close(self) -> None:
        for process in self.processes:
            process.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with contextlib.closing(Bench(tmp_path)) as found:
        yield found
        assert not found.failures


def test_who_does_not_say_which_process_it_is_is_cut_off(bench: Bench) -> None:
    stranger = bench.process("stranger")
    stranger.say(m.Take(0, oid("x")))
    bench.until(stranger.is_cut_off)


def test_an_object_is_read_where_it_was_written_and_its_descriptor_comes_once(
    bench: Bench,
) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    writer.put("x", 0)
    writer.put("y", MB)
    reader.say(m.Take(0, oid("x")))
    placed, fd = reader.hears_with(m.Placed)
    assert (placed.owner, placed.segment, placed.offset) == (writer.process_id, 1, 0)
    assert fd is not None and segments.is_protected(fd)
    assert os.pread(fd, 1, placed.offset) == b"x"
    os.close(fd)
    reader.say(m.Take(0, oid("y")))
    placed, fd = reader.hears_with(m.Placed)
    assert (placed.offset, fd) == (MB, None)


def test_a_region_is_its_writer_s_again_when_the_last_reader_is_done(bench: Bench) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    writer.put("x", 0)
    reader.say(m.Take(0, oid("x")))
    reader.hears(m.Placed)
    writer.say(m.Unput(0, oid("x")))
    bench.turn()
    assert writer.hears_nothing()
    reader.say(m.Unview(0, oid("x")))
    assert writer.hears(m.FreeRegions).regions == [(1, 0, MB)]


def test_what_others_know_of_outlives_its_writer_and_the_rest_does_not(bench: Bench) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    writer.put("private", 0)
    writer.put("known", MB)
    writer.say(m.Published(0, oid("known")))
    assert bench.local.stored[oid("known")].kind & m.LOCATED
    writer.link.socket.shutdown(2)
    reader.say(m.Take(0, oid("known")))
    assert reader.hears(m.Placed).owner == writer.process_id
    reader.say(m.Take(0, oid("private")))
    (pull,) = (message for message in bench.to_head if isinstance(message, m.Pull))
    bench.local.on_failed(m.PullFailed(0, pull.transfer, ObjectLostError.code, "it is lost"))
    assert reader.hears(m.Missing).text == "it is lost"


@pytest.mark.parametrize(
    "wrong",
    [
        m.Unview(0, oid("x")),
        m.Released(0, [1]),
        m.Sealed(0, oid("z"), m.VALUE, 1, MB // 2, MB),
        m.Sealed(0, oid("z"), m.VALUE, 7, 0, MB),
    ],
    ids=["not-viewed", "in-use", "overlaps", "no-segment"],
)
def test_a_process_that_breaks_the_protocol_harms_itself_alone(
    bench: Bench, wrong: m.Message
) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    writer.put("x", 0)
    writer.say(m.Published(0, oid("x")))
    writer.say(wrong)
    bench.until(writer.is_cut_off)
    reader.say(m.Take(0, oid("x")))
    assert reader.hears(m.Placed).size == MB


def test_who_wants_memory_gets_it_when_others_have_gone_to_disk(bench: Bench) -> None:
    writer, other = bench.process("writer").attach(), bench.process("other").attach()
    for number in range(8):
        writer.put(f"x{number}", number * MB)
    other.say(m.Room(5, 2 * MB))
    assert (other.hears(m.Granted).about, bench.failures) == (5, [])
    freed: list[tuple[int, int, int]] = []
    while len(freed) < 2:  # in one message, or as each file is written
        freed += writer.hears(m.FreeRegions).regions
    assert freed == [(1, 0, MB), (1, MB, MB)], "the least recently used ones"
    other.say(m.Take(0, oid("x0")))
    placed, fd = other.hears_with(m.Placed)
    assert placed.owner == bench.node_id and fd is not None
    assert os.pread(fd, 2, placed.offset) == b"x0"
    os.close(fd)


def take_from_elsewhere(bench: Bench, reader: Process, name: str) -> None:
    """A process wants an object, which comes from another node."""
    reader.say(m.Take(0, oid(name)))
    pull = next(pull for pull in bench.to_head if isinstance(pull, m.Pull))
    bench.to_head.clear()
    size = limits.INLINE_BYTES_MAX + 1
    bench.local.on_chunk(m.Chunk(0, pull.transfer, m.VALUE, 0, size, bytes(size)))


def test_who_waits_for_an_object_learns_that_its_descriptor_cannot_be_given(bench: Bench) -> None:
    first, second = bench.process("first").attach(), bench.process("second").attach()
    take_from_elsewhere(bench, first, "x")
    placed, fd = first.hears_with(m.Placed)
    assert fd is not None
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)  # a lying reader: now sealing fails
    os.close(fd)
    take_from_elsewhere(bench, second, "y")
    assert "cannot be had in shared memory" in second.hears(m.Missing).text
    first.say(m.Take(0, oid("y")))
    assert first.hears(m.Placed).segment == placed.segment, "who has the segment can use it"
    assert "Operation not permitted" in bench.failures.pop()


def test_who_wants_an_object_from_disk_while_there_are_no_descriptors_can_ask_again(
    bench: Bench,
) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    for number in range(8):
        writer.put(f"x{number}", number * MB)
    reader.say(m.Room(5, 2 * MB))
    reader.hears(m.Granted)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, allowed[1]))
    try:
        reader.say(m.Take(0, oid("x0")))
        assert "cannot be had in shared memory" in reader.hears(m.Missing).text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
    assert "Too many open files" in bench.failures.pop()
    reader.say(m.Take(0, oid("x0")))
    assert reader.hears(m.Placed).owner == bench.node_id


def test_the_head_learns_that_an_object_which_it_wants_cannot_be_read(
    bench: Bench, tmp_path: Path
) -> None:
    writer, other = bench.process("writer").attach(), bench.process("other").attach()
    for number in range(8):
        writer.put(f"x{number}", number * MB)
        writer.say(m.Published(0, oid(f"x{number}")))
    other.say(m.Room(5, 2 * MB))
    other.hears(m.Granted)
    (file,) = tmp_path.rglob(oid("x0").hex())
    file.unlink()
    with pytest.raises(FileNotFoundError):  # which the node tells of
        bench.local.on_pull(m.Pull(0, 7, oid("x0")))
    failed = bench.to_head[-1]
    assert (failed.transfer, failed.code) == (7, ObjectLostError.code)


def test_who_wants_memory_that_is_in_use_waits_and_then_learns_by_whom(bench: Bench) -> None:
    writer, reader = bench.process("writer").attach(), bench.process("reader").attach()
    for number in range(8):
        writer.put(f"x{number}", number * MB)
        reader.say(m.Take(0, oid(f"x{number}")))
    writer.say(m.Room(6, 4 * MB))
    reader.hears(m.Relieve)
    assert writer.hears_nothing(), "the reader may let go of something"
    reader.say(m.Relieved(0))
    refusal = writer.hears(m.Granted)
    assert (refusal.about, refusal.size) == (6, 0)
    assert "in arrays that reader uses" in refusal.text
    writer.say(m.Room(7, 2 * MARK))
    assert "smaller parts" in writer.hears(m.Granted).text


def test_a_small_value_is_answered_with_itself(bench: Bench) -> None:
    reader = bench.process("reader").attach()
    small = m.Outcome(oid("small"), m.VALUE, 5, b"value")
    bench.local.put(small)
    reader.say(m.Take(0, oid("small")))
    assert reader.hears(m.Here).outcome == small
