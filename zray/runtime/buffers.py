"""The format of values whose large buffers stand beside their pickle, and copying such values.

Owns the layout only: what the pickle means is for zray.runtime.serialization. It must never
unpickle, nor copy more than once.

A value of this format is, with all numbers little-endian:

* a header of 16 bytes: the tag ``B``, three zero bytes, the number of buffers (u32), the length
  of the pickle (u64);
* the length of each buffer (u64);
* the pickle, of protocol 5, which takes the buffers in this order;
* the buffers, each at the next multiple of 64 bytes from the start of the value, zeros between.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from zray import limits

BUFFERS_TAG = 0x42
ALIGNMENT = 64

Piece = bytes | bytearray | memoryview  # a memoryview is contiguous and of bytes

_HEADER = struct.Struct("<B3xIQ")
_LENGTH_BYTES = 8


class Parts:
    """A serialized value that was not copied yet; it shares the memory of the user's objects.

    Attributes:
        pieces: what the value consists of, in order, with nothing between.
        size: bytes of all of them.
        contained: ids of the references inside the value, unique and in order.
    """

    __slots__ = ("contained", "pieces", "size")

    def __init__(self, pieces: list[Piece], contained: list[bytes]) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces)) if len(pieces) > 1 else len(pieces[0])
        self.contained = contained

    def write_into(self, target: memoryview) -> None:
        """Copy the value to the start of ``target``, which is writable, of bytes, large enough."""
        at = 0
        for piece in self.pieces:
            copy(piece, target, at)
            at += len(piece)

    def to_bytes(self) -> bytes:
        """The value as bytes, for one that travels inside a message."""
        first = self.pieces[0]
        if len(self.pieces) == 1 and type(first) is bytes:
            return first
        return b"".join(self.pieces)


def copy(piece: Piece, target: memoryview, at: int) -> None:
    """Copy ``piece`` to ``target[at:]``; now and then other threads may run."""
    size = len(piece)
    if size <= limits.COPY_BYTES_MAX:
        target[at : at + size] = piece
        return
    source = memoryview(piece)
    for start in range(0, size, limits.COPY_BYTES_MAX):
        part = source[start : start + limits.COPY_BYTES_MAX]
        target[at + start : at + start + len(part)] = part


def assemble(pickled: Sequence[Piece], buffers: Sequence[memoryview]) -> list[Piece]:
    """The pieces of a value whose pickle consists of ``pickled`` and takes ``buffers``."""
    pickle_bytes = sum(map(len, pickled))
    lengths = struct.pack(f"<{len(buffers)}Q", *map(len, buffers))
    pieces: list[Piece] = [_HEADER.pack(BUFFERS_TAG, len(buffers), pickle_bytes) + lengths]
    pieces += pickled
    at = len(pieces[0]) + pickle_bytes
    for buffer in buffers:
        if at % ALIGNMENT:
            gap = -at % ALIGNMENT
            pieces.append(bytes(gap))
            at += gap
        pieces.append(buffer)
        at += len(buffer)
    return pieces


def split(data: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle of a value and its buffers: parts of ``data``, read-only if that is.

    Raises:
        ValueError: the lengths in it do not add up to its own.
    """
    try:
        tag, count, pickle_bytes = _HEADER.unpack_from(data)
        if count * _LENGTH_BYTES > len(data):
            raise ValueError(f"it is too short for {count} buffers")
        lengths = struct.unpack_from(f"<{count}Q", data, _HEADER.size)
    except struct.error as error:
        raise ValueError(f"its header is cut off ({error})") from error
    if tag != BUFFERS_TAG:
        raise ValueError(f"its tag is 0x{tag:02x}")
    start = _HEADER.size + count * _LENGTH_BYTES
    at = start + pickle_bytes
    pickled = data[start:at]
    found = []
    for length in lengths:
        at += -at % ALIGNMENT
        found.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"its parts take {at} bytes")
    return pickled, found


def aligned(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Copies of these, read-only, each at a multiple of 64 bytes in memory.

    Of values that travel inside messages, which may lie anywhere; those in shared memory have a
    place that suits them.
    """
    import ctypes

    sizes = [len(buffer) + -len(buffer) % ALIGNMENT for buffer in buffers]
    block = bytearray(sum(sizes) + ALIGNMENT)
    at = -ctypes.addressof(ctypes.c_char.from_buffer(block)) % ALIGNMENT
    found, place = [], memoryview(block)
    for buffer, size in zip(buffers, sizes, strict=True):
        part = place[at : at + len(buffer)]
        part[:] = buffer
        found.append(part.toreadonly())
        at += size
    return found
