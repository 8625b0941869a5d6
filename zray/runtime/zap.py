"""Owns the answer to "may this key connect?": the ZAP handler (RFC 27) of one zmq context.

Must never block, do I/O, or raise: whatever goes wrong, the answer is no.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import zmq
from zmq.utils import z85

from zray import limits
from zray.runtime.keys import fingerprint

ZAP_DOMAIN: Final = b"zray"
DEFAULT_USER: Final = "member"
_ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_ADDRESSES_MAX: Final = 1024  # counted at a time; the one that failed longest ago goes first
_LINE_S: Final = 1.0  # between two log lines
_ADDRESS_LINE_S: Final = 60.0  # between two log lines about one address


class ZapServer:
    """Lets those connect to the context's servers whose CURVE public key is known.

    It has no thread: the loop that owns the servers polls :attr:`socket` and calls :meth:`handle`.
    While the loop is busy, handshakes wait; while there is no ZapServer, they fail.

    Args:
        context: the context of the sockets to guard; at most one ZapServer per context.
        allowed: the public keys (40 bytes of Z85) that may connect. With a mapping, its values
            become the User-Id of every message from that key; else the User-Id is "member".
        log: called with one line of text about refused attempts, at most once a second, and for
            one address at most once a minute.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        allowed: Mapping[bytes, str] | Collection[bytes],
        log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        users = allowed if isinstance(allowed, Mapping) else dict.fromkeys(allowed, DEFAULT_USER)
        # libzmq asks with the 32 raw bytes.
        self._users = {z85.decode(key): user.encode() for key, user in users.items()}
        self._log = log
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._logged: dict[str, float] = {}
        self._last_line = float("-inf")
        self.refused = 0  # attempts, in all
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)

    @property
    def failures(self) -> Mapping[str, int]:
        """Refused attempts by network address, of the addresses that failed last."""
        return self._failures

    def handle(self) -> int:
        """Answer the waiting requests, within a budget, and return how many there were."""
        for count in range(limits.DRAIN_MESSAGES_MAX):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return count
            self._answer(frames)
        return limits.DRAIN_MESSAGES_MAX

    def close(self) -> None:
        """Close the socket; from now on every handshake in the context fails."""
        self.socket.close(0)

    def _answer(self, frames: list[bytes]) -> None:
        try:
            user = self._user(frames[2:])
        except Exception:
            user = None  # fail closed: an exception is a no
        if len(frames) < 4:
            return  # no request id to answer to; the handshake times out
        status, text = (b"200", b"OK") if user is not None else (b"400", b"key not known")
        reply = [*frames[:2], _VERSION, frames[3], status, text, user or b"", b""]
        self.socket.send_multipart(reply, zmq.DONTWAIT)
        if user is None:
            self._refused(frames[2:])

    def _user(self, request: list[bytes]) -> bytes | None:
        version, _, domain, _, _, mechanism, *credentials = request
        if version != _VERSION or domain != ZAP_DOMAIN or mechanism != b"CURVE":
            return None
        (key,) = credentials
        return self._users.get(key)

    def _refused(self, request: list[bytes]) -> None:
        self.refused += 1
        address = request[3].decode("ascii", "replace") if len(request) > 3 else "?"
        total = self._failures.pop(address, 0) + 1
        self._failures[address] = total  # last: the first in the dict failed longest ago
        if len(self._failures) > _ADDRESSES_MAX:
            oldest = next(iter(self._failures))
            del self._failures[oldest]
            self._logged.pop(oldest, None)
        now = self._clock()
        if self._log is None or now - self._last_line < _LINE_S:
            return
        if now - self._logged.get(address, float("-inf")) < _ADDRESS_LINE_S:
            return
        self._last_line = self._logged[address] = now
        key = request[-1]
        name = fingerprint(z85.encode(key)) if len(key) == 32 else "none"
        self._log(
            f"refused a connection from {address}: its key (fingerprint {name}) is not of this"
            f" cluster ({total} refused from there so far)"
        )
