"""Frames over real socketpairs: order, boundaries, sizes, back-pressure and ends of stream."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from zray.errors import ProtocolError
from zray.runtime.stream import Frame, FrameReader, FrameWriter, read_available, read_frames


def framed(payload: bytes) -> bytes:
    return struct.pack("<Q", len(payload)) + payload


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        yield left, right


def collect(sock: socket.socket, count: int, reader: FrameReader | None = None) -> list[Frame]:
    reader = reader or FrameReader()
    frames: list[Frame] = []
    while len(frames) < count:
        more, eof = read_frames(sock, reader)
        frames += more
        assert not eof
    return frames


@pytest.mark.parametrize("seed", range(8))
def test_frames_come_out_the_same_however_the_stream_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    sent = [rng.randbytes(rng.choice([0, 1, 7, 8, 9, 300, 5000])) for _ in range(60)]
    stream = b"".join(map(framed, sent))
    reader = FrameReader()
    got: list[Frame] = []
    offset = 0
    while offset < len(stream):
        step = rng.choice([1, 2, 8, 40, 3000])
        got += reader.feed(stream[offset : offset + step])
        offset += step
    assert [bytes(frame) for frame in got] == sent
    assert not reader.partial


def test_collected_frame_is_read_only() -> None:
    reader = FrameReader()
    data = framed(b"abcdef")
    assert reader.feed(memoryview(data)[:10]) == []
    assert reader.partial
    (frame,) = reader.feed(bytearray(data[10:]))
    assert isinstance(frame, memoryview)
    assert frame.readonly
    assert bytes(frame) == b"abcdef"


def test_garbage_length_is_refused() -> None:
    with pytest.raises(ProtocolError, match="corrupt"):
        FrameReader().feed(b"\xff" * 16)
    with pytest.raises(ProtocolError, match="1001 bytes"):
        FrameReader(frame_bytes_max=1000).feed(struct.pack("<Q", 1001))


def test_several_buffers_make_one_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    writer = FrameWriter(left)
    wide = memoryview(bytearray(range(16))).cast("B", (4, 4))
    writer.send([b"ab", bytearray(b""), memoryview(b"cd"), wide])
    writer.send(b"")
    assert collect(right, 2) == [b"abcd" + bytes(range(16)), b""]


def test_long_frames_between_short_ones(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    big = random.Random(1).randbytes(5 << 20)
    parts = [bytes([i % 251]) * 70 for i in range(3000)]
    expected = [b"first", big, b"middle", b"".join(parts), b"last"]

    def write() -> None:
        writer = FrameWriter(left)
        for payload in (b"first", big, [b"middle"], parts, [b"la", b"st"]):
            writer.send(payload)

    thread = threading.Thread(target=write)
    thread.start()
    got = collect(right, 5)
    thread.join(10)
    assert [bytes(frame) for frame in got] == expected


def test_the_cost_of_a_huge_frame_is_linear(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    size = (192 << 20) + 5
    payload = bytearray(size)
    payload[-1] = 7
    thread = threading.Thread(target=FrameWriter(left).send, args=(payload,))
    start = time.monotonic()
    thread.start()
    (frame,) = collect(right, 1)
    thread.join(10)
    assert len(frame) == size
    assert frame[size - 1] == 7
    assert time.monotonic() - start < 20  # quadratic copying would take minutes


@pytest.mark.parametrize("size", [30_000, 100_000])
def test_nowait_keeps_what_does_not_fit(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    left, right = pair
    left.setblocking(False)
    writer, reader = FrameWriter(left), FrameReader()
    sent = [bytes([i]) * size for i in range(20)]
    done = [writer.send_nowait(payload) for payload in sent]
    assert done[0] or writer.pending
    assert not done[-1]
    assert 0 < writer.pending < 20 * (size + 8)
    got: list[Frame] = []
    deadline = time.monotonic() + 10
    while len(got) < 20 and time.monotonic() < deadline:
        frames, eof = read_available(right, reader)
        got += frames
        assert not eof
        writer.flush()
    assert [bytes(frame) for frame in got] == sent
    assert writer.pending == 0
    assert writer.flush()


def test_many_short_kept_frames_leave_in_few_calls(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left, right = pair
    writer, reader = FrameWriter(left), FrameReader()
    sent = [b"%d" % i for i in range(20_000)]
    for payload in sent:
        writer.send_nowait(payload)
    assert writer.pending
    got: list[Frame] = []
    deadline = time.monotonic() + 10
    while len(got) < len(sent) and time.monotonic() < deadline:
        got += read_available(right, reader)[0]
        writer.flush()
    assert got == sent


def test_a_turn_is_bounded(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    thread = threading.Thread(target=FrameWriter(left).send, args=(bytes(8 << 20),))
    thread.start()
    reader = FrameReader()
    frames: list[Frame] = []
    turns = 0
    while not frames:
        frames, eof = read_available(right, reader, turn_bytes=1 << 20)
        assert not eof
        turns += 1
    thread.join(10)
    assert len(frames[0]) == 8 << 20
    assert turns >= 4


def test_nothing_there_is_not_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    _, right = pair
    assert read_available(right, FrameReader()) == ([], False)


def test_end_of_stream_after_the_last_frame(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    reader = FrameReader()
    left.sendall(framed(b"whole") + framed(b"torn")[:10])
    left.close()
    assert read_available(right, reader)[0] == [b"whole"]
    assert read_available(right, reader) == ([], True)
    assert reader.partial
    assert read_frames(right, reader) == ([], True)


def test_peer_gone_is_an_error_for_the_writer_and_an_end_for_the_reader(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    left, right = pair
    left.sendall(b"unread")
    right.close()
    with pytest.raises(BrokenPipeError):
        FrameWriter(left).send(b"x")
    with pytest.raises(BrokenPipeError):
        FrameWriter(left).send_nowait([b"x"])
    assert read_available(left, FrameReader()) == ([], True)
