"""Connections between processes on different machines: TCP, encrypted, with keys of their own.

Of each pair one listens, on a port that it leaves in the cluster's key-value table until the other
has come. Only that one's key is let in.
"""

from __future__ import annotations

from typing import Any

from zray.util import kv
from zray.util.channels import PeerGoneError

FRAME_BYTES = 256 << 10
QUEUE_FRAMES = 16  # in each direction
LINGER_MS = 5000  # for what was sent to leave
RECONNECT_MS = 10**9
HELLO = b"zray"
CALL, PORT = b"call", b"port"
KEY_BYTES = 40  # of a public key, as text


class FarChannel:
    """A connection: one zmq socket, with a peer that is the only one."""

    patience_s = 0.05  # its descriptor tells of changes only

    def __init__(self, socket: Any, route: list[bytes], closes: list[Any], monitor: Any) -> None:
        self._socket = socket
        self._route = route
        self._closes = closes
        self._monitor = monitor
        self._rest = memoryview(b"")
        self._over = False  # the connection is; what has come before may still be read

    def send(self, data: memoryview) -> int:
        """Raises PeerGoneError."""
        import zmq

        part = bytes(data[:FRAME_BYTES])
        try:
            self._socket.send_multipart([*self._route, part], zmq.DONTWAIT)
        except zmq.Again:
            if self._ended():
                raise PeerGoneError from None
            return 0
        except zmq.ZMQError:
            raise PeerGoneError from None
        return len(part)

    def receive(self, room: memoryview) -> int:
        """Raises PeerGoneError."""
        import zmq

        if not self._rest:
            over = self._ended()  # as long as that is not so, the next look may find more
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                if over:
                    raise PeerGoneError from None
                return 0
            except zmq.ZMQError:
                raise PeerGoneError from None
            self._rest = frames[-1].buffer
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _ended(self) -> bool:
        import zmq

        over = (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED)
        if not self._over and any(event.event in over for event in self._monitor.read()):
            self._over = True
        return self._over

    def fileno(self) -> int:
        """Of its socket; edge-triggered."""
        from zray.runtime import sockets

        return sockets.descriptor(self._socket)

    def drop(self) -> None:
        """Close its socket; what has not left is lost."""
        import zmq

        self._socket.setsockopt(zmq.LINGER, 0)
        self.close()

    def close(self) -> None:
        """Close its socket, once what was sent has left: what others read of it is not lost."""
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

    Who wants to connect leaves its rank and key under the other's name (CALL), which then listens
    for it and leaves the port (PORT).

    ``host``: where this machine is reached. From itself only: it has no key, and no such members.
    """

    def __init__(self, prefix: bytes, member_id: bytes, rank: int, host: str) -> None:
        self._prefix = prefix
        self._id = member_id
        self._rank = rank
        self._host = host
        self.public = self._secret = b""
        if host and not is_loopback(host):
            import zmq

            self.public, self._secret = zmq.curve_keypair()
        self._listening: dict[bytes, tuple[int, _Listening]] = {}  # by who is to come
        self._calling: dict[bytes, FarChannel] = {}
        self._called: set[bytes] = set()

    def admit(self) -> list[tuple[int, FarChannel]]:
        """Who has connected since, with its rank."""
        import zmq

        own = self._key(self._id, b"")
        for key in kv.keys(own):
            caller, _, what = key[len(own) :].partition(b"/")
            if what == CALL and caller not in self._listening:
                rank, _, public = (kv.get(key) or b"").partition(b" ")
                if len(public) == KEY_BYTES and rank.isdigit():
                    port = _Listening(self._secret, public, self._host)
                    self._listening[caller] = int(rank), port
                    kv.put(own + caller + b"/" + PORT, str(port.port).encode())
        found: list[tuple[int, FarChannel]] = []
        for caller, (number, here) in [*self._listening.items()]:
            here.zap.handle()
            try:
                route, hello = here.socket.recv_multipart(zmq.DONTWAIT)
            except (zmq.Again, ValueError):
                continue
            if hello == HELLO:
                here.socket.send_multipart([route, HELLO])
                for what in (CALL, PORT):
                    kv.delete(own + caller + b"/" + what)
                del self._listening[caller]
                closes = [here.zap, here.socket, here.context]
                found.append((number, FarChannel(here.socket, [route], closes, here.monitor)))
        return found

    def connect(self, member_id: bytes, public: bytes, host: str) -> FarChannel | None:
        """A connection to this member; None: none so far."""
        path = self._key(member_id, self._id.hex().encode() + b"/")
        channel = self._calling.get(member_id)
        if channel is None:
            port = kv.get(path + PORT)
            if port is not None:
                self._calling[member_id] = self._call(public, host, int(port))
            elif member_id not in self._called:
                self._called.add(member_id)
                kv.put(path + CALL, str(self._rank).encode() + b" " + self.public)
            return None
        try:
            if channel.receive(memoryview(bytearray(len(HELLO)))):
                return self._calling.pop(member_id)
        except PeerGoneError:
            self._calling.pop(member_id).drop()
        return None

    def _call(self, public: bytes, host: str, port: int) -> FarChannel:
        import zmq

        from zray.runtime import sockets
        from zray.runtime.connection import ConnectionInfo

        context = _Context()
        info = ConnectionInfo("", [], public, self.public, self._secret, 0, 0.0)
        socket = sockets.dealer(context.context, info, heartbeats=False)
        _bound(socket)
        # A socket that never connects again drops what has come and was not read; this one is
        # closed long before it would.
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        monitor = sockets.Monitor(socket)
        sockets.connect(socket, host, port)
        socket.send(HELLO)
        return FarChannel(socket, [], [socket, context], monitor)

    def _key(self, listening: bytes, rest: bytes) -> bytes:
        return self._prefix + listening.hex().encode() + b"/" + rest

    def close(self) -> None:
        """Nobody can connect any more."""
        for caller, (_, here) in self._listening.items():
            here.close()
            for what in (CALL, PORT):
                kv.delete(self._key(self._id, caller + b"/" + what))
        for channel in self._calling.values():
            channel.drop()
        self._listening.clear()
        self._calling.clear()


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own machine only."""
    return host == "::1" or host.startswith("127.")


def _bound(socket: Any) -> None:
    import zmq

    socket.setsockopt(zmq.SNDHWM, QUEUE_FRAMES)
    socket.setsockopt(zmq.RCVHWM, QUEUE_FRAMES)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
