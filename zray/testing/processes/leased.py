"""A simulated worker's lease: its tasks come from one submitter, and their ends go back to it.

Packets of tasks come through the queue that both ends can empty; definitions, and word of what need
not be kept any more, over the stream. Does what the real shell does, and decides nothing.
"""

from __future__ import annotations

from zray import limits
from zray.core.client.waiters import Waiter
from zray.core.worker.actor_inbox import staying
from zray.core.worker.task_inbox import Delivered
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.actor import Pins
from zray.testing.processes.host import Host
from zray.testing.processes.steps import Ref
from zray.testing.world.direct import End, Wire


class SimLease:
    """``ending``: it ends as soon as nothing runs."""

    def __init__(self, worker: Host, grant: m.Grant) -> None:
        self.worker = worker
        self.lease_id = grant.lease_id
        self.wire: Wire | None = None
        self.ending = False
        self.ended = False
        self.unsure = False  # an end waits until the cluster knows what its task has kept
        self._pins: dict[int, list[Pins]] = {}  # by the DONE that names what they keep
        self._fresh: list[Pins] = []  # of the next DONE
        self._numbers = 0
        self._busy_at = worker.clock.now
        self._cancelled: bytes | None = None  # a task of which the raylet waits to hear
        worker.world.direct.listeners[worker.worker_id] = self.accept
        lease = m.HeldLease(
            *(grant.lease_id, grant.job_id, grant.submitter, grant.resources, worker.worker_id),
        )
        worker.out([m.Leased(0, lease)])

    # ---- in --------------------------------------------------------------------------------

    def accept(self, submitter: End) -> Wire:
        """The submitter connects, whether the worker looks or not."""
        self.wire = Wire(submitter, self.worker)
        return self.wire

    def read(self) -> None:
        """Take what the submitter has sent over the stream."""
        if self.wire is None:
            return
        for message in self.wire.calls():
            if isinstance(message, m.Ack):
                for number in [number for number in self._pins if number <= message.upto]:
                    del self._pins[number]
            else:
                self.worker.sequence.handlers[type(message)](message)
        if not self.wire.caller_open:
            self.ending = True
            self._pins.clear()

    def revoke(self, message: m.Revoke) -> None:
        """Others wait for what the lease holds, unless it was another that was meant."""
        self.ending = self.ending or message.lease_id == self.lease_id

    def take(self) -> bool:
        """Take the next packet; False: there is none, or it is not to be taken."""
        if self.ending or self.wire is None:
            return False
        payload = self.wire.take()
        if payload is None:
            return False
        self.read()  # a template that it needs was sent before it
        self._busy_at = self.worker.clock.now
        for message in codec.decode(payload).messages:
            assert isinstance(message, m.Tasks)
            self.worker.sequence.on_tasks(message)
        return True

    # ---- out -------------------------------------------------------------------------------

    def answer(self, message: m.Message) -> None:
        """To the submitter."""
        if self.wire is not None:
            self.wire.answer([message])

    def send_done(self, done: m.Done) -> None:
        """Ends of tasks; with a number, if the submitter has to say that they came."""
        if self._fresh:
            self._numbers += 1
            done.seq = self._numbers
            self._pins[done.seq], self._fresh = self._fresh, []
        self.answer(done)

    def cancelled(self, task_id: bytes, *, runs: bool) -> None:
        """The raylet hears when the task is not here, or not any more."""
        self._cancelled = task_id
        if not runs:
            self.spare()

    def spare(self) -> None:
        """The task that was cancelled is not here any more, if there is one."""
        if self._cancelled is not None:
            self.worker.out([m.Returned(0, self._cancelled)])
            self._cancelled = None

    # ---- the end of a task -----------------------------------------------------------------

    def settle(self, delivered: Delivered) -> None:
        """Wait until the cluster knows which references of a task's arguments stay here."""
        client = self.worker.client
        borrowed = [*delivered.assignment.spec.nested]
        for value in delivered.values:
            borrowed += value.contained
        if any(oid in client.references for oid in borrowed):
            self.unsure = True
            client.references.flush_holds()
            client.ask(lambda seq: m.Sync(seq), Waiter(self._sure))

    def _sure(self) -> None:
        self.unsure = False
        self.worker.something_came()

    def kept(self, outcomes: list[m.Outcome]) -> list[m.Outcome]:
        """The outcomes as they travel: what they refer to is kept, and what is large."""
        stay = staying(outcomes)
        pins: list[Ref] = []
        found = []
        for outcome in outcomes:
            pins += [self.worker.borrow(oid) for oid in outcome.contained]
            if outcome.object_id in stay:
                outcome = self._put_away(outcome, pins)
            found.append(outcome)
        if pins:
            for ref in pins:
                self.worker.references.remove(ref)
            self._fresh.append(Pins(pins))
        return found

    def _put_away(self, outcome: m.Outcome, pins: list[Ref]) -> m.Outcome:
        """It stays with the raylet."""
        worker = self.worker
        worker.client.references.adopt(outcome.object_id)
        pins.append(Ref(worker, outcome.object_id))
        worker.out([m.Put(0, worker.worker_id, outcome)])
        kind = outcome.kind | m.LOCATED
        return m.Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)

    # ---- the end of the lease --------------------------------------------------------------

    def rest(self) -> None:
        """Nothing runs: the lease ends if that is due, or else in a while."""
        due = self._busy_at + limits.LEASE_IDLE_S
        if self.ending or self.worker.clock.now >= due:
            self.end()
        else:
            self.worker.clock.at(due, self.worker.go_on)

    def end(self) -> None:
        """In peace. What an answer needs is kept until the submitter has it for certain."""
        ended = m.LeaseEnded(0, self.lease_id)
        self.answer(ended)
        self.worker.out([ended])
        self.worker.world.direct.listeners.pop(self.worker.worker_id, None)
        self.ended = True
        self.tend()

    def tend(self) -> bool:
        """After its end: whether anything is still kept for the submitter."""
        self.read()
        if not self._pins:
            self.close()
        return bool(self._pins)

    def close(self) -> None:
        """Nothing is left to do, or the worker has died."""
        if self.wire is not None:
            self.wire.hang_up()
