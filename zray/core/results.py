"""Outcomes on their way to the processes that wait for them.

An outcome may be lost with a link, and its submitter asks again: an object is kept, though nobody
holds it, until whoever submitted its task has acknowledged its outcome.
"""

from __future__ import annotations

from zray.core.machine import Outbox
from zray.core.members import Members
from zray.core.objects import ObjectRecord, ObjectTable
from zray.protocol.messages import Outcome, Result


class Results:
    def __init__(self, outbox: Outbox[bytes], objects: ObjectTable, members: Members) -> None:
        self._outbox = outbox
        self._objects = objects
        self._members = members
        self._queued: dict[bytes, list[Outcome]] = {}
        self._owed: dict[bytes, list[ObjectRecord]] = {}
        self._acked: dict[bytes, int] = {}  # process -> the last RESULT that it acknowledged
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

    def flush(self, workers: dict[bytes, bytes]) -> None:
        """Send what was told in this turn: to drivers, and to workers by way of their nodes."""
        queued, self._queued = self._queued, {}
        owed, self._owed = self._owed, {}
        for target, outcomes in queued.items():
            member = self._members.member(workers.get(target, target))
            if member is None:
                continue
            member.result_seq += 1
            mark = (target, member.result_seq)
            self._acked.setdefault(target, 0)
            for record in owed.get(target, ()):
                record.told = mark
            self._outbox.send(member.process_id, Result(member.result_seq, target, outcomes))

    def is_owed(self, object_id: bytes, record: ObjectRecord) -> bool:
        """Whether nobody holds the object, but its submitter may yet ask for its outcome."""
        if record.told is None:
            return False
        target, seq = record.told
        if seq <= self._acked.get(target, seq):
            return False
        self.unacked.setdefault(target, {})[object_id] = None
        return True

    def acked(self, target: bytes, upto: int) -> None:
        """The process knows these outcomes: what nobody holds of them may go."""
        if target in self._acked:
            self._acked[target] = max(self._acked[target], upto)
            for object_id in self.unacked.pop(target, ()):
                self._objects.unheld(object_id)

    def forget(self, target: bytes) -> None:
        """The process is gone."""
        self._acked.pop(target, None)
        for object_id in self.unacked.pop(target, ()):
            self._objects.unheld(object_id)
