"""The head's port, the one that others connect to: connections by route, and what goes over them.

The shell of the TrafficController. A connection's end is told by the monitor of the socket, by its
descriptor; a peer that does not read has its messages kept here.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import zmq

from zray import limits
from zray.core.head.gcs import Gcs
from zray.core.head.standby import Standby
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.errors import ProtocolError
from zray.protocol import codec
from zray.protocol.messages import KIND
from zray.runtime import sockets
from zray.runtime.doorkeeper import Doorkeeper
from zray.runtime.keys import ClusterKey
from zray.runtime.log import Log
from zray.runtime.loop import Loop
from zray.runtime.zap import ZapServer

LAST_WORDS_S = 0.5  # what a lost peer has said is read first, unless others say too much


class Served(NamedTuple):
    """Whom the port serves: a GCS, or a head that stands by."""

    epoch: Callable[[], int]
    routed: Outbox[bytes]
    receive: Callable[[bytes, str, codec.Payload, float], None]
    refuse: Callable[[bytes, int, str], None]
    link_lost: Callable[[bytes, float], None]
    too_large: Callable[[bytes, list[codec.Unsent]], None]
    whom: Callable[[bytes], str]  # in words, who is at the end of a route

    @classmethod
    def leading(cls, gcs: Gcs) -> Served:
        """A GCS."""

        def whom(route: bytes) -> str:
            session = gcs.sessions.by_route.get(route)
            return session.member.in_words() if session is not None else ""

        controller = gcs.controller
        return cls(
            *(lambda: gcs.epoch, gcs.routed, controller.receive, controller.refuse),
            *(gcs.sessions.link_lost, gcs.too_large, whom),
        )

    @classmethod
    def standing_by(cls, standby: Standby) -> Served:
        """A head that does not lead."""
        return cls(
            *(lambda: standby.epoch, standby.routed, standby.receive, standby.refuse),
            *(standby.link_lost, standby.too_large, lambda route: ""),
        )


class HeadPort:
    """First it is bound; then it serves what comes to ``loop``. ``incidents``: of the process."""

    def __init__(self, key: ClusterKey, loop: Loop, log: Log, incidents: Incidents) -> None:
        self._incidents = incidents
        self._watched = self._reads = False
        self._loop = loop
        self._context = sockets.context()
        self._zap = ZapServer(self._context, [key.client().public], log=log)
        self._router = sockets.router(self._context, key.server.secret)
        self._doorkeeper = Doorkeeper(self._router)
        self._unsent: dict[bytes, deque[bytes]] = {}
        self._routes: dict[int, bytes] = {}  # connection's descriptor -> route
        self._fds: dict[bytes, int] = {}
        self.send_failures = 0  # that were none of the peer's
        self._cut: dict[bytes, float] = {}  # routes whose connection is lost, and since when

    def bind(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses where 0 is asked for.

        Raises:
            PortInUseError: it says by whom.
        """
        self._doorkeeper.port = sockets.bind(self._router, host, port)
        return self._doorkeeper.port

    def serve(self, served: Served) -> None:
        """From now on messages go there, also those of connections that have come before."""
        self._served = served
        if not self._watched:
            self._watched = True
            self._loop.watch_zmq(self._doorkeeper.monitor.socket, self._read_monitor, rare=True)
            self._loop.watch_zmq(self._zap.socket, self._answer_zap, rare=True)
        if not self._reads:
            self._reads = True
            self._loop.watch_zmq(self._router, self._read_router)

    def rest(self) -> None:
        """Read nothing, until the next ``serve``."""
        self._reads = False
        self._loop.unwatch_zmq(self._router)

    def routes(self) -> list[bytes]:
        """Connections over which something came."""
        return [*self._fds]

    def cut_off(self, routes: list[bytes]) -> None:
        """End these connections, without a further word."""
        for route in routes:
            self._unsent.pop(route, None)
            fd = self._fds.get(route)
            if fd is not None:
                self._doorkeeper.cut_off(fd)

    # ---- figures ---------------------------------------------------------------------------

    def refused(self) -> int:
        """How many connections were refused for their keys."""
        return self._zap.refused

    def cut(self) -> int:
        """How many were cut over which nothing came."""
        return self._doorkeeper.cut

    def unsent_bytes(self) -> int:
        """What is kept here for peers that do not read."""
        return sum(len(payload) for queue in self._unsent.values() for payload in queue)

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """What was sent gets a moment to leave."""
        self._loop.unwatch_zmq(self._router)
        self._doorkeeper.close()
        self._router.close(int(limits.RESULT_DELAY_S * 1000) + 100)
        self._zap.close()
        self._context.term()

    # ---- in --------------------------------------------------------------------------------

    def _answer_zap(self) -> None:
        self._zap.handle()

    def _read_router(self) -> None:
        now, left = self._loop.now(), limits.DRAIN_BYTES_MAX
        for _ in range(limits.DRAIN_MESSAGES_MAX):
            if left < 0 or not sockets.readable(self._router):
                return  # the socket takes from its peers in turn
            frames = sockets.receive(self._router)
            left -= len(frames[-1])
            try:
                self._receive(frames, now)
            except Exception as error:
                self._incidents.record("reading a peer's message", "", error, now)

    def _receive(self, frames: list[Any], now: float) -> None:
        route = frames[0].bytes
        last = frames[-1]
        served = self._served
        if route not in self._fds:
            self._read_monitor()  # of whoever had the descriptor before, the end was told before
            fd = sockets.peer_fd(last)
            self._fds[route] = fd
            self._routes[fd] = route
            self._doorkeeper.spoke(fd)
        if not 3 <= len(frames) <= limits.FRAMES_MAX or frames[1].bytes != KIND:
            served.refuse(route, 0, f"a message has the frames {KIND!r} and payload")
            return
        try:
            payload = codec.decode(frames[2].buffer)
        except ProtocolError as error:
            served.refuse(route, 0, str(error))
            return
        served.receive(route, sockets.user_id(last), payload, now)

    # ---- ends of connections ---------------------------------------------------------------

    def _read_monitor(self) -> None:
        self._loop.look(self._doorkeeper.monitor.socket)
        for event in self._doorkeeper.read():
            if event.event == zmq.EVENT_DISCONNECTED:
                route = self._routes.pop(event.value, None)
                if route is not None:
                    self._cut[route] = self._loop.now()

    def drop_cut(self) -> None:
        """A peer's end may be told before its last words are read: GOODBYE, results."""
        if not self._cut:
            return
        cut = [*self._cut.items()]
        self._read_router()
        unread = sockets.readable(self._router)
        for route, told in cut:
            if not unread or self._loop.now() - told > LAST_WORDS_S:
                self._lost(route)

    def _lost(self, route: bytes) -> None:
        self._fds.pop(route, None)
        self._cut.pop(route, None)
        self._unsent.pop(route, None)
        self._served.link_lost(route, self._loop.now())

    def drop_unreachable(self, route: bytes) -> None:
        """A peer says nothing: it is slow, unless its machine does not even acknowledge."""
        if sockets.is_out_of_reach(self._fds[route]):
            self._lost(route)

    # ---- out -------------------------------------------------------------------------------

    def wait_s(self, wanted: float) -> float:
        """How long the loop may sleep of what is ``wanted``: less where something is left to do."""
        if self._cut:
            return 0.0
        return 0.01 if self._unsent else wanted

    def send(self) -> None:
        """One payload for each peer that there are messages for, and what is left of before."""
        served = self._served
        for route, messages in served.routed.take().items():
            unsent: list[codec.Unsent] = []
            try:
                payloads = codec.encode(served.epoch(), messages, unsent)
            except Exception as error:
                self._cut_off(route, error)
                continue
            self._unsent.setdefault(route, deque()).extend(payloads)
            if unsent:
                served.too_large(route, unsent)
        for route in [*self._unsent]:
            queue = self._unsent[route]
            try:
                while queue:
                    sockets.send(self._router, (route, KIND, queue[0]))
                    queue.popleft()
                del self._unsent[route]
            except zmq.Again:
                continue  # its pipe is full: the peer is slow
            except zmq.ZMQError as error:
                if error.errno == errno.EHOSTUNREACH:  # its last words may not be read yet
                    del self._unsent[route]
                    self._cut.setdefault(route, self._loop.now())
                else:
                    self._cut_off(route, error)

    def _cut_off(self, route: bytes, error: Exception) -> None:
        """Something could not be sent to a peer: its session ends, and it asks for all anew."""
        self.send_failures += 1
        whom = self._served.whom(route)
        self._incidents.record("sending to a peer", whom, error, self._loop.now())
        self._lost(route)
