"""The raylet daemon: composition root of the Raylet machine, its link, zygote and workers.

Wiring only: what happens is decided by ``zray.core.raylet.raylet``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from zray import limits
from zray.core.incidents import Incidents
from zray.core.raylet.effects import KillWorker, StartWorker
from zray.core.raylet.raylet import HEAD, Raylet
from zray.errors import (
    HeadConnectionError,
    HeadSilentError,
    KeyFileError,
    ProtocolError,
    StartError,
    ZrayError,
)
from zray.nodes import contact, imports
from zray.nodes.node_record import NodeRecord
from zray.nodes.options import NodeOptions, units
from zray.nodes.raylet.peer_port import PeerPort
from zray.nodes.raylet.store_server import StoreServer
from zray.nodes.raylet.worker_channel import Printer, WorkerChannel
from zray.protocol import codec
from zray.protocol.messages import FENCED, Goodbye, Message, NodeInfo
from zray.runtime import connection, identity, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.disk import OwnDirectory
from zray.runtime.link import HeadLink
from zray.runtime.linux import machine
from zray.runtime.linux.heap import Heap
from zray.runtime.linux.processes import (
    Exited,
    Forked,
    ForkFailed,
    Zygote,
    ZygoteDied,
)
from zray.runtime.log import Log, with_traceback
from zray.runtime.loop import Loop, raise_descriptor_limit
from zray.runtime.stream import read_available

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
        self._zygote = Zygote(extra_env=_worker_environment())
        self._zygote.start()  # first: it gets its imports done while this process goes on
        self._channels: dict[bytes, WorkerChannel] = {}
        self._found = machine.detect()
        self._oom = machine.OomWatch()
        self._gpus = self._found.gpus
        self._context = sockets.context()
        self._host = _own_address(addresses[0]) or (self._found.addresses or ["127.0.0.1"])[0]
        self._port = PeerPort(self._loop, self._context, info, self._host)
        self._raylet = self._make_machine(chosen)
        self._store = self._make_store()
        self._link = HeadLink(
            self._context, info, addresses, lambda: (self._raylet.epoch, self._raylet.hello())
        )
        self._heap = Heap()
        self._linked_once = False
        self._lease_until = 0.0  # as the workers know it
        self._refusal = ""  # of the head, as it was said last
        self.stop_reason = ""
        self._link_cut = False
        self._lost_since = self._loop.now()
        self._failure: ZrayError | None = None  # why it cannot go on
        self._zygote_fd = -1
        self._has_forked = False
        self._zygote_at = 0.0  # not sooner: it has just been started, or could not be

    def _make_machine(self, chosen: tuple[bytes, int] | None) -> Raylet:
        found, options = self._found, self._options
        amounts = units(options, found.cpus, len(found.gpus), found.memory_bytes)
        info = NodeInfo(
            name=options.name or found.hostname,
            host=self._host,
            pid=os.getpid(),
            resources=sorted(amounts.items()),
            labels=sorted(options.labels.items()),
            machine=found.machine_id,
            liveness=self._port.address,
            offers=list(options.offers),
        )
        ids = identity.id_source()
        gpu_count = -(-amounts.get("GPU", 0) // limits.RESOURCE_UNIT)
        versions = identity.versions(pickles=True)
        node_id, incarnation = chosen or (ids.process_id(), 1)
        ours = (options.imports, options.import_directory, options.max_workers)
        incidents = Incidents(self.log, with_traceback)
        return Raylet(node_id, info, versions, ids, gpu_count, incarnation, *ours, incidents)

    def _make_store(self) -> StoreServer:
        """Memory for the objects of one incarnation."""
        raylet, options = self._raylet, self._options
        mark = options.object_store_bytes
        if mark is None:
            mark = int(self._found.memory_bytes * limits.STORE_SHARE)
        directory = OwnDirectory(options.spill_directory, "spill")
        store = StoreServer(
            *(self._loop, raylet.node_id, lambda: raylet.objects, mark, directory),
            *(self._channels.__contains__, raylet.named, self._failed),
        )
        raylet.objects.attach(store.objects)
        raylet.objects.puller.direct = True
        self._port.peer_transfers = raylet.peer_transfers
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
        self._watch_zygote()
        if self._lifeline is not None:
            loop.watch(self._lifeline.fd, self._lifeline_ended)
        self._open_link()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        while not (raylet.stopping or loop.signals or self._failure):
            loop.turn(max(0.0, self._deadline() - loop.now()))
            self._settle()
        if self._failure is not None:
            raise self._failure
        self.stop_reason = raylet.stopping or "it got a signal to stop"

    def _deadline(self) -> float:
        now = self._loop.now()
        if self._store.waits() or self._port.waits():
            return now + CHECK_S
        if self._link.socket is None:
            return min(self._raylet.deadline(), self._link.retry_at)
        if not self._link.flush():
            return now + 0.005
        return min(self._raylet.deadline(), now + 1.0)

    def _settle(self) -> None:
        raylet, now = self._raylet, self._loop.now()
        self._attempt("tending the link to the head", self._tend_link, now)
        if raylet.objects.store is not self._store.objects:  # this is another incarnation
            self._attempt("closing a store", self._store.close)
            self._store = self._make_store()
        raylet.settle(now)
        self._heap.tend(now)
        if raylet.lease_until != self._lease_until:
            self._lease_until = raylet.lease_until
            for channel in self._channels.values():
                channel.channels.page.lease_until = self._lease_until
        self._attempt("tending the store", self._store.tend, raylet.cluster_id, now)
        self._attempt("tending connections of other nodes", self._port.tend, now)
        if self._zygote.pid is None:
            self._start_zygote(now)
        outgoing = raylet.outbox.take()
        if HEAD in outgoing:
            self._send_head(outgoing.pop(HEAD), now)
        for worker_id in [peer for peer in outgoing if peer in self._channels]:
            self._send_worker(worker_id, outgoing.pop(worker_id))
        effects, raylet.effects = raylet.effects, []
        for effect in effects:  # now: making a process takes longer than all before
            if isinstance(effect, StartWorker):
                self._start_worker(effect)
            elif isinstance(effect, KillWorker):
                self._zygote.kill(effect.worker_id)
            elif machine.has_ended(effect.pid):
                raylet.driver_ended(effect.job_id)
        for worker_id, messages in outgoing.items():
            self._send_worker(worker_id, messages)

    def _attempt(self, what: str, action: Callable[..., object], *arguments: object) -> None:
        """Do a part of the work; if it fails, that is recorded, and the rest goes on."""
        try:
            action(*arguments)
        except Exception as error:
            self._failed(what, error)

    def _send_head(self, messages: list[Message], now: float) -> None:
        """What cannot be sent ends the session: the next one begins with the full state."""
        try:
            unsent = self._link.send(self._raylet.epoch, messages)
            if unsent:
                self._raylet.too_large(unsent)
        except Exception as error:
            self._failed("sending to the head", error)
            self._link_cut = True

    # ---- the head --------------------------------------------------------------------------

    def _open_link(self) -> None:
        self._link_cut = False
        if self._lifeline is not None:
            self._link.aim(self._lifeline.addresses())
        self._link.open(self._loop.now())
        assert self._link.socket is not None and self._link.monitor is not None
        self._loop.watch_zmq(self._link.socket, self._read_head)
        self._loop.watch_zmq(self._link.monitor.socket, self._look_at_link, rare=True)

    def _close_link(self, now: float) -> None:
        if self._link.socket is not None and self._link.monitor is not None:
            self._loop.unwatch_zmq(self._link.socket)
            self._loop.unwatch_zmq(self._link.monitor.socket)
        if self._raylet.linked:
            self._lost_since = now
        self._raylet.disconnected(now)
        self._link.close(now)

    def _read_head(self) -> None:
        for payload in self._link.receive():
            self._raylet.receive(payload, self._loop.now())
        self._link_cut = self._link_cut or self._link.garbled
        if self._raylet.linked:
            self._link.welcomed()
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
        silent = raylet.linked and now - raylet.silent_since() > limits.DEAD_S
        unanswered = not raylet.linked and now - link.opened > limits.CONNECT_TIMEOUT_S
        refusal = raylet.refused
        if refusal is not None and refusal.code and not self._linked_once:
            text = f"the head at {link.address} refused this node: {refusal.text}"
            self._failure = HeadConnectionError(text, code=refusal.code)
        elif refusal is not None and refusal.code not in ("", FENCED):
            self._say_refused(refusal.text)
        if self._link_cut or silent or unanswered or refusal is not None:
            raylet.refused = None
            if link.error is not None and not self._linked_once:
                self._failure = link.error
            elif unanswered and not (self._linked_once or self._lifeline):
                self._failure = HeadSilentError(
                    f"the head at {link.address} accepted the connection but did not answer "
                    f"within {limits.CONNECT_TIMEOUT_S:g} s; see zray status and its log"
                )
            self._close_link(now)

    def _say_refused(self, text: str) -> None:
        """Once, for as long as the head says the same."""
        if text != self._refusal:
            self._refusal = text
            self.log(f"the head at {self._link.address} refuses this node, which tries on: {text}")

    # ---- workers ---------------------------------------------------------------------------

    def _start_worker(self, effect: StartWorker) -> None:
        """A worker that cannot be started is one that ended before it began anything."""
        worker_id = effect.worker_id
        try:
            machine.check_descriptors()
            channel = WorkerChannel(self._zygote.fork(worker_id, self._environment(effect)))
            self._channels[worker_id] = channel
            channel.channels.page.lease_until = self._lease_until
            self._open_log(worker_id, channel)
            self._watch_printers(worker_id, channel)
            self._loop.watch(channel.channels.task, lambda: self._read_worker(worker_id, channel))
        except Exception as error:
            self._failed("starting a worker", error)
            cause = f"it could not be started: {error}"
            self._zygote.kill(worker_id)
            if worker_id in self._channels:
                self._worker_gone(worker_id, cause)
            else:
                self._raylet.worker_exited(worker_id, 0, cause, self._loop.now())

    def _environment(self, effect: StartWorker) -> dict[str, str]:
        _, gpus, threads = effect.key
        names = ",".join(self._gpus[i].uuid if i < len(self._gpus) else str(i) for i in gpus)
        env = {"CUDA_VISIBLE_DEVICES": names} if gpus or self._gpus else {}
        for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM"):
            if f"{name}_NUM_THREADS" not in os.environ:
                env[f"{name}_NUM_THREADS"] = str(threads)
        return env

    def _open_log(self, worker_id: bytes, channel: WorkerChannel) -> None:
        directory = self._options.log_directory
        if directory is None:
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            channel.open_log(directory / f"worker-{worker_id.hex()}.log")
        except OSError as error:  # what it prints reaches its driver all the same
            self._failed("opening the log of a worker", error)

    def _watch_printers(self, worker_id: bytes, channel: WorkerChannel) -> None:
        def reader(printer: Printer) -> None:
            def read() -> None:
                self._read_printer(worker_id, channel, printer)

            self._loop.watch(printer.fd, read, first=True)  # before the result that follows

        for printer in channel.printers:
            reader(printer)

    def _read_printer(self, worker_id: bytes, channel: WorkerChannel, printer: Printer) -> None:
        raw, lines, ended = printer.read()
        try:
            channel.write_log(raw)
        except OSError as error:
            self._failed("writing the log of a worker", error, self._raylet.named(worker_id))
        if lines:
            if printer.is_error:
                channel.last_words.extend(lines)
            self._raylet.log(worker_id, printer.is_error, lines)
        if ended:
            self._loop.unwatch(printer.fd)
            channel.printers.remove(printer)

    def _read_worker(self, worker_id: bytes, channel: WorkerChannel) -> None:
        ended = self._take_messages(worker_id, channel)
        if ended:
            self._loop.unwatch(channel.channels.task)
            self._zygote.kill(worker_id)  # it closed its socket, so it cannot be used any more

    def _take_messages(self, worker_id: bytes, channel: WorkerChannel) -> bool:
        """Hand on what a worker has said; whether it will say nothing more."""
        if channel.broken:
            return True
        now = self._loop.now()
        try:
            frames, ended = read_available(channel.channels.task, channel.reader)
            for frame in frames:
                payload = codec.decode(frame)
                for message in payload.messages:
                    self._raylet.worker_message(worker_id, message, now)
                if payload.refused:
                    self._raylet.worker_refused(worker_id, payload.refused, now)
        except (ProtocolError, OSError) as error:
            channel.broken = True
            self._raylet.worker_failed(worker_id, "reading what a worker said", error, now)
            return True
        return ended

    def _send_worker(self, worker_id: bytes, messages: list[Message]) -> None:
        channel = self._channels.get(worker_id)
        if channel is None:
            return
        urgent = [m for m in messages if type(m).__name__ in ("Recall", "CancelTask", "CancelCall")]
        try:
            if len(urgent) < len(messages):
                rest = [m for m in messages if m not in urgent] if urgent else messages
                for payload in codec.encode_local(rest):
                    channel.task.send_nowait(payload)
                if channel.task.pending:
                    self._wait_writable(worker_id, channel)
            for payload in codec.encode_local(urgent) if urgent else ():
                channel.control.send_nowait(payload)
        except OSError:  # it has just ended, or a part of what it was told is lost
            self._zygote.kill(worker_id)

    def _wait_writable(self, worker_id: bytes, channel: WorkerChannel) -> None:
        def read() -> None:
            self._read_worker(worker_id, channel)

        def write() -> None:
            try:
                if not channel.task.flush():
                    return
            except OSError:
                self._zygote.kill(worker_id)
            self._loop.watch(channel.channels.task, read)

        self._loop.watch(channel.channels.task, read, write)

    def _read_zygote(self) -> None:
        for event in self._zygote.events():
            if isinstance(event, Forked):
                self._has_forked = True
                self._raylet.workers.started(event.worker_id, event.pid)
            elif isinstance(event, Exited):
                killed = event.signal == signal.SIGKILL
                oom = (
                    killed
                    and not self._raylet.workers.killed(event.worker_id)
                    and self._oom.struck()
                )
                self._worker_gone(event.worker_id, machine.status_text(event, oom))
            elif isinstance(event, ForkFailed):
                self._worker_gone(event.worker_id, f"it could not be started: {event.reason}")
            elif isinstance(event, ZygoteDied):
                self._zygote_died(event)

    def _zygote_died(self, event: ZygoteDied) -> None:
        self._loop.unwatch(self._zygote_fd)  # it is closed: the next one may have its number
        self.log(f"the zygote ended ({machine.status_text(event)}); starting another")
        if event.text and not self._has_forked:
            self._failure = StartError(f"workers cannot be started:\n{event.text}")
        elif event.text:  # what has worked may work again
            self._failed("forking workers", RuntimeError(event.text))
        for worker_id in event.worker_ids:
            self._worker_gone(worker_id, "it ended with its zygote")
        self._start_zygote(self._loop.now())

    def _watch_zygote(self) -> None:
        self._zygote_fd = self._zygote.fileno()
        self._loop.watch(self._zygote_fd, self._read_zygote)

    def _start_zygote(self, now: float) -> None:
        if now < self._zygote_at:
            return
        self._zygote_at = now + limits.ZYGOTE_STARTS_S
        try:
            self._zygote.start()
            self._watch_zygote()
        except OSError as error:
            self._zygote_at = now + limits.FORK_RETRY_MAX_S
            self._failed("starting the zygote", error)

    def _worker_gone(self, worker_id: bytes, cause: str) -> None:
        channel = self._channels.pop(worker_id, None)
        if channel is None:
            return
        now = self._loop.now()
        self._take_messages(worker_id, channel)  # what it finished saying before it died counts
        for printer in [*channel.printers]:
            self._read_printer(worker_id, channel, printer)
        for printer in channel.printers:
            self._loop.unwatch(printer.fd)
        self._loop.unwatch(channel.channels.task)
        if channel.last_words:
            cause += "; its last words:\n" + "\n".join(channel.last_words)
        self._store.process_gone(worker_id)
        started = channel.channels.page.count
        channel.close()
        self._raylet.worker_exited(worker_id, started, cause, now)

    # ---- small things ----------------------------------------------------------------------

    def _lifeline_ended(self) -> None:
        assert self._lifeline is not None
        self._loop.unwatch(self._lifeline.fd)
        self.is_orphan = True
        self._raylet.stopping = self._lifeline.ended()

    def close(self) -> None:
        """Say goodbye, end every worker, leave nothing."""
        now = self._loop.now()
        if self._link.socket is not None:
            if self._raylet.linked:
                reason = self._raylet.stopping or "it was told to stop"
                self._link.send(self._raylet.epoch, [Goodbye(0, reason)])
            self._loop.unwatch_zmq(self._link.socket)
            self._link.socket.close(500)
        self._zygote.close()
        for channel in self._channels.values():
            channel.close()
        if self._options.log_directory is not None:
            with contextlib.suppress(OSError):  # it does not exist, or there are logs in it
                self._options.log_directory.rmdir()
        self._link.close(now)
        self._port.close()
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
