"""The event loop of the head and the raylet: one thread, plain sockets, no decision.

A callback that raises ends nothing: it is reported, and called again after a pause.

A zmq socket's descriptor is edge-triggered: reading EVENTS or sending consumes its signal, so
a turn looks at EVENTS before it sleeps, if anybody may have done that (zmq_getsockopt, ZMQ_FD). Nor
does it signal before EVENTS was looked at a first time. A look costs two system calls, so sockets
that are rarely used are not looked at in every turn.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from zray import limits
from zray.runtime import service, sockets
from zray.runtime.linux.clock import boot_time
from zray.runtime.sockets import Socket
from zray.runtime.wake_pipe import WakePipe

Callback = Callable[[], None]

SAME_STOP_S = 0.2


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have: each peer and worker needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Loop:
    """Calls back whoever has something to read or can write again; ``turn`` is one round.

    ``failed`` hears of each exception of a callback, and of which one it was.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self._failed = failed
        self._paused: dict[Any, tuple[float, Any]] = {}  # what failed -> until when, and its key
        self._selector = selectors.DefaultSelector()
        self._zmq: dict[Socket, Callback] = {}
        self._busy: dict[Socket, None] = {}  # those that are not rare
        self._looks: dict[Socket, None] = {}  # those that may have something
        self._edges: set[int] = set()  # descriptors that are edge-triggered
        self._wake_pipe = WakePipe()
        self.watch(self._wake_pipe, self._wake_pipe.drain)
        self.woke = self.now()  # when the last turn had something to do
        self.signals = 0  # how many SIGINT and SIGTERM have come

    def now(self) -> float:
        """Seconds since boot, sleep of the machine included: the machines' ``now``."""
        return boot_time()

    def watch(
        self,
        fd: Any,
        read: Callback | None,
        write: Callback | None = None,
        *,
        first: bool = False,
    ) -> None:
        """Call ``read`` when ``fd`` is readable, ``write`` when it is writable; replaces.

        ``first``: before others whose descriptors are ready in the same turn.
        """
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        self._paused.pop(fd, None)
        try:
            self._selector.modify(fd, events, (read, write, not first))
        except KeyError:
            self._selector.register(fd, events, (read, write, not first))

    def unwatch(self, fd: Any) -> None:
        """Watch no more; does nothing if ``fd`` is not watched."""
        self._paused.pop(fd, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def watch_zmq(self, socket: Socket, read: Callback, *, rare: bool = False) -> None:
        """Call ``read`` when something has arrived, and again while there is more.

        ``rare``: whoever sends on it or reads from it outside ``read`` says so with ``look``.
        """
        self._zmq[socket] = read
        if not rare:
            self._busy[socket] = None
        self._looks[socket] = None
        fd = sockets.descriptor(socket)
        self._edges.add(fd)
        signalled = partial(self.look, socket)
        self._selector.register(fd, selectors.EVENT_READ, (signalled, None, True))

    def look(self, socket: Socket) -> None:
        """Look at the socket in this turn or the next: its signal may have been used up."""
        if socket in self._zmq:
            self._looks[socket] = None

    def unwatch_zmq(self, socket: Socket) -> None:
        """Do not look at the socket any more; it may be closed then."""
        self._zmq.pop(socket, None)
        self._busy.pop(socket, None)
        self._looks.pop(socket, None)
        self._paused.pop(socket, None)
        fd = sockets.descriptor(socket)
        self._edges.discard(fd)
        self.unwatch(fd)

    def turn(self, timeout_s: float) -> None:
        """Wait for something, at most ``timeout_s`` seconds, and call whom it concerns."""
        if self._paused:
            timeout_s = min(timeout_s, self._resume())
        if service.declared is not None:
            timeout_s = min(timeout_s, service.beat())
        looks = self._looks
        looks.update(self._busy)
        ready = [socket for socket in looks if self._ready(socket)]
        self._looks = dict.fromkeys(ready + [s for s in self._paused if s in looks])
        found = self._selector.select(0 if ready else max(0.0, timeout_s))
        self.woke = self.now()
        if len(found) > 1:
            found.sort(key=_order)
        watched = self._selector.get_map()
        for key, mask in found:
            if watched.get(key.fd) is not key:
                continue  # an earlier callback of this turn has changed it
            read, write, _ = key.data
            if read is not None and mask & selectors.EVENT_READ:
                try:
                    read()
                except Exception as error:
                    self._fail(read, key, error)
            if write is not None and mask & selectors.EVENT_WRITE:
                self._call(write, key)
        for socket in [*self._looks]:
            callback = self._zmq.get(socket)
            if callback is not None and (socket in ready or self._ready(socket)):
                try:
                    callback()
                except Exception as error:
                    self._fail(callback, socket, error)

    def _ready(self, socket: Socket) -> bool:
        return socket not in self._paused and sockets.readable(socket)

    def _call(self, callback: Callback, source: Any) -> None:
        try:
            callback()
        except Exception as error:
            self._fail(callback, source, error)

    def _fail(self, callback: Callback, source: Any, error: Exception) -> None:
        """What it failed on may still be there: without a pause the loop would do nothing else."""
        self._failed(getattr(callback, "__qualname__", repr(callback)), error)
        until = self.now() + limits.CALLBACK_PAUSE_S
        if not isinstance(source, selectors.SelectorKey):
            self._paused[source] = (until, None)
        elif self._selector.get_map().get(source.fd) is source:  # it has not been unwatched
            self._selector.unregister(source.fileobj)
            self._paused[source.fileobj] = (until, source)

    def _resume(self) -> float:
        """Watch again whose pause is over; seconds until the next one."""
        now = self.now()
        for source, (until, key) in [*self._paused.items()]:
            if now < until:
                continue
            del self._paused[source]
            if key is not None:
                with contextlib.suppress(KeyError, ValueError, OSError):  # closed meanwhile
                    again = self._selector.register(key.fileobj, key.events, key.data)
                    if key.fileobj in self._edges:  # its signal may have been used up
                        self._call(key.data[0], again)
        return min((until - now for until, _ in self._paused.values()), default=float("inf"))

    def wake(self) -> None:
        """End the current or next ``turn`` soon; safe in a signal handler."""
        self._wake_pipe.wake()

    def handle_signals(self) -> None:
        """Count SIGINT and SIGTERM from now on, and wake up for each; later ones end at once.

        One stop may come as several signals (``timeout`` tells the process and its group), so what
        follows within ``SAME_STOP_S`` is no second thought.
        """
        first = 0.0

        def count(number: int, _frame: object) -> None:
            nonlocal first
            if self.signals and self.now() - first > SAME_STOP_S:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            if not self.signals:
                service.tell(STOPPING=1)
            first = first or self.now()
            self.signals += 1
            self.wake()

        signal.signal(signal.SIGINT, count)
        signal.signal(signal.SIGTERM, count)

    def close(self) -> None:
        """Give back its descriptors."""
        self._selector.close()
        self._wake_pipe.close()


def _order(event: tuple[selectors.SelectorKey, int]) -> bool:
    after: bool = event[0].data[2]
    return after
