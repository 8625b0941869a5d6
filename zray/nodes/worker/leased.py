"""A worker that is leased: its tasks come from one submitter, and their ends go straight back.

The ServedLease machine decides. Tasks are taken out of a queue that the submitter can empty as
well; all else is said over a socket: what tasks are made of, their ends, and that these came.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.served_lease import ServedLease
from zray.core.worker.task_inbox import Delivered
from zray.errors import ProtocolError
from zray.nodes.worker.host import Host
from zray.nodes.worker.streams import StreamServer
from zray.protocol import codec
from zray.protocol import messages as m
from zray.runtime.linux import direct
from zray.runtime.linux.direct import DirectLink, TaskQueue
from zray.runtime.linux.prints import printed
from zray.runtime.references import ObjectRef, counted
from zray.runtime.stream import read_available

Lease = ServedLease[ObjectRef[Any]]
_THEIRS = (m.Done, m.Returned, m.Items)  # what a worker says to the submitter


class LeaseServer:
    """The leases of one worker, one after the other. Everything with the worker's lock held.

    Attributes:
        lease: the present one.
        sockets: those to be read, and how; of leases that are over as well, while they owe.
    """

    def __init__(self, worker: Host, streams: StreamServer) -> None:
        self._streams = streams
        self.lease: Lease | None = None
        self.sockets: dict[int, Callable[[], None]] = {}
        self._worker = worker
        self._inbox = worker.task_inbox
        self._listener: socket.socket | None = None  # until the submitter has come
        self._callers: dict[int, tuple[DirectLink, TaskQueue | None]] = {}  # whoever they are
        self._links: dict[int, DirectLink] = {}  # of submitters
        self._link: DirectLink | None = None  # of the present one
        self._queue: TaskQueue | None = None
        self._revoked = b""  # a lease that has not come yet
        self._delivered: Delivered | None = None  # the task that runs
        self._shown: m.Template | None = None  # whose name the raylet knows
        self._told = 0  # what the raylet had been told when that began
        self._pins: list[ObjectRef[Any]] = []  # of its results
        self._printed = 0  # how often this process had printed then
        self._rang = 0  # tasks had begun when the submitter was last told that there are no more

    # ---- from the raylet -------------------------------------------------------------------

    def on_grant(self, message: m.Grant) -> None:
        """A lease begins: its submitter may connect."""
        try:
            if self.lease is not None:
                raise OSError("it is leased to somebody else")
            self._listener = direct.listen(self._worker.worker_id)
        except OSError:
            self._worker.tell_raylet([m.LeaseEnded(0, message.lease_id)])
            return
        self.lease = ServedLease(message, self._inbox, time.monotonic())
        self.lease.handlers[m.Taken] = self._streams.on_taken
        self.lease.ending = message.lease_id == self._revoked
        self._rang = 0
        self._shown = None
        self._worker.teller.reports.leased = True
        self._watch(self._listener, self._accept)
        self._worker.tell_raylet([m.Leased(0, self.lease.held())])

    def on_revoke(self, message: m.Revoke) -> None:
        """The lease is to end; as this comes by another way than GRANT, it may come sooner."""
        lease = self.lease
        if lease is None or lease.grant.lease_id != message.lease_id:
            if not message.spare:
                self._revoked = message.lease_id
        elif message.spare:
            lease.spare(time.monotonic())
        else:
            lease.ending = True
            self._give_back(lease)

    def leave(self) -> None:
        """The worker runs nothing more: the lease ends with the task that has just ended."""
        assert self.lease is not None
        self.lease.ending = True
        self._give_back(self.lease)

    def on_cancel(self, message: m.CancelTask) -> bool:
        """A task is not to run, or to stop; True: it runs, and is to be interrupted.

        The raylet hears when the task is not here, or not any more, and spares this worker then.
        """
        assert self.lease is not None
        if self._inbox.runs(message):
            self.lease.sentenced = message.task_id
            return not message.force
        returned = self.lease.cancel(message)
        if returned is not None:
            self.tell([returned])
        self._worker.tell_raylet([m.Returned(0, message.task_id)])
        return False

    # ---- sockets ---------------------------------------------------------------------------

    def _watch(self, item: Any, read: Callable[[], None]) -> None:
        self.sockets[item.fileno()] = read
        self._worker.poller.watch(item)

    def _forget(self, item: Any) -> None:
        del self.sockets[item.fileno()]
        self._worker.poller.forget(item)
        item.close()

    def read(self, ready: list[int] | None) -> None:
        """Read those that are ``ready``, or all."""
        for fd in [*self.sockets] if ready is None else ready:
            read = self.sockets.get(fd)
            if read is not None:
                read()

    def _accept(self) -> None:
        while self._listener is not None and (link := direct.accept(self._listener)) is not None:
            self._callers[link.fileno()] = link, None
            self._watch(link, partial(self._greet, link))

    def _greet(self, link: DirectLink) -> None:
        """Whoever has connected says first what the queue is, and for which lease."""
        _, queue = self._callers[link.fileno()]
        try:
            if queue is None:
                queue = TaskQueue.received(link)
                if queue is None:
                    return
                self._callers[link.fileno()] = link, queue
            found, ended = _read(link)
        except (OSError, EOFError, ValueError, ProtocolError):
            self._dismiss(link)
            return
        if not found:
            if ended:
                self._dismiss(link)
            return
        greeting, lease = found[0], self.lease
        if (
            not isinstance(greeting, m.Grant)
            or lease is None
            or greeting.lease_id != lease.grant.lease_id
        ):
            self._dismiss(link)  # it came too late for its own lease
            return
        del self._callers[link.fileno()]
        self._attach(lease, link, queue)
        lease.hear(found)
        if ended:
            self._ended(lease, link)

    def _dismiss(self, link: DirectLink) -> None:
        _, queue = self._callers.pop(link.fileno())
        self._forget(link)
        if queue is not None:
            queue.close()

    def _attach(self, lease: Lease, link: DirectLink, queue: TaskQueue) -> None:
        self._stop_listening()
        self._link, self._queue = link, queue
        self._links[link.fileno()] = link
        self._watch(link, partial(self._read_link, lease, link))
        self._worker.poller.watch(queue, once=True)  # it is looked at before each sleep
        lease.connected(time.monotonic())

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._forget(self._listener)
            self._listener = None
        for link, _ in [*self._callers.values()]:
            self._dismiss(link)

    def _read_link(self, lease: Lease, link: DirectLink) -> None:
        try:
            if link.writer.pending and link.writer.flush():
                self._worker.poller.watch(link)
            found, ended = _read(link)
        except (OSError, ProtocolError):
            found, ended = [], True
        lease.hear(found)
        if ended:
            self._ended(lease, link)
        elif lease is not self.lease:
            self._close_if_done(lease, link)

    def _ended(self, lease: Lease, link: DirectLink) -> None:
        """The submitter has closed the link."""
        lease.gone()
        self._worker.teller.report_due()  # its driver may have ended, and with it this worker ends
        self._streams.forget(lease.grant.submitter)
        if link is self._link:
            lease.recall()  # the submitter has them
            self._link = None
        del self._links[link.fileno()]
        self._forget(link)

    def _close_if_done(self, lease: Lease, link: DirectLink) -> None:
        """The lease is over: the link stays while something is kept for the submitter."""
        if not (lease.kept or link.writer.pending):
            del self._links[link.fileno()]
            self._forget(link)

    # ---- to the submitter ------------------------------------------------------------------

    def tell(self, messages: list[m.Message]) -> None:
        """Ends of tasks, what they yield, and tasks given back, to the submitter; the rest to the
        raylet."""
        lease, link = self.lease, self._link
        assert lease is not None
        theirs = [message for message in messages if isinstance(message, _THEIRS)]
        for message in theirs:
            if isinstance(message, m.Done):
                lease.number(message)
        if theirs and link is not None:
            self._send(link, theirs)
            if self._queue is not None and any(isinstance(one, m.Returned) for one in theirs):
                self._queue.ring()
        if len(theirs) < len(messages):
            self._worker.tell_raylet([one for one in messages if one not in theirs])

    def _send(self, link: DirectLink, messages: list[Any]) -> None:
        try:
            for payload in codec.encode_local(messages):
                link.writer.send_nowait(payload)
        except OSError:
            return  # reading tells
        if link.writer.pending:
            self._worker.poller.watch(link, writes=True)
            self._worker.attend_writes()

    def writes_pending(self) -> bool:
        """Whether sockets have not taken all that is to be sent."""
        return any(link.writer.pending for link in self._links.values())

    def _send_ends(self) -> None:
        done = self._inbox.take_done(time.monotonic(), next_is_short=False)
        if done is not None:
            self.tell([done])

    def _give_back(self, lease: Lease) -> None:
        """What has ended and what has not started leaves now."""
        self._send_ends()
        returned = lease.recall()
        if returned.task_ids:
            self.tell([returned])

    # ---- tasks -----------------------------------------------------------------------------

    def next(self) -> Delivered | None:
        """The next task, out of the queue; None: there is none now."""
        assert self.lease is not None
        try:
            self._take_packet(self.lease)
        except (ProtocolError, ValueError):
            if self._link is not None:
                self._ended(self.lease, self._link)  # whoever that is, it is no submitter
        return self._inbox.next()

    def _take_packet(self, lease: Lease) -> None:
        lease.deliver_early()
        queue = self._queue
        if lease.takes() and queue is not None and (packet := queue.take()) is not None:
            (tasks,) = codec.decode(packet).messages
            if not isinstance(tasks, m.Tasks):
                raise ProtocolError("there was something else than tasks in a queue of tasks")
            if not lease.deliver(tasks):
                self.read(None)  # what it is made of was sent before
                lease.deliver_early()

    def begin(self, delivered: Delivered) -> None:
        """A task of the lease starts."""
        assert self.lease is not None
        template = self._inbox.templates[delivered.assignment.spec.template_id]
        self.lease.begins()
        if self.lease.at_stake():
            self._worker.look_on()
        self._delivered = delivered
        if template is not self._shown:
            self._shown = template
            before = self.lease.begun - 1
            self._worker.tell_raylet([m.Runs(0, template.name, before, template.events)])
        self._told = self._worker.tellings
        self._printed = printed()

    def pin(self, outcomes: list[m.Outcome]) -> None:
        """Keep what the outcomes of the running task refer to, which nobody may drop before."""
        client, pins = self._worker.client, self._pins
        for outcome in outcomes:
            for oid in outcome.contained:
                client.references.add(oid)
                pins.append(counted(oid))
            if outcome.kind & m.LOCATED:  # it is an object of this process's meanwhile
                client.references.adopt(outcome.object_id)
                client.outbox.append(m.Put(0, self._worker.worker_id, outcome))
                pins.append(counted(outcome.object_id))

    def finished(
        self, status: int, outcomes: list[m.Outcome], seconds: float, borrowed: list[bytes]
    ) -> None:
        """The running task has ended. What it did with references that it was given, the cluster
        knows before the submitter hears of the end, and drops them."""
        lease, worker = self.lease, self._worker
        assert lease is not None and self._delivered is not None
        delivered, self._delivered = self._delivered, None
        pins, self._pins = self._pins, []
        done = self._inbox.end(status, outcomes, seconds, [])
        if lease.sentenced:
            worker.tell_raylet([m.Returned(0, lease.sentenced)])
            lease.sentenced = b""
        if printed() != self._printed:  # which the submitter gets by way of the head, and first
            self._printed = printed()
            self._tell_later(lease, replace(done, printed=True), pins)
            return
        values = delivered.values
        if delivered.assignment.spec.nested or (values and any(one.contained for one in values)):
            worker.client.references.new_holds.update(dict.fromkeys(borrowed))
            worker.flush()
            if worker.tellings != self._told:
                self._tell_later(lease, done, pins)
                return
        lease.keep(pins)
        self._inbox.tell(done, time.monotonic())

    def _tell_later(self, lease: Lease, done: m.TaskDone, pins: list[ObjectRef[Any]]) -> None:
        def known() -> None:
            lease.unsure -= 1
            lease.keep(pins)
            self._inbox.tell(done, time.monotonic())
            self._send_ends()

        lease.unsure += 1
        self._worker.client.ask(lambda seq: m.Sync(seq), Waiter(known))
        self._worker.flush()

    def look(self, *, reads: bool) -> bool:
        """From another thread, now and then: a task that takes long holds up no others, nor ends.

        ``reads``: nobody else does. Returns whether to look again; where not, ``begin`` has it
        looked again once that is of use.
        """
        lease = self.lease
        if lease is None:
            return False
        if reads and (lease.kept or lease.unsure):
            self._worker.read_aside()
        takes_long = lease.takes_long()
        if takes_long:
            self._give_back(lease)
        return not takes_long or lease.at_stake()

    # ---- the end ---------------------------------------------------------------------------

    def rests_s(self) -> float:
        """Nothing is here to be run: how long to wait for more; 0: the lease has ended."""
        lease, link = self.lease, self._link
        assert lease is not None
        if lease.begun != self._rang and self._queue is not None:
            self._rang = lease.begun
            self._queue.ring()
        left = lease.rests_s(time.monotonic())
        if left <= 0 and link is not None and link.writer.pending:
            return limits.LEASE_IDLE_S
        if left <= 0:
            self._end(lease)
        return left

    def _end(self, lease: Lease) -> None:
        self._stop_listening()
        self._worker.teller.report_due()
        self._worker.teller.reports.leased = False
        self._give_back(lease)
        self._inbox.trim_lent()
        self.lease = None
        link, self._link = self._link, None
        if self._queue is not None:
            self._worker.poller.forget(self._queue)
            self._queue.close()
            self._queue = None
        lease_id = lease.grant.lease_id
        if link is not None:
            self._send(link, [m.LeaseEnded(0, lease_id)])
            self._close_if_done(lease, link)
        self._worker.tell_raylet([m.LeaseEnded(0, lease_id, lease.begun)])


def _read(link: DirectLink) -> tuple[list[m.Message], bool]:
    """What has come, and whether the stream has ended."""
    frames, ended = read_available(link.socket, link.reader)
    return [message for frame in frames for message in codec.decode(frame).messages], ended
