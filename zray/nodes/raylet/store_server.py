"""The raylet's object store: sockets to the processes that share memory, segments, spilled files.

The shell of the ObjectStore machine, which decides. Processes write into their own segments; this
one writes what it fetches from other nodes, and what it reads back from disk.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from zray import limits
from zray.core.arena import Region
from zray.core.raylet.object_store import (
    DropSegment,
    FreeRegion,
    ObjectStore,
    SpillObject,
    TrimArena,
)
from zray.core.raylet.objects import LocalObjects
from zray.errors import ObjectLostError, ObjectStoreFullError, ProtocolError
from zray.ids import split_objects
from zray.nodes.raylet.store_memory import NodeMemory, SpillFiles
from zray.protocol import messages as m
from zray.runtime.disk import OwnDirectory
from zray.runtime.linux import segments, store_socket
from zray.runtime.linux.store_socket import StoreLink
from zray.runtime.loop import Loop


class Request:
    """A process wants to write, since ``began``."""

    def __init__(self, message: m.Room, began: float) -> None:
        self.message = message
        self.began = began


class Session:
    """One process that shares memory.

    ``awaited``: its raylet tells when the process has ended, and until then what it has said
    elsewhere may still come. ``given``: how often it was told where an object is; ``asked``: how
    often before it was last asked to let go of what it does not use.
    """

    def __init__(self, link: StoreLink) -> None:
        self.link = link
        self.process_id = b""
        self.awaited = False
        self.reading = False
        self.inbox: deque[tuple[m.Message, int | None]] = deque()
        self.requests: list[Request] = []
        self.given = self.asked = 0
        self.relieving = False  # its answer is still to come


class StoreServer:
    """``objects``: what the node has. ``directory``: for what memory has no room for.

    ``is_worker``: whether a process is one whose end ``process_gone`` will tell. ``name_process``
    words a process for a user. ``failed`` hears what went wrong for one process or object only.
    """

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        objects: Callable[[], LocalObjects],
        mark_bytes: int,
        directory: OwnDirectory,
        is_worker: Callable[[bytes], bool],
        name_process: Callable[[bytes], str],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._loop = loop
        self._on_failure = failed
        self._node_id = node_id
        self._objects = objects
        self._mark = mark_bytes
        self._is_worker = is_worker
        self._object_store = ObjectStore(mark_bytes, name_process, node_id)
        self._memory = NodeMemory(node_id, mark_bytes)
        self._sessions: dict[bytes, Session] = {}
        self._private: dict[bytes, bytes] = {}  # objects of which only that process knows
        self._takers: dict[bytes, list[Session]] = {}  # who waits for an object to be read back
        self._unknown: list[tuple[Session, bytes]] = []  # who wants objects that nobody told of
        self._looking = False  # for these in what all processes have said
        self._incoming: dict[bytes, tuple[Region, int, list[bytes]]] = {}
        self._unread: deque[bytes] = deque()  # objects of which this process's view is gone
        self._listeners: list[socket.socket] = []
        self._claimed = False
        self._claim_at = 0.0
        self._files = SpillFiles(directory)
        loop.watch(self._files.disk, self._disk_done)
        self._listen(node_id)

    # ---- connections -----------------------------------------------------------------------

    def _listen(self, name: bytes) -> bool:
        listener = store_socket.listen(name)
        if listener is None:
            return False
        self._listeners.append(listener)
        self._loop.watch(listener, lambda: self._accept(listener))
        return True

    def tend(self, cluster_id: bytes, now: float) -> None:
        """Once a turn. Serves this machine's drivers too, unless another node does."""
        if self._unread:
            while self._unread:
                self._object_store.unview(self._unread.popleft(), self._node_id)
            self._settle()
        if self.waits():
            self._serve_rooms()
        if not self._claimed and cluster_id and now >= self._claim_at:
            self._claim_at = now + limits.STORE_RETRY_MAX_S
            self._claimed = self._listen(cluster_id)

    def _accept(self, listener: socket.socket) -> None:
        while (link := store_socket.accept(listener)) is not None:
            session = Session(link)
            self._watch(session)

    def _watch(self, session: Session) -> None:
        link = session.link

        def read() -> None:
            self._read(session, limits.DRAIN_MESSAGES_MAX)

        def write() -> None:
            try:
                link.flush()
            except OSError:
                link.break_off()
            self._watch(session)

        self._loop.watch(link, read, write if link.pending else None)

    def _read(self, session: Session, most: int = sys.maxsize) -> None:
        """Does nothing while a message of the session is handled: the rest comes in its turn."""
        if session.reading:
            return
        session.reading = True
        try:
            received, ended = session.link.receive(most)
            session.inbox += received
            while session.inbox:
                message, fd = session.inbox.popleft()
                try:
                    self._handle(session, message, fd)
                except Exception as error:  # it breaks the protocol, or its memory is of no use
                    self._failed(session, message, error)
            if ended and session.awaited:
                self._loop.unwatch(session.link)
                session.link.break_off()
            elif ended:
                self._end(session)
        finally:
            session.reading = False
        self._settle()
        self._look_for_unknown()

    def _failed(self, session: Session, message: m.Message, error: Exception) -> None:
        """What a process said could not be dealt with: it has to do without shared memory."""
        if not isinstance(error, ProtocolError | ValueError):
            self._on_failure(f"handling a {type(message).__name__} of the store", error)
        self._end(session)

    def _end(self, session: Session) -> None:
        self._loop.unwatch(session.link)
        session.link.close()
        for _, fd in session.inbox:
            if fd is not None:
                os.close(fd)
        session.inbox.clear()
        if self._sessions.get(session.process_id) is session:
            del self._sessions[session.process_id]
            for oid in [o for o, owner in self._private.items() if owner == session.process_id]:
                del self._private[oid]
                self._object_store.free(oid)
            self._object_store.process_died(session.process_id)

    def drain(self, process_id: bytes) -> None:
        """Read what a process has said: word of its objects may have come by another way."""
        session = self._sessions.get(process_id)
        if session is not None:
            self._read(session)

    def process_gone(self, process_id: bytes) -> None:
        """A worker has ended, though something it started may hold its socket open."""
        session = self._sessions.get(process_id)
        if session is not None:
            self._read(session)
            self._end(session)
            self._settle()

    def _send(self, session: Session, message: m.Message, fd: int | None = None) -> None:
        try:
            session.link.send(message, fd)
        except OSError:
            session.link.break_off()  # reading tells
            return
        if session.link.pending:
            self._watch(session)

    # ---- what processes say ----------------------------------------------------------------

    def _handle(self, session: Session, message: m.Message, fd: int | None) -> None:
        if isinstance(message, m.Sealed):
            self._sealed(session, message, fd)
            return
        if fd is not None:
            os.close(fd)
        if isinstance(message, m.Attach) and message.process_id not in self._sessions:
            session.process_id = message.process_id
            session.awaited = self._is_worker(message.process_id)
            self._sessions[message.process_id] = session
            keep_bytes = self._mark // limits.STORE_KEPT_SHARE
            self._send(session, m.Attached(0, self._node_id, keep_bytes))
        elif self._sessions.get(session.process_id) is not session:
            raise ProtocolError("a process did not say which one it is")
        elif isinstance(message, m.Take):
            self._take(session, message.object_id)
        elif isinstance(message, m.Unview):
            for oid in split_objects(message.object_ids):
                self._object_store.unview(oid, session.process_id)
        elif isinstance(message, m.Room):
            self._room(session, Request(message, self._loop.now()))
        elif isinstance(message, m.Relieved):
            session.relieving = False
        elif isinstance(message, m.Unused):
            self._object_store.unpromise(session.process_id, message.size)
        elif isinstance(message, m.Published):
            for oid in split_objects(message.object_ids):
                self._publish(session, oid)
        elif isinstance(message, m.Unput):
            for oid in split_objects(message.object_ids):
                self.discard(oid, session.process_id)
        elif isinstance(message, m.Released):
            for number in message.segments:
                self._object_store.release_segment(session.process_id, number)

    def _sealed(self, session: Session, message: m.Sealed, fd: int | None) -> None:
        process_id, oid = session.process_id, message.object_id
        if fd is not None:
            try:
                segments.protect(fd)
                size = os.fstat(fd).st_size
                self._object_store.add_segment(process_id, message.segment, size)
            except BaseException:
                os.close(fd)
                raise
            self._memory.add(process_id, message.segment, fd)
        region = Region(message.segment, message.offset, message.size)
        self._object_store.unpromise(process_id, message.size)
        self._object_store.create(oid, process_id, region, message.kind, message.contained)
        if self._object_store.seal(oid, process_id):
            self._private[oid] = process_id

    def _publish(self, session: Session, oid: bytes) -> None:
        """The cluster is about to hear of the object from its owner."""
        found = self._object_store.get(oid)
        if found is not None and self._private.get(oid) == session.process_id:
            kind = found.kind | m.LOCATED
            self._objects().put(m.Outcome(oid, kind, found.size, b"", found.contained))

    def _room(self, session: Session, request: Request) -> None:
        now, size = self._loop.now(), request.message.size
        number, process_id = request.message.seq, session.process_id
        waited = now - request.began
        silent = {s.process_id for s in self._sessions.values() if s.relieving}
        asked = silent if waited < limits.STORE_RELIEF_S else ()
        try:
            granted = self._object_store.room(size, process_id, now, asked)
            is_full = not granted and waited >= limits.STORE_PASSING_S
        except ObjectStoreFullError:
            is_full = size > self._mark or not self._ask_to_relieve()
            granted = False
        if is_full:
            self._send(session, m.Granted(0, number, 0, self._object_store.full(size, silent)))
            return
        if not granted:
            session.requests.append(request)
            return
        self._settle()  # what it may use again comes first
        allowance = min(limits.STORE_GRANT_BYTES, self._mark // 32)
        if size >= allowance:
            self._object_store.promise(process_id, size)
        self._send(session, m.Granted(0, number, max(size, allowance)))

    def _ask_to_relieve(self) -> bool:
        """Whether there is somebody who has not been asked since an object was given to him."""
        found = [s for s in self._sessions.values() if not s.relieving and s.given != s.asked]
        for session in found:
            session.asked = session.given
            session.relieving = True
            self._send(session, m.Relieve(0))
        return bool(found)

    # ---- what processes take ---------------------------------------------------------------

    def _take(self, session: Session, oid: bytes) -> None:
        if oid not in self._objects().stored and self._object_store.get(oid) is None:
            self._unknown.append((session, oid))
        else:
            self._answer(session, oid)

    def _look_for_unknown(self) -> None:
        """Whoever told of an object has told the store first: all that was said is read."""
        if self._looking:
            return
        self._looking = True
        try:
            while self._unknown:
                unknown, self._unknown = self._unknown, []
                self.drain_all()
                for session, oid in unknown:
                    if self._sessions.get(session.process_id) is session:
                        self._try_to_answer(session, oid)
        finally:
            self._looking = False

    def _try_to_answer(self, session: Session, oid: bytes) -> None:
        try:
            self._answer(session, oid)
        except Exception as error:
            self._on_failure("finding an object for a process", error)
            text = f"it cannot be had in shared memory: {error}"
            self._send(session, m.Missing(0, oid, "", text))

    def _answer(self, session: Session, oid: bytes) -> None:
        stored = self._objects().stored.get(oid)
        if stored is None and self._object_store.get(oid) is not None:
            self._place(session, oid)  # its own, or word of it is still on its way here
        elif stored is None:
            self._objects().fetch(oid, lambda outcome, text: self._fetched(session, oid, text))
        elif stored.kind & m.LOCATED:
            self._place(session, oid)
        elif max(len(stored.value), 22 * len(stored.contained)) <= limits.INLINE_BYTES_MAX:
            self._send(session, m.Here(0, stored))
        else:
            self._send(session, m.Missing(0, oid, "", "it is to be had in chunks"))

    def _fetched(self, session: Session, oid: bytes, text: str) -> None:
        if self._sessions.get(session.process_id) is not session:
            return
        if oid in self._objects().stored:
            self._answer(session, oid)
        else:
            self._send(session, m.Missing(0, oid, ObjectLostError.code, text))
        self._settle()

    def _place(self, session: Session, oid: bytes) -> None:
        """Tell where the object is; one that is on disk is read back first."""
        place = self._object_store.view(oid, session.process_id)
        if place is None:
            waiting = self._takers.get(oid)
            if waiting is not None:
                waiting.append(session)
            elif self._object_store.get(oid) is not None:
                self._takers[oid] = [session]
                self._restore(oid)
            else:
                text = "its memory went with the process that made it, or its file with the disk"
                self._send(session, m.Missing(0, oid, ObjectLostError.code, text))
            return
        found = self._object_store.get(oid)
        assert found is not None
        fd = None
        if self._object_store.grant(session.process_id, place.owner, place.segment):
            fd = self._memory.descriptor(place.owner, place.segment)
        session.given += 1
        message = m.Placed(0, oid, found.kind, *place, found.contained)
        self._send(session, message, fd)

    # ---- memory of this process --------------------------------------------------------------

    def _region(self, size: int) -> Region:
        """Room for an object from elsewhere; the mark is kept by spilling others."""
        self._object_store.relieve(self._loop.now())
        return self._memory.allocate(size, partial(self._object_store.add_segment, self._node_id))

    def claimed(self, oid: bytes, process_id: bytes) -> bool:
        """An object that a process sealed is the cluster's now; False: it is not here."""
        if self._object_store.get(oid) is None:
            self.drain(process_id)
        self._private.pop(oid, None)
        return self._object_store.get(oid) is not None

    def offer(self, oid: bytes, process_id: bytes) -> None:
        """Tell a process at once where an object is that it will ask for, if it is in memory."""
        session, found = self._sessions.get(process_id), self._object_store.get(oid)
        if session is not None and found is not None and found.place is not None:
            self._place(session, oid)

    def discard(self, oid: bytes, process_id: bytes) -> None:
        """An object that a process sealed is not needed, if nobody else knows of it."""
        if self._object_store.get(oid) is None:
            self.drain(process_id)
        if self._private.get(oid) == process_id:
            del self._private[oid]
            self._object_store.free(oid)
            self._settle()

    def drain_all(self) -> None:
        """Read what every process has said."""
        for session in [*self._sessions.values()]:
            self._read(session)

    def small_bytes_max(self) -> int:
        return self._mark // limits.STORE_SMALL_SHARE

    def keep(self, outcome: m.Outcome) -> m.Outcome | None:
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
        self._object_store.free(oid)
        self._settle()

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
        self._memory.write(self._incoming[oid][0], offset, data)

    def complete(self, oid: bytes) -> m.Outcome:
        """All of it has come; returns the outcome to be kept in its place."""
        region, kind, contained = self._incoming.pop(oid)
        self._object_store.seal(oid, self._node_id)
        self._settle()
        return m.Outcome(oid, kind | m.LOCATED, region.size, b"", contained)

    def abandon(self, oid: bytes) -> None:
        """It will not come."""
        if self._incoming.pop(oid, None) is not None:
            self._object_store.abandon(oid, self._node_id)
            self._settle()

    # ---- effects ---------------------------------------------------------------------------

    def _settle(self) -> None:
        freed: dict[bytes, list[tuple[int, int, int]]] = {}
        while effects := self._object_store.take_effects():
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
                self._object_store.release_segment(self._node_id, number)
        for owner, regions in freed.items():
            session = self._sessions.get(owner)
            for start in range(0, len(regions), 4096) if session is not None else ():
                assert session is not None
                self._send(session, m.FreeRegions(0, regions[start : start + 4096]))

    def _drop(self, effect: DropSegment) -> None:
        self._memory.drop(effect.owner, effect.segment)
        for process_id in effect.readers:
            session = self._sessions.get(process_id)
            if session is not None:
                self._send(session, m.DropSegments(0, effect.owner, [effect.segment]))

    def _trim(self, owner: bytes) -> None:
        session = self._sessions.get(owner)
        if owner == self._node_id:
            self._memory.arena.trim()
        elif session is not None:
            session.asked = session.given
            session.relieving = True
            self._send(session, m.Relieve(0))

    def _serve_rooms(self) -> None:
        """Processes that wait for memory get it, or learn that there is none."""
        for session in [*self._sessions.values()]:
            requests, session.requests = session.requests, []
            for request in requests:
                self._room(session, request)
        self._settle()

    def waits(self) -> bool:
        """Whether processes wait for memory, which has to be looked at again soon."""
        return any(session.requests for session in self._sessions.values())

    # ---- disk ------------------------------------------------------------------------------

    def _disk_done(self) -> None:
        self._files.disk.finish()
        self._serve_rooms()

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
        path = self._object_store.restore(oid, self._node_id, region)
        mapping = self._memory.mapping(self._node_id, region.segment)
        self._files.restore(path, mapping, region, partial(self._restored, oid))

    def _restored(self, oid: bytes, success: bool) -> None:
        if success:
            self._object_store.restored(oid)
        else:
            self._object_store.restore_failed(oid)
        for session in self._takers.pop(oid, ()):
            if self._sessions.get(session.process_id) is session:
                self._place(session, oid)

    # ---- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every socket, segment and file."""
        for listener in self._listeners:
            self._loop.unwatch(listener)
            listener.close()
        for session in [*self._sessions.values()]:
            self._loop.unwatch(session.link)
            session.link.close()
        self._loop.unwatch(self._files.disk)
        self._files.close()
        self._memory.close()


def _nothing() -> None:
    pass
