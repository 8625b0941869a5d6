"""The raylet daemon: composition root of the Raylet machine, its link, its workers and its store.

Wiring only: what happens is decided by ``zray.core.raylet.raylet``.
"""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from zray import limits
from zray.core.incidents import Incidents
from zray.core.raylet.effects import (
    Builds,
    Effect,
    FindProcess,
    KillWorker,
    Looks,
    StartWorker,
)
from zray.core.raylet.head_session import HEAD
from zray.core.raylet.raylet import Raylet
from zray.errors import (
    HeadConnectionError,
    HeadSilentError,
    KeyFileError,
    ZrayError,
)
from zray.nodes import contact, imports
from zray.nodes.node_record import NodeRecord
from zray.nodes.options import NodeOptions
from zray.nodes.raylet.head_words import HeadWords
from zray.nodes.raylet.node_info import node_info, store_bytes
from zray.nodes.raylet.peer_port import PeerPort
from zray.nodes.raylet.relay_links import RelayLinks
from zray.nodes.raylet.store_server import StoreServer
from zray.nodes.raylet.worker_processes import WorkerProcesses
from zray.protocol.messages import FENCED, Goodbye, Message
from zray.runtime import connection, identity, log_files, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.disk import OwnDirectory
from zray.runtime.link import HeadLink
from zray.runtime.linux import machine
from zray.runtime.linux.heap import Heap
from zray.runtime.linux.processes import Interpreter, Zygote
from zray.runtime.log import Log, with_traceback
from zray.runtime.log_files import LogBounds, OwnLog
from zray.runtime.loop import Loop, raise_descriptor_limit
from zray.runtime.scout import LOOK_S, Scout

if TYPE_CHECKING:
    from zray.nodes.raylet.environment_builds import EnvironmentBuilds
    from zray.nodes.raylet.operations import Operations

CHECK_S = 0.05  # while processes wait for memory, or other raylets for an answer


class Lifeline(NamedTuple):
    """A pipe whose end is the end of the head that started this node.

    ``ended`` gives the reason to stop then, or none; ``addresses`` tells where a head is now, if it
    may have moved.
    """

    fd: int
    ended: Callable[[], str] = lambda: "its head ended"
    addresses: Callable[[], list[str]] = list


class RayletNode:
    def __init__(
        self,
        info: ConnectionInfo,
        addresses: list[str],
        options: NodeOptions,
        lifeline: Lifeline | None = None,
        on_ready: Callable[[str], None] = lambda text: None,
        chosen: tuple[bytes, int] | None = None,
    ) -> None:
        """``chosen``: its node id and incarnation, where somebody else decides on them.

        ``lifeline``: of the head that has started it, and that speaks for it.
        """
        self._info = info
        self._options = options
        self._lifeline = lifeline
        self.is_orphan = False  # the head that started it has ended
        self._on_ready = on_ready
        self.log = Log("zray-worker")
        self._loop = Loop(lambda callback, error: self._failed(f"{callback} of the node", error))
        bounds = LogBounds.from_environment()
        environment = _worker_environment()
        zygote = Zygote(extra_env=environment)
        zygote.start()  # first: it gets its imports done while this process goes on
        self._found = machine.detect()
        self._context = sockets.context()
        self._host = _own_address(addresses[0]) or (self._found.addresses or ["127.0.0.1"])[0]
        self._port = PeerPort(
            *(self._loop, self._context, info, self._host),
            lambda peer, message: self._raylet.peer_messages.receive(peer, message),
        )
        self._raylet = self._make_machine(chosen)
        self._relays = RelayLinks(self._loop)
        self._workers = WorkerProcesses(
            *(self._loop, zygote, environment, self._interpreter),
            *(self._raylet, self._found.gpus, options.log_directory, bounds),
            *(lambda worker_id: self._store.process_gone(worker_id), self.log, self._failed),
        )
        self._raylet.take_back = self._workers.take_back
        self._operations: Operations | None = None  # once somebody asks
        self._builds: EnvironmentBuilds | None = None  # with the first environment
        self.own_log = OwnLog(
            *(log_files.declared, bounds),
            rotates=lifeline is None,
            reopened=self._workers.redirect,
        )
        self._store: StoreServer = self._make_store()
        heads = self._raylet.session.known_heads
        heads.aim(addresses)
        self._link = HeadLink(
            *(self._context, info, heads),
            lambda: (self._raylet.session.epoch, self._raylet.hello()),
        )
        self._scout = Scout(self._context, info, heads)
        self._workers.head_address = heads.in_short
        self._heap = Heap()
        self._linked_once = False
        self._words = HeadWords(heads, self.log)
        self.stop_reason = ""
        self._link_cut = False
        self._lost_since = self._loop.now()
        self._failure: ZrayError | None = None  # why it cannot go on

    def _make_machine(self, chosen: tuple[bytes, int] | None) -> Raylet:
        found, options = self._found, self._options
        ids = identity.id_source()
        node_id, incarnation = chosen or (ids.process_id(), 1)
        info = node_info(
            *(options, found, node_id),
            host=self._host,
            liveness=self._port.address,
            is_of_head=self._lifeline is not None,
        )
        gpu_count = -(-dict(info.resources).get("GPU", 0) // limits.RESOURCE_UNIT)
        versions = identity.versions(pickles=True)
        ours = (options.imports, options.import_directory, options.max_workers)
        incidents = Incidents(self.log, with_traceback)
        return Raylet(node_id, info, versions, ids, gpu_count, incarnation, *ours, incidents)

    def _make_store(self) -> StoreServer:
        """Memory for the objects of one incarnation."""
        raylet, options = self._raylet, self._options
        mark = store_bytes(options, self._found)
        directory = OwnDirectory(options.spill_directory, "spill")
        store = StoreServer(
            *(self._loop, raylet.node_id, lambda: raylet.objects, mark, directory),
            *(self._workers.channels.__contains__, raylet.named, self._failed),
        )
        raylet.objects.attach(store.objects)
        raylet.objects.puller.direct = True
        self._port.peer_transfers = raylet.peer_transfers
        self._port.lease_relays = raylet.lease_relays
        self._relays.attach(raylet.lease_relays)
        return store

    # ---- life ------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            HeadConnectionError: the head refused the node, or stays away.
            StartError: workers cannot be started here.
        """
        loop, raylet = self._loop, self._raylet
        raise_descriptor_limit()
        loop.handle_signals()
        self._workers.zygotes.watch_own()
        if self._lifeline is not None:
            loop.watch(self._lifeline.fd, self._lifeline_ended)
        self._open_link()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        while not (raylet.stopping or loop.signals or self._failure or self._workers.failure):
            loop.turn(max(0.0, self._deadline() - loop.now()))
            self._settle()
        if failure := self._failure or self._workers.failure:
            raise failure
        self.stop_reason = raylet.stopping or "it got a signal to stop"

    def _deadline(self) -> float:
        now = self._loop.now()
        if self._store.waits() or self._port.waits():
            return now + CHECK_S
        if self._link.socket is None:
            return min(self._raylet.deadline(), self._link.retry_at)
        if not self._link.flush():
            return now + 0.005
        if self._scout.looks:
            return now + LOOK_S
        return min(self._raylet.deadline(), now + 1.0)

    def _settle(self) -> None:
        raylet, now = self._raylet, self._loop.now()
        self._attempt("tending the link to the head", self._tend_link, now)
        if raylet.objects.store is not self._store.objects:  # this is another incarnation
            self._attempt("closing a store", self._store.close)
            self._store = self._make_store()
        raylet.settle(now)
        self._heap.tend(now)
        self._attempt("rotating this node's log", self.own_log.tend, now)
        self._attempt("tending the store", self._store.tend, raylet.session.cluster_id, now)
        self._attempt("tending connections of other nodes", self._port.tend, now)
        self._workers.tend(now)
        outgoing = raylet.outbox.take()
        if HEAD in outgoing:
            self._send_head(outgoing.pop(HEAD), now)
        workers = self._workers
        for worker_id in [peer for peer in outgoing if peer in workers.channels]:
            workers.send(worker_id, outgoing.pop(worker_id))
        effects, raylet.effects = raylet.effects, []
        for effect in effects:  # now: making a process takes longer than all before
            if isinstance(effect, StartWorker):
                workers.start(effect)
            elif isinstance(effect, KillWorker):
                workers.kill(effect.worker_id)
            else:
                self._attempt("looking around", self._carry_out, effect)
        for worker_id, messages in outgoing.items():
            workers.send(worker_id, messages)
        packets, raylet.behind.packets = raylet.behind.packets, []
        for worker_id, tasks in packets:
            workers.put(worker_id, tasks)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, FindProcess):
            if machine.has_ended(effect.pid):
                self._raylet.driver_ended(effect.job_id)
        elif isinstance(effect, Builds):
            self._build(effect)
        elif isinstance(effect, Looks):
            if self._operations is None:
                from zray.nodes.raylet.operations import Operations

                self._operations = Operations(
                    *(self._loop, lambda: self._raylet, lambda: self._store.objects),
                    *(self._options.log_directory, self._workers),
                )
            self._operations.carry_out(effect)

    def _build(self, effect: Builds) -> None:
        if self._builds is None:
            from zray.nodes.raylet.environment_builds import EnvironmentBuilds

            self._builds = EnvironmentBuilds(
                self._loop, lambda: self._raylet.environments, self._workers.zygotes.forget
            )
        self._builds.carry_out(effect)

    def _interpreter(self, part_id: str) -> Interpreter | None:
        return self._builds.interpreters.get(part_id) if self._builds is not None else None

    def _attempt(self, what: str, action: Callable[..., object], *arguments: object) -> None:
        """Do a part of the work; if it fails, that is recorded, and the rest goes on."""
        try:
            action(*arguments)
        except Exception as error:
            self._failed(what, error)

    def _send_head(self, messages: list[Message], now: float) -> None:
        """What cannot be sent ends the session: the next one begins with the full state."""
        try:
            unsent = self._link.send(self._raylet.session.epoch, messages)
            if unsent:
                self._raylet.tasks.too_large(unsent)
        except Exception as error:
            self._failed("sending to the head", error)
            self._link_cut = True

    # ---- the head --------------------------------------------------------------------------

    def _open_link(self) -> None:
        self._link_cut = False
        if self._lifeline is not None:
            self._raylet.session.known_heads.aim(self._lifeline.addresses())
        self._link.open(self._loop.now())
        assert self._link.socket is not None and self._link.monitor is not None
        self._loop.watch_zmq(self._link.socket, self._read_head)
        self._loop.watch_zmq(self._link.monitor.socket, self._look_at_link, rare=True)

    def _close_link(self, now: float) -> None:
        if self._link.socket is not None and self._link.monitor is not None:
            self._loop.unwatch_zmq(self._link.socket)
            self._loop.unwatch_zmq(self._link.monitor.socket)
        if self._raylet.session.linked:
            self._lost_since = now
        self._raylet.session.disconnected()
        self._link.close(now)

    def _read_head(self) -> None:
        for payload in self._link.receive():
            self._raylet.session.receive(payload, self._loop.now())
        self._link_cut = self._link_cut or self._link.garbled
        if self._raylet.session.linked:
            self._link.welcomed(self._raylet.session.head_minor)
            self._words.linked()
            if not self._linked_once:
                self._linked_once = True
                name, address = self._raylet.info.name, self._link.address
                self._on_ready(f"node {name} READY, joined the head at {address}")

    def _look_at_link(self) -> None:
        self._link_cut = self._link.lost()

    def _tend_link(self, now: float) -> None:
        link, raylet = self._link, self._raylet
        if link.socket is None:
            if now - self._lost_since > limits.HEAD_LOST_GRACE_S:
                text = f"no head for {limits.HEAD_LOST_GRACE_S:.0f} s; the node gave up"
                self._failure = HeadConnectionError(text)
            elif now >= link.retry_at:
                self._open_link()
            return
        silent = raylet.session.linked and now - raylet.session.silent_since() > limits.DEAD_S
        unanswered = link.overdue(now)
        followed = link.heads.parting or (raylet.session.linked and self._scout.look(now))
        refusal = raylet.session.refused
        if refusal is not None and refusal.code and not self._linked_once:
            text = f"the head at {link.address} refused this node: {refusal.text}"
            self._failure = HeadConnectionError(text, code=refusal.code)
        elif refusal is not None and refusal.code not in ("", FENCED):
            self._words.refused(refusal.text)
        if self._link_cut or silent or unanswered or followed or refusal is not None:
            raylet.session.refused = None
            if not self._linked_once:
                self._tried(unanswered=unanswered)
            self._close_link(now)
            if self._words.awaits_leader(now):
                self._lost_since = now

    def _tried(self, *, unanswered: bool) -> None:
        """No head has taken this node yet: whether one may, is to be seen from this attempt."""
        link = self._link
        if link.heads.stands_by is not None or not link.heads.is_last():
            return
        if link.error is not None:
            self._failure = link.error
        elif unanswered and not self._lifeline:
            self._failure = HeadSilentError(
                f"the head at {link.address} accepted the connection but did not answer "
                f"within {limits.CONNECT_TIMEOUT_S:g} s; see zray status and its log"
            )

    # ---- small things ----------------------------------------------------------------------

    def _lifeline_ended(self) -> None:
        assert self._lifeline is not None
        self._loop.unwatch(self._lifeline.fd)
        self.is_orphan = True
        self._raylet.stopping = self._lifeline.ended()

    def close(self) -> None:
        """Say goodbye, end every worker, leave nothing."""
        now = self._loop.now()
        self._scout.close(now)
        if self._link.socket is not None:
            if self._raylet.session.linked:
                reason = self._raylet.stopping or "it was told to stop"
                self._link.send(self._raylet.session.epoch, [Goodbye(0, reason)])
            self._loop.unwatch_zmq(self._link.socket)
            self._link.socket.close(500)
        self._workers.close()
        for part in (self._operations, self._builds):
            if part is not None:
                part.close()
        self._link.close(now)
        self._port.close()
        self._relays.close_all()
        self._context.term()
        self._store.close()
        self._loop.close()

    def _failed(self, what: str, error: Exception, whom: str = "") -> None:
        self._raylet.incidents.record(what, whom, error, self._loop.now())


def _worker_environment() -> dict[str, str]:
    return {"PYTHONUNBUFFERED": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _own_address(head: str) -> str:
    """The address of this machine that faces the head (no packet is sent)."""
    host, port = connection.parse_address(head)
    with contextlib.suppress(OSError):
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe_socket:
            probe_socket.connect(target)
            return str(probe_socket.getsockname()[0])
    return ""


def serve(
    options: NodeOptions,
    addresses: list[str],
    on_ready: Callable[[str], None],
    wait_s: float,
    on_wait: Callable[[str], None],
) -> None:
    """A raylet's whole life, from the addresses of its heads.

    Args:
        addresses: none: the head that runs on this machine.
        on_ready: told in words that the node has joined.
        wait_s: how long a head may take to come up.
        on_wait: told in words for what the node waits.

    Raises:
        ValueError: an address is malformed.
        HeadConnectionError: no head at any address, no key for it, or it went away for good.
        KeyFileError: the connection file is there and cannot be used.
        StartError: a module of ``options.imports`` cannot be imported.
    """
    offered = imports.check(options.imports, options.import_directory)
    info, ordered = contact.await_head(addresses, wait_s, on_wait)
    options = options._replace(offers=tuple(offered))
    node = RayletNode(info, ordered, options, on_ready=on_ready)
    if offered:
        node.log(imports.in_words(offered))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.closing(NodeRecord(info.cluster_id)))
        except (OSError, KeyFileError) as error:  # a full disk, a home that is read-only
            node.log(f"zray stop will not find this node if its head is killed: {error}")
        run_to_end(node)
    node.log(f"stopped: {node.stop_reason}")


def run_to_end(node: RayletNode) -> None:
    """As ``RayletNode.run``; closes it."""
    try:
        node.run()
    finally:
        node.close()
