"""Length-prefixed frames over a unix stream socket. Never looks into a frame, never blocks unasked.

A frame is an 8-byte little-endian length and that many bytes. Portable: nothing Linux-only here.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from zray.errors import ProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview
Frame: TypeAlias = bytes | memoryview  # a memoryview is read-only

FRAME_BYTES_MAX = 1 << 40  # above this the length is garbage, not a frame
READ_BYTES = 64 << 10  # one recv; a unix stream socket hands out little more at a time
TURN_BYTES = 4 << 20  # read_available stops after this, so that no peer starves the others
COALESCE_BYTES = 32 << 10  # below this one copy is cheaper than a longer iovec
IOVEC_MAX = 512  # well under IOV_MAX (1024) everywhere

_HEADER = struct.Struct("<Q")
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # user code may have reset SIGPIPE to default
_SEND_NOW = _NO_SIGNAL | socket.MSG_DONTWAIT


class FrameReader:
    """Cuts a byte stream into frames.

    A frame that lies whole within one ``feed`` comes out as ``bytes``; one that spans several is
    collected in a buffer of its own size, so the cost is linear in its length however it is cut.
    """

    __slots__ = ("_body", "_filled", "_max", "_tail")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._max = frame_bytes_max
        self._tail = b""  # at most 7 bytes of an incomplete length
        self._body: memoryview | None = None  # the frame that is being collected
        self._filled = 0

    @property
    def partial(self) -> bool:
        """Whether the stream stands in the middle of a frame (at end of file: truncated)."""
        return self._body is not None or bool(self._tail)

    def feed(self, data: Buffer) -> list[Frame]:
        """Take the next bytes of the stream; return the frames they complete, in order.

        Raises ProtocolError if a length exceeds the reader's bound (the stream is then useless).
        """
        frames: list[Frame] = []
        data = bytes(data)  # bytes stay themselves, and slice faster than views
        offset = 0
        if self._body is not None:
            offset = min(len(self._body) - self._filled, len(data))
            self._body[self._filled : self._filled + offset] = memoryview(data)[:offset]
            frames.extend(self._advance(offset))
            if self._body is not None:
                return frames
        elif self._tail:
            data, self._tail = self._tail + data, b""
        end = len(data)
        unpack = _HEADER.unpack_from
        while end - offset >= 8:
            (length,) = unpack(data, offset)
            if length > self._max:
                raise ProtocolError(
                    f"a peer announced a frame of {length} bytes (at most {self._max} are taken); "
                    "the stream is corrupt and has to be closed"
                )
            offset += 8
            if length > end - offset:
                self._body = memoryview(bytearray(length))
                self._filled = end - offset
                self._body[: self._filled] = memoryview(data)[offset:]
                return frames
            frames.append(data[offset : offset + length])
            offset += length
        self._tail = data[offset:]
        return frames

    def _room(self) -> memoryview | None:
        """Where the rest of the frame being collected belongs; None between frames."""
        return None if self._body is None else self._body[self._filled :]

    def _advance(self, count: int) -> list[Frame]:
        """Account for ``count`` bytes written into ``_room()``."""
        self._filled += count
        if self._body is None or self._filled < len(self._body):
            return []
        frame, self._body, self._filled = self._body.toreadonly(), None, 0
        return [frame]


class FrameWriter:
    """Writes frames to a connected stream socket. One thread at a time (callers hold the lock).

    A payload is one buffer, or several C-contiguous ones that go out as one frame.
    """

    __slots__ = ("_queue", "_queued", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queue: deque[memoryview] = deque()
        self._queued = 0

    @property
    def pending(self) -> int:
        """Bytes accepted by ``send_nowait`` that the socket has not taken yet."""
        return self._queued

    def send(self, payload: Buffer | Sequence[Buffer]) -> None:
        """Write one frame to a blocking socket and return when the kernel has all of it.

        Raises OSError (BrokenPipeError, ConnectionResetError) when the peer is gone.
        """
        if type(payload) is bytes and len(payload) <= COALESCE_BYTES:  # nearly all are
            self._sock.sendall(_HEADER.pack(len(payload)) + payload, _NO_SIGNAL)
            return
        parts = _frame(payload)
        if len(parts) == 1:
            self._sock.sendall(parts[0], _NO_SIGNAL)
            return
        queue = deque(parts)
        while queue:
            _consume(queue, self._sock.sendmsg(_head(queue), (), _NO_SIGNAL))

    def send_nowait(self, payload: Buffer | Sequence[Buffer]) -> bool:
        """Write one frame as far as the socket takes it and keep the rest; True if none is left.

        Large buffers are kept, not copied: they must not change until ``pending`` is 0. Bounding
        ``pending`` is the caller's business. Raises OSError when the peer is gone.
        """
        if type(payload) is bytes and len(payload) <= COALESCE_BYTES and not self._queue:
            frame = _HEADER.pack(len(payload)) + payload
            try:
                sent = self._sock.send(frame, _SEND_NOW)
            except BlockingIOError:
                sent = 0
            if sent < len(frame):
                self._queue.append(memoryview(frame)[sent:])
                self._queued = len(frame) - sent
            return not self._queue
        parts = _frame(payload)
        self._queue.extend(parts)
        self._queued += sum(map(len, parts))
        return self.flush()

    def flush(self) -> bool:
        """Write what is kept as far as the socket takes it; True if none is left."""
        while self._queue:
            try:
                sent = self._sock.sendmsg(_head(self._queue), (), _SEND_NOW)
            except BlockingIOError:
                return False
            self._queued -= sent
            _consume(self._queue, sent)
        return True


def read_available(
    sock: socket.socket, reader: FrameReader, turn_bytes: int = TURN_BYTES
) -> tuple[list[Frame], bool]:
    """Read what has arrived, at most about ``turn_bytes``, without waiting.

    Works on blocking and non-blocking sockets. Returns the completed frames and whether the stream
    has ended (closed or reset by the peer). Reading may stop early: poll level-triggered.
    """
    frames: list[Frame] = []
    taken = 0
    while taken < turn_bytes:
        try:
            count, asked = _read(sock, reader, frames, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        except ConnectionError:
            return frames, True
        if count == 0:
            return frames, True
        if count < asked:
            break
        taken += count
    return frames, False


def read_frames(sock: socket.socket, reader: FrameReader) -> tuple[list[Frame], bool]:
    """Wait on a blocking socket until at least one frame is complete or the stream has ended."""
    frames: list[Frame] = []
    while not frames:
        try:
            count, _ = _read(sock, reader, frames, 0)
        except ConnectionError:
            return frames, True
        if count == 0:
            return frames, True
    return frames, False


def _read(
    sock: socket.socket, reader: FrameReader, frames: list[Frame], flags: int
) -> tuple[int, int]:
    """One recv: a long frame's bytes go straight into its own buffer. Returns (got, asked)."""
    room = reader._room()
    if room is not None and len(room) > READ_BYTES:
        count = sock.recv_into(room, 0, flags)
        frames.extend(reader._advance(count))
        # A stream socket ends a read where its buffer ends: short of a whole frame says nothing.
        return count, min(len(room), READ_BYTES)
    data = sock.recv(READ_BYTES, flags)
    frames.extend(reader.feed(data))
    return len(data), READ_BYTES


def _frame(payload: Buffer | Sequence[Buffer]) -> list[memoryview]:
    """The payload with its length in front; short ones are joined into a single buffer."""
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = (payload,)
    views = [memoryview(part) for part in payload]
    parts = [view.cast("B") for view in views if view.nbytes]
    length = sum(map(len, parts))
    header = _HEADER.pack(length)
    if length <= COALESCE_BYTES:
        return [memoryview(b"".join((header, *parts)))]
    return [memoryview(header), *parts]


def _head(queue: deque[memoryview]) -> list[memoryview]:
    """The buffers for one sendmsg."""
    if len(queue) <= IOVEC_MAX:
        return list(queue)
    return [queue[index] for index in range(IOVEC_MAX)]


def _consume(queue: deque[memoryview], sent: int) -> None:
    """Drop ``sent`` bytes from the front of the queue."""
    while sent:
        part = queue[0]
        if sent < len(part):
            queue[0] = part[sent:]
            return
        sent -= len(part)
        queue.popleft()
