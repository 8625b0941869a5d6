"""Real heads, clients and a cuttable TCP link for the tests of the network."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import zmq

from zray.runtime import sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.keys import ClusterKey
from zray.runtime.sockets import Monitor, MonitorEvent
from zray.runtime.zap import ZapServer

DEADLINE_S = 5.0
STEP_MS = 5


class Head:
    """A ROUTER with its authenticator and monitor, driven by ``Network.until``."""

    def __init__(self, key: ClusterKey, port: int, authenticate: bool) -> None:
        self.context = sockets.context()
        users = {key.client().public: "member"}
        self.log: list[str] = []
        self.zap = ZapServer(self.context, users, self.log.append) if authenticate else None
        self.router = sockets.router(self.context, key.server.secret)
        self.monitor = Monitor(self.router)
        self.port = sockets.bind(self.router, "127.0.0.1", port)
        self.events: list[MonitorEvent] = []
        self.received: list[list[zmq.Frame]] = []

    def step(self) -> None:
        if self.zap:
            self.zap.handle()
        self.events += self.monitor.read()
        with suppress(zmq.Again):
            while True:
                self.received.append(self.router.recv_multipart(zmq.DONTWAIT, copy=False))

    def texts(self, routing_id: bytes | None = None) -> list[bytes]:
        """The last frames of what was received, or of what ``routing_id`` sent."""
        return [
            frames[-1].bytes
            for frames in self.received
            if routing_id is None or frames[0].bytes == routing_id
        ]

    def peers(self) -> list[bytes]:
        return list(dict.fromkeys(frames[0].bytes for frames in self.received))

    def close(self) -> None:
        self.monitor.close()
        self.context.destroy(0)


class Client:
    """A DEALER with its monitor, for one session."""

    def __init__(self, socket: sockets.Socket, port: int) -> None:
        self.socket = socket
        self.monitor = Monitor(socket)
        self.events: list[MonitorEvent] = []
        self.received: list[list[bytes]] = []
        sockets.connect(socket, "127.0.0.1", port)

    def step(self) -> None:
        self.events += self.monitor.read()
        with suppress(zmq.Again):
            while True:
                self.received.append(self.socket.recv_multipart(zmq.DONTWAIT))

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def event(self, name: str) -> MonitorEvent | None:
        found = [event for event in self.events if event.name == name]
        return found[0] if found else None

    def close(self) -> None:
        self.monitor.close()
        self.socket.close(0)


class Link:
    """A TCP relay to ``port`` that passes a number of bytes each way, then nothing, until cut."""

    def __init__(self, port: int, up_bytes: int, down_bytes: int) -> None:
        self._target = port
        self._left = {"up": up_bytes, "down": down_bytes}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.stalled = {"up": False, "down": False}
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()

    def _relay(self) -> None:
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            if self._woken in [key.fileobj for key, _ in selector.select()]:
                return
            near = stack.enter_context(self._listener.accept()[0])
            far = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            selector.unregister(self._listener)
            selector.register(near, selectors.EVENT_READ, (far, "up"))
            selector.register(far, selectors.EVENT_READ, (near, "down"))
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    other, way = key.data
                    chunk = key.fileobj.recv(min(self._left[way], 65536))
                    other.sendall(chunk)
                    self._left[way] -= len(chunk)
                    if not chunk or not self._left[way]:
                        self.stalled[way] = True
                        selector.unregister(key.fileobj)

    def cut(self) -> None:
        """Close both connections; what was not passed on is lost."""
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join()
        for end in (self._listener, self._wake, self._woken):
            end.close()


class Network:
    """Makes heads, clients and links, drives them, and closes them."""

    def __init__(self) -> None:
        self.key = ClusterKey.create()
        self.context = sockets.context()
        self._open: list[Any] = []
        self._sockets: list[sockets.Socket] = []  # closed with the context, not by the collector

    def head(self, port: int = 0, authenticate: bool = True) -> Head:
        head = Head(self.key, port, authenticate)
        self._open.append(head)
        return head

    def router(self) -> sockets.Socket:
        """A ROUTER of the cluster that nobody drives."""
        return self._keep(sockets.router(self.context, self.key.server.secret))

    def dealer(self) -> sockets.Socket:
        """A DEALER of the cluster that nobody drives."""
        return self._keep(sockets.dealer(self.context, self.info()))

    def plain(self, kind: int) -> sockets.Socket:
        """A socket without any option of ours."""
        return self._keep(self.context.socket(kind))

    def _keep(self, socket: sockets.Socket) -> sockets.Socket:
        self._sockets.append(socket)
        return socket

    def info(self, **changes: Any) -> ConnectionInfo:
        pair = self.key.client()
        fields: dict[str, Any] = {
            "cluster_id": self.key.cluster_id.hex(),
            "addresses": ["127.0.0.1:10001"],
            "server_public": self.key.server.public,
            "client_public": pair.public,
            "client_secret": pair.secret,
            "pid": 1,
            "started": 1.0,
        }
        return ConnectionInfo(**{**fields, **changes})

    def client(self, port: int, socket: sockets.Socket | None = None, **changes: Any) -> Client:
        """A client of the cluster; or with ``changes`` in what it knows, or its own socket."""
        if socket is None:
            socket = sockets.dealer(self.context, self.info(**changes))
        client = Client(socket, port)
        self._open.append(client)
        return client

    def link(self, port: int, up_bytes: int = 1 << 40, down_bytes: int = 1 << 40) -> Link:
        link = Link(port, up_bytes, down_bytes)
        self._open.append(link)
        return link

    def admitted(self, head: Head, port: int | None = None) -> tuple[Client, bytes]:
        """A client whose HELLO the head has, and its routing id."""
        client = self.client(head.port if port is None else port)
        before = set(head.peers())
        client.socket.send(b"HELLO", zmq.DONTWAIT)
        self.until(lambda: not before.issuperset(head.peers()))
        return client, head.peers()[-1]

    def until(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Drive everything until ``condition`` holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "not reached in time"
            self._step()

    def settle(self, quiet_s: float = 0.1) -> None:
        """Drive everything until nothing has arrived for ``quiet_s``: to show that nothing does."""
        deadline = time.monotonic() + quiet_s
        while time.monotonic() < deadline:
            if self._step():
                deadline = time.monotonic() + quiet_s

    def _step(self) -> bool:
        poller = zmq.Poller()
        parts = [part for part in self._open if isinstance(part, Head | Client)]
        for part in parts:
            poller.register(part.monitor.socket, zmq.POLLIN)
            poller.register(part.router if isinstance(part, Head) else part.socket, zmq.POLLIN)
            if isinstance(part, Head) and part.zap:
                poller.register(part.zap.socket, zmq.POLLIN)
        ready = bool(poller.poll(STEP_MS))
        for part in parts:
            part.step()
        return ready

    def drop(self, part: Head | Client) -> None:
        """Close a part now."""
        self._open.remove(part)
        part.close()

    def close(self) -> None:
        for part in self._open:
            part.cut() if isinstance(part, Link) else part.close()
        self.context.destroy(0)


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.close()
