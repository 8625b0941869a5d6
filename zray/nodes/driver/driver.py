"""The driver's side of a cluster: connect, the pump thread, what workers print. Wiring.

The pump leads by default (receive, PING, prints, completions, reconnect) and gives the lead to a
thread that blocks. Portable: nothing Linux-only is imported here.
"""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time

import zmq

from zray import limits
from zray.core.client.client import Client
from zray.errors import HeadConnectionError, HeadSilentError, VersionMismatchError
from zray.nodes.driver.local_cluster import LocalCluster
from zray.nodes.participant.participant import COALESCE_S, Participant
from zray.protocol import messages as m
from zray.runtime import identity, references, sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.interrupts import interrupts
from zray.runtime.link import HeadLink
from zray.runtime.wake_pipe import WakePipe

LEAD_BACK_S = 0.005  # the pump takes the lead back when nobody has had it for so long
TEND_S = 0.02  # so long only sockets are read that have something, if those are of leased workers
COLLECT_S = 0.5  # how long an idle driver keeps it to itself that references were dropped
HEAD_GONE_WARNING_S = 10.0
PRINT_S = 1.0  # how long a value waits for prints that come before it and that nobody reads


class Driver(Participant):
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
        super().__init__(Client(process_id, process_id, ids, remote=True))
        self.info = info
        self.address = address
        self.namespace = namespace
        self.local = local
        self.machine = job.machine
        self._job = job
        self._refusal = ""  # of the head, as it was said last
        self._versions = identity.versions(pickles=True)
        self._context = sockets.context()
        self._link = HeadLink(self._context, info, [address], self._hello, heartbeats=False)
        self._wake_pipe = WakePipe()
        # The pump is no follower: see _pump.
        self._pump_turn = threading.Condition(self._lock)  # type: ignore[arg-type]
        self._pump_leads = False
        self._pump_brief = False  # its present sleep ends within COALESCE_S
        self._unsent_since = 0.0  # when the pump first saw what is still unsent; 0: nothing is
        self._users = 0
        self._lead_free = 0.0  # when somebody last gave the lead back
        self._closing = False
        self._node_joins_by = 0.0
        self._heard = self._ping_at = self._collect_at = self._lost_at = 0.0
        self._warned = False
        self._printing = False
        self._ready: list[int] = []  # what the last poll found, if nobody has read since
        self._tend_at = 0.0
        self._thread = threading.Thread(target=self._pump, name="zray-pump", daemon=True)

    def _hello(self) -> tuple[int, m.Message]:
        client = self.client
        hello = m.Hello(
            *(0, m.PROTOCOL_VERSION, m.ROLE_DRIVER, client.process_id, 0, client.cluster_id),
            *(self._versions, ["tasks"], None, self._job, client.head_id),
        )
        return client.epoch, hello

    # ---- connecting ------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the first session and start the pump.

        Raises:
            HeadConnectionError and its kinds: why the head at the address cannot be used.
        """
        deadline = time.monotonic() + limits.WELCOME_S
        self._link.open(time.monotonic())
        while not self.client.linked:
            left = deadline - time.monotonic()
            interrupts.allow(self._poll, max(0.0, min(left, 0.1)))
            with self._lock:
                self._receive()
                lost = self._link.lost()
            self._raise_refusal()
            if lost and not self.client.linked:
                raise self._link.error or HeadConnectionError(
                    f"the head at {self.address} closed the connection; see its log"
                )
            if left <= 0:
                raise HeadSilentError(
                    f"the head at {self.address} accepted the connection but did not answer within "
                    f"{limits.WELCOME_S:g} s; see zray status and the head's log"
                )
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

    def _poll(self, timeout_s: float) -> None:
        fds = [self._wake_pipe.fileno()]
        socket, monitor = self._link.socket, self._link.monitor
        if socket is not None and monitor is not None:
            try:
                fds += [sockets.descriptor(socket), sockets.descriptor(monitor.socket)]
            except zmq.ZMQError:
                pass  # closed just now by another thread
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        store = self._store
        if store is not None:
            with contextlib.suppress(ValueError):
                writes = select.POLLOUT if store.link.pending else 0
                poller.register(store.link, select.POLLIN | writes)
        for link in [*self._links.values()]:
            writes = select.POLLOUT if link.writer.pending else 0
            with contextlib.suppress(ValueError):  # closed just now by another thread
                poller.register(link, select.POLLIN | writes)
        for link, _ in [*self._leased.values()]:
            writes = select.POLLOUT if link.writer.pending else 0
            with contextlib.suppress(ValueError):
                poller.register(link, select.POLLIN | writes)
        self._ready = [fd for fd, _ in poller.poll(timeout_s * 1000)]

    def _read(self) -> None:
        ready, self._ready = self._ready, []
        if ready and time.monotonic() < self._tend_at and self._read_only_leased(ready):
            self._look_at_leases()
            return
        self._wake_pipe.drain()
        if self._links:
            self._read_links()
        if self._leased:
            self._read_leased()
        if self._store is not None:
            self._read_store()
        self._receive()
        self._look_at_leases()
        now = time.monotonic()
        self._tend_at = now + TEND_S
        self._tend(now)

    def _receive(self) -> None:
        payloads = self._link.receive()
        if payloads:
            self._heard = now = time.monotonic()
            for payload in payloads:
                self.client.receive(payload, now)
            if self.client.linked:
                self._link.welcomed()
            if self.client.prints:
                self._completions.append(self._print)  # the program's streams may block

    def _links_changed(self) -> None:
        if self._leading:
            self._wake()

    _store_changed = _links_changed

    def _store_name(self) -> bytes:
        return self.client.cluster_id if self.machine else b""

    def _store_expected(self) -> bool:
        """A cluster of this driver's own has a node a moment after its head."""
        return self.local is not None and time.monotonic() < self._node_joins_by

    def _wake(self) -> None:
        self._wake_pipe.wake()

    def _attend(self) -> None:
        """The pump shall look: with the lock held. It does so by itself after a brief sleep."""
        if not self._pump_leads:
            self._pump_turn.notify()
        elif self._completions or not self._pump_brief:
            self._wake()

    # ---- the session -----------------------------------------------------------------------

    def _tend(self, now: float) -> None:
        """PING, reconnect, collect: what the leader does besides reading. With the lock held."""
        client, link = self.client, self._link
        if link.socket is None:
            if now >= link.retry_at and not client.stopped:
                link.open(now)
            self._warn(now)
            return
        silent = client.linked and now - self._heard > limits.DEAD_S
        unanswered = not client.linked and now - link.opened > limits.CONNECT_TIMEOUT_S
        monitor = link.monitor
        events = monitor is not None and sockets.readable(monitor.socket)
        lost = link.garbled or (events and link.lost())
        if lost or silent or unanswered or client.refused is not None:
            self._disconnect(now)
            return
        if client.linked and (
            now >= self._ping_at or client.prints.characters >= limits.LOG_ACK_BYTES
        ):
            client.prints.characters = 0
            self._ping_at = now + limits.PING_S
            client.outbox.append(m.Ping(0, now))
            client.leases.account()
            self._flush()
        elif client.linked and now >= self._collect_at:
            self._collect_at = now + COLLECT_S
            self._tend_store()
            if references.pending() or client.calls.unacknowledged():
                self._flush()

    def _disconnect(self, now: float) -> None:
        if self.client.linked:
            self._lost_at = now
            self._warned = False
        refusal, self.client.refused = self.client.refused, None
        if refusal is not None and refusal.code not in ("", m.FENCED):
            self._say_refused(refusal)
        self.client.disconnected()
        self._link.close(now)
        if self.local is not None and self.local.has_ended():
            self.client.stop("the local cluster's head has ended")

    def _say_refused(self, refusal: m.Refused) -> None:
        if refusal.text != self._refusal:
            self._refusal = refusal.text
            _say(f"zray: the head at {self.address} refuses this driver: {refusal.text}")

    def _warn(self, now: float) -> None:
        if not self._warned and now - self._lost_at > HEAD_GONE_WARNING_S:
            self._warned = True
            _say(
                f"zray: no connection to the head at {self.address} for {HEAD_GONE_WARNING_S:.0f} "
                "s; waiting for it to return. Submitted tasks are kept."
            )

    def _lead_s(self) -> float:
        now = time.monotonic()
        due = self._ping_at if self._link.socket is not None else self._link.retry_at
        if self.client.unsent() and self.client.linked:
            return COALESCE_S
        if self._leased and self.client.leases.crowded():
            return limits.LEASE_LATE_S
        return max(0.001, min(due - now, COLLECT_S))

    # ---- leading ---------------------------------------------------------------------------

    def _before_blocking(self) -> None:
        self._users += 1
        if self._pump_leads:
            self._wake()

    def _after_blocking(self) -> None:
        self._users -= 1
        self._lead_free = time.monotonic()

    def _pump(self) -> None:
        """Lead while nobody else does. Waking it for each ``get`` would cost as much as the task,
        so it looks by itself now and then, unless something needs it."""
        with self._lock:
            while not self._closing:
                recently = time.monotonic() - self._lead_free < LEAD_BACK_S
                if self._leading or self._users or recently:
                    self._pump_turn.wait(LEAD_BACK_S if recently and not self._users else 0.05)
                    if self.client.unsent():
                        self._flush()
                    continue
                self._pump_leads = True
                self._pump_brief = self.client.unsent()
                try:
                    self._lead_once(self._lead_s())
                except BaseException:  # of a callback: the others still need the pump
                    threading.excepthook(
                        threading.ExceptHookArgs([*sys.exc_info(), threading.current_thread()])
                    )
                finally:
                    self._pump_leads = False
                self._flush_what_waited()

    def _flush_what_waited(self) -> None:
        """Send what nobody has sent for COALESCE_S: more has come meanwhile, and goes along."""
        now = time.monotonic()
        if not self.client.unsent():
            self._unsent_since = 0.0
        elif not self._unsent_since:
            self._unsent_since = now
        elif now - self._unsent_since >= COALESCE_S:
            self._unsent_since = 0.0
            self._flush()

    def _prints_due(self) -> bool:
        return self._printing or bool(self.client.prints)

    def _show_prints(self) -> None:
        if self.client.prints:
            self._unlocked(self._print)
        deadline = time.monotonic() + PRINT_S if self._printing else 0.0
        while self._printing and time.monotonic() < deadline:
            self._follow(None, 0.005)  # another thread has them, and is about to finish

    def _print(self) -> None:
        """Print what has come, in order: one thread at a time prints for all."""
        mine = False
        try:
            with interrupts, self._lock:
                if self._printing:
                    return
                self._printing = mine = True
            while True:
                with interrupts, self._lock:
                    prints = self.client.prints.take()
                    if not prints:
                        self._printing = False
                        return
                _write(prints)
        except BaseException:
            if mine:
                self._printing = False
            raise

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the cluster; what is unfinished is cancelled there."""
        with interrupts:
            self._close()

    def _close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
            if self.client.linked and self._link.socket is not None:
                self._flush()
                self._link.send(self.client.epoch, [m.Goodbye(0, "the driver shut down")])
            self.client.stop("zray.shutdown() was called")
            self._pump_turn.notify()
            deadline = time.monotonic() + limits.STOP_S
            while (self._leading or self._users) and time.monotonic() < deadline:
                self._wake()  # whoever waits for a value finds out that none will come
                self._notify()
                self._follow(None, LEAD_BACK_S)
            self._part()
            if self._completions:
                self._unlocked(self._complete)
            self._link.close(time.monotonic())
            for worker_id in [*self._links]:
                self._close_link(worker_id)
            for lease_id in [*self._leased]:
                self._close_lease(lease_id)
            if self._store is not None:
                self._store.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(limits.STOP_S)
        self._context.term()
        self._wake_pipe.close()
        if self.local is not None:
            self.local.close()

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


def _write(prints: list[m.Log | m.Notice]) -> None:
    for message in prints:
        if isinstance(message, m.Notice):
            _say(f"zray: warning {message.code}: {message.text}")
            continue
        prefix = f"({message.name} pid={message.pid}, node={message.node}) "
        stream = sys.stderr if message.is_error else sys.stdout
        # None, closed, a pipe that ended, or a stream of the program's own that fails.
        with contextlib.suppress(Exception):
            stream.write("".join(f"{prefix}{line}\n" for line in message.lines))
            stream.flush()


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr, flush=True)
