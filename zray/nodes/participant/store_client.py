"""A process's side of its node's object store: its own segments, what it maps of others, and views.

Used under the participant's lock, but for the copying. Decides nothing about memory: its Arena and
the node's ObjectStore do.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from zray import limits
from zray.core.arena import Arena, NewSegment, Region
from zray.errors import ObjectStoreFullError
from zray.protocol import messages as m
from zray.runtime.buffers import Parts
from zray.runtime.linux import segments, store_socket
from zray.runtime.linux.segments import Mapping
from zray.runtime.linux.store_socket import StoreLink

Wait = Callable[[float], None]  # sleep until something was read, without the lock


class SharedValue:
    """The bytes of a value in shared memory; its region stays as long as this lives, or a view."""

    __slots__ = ("__weakref__", "_mapping", "_object_id", "_offset", "_released", "_size")

    def __init__(
        self, object_id: bytes, mapping: Mapping, offset: int, size: int, released: deque[bytes]
    ) -> None:
        self._object_id = object_id
        self._mapping = mapping
        self._offset = offset
        self._size = size
        self._released = released

    def __len__(self) -> int:
        return self._size

    def view(self) -> memoryview:
        """The bytes, read-only; what is made of them keeps them."""
        return self._mapping.view(self._offset, self._size, partial(_keep, self))

    def __del__(self) -> None:
        self._released.append(self._object_id)  # may run anywhere, so that is all it does


def _nothing() -> None:
    pass


def _keep(_value: SharedValue) -> None:
    """As an argument of what is called when a view is gone, the value lives until then."""


class StoreClient:
    """``arrived`` gets each object that was asked for; ``missing`` those that cannot be had so."""

    def __init__(
        self,
        link: StoreLink,
        attached: m.Attached,
        process_id: bytes,
        arrived: Callable[[m.Outcome], None],
        missing: Callable[[bytes, str, str], None],
        relieve: Callable[[], None],
    ) -> None:
        self.link = link
        self.node_id = attached.node_id
        self.keep_bytes = attached.keep_bytes
        self._process_id = process_id
        self._arrived = arrived
        self._missing = missing
        self._relieve = relieve
        self._arena = Arena()
        self._own: dict[int, Mapping] = {}
        self._told: set[int] = set()  # own segments whose descriptors the node has
        self._maps: dict[tuple[bytes, int], Mapping] = {}
        self._objects: dict[bytes, tuple[Region, list[bytes]]] = {}  # own ones
        self._places: dict[tuple[int, int], bytes] = {}  # the other way round
        self._granted = 0  # bytes that may be written without asking
        self._published: dict[bytes, None] = {}  # own ones that the cluster knows
        self._unpublished: list[bytes] = []  # of these, what the node has yet to hear of
        self._answers: dict[int, m.Granted] = {}
        self._given_up: dict[int, None] = {}  # requests for room whose answer nobody waits for
        self._seq = 0
        self._taking: dict[bytes, None] = {}
        self.offered: dict[bytes, m.Outcome] = {}  # what came without being asked for
        self._released: deque[bytes] = deque()  # of objects whose memory nothing uses any more
        self._unput: list[bytes] = []

    # ---- own objects -----------------------------------------------------------------------

    def reserve(self, size: int, wait: Wait) -> Region:
        """Room for an object of this process.

        Raises:
            ObjectStoreFullError: the node has no memory for it; the message says what holds it.
            OSError: the node's store is gone.
        """
        if self._granted >= size:
            self._granted -= size
        else:
            self._ask_room(size, wait)
        try:
            while isinstance(region := self._arena.allocate(size), NewSegment):
                fd = segments.create(region.size)
                self._own[region.number] = Mapping(fd, writable=True)
                self._arena.add(region.number, region.size)
        except BaseException:
            self._unused(size)
            raise
        return region

    def _unused(self, size: int) -> None:
        with contextlib.suppress(OSError):
            self.link.send(m.Unused(0, size))

    def _ask_room(self, size: int, wait: Wait) -> None:
        self._seq += 1
        number = self._seq
        self.tell()
        self.link.send(m.Room(number, size))
        try:
            while (answer := self._answers.pop(number, None)) is None:
                wait(0.05)
                if not self.read():
                    raise ConnectionResetError("the node's store is gone")
        except BaseException:
            self._given_up[number] = None  # an interrupt, perhaps: the answer is still to come
            raise
        if not answer.size:
            raise ObjectStoreFullError(answer.text)
        if answer.size > size:
            self._granted = answer.size - size

    def write(self, region: Region, parts: Parts) -> None:
        """Copy a value to its place. Without the lock. Raises OSError when the store is gone."""
        mapping = self._own.get(region.segment)
        if mapping is None:
            raise ConnectionResetError("the node's store is gone")
        mapping.write(region.offset, parts.pieces)

    def seal(self, oid: bytes, kind: int, region: Region, contained: list[bytes]) -> None:
        """The object is complete: the node may give it to others.

        Raises:
            OSError: the node's store is gone.
        """
        if region.segment not in self._own:
            raise ConnectionResetError("the node's store is gone")
        while self._unput and oid in self._objects:
            self.tell()  # that it was here before, and is not needed, comes first
        new = region.segment not in self._told
        fd = self._own[region.segment].fd if new else None
        self.link.send(m.Sealed(0, oid, kind, *region, contained), fd)
        if new:
            self._told.add(region.segment)
            self._own[region.segment].close_descriptor()  # the node protects it: no use here
        self._objects[oid] = (region, contained)
        self._places[region.segment, region.offset] = oid

    def give_up(self, region: Region) -> None:
        """The object was not completed."""
        self._arena.free(region)
        self._close_released()
        self._unused(region.size)

    def published(self, oid: bytes) -> None:
        """The cluster is about to be told of an own object: ``publish`` comes before that."""
        self._published[oid] = None
        self._unpublished.append(oid)

    def tell_published(self) -> None:
        """Tell the node what the cluster is told next. Raises OSError when its store is gone."""
        while self._unpublished:
            some, self._unpublished = self._unpublished[:4096], self._unpublished[4096:]
            self.link.send(m.Published(0, b"".join(some)))
            if self.link.pending:  # the cluster may ask for them at once, so they have to be there
                poller = select.poll()
                poller.register(self.link, select.POLLOUT)
                while not self.link.flush():
                    poller.poll(1000)

    def told(self) -> list[m.Outcome]:
        """The own objects here that the cluster was told of, or is about to be."""
        found = []
        for oid in self._published:
            region, contained = self._objects[oid]
            kind = m.VALUE | m.LOCATED
            found.append(m.Outcome(oid, kind, region.size, b"", contained))
        return found

    def unput(self, oid: bytes) -> None:
        """An own object that nobody else knows of is not needed any more."""
        self._unput.append(oid)

    # ---- others' objects -------------------------------------------------------------------

    def take(self, oid: bytes) -> None:
        """Ask where an object is."""
        if oid not in self._taking:
            self._taking[oid] = None
            self.link.send(m.Take(0, oid))

    def due(self) -> bool:
        """Whether ``tell`` has something to say."""
        return bool(self._released or self._unput or self.link.pending)

    def tell(self) -> None:
        """Say what is not used any more. Raises OSError when the node's store is gone."""
        self._unview()
        if self._unput:
            unput, self._unput = self._unput[:4096], self._unput[4096:]
            self.link.send(m.Unput(0, b"".join(unput)))
        self.link.flush()

    def _unview(self) -> None:
        gone: list[bytes] = []
        while self._released and len(gone) < 4096:
            gone.append(self._released.popleft())
        if gone:
            self.link.send(m.Unview(0, b"".join(gone)))

    # ---- in --------------------------------------------------------------------------------

    def read(self) -> bool:
        """Handle what the node says; False: its store is gone."""
        try:
            self.link.flush()
        except OSError:
            pass  # reading tells
        received, ended = self.link.receive()
        for message, fd in received:
            self._handle(message, fd)
        return not ended

    def _handle(self, message: m.Message, fd: int | None) -> None:
        if isinstance(message, m.Placed):
            self._placed(message, fd)
        elif isinstance(message, m.Here):
            self._taking.pop(message.outcome.object_id, None)
            self._arrived(message.outcome)
        elif isinstance(message, m.Missing):
            self._taking.pop(message.object_id, None)
            self._missing(message.object_id, message.code, message.text)
        elif isinstance(message, m.Granted):
            self._on_granted(message)
        elif isinstance(message, m.FreeRegions):
            for region in message.regions:
                self._arena.free(Region(*region))
                oid = self._places.pop(region[:2], b"")
                self._objects.pop(oid, None)
                self._published.pop(oid, None)
            self._close_released()
        elif isinstance(message, m.DropSegments):
            for number in message.segments:
                mapping = self._maps.pop((message.owner, number), None)
                if mapping is not None:
                    mapping.close()
        elif isinstance(message, m.Relieve):
            self.offered.clear()
            self._arena.trim()
            self._close_released()
            self._relieve()
            while self._released:
                self._unview()
            self.link.send(m.Relieved(0))

    def _on_granted(self, message: m.Granted) -> None:
        if message.about in self._given_up:
            del self._given_up[message.about]
            self._unused(message.size)
        else:
            self._answers[message.about] = message

    def _placed(self, message: m.Placed, fd: int | None) -> None:
        key = (message.owner, message.segment)
        oid, size = message.object_id, message.size
        if message.owner == self._process_id:
            mapping = self._own[message.segment]
        else:
            if fd is not None:
                try:
                    self._maps[key] = Mapping(fd)
                    self._maps[key].close_descriptor()
                except (OSError, ValueError):
                    pass  # no address space for it, perhaps
            if key not in self._maps:
                self._taking.pop(oid, None)
                self._released.append(oid)
                self._missing(oid, "", "")
                return
            mapping = self._maps[key]
        value = SharedValue(oid, mapping, message.offset, size, self._released)
        outcome = m.Outcome(oid, message.kind, size, value, message.contained)  # type: ignore[arg-type]
        if oid in self._taking:
            del self._taking[oid]
            self._arrived(outcome)
        else:
            self.offered[oid] = outcome

    def _close_released(self) -> None:
        released = self._arena.take_released()
        for number in released:
            mapping = self._own.pop(number, None)
            if mapping is not None:
                mapping.close()
        told = [number for number in released if number in self._told]
        self._told.difference_update(released)
        if told:
            self.link.send(m.Released(0, told))

    def rescued(self) -> tuple[list[m.Outcome], list[bytes], list[bytes]]:
        """The node is gone: own objects, copied, the ids of those of them that the cluster was
        told of, and of those that were asked for."""
        own = []
        for oid, (region, contained) in self._objects.items():
            mapping = self._own[region.segment]
            data = bytes(mapping.view(region.offset, region.size, _nothing))
            own.append(m.Outcome(oid, m.VALUE, len(data), data, contained))
        return own, [*self._published], [*self._taking]

    def close(self) -> None:
        """Leave the store. Values that are in use stay readable, and whoever writes may go on."""
        self.link.close()
        for mapping in self._own.values():
            mapping.close_descriptor()
        self._own.clear()
        self._maps.clear()  # each is unmapped with the last value that is in it


def attach(
    name: bytes,
    process_id: bytes,
    arrived: Callable[[m.Outcome], None],
    missing: Callable[[bytes, str, str], None],
    relieve: Callable[[], None],
) -> StoreClient | None:
    """Connect to the store of that name on this machine; None: there is none."""
    link = store_socket.connect(name)
    if link is None:
        return None
    poller = select.poll()
    poller.register(link, select.POLLIN)
    deadline = time.monotonic() + limits.STORE_ATTACH_S
    try:
        link.send(m.Attach(0, process_id))
        while (left := deadline - time.monotonic()) > 0:
            poller.poll(left * 1000)
            received, ended = link.receive()
            for message, _ in received:
                if isinstance(message, m.Attached):
                    return StoreClient(link, message, process_id, arrived, missing, relieve)
            if ended:
                break
    except OSError:
        pass
    link.close()
    return None
