"""The driver's side of a cluster: connect, read and write, keep the session. Wiring.

Portable: nothing Linux-only is imported here.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import zmq

from zray import limits
from zray.core.client.client import Client
from zray.core.identity import Identity
from zray.errors import HeadConnectionError, VersionMismatchError
from zray.nodes.driver.far_links import FarLinks
from zray.nodes.driver.head_words import HeadWords
from zray.nodes.driver.local_cluster import LocalCluster
from zray.nodes.driver.poller import Poller
from zray.nodes.driver.pump import LEAD_BACK_S, Pump
from zray.nodes.driver.search import Search
from zray.nodes.participant.participant import COALESCE_S
from zray.protocol import messages as m
from zray.runtime import identity, references, session, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.interrupts import interrupts
from zray.runtime.link import HeadLink
from zray.runtime.scout import LOOK_S, Scout
from zray.runtime.wake_pipe import WakePipe

if TYPE_CHECKING:  # Linux only, or rarely wanted
    from zray.nodes.participant.task_recorder import TaskRecorder
    from zray.runtime.linux.direct import DirectLink

TEND_S = 0.02  # so long only sockets are read that have something, if those are of leased workers
COLLECT_S = 0.5  # how long an idle driver keeps it to itself that references were dropped


class Driver(Pump):
    def __init__(
        self,
        info: ConnectionInfo,
        address: str,
        job: m.JobInfo,
        namespace: str,
        local: LocalCluster | None = None,
    ) -> None:
        ids = identity.id_source()
        process_id = ids.process_id()
        super().__init__(Client(Identity(process_id, process_id, ids), remote=True))
        self.info = info
        self.address = address.partition(",")[0]  # of the head that was followed last
        self.namespace = namespace
        self.local = local
        self.machine = job.machine
        self._job = job
        self._versions = identity.versions(pickles=True)
        self._context = sockets.context()
        heads = self.client.known_heads
        heads.aim(address.split(","))
        self._link = HeadLink(self._context, info, heads, self._hello, heartbeats=False)
        self._scout = Scout(self._context, info, heads)
        self._wake_pipe = WakePipe()
        self._far = FarLinks(
            *(self._context, info, self.client.far_leases, self._far_hello),
            *(self._links_changed, self._wake),
        )
        self._recorder: TaskRecorder | None = None  # once somebody asks
        self.client.tasks.trace = self._traced
        self._node_joins_by = 0.0
        self._heard = self._ping_at = self._collect_at = 0.0
        self._words = HeadWords(self.client, address)
        self._poller = Poller(self._watched)
        self._nap_poller = Poller(self._watched_in_naps)
        self._ready: list[int] = []  # what the last poll found, if nobody has read since

    @property
    def addresses(self) -> str:
        """Where heads are, that one first, with commas: for another connection."""
        return self.client.known_heads.in_short()

    def _hello(self) -> tuple[int, m.Message]:
        client = self.client
        hello = m.Hello(
            *(0, m.PROTOCOL_VERSION, m.ROLE_DRIVER, client.process_id, 0, client.cluster_id),
            *(self._versions, ["tasks"], None, self._job, client.head_id, m.PROTOCOL_MINOR),
        )
        return client.epoch, hello

    def _far_hello(self, path: int) -> m.Hello:
        """To a node's own port, by so many ways as there were until now."""
        ids = (m.ROLE_DRIVER, self.client.process_id, path, self.client.cluster_id)
        return m.Hello(0, m.PROTOCOL_VERSION, *ids, self._versions, minor=m.PROTOCOL_MINOR)

    def _traced(self, message: m.Trace) -> m.Traced:
        """What this program has submitted since somebody wants that to be noted."""
        if self._recorder is None:
            from zray.nodes.participant.task_recorder import TaskRecorder

            self._recorder = TaskRecorder(self)
        found = m.WorkerSpans(bytes(16), self.client.process_id, [], [*self._recorder.submits])
        if message.record_s:
            self._recorder.record(message.record_s)
        whom = (self.client.process_id, message.source, message.seq)
        return m.Traced(0, *whom, [found], time.time())

    # ---- connecting ------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the first session and start the pump.

        Raises:
            HeadConnectionError and its kinds: why the head at the address cannot be used.
        """
        client, link = self.client, self._link
        search = Search(link, limits.WELCOME_S, limits.WELCOME_S)
        while True:
            interrupts.allow(self._poll, search.left_s())
            with self._lock:
                self._receive()
                lost = link.socket is not None and link.lost()
            if client.linked:
                break
            self._raise_refusal()
            refusal, client.refused = client.refused, None
            if search.tend(stands_by=refusal is not None, lost=lost):
                self._open_link(time.monotonic())
            self._stale()
        self._heard = time.monotonic()
        self._node_joins_by = self._heard + limits.STORE_ATTACH_S
        self._thread.start()

    def _raise_refusal(self) -> None:
        refusal = self.client.refused
        if refusal is None or not refusal.code:
            return
        kind = VersionMismatchError if refusal.code == VersionMismatchError.code else None
        text = f"the head at {self.address} refused this driver: {refusal.text}"
        if kind is not None:
            raise kind(text)
        raise HeadConnectionError(text, code=refusal.code)

    # ---- transport -------------------------------------------------------------------------

    def _transmit(self) -> None:
        client, link = self.client, self._link
        if not client.linked or link.socket is None or not (client.outbox or link.waits()):
            return
        if client.outbox:
            self._tell_published()
            outbox = client.take_outbox()
            client.too_large(link.send(client.epoch, outbox))
        else:
            link.flush()
        if sockets.readable(link.socket):
            self._wake()  # sending took the signal that the leader waits for

    def _held_up(self) -> bool:
        return self._link.waits()

    def _poll(self, timeout_s: float) -> None:
        self._ready = self._poller.poll(timeout_s)

    def _nap(self, seconds: float) -> None:
        ready = self._nap_poller.poll(seconds)
        for _, queue in [*self._leased.values()] if ready else ():
            if queue.bell() in ready:
                queue.hear()

    def _stale(self) -> None:
        self._poller.stale()
        self._nap_poller.stale()

    def _watched(self) -> Iterator[tuple[int, int]]:
        """What to sleep on, but for what another thread has closed just now."""
        yield from self._watched_but_workers()
        for link, _ in [*self._leased.values()]:
            if (fd := link.fileno()) >= 0:
                yield fd, select.POLLIN | (select.POLLOUT if link.writer.pending else 0)

    def _watched_in_naps(self) -> Iterator[tuple[int, int]]:
        """The same, but of workers only whether they have nothing to do."""
        yield from self._watched_but_workers()
        for _, queue in [*self._leased.values()]:
            if (fd := queue.bell()) >= 0:
                yield fd, select.POLLIN

    def _watched_but_workers(self) -> Iterator[tuple[int, int]]:
        yield self._wake_pipe.fileno(), select.POLLIN
        socket, monitor = self._link.socket, self._link.monitor
        if socket is not None and monitor is not None:
            with contextlib.suppress(zmq.ZMQError):
                fds = sockets.descriptor(socket), sockets.descriptor(monitor.socket)
                yield fds[0], select.POLLIN
                yield fds[1], select.POLLIN
        store = self._store
        pairs = [] if store is None else [(store.link.fileno(), bool(store.link.pending))]
        for link in [*self._links.values()]:
            pairs.append((link.fileno(), bool(link.writer.pending)))
        for fd, pending in pairs:
            if fd >= 0:
                yield fd, select.POLLIN | (select.POLLOUT if pending else 0)
        for fd in self._far.descriptors() if self._far else ():
            yield fd, select.POLLIN

    def _read(self) -> None:
        ready, self._ready = self._ready, []
        if ready and time.monotonic() < self._tend_at and self._read_only_of_leases(ready):
            self._look_at_leases()
            return
        self._wake_pipe.drain()
        if self._links:
            self._read_links()
        if self._leased:
            self._read_leased()
        if self._store is not None:
            self._read_store()
        if self._far:
            self._far.read()
        self._receive()
        self._look_at_leases()
        if self.client.far_leases.nodes:
            self._far.tend()
        now = time.monotonic()
        self._tend_at = now + TEND_S
        self._tend(now)

    def _read_only_of_leases(self, ready: list[int]) -> bool:
        """As ``_read_only_leased``, and those by which others elsewhere are reached."""
        far = self._far.fds
        near = [fd for fd in ready if fd not in far] if far else ready
        if not self._read_only_leased(near):
            return False
        if len(near) < len(ready):
            self._far.read()
        return True

    def _tend_leases(self) -> None:
        super()._tend_leases()
        far = self.client.far_leases
        if far.links or far.opens or far.shuts:
            self._far.send()

    def _receive(self) -> None:
        payloads = self._link.receive()
        if payloads:
            self._heard = now = time.monotonic()
            self.client.known_heads.heard()
            for payload in payloads:
                self.client.receive(payload, now)
            if self.client.linked:
                self._link.welcomed(self.client.head_minor)
                self.address = self._words.linked(now)
            if self.client.prints:
                self._completions.append(self._print)  # the program's streams may block

    def _links_changed(self) -> None:
        self._stale()
        if self._leading:
            self._wake()

    _store_changed = _links_changed

    def _link_closed(self, link: DirectLink) -> None:
        self._stale()

    def _store_leaves(self) -> None:
        self._stale()

    def _open_link(self, now: float) -> None:
        """Raises zmq.ZMQError: as ``HeadLink.open``."""
        self._stale()
        self._link.open(now)

    def _store_name(self) -> bytes:
        return self.client.cluster_id if self.machine else b""

    def _store_expected(self) -> bool:
        """A cluster of this driver's own has a node a moment after its head."""
        return self.local is not None and time.monotonic() < self._node_joins_by

    def _wake(self) -> None:
        self._wake_pipe.wake()

    def handle_collected(self) -> None:
        """An actor ends with its last handle, and others may wait for what it has."""
        self._collect_at = 0.0
        self._wake()

    interrupts.spare(handle_collected.__code__)

    # ---- the session -----------------------------------------------------------------------

    def _tend(self, now: float) -> None:
        """PING, reconnect, collect: what the leader does besides reading. With the lock held."""
        client, link = self.client, self._link
        self._tend_prints(now)
        if link.socket is None:
            if now >= link.retry_at and not client.stopped:
                self._open_link(now)
            self._words.away(now)
            return
        silent = client.linked and now - self._heard > limits.DEAD_S
        monitor = link.monitor
        events = monitor is not None and sockets.readable(monitor.socket)
        lost = link.garbled or (events and link.lost())
        silent = silent or (client.linked and self._scout.look(now))
        over = lost or client.known_heads.parting or link.overdue(now)
        if over or silent or client.refused is not None:
            self._disconnect(now, self._heard if silent else now)
            return
        if client.linked and (
            now >= self._ping_at or client.prints.characters >= limits.LOG_ACK_BYTES
        ):
            client.prints.characters = 0
            self._ping_at = now + limits.PING_S
            client.outbox.append(m.Ping(0, now))
            client.known_heads.asked(now)
            client.leases.account()
            self._tend_bars()
            self._advise()
            self._flush()
        elif client.linked and now >= self._collect_at:
            self._collect_at = now + COLLECT_S
            self._tend_store()
            if references.pending() or client.calls.unacknowledged():
                self._flush()

    def _disconnect(self, now: float, since: float) -> None:
        refusal, self.client.refused = self.client.refused, None
        self._words.lost(refusal, since)
        self.client.disconnected()
        self._stale()
        self._scout.close(now)
        self._link.close(now)
        if self.local is not None and self.local.has_ended():
            self.client.stop("the local cluster's head has ended")

    def _head_word(self) -> str:
        return self._words.silent(time.monotonic(), self._heard)

    def _lead_s(self) -> float:
        now = time.monotonic()
        due = self._ping_at if self._link.socket is not None else self._link.retry_at
        linked = self.client.linked
        if (linked and self.client.unsent()) or (self._leave_off() and linked):
            return COALESCE_S
        most = min(due - now, LOOK_S if self._scout.looks else COLLECT_S)
        if self.client.leases.held():
            most = min(most, self.client.leases.look_in())
        return max(0.001, most)

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the cluster; what is unfinished is cancelled there."""
        with interrupts:
            try:
                if self._job.wants_logs and not self._closing:
                    self._hear_prints()
            finally:  # an interrupt, or a head that refuses to answer
                self._close()

    def _close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
        # Each of these, though a signal's handler raises in one before it.
        with contextlib.ExitStack() as then:
            then.callback(self._close_rest)
            then.enter_context(self._lock)
            then.callback(self._close_links)
            then.callback(self._unlocked, self._end_prints)
            then.callback(self._unlocked, self._complete)
            then.callback(self._part)
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """To the head, and to whoever waits for something here."""
        self._attended = False
        if self.client.linked and self._link.socket is not None:
            self.client.outbox += session.take_unsaid(self)
            self._flush()
            self._hang_up()
            self._link.send(self.client.epoch, [m.Goodbye(0, "the driver shut down")])
        self.client.stop("zray.shutdown() was called")
        self._pump_turn.notify()
        deadline = time.monotonic() + limits.STOP_S
        while (self._leading or self._users) and time.monotonic() < deadline:
            self._wake()  # whoever waits for a value finds out that none will come
            self._notify()
            self._follow(None, LEAD_BACK_S)

    def _close_links(self) -> None:
        self._scout.close(time.monotonic())
        self._link.close(time.monotonic())
        self._far.close()
        for worker_id in [*self._links]:
            self._close_link(worker_id)
        for lease_id in [*self._leased]:
            self._close_lease(lease_id)
        if self._store is not None:
            self._store.close()

    def _close_rest(self) -> None:
        """Without the lock, which others may want first."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(limits.STOP_S)
        self._context.term()
        self._wake_pipe.close()
        if self.local is not None:
            self.local.close()

    def _hang_up(self) -> None:
        """Before workers end, with the job: they tell then what they have run."""
        links = [*self._links.values(), *(link for link, _ in self._leased.values())]
        if links:
            from zray.runtime.linux import direct  # who has such runs Linux

            direct.hang_up(links, limits.HANG_UP_S)

    def _part(self) -> None:
        """Read until the head has heard the GOODBYE: closing a socket drops what is on its way."""
        client, link = self.client, self._link
        deadline = time.monotonic() + limits.PART_S
        while client.linked and link.socket is not None and time.monotonic() < deadline:
            link.flush()
            self._receive()
            if client.parted or client.refused is not None or link.lost():
                return
            link.socket.poll(20)

    def abandon(self) -> None:
        """In a forked child: this connection is the parent's."""
        self._closing = True
        self._wake_pipe.close()
        self._abandon_store()
        if self.local is not None:
            self.local.abandon()
