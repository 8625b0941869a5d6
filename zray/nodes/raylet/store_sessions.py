"""The connections of a node's object store, one for each process that shares memory.

Owns the sockets, and what has come over them and waits to be handled.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator

from zray import limits
from zray.errors import ProtocolError
from zray.protocol import messages as m
from zray.runtime.linux import store_socket
from zray.runtime.linux.store_socket import StoreLink
from zray.runtime.loop import Loop


class Session:
    """One process that shares memory.

    Attributes:
        awaited: its raylet tells when the process has ended, and until then what it has said
            elsewhere may still come.
        requests: for memory to write to, which there was none for yet, and since when.
        given: how often it was told where an object is.
        asked: how often before it was last asked to let go of what it does not use.
        relieving: its answer to that is still to come.
    """

    def __init__(self, link: StoreLink) -> None:
        self.link = link
        self.process_id = b""
        self.awaited = False
        self.reading = False
        self.inbox: deque[tuple[m.Message, int | None]] = deque()
        self.requests: list[tuple[m.Room, float]] = []
        self.given = self.asked = 0
        self.relieving = False


class StoreSessions:
    """Those that said who they are, by process.

    Args:
        handle: takes a message, and with it the descriptor that came along.
        ended: a process that was among these is not any more.
        settle: called whenever something was read.
        failed: hears what went wrong for one process only.
    """

    def __init__(
        self,
        loop: Loop,
        handle: Callable[[Session, m.Message, int | None], None],
        ended: Callable[[bytes], None],
        settle: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._ended = ended
        self._settle = settle
        self._on_failure = failed
        self._listeners: list[socket.socket] = []
        self._sessions: dict[bytes, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, process_id: bytes) -> Session | None:
        """The session of a process; None if it has none."""
        return self._sessions.get(process_id)

    def attached(self, session: Session) -> bool:
        """Whether it is that of a process that is still there."""
        return self._sessions.get(session.process_id) is session

    def attach(self, session: Session, process_id: bytes, *, awaited: bool) -> None:
        """It has said which process it is."""
        session.process_id = process_id
        session.awaited = awaited
        self._sessions[process_id] = session

    def listen(self, name: bytes) -> bool:
        """Let processes connect under that name; False: somebody else has it."""
        listener = store_socket.listen(name)
        if listener is None:
            return False
        self._listeners.append(listener)
        self._loop.watch(listener, lambda: self._accept(listener))
        return True

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

    def _failed(self, session: Session, message: m.Message, error: Exception) -> None:
        """What a process said could not be dealt with: it has to do without shared memory."""
        if not isinstance(error, ProtocolError | ValueError):
            self._on_failure(f"handling a {type(message).__name__} of the store", error)
        self._end(session)

    def _end(self, session: Session) -> None:
        """Nothing that it says counts any more."""
        self._loop.unwatch(session.link)
        session.link.close()
        for _, fd in session.inbox:
            if fd is not None:
                os.close(fd)
        session.inbox.clear()
        if self._sessions.get(session.process_id) is session:
            del self._sessions[session.process_id]
            self._ended(session.process_id)

    def drain(self, process_id: bytes) -> None:
        """Read what a process has said: word of its objects may have come by another way."""
        session = self._sessions.get(process_id)
        if session is not None:
            self._read(session)

    def drain_all(self) -> None:
        """Read what every process has said."""
        for session in [*self]:
            self._read(session)

    def process_gone(self, process_id: bytes) -> None:
        """A worker has ended, though something it started may hold its socket open."""
        session = self._sessions.get(process_id)
        if session is not None:
            self._read(session)
            self._end(session)
            self._settle()

    def send(self, session: Session, message: m.Message, fd: int | None = None) -> None:
        """Say something, which goes when the socket takes it."""
        try:
            session.link.send(message, fd)
        except OSError:
            session.link.break_off()  # reading tells
            return
        if session.link.pending:
            self._watch(session)

    def ask_to_relieve(self, session: Session) -> None:
        """Have a process let go of what it does not use."""
        session.asked = session.given
        session.relieving = True
        self.send(session, m.Relieve(0))

    def close(self) -> None:
        """Close every socket."""
        for listener in self._listeners:
            self._loop.unwatch(listener)
            listener.close()
        for session in self:
            self._loop.unwatch(session.link)
            session.link.close()
