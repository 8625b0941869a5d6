"""Outcomes on their way to the processes that wait for them.

An outcome may be lost with a link, and its submitter asks again: an object is kept, though nobody
holds it, until whoever submitted its task has acknowledged its outcome.

A process that does not read gets values up to a bound. Past it, it is told where they are: it asks
for what it wants when it reads again.
"""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core import failures
from zray.core.head.members import Member, Members
from zray.core.head.object_table import ObjectRecord, ObjectTable
from zray.core.machine import Outbox
from zray.errors import MessageTooLargeError
from zray.protocol.messages import ERROR, LOCATED, Outcome, Result, ResultAck


class Results:
    """``workers``: of each worker its node."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        objects: ObjectTable,
        members: Members,
        workers: dict[bytes, bytes],
    ) -> None:
        self._outbox = outbox
        self._objects = objects
        self._members = members
        self._workers = workers
        self._queued: dict[bytes, list[Outcome]] = {}
        self._owed: dict[bytes, list[ObjectRecord]] = {}
        self._acked: dict[bytes, int] = {}  # process -> the last RESULT that it acknowledged
        self._unread: dict[bytes, deque[tuple[int, int]]] = {}  # process -> RESULTs, their bytes
        self._unread_bytes: dict[bytes, int] = {}
        self.unread_bytes = 0  # of values that were sent and are not acknowledged, of all
        self.unacked: dict[bytes, dict[bytes, None]] = {}  # process -> what is kept for it alone

    def tell(self, target: bytes, outcome: Outcome) -> None:
        """Send a process an outcome at the end of this turn."""
        queued = self._queued.get(target)
        if queued is None:
            self._queued[target] = [outcome]
        else:
            queued.append(outcome)

    def tell_owner(self, target: bytes, outcome: Outcome, record: ObjectRecord) -> None:
        """The same, to the process that submitted the task and keeps its spec until it knows."""
        self.tell(target, outcome)
        self._owed.setdefault(target, []).append(record)

    def flush(self, _now: float) -> None:
        """Send what was told in this turn: to drivers, and to workers by way of their nodes."""
        if not self._queued:
            return
        queued, self._queued = self._queued, {}
        owed, self._owed = self._owed, {}
        for target, outcomes in queued.items():
            member = self._members.member(self._workers.get(target, target))
            if member is None:
                continue
            member.result_seq += 1
            mark = (target, member.result_seq)
            self._acked.setdefault(target, 0)
            for record in owed.get(target, ()):
                record.told = mark
            outcomes = self._bounded(target, member.result_seq, outcomes)
            self._outbox.send(member.process_id, Result(member.result_seq, target, outcomes))

    def _bounded(self, target: bytes, seq: int, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes as they are sent: with their values as long as the process reads them."""
        size = sum([len(outcome.value) for outcome in outcomes])
        if not size:
            return outcomes
        unread = self._unread_bytes.get(target, 0)
        room = min(limits.UNREAD_BYTES - unread, limits.UNREAD_BYTES_ALL - self.unread_bytes)
        if size > room:
            outcomes = [self._without_value(outcome) for outcome in outcomes]
            size = sum(len(outcome.value) for outcome in outcomes)
        self._unread.setdefault(target, deque()).append((seq, size))
        self._unread_bytes[target] = unread + size
        self.unread_bytes += size
        return outcomes

    def too_large(self, message: Result, text: str) -> None:
        """The message could not be sent: whoever waits for its outcomes is told that instead."""
        value = failures.encode(MessageTooLargeError, text)
        for oid in [outcome.object_id for outcome in message.outcomes]:
            self.tell(message.target, Outcome(oid, ERROR, len(value), value))

    def _without_value(self, outcome: Outcome) -> Outcome:
        """As of a value that is elsewhere, if this one is: with a node, or in the head."""
        record = self._objects.get(outcome.object_id)
        if record is None:
            return outcome
        kind = outcome.kind | LOCATED
        return Outcome(outcome.object_id, kind, outcome.size, b"", outcome.contained)

    def _read(self, target: bytes, upto: int) -> None:
        sent = self._unread.get(target)
        while sent and sent[0][0] <= upto:
            _, size = sent.popleft()
            self._unread_bytes[target] -= size
            self.unread_bytes -= size
        if not sent:
            self._unread.pop(target, None)
            self._unread_bytes.pop(target, None)

    def is_owed(self, object_id: bytes, record: ObjectRecord) -> bool:
        """Whether nobody holds the object, but its submitter may yet ask for its outcome."""
        if record.told is None:
            return False
        target, seq = record.told
        if seq <= self._acked.get(target, seq):
            return False
        self.unacked.setdefault(target, {})[object_id] = None
        return True

    def on_ack(self, sender: Member, message: ResultAck, now: float) -> None:
        """A process has read these RESULTs."""
        self.acked(message.target, message.upto)

    def acked(self, target: bytes, upto: int) -> None:
        """The process knows these outcomes: what nobody holds of them may go."""
        self._read(target, upto)
        if target in self._acked:
            self._acked[target] = max(self._acked[target], upto)
            for object_id in self.unacked.pop(target, ()):
                self._objects.unheld(object_id)

    def forget(self, target: bytes) -> None:
        """The process is gone."""
        self._acked.pop(target, None)
        for seq, _ in [*self._unread.get(target, ())][-1:]:
            self._read(target, seq)
        for object_id in self.unacked.pop(target, ()):
            self._objects.unheld(object_id)
