"""The head daemon: composition root of a head's process, which leads its cluster or stands by.

Starts the raylet of its own machine and watches over it. Wiring only.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from zray import limits
from zray._version import __version__
from zray.core.head.events import WARNING
from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.core.incidents import Incidents
from zray.errors import DataDirectoryLockedError, FencedError, StoreError
from zray.nodes import imports
from zray.nodes.head import local_clusters
from zray.nodes.head.addresses import own_addresses, own_node_name, reachable
from zray.nodes.head.connection_file import ConnectionFile
from zray.nodes.head.dashboard import Dashboard
from zray.nodes.head.gcs_server import GcsServer
from zray.nodes.head.head_port import HeadPort
from zray.nodes.head.head_store import SharedStore, cluster_key, make_store
from zray.nodes.head.own_identity import OwnIdentity
from zray.nodes.head.own_node import OwnNode
from zray.nodes.head.own_raylet import OwnRaylet
from zray.nodes.head.raylet_process import RayletProcess
from zray.nodes.options import HeadOptions
from zray.protocol import messages as m
from zray.protocol.head_messages import HeadInfo
from zray.protocol.histogram import Histogram
from zray.runtime import connection, identity, log_files, service
from zray.runtime.connection import ConnectionInfo
from zray.runtime.keys import ClusterKey, secret_directory
from zray.runtime.linux.heap import Heap
from zray.runtime.log import Log, with_traceback
from zray.runtime.log_files import LogBounds, OwnLog
from zray.runtime.loop import Loop, raise_descriptor_limit
from zray.store.base import Opened, Store
from zray.store.lock import DirectoryLock

if TYPE_CHECKING:  # loaded where the store is shared
    from zray.nodes.head.candidacy import Candidacy


class Head:
    """One head process. ``start`` binds; ``run`` serves, or stands by, until it is told to stop.

    What is here outlasts each term in which it leads: its port, its node, its page, its log.
    """

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
        self._incidents = Incidents(self.log, with_traceback)
        self._dashboard = Dashboard(options.dashboard, self._loop, self.log, self._incidents)
        self._heap = Heap()
        self._raylet: OwnRaylet | None = None
        self._locks: list[DirectoryLock] = []
        self._port: HeadPort | None = None
        self._server: GcsServer | None = None  # None: it does not lead
        self._candidacy: Candidacy | None = None  # None: no other head can lead
        self._shown = False  # there is a connection file, and a node
        self._connection_file = ConnectionFile()
        self._stop_reason = ""
        self._turns = Histogram(limits.TURN_BUCKETS_S)
        self._skip_epochs = limits.ADOPT_EPOCHS if options.adopt else 0

    # ---- start -----------------------------------------------------------------------------

    def start(self) -> ConnectionInfo:
        """Lock the data directory and bind; lead, or be a candidate among others.

        Raises:
            DataDirectoryLockedError, PortInUseError, StoreError, KeyFileError, StartError: each
                says who or what is in the way and what to do.
        """
        options = self._options
        if options.local:
            local_clusters.sweep()
        self.directory = connection.cluster_directory(options.name)
        self._data = data = secret_directory(options.data_directory or self.directory)
        self._lock(data)
        shared, node = None, options.node
        if options.store:
            shared = SharedStore(options)
            if not node.name:  # other heads of the cluster have nodes, too
                node = node._replace(name=own_node_name())
        self._raylet = OwnRaylet(
            *(node, data, self.log), local=options.local, begun=self._raylet_process
        )
        if shared is not None:
            self._begin_among_others(shared)
        else:
            self._begin_alone()
        return self.info

    def _begin_alone(self) -> None:
        store = make_store(self._options, self._data)
        try:
            opened = store.open(self._skip_epochs)
            key = cluster_key(self._options, self._data, opened.cluster_id)
            store.set_cluster_id(key.cluster_id)
            self._bind(key)
            self._lead(store, opened)
        except BaseException:
            store.close()
            raise

    def _begin_among_others(self, shared: SharedStore) -> None:
        from zray.nodes.head.candidacy import Candidacy

        port = self._bind(shared.key(self._data))
        me = HeadInfo(
            *(os.urandom(16), reachable(self.info.addresses), self.info.host, self.info.pid),
            *(__version__, self.info.started, False, m.PROTOCOL_MINOR),
        )
        self._candidacy = Candidacy(
            *(shared, self._data, me, self._key.cluster_id, self._skip_epochs),
            *(port, self._loop, self.log),
        )
        self._candidacy.stand_by()
        self._watch()

    def _bind(self, key: ClusterKey) -> HeadPort:
        """Listen at both ports; what others have to know is in ``info`` then."""
        options = self._options
        self._key = key
        self._port = head_port = HeadPort(key, self._loop, self.log, self._incidents)
        port = head_port.bind(options.host, options.port)
        self.info = ConnectionInfo(
            cluster_id=key.cluster_id.hex(),
            addresses=own_addresses(options.host, port),
            server_public=key.server.public,
            client_public=key.client().public,
            client_secret=key.client().secret,
            pid=os.getpid(),
            started=time.time(),
            name=options.name,
            dashboard=self._dashboard.bind(),
        )
        self._own_id = OwnIdentity(key.cluster_id, self._data, shared=bool(options.store))
        assert self._raylet is not None
        self._own_node = OwnNode(
            *(self._raylet, self._loop, self._incidents, self._gcs),
            self.directory / "connection.json",
            self._own_id,
        )
        return head_port

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

    def _watch(self) -> None:
        self._loop.handle_signals()
        if self._lifeline_fd is not None:
            self._loop.watch(self._lifeline_fd, self._lifeline_ended)

    def _lifeline_ended(self) -> None:
        self._loop.unwatch(self._lifeline_fd)
        self._stop_reason = "its driver ended"

    # ---- leading ---------------------------------------------------------------------------

    def _gcs(self) -> Gcs | None:
        """What this head leads with."""
        return self._server.gcs if self._server is not None else None

    def _lead(self, store: Store, opened: Opened) -> None:
        """Serve what the store has. The store is the server's, once there is one."""
        candidacy, started_s, head_id = self._candidacy, self.info.started, os.urandom(16)
        if candidacy is not None:
            started_s, head_id = time.time(), candidacy.me.head_id
        versions = identity.versions(pickles=True)
        which = (self._key.cluster_id, opened.epoch, versions, started_s, head_id, self.info.pid)
        where = self._options.store or str(self._data)
        assert self._port is not None
        server = GcsServer(
            *(HeadIdentity(*which), store, opened, where),
            *(self._port, self._loop, self._incidents, self._turns),
        )
        server.gcs.members.driver_lost_s = self._options.driver_lost_after_s
        server.gcs.inspection.own_node_id = self._own_id.node_id
        self._server = server
        if candidacy is not None:
            candidacy.begins(server.gcs.succession, opened.epoch)
            server.begin()
            for greeting in candidacy.take_waiting():
                server.gcs.controller.receive(*greeting[:3], self._loop.now())
            self.log(f"leads now (epoch {opened.epoch})")
        else:
            self._watch()
            server.begin()
            self._show()

    def _note(self, label: str, text: str) -> None:
        """A warning for whoever asks this head, if it leads."""
        if self._server is not None:
            self._server.gcs.events.add(WARNING, "HEAD", label, text)

    def _show(self) -> None:
        """Now others may find this head, and its node the cluster."""
        heads = self._candidacy.others() if self._candidacy is not None else []
        elsewhere = [*dict.fromkeys(address for head in heads for address in head.addresses)]
        path = self.directory / "connection.json"
        info = replace(self.info, heads=elsewhere)
        self._connection_file.write(path, info, self._loop.now(), self.log)
        if not self._shown:
            self._shown = True
            self._dashboard.serve(path, lambda text: self._note("DASHBOARD_DIED", text))
            self._own_node.begin()

    # ---- among others ----------------------------------------------------------------------

    def _follow(self, candidacy: Candidacy) -> None:
        """Do as the election says.

        Raises:
            StoreError: this head leads no more, or cannot. StartError: it is of another cluster.
        """
        view = candidacy.look()
        if view.stopped and not self._stop_reason:
            self._stop_reason = view.stopped
        server = self._server
        if server is None:
            found = candidacy.opened()
            if found is not None:
                try:
                    self._lead(*found)
                except BaseException:
                    candidacy.retire(found[0])
                    raise
        elif server.gcs.sessions.stopping:
            candidacy.stop_cluster(server.gcs.sessions.stopping)
        elif server.gcs.succession.stepping_down:
            self._step_down(server, server.gcs.succession.stepping_down)
        elif view.state is not candidacy.LEADING:
            server.check_store()
        if candidacy.has_changed():
            if self._server is not None:
                self._server.gcs.succession.changed(candidacy.heads())
            self._connection_file.due_s = self._loop.now()
        if self._shown and self._loop.now() >= self._connection_file.due_s:
            self._show()

    def _step_down(self, server: GcsServer, reason: str) -> None:
        """Another head shall lead: what was acknowledged is stored before."""
        candidacy = self._candidacy
        assert candidacy is not None
        server.settle()
        server.rest()
        closing = candidacy.retire(server.store)
        while closing.is_alive():
            self._loop.turn(0.02)
        if candidacy.leads():
            server.step_down()
        self._server = None
        candidacy.step_down(reason)
        candidacy.stand_by()
        self._forget_term()

    def _lead_ended(self, error: StoreError) -> None:
        """It says nothing more to anybody, and stands by.

        Raises:
            StoreError: no other head is there that could do better.
        """
        candidacy, server = self._candidacy, self._server
        assert candidacy is not None and self._port is not None
        self._server = None
        if server is not None:
            server.rest()
            self._port.cut_off(self._port.routes())
            candidacy.retire(server.store)
        elif not isinstance(error, FencedError) and candidacy.is_alone():
            raise error
        candidacy.failed(error)
        candidacy.stand_by()
        self._forget_term()

    def _forget_term(self) -> None:
        gc.unfreeze()
        gc.collect()

    # ---- turn ------------------------------------------------------------------------------

    def run(
        self,
        on_ready: Callable[[ConnectionInfo], None],
        on_standby: Callable[[ConnectionInfo, str], None],
    ) -> None:
        """Serve until a signal, the lifeline's end or a SHUTDOWN.

        Args:
            on_ready: called once, when this head leads for the first time.
            on_standby: called once, if that is not soon; who leads, in words.

        Raises:
            StoreError: it cannot go on. StartError: it is of another cluster.
        """
        if self._server is not None:
            on_ready(self.info)
        is_told = self._server is not None, self._server is not None
        raise_descriptor_limit()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # a long queue is live data, not garbage
        while not self._ended():
            self._turn()
            if not all(is_told):
                is_told = self._tell(is_told, on_ready, on_standby)
            self._keep()
        service.tell(STOPPING=1)
        self._take_leave()

    def _turn(self) -> None:
        """One round, and what is said in it.

        Raises:
            StoreError, StartError: as ``run``.
        """
        assert self._port is not None
        self._loop.turn(self._port.wait_s(self._wait_s()))
        server, candidacy = self._server, self._candidacy
        if candidacy is None:
            assert server is not None
            server.turn()
            return
        try:
            self._follow(candidacy)
            if self._server is not None:
                self._server.turn()
            else:
                candidacy.turn()
        except StoreError as error:
            self._lead_ended(error)

    def _keep(self) -> None:
        """What is to be done whether this head leads or not."""
        now = self._loop.now()
        if self._shown:
            self._own_node.tend()
        self._dashboard.tend()
        self._heap.tend(now)
        try:
            self._own_log.tend(now)
        except OSError as error:
            self._incidents.record("rotating the head's log", "", error, now)
        self._turns.add(now - self._loop.woke)

    def _tell(
        self,
        is_told: tuple[bool, bool],
        on_ready: Callable[[ConnectionInfo], None],
        on_standby: Callable[[ConnectionInfo, str], None],
    ) -> tuple[bool, bool]:
        """Say once that it stands by, and once that it leads; which of both has been said."""
        stands_by, leads = is_told
        assert self._candidacy is not None
        if self._server is not None:
            self._show()
            on_ready(self.info)
            return True, True
        if not stands_by and self._candidacy.is_settled():
            self._show()
            on_standby(self.info, self._candidacy.in_words())
            return True, leads
        return is_told

    def _wait_s(self) -> float:
        """How long there is nothing to do if nothing arrives."""
        if self._server is not None:
            return self._server.wait_s()
        assert self._candidacy is not None
        return self._candidacy.wait_s()

    def _ended(self) -> bool:
        gcs = self._gcs()
        if gcs is not None and gcs.sessions.stopping:
            self._stop_reason = gcs.sessions.stopping
        if self._loop.signals:
            self._stop_reason = "it got a signal to stop"
        return bool(self._stop_reason)

    # ---- end -------------------------------------------------------------------------------

    def _take_leave(self) -> None:
        """Serve on until the nodes that end too have said so: a later start awaits none of them."""
        deadline = self._loop.now() + limits.STOP_S / 2
        self._own_node.let_go()
        while self._loop.now() < deadline and (self._own_node.runs() or self._nodes_leave()):
            self._turn()
        self._own_node.end()
        server, candidacy = self._server, self._candidacy
        if server is None:
            return
        try:
            others = candidacy is not None and not candidacy.is_alone()
            if others and not server.gcs.sessions.stopping:
                self._step_down(server, self._stop_reason)
            else:
                server.settle()
        except StoreError as error:
            if candidacy is None:
                raise
            self._lead_ended(error)

    def _nodes_leave(self) -> bool:
        """Whether there are nodes that were told to stop and have not left yet."""
        gcs = self._gcs()
        if gcs is None or not gcs.sessions.stopping:
            return False
        return any(node.connected for node in gcs.members.nodes.values())

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
        if self._server is not None:
            self._server.close()
        if self._shown:
            (self.directory / "connection.json").unlink(missing_ok=True)
        if self._port is not None:
            self._port.close()
        if self._server is not None:
            self._server.store.close()
        if self._candidacy is not None:
            self._candidacy.close()
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
        self._incidents.record(f"{callback} of the head", "", error, self._loop.now())


def serve(
    options: HeadOptions,
    on_ready: Callable[[ConnectionInfo], None],
    lifeline_fd: int | None = None,
    raylet: RayletProcess | None = None,
    on_standby: Callable[[ConnectionInfo, str], None] = lambda info, text: None,
) -> None:
    """A head's whole life; ``on_ready`` is called once it leads.

    ``raylet``: the process of its own node, where that was started before. ``on_standby``: as
    ``Head.run``.

    Raises:
        What ``Head.start`` and ``Head.run`` raise; StartError: a module of its node's ``imports``
        cannot be imported.
    """
    offered = imports.check(options.node.imports, options.node.import_directory)
    options = options._replace(node=options.node._replace(offers=tuple(offered)))
    head = Head(options, lifeline_fd, raylet)
    if offered:
        head.log(imports.in_words(offered))
    try:
        head.start()
        head.run(on_ready, on_standby)
    finally:
        head.close()
    if not options.local:
        head.log(f"stopped: {head.stop_reason}")
