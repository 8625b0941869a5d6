"""Direct sockets between a process and a worker on one machine, as unix sockets behave.

From a caller to an actor, or from a submitter to a worker that is leased to it. Reliable and in
order until one end closes or dies; what was sent before that can still be read. Beside the stream
is a queue of packets, out of which both ends can take. Decides nothing about calls or tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from zray.protocol import codec
from zray.protocol import messages as m


class End(Protocol):
    """A process at one end of a socket."""

    name: str

    def something_came(self) -> None:
        """There is something to read, or the other end has closed."""


class Wire:
    """One connection. ``caller_open``, ``worker_open``: whether that end may still send."""

    def __init__(self, caller: End, worker: End) -> None:
        self.caller = caller
        self.worker = worker
        self.caller_open = True
        self.worker_open = True
        self._up: deque[bytes] = deque()
        self._down: deque[bytes] = deque()
        self._late_up: deque[bytes] = deque()  # still with the sender: the stream is full
        self._late_down: deque[bytes] = deque()
        self._packets: deque[bytes] = deque()  # both ends of the queue are the caller's as well
        self.room = 0  # of the queue, in packets
        self.stream_max = 0  # payloads that the stream takes each way; 0: any number

    # ---- the caller's end ------------------------------------------------------------------

    def call(self, messages: list[m.Message]) -> None:
        """From the caller to the worker."""
        if self.caller_open and self.worker_open:
            self._late_up.extend(codec.encode_local(messages))
            self.flush_calls()

    def flush_calls(self) -> None:
        """Send what the stream has not taken yet."""
        if self.worker_open and self._moved(self._late_up, self._up):
            self.worker.something_came()

    def _moved(self, late: deque[bytes], stream: deque[bytes]) -> bool:
        count = len(late)
        while late and (not self.stream_max or len(stream) < self.stream_max):
            stream.append(late.popleft())
        return len(late) < count

    def answers(self) -> list[m.Message]:
        """What the worker has sent and the caller has not read."""
        messages = _drain(self._down)
        if self._late_down:
            self.worker.something_came()
        return messages

    def put(self, payload: bytes) -> bool:
        """Queue a packet, whether the worker lives or not; False: the queue is full."""
        if len(self._packets) >= self.room:
            return False
        self._packets.append(payload)
        self.worker.something_came()
        return True

    def take_back(self) -> list[bytes]:
        """The packets that the worker has not taken, whatever has become of it."""
        packets = [*self._packets]
        self._packets.clear()
        return packets

    def close(self) -> None:
        """The caller closes its end, or has died."""
        if self.caller_open:
            self.caller_open = False
            self._down.clear()
            self._late_up.clear()
            self.worker.something_came()

    # ---- the worker's end ------------------------------------------------------------------

    def answer(self, messages: list[m.Message]) -> None:
        """From the worker to the caller."""
        if self.caller_open and self.worker_open:
            self._late_down.extend(codec.encode_local(messages))
            self.flush_answers()

    def flush_answers(self) -> None:
        """Send what the stream has not taken yet."""
        if self.caller_open and self._moved(self._late_down, self._down):
            self.caller.something_came()

    def pending(self) -> bool:
        """Whether the stream has not taken all that the worker has said."""
        return bool(self._late_down) and self.caller_open

    def calls(self) -> list[m.Message]:
        """What the caller has sent and the worker has not read."""
        messages = _drain(self._up)
        if self._late_up:
            self.caller.something_came()
        return messages

    def take(self) -> bytes | None:
        """The oldest packet, whether the caller lives or not; None: the queue is empty."""
        return self._packets.popleft() if self._packets else None

    def hang_up(self) -> None:
        """The worker closes its end, or has died."""
        if self.worker_open:
            self.worker_open = False
            self._up.clear()
            self._late_down.clear()
            self.caller.something_came()

    def sever(self) -> None:
        """Both ends find it closed once they have read what had come."""
        self.caller_open = self.worker_open = False
        self.worker.something_came()
        self.caller.something_came()


def _drain(unread: deque[bytes]) -> list[m.Message]:
    messages: list[m.Message] = []
    while unread:
        messages += codec.decode(unread.popleft()).messages
    return messages


class DirectSockets:
    """Who listens for others on his machine. ``likely``: how likely a connection is made.

    ``packets_max``: in the queue of each; in a real one that depends on their size. ``stream_max``:
    payloads in the stream of one to a worker that is leased.
    """

    def __init__(self, random: Random, likely: float) -> None:
        self._random = random
        self.likely = likely
        self.packets_max = 64
        self.stream_max = 0
        self.listeners: dict[bytes, Callable[[End], Wire]] = {}  # by worker

    def connect(self, caller: End, worker_id: bytes) -> Wire | None:
        """A socket to a worker on the caller's machine; None: there is no such way."""
        accept = self.listeners.get(worker_id)
        if accept is None or self._random.random() >= self.likely:
            return None
        wire = accept(caller)
        wire.room = self.packets_max
        return wire
