"""What a debugger and its terminal say to each other over a channel: texts of a kind."""

from __future__ import annotations

import select
import struct
import time

from zray.util.channels import Channel, PeerGoneError, wait

TEXT, ASK, LINE = b"t", b"a", b"l"  # to show; a command is asked for; the command
TEXT_BYTES_MAX = 1 << 20  # of one; more is cut into several
SEND_S = 3600.0  # a terminal that shows nothing for so long counts as gone

_HEADER = struct.Struct("<cI")


class DebugStream:
    """One end. Raises PeerGoneError where the other one is gone."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._heard = bytearray()

    def send(self, kind: bytes, text: str) -> None:
        """Returns when it is on its way."""
        data = text.encode("utf-8", "replace")
        for start in range(0, max(1, len(data)), TEXT_BYTES_MAX):
            part = data[start : start + TEXT_BYTES_MAX]
            self._send(memoryview(_HEADER.pack(kind, len(part)) + part))

    def _send(self, data: memoryview) -> None:
        deadline = time.monotonic() + SEND_S
        while data:
            moved = self.channel.send(data)
            data = data[moved:]
            if not moved:
                try:
                    wait([(self.channel, select.POLLOUT)], deadline)
                except TimeoutError:
                    raise PeerGoneError from None

    def receive(self) -> tuple[bytes, str] | None:
        """The next one: its kind and text; None: it has not come."""
        while True:
            if len(self._heard) >= _HEADER.size:
                kind, size = _HEADER.unpack_from(self._heard)
                if size > TEXT_BYTES_MAX:
                    raise PeerGoneError  # it is no debugger
                end = _HEADER.size + size
                if len(self._heard) >= end:
                    text = self._heard[_HEADER.size : end].decode("utf-8", "replace")
                    del self._heard[:end]
                    return kind, text
            room = bytearray(64 << 10)
            count = self.channel.receive(memoryview(room))
            if not count:
                return None
            self._heard += room[:count]

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
