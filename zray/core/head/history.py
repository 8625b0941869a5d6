"""The last things of a kind that are over, within a number of bytes: the oldest go first.

Rows are kept encoded, in blocks, so that what they take is known, and is a fraction of what objects
take. Each has a position that never changes, by which a reader goes on.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import msgspec

Row = TypeVar("Row", bound=msgspec.Struct)

BLOCK_ROWS = 64


class History(Generic[Row]):
    """``bytes_max``: of all encoded rows but the last, at most BLOCK_ROWS, that are not yet."""

    def __init__(self, kind: type[Row], bytes_max: int) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[kind]).decode  # type: ignore[valid-type]
        self._bytes_max = bytes_max
        self._blocks: deque[bytes] = deque()
        self._first = 0  # number of the first of these, of all that there were
        self._last: list[Row] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK_ROWS + len(self._last)

    def add(self, row: Row) -> None:
        """Something is over."""
        self._last.append(row)
        if len(self._last) == BLOCK_ROWS:
            block = self._encode(self._last)
            self._last = []
            self._blocks.append(block)
            self.bytes += len(block)
            while self.bytes > self._bytes_max:
                self.bytes -= len(self._blocks.popleft())
                self._first += 1

    @property
    def end(self) -> int:
        """The position behind the last row."""
        return self.start + len(self)

    @property
    def start(self) -> int:
        """The position of the first that is still here."""
        return self._first * BLOCK_ROWS

    def before(
        self, position: int, count: int, needle: bytes = b"", blocks: int = 1
    ) -> tuple[list[Row], int]:
        """Up to ``count`` rows before the position, the latest first, and where to go on.

        At most ``blocks`` blocks are looked at, and of these one is unpacked, so that it costs the
        same however many there are: the first that has ``needle`` in it. At ``start``: all is read.
        """
        position = min(position, self.end)
        while blocks and position > self.start:
            blocks -= 1
            number, size = divmod(position - 1, BLOCK_ROWS)
            index = number - self._first
            if index == len(self._blocks):
                rows = self._last
            elif needle in self._blocks[index]:
                rows = self._decode(self._blocks[index])
            else:
                position = number * BLOCK_ROWS
                continue
            found = rows[size::-1][:count]
            return found, position - len(found)
        return [], max(position, self.start)
