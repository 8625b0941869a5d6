"""The head daemon: composition root of traffic controller, GCS, store and sockets. Wiring only.

Starts the raylet of its own machine and watches over it.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from zray import limits
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.core.incidents import Incidents
from zray.errors import (
    DataDirectoryLockedError,
    ProtocolError,
    StartError,
    ZrayError,
)
from zray.nodes import imports
from zray.nodes.head.liveness import LivenessProbes
from zray.nodes.head.own_node import OwnNode
from zray.nodes.head.own_raylet import OwnRaylet
from zray.nodes.options import HeadOptions, decode_node
from zray.protocol import codec
from zray.protocol.messages import KIND
from zray.runtime import connection, identity, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.doorkeeper import Doorkeeper
from zray.runtime.keys import ClusterKey, secret_directory
from zray.runtime.linux import machine
from zray.runtime.linux.heap import Heap
from zray.runtime.log import Log, with_traceback
from zray.runtime.loop import Loop, raise_descriptor_limit
from zray.runtime.zap import ZapServer
from zray.store.base import Store
from zray.store.lock import DirectoryLock
from zray.store.memory import MemoryStore

WILDCARDS = ("0.0.0.0", "::")  # hosts that mean every network of this machine
LAST_WORDS_S = 0.5  # what a lost peer has said is read first, unless others say too much
LOCAL_PREFIX = "local-"  # names of drivers' own clusters: local-<driver's pid>-<random>


class Head:
    """One head process. ``start`` binds and announces; ``run`` serves until it is told to stop."""

    def __init__(self, options: HeadOptions, lifeline_fd: int | None = None) -> None:
        self._options = options
        self._lifeline_fd = lifeline_fd
        self.log = Log("zray-head")
        self._loop = Loop(self._callback_failed)
        self._heap = Heap()
        self._look_at = 0.0  # at connections of drivers that say nothing
        self._unsent: dict[bytes, deque[bytes]] = {}
        self._routes: dict[int, bytes] = {}  # connection's descriptor -> route
        self._fds: dict[bytes, int] = {}
        self._cut: dict[bytes, float] = {}  # routes whose connection is lost, and since when
        self._probes = LivenessProbes(lambda *answer: self._gcs.members.probed(*answer))
        self._raylet: OwnRaylet | None = None
        self._name_lock: DirectoryLock | None = None
        self._stop_reason = ""

    # ---- start -----------------------------------------------------------------------------

    def start(self) -> ConnectionInfo:
        """Lock the data directory, bind, open the store, write the connection file.

        Raises:
            DataDirectoryLockedError, PortInUseError, StoreError, KeyFileError: each says who or
                what is in the way and what to do.
        """
        options = self._options
        if options.local:
            sweep_local_clusters()
        self.directory = connection.cluster_directory(options.name)
        data = secret_directory(options.data_directory or self.directory)
        self._lock_name(data)
        self._raylet = OwnRaylet(options.node, data, self.log, local=options.local)
        self._store = self._make_store(data)
        opened = self._store.open(limits.ADOPT_EPOCHS if options.adopt else 0)
        if options.local:
            key = ClusterKey.create()
        else:
            key = ClusterKey.load_or_create(data / "cluster.key")
        if opened.cluster_id is None:
            self._store.set_cluster_id(key.cluster_id)
        elif opened.cluster_id != key.cluster_id:
            raise StartError(
                f"{data} holds the state of another cluster than its cluster.key; restore the key "
                "that belongs to it, or start with an empty --data-directory"
            )
        self._context = sockets.context()
        self._zap = ZapServer(self._context, [key.client().public], log=self.log)
        self._router = sockets.router(self._context, key.server.secret)
        self._doorkeeper = Doorkeeper(self._router)
        port = sockets.bind(self._router, options.host, options.port)
        self._doorkeeper.port = port
        self.info = ConnectionInfo(
            cluster_id=key.cluster_id.hex(),
            addresses=self._addresses(port),
            server_public=key.server.public,
            client_public=key.client().public,
            client_secret=key.client().secret,
            pid=os.getpid(),
            started=time.time(),
            name=options.name,
        )
        now = self._loop.now()
        incidents = Incidents(self.log, with_traceback)
        versions, started = identity.versions(pickles=True), self.info.started
        head = HeadIdentity(key.cluster_id, opened.epoch, versions, started, os.urandom(16))
        self._gcs = Gcs(head, opened.rows, now, incidents)
        self._gcs.members.driver_lost_s = options.driver_lost_after_s
        self._sessions, self._controller = self._gcs.sessions, self._gcs.controller
        self._watch()
        self.info.write(self.directory / "connection.json")
        self._own_node = OwnNode(*(self._raylet, self._loop, self._gcs, self.info))
        self._own_node.begin()
        return self.info

    def _lock_name(self, data: Path) -> None:
        """Where the store's lock is elsewhere, two heads could still have one cluster's name."""
        if self._options.local or data.samefile(self.directory):
            return
        lock = DirectoryLock(self.directory)
        try:
            lock.acquire()
        except DataDirectoryLockedError as error:
            name = self._options.name
            raise DataDirectoryLockedError(
                f"a head of a cluster named {name!r} runs here already; stop it with `zray stop "
                f"--name {name}`, or choose another --name ({error.args[0]})"
            ) from None
        self._name_lock = lock

    def _make_store(self, data: Path) -> Store:
        if self._options.local:
            return MemoryStore()
        from zray.store.sqlite import SqliteStore

        return SqliteStore(data)

    def _addresses(self, port: int) -> list[str]:
        host = self._options.host
        if host not in WILDCARDS:
            return [connection.format_address(host, port)]
        hosts = [*machine.detect().addresses, "127.0.0.1"]
        return [connection.format_address(one, port) for one in dict.fromkeys(hosts)]

    def _watch(self) -> None:
        loop = self._loop
        loop.handle_signals()
        loop.watch_zmq(self._doorkeeper.monitor.socket, self._read_monitor, rare=True)
        loop.watch_zmq(self._zap.socket, self._answer_zap, rare=True)
        loop.watch_zmq(self._router, self._read_router)
        fd = self._store.fileno()
        if fd is not None:
            loop.watch(fd, lambda: None)
        if self._lifeline_fd is not None:
            loop.watch(self._lifeline_fd, self._lifeline_ended)

    def _take_leave(self) -> None:
        """Serve on until the nodes that end too have said so: a later start awaits none of them."""
        deadline = self._loop.now() + limits.STOP_S / 2
        self._own_node.let_go()
        while self._loop.now() < deadline and (self._own_node.runs() or self._nodes_leave()):
            self._loop.turn(0.02)
            self._drop_cut()
            self._settle()
        self._own_node.end()
        self._settle()

    def _nodes_leave(self) -> bool:
        """Whether there are nodes that were told to stop and have not left yet."""
        nodes = self._gcs.members.nodes.values()
        return bool(self._sessions.stopping) and any(node.connected for node in nodes)

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
                self._gcs.incidents.record("reading a peer's message", "", error, now)

    def _receive(self, frames: list[Any], now: float) -> None:
        route = frames[0].bytes
        last = frames[-1]
        if route not in self._fds:
            self._read_monitor()  # of whoever had the descriptor before, the end was told before
            fd = sockets.peer_fd(last)
            self._fds[route] = fd
            self._routes[fd] = route
            self._doorkeeper.spoke(fd)
        if not 3 <= len(frames) <= limits.FRAMES_MAX or frames[1].bytes != KIND:
            self._controller.refuse(route, 0, f"a message has the frames {KIND!r} and payload")
            return
        try:
            payload = codec.decode(frames[2].buffer)
        except ProtocolError as error:
            self._controller.refuse(route, 0, str(error))
            return
        self._controller.receive(route, sockets.user_id(last), payload, now)

    def _read_monitor(self) -> None:
        self._loop.look(self._doorkeeper.monitor.socket)
        for event in self._doorkeeper.read():
            if event.event == zmq.EVENT_DISCONNECTED:
                route = self._routes.pop(event.value, None)
                if route is not None:
                    self._cut[route] = self._loop.now()

    def _drop_cut(self) -> None:
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
        self._sessions.link_lost(route, self._loop.now())

    def _lifeline_ended(self) -> None:
        self._loop.unwatch(self._lifeline_fd)
        self._stop_reason = "its driver ended"

    # ---- turn ------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until a signal, the lifeline's end or a SHUTDOWN."""
        raise_descriptor_limit()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # a long queue is live data, not garbage
        while not self._ended():
            deadline = self._gcs.turn.deadline()
            wait = 0.01 if self._unsent else deadline - self._loop.now()
            if self._probes or self._gcs.members.suspects():
                wait = min(wait, 0.25)
            self._loop.turn(0.0 if self._cut else min(wait, 1.0))
            self._gcs.turn.attempt("ending lost connections", "", self._drop_cut)
            self._settle()
            self._gcs.turn.attempt("looking at suspects' ports", "", self._probe_suspects)
            self._gcs.turn.attempt("looking at drivers", "", self._look_at_drivers)
            self._own_node.tend()
            self._heap.tend(self._loop.now())
        self._take_leave()

    def _ended(self) -> bool:
        if self._sessions.stopping:
            self._stop_reason = self._sessions.stopping
        if self._loop.signals:
            self._stop_reason = "it got a signal to stop"
        failure = self._store.failure()
        if failure is not None:
            raise failure
        return bool(self._stop_reason)

    def _settle(self) -> None:
        gcs, now = self._gcs, self._loop.now()
        self._persist(now)
        stall = self._store.stall()
        self._sessions.store_stalls(stall.args[0] if stall is not None else "")
        gcs.turn.settle(now)
        while gcs.journal:
            if not self._persist(now):
                break
            gcs.turn.settle(now)
        self._send()

    def _persist(self, now: float) -> bool:
        """Hand new rows to the store and take what has become durable; whether there was any."""
        for token, rows in self._gcs.journal.take():
            self._store.submit(token, rows)
        completed = self._store.completed()
        for token in completed:
            self._gcs.turn.committed(token, now)
        return bool(completed)

    def _send(self) -> None:
        for route, messages in self._gcs.routed.take().items():
            unsent: list[codec.Unsent] = []
            try:
                payloads = codec.encode(self._gcs.epoch, messages, unsent)
            except Exception as error:
                self._cut_off(route, error)
                continue
            self._unsent.setdefault(route, deque()).extend(payloads)
            if unsent:
                self._gcs.too_large(route, unsent)
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
        session = self._sessions.by_route.get(route)
        whom = session.member.in_words() if session is not None else ""
        self._gcs.incidents.record("sending to a peer", whom, error, self._loop.now())
        self._lost(route)

    # ---- proof of death --------------------------------------------------------------------

    def _probe_suspects(self) -> None:
        suspects = self._gcs.members.suspects()
        if suspects or self._probes:
            wanted = {suspect.process_id: suspect.liveness for suspect in suspects}
            self._probes.look(wanted, self._loop.now())

    def _look_at_drivers(self) -> None:
        """One that says nothing is slow, unless its machine does not even acknowledge."""
        now = self._loop.now()
        if now < self._look_at:
            return
        self._look_at = now + 1.0
        for job in self._gcs.members.jobs.values():
            if job.connected and now - job.heard > limits.TRANSPORT_SILENT_S:
                route = self._sessions.routes[job.process_id]
                if sockets.is_out_of_reach(self._fds[route]):
                    self._lost(route)

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop cleanly: say what is left to say, leave no file that misleads.

        The raylet ends, too, unless the head could not go on: then it waits for the next.
        """
        if self._raylet is not None:
            if self._stop_reason:
                self._raylet.end(limits.STOP_S / 2)
            else:
                self._raylet.leave()
        if hasattr(self, "_controller"):
            self._send()
            (self.directory / "connection.json").unlink(missing_ok=True)
            self._loop.unwatch_zmq(self._router)
            self._doorkeeper.close()
            self._router.close(int(limits.RESULT_DELAY_S * 1000) + 100)
            self._zap.close()
            self._context.term()
            self._store.close()
        self._probes.close()
        if self._name_lock is not None:
            self._name_lock.release()
        self._loop.close()
        if self._options.local and hasattr(self, "directory"):
            import shutil

            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def stop_reason(self) -> str:
        return self._stop_reason

    def _callback_failed(self, callback: str, error: Exception) -> None:
        self._gcs.incidents.record(f"{callback} of the head", "", error, self._loop.now())


def sweep_local_clusters() -> None:
    """Remove what drivers that were killed, and their heads too, have left behind."""
    import shutil

    for directory in (connection.home() / "clusters").glob(f"{LOCAL_PREFIX}*"):
        pid = directory.name.removeprefix(LOCAL_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)


def decode_head(text: str) -> HeadOptions:
    """Head options from JSON, as a driver passes them to its local head."""
    found = msgspec.json.decode(text, type=dict[str, Any])
    node = decode_node(found.pop("node"))
    return HeadOptions(**found, node=node)


def serve(
    options: HeadOptions,
    on_ready: Callable[[ConnectionInfo], None],
    lifeline_fd: int | None = None,
) -> None:
    """A head's whole life; ``on_ready`` is called once it serves.

    Raises:
        What ``Head.start`` raises; StoreError: the store failed meanwhile; StartError: a module of
        its node's ``imports`` cannot be imported.
    """
    offered = imports.check(options.node.imports, options.node.import_directory)
    options = options._replace(node=options.node._replace(offers=tuple(offered)))
    head = Head(options, lifeline_fd)
    if offered:
        head.log(imports.in_words(offered))
    try:
        on_ready(head.start())
        head.run()
    finally:
        head.close()
    if not options.local:
        head.log(f"stopped: {head.stop_reason}")


def ready_text(info: ConnectionInfo, host: str) -> str:
    """What a head that listens on ``host`` says once it serves: how to join and use it."""
    address = info.addresses[0]
    exposed = (
        "  listens on ALL networks of this machine; all traffic is encrypted, and nobody gets in\n"
        "    without the cluster's key\n"
    )
    return (
        f"zray head READY at {address} (cluster {info.name}, pid {info.pid})\n"
        f"{exposed if host in WILDCARDS else ''}"
        f"  add a worker node:   zray-worker --address {address}\n"
        f"    (on another machine: copy {connection.connection_path(info.name)} there first and\n"
        f"     point ZRAY_CONNECTION_FILE at the copy; it holds the cluster's key)\n"
        f'  use it from Python:  zray.init("{address}")\n'
        f"  look at it:          zray status      stop it: zray stop"
    )


def _tell(fd: int, found: dict[str, Any]) -> None:
    os.write(fd, json.dumps(found).encode() + b"\n")
    os.close(fd)


def main() -> int:
    """Entry of a head that a driver starts: OPTIONS as JSON, READY and LIFELINE as descriptors.

    READY gets one line of JSON: where the connection file is, or the error.
    """
    text, ready, lifeline = sys.argv[1:]
    serves = False

    def on_ready(info: ConnectionInfo) -> None:
        nonlocal serves
        serves = True
        path = str(connection.connection_path(info.name))
        _tell(int(ready), {"connection": path, "address": info.addresses[0], "pid": info.pid})

    try:
        serve(decode_head(text), on_ready, int(lifeline))
    except (ZrayError, ValueError, OSError) as error:
        if serves:
            print(f"zray-head: {error}", file=sys.stderr)
        else:
            _tell(int(ready), {"error": str(error), "code": getattr(error, "code", "")})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
