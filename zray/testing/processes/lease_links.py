"""A simulated driver's sockets to the workers that are leased to it, as the real shell has them.

Does what the shipped ClientLeases machine wants done to them, and decides nothing.
"""

from __future__ import annotations

from zray.core.client.lease import Lease
from zray.core.machine import NEVER
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.caller import Caller
from zray.testing.world.direct import Wire


class LeaseLinks:
    """Of one driver: by lease."""

    def __init__(self, driver: Caller) -> None:
        self._driver = driver
        self._leases = driver.client.leases
        self._leases.queues.take_back = self._take_back
        self.wires: dict[bytes, Wire] = {}
        self._looks = False

    def read(self) -> None:
        """Take what leased workers have said."""
        for lease_id in [*self.wires]:
            self._read(lease_id)

    def _read(self, lease_id: bytes) -> None:
        wire = self.wires.get(lease_id)
        if wire is None or not wire.caller_open:
            return
        wire.flush_calls()
        for message in wire.answers():
            self._leases.link_message(lease_id, message)
        if not wire.worker_open:
            wire.close()
            self._leases.link_lost(lease_id)

    def tend(self) -> None:
        """Do what the machine wants done."""
        leases = self._leases
        while leases.connects or leases.drains:
            while leases.drains:
                lease = leases.drains.pop()
                self._read(lease.lease_id)
                leases.drained(lease)
            while leases.connects:
                self._connect(leases.connects.pop())
            leases.flush()
        queues = leases.queues
        for lease_id, messages in queues.direct.take().items():
            self._send(lease_id, messages)
        while queues.packets:
            packets, queues.packets = queues.packets, []
            for lease_id, message in packets:
                self._put(lease_id, message)
            leases.flush()
        while leases.closes:
            self._close(leases.closes.pop())

    def look_again(self) -> None:
        """Have a turn soon, if tasks wait behind others."""
        within = NEVER if self._looks else self._leases.look_in()
        if within < NEVER:
            self._looks = True
            self._driver.clock.after(within, self._look)

    def _look(self) -> None:
        self._looks = False
        self._driver.something_came()

    def _connect(self, lease: Lease) -> None:
        driver = self._driver
        wire = None
        if lease.machine == driver.machine:
            wire = driver.world.direct.connect(driver, lease.worker_id)
        if wire is not None:
            self.wires[lease.lease_id] = wire
            client = driver.client
            ids = (lease.lease_id, client.job_id, client.process_id)
            self._send(lease.lease_id, [m.Grant(0, *ids, list(lease.key))])
        self._leases.connected(lease, wire is not None)

    def _send(self, lease_id: bytes, messages: list[m.Message]) -> None:
        wire = self.wires.get(lease_id)
        if wire is not None:
            wire.call(messages)

    def _put(self, lease_id: bytes, message: m.Tasks) -> None:
        wire = self.wires.get(lease_id)
        for payload in codec.encode_local([message]):  # one, unless what fits in is little
            if wire is None or not wire.put(payload):
                for part in codec.decode(payload).messages:
                    assert isinstance(part, m.Tasks)
                    self._leases.refused(lease_id, part)

    def _take_back(self, lease_id: bytes) -> list[m.Tasks]:
        wire = self.wires.get(lease_id)
        found: list[m.Tasks] = []
        for payload in wire.take_back() if wire is not None else ():
            for message in codec.decode(payload).messages:
                assert isinstance(message, m.Tasks)
                found.append(message)
        return found

    def _close(self, lease_id: bytes) -> None:
        wire = self.wires.pop(lease_id, None)
        if wire is not None:
            wire.close()

    def end(self) -> None:
        """The process has ended."""
        for lease_id in [*self.wires]:
            self._close(lease_id)
