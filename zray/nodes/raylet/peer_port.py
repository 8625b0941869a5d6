"""A raylet's own port: other raylets get values here, submitters elsewhere reach leased workers,
and the head sees whether the process lives.

The shell of the PeerTransfers machine, and of LeaseRelays towards submitters. Encrypted like the
head's port; every member of the cluster has the key that is a raylet's here, and may connect.
Chunks travel as frames of their own.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import zmq

from zray import limits
from zray.core.raylet.lease_relays import LeaseRelays
from zray.core.raylet.peer_transfers import PeerTransfers
from zray.errors import ProtocolError, StartError
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime import connection, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.doorkeeper import Doorkeeper
from zray.runtime.loop import Loop
from zray.runtime.zap import ZapServer

BLOB_BYTES_MIN = 64 << 10  # smaller chunks travel inside their message
TURN_CHUNKS = 8  # read from one socket in one turn, so that control is not held up
Frame = bytes | memoryview


class Link:
    """A connection to another raylet's port."""

    def __init__(self, dealer: sockets.Socket, now: float) -> None:
        self.socket = dealer
        self.monitor = sockets.Monitor(dealer)
        self.unsent: deque[list[Frame]] = deque()
        self.opened = now
        self.reached = False


class PeerPort:
    """``receive`` takes a message of a peer.

    ``peer_transfers`` and ``lease_relays`` are machines of the raylet's present incarnation.
    """

    def __init__(
        self,
        loop: Loop,
        context: sockets.Context,
        info: ConnectionInfo,
        host: str,
        receive: Callable[[str, m.Message], None],
    ) -> None:
        self._loop = loop
        self._on_message = receive
        self._context = context
        self._info = info
        self._zap = ZapServer(context, [info.client_public])
        self._router = sockets.router(context, info.client_secret)
        self._doorkeeper = Doorkeeper(self._router)
        port = self._bind(host)
        self._doorkeeper.port = port
        self.address = connection.format_address(host, port)
        self._links: dict[str, Link] = {}  # by address
        self._unsent: dict[str, deque[list[Frame]]] = {}  # answers, by who asked
        self.peer_transfers: PeerTransfers | None = None
        self.lease_relays: LeaseRelays | None = None
        loop.watch_zmq(self._zap.socket, self._answer_zap, rare=True)
        loop.watch_zmq(self._doorkeeper.monitor.socket, self._read_monitor, rare=True)
        loop.watch_zmq(self._router, self._read_router, rare=True)

    def _bind(self, host: str) -> int:
        try:
            return sockets.bind(self._router, host, 0)
        except StartError:  # an address of a translator in front of this machine
            return sockets.bind(self._router, "::" if socket.has_ipv6 else "0.0.0.0", 0)

    def _answer_zap(self) -> None:
        self._zap.handle()

    def _read_monitor(self) -> None:
        self._doorkeeper.read()

    # ---- in --------------------------------------------------------------------------------

    def _read_router(self) -> None:
        for _ in range(TURN_CHUNKS):
            if not sockets.readable(self._router):
                return
            route, *frames = self._router.recv_multipart(zmq.DONTWAIT, copy=False)
            if frames:
                self._doorkeeper.spoke(sockets.peer_fd(frames[-1]))
                self._receive(route.bytes.hex(), frames)

    def _read_link(self, address: str) -> None:
        link = self._links.get(address)
        for _ in range(TURN_CHUNKS):
            if link is None or not sockets.readable(link.socket):
                return
            link.reached = True
            self._receive(address, link.socket.recv_multipart(zmq.DONTWAIT, copy=False))

    def _receive(self, peer: str, frames: Sequence[zmq.Frame]) -> None:
        if self.peer_transfers is None or len(frames) < 2 or frames[0].bytes != m.KIND:
            return
        try:
            messages = codec.decode(frames[1].buffer).messages
        except ProtocolError:
            return
        blobs = deque(frame.buffer for frame in frames[2:])
        for message in messages:
            if isinstance(message, m.Chunk) and not message.data and blobs:
                message = msgspec.structs.replace(message, data=blobs.popleft())
            self._on_message(peer, message)

    # ---- out -------------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Once a turn: send what is to be sent, connect, and look after connections."""
        machine, relays = self.peer_transfers, self.lease_relays
        if machine is None or relays is None:
            return
        if relays.outbox:
            for peer, messages in relays.outbox.take().items():
                payloads = codec.encode(0, messages, [])
                queue = self._unsent.setdefault(peer, deque())
                queue.extend([m.KIND, payload] for payload in payloads)
        if not (machine.outbox or self._unsent or self._links):
            return
        for peer, messages in machine.outbox.take().items():
            frames = [frame for message in messages for frame in _frames(message)]
            if ":" not in peer:
                self._unsent.setdefault(peer, deque()).extend(frames)
                continue
            link = self._links.get(peer) or self._open(peer, now)
            link.unsent.extend(frames)
        for peer in [*self._unsent]:
            self._flush_route(peer, now)
        for address in [*self._links]:
            self._tend_link(address, self._links[address], now)

    def _open(self, address: str, now: float) -> Link:
        dealer = sockets.dealer(self._context, self._info, self._info.client_public)
        link = self._links[address] = Link(dealer, now)
        sockets.connect(dealer, *connection.parse_address(address))
        self._loop.watch_zmq(dealer, lambda: self._read_link(address), rare=True)
        return link

    def _tend_link(self, address: str, link: Link, now: float) -> None:
        if link.unsent:
            self._loop.look(link.socket)
        while link.unsent:
            try:
                link.socket.send_multipart(link.unsent[0], zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            link.unsent.popleft()
        ended = not link.reached and now - link.opened > limits.PEER_CONNECT_S
        for event in link.monitor.read():
            if event.event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                link.reached = True
            ended = ended or event.event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED)
        assert self.peer_transfers is not None
        if ended:
            self._close(address, link)
            self.peer_transfers.lost(address, now, reached=link.reached)

    def _flush_route(self, peer: str, now: float) -> None:
        queue = self._unsent[peer]
        self._loop.look(self._router)
        while queue:
            try:
                frames = [bytes.fromhex(peer), *queue[0]]
                self._router.send_multipart(frames, zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            except zmq.ZMQError:  # it is gone
                queue.clear()
                assert self.peer_transfers is not None
                self.peer_transfers.lost(peer, now, reached=True)
                if self.lease_relays is not None:
                    self.lease_relays.lost(peer)
                break
            queue.popleft()
        del self._unsent[peer]

    def waits(self) -> bool:
        """Whether a connection is being made, or something could not be sent yet."""
        unsure = any(link.unsent or not link.reached for link in self._links.values())
        return unsure or bool(self._unsent)

    def _close(self, address: str, link: Link) -> None:
        self._loop.unwatch_zmq(link.socket)
        link.monitor.close()
        link.socket.close(0)
        del self._links[address]

    def close(self) -> None:
        for address, link in [*self._links.items()]:
            self._close(address, link)
        self._loop.unwatch_zmq(self._router)
        self._loop.unwatch_zmq(self._doorkeeper.monitor.socket)
        self._loop.unwatch_zmq(self._zap.socket)
        self._doorkeeper.close()
        self._router.close(0)
        self._zap.close()


def _frames(message: m.Message) -> list[list[Frame]]:
    """One message; a large chunk's bytes stand beside it, as they are. None: it is too large."""
    blob: list[Frame] = []
    if isinstance(message, m.Chunk) and len(message.data) >= BLOB_BYTES_MIN:
        blob = [message.data]
        message = msgspec.structs.replace(message, data=b"")
    return [[m.KIND, payload, *blob] for payload in codec.encode(0, [message], [])]
