"""The raylet's sockets to leased workers whose submitters are on other machines.

The shell of the LeaseRelays machine towards workers: to each a stream and a queue of packets, as a
driver of this machine has them. Decides nothing.
"""

from __future__ import annotations

import contextlib
from functools import partial

from zray.core.raylet.lease_relays import LeaseRelays
from zray.errors import ProtocolError
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.linux import direct
from zray.runtime.linux.direct import DirectLink, TaskQueue
from zray.runtime.loop import Loop
from zray.runtime.stream import Frame, read_available


class RelayLinks:
    """``attach`` first; by lease."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._machine: LeaseRelays | None = None
        self._links: dict[bytes, tuple[DirectLink, TaskQueue]] = {}
        self._held: dict[bytes, None] = {}  # those that are not read for now

    def attach(self, machine: LeaseRelays) -> None:
        """Serve this incarnation's machine; what was of another one is of no use any more."""
        self.close_all()
        self._machine = machine
        machine.links = self

    def close_all(self) -> None:
        """Close all sockets."""
        for lease_id in [*self._links]:
            self.close(lease_id)

    # ---- WorkerLinks -----------------------------------------------------------------------

    def connect(self, lease: m.HeldLease) -> bool:
        """Open a stream and a queue to a worker."""
        link = direct.connect(lease.worker_id)
        if link is None:
            return False
        try:
            queue = TaskQueue.make()
        except OSError:
            link.close()
            return False
        self._links[lease.lease_id] = link, queue
        with contextlib.suppress(OSError):  # as reading tells
            queue.hand_over(link)
        ids = (lease.lease_id, lease.job_id, lease.submitter)
        for payload in codec.encode_local([m.Grant(0, *ids, lease.resources)]):
            self.send(lease.lease_id, payload)
        self._watch(lease.lease_id)
        return True

    def put(self, lease_id: bytes, packet: bytes) -> bool:
        """Append to a queue."""
        return self._links[lease_id][1].put(packet)

    def send(self, lease_id: bytes, payload: bytes) -> int:
        """Write to a stream; how many bytes it has not taken."""
        link, _ = self._links[lease_id]
        if link.fileno() < 0:
            return 0
        pending = link.writer.pending
        with contextlib.suppress(OSError):  # as reading tells
            link.writer.send_nowait(payload)
        if bool(pending) != bool(link.writer.pending):
            self._watch(lease_id)
        return link.writer.pending

    def take(self, lease_id: bytes) -> list[bytes]:
        """What its worker has not taken out of a queue."""
        _, queue = self._links[lease_id]
        found = []
        while (packet := queue.take()) is not None:
            found.append(packet)
        return found

    def read(self, lease_id: bytes) -> None:
        """All that a worker has said by now."""
        while self._read(lease_id):
            pass

    def hold(self, lease_id: bytes, held: bool) -> None:
        """Do not read it for now, or again."""
        if held:
            self._held[lease_id] = None
        else:
            self._held.pop(lease_id, None)
        self._watch(lease_id)

    def close(self, lease_id: bytes) -> None:
        """Close both."""
        self._held.pop(lease_id, None)
        pair = self._links.pop(lease_id, None)
        if pair is not None:
            self._shut(pair[0])
            pair[1].close()

    # ---- sockets ---------------------------------------------------------------------------

    def _watch(self, lease_id: bytes) -> None:
        link, _ = self._links[lease_id]
        if link.fileno() < 0:
            return
        read = None if lease_id in self._held else partial(self._read_some, lease_id)
        write = partial(self._write, lease_id) if link.writer.pending else None
        if read is not None or write is not None:
            self._loop.watch(link, read, write)
        else:
            self._loop.unwatch(link)

    def _write(self, lease_id: bytes) -> None:
        link, _ = self._links[lease_id]
        try:
            rest = not link.writer.flush()
        except OSError:
            rest = False  # as reading tells
        if not rest:
            self._watch(lease_id)

    def _read_some(self, lease_id: bytes) -> None:
        self._read(lease_id)

    def _read(self, lease_id: bytes) -> bool:
        """A part of what has come; whether there may be more."""
        pair = self._links.get(lease_id)
        if pair is None or pair[0].fileno() < 0 or self._machine is None:
            return False
        link = pair[0]
        frames: list[Frame] = []
        try:
            frames, ended = read_available(link.socket, link.reader)
        except (OSError, ProtocolError):  # something else than the worker's machinery wrote to it
            ended = True
        for frame in frames:
            self._machine.said(lease_id, bytes(frame))
        if ended:
            self._shut(link)
            self._machine.ended(lease_id)
        return bool(frames) and not ended

    def _shut(self, link: DirectLink) -> None:
        if link.fileno() >= 0:
            self._loop.unwatch(link)
            link.close()
