"""One process's link to the head: a DEALER socket per session, its monitor, and when to retry.

Owns the sockets and the back-off; what is said in a session is the machines' business, and which
head is next that of ``KnownHeads``. A socket never reconnects by itself: after a cut it is closed
and a new one says HELLO first.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence

import zmq

from zray import limits
from zray.core.known_heads import KnownHeads
from zray.errors import HeadConnectionError, ProtocolError
from zray.protocol import codec, versions
from zray.protocol.messages import KIND, PROTOCOL_MINOR, PROTOCOL_VERSION, Message
from zray.runtime import probe, sockets
from zray.runtime.connection import ConnectionInfo, parse_address


class HeadLink:
    """``hello``: (epoch, HELLO) for a new session. ``heartbeats``: as for ``sockets.dealer``.

    ``heads``: where to look for one that leads; whoever reads what comes in tells it what they say.
    """

    def __init__(
        self,
        context: sockets.Context,
        info: ConnectionInfo,
        heads: KnownHeads,
        hello: Callable[[], tuple[int, Message]],
        *,
        heartbeats: bool = True,
    ) -> None:
        self._context = context
        self._info = info
        self.heads = heads
        self._hello = hello
        self._heartbeats = heartbeats
        self._unsent: deque[bytes] = deque()
        self._minor = PROTOCOL_MINOR  # of the head's protocol, once it has said so
        self.socket: sockets.Socket | None = None
        self.monitor: sockets.Monitor | None = None
        self.retry_at = 0.0
        self.opened = 0.0
        self.error: HeadConnectionError | None = None  # why the last session ended
        self.garbled = False  # what came in this session could not be read: it is of no use
        self._is_reached = False  # somebody with the cluster's key is there

    @property
    def address(self) -> str:
        """host:port of the current or last attempt."""
        return self.heads.address

    def open(self, now: float) -> None:
        """Start a session: connect and say HELLO.

        Raises:
            zmq.ZMQError: this process has no descriptor or memory for it; ``retry_at`` is set.
        """
        assert self.socket is None
        self.opened = now
        self.error = None
        self.garbled = self._is_reached = False
        self._minor = PROTOCOL_MINOR
        try:
            host, port = self._next()
            self.socket = sockets.dealer(self._context, self._info, heartbeats=self._heartbeats)
            self.monitor = sockets.Monitor(self.socket)
            sockets.connect(self.socket, host, port)
            epoch, message = self._hello()
            self.send(epoch, [message])
        except BaseException:
            self.close(now)
            raise

    def welcomed(self, minor: int) -> None:
        """The head has accepted the session, and speaks that minor."""
        self._minor = minor

    def _next(self) -> tuple[str, int]:
        """Of what other heads say, some may be no address; what was given is."""
        while True:
            try:
                return parse_address(self.heads.begin())
            except ValueError:
                self.heads.ended(0.0)

    def overdue(self, now: float, welcome_s: float = limits.CONNECT_TIMEOUT_S) -> bool:
        """Whether this attempt has gone without an answer for as long as it may.

        ``welcome_s``: for a head that is there, and busy.
        """
        patience_s = welcome_s if self._is_reached else min(self.heads.patience_s(), welcome_s)
        return not self.heads.linked and now - self.opened > patience_s

    def close(self, now: float) -> None:
        """End the session; the next attempt is due at ``retry_at``, with another address."""
        answered = not self.overdue(now)
        if self.monitor is not None:
            self.monitor.close()
        if self.socket is not None:
            self.socket.close(0)
        self.socket = self.monitor = None
        self._unsent.clear()
        self.retry_at = now + self.heads.ended(random.random(), answered=answered)

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
            self._is_reached = self._is_reached or event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return ended
