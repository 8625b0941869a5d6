"""Connections between members on different machines: TCP, encrypted, with keys of their own.

Of each pair one listens, on a port that it leaves in the cluster's key-value table until the other
has come. Only that one's key is let in.
"""

from __future__ import annotations

import time
from typing import Any

from zray.util import kv
from zray.util.collective.channels import PeerGoneError

FRAME_BYTES = 256 << 10
QUEUE_FRAMES = 16  # in each direction
HELLO = b"zray"


class FarChannel:
    """A connection: one zmq socket, with a peer that is the only one."""

    patience_s = 0.05  # its descriptor tells of changes only

    def __init__(self, socket: Any, route: list[bytes], closes: list[Any], monitor: Any) -> None:
        self._socket = socket
        self._route = route
        self._closes = closes
        self._monitor = monitor
        self._rest = memoryview(b"")

    def send(self, data: memoryview) -> int:
        """Raises PeerGoneError."""
        import zmq

        part = bytes(data[:FRAME_BYTES])
        try:
            self._socket.send_multipart([*self._route, part], zmq.DONTWAIT)
        except zmq.Again:
            self._look()
            return 0
        except zmq.ZMQError:
            raise PeerGoneError from None
        return len(part)

    def receive(self, room: memoryview) -> int:
        """Raises PeerGoneError."""
        import zmq

        if not self._rest:
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                self._look()
                return 0
            except zmq.ZMQError:
                raise PeerGoneError from None
            self._rest = frames[-1].buffer
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _look(self) -> None:
        """Whether the connection is still there."""
        import zmq

        for event in self._monitor.read():
            if event.event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                raise PeerGoneError

    def fileno(self) -> int:
        """Of its socket; edge-triggered."""
        from zray.runtime import sockets

        return sockets.descriptor(self._socket)

    def close(self) -> None:
        """Close its socket."""
        for one in (self._monitor, *self._closes):
            one.close()


class _Context:
    """A context that ends with its sockets."""

    def __init__(self) -> None:
        from zray.runtime import sockets

        self.context = sockets.context()

    def close(self) -> None:
        self.context.destroy(0)


class _Listening:
    """A port for one member."""

    def __init__(self, secret: bytes, public: bytes, host: str) -> None:
        from zray.runtime import sockets
        from zray.runtime.zap import ZapServer

        self.context = _Context()
        self.zap = ZapServer(self.context.context, [public])
        self.socket = sockets.router(self.context.context, secret)
        _bound(self.socket)
        self.monitor = sockets.Monitor(self.socket)
        self.port = sockets.bind(self.socket, host, 0)

    def close(self) -> None:
        for one in (self.monitor, self.zap, self.socket, self.context):
            one.close()


class FarDoor:
    """Both sides of how members on different machines connect. ``member_id``: this one.

    ``host``: where this machine is reached. From itself only: it has no key, and no such members.
    """

    def __init__(self, prefix: bytes, member_id: bytes, host: str) -> None:
        self._prefix = prefix
        self._id = member_id
        self._host = host
        self.public = self._secret = b""
        if host and host != "::1" and not host.startswith("127."):
            import zmq

            self.public, self._secret = zmq.curve_keypair()
        self._listening: dict[bytes, _Listening] = {}
        self._calling: dict[bytes, tuple[FarChannel, float]] = {}

    def accept(self, member_id: bytes, public: bytes) -> FarChannel | None:
        """The connection that this member has made; None: none so far."""
        import zmq

        here = self._listening.get(member_id)
        if here is None:
            here = self._listening[member_id] = _Listening(self._secret, public, self._host)
            kv.put(self._key(self._id, member_id), str(here.port).encode())
        here.zap.handle()
        try:
            route, hello = here.socket.recv_multipart(zmq.DONTWAIT)
        except (zmq.Again, ValueError):
            return None
        if hello != HELLO:
            return None
        here.socket.send_multipart([route, HELLO])
        kv.delete(self._key(self._id, member_id))
        del self._listening[member_id]
        return FarChannel(
            here.socket, [route], [here.zap, here.socket, here.context], here.monitor
        )

    def connect(self, member_id: bytes, public: bytes, host: str) -> FarChannel | None:
        """A connection to this member; None: none so far."""
        import zmq

        if member_id not in self._calling:
            port = kv.get(self._key(member_id, self._id))
            if port is not None:
                self._calling[member_id] = self._call(public, host, int(port)), time.monotonic()
            return None
        channel, since = self._calling[member_id]
        try:
            heard = channel.receive(memoryview(bytearray(len(HELLO))))
        except PeerGoneError:
            heard = 0
            since = float("-inf")
        if heard:
            del self._calling[member_id]
            return channel
        if time.monotonic() - since > 10:
            self._calling.pop(member_id)[0].close()  # it was of an earlier group, or got lost
        return None

    def _call(self, public: bytes, host: str, port: int) -> FarChannel:
        from zray.runtime import sockets
        from zray.runtime.connection import ConnectionInfo

        context = _Context()
        info = ConnectionInfo("", [], public, self.public, self._secret, 0, 0.0)
        socket = sockets.dealer(context.context, info, heartbeats=False)
        _bound(socket)
        monitor = sockets.Monitor(socket)
        sockets.connect(socket, host, port)
        socket.send(HELLO)
        return FarChannel(socket, [], [socket, context], monitor)

    def _key(self, listening: bytes, calling: bytes) -> bytes:
        return self._prefix + listening.hex().encode() + b"/" + calling.hex().encode()

    def close(self) -> None:
        """Nobody can connect any more."""
        for here in self._listening.values():
            here.close()
        for channel, _ in self._calling.values():
            channel.close()
        self._listening.clear()
        self._calling.clear()


def _bound(socket: Any) -> None:
    import zmq

    socket.setsockopt(zmq.SNDHWM, QUEUE_FRAMES)
    socket.setsockopt(zmq.RCVHWM, QUEUE_FRAMES)
