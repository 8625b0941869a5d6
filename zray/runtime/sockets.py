"""Owns the zmq sockets between processes of a cluster: their options, binding and monitoring.

Must never hold a decision about peers, or open a TCP socket without CURVE.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket as socket_module
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import zmq

from zray import limits
from zray.errors import PortInUseError, ProtocolError, StartError
from zray.runtime.connection import ConnectionInfo, format_address
from zray.runtime.zap import ZAP_DOMAIN

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"
Socket: TypeAlias = "zmq.Socket[bytes]"

CURVE_FRAME_OVERHEAD_BYTES: Final = 33  # CurveZMQ MESSAGE: name, nonce, flags, authenticator
SEND_QUEUE_MESSAGES: Final = 1024
RECEIVE_QUEUE_MESSAGES: Final = 256
KEEPALIVE_S: Final = 2
_NOW: Final = int(zmq.DONTWAIT)
_MORE: Final = int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE: Final = int(zmq.POLLIN)  # pyzmq's enum takes longer to test a bit than to ask for it
_TCP_INFO_BYTES: Final = 232
# In struct tcp_info of linux/tcp.h: snd_mss, unacked, last_ack_recv, notsent_bytes, snd_wnd.
_TCP_INFO: Final = (16, 24, 56, 144, 228)
_ZMQ_VERSION_MIN: Final = (4, 3, 5)
_COMMAND_LENGTH_MAX: Final = 120


class _Option(NamedTuple):
    option: int
    value: int | bytes
    reason: str


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


_COMMON: Final = (
    _Option(zmq.LINGER, 0, "the default -1 lets closing hang for ever; what matters is resent"),
    _Option(
        zmq.MAXMSGSIZE,
        limits.FRAME_BYTES_MAX + CURVE_FRAME_OVERHEAD_BYTES,
        "by default any peer may make this process allocate any size; counts the encrypted frame",
    ),
    _Option(
        zmq.SNDHWM,
        SEND_QUEUE_MESSAGES,
        "credit bounds what is in flight, so this is met only by a peer that stopped reading; send"
        " then says Again, and the rest waits in the outbox, where it is still merged into batches",
    ),
    _Option(
        zmq.RCVHWM,
        RECEIVE_QUEUE_MESSAGES,
        "per peer: a peer that floods a busy process is held back by TCP, not kept in memory here",
    ),
    _Option(zmq.HANDSHAKE_IVL, _ms(limits.HANDSHAKE_S), "a mute peer holds a descriptor this long"),
    _Option(zmq.TCP_KEEPALIVE, 1, "a cut cable or a lost NAT entry would stay unnoticed"),
    _Option(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S, "the kernel's own default is two hours"),
    _Option(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S, "as the first one"),
    _Option(
        zmq.TCP_KEEPALIVE_CNT,
        int(limits.TRANSPORT_SILENT_S / KEEPALIVE_S) - 1,
        "the peer's kernel answers, also for a process that is stopped or busy",
    ),
)

# Of nodes alone: a driver that is stopped, or busy with what holds its GIL while its queue is full,
# answers no heartbeat, and is there all the same.
_HEARTBEATS: Final = (
    _Option(
        zmq.HEARTBEAT_IVL,
        _ms(limits.TRANSPORT_HEARTBEAT_S),
        "the default is none: a stopped head would be noticed late",
    ),
    _Option(
        zmq.HEARTBEAT_TIMEOUT,
        _ms(limits.TRANSPORT_HEARTBEAT_TIMEOUT_S),
        "without an answer for this long the connection is cut and the monitor says so",
    ),
    _Option(
        zmq.HEARTBEAT_TTL,
        _ms(limits.TRANSPORT_HEARTBEAT_TIMEOUT_S),
        "the other side cuts too, when it hears nothing from this one; it sends none by itself",
    ),
)

_ROUTER: Final = (
    *_COMMON,
    _Option(
        zmq.ROUTER_MANDATORY,
        1,
        "else sends to a lost peer or to a full queue are dropped without a word",
    ),
    # ROUTER_HANDOVER stays off, so that nobody can take over a peer's identity; peers set no
    # ROUTING_ID, so libzmq draws a new one per connection.
    _Option(zmq.CURVE_SERVER, 1, "encrypted and authenticated, on loopback too"),
    _Option(zmq.ZAP_DOMAIN, ZAP_DOMAIN, "the name under which the authenticator knows zray"),
    _Option(
        zmq.ZAP_ENFORCE_DOMAIN,
        1,
        "without it, CURVE without an authenticator admits every key; with it, none",
    ),
    _Option(zmq.BACKLOG, limits.LISTEN_BACKLOG, "the default 100 loses connects when all rejoin"),
)

_DEALER: Final = (
    *_COMMON,
    _Option(
        zmq.RECONNECT_IVL,
        -1,
        "one socket is one session: a silent reconnect would lose messages in the middle and"
        " deliver stale ones to a new head before HELLO",
    ),
    _Option(
        zmq.CONNECT_TIMEOUT,
        _ms(limits.CONNECT_TIMEOUT_S),
        "the kernel's own limit is minutes where packets are dropped",
    ),
)


class MonitorEvent(NamedTuple):
    """What happened to a connection of a socket.

    ``value`` is a file descriptor (CONNECTED, ACCEPTED, DISCONNECTED), an errno (CLOSED,
    HANDSHAKE_FAILED_NO_DETAIL), a ZAP status (HANDSHAKE_FAILED_AUTH) or a protocol error
    (HANDSHAKE_FAILED_PROTOCOL).
    """

    event: int
    name: str
    value: int
    endpoint: str


class Monitor:
    """Tells what happens to the connections of one socket; to be made before it connects.

    A connection that was refused says CLOSED, one that was lost DISCONNECTED; with the sockets of
    this module neither is tried again, so the socket is to be closed then.
    """

    EVENTS: Final = (
        zmq.EVENT_CONNECTED
        | zmq.EVENT_CLOSED
        | zmq.EVENT_DISCONNECTED
        | zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    )
    _numbers = itertools.count()

    def __init__(self, socket: Socket, events: int = EVENTS) -> None:
        endpoint = f"inproc://zray.monitor.{next(self._numbers)}"
        socket.monitor(endpoint, events)
        # Not get_monitor_socket(): its queue is bounded, and a full one blocks libzmq's I/O
        # thread, so that anybody who connects often enough stops a busy process's network.
        self.socket: Socket = socket.context.socket(zmq.PAIR)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        readable(self.socket)  # before a first look, its descriptor signals nothing
        self._watched = socket

    def read(self) -> list[MonitorEvent]:
        """Return what happened since the last call, at most a budget of events; never waits."""
        events: list[MonitorEvent] = []
        with contextlib.suppress(zmq.Again):
            while len(events) < limits.DRAIN_MESSAGES_MAX:
                head, endpoint = self.socket.recv_multipart(zmq.DONTWAIT)
                number, value = struct.unpack("=Hi", head)
                name = zmq.Event(number).name or str(number)
                events.append(MonitorEvent(number, name, value, endpoint.decode()))
        return events

    def close(self) -> None:
        """Stop watching; before or after the watched socket is closed."""
        if not self._watched.closed:
            self._watched.monitor(None, 0)
        self.socket.close(0)


def context(io_threads: int = 1) -> Context:
    """Return a new zmq context.

    Raises:
        StartError: libzmq is older than 4.3.5 (denial of service without a key is known for
            older ones) or was built without CURVE.
    """
    if zmq.zmq_version_info() < _ZMQ_VERSION_MIN or not zmq.has("curve"):
        raise StartError(
            f"libzmq {zmq.zmq_version()} (CURVE: {bool(zmq.has('curve'))}) cannot be used: zray"
            " needs 4.3.5 or newer with CURVE; install pyzmq from its wheels: pip install -U pyzmq"
        )
    return zmq.Context(io_threads)


def router(context: Context, secret: bytes) -> Socket:
    """Return the ROUTER of a head or raylet, not bound yet. ``secret``: its CURVE key, Z85.

    It refuses everybody until the context has a :class:`~zray.runtime.zap.ZapServer`.
    """
    socket = _open(context, zmq.ROUTER, _ROUTER)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    return socket


def dealer(
    context: Context, info: ConnectionInfo, server_public: bytes = b"", *, heartbeats: bool = True
) -> Socket:
    """Return the DEALER of one session with the head of ``info``, not connected yet.

    ``server_public``: of another server than the head, Z85. ``heartbeats``: either side cuts the
    connection when the other does not answer them.
    """
    socket = _open(context, zmq.DEALER, (*_DEALER, *(_HEARTBEATS if heartbeats else ())))
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_public or info.server_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, info.client_public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, info.client_secret)
    return socket


def bind(socket: Socket, host: str, port: int) -> int:
    """Listen on ``host`` (an address of this machine) and return the port; 0 draws a free one.

    Raises:
        ValueError: the port is not from 0 to 65535, which libzmq would not notice.
        PortInUseError: the port is taken; the message names the holder where it may be known.
        StartError: the host is no address of this machine, or the port needs privileges.
    """
    if not 0 <= port < 65536:
        raise ValueError(f"the port must be a number from 0 to 65535, not {port}")
    address = format_address(host, port)
    socket.setsockopt(zmq.IPV6, int(":" in host))
    try:
        socket.bind(f"tcp://{address}")
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"cannot listen on {address}: the port is taken by {_holder(port)}; stop that"
                " process or choose another port with --port"
            ) from None
        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise StartError(
                f"cannot listen on {address}: this machine has no address {host!r}; use 127.0.0.1"
                " for this machine only, or 0.0.0.0 for all networks"
            ) from None
        raise StartError(f"cannot listen on {address}: {error.strerror}") from error
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return int(bound.rstrip(b"\0").rpartition(b":")[2])


def connect(socket: Socket, host: str, port: int) -> None:
    """Start to connect; the socket's monitor tells what becomes of it.

    A name is resolved by libzmq and to IPv4 only: give the address that ``probe.diagnose`` found.
    """
    socket.setsockopt(zmq.IPV6, int(":" in host))
    socket.connect(f"tcp://{format_address(host, port)}")


def peer_fd(frame: zmq.Frame) -> int:
    """The descriptor of the connection that ``frame`` came over.

    The monitor's DISCONNECTED has the same number, which is a hint only: the kernel reuses it.
    """
    return frame.get(zmq.SRCFD)


def is_out_of_reach(fd: int) -> bool:
    """Whether the other end of a TCP connection acknowledges nothing that is sent (tcp(7)).

    An idle connection is watched over by the kernel, which ends it.
    """
    try:
        with socket_module.socket(fileno=os.dup(fd)) as connection:
            option = (socket_module.IPPROTO_TCP, socket_module.TCP_INFO, _TCP_INFO_BYTES)
            info = connection.getsockopt(*option)
    except OSError:
        return False  # it is about to be told of as ended
    if len(info) < _TCP_INFO_BYTES:
        return False  # a kernel that knows less leaves it to its keep-alives
    mss, unacknowledged, since_ms, unsent, window = (
        struct.unpack_from("=I", info, offset)[0] for offset in _TCP_INFO
    )
    # Where this machine has lost its own way, nothing has left. A window that is shut is no such
    # thing: the other end is there, and does not read.
    held_up = unsent and window >= min(unsent, mss)
    return bool((unacknowledged or held_up) and since_ms > limits.TRANSPORT_SILENT_S * 1000)


def user_id(frame: zmq.Frame) -> str:
    """The User-Id that the authenticator gave to the key of the peer that sent ``frame``.

    Raises:
        ProtocolError: the frame did not come over an authenticated connection.
    """
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        raise ProtocolError("a message came over a connection that nobody authenticated") from None


def send(socket: Socket, frames: Sequence[bytes]) -> None:
    """Send one message now, or nothing of it: as ``send_multipart``, at less cost (plain flags).

    Raises:
        zmq.Again: the peer's queue is full; zmq.ZMQError: of zmq_msg_send(3).
    """
    for frame in frames[:-1]:
        socket.send(frame, _MORE)
    socket.send(frames[-1], _NOW)


def receive(socket: Socket) -> list[zmq.Frame]:
    """One message that has arrived, uncopied: as ``recv_multipart``, at less cost.

    Raises:
        zmq.Again: there is none; zmq.ZMQError: of zmq_msg_recv(3).
    """
    frame = socket.recv(_NOW, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(_NOW, copy=False)
        frames.append(frame)
    return frames


def readable(socket: Socket) -> bool:
    """Whether something can be received now; this also lets libzmq do its work (ZMQ_EVENTS).

    False where that cannot be told just now.
    """
    try:
        events = socket.getsockopt(zmq.EVENTS)
    except zmq.ZMQError as error:
        if error.errno in (zmq.ETERM, zmq.ENOTSOCK):
            raise
        return False
    return isinstance(events, int) and bool(events & _READABLE)


def descriptor(socket: Socket) -> int:
    """What to poll for reading (ZMQ_FD, edge-triggered: look at ``readable`` before sleeping)."""
    fd = socket.getsockopt(zmq.FD)
    assert isinstance(fd, int)
    return fd


def _open(context: Context, kind: int, options: tuple[_Option, ...]) -> Socket:
    socket = context.socket(kind)
    for option, value, _ in options:
        socket.setsockopt(option, value)
    return socket


def _holder(port: int) -> str:
    """The process that listens on TCP ``port``, in words."""
    import psutil  # large, and only who fails needs it

    with contextlib.suppress(psutil.Error, OSError):  # not allowed to look, or just ended
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if not (listens and connection.laddr and connection.laddr.port == port):
                continue
            if connection.pid is None:
                break
            if connection.pid == os.getpid():
                return f"this process (pid {connection.pid})"
            command = " ".join(psutil.Process(connection.pid).cmdline())
            return f"pid {connection.pid} ({command[:_COMMAND_LENGTH_MAX]})"
    return "a process that cannot be seen from here, perhaps another user's"
