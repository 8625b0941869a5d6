"""The sockets between a driver and the workers that are leased to it, for the ClientLeases machine.

A part of Participant. To each worker a stream and a queue of packets, out of which either end can
take; decides nothing.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.client.lease import Lease
from zray.errors import ProtocolError
from zray.nodes.participant.actor_calls import ActorCalls
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.stream import FRAME_BYTES_MAX, TURN_BYTES, read_available

if TYPE_CHECKING:  # Linux only
    from zray.runtime.linux.direct import DirectLink, TaskQueue


class LeaseLinks(ActorCalls):
    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._leased: dict[bytes, tuple[DirectLink, TaskQueue]] = {}  # by lease
        self._look_at = 0.0
        self._leased_fds: dict[int, bytes] = {}  # leases, by the sockets that are open
        client.leases.queues.take_back = self._take_back

    def _respond(self) -> None:
        leases = self.client.leases
        if leases.unsent():
            self.client.flush_leases()
        self._tend_leases()
        super()._respond()

    def _feed(self) -> None:
        """The program goes on submitting: workers get more meanwhile. With the lock held."""
        if self._leased:
            self._read_leased()
            self.client.leases.flush()
            self._tend_leases()

    def _tend_leases(self) -> None:
        """Do what the machine wants done to sockets. With the lock held."""
        leases = self.client.leases
        while leases.connects or leases.drains:
            while leases.drains:
                lease = leases.drains.pop()
                self._read_lease(lease.lease_id, turn_bytes=FRAME_BYTES_MAX)
                leases.drained(lease)
            while leases.connects:
                self._connect_lease(leases.connects.pop())
            leases.flush()
        queues = leases.queues
        if queues.direct:
            for lease_id, messages in queues.direct.take().items():
                self._send_leased(lease_id, messages)
        while queues.packets:
            packets, queues.packets = queues.packets, []
            for lease_id, message in packets:
                self._put(lease_id, message)
            if leases.unsent():
                leases.flush()  # what had no room waits
        while leases.closes:
            self._close_lease(leases.closes.pop())

    def _connect_lease(self, lease: Lease) -> None:
        ok = False
        if self.machine and lease.machine == self.machine:
            from zray.runtime.linux import direct  # who has a machine's id runs Linux

            link = direct.connect(lease.worker_id)
            if link is not None:
                try:
                    queue = direct.TaskQueue.make()
                except OSError:
                    link.close()
                else:
                    ok = True
                    self._leased[lease.lease_id] = link, queue
                    self._leased_fds[link.fileno()] = lease.lease_id
                    with contextlib.suppress(OSError):  # as reading tells
                        queue.hand_over(link)
                    greeting = m.Grant(
                        *(0, lease.lease_id, self.client.job_id, self.client.process_id),
                        list(lease.key),
                    )
                    self._send_leased(lease.lease_id, [greeting])
                    self._links_changed()
        self.client.leases.connected(lease, ok)

    def _send_leased(self, lease_id: bytes, messages: list[m.Message]) -> None:
        pair = self._leased.get(lease_id)
        if pair is None or pair[0].fileno() < 0:
            return
        writer = pair[0].writer
        try:
            for payload in codec.encode_local(messages):
                writer.send_nowait(payload)
        except OSError:
            return  # reading tells
        if writer.pending:
            self._links_changed()

    def _put(self, lease_id: bytes, message: m.Tasks) -> None:
        pair = self._leased.get(lease_id)
        payloads = codec.encode_local([message])
        if pair is None or len(payloads) != 1 or not pair[1].put(payloads[0]):
            self.client.leases.refused(lease_id, message)

    def _take_back(self, lease_id: bytes) -> list[m.Tasks]:
        """Everything that the worker has not taken. With the lock held."""
        found: list[m.Tasks] = []
        pair = self._leased.get(lease_id)
        while pair is not None and (packet := pair[1].take()) is not None:
            for message in codec.decode(packet).messages:
                assert isinstance(message, m.Tasks)
                found.append(message)
        return found

    def _look_at_leases(self) -> None:
        """With the lock held."""
        now = time.monotonic()
        if now >= self._look_at and self.client.leases.held():
            self._look_at = now + limits.LEASE_LATE_S / 2
            self.client.leases.look(now)

    def _read_leased(self) -> None:
        """Read what leased workers have said. With the lock held."""
        for lease_id in [*self._leased]:
            self._read_lease(lease_id)

    def _read_only_leased(self, ready: list[int]) -> bool:
        """Read these sockets, if all of them are of leased workers. With the lock held."""
        leases = [self._leased_fds.get(fd, b"") for fd in ready]
        if not all(leases):
            return False
        for lease_id in leases:
            self._read_lease(lease_id)
        return True

    def _read_lease(self, lease_id: bytes, turn_bytes: int = TURN_BYTES) -> None:
        pair = self._leased.get(lease_id)
        if pair is None or pair[0].fileno() < 0:
            return
        link, leases = pair[0], self.client.leases
        if link.writer.pending:
            with contextlib.suppress(OSError):  # the stream has ended, as reading tells
                link.writer.flush()
        try:
            frames, ended = read_available(link.socket, link.reader, turn_bytes)
            for frame in frames:
                for message in codec.decode(frame).messages:
                    leases.link_message(lease_id, message)
        except ProtocolError:  # something else than the worker's machinery wrote to it
            ended = True
        if ended:
            self._shut(link)
            leases.link_lost(lease_id)

    def _close_lease(self, lease_id: bytes) -> None:
        pair = self._leased.pop(lease_id, None)
        if pair is not None:
            if pair[0].fileno() >= 0:
                self._shut(pair[0])
            pair[1].close()
            self._links_changed()

    def _shut(self, link: DirectLink) -> None:
        self._leased_fds.pop(link.fileno(), None)
        self._link_closed(link)
        link.close()
