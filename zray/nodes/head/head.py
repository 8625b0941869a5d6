"""The head daemon: composition root of the GCS, its port and its store. Wiring only.

Starts the raylet of its own machine and watches over it.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zray import limits
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import Suspect
from zray.core.incidents import Incidents
from zray.errors import DataDirectoryLockedError
from zray.nodes import imports
from zray.nodes.head.dashboard import Dashboard
from zray.nodes.head.head_port import HeadPort
from zray.nodes.head.head_store import cluster_key, make_gcs, make_store
from zray.nodes.head.liveness import LivenessProbes
from zray.nodes.head.own_node import OwnNode
from zray.nodes.head.own_raylet import OwnRaylet
from zray.nodes.head.raylet_process import RayletProcess
from zray.nodes.options import HeadOptions
from zray.protocol.histogram import Histogram
from zray.protocol.messages import Figure
from zray.runtime import connection, identity, log_files
from zray.runtime.connection import ConnectionInfo
from zray.runtime.keys import secret_directory
from zray.runtime.linux import machine
from zray.runtime.linux.heap import Heap
from zray.runtime.log import Log, with_traceback
from zray.runtime.log_files import LogBounds, OwnLog
from zray.runtime.loop import Loop, raise_descriptor_limit
from zray.store.lock import DirectoryLock

if TYPE_CHECKING:
    from zray.nodes.head.vitals import Vitals

WILDCARDS = ("0.0.0.0", "::")  # hosts that mean every network of this machine
PROBE_S = 0.05


class Head:
    """One head process. ``start`` binds and announces; ``run`` serves until it is told to stop."""

    def __init__(
        self,
        options: HeadOptions,
        lifeline_fd: int | None = None,
        raylet: RayletProcess | None = None,
    ) -> None:
        self._options = options
        self._lifeline_fd = lifeline_fd
        self._raylet_process = raylet
        self.log = Log("zray-head")
        self._own_log = OwnLog(log_files.declared, LogBounds.from_environment(), rotates=True)
        self._loop = Loop(self._callback_failed)
        self._dashboard = Dashboard(options.dashboard, self._loop, self.log)
        self._heap = Heap()
        self._look_at = 0.0  # at connections of drivers that say nothing
        self._probe_at = 0.0  # nodes that may have ended
        self._suspects: list[Suspect] | None = None  # those; None: they were not looked for
        self._probes = LivenessProbes(lambda *answer: self._gcs.members.probed(*answer))
        self._raylet: OwnRaylet | None = None
        self._locks: list[DirectoryLock] = []
        self._stop_reason = ""
        self._turns = Histogram(limits.TURN_BUCKETS_S)
        self._vitals: Vitals | None = None  # once somebody asks

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
        self._lock(data)
        self._store = make_store(options, data)
        self._raylet = OwnRaylet(
            *(options.node, data, self.log), local=options.local, begun=self._raylet_process
        )
        opened = self._store.open(limits.ADOPT_EPOCHS if options.adopt else 0)
        key = cluster_key(options, data, opened.cluster_id)
        self._store.set_cluster_id(key.cluster_id)
        self._port = HeadPort(key, self._loop, self.log)
        port = self._port.bind(options.host, options.port)
        dashboard = self._dashboard.bind()
        self.info = ConnectionInfo(
            cluster_id=key.cluster_id.hex(),
            addresses=self._addresses(port),
            server_public=key.server.public,
            client_public=key.client().public,
            client_secret=key.client().secret,
            pid=os.getpid(),
            started=time.time(),
            name=options.name,
            dashboard=dashboard,
        )
        now = self._loop.now()
        self._incidents = incidents = Incidents(self.log, with_traceback)
        versions, started = identity.versions(pickles=True), self.info.started
        which = (key.cluster_id, opened.epoch, versions, started, os.urandom(16), self.info.pid)
        self._head = HeadIdentity(*which)
        where = options.store or str(data)
        self._gcs = make_gcs(self._head, opened.rows, now, incidents, where)
        self._gcs.members.driver_lost_s = options.driver_lost_after_s
        self._sessions = self._gcs.sessions
        self._gcs.inspection.figures = self._figures
        self._watch()
        self.info.write(self.directory / "connection.json")
        self._dashboard.serve(self._gcs, self.directory / "connection.json")
        self._own_node = OwnNode(*(self._raylet, self._loop, self._gcs, self.info))
        self._own_node.begin()
        return self.info

    def _lock(self, data: Path) -> None:
        """What the store's own lock leaves open: the cluster's name here, the data directory."""
        if self._options.store:
            self._locks.append(DirectoryLock(data))
            self._locks[-1].acquire()
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
        self._locks.append(lock)

    def _addresses(self, port: int) -> list[str]:
        host = self._options.host
        if host not in WILDCARDS:
            return [connection.format_address(host, port)]
        hosts = [*machine.detect().addresses, "127.0.0.1"]
        return [connection.format_address(one, port) for one in dict.fromkeys(hosts)]

    def _watch(self) -> None:
        loop = self._loop
        loop.handle_signals()
        self._port.serve(self._gcs)
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
            self._port.drop_cut()
            self._settle()
        self._own_node.end()
        self._settle()

    def _nodes_leave(self) -> bool:
        """Whether there are nodes that were told to stop and have not left yet."""
        nodes = self._gcs.members.nodes.values()
        return bool(self._sessions.stopping) and any(node.connected for node in nodes)

    def _figures(self, now: float) -> list[Figure]:
        """For whoever scrapes metrics."""
        if self._vitals is None:
            from zray.nodes.head.vitals import Vitals

            which = (self._head, self._gcs, self._port, self._store)
            self._vitals = Vitals(*which, self._turns)
        return self._vitals.all(now)

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
            self._loop.turn(self._port.wait_s(self._wait_s()))
            self._gcs.turn.attempt("ending lost connections", "", self._port.drop_cut)
            self._settle()
            self._gcs.turn.attempt("looking at suspects' ports", "", self._probe_suspects)
            self._gcs.turn.attempt("looking at drivers", "", self._look_at_drivers)
            self._own_node.tend()
            self._dashboard.tend()
            now = self._loop.now()
            self._heap.tend(now)
            self._turns.add(now - self._loop.woke)
        self._take_leave()

    def _wait_s(self) -> float:
        """How long there is nothing to do if nothing arrives."""
        due = self._gcs.turn.deadline()
        if self._probes or self._suspects:
            due = min(due, self._loop.now() + 0.25)
        elif self._suspects is None:
            due = min(due, self._probe_at)
        return min(due - self._loop.now(), 1.0)

    def _ended(self) -> bool:
        if self._sessions.stopping:
            self._stop_reason = self._sessions.stopping
        if self._loop.signals:
            self._stop_reason = "it got a signal to stop"
        self._check_store()
        return bool(self._stop_reason)

    def _check_store(self) -> None:
        """Before anything is said: a head that slept may have been followed by another.

        Raises:
            StoreError: it may say nothing more.
        """
        failure = self._store.failure()
        if failure is not None:
            raise failure

    def _settle(self) -> None:
        gcs, now = self._gcs, self._loop.now()
        self._check_store()
        self._persist(now)
        stall = self._store.stall()
        self._sessions.store_stalls(stall.args[0] if stall is not None else "")
        gcs.turn.settle(now)
        while gcs.journal:
            if not self._persist(now):
                break
            gcs.turn.settle(now)
        self._check_store()
        self._port.send()
        try:
            self._own_log.tend(now)
        except OSError as error:
            self._incidents.record("rotating the head's log", "", error, now)

    def _persist(self, now: float) -> bool:
        """Hand new rows to the store and take what has become durable; whether there was any."""
        for token, rows in self._gcs.journal.take():
            self._store.submit(token, rows)
        completed = self._store.completed()
        for token in completed:
            self._gcs.turn.committed(token, now)
        return bool(completed)

    # ---- proof of death --------------------------------------------------------------------

    def _probe_suspects(self) -> None:
        """Not in each turn, for that would look at all nodes."""
        now = self._loop.now()
        if now < self._probe_at and not self._probes:
            self._suspects = None  # there may be some by now
            return
        self._probe_at = now + PROBE_S
        self._suspects = suspects = self._gcs.members.suspects()
        if suspects or self._probes:
            wanted = {suspect.process_id: suspect.liveness for suspect in suspects}
            self._probes.look(wanted, now)

    def _look_at_drivers(self) -> None:
        """One that says nothing is slow, unless its machine does not even acknowledge."""
        now = self._loop.now()
        if now < self._look_at:
            return
        self._look_at = now + 1.0
        for job in self._gcs.members.jobs.values():
            if job.connected and now - job.heard > limits.TRANSPORT_SILENT_S:
                self._port.drop_unreachable(self._sessions.routes[job.process_id])

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop cleanly: say what is left to say, leave no file that misleads.

        The raylet ends, too, unless the head could not go on: then it waits for the next.
        """
        self._dashboard.close()
        if self._raylet is not None:
            if self._stop_reason:
                self._raylet.end(limits.STOP_S / 2)
            else:
                self._raylet.leave()
        if hasattr(self, "_gcs"):
            if self._store.failure() is None:
                self._port.send()
            (self.directory / "connection.json").unlink(missing_ok=True)
            self._port.close()
        if hasattr(self, "_store"):
            self._store.close()
        self._probes.close()
        for lock in self._locks:
            lock.release()
        self._loop.close()
        if self._options.local and hasattr(self, "directory"):
            import shutil

            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def stop_reason(self) -> str:
        """Why it stops; empty: it could not go on."""
        return self._stop_reason

    def _callback_failed(self, callback: str, error: Exception) -> None:
        self._gcs.incidents.record(f"{callback} of the head", "", error, self._loop.now())


def sweep_local_clusters() -> None:
    """Remove what drivers that were killed, and their heads too, have left behind."""
    import shutil

    for directory in (connection.home() / "clusters").glob(f"{connection.LOCAL_PREFIX}*"):
        pid = directory.name.removeprefix(connection.LOCAL_PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)


def serve(
    options: HeadOptions,
    on_ready: Callable[[ConnectionInfo], None],
    lifeline_fd: int | None = None,
    raylet: RayletProcess | None = None,
) -> None:
    """A head's whole life; ``on_ready`` is called once it serves.

    ``raylet``: the process of its own node, where that was started before.

    Raises:
        What ``Head.start`` raises; StoreError: the store failed meanwhile; StartError: a module of
        its node's ``imports`` cannot be imported.
    """
    offered = imports.check(options.node.imports, options.node.import_directory)
    options = options._replace(node=options.node._replace(offers=tuple(offered)))
    head = Head(options, lifeline_fd, raylet)
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
        + (
            f"\n  in a browser:        zray dashboard   ({info.dashboard})"
            if info.dashboard
            else ""
        )
    )
