"""A simulated worker that is leased: its tasks come from one submitter, and their ends go back.

The shipped ServedLease machine decides. Packets of tasks are taken out of a queue that the
submitter can empty as well; all else is said over the stream.
"""

from __future__ import annotations

from typing import TypeAlias

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.machine import NEVER
from zray.core.worker.actor_inbox import staying
from zray.core.worker.served_lease import ServedLease
from zray.core.worker.task_inbox import Delivered
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.host import Host
from zray.testing.processes.pins import Pins
from zray.testing.processes.steps import Ref
from zray.testing.processes.yielding import SimStreams
from zray.testing.world.direct import End, Wire

Lease: TypeAlias = ServedLease[Pins]


class SimLeases:
    """The leases of one worker, one after the other. ``lease``: the present one."""

    def __init__(self, worker: Host, streams: SimStreams) -> None:
        self.lease: Lease | None = None
        self._worker = worker
        self._streams = streams
        self._inbox = worker.sequence
        self._callers: list[Wire] = []  # whoever they are
        self._wires: dict[Wire, Lease] = {}  # of leases that are over as well, while they owe
        self._wire: Wire | None = None  # of the present one
        self._revoked = b""  # a lease that has not come yet
        self._delivered: Delivered | None = None  # the task that runs
        self._shown: m.Template | None = None  # whose name the raylet knows
        self._told = 0  # what the raylet had been told when that began
        self._looks = False
        self._due = NEVER  # when the worker looks whether it has rested long enough

    # ---- from the raylet -------------------------------------------------------------------

    def on_grant(self, message: m.Grant) -> None:
        """A lease begins: its submitter may connect."""
        worker = self._worker
        if self.lease is not None:
            worker.out([m.LeaseEnded(0, message.lease_id)])
            return
        worker.world.direct.listeners[worker.worker_id] = self._accept
        self.lease = ServedLease(message, self._inbox, worker.clock.now)
        self.lease.handlers[m.Taken] = self._streams.on_taken
        self.lease.ending = message.lease_id == self._revoked
        self._shown = None
        worker.out([m.Leased(0, self.lease.held())])

    def on_revoke(self, message: m.Revoke) -> None:
        """The lease is to end, which may come sooner than its beginning."""
        lease = self.lease
        if lease is None or lease.grant.lease_id != message.lease_id:
            if not message.spare:
                self._revoked = message.lease_id
        elif message.spare:
            lease.spare(self._worker.clock.now)
        else:
            lease.ending = True
            self._give_back(lease)

    def leave(self) -> None:
        """The worker runs nothing more: the lease ends with the task that has just ended."""
        assert self.lease is not None
        self.lease.ending = True
        self._give_back(self.lease)

    def on_cancel(self, message: m.CancelTask) -> bool:
        """A task is not to run, or to stop; True: it runs, and is to be interrupted."""
        assert self.lease is not None
        if self._inbox.runs(message):
            self.lease.sentenced = message.task_id
            return not message.force
        returned = self.lease.cancel(message)
        if returned is not None:
            self.tell([returned])
        self._worker.out([m.Returned(0, message.task_id)])
        return False

    # ---- sockets ---------------------------------------------------------------------------

    def _accept(self, submitter: End) -> Wire:
        """Somebody connects, whether the worker looks or not."""
        wire = Wire(submitter, self._worker)
        wire.stream_max = self._worker.world.direct.stream_max
        self._callers.append(wire)
        return wire

    def read(self) -> None:
        """Take what submitters have sent over streams."""
        for wire in [*self._callers]:
            self._greet(wire)
        for wire, lease in [*self._wires.items()]:
            self._read_wire(lease, wire)

    def _greet(self, wire: Wire) -> None:
        """Whoever has connected says first for which lease."""
        found = wire.calls()
        if wire not in self._callers or (not found and wire.caller_open):
            return
        self._callers.remove(wire)
        lease = self.lease
        named = [message.lease_id for message in found[:1] if isinstance(message, m.Grant)]
        if lease is None or named != [lease.grant.lease_id]:
            wire.hang_up()  # it came too late for its own lease
            return
        self._stop_listening()
        self._wire = wire
        self._wires[wire] = lease
        lease.connected(self._worker.clock.now)
        lease.hear(found)

    def _stop_listening(self) -> None:
        self._worker.world.direct.listeners.pop(self._worker.worker_id, None)
        for wire in self._callers:
            wire.hang_up()
        self._callers.clear()

    def _read_wire(self, lease: Lease, wire: Wire) -> None:
        wire.flush_answers()
        lease.hear(wire.calls())
        if not wire.caller_open:
            lease.gone()
            self._streams.forget(lease.grant.submitter)
            if wire is self._wire:
                lease.recall()  # the submitter has them
                self._wire = None
            del self._wires[wire]
            wire.hang_up()
        elif lease is not self.lease:
            self._close_if_done(lease, wire)

    def _close_if_done(self, lease: Lease, wire: Wire) -> None:
        """The lease is over: the socket stays while something is kept for the submitter."""
        if not (lease.kept or wire.pending()):
            del self._wires[wire]
            wire.hang_up()

    # ---- to the submitter ------------------------------------------------------------------

    def tell(self, messages: list[m.Message]) -> None:
        """Ends and what is given back go to the submitter; the rest to the raylet."""
        assert self.lease is not None
        for message in messages:
            if isinstance(message, m.Done):
                self.lease.number(message)
            if not isinstance(message, (m.Done, m.Returned, m.Items)):
                self._worker.out([message])
            elif self._wire is not None:
                self._wire.answer([message])

    def _give_back(self, lease: Lease) -> None:
        """What has ended and what has not started leaves now."""
        self._tell_ends()
        returned = lease.recall()
        if returned.task_ids:
            self.tell([returned])

    def _tell_ends(self) -> None:
        done = self._inbox.take_done(self._worker.clock.now, next_is_short=False)
        if done is not None:
            self.tell([done])

    # ---- tasks -----------------------------------------------------------------------------

    def next(self) -> Delivered | None:
        """The next task, out of the queue; None: there is none now."""
        lease, wire = self.lease, self._wire
        assert lease is not None
        lease.deliver_early()
        if lease.takes() and wire is not None and (packet := wire.take()) is not None:
            (tasks,) = codec.decode(packet).messages
            assert isinstance(tasks, m.Tasks)
            if not lease.deliver(tasks):
                self.read()  # what it is made of was sent before
                lease.deliver_early()
        return self._inbox.next()

    def begin(self, delivered: Delivered) -> None:
        """A task of the lease starts."""
        assert self.lease is not None
        template = self._inbox.templates[delivered.assignment.spec.template_id]
        self.lease.begins()
        if self.lease.at_stake() and not self._looks:
            self._looks = True
            self._worker.clock.after(limits.RECALL_S, self._look)
        self._delivered = delivered
        if template is not self._shown:
            self._shown = template
            self._worker.out([m.Runs(0, template.name)])
        self._told = self._worker.told

    def pin(self, outcomes: list[m.Outcome]) -> tuple[list[m.Outcome], list[Pins]]:
        """Outcomes as they travel, and what keeps that to which they refer."""
        worker = self._worker
        stay = staying(outcomes)
        found: list[m.Outcome] = []
        pins: list[Ref] = []
        for outcome in outcomes:
            pins += [worker.borrow(oid) for oid in outcome.contained]
            if outcome.object_id in stay:
                worker.client.references.adopt(outcome.object_id)
                pins.append(Ref(worker, outcome.object_id))
                worker.client.outbox.append(m.Put(0, worker.worker_id, outcome))
                kind, size = outcome.kind | m.LOCATED, outcome.size
                outcome = m.Outcome(outcome.object_id, kind, size, b"", outcome.contained)
            found.append(outcome)
        for ref in pins:
            worker.references.remove(ref)
        worker.transmit()
        return found, [Pins(pins)] if pins else []

    def finished(
        self, status: int, outcomes: list[m.Outcome], seconds: float, borrowed: list[bytes]
    ) -> None:
        """The running task has ended. What it did with references that it was given, the cluster
        knows before the submitter hears of the end, and drops them."""
        lease, worker = self.lease, self._worker
        assert lease is not None and self._delivered is not None
        delivered, self._delivered = self._delivered, None
        outcomes, pins = self.pin(outcomes)
        done = self._inbox.end(status, outcomes, seconds, [])
        if lease.sentenced:
            worker.out([m.Returned(0, lease.sentenced)])
            lease.sentenced = b""
        if delivered.assignment.spec.nested or any(one.contained for one in delivered.values):
            worker.client.references.new_holds.update(dict.fromkeys(borrowed))
            worker.transmit()
            if worker.told != self._told:
                self._tell_later(lease, done, pins)
                return
        lease.keep(pins)
        self._inbox.tell(done, worker.clock.now)

    def _tell_later(self, lease: Lease, done: m.TaskDone, pins: list[Pins]) -> None:
        def known() -> None:
            lease.unsure -= 1
            lease.keep(pins)
            self._inbox.tell(done, self._worker.clock.now)
            self._tell_ends()

        lease.unsure += 1
        self._worker.client.ask(lambda seq: m.Sync(seq), Waiter(known))
        self._worker.transmit()

    def _look(self) -> None:
        """The control thread looks: a task that takes long holds up no others, nor ends."""
        worker, lease = self._worker, self.lease
        self._looks = worker.alive and lease is not None
        if lease is None or not self._looks:
            return
        if worker.clock.now >= worker.frozen_until:
            if lease.kept or lease.unsure:
                worker.read_aside()
            takes_long = self.lease is lease and lease.takes_long()
            if takes_long:
                self._give_back(lease)
            self._looks = not takes_long or lease.at_stake()
        if self._looks:
            worker.clock.after(limits.RECALL_S, self._look)

    # ---- the end ---------------------------------------------------------------------------

    def rests(self) -> bool:
        """Nothing is here to be run: whether the lease goes on."""
        lease, worker = self.lease, self._worker
        assert lease is not None
        left = lease.rests_s(worker.clock.now)
        if left <= 0 and self._wire is not None and self._wire.pending():
            left = limits.LEASE_IDLE_S
        if left <= 0:
            self._end(lease)
            return False
        due = worker.clock.now + left
        if not worker.clock.now < self._due <= due:
            self._due = due
            worker.clock.at(due, worker.go_on)
        return True

    def _end(self, lease: Lease) -> None:
        self._stop_listening()
        self._give_back(lease)
        self._inbox.trim_lent()
        self.lease = None
        wire, self._wire = self._wire, None
        lease_id = lease.grant.lease_id
        if wire is not None:
            wire.answer([m.LeaseEnded(0, lease_id)])
            self._close_if_done(lease, wire)
        self._worker.out([m.LeaseEnded(0, lease_id, lease.begun)])

    def keep_something(self) -> bool:
        """Whether a submitter has not acknowledged all ends that refer to objects."""
        return any(lease.kept for lease in self._wires.values())

    def vanish(self) -> None:
        """The process has ended."""
        self._stop_listening()
        for wire in self._wires:
            wire.hang_up()
