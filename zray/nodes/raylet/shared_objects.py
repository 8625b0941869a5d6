"""The objects of a node's store, in memory and on disk: what is to be done to them is done here.

The shell of SegmentTable, ObjectStore and AdmissionControl, which decide. Processes write into
their own segments; this one writes what it fetches from other nodes, or reads back from disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from zray import limits
from zray.core.arena import Region
from zray.core.raylet.admission_control import AdmissionControl
from zray.core.raylet.object_store import ObjectStore, StoredObject
from zray.core.raylet.segment_table import SegmentTable
from zray.core.raylet.store_effects import (
    DropSegment,
    Effect,
    FreeRegion,
    SpillObject,
    TrimArena,
)
from zray.errors import ObjectLostError
from zray.nodes.raylet.store_memory import NodeMemory, SpillFiles
from zray.nodes.raylet.store_sessions import Session, StoreSessions
from zray.protocol import messages as m
from zray.runtime.disk import OwnDirectory
from zray.runtime.linux import segments
from zray.runtime.loop import Loop


class SharedObjects:
    """What LocalObjects knows as its store.

    Args:
        node_id: as whose the raylet's own segments and views are known.
        mark_bytes: objects may take this much of the memory.
        directory: for what memory has no room for.
        name_process: words a process for a user.
        freed_room: called when room may have become free.
        failed: hears what went wrong for one object only.
    """

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        mark_bytes: int,
        directory: OwnDirectory,
        sessions: StoreSessions,
        name_process: Callable[[bytes], str],
        freed_room: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._loop = loop
        self._node_id = node_id
        self._mark = mark_bytes
        self._sessions = sessions
        self._freed_room = freed_room
        self._on_failure = failed
        self._effects: list[Effect] = []
        self._segments = SegmentTable(self._effects.append)
        self._object_store = ObjectStore(self._segments, self._effects.append)
        self.admission = AdmissionControl(
            *(mark_bytes, self._segments, self._object_store, name_process, node_id)
        )
        self._memory = NodeMemory(node_id, mark_bytes)
        self._private: dict[bytes, bytes] = {}  # objects of which only that process knows
        self._takers: dict[bytes, list[Session]] = {}  # who waits for an object to be read back
        self._incoming: dict[bytes, tuple[Region, int, list[bytes]]] = {}
        self._unread: deque[bytes] = deque()  # objects of which this process's view is gone
        self._files = SpillFiles(directory)
        loop.watch(self._files.disk, self._disk_done)

    def get(self, oid: bytes) -> StoredObject | None:
        """The object; None if it is not here."""
        return self._object_store.get(oid)

    def usage(self) -> m.StoreUsage:
        """What the objects take here, in figures."""
        segments, objects = self._segments, self._object_store
        memory = (self._mark, segments.used_bytes, segments.touched_bytes)
        return m.StoreUsage(*memory, objects.spilled_bytes, objects.count())

    def listed(self, most: int) -> list[m.StoredHere]:
        """The largest objects here."""
        return self._object_store.listed(most)

    def tend(self) -> None:
        """Once a turn: take note of what is not being sent any more."""
        if self._unread:
            while self._unread:
                self._object_store.unview(self._unread.popleft(), self._node_id)
            self.settle()

    # ---- objects of processes ----------------------------------------------------------------

    def sealed(self, process_id: bytes, message: m.Sealed, fd: int | None) -> None:
        """A process has written an object, which it alone knows. ``fd``: its segment is new.

        Raises:
            ProtocolError: its place is none that it may write to.
        """
        oid = message.object_id
        if fd is not None:
            try:
                segments.protect(fd)
                size = os.fstat(fd).st_size
                self._segments.add(process_id, message.segment, size)
            except BaseException:
                os.close(fd)
                raise
            self._memory.add(process_id, message.segment, fd)
        region = Region(message.segment, message.offset, message.size)
        self.admission.unpromise(process_id, message.size)
        self._object_store.create(oid, process_id, region, message.kind, message.contained)
        if self._object_store.seal(oid, process_id):
            self._private[oid] = process_id

    def private(self, oid: bytes, process_id: bytes) -> StoredObject | None:
        """An object that the process sealed, if nobody else knows of it yet."""
        return self._object_store.get(oid) if self._private.get(oid) == process_id else None

    def unview(self, oid: bytes, process_id: bytes) -> None:
        """A process does not use the object any more.

        Raises:
            ProtocolError: it did not.
        """
        self._object_store.unview(oid, process_id)

    def released(self, process_id: bytes, number: int) -> None:
        """A process does not use an empty segment of its own any more.

        Raises:
            ProtocolError: it has none such.
        """
        self._segments.release(process_id, number)

    def process_gone(self, process_id: bytes) -> None:
        """What was only its own goes; what others know of stays."""
        for oid in [o for o, owner in self._private.items() if owner == process_id]:
            del self._private[oid]
            self._object_store.free(oid)
        self.admission.process_died(process_id)
        self._object_store.process_died(process_id)

    def place(self, session: Session, oid: bytes) -> None:
        """Tell where the object is, or that it is nowhere; one on disk is read back first."""
        place = self._object_store.view(oid, session.process_id)
        if place is None:
            waiting = self._takers.get(oid)
            if waiting is not None:
                waiting.append(session)
            elif self._object_store.get(oid) is not None:
                try:
                    self._restore(oid)
                except OSError as error:
                    self._cannot_place(session, oid, error)
                else:
                    self._takers[oid] = [session]
            else:
                text = "its memory went with the process that made it, or its file with the disk"
                self._sessions.send(session, m.Missing(0, oid, ObjectLostError.code, text))
            return
        found = self._object_store.get(oid)
        assert found is not None
        fd, reader = None, session.process_id
        if self._segments.grant(reader, place.owner, place.segment):
            try:
                fd = self._memory.descriptor(place.owner, place.segment)
            except OSError as error:
                self._segments.revoke(reader, place.owner, place.segment)
                self._object_store.unview(oid, reader)
                self._cannot_place(session, oid, error)
                return
        session.given += 1
        message = m.Placed(0, oid, found.kind, *place, found.contained)
        self._sessions.send(session, message, fd)

    def _cannot_place(self, session: Session, oid: bytes, error: OSError) -> None:
        """The machine has no memory or descriptor for it just now: it is to be had in chunks."""
        self._on_failure("giving an object to a process", error)
        text = f"it cannot be had in shared memory: {error}"
        self._sessions.send(session, m.Missing(0, oid, "", text))

    def claimed(self, oid: bytes, process_id: bytes) -> bool:
        """An object that a process sealed is the cluster's now; False: it is not here."""
        if self._object_store.get(oid) is None:
            self._sessions.drain(process_id)
        self._private.pop(oid, None)
        return self._object_store.get(oid) is not None

    def offer(self, oid: bytes, process_id: bytes) -> None:
        """Tell a process at once where an object is that it will ask for, if it is in memory."""
        session, found = self._sessions.get(process_id), self._object_store.get(oid)
        if session is not None and found is not None and found.place is not None:
            self.place(session, oid)

    def discard(self, oid: bytes, process_id: bytes) -> None:
        """An object that a process sealed is not needed, if nobody else knows of it."""
        if self._object_store.get(oid) is None:
            self._sessions.drain(process_id)
        if self._private.get(oid) == process_id:
            del self._private[oid]
            self._object_store.free(oid)
            self.settle()

    def drain_all(self) -> None:
        """Read what every process has said."""
        self._sessions.drain_all()

    # ---- memory of this process --------------------------------------------------------------

    def _region(self, size: int) -> Region:
        """Room for an object from elsewhere; the mark is kept by spilling others."""
        self.admission.relieve(self._loop.now())
        return self._memory.allocate(size, partial(self._segments.add, self._node_id))

    def small_bytes_max(self) -> int:
        """How many bytes of small values may lie beside the store."""
        return self._mark // limits.STORE_SMALL_SHARE

    def keep(self, outcome: m.Outcome) -> m.Outcome | None:
        """Take a small value in; the outcome to be kept in its place, None: it cannot be."""
        oid = outcome.object_id
        try:
            self.begin(oid, len(outcome.value), outcome.kind, outcome.contained)
            self.write(oid, 0, outcome.value)
        except OSError as error:  # no descriptor, or no memory
            self.abandon(oid)
            self._on_failure("keeping a small value in shared memory", error)
            return None
        return self.complete(oid)

    def free(self, oid: bytes) -> None:
        """The cluster does not need the object any more."""
        self._object_store.free(oid)
        self.settle()

    def read(self, oid: bytes) -> memoryview | None:
        """The object's bytes, which stay while anything uses them; None: it is not here."""
        found = self._object_store.get(oid)
        if found is None:
            return None
        place = self._object_store.view(oid, self._node_id)
        if place is None:
            assert found.path is not None
            return memoryview(Path(found.path).read_bytes())
        mapping = self._memory.mapping(place.owner, place.segment)
        return mapping.view(place.offset, place.size, partial(self._unread.append, oid))

    def begin(self, oid: bytes, size: int, kind: int, contained: list[bytes]) -> None:
        """An object comes from another node."""
        if oid not in self._incoming:
            region = self._region(size)
            self._object_store.create(oid, self._node_id, region, kind, contained)
            self._incoming[oid] = (region, kind, contained)

    def write(self, oid: bytes, offset: int, data: bytes) -> None:
        """A part of it has come."""
        self._memory.write(self._incoming[oid][0], offset, data)

    def complete(self, oid: bytes) -> m.Outcome:
        """All of it has come; returns the outcome to be kept in its place."""
        region, kind, contained = self._incoming.pop(oid)
        self._object_store.seal(oid, self._node_id)
        self.settle()
        return m.Outcome(oid, kind | m.LOCATED, region.size, b"", contained)

    def abandon(self, oid: bytes) -> None:
        """It will not come."""
        if self._incoming.pop(oid, None) is not None:
            self._object_store.abandon(oid, self._node_id)
            self.settle()

    # ---- effects ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Do what the machines have decided since the last call."""
        freed: dict[bytes, list[tuple[int, int, int]]] = {}
        while self._effects:
            effects = [*self._effects]
            self._effects.clear()
            for effect in effects:
                if isinstance(effect, FreeRegion):
                    if effect.owner == self._node_id:
                        self._memory.arena.free(effect.region)
                    else:
                        freed.setdefault(effect.owner, []).append((*effect.region,))
                elif isinstance(effect, DropSegment):
                    self._drop(effect)
                elif isinstance(effect, TrimArena):
                    self._trim(effect.owner)
                elif isinstance(effect, SpillObject):
                    self._spill(effect)
                else:
                    self._files.delete(effect.path)
            for number in self._memory.arena.take_released():
                self._segments.release(self._node_id, number)
        for owner, regions in freed.items():
            session = self._sessions.get(owner)
            for start in range(0, len(regions), 4096) if session is not None else ():
                assert session is not None
                self._sessions.send(session, m.FreeRegions(0, regions[start : start + 4096]))

    def _drop(self, effect: DropSegment) -> None:
        self._memory.drop(effect.owner, effect.segment)
        for process_id in effect.readers:
            session = self._sessions.get(process_id)
            if session is not None:
                self._sessions.send(session, m.DropSegments(0, effect.owner, [effect.segment]))

    def _trim(self, owner: bytes) -> None:
        session = self._sessions.get(owner)
        if owner == self._node_id:
            self._memory.arena.trim()
        elif session is not None:
            self._sessions.ask_to_relieve(session)

    # ---- disk ------------------------------------------------------------------------------

    def _disk_done(self) -> None:
        self._files.disk.finish()
        self._freed_room()

    def _spill(self, effect: SpillObject) -> None:
        place, oid = effect.place, effect.object_id
        mapping = self._memory.mapping(place.owner, place.segment)
        data = mapping.view(place.offset, place.size, _nothing)

        def failed(reason: str) -> None:
            self._object_store.spill_failed(oid, reason, self._loop.now())

        self._files.spill(oid.hex(), data, partial(self._object_store.spilled, oid), failed)

    def _restore(self, oid: bytes) -> None:
        found = self._object_store.get(oid)
        assert found is not None
        region = self._region(found.size)
        mapping = self._memory.mapping(self._node_id, region.segment)
        path = self._object_store.restore(oid, self._node_id, region)
        self._files.restore(path, mapping, region, partial(self._restored, oid))

    def _restored(self, oid: bytes, success: bool) -> None:
        if success:
            self._object_store.restored(oid)
        else:
            self._object_store.restore_failed(oid)
        for session in self._takers.pop(oid, ()):
            if self._sessions.attached(session):
                self.place(session, oid)

    def close(self) -> None:
        """Close every segment and file."""
        self._loop.unwatch(self._files.disk)
        self._files.close()
        self._memory.close()


def _nothing() -> None:
    pass
