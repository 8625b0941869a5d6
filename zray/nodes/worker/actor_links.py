"""The sockets of an actor: over them its callers on this machine send calls, and get answers.

A part of ActorServer. Whoever has connected says who it is with its first call.
"""

from __future__ import annotations

import contextlib
import functools
import time

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import ActorInbox, Entry
from zray.errors import ProtocolError
from zray.ids import split_tasks
from zray.nodes.worker.host import Host
from zray.nodes.worker.streams import StreamServer
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.linux import direct
from zray.runtime.linux.direct import DirectLink
from zray.runtime.stream import read_available

Route = DirectLink | None  # None: by the raylet


class ActorLinks:
    def __init__(self, worker: Host, inbox: ActorInbox[Route], streams: StreamServer) -> None:
        self.worker = worker
        self.inbox = inbox
        self.streams = streams
        self._listener = direct.listen(worker.worker_id)
        self._links: dict[int, DirectLink] = {}
        self._checked_at = time.monotonic()
        worker.poller.watch(self._listener)

    def read(self, ready: list[int] | None) -> None:
        """Read callers' sockets: those that are ``ready``, or all. With the lock held."""
        if ready is None or self._listener.fileno() in ready:
            self._accept()
        for fd in [*self._links] if ready is None else ready:
            link = self._links.get(fd)
            if link is not None:
                self._read_link(fd, link)
        # A generator may wait for a caller that has ended.
        waits = self.streams.waits()
        pause = limits.STREAM_AGAIN_S if waits else limits.ACTOR_CALLERS_CHECK_S
        if time.monotonic() >= self._checked_at + pause:
            self._check_callers()

    def _accept(self) -> None:
        while (link := direct.accept(self._listener)) is not None:
            self._links[link.fileno()] = link
            self.worker.poller.watch(link)

    def _read_link(self, fd: int, link: DirectLink) -> None:
        with contextlib.suppress(OSError):
            if link.writer.pending and link.writer.flush():
                self.worker.poller.watch(fd)
        try:
            frames, ended = read_available(link.socket, link.reader)
            for frame in frames:
                for message in codec.decode(frame).messages:
                    if isinstance(message, m.Calls):
                        self.receive(message, link)
                    elif isinstance(message, m.Taken):
                        self.inbox.heard(message.source)
                        self.streams.on_taken(message)
        except ProtocolError:  # whoever that is, it is no caller
            ended = True
        if ended:
            self.worker.teller.report_due()  # it may have been the driver, with which this ends
            self.worker.poller.forget(fd)
            del self._links[fd]
            link.close()
            for caller in self.inbox.callers(link):
                self.inbox.reroute(caller, None)

    def receive(self, message: m.Calls, route: Route) -> None:
        """Calls have come. With the lock held."""
        for entry in self.inbox.receive(message, route):
            self._get_values(entry)

    def _get_values(self, entry: Entry) -> None:
        """Ask for the values of the call's arguments that did not come along."""
        for oid in entry.call.dependencies:
            if oid not in entry.values:
                entry.missing += 1
                self.worker.client.fetch(oid, functools.partial(self.inbox.arrived, entry))
        self.inbox.arrived(entry)
        self.worker.flush()

    def _check_callers(self) -> None:
        """Forget callers that have ended: nobody else tells."""
        self._checked_at = time.monotonic()
        silent = self.inbox.silent()
        if not silent:
            return

        def known() -> None:
            for message in answer:
                if isinstance(message, m.Gone):
                    for caller in split_tasks(message.process_ids):
                        self.inbox.forget(caller)
                        self.streams.forget(caller)

        client = self.worker.client
        answer = client.ask(lambda seq: m.AskGone(seq, b"".join(silent)), Waiter(known))
        self.worker.flush()

    def _send(self, link: DirectLink, message: m.Message) -> None:
        try:
            for payload in codec.encode_local([message]):
                link.writer.send_nowait(payload)
        except OSError:
            return  # reading tells
        if link.writer.pending and link.fileno() in self._links:
            self.worker.poller.watch(link, writes=True)
            self.worker.attend_writes()

    def _send_items(self, items: m.Items) -> None:
        """What a call has yielded, to its caller. With the lock held."""
        route = self.inbox.route_of(items.target)
        if route is None:
            self.streams.forget(items.target)
        elif route[0] is None:
            self.worker.tell_raylet([items])
        else:
            self._send(route[0], items)

    def writes_pending(self) -> bool:
        """Whether sockets of callers have not taken all that is to be sent."""
        return any(link.writer.pending for link in self._links.values())
