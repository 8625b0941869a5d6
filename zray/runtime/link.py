"""One process's link to the head: a DEALER socket per session, its monitor, and when to retry.

Owns the sockets and the back-off; what is said in a session is the machines' business. A socket
never reconnects by itself: after a cut it is closed and a new one says HELLO first.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

import zmq

from zray import limits
from zray.errors import HeadConnectionError, ProtocolError
from zray.protocol import codec, versions
from zray.protocol.messages import KIND, PROTOCOL_MINOR, PROTOCOL_VERSION, Message
from zray.runtime import probe, sockets
from zray.runtime.connection import ConnectionInfo, format_address, parse_address


class HeadLink:
    """``hello``: (epoch, HELLO) for a new session. ``heartbeats``: as for ``sockets.dealer``."""

    def __init__(
        self,
        context: sockets.Context,
        info: ConnectionInfo,
        addresses: Sequence[str],
        hello: Callable[[], tuple[int, Message]],
        *,
        heartbeats: bool = True,
    ) -> None:
        self._context = context
        self._info = info
        self._targets = [parse_address(address) for address in addresses]
        self._turn = 0
        self._hello = hello
        self._heartbeats = heartbeats
        self._unsent: deque[bytes] = deque()
        self._wait_s = limits.RECONNECT_FIRST_S
        self._minor = PROTOCOL_MINOR  # of the head's protocol, once it has said so
        self.socket: sockets.Socket | None = None
        self.monitor: sockets.Monitor | None = None
        self.retry_at = 0.0
        self.opened = 0.0
        self.error: HeadConnectionError | None = None  # why the last session ended
        self.garbled = False  # what came in this session could not be read: it is of no use

    @property
    def address(self) -> str:
        """host:port of the current or last attempt."""
        return format_address(*self._targets[self._turn % len(self._targets)])

    def aim(self, addresses: Sequence[str]) -> None:
        """The head is at these addresses from now on; none: as before."""
        if addresses:
            self._targets = [parse_address(address) for address in addresses]

    def open(self, now: float) -> None:
        """Start a session: connect and say HELLO.

        Raises:
            zmq.ZMQError: this process has no descriptor or memory for it; ``retry_at`` is set.
        """
        assert self.socket is None
        host, port = self._targets[self._turn % len(self._targets)]
        self.opened = now
        self.error = None
        self.garbled = False
        self._minor = PROTOCOL_MINOR
        try:
            self.socket = sockets.dealer(self._context, self._info, heartbeats=self._heartbeats)
            self.monitor = sockets.Monitor(self.socket)
            sockets.connect(self.socket, host, port)
            epoch, message = self._hello()
            self.send(epoch, [message])
        except BaseException:
            self.close(now)
            raise

    def welcomed(self, minor: int) -> None:
        """The head accepted the session, and speaks that minor: the next cut is retried at once."""
        self._wait_s = limits.RECONNECT_FIRST_S
        self._minor = minor

    def close(self, now: float) -> None:
        """End the session; the next attempt is due at ``retry_at``, with another address."""
        if self.monitor is not None:
            self.monitor.close()
        if self.socket is not None:
            self.socket.close(0)
        self.socket = self.monitor = None
        self._unsent.clear()
        self._turn += 1
        self.retry_at = now + self._wait_s * random.uniform(0.5, 1.0)
        self._wait_s = min(self._wait_s * 2, limits.RECONNECT_MAX_S)

    def send(self, epoch: int, messages: Sequence[Message]) -> list[codec.Unsent]:
        """Send now what the socket takes; the rest goes with ``flush``.

        Returns what cannot be sent at all: it is too large, or an older head does not know it.
        """
        unsent: list[codec.Unsent] = []
        if self._minor < PROTOCOL_MINOR:
            messages = self._known(messages, unsent)
        self._unsent.extend(codec.encode(epoch, messages, unsent))
        self.flush()
        return unsent

    def _known(self, messages: Sequence[Message], unsent: list[codec.Unsent]) -> Sequence[Message]:
        """Of the messages what the head knows; the others are unsent."""
        taken = versions.known(messages, self._minor)
        if len(taken) < len(messages):
            text = (
                f"the head at {self.address} speaks protocol {PROTOCOL_VERSION}.{self._minor}, "
                "which does not have it: upgrade the head"
            )
            minor = self._minor
            newer = [one for one in messages if versions.SINCE.get(type(one), 0) > minor]
            unsent += [codec.Unsent(one, text) for one in newer]
        return taken

    def waits(self) -> bool:
        """Whether something is left to send."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Whether nothing is left to send."""
        while self._unsent and self.socket is not None:
            try:
                sockets.send(self.socket, (KIND, self._unsent[0]))
            except zmq.Again:
                return False
            self._unsent.popleft()
        return True

    def receive(self) -> list[codec.Payload]:
        """What has arrived, within a budget."""
        payloads: list[codec.Payload] = []
        socket = self.socket
        while socket is not None and len(payloads) < limits.DRAIN_MESSAGES_MAX:
            if not sockets.readable(socket):
                break
            frames = sockets.receive(socket)
            try:
                payloads.append(codec.decode(frames[1].buffer))
            except (ProtocolError, IndexError):
                self.garbled = True
                break
        return payloads

    def lost(self) -> bool:
        """Look at the monitor: whether the session has ended, and why (``error``)."""
        if self.monitor is None:
            return True
        ended = self.garbled
        for event in self.monitor.read():
            error = probe.explain_monitor_event(event.event, event.value, self.address)
            self.error = error or self.error
            ended = ended or error is not None
            ended = ended or event.event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED)
        return ended
