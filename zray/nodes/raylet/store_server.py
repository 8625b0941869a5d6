"""The raylet's object store, towards the processes of its node: what they say, ask for and get.

Which object lies where, and in whose memory, is `shared_objects`; their connections are
`store_sessions`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from zray import limits
from zray.core.raylet.objects import LocalObjects
from zray.errors import ObjectLostError, ObjectStoreFullError, ProtocolError
from zray.ids import split_objects
from zray.nodes.raylet.shared_objects import SharedObjects
from zray.nodes.raylet.store_sessions import Session, StoreSessions
from zray.protocol import messages as m
from zray.runtime.disk import OwnDirectory
from zray.runtime.loop import Loop


class StoreServer:
    """``local``: what the node has. ``directory``: for what memory has no room for.

    ``is_worker``: whether a process is one whose end ``process_gone`` will tell. ``name_process``
    words a process for a user. ``failed`` hears what went wrong for one process or object only.
    """

    def __init__(
        self,
        loop: Loop,
        node_id: bytes,
        local: Callable[[], LocalObjects],
        mark_bytes: int,
        directory: OwnDirectory,
        is_worker: Callable[[bytes], bool],
        name_process: Callable[[bytes], str],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._loop = loop
        self._on_failure = failed
        self._node_id = node_id
        self._local = local
        self._mark = mark_bytes
        self._is_worker = is_worker
        self._sessions = StoreSessions(loop, self._handle, self._ended, self._settle_read, failed)
        self.objects = SharedObjects(
            *(loop, node_id, mark_bytes, directory, self._sessions, name_process),
            *(self._serve_rooms, failed),
        )
        self._unknown: list[tuple[Session, bytes]] = []  # who wants objects that nobody told of
        self._looking = False  # for these in what all processes have said
        self._claimed = False
        self._claim_at = 0.0
        self._sessions.listen(node_id)

    def tend(self, cluster_id: bytes, now: float) -> None:
        """Once a turn. Serves this machine's drivers too, unless another node does."""
        self.objects.tend()
        if self.waits():
            self._serve_rooms()
        if not self._claimed and cluster_id and now >= self._claim_at:
            self._claim_at = now + limits.STORE_RETRY_MAX_S
            self._claimed = self._sessions.listen(cluster_id)

    def process_gone(self, process_id: bytes) -> None:
        """A worker has ended, though something it started may hold its socket open."""
        self._sessions.process_gone(process_id)

    def _ended(self, process_id: bytes) -> None:
        self.objects.process_gone(process_id)

    def _settle_read(self) -> None:
        self.objects.settle()
        self._look_for_unknown()

    # ---- what processes say ----------------------------------------------------------------

    def _handle(self, session: Session, message: m.Message, fd: int | None) -> None:
        if isinstance(message, m.Sealed):
            self.objects.sealed(session.process_id, message, fd)
            return
        if fd is not None:
            os.close(fd)
        if isinstance(message, m.Attach) and self._sessions.get(message.process_id) is None:
            awaited = self._is_worker(message.process_id)
            self._sessions.attach(session, message.process_id, awaited=awaited)
            keep_bytes = self._mark // limits.STORE_KEPT_SHARE
            self._sessions.send(session, m.Attached(0, self._node_id, keep_bytes))
        elif not self._sessions.attached(session):
            raise ProtocolError("a process did not say which one it is")
        elif isinstance(message, m.Take):
            self._take(session, message.object_id)
        elif isinstance(message, m.Unview):
            for oid in split_objects(message.object_ids):
                self.objects.unview(oid, session.process_id)
        elif isinstance(message, m.Room):
            self._room(session, message, self._loop.now())
        elif isinstance(message, m.Relieved):
            session.relieving = False
        elif isinstance(message, m.Unused):
            self.objects.admission.unpromise(session.process_id, message.size)
        elif isinstance(message, m.Published):
            for oid in split_objects(message.object_ids):
                self._publish(session, oid)
        elif isinstance(message, m.Unput):
            for oid in split_objects(message.object_ids):
                self.objects.discard(oid, session.process_id)
        elif isinstance(message, m.Released):
            for number in message.segments:
                self.objects.released(session.process_id, number)

    def _publish(self, session: Session, oid: bytes) -> None:
        """The cluster is about to hear of the object from its owner."""
        found = self.objects.private(oid, session.process_id)
        if found is not None:
            kind = found.kind | m.LOCATED
            self._local().put(m.Outcome(oid, kind, found.size, b"", found.contained))

    def _room(self, session: Session, message: m.Room, began: float) -> None:
        now, admission = self._loop.now(), self.objects.admission
        number, size, process_id = message.seq, message.size, session.process_id
        waited = now - began
        silent = {s.process_id for s in self._sessions if s.relieving}
        asked = silent if waited < limits.STORE_RELIEF_S else ()
        try:
            granted = admission.room(size, process_id, now, asked)
            is_full = not granted and waited >= limits.STORE_PASSING_S
        except ObjectStoreFullError:
            is_full = size > self._mark or not self._ask_to_relieve()
            granted = False
        if is_full:
            text = admission.full(size, silent)
            self._sessions.send(session, m.Granted(0, number, 0, text))
            return
        if not granted:
            session.requests.append((message, began))
            return
        self.objects.settle()  # what it may use again comes first
        allowance = min(limits.STORE_GRANT_BYTES, self._mark // 32)
        if size >= allowance:
            admission.promise(process_id, size)
        self._sessions.send(session, m.Granted(0, number, max(size, allowance)))

    def _ask_to_relieve(self) -> bool:
        """Whether there is somebody who has not been asked since an object was given to him."""
        found = [s for s in self._sessions if not s.relieving and s.given != s.asked]
        for session in found:
            self._sessions.ask_to_relieve(session)
        return bool(found)

    # ---- what processes take ---------------------------------------------------------------

    def _take(self, session: Session, oid: bytes) -> None:
        if oid not in self._local().stored and self.objects.get(oid) is None:
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
                self._sessions.drain_all()
                for session, oid in unknown:
                    if self._sessions.attached(session):
                        self._try_to_answer(session, oid)
        finally:
            self._looking = False

    def _try_to_answer(self, session: Session, oid: bytes) -> None:
        try:
            self._answer(session, oid)
        except Exception as error:
            self._on_failure("finding an object for a process", error)
            text = f"it cannot be had in shared memory: {error}"
            self._sessions.send(session, m.Missing(0, oid, "", text))

    def _answer(self, session: Session, oid: bytes) -> None:
        stored = self._local().stored.get(oid)
        if stored is None and self.objects.get(oid) is not None:
            self.objects.place(session, oid)  # its own, or word of it is still on its way here
        elif stored is None:
            self._local().fetch(oid, lambda outcome, text: self._fetched(session, oid, text))
        elif stored.kind & m.LOCATED:
            self.objects.place(session, oid)
        elif max(len(stored.value), 22 * len(stored.contained)) <= limits.INLINE_BYTES_MAX:
            self._sessions.send(session, m.Here(0, stored))
        else:
            self._sessions.send(session, m.Missing(0, oid, "", "it is to be had in chunks"))

    def _fetched(self, session: Session, oid: bytes, text: str) -> None:
        if not self._sessions.attached(session):
            return
        if oid in self._local().stored:
            self._try_to_answer(session, oid)
        else:
            self._sessions.send(session, m.Missing(0, oid, ObjectLostError.code, text))
        self.objects.settle()

    def _serve_rooms(self) -> None:
        """Processes that wait for memory get it, or learn that there is none."""
        for session in [*self._sessions]:
            requests, session.requests = session.requests, []
            for message, began in requests:
                self._room(session, message, began)
        self.objects.settle()

    def waits(self) -> bool:
        """Whether processes wait for memory, which has to be looked at again soon."""
        return any(session.requests for session in self._sessions)

    def close(self) -> None:
        """Close every socket, segment and file."""
        self._sessions.close()
        self.objects.close()
