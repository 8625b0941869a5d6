"""What processes say of objects (put, hold, drop, watch, promise), and whom outcomes wake.

An object that somebody names and nobody has announced is unknown: lost after a while, if awaited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from zray import limits
from zray.core import failures
from zray.core.deadlines import Deadlines
from zray.core.head.early_cancels import EarlyCancels
from zray.core.head.members import JobMember, Member, Members, NodeMember
from zray.core.head.object_table import PENDING, ObjectRecord, ObjectTable
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.head.results import Results
from zray.core.head.task_records import TaskRecord
from zray.core.head.task_table import TaskTable
from zray.core.head.transfers import Transfers
from zray.core.machine import NEVER, Outbox
from zray.errors import ObjectLostError, OwnerDiedError, ZrayError
from zray.ids import is_item, split_objects, task_of
from zray.protocol.messages import (
    ERROR,
    Drop,
    Free,
    Hold,
    Message,
    Outcome,
    Promise,
    Pull,
    Put,
    Watch,
)


class Holders:
    """Args:
    rebuild: as ``Lineage.rebuild``, now.
    told_all: a process has said all that it holds.
    wake: a task has one dependency less to wait for.
    """

    def __init__(
        self,
        *,
        outbox: Outbox[bytes],
        counters: dict[str, int],
        members: Members,
        processes: Processes,
        tasks: TaskTable,
        objects: ObjectTable,
        results: Results,
        transfers: Transfers,
        recovery: Recovery,
        told_all: Callable[[bytes], None],
        rebuild: Callable[[bytes], str],
        wake: Callable[[TaskRecord], None],
    ) -> None:
        self._outbox = outbox
        self._counters = counters
        self._members = members
        self._processes = processes
        self._tasks = tasks
        self._objects = objects
        self._results = results
        self._transfers = transfers
        self._recovery = recovery
        self._told_all = told_all
        self._rebuild = rebuild
        self._wake = wake
        self._objects.appears = self._appears
        self.unknown = Deadlines()  # awaited objects of unknown origin -> deadline
        self.early_cancels = EarlyCancels()
        self._promised: dict[bytes, bytes] = {}  # object -> who will put it
        self._promises: dict[bytes, dict[bytes, None]] = {}  # the other way round
        # What is said of objects, as a part of the head's table.
        self.handlers: dict[type[Message], Callable[[Any, Any, float], None]] = {
            Hold: self.on_hold,
            Drop: self.on_drop,
            Watch: self.on_watch,
            Put: self.on_put,
            Promise: self.on_promise,
            Pull: self.on_pull,
        }

    def named(self, oid: bytes, now: float) -> ObjectRecord:
        """The record of an object that somebody names."""
        record = self._objects.get(oid)
        if record is not None and record.kind != PENDING:
            return record
        task = self._tasks.get(task_of(oid))
        if task is None:
            if oid not in self._promised and oid not in self.unknown:
                self.unknown.put(oid, now + limits.UNKNOWN_OBJECT_S)
        elif record is None:
            self._appears(oid)
        return self._objects.make(oid)

    def _appears(self, oid: bytes) -> None:
        """Of a pending task's result, the submitter is a holder from the start."""
        task = self._tasks.get(task_of(oid))
        if task is not None and self._processes.lives(task.submitter):
            self._objects.hold(task.submitter, oid, process=True)

    def hold(self, holder: bytes, oid: bytes, now: float) -> ObjectRecord:
        """A task or an actor refers to the object."""
        record = self.named(oid, now)
        self._objects.hold(holder, oid)
        return record

    # ---- from processes --------------------------------------------------------------------

    def on_put(self, sender: Member, message: Put, now: float) -> None:
        """A process, or a node for it, has a value and holds it."""
        self._processes.note_worker(sender, message.holder)
        outcome = message.outcome
        self._recovery.hold(outcome.object_id)
        self._objects.hold(message.holder, outcome.object_id, process=True)
        if message.place and message.place not in self._members.nodes:
            self.named(outcome.object_id, now)  # that node says so itself, when it is back
            return
        if is_item(outcome.object_id) and self._has_another(outcome.object_id, sender):
            self._outbox.send(sender.process_id, Free(0, outcome.object_id))
            return
        self.found(outcome, message.place or sender.process_id)
        if isinstance(sender, JobMember) and not message.place:
            self._objects.make(outcome.object_id).served = True

    def _has_another(self, oid: bytes, sender: Member) -> bool:
        """Whether an attempt of before has yielded it, perhaps with another value, which counts."""
        record = self._objects.get(oid)
        if record is None or record.kind == PENDING or not isinstance(sender, NodeMember):
            return False
        here = sender.process_id in record.locations
        return not here and not self._objects.is_lost(oid, record)

    def on_watch(self, sender: Member, message: Watch, now: float) -> None:
        """A process waits for outcomes that do not come to it by themselves."""
        self._processes.note_worker(sender, message.target)
        for oid in split_objects(message.object_ids):
            record = self.named(oid, now)
            if record.kind != PENDING:
                self._results.tell(message.target, self._objects.outcome(oid, record))
                continue
            if record.watchers is None:
                record.watchers = []
            if message.target not in record.watchers:
                record.watchers.append(message.target)

    def on_pull(self, sender: Member, message: Pull, now: float) -> None:
        """Who asks may have heard of an object sooner than this head."""
        record = self._objects.get(message.object_id)
        if record is None and message.object_id not in self.unknown:
            self.unknown.put(message.object_id, now + limits.UNHEARD_OBJECT_S)
        if record is None or record.kind == PENDING:
            self.named(message.object_id, now)
        self._transfers.pull(sender.process_id, message)

    def on_hold(self, sender: Member, message: Hold, now: float) -> None:
        """A process holds these; ``full``: and nothing else.

        What it has promised of these is with the node that made it, which says so itself. In a new
        session it promises again what it still waits for.
        """
        self._processes.note_worker(sender, message.holder)
        ids = split_objects(message.object_ids)
        promises = self._promises.get(message.holder)
        handed_on = [*(promises if message.full else ids)] if promises else ()
        for oid in handed_on:
            self._forget_promise(oid, message.holder)
        for oid in (*ids, *handed_on) if message.full else ids:
            self.named(oid, now)
        if message.full:
            self._objects.set_holds(message.holder, ids)
            # What it still wanted to know of earlier sessions it has asked for by now.
            self._results.acked(message.holder, sender.session_seq)
        else:
            for oid in ids:
                self._objects.hold(message.holder, oid, process=True)
        if message.full:
            if isinstance(sender, JobMember):
                sender.resynced = True
            self._told_all(message.holder)

    def on_drop(self, sender: Member, message: Drop, now: float) -> None:
        """A process does not hold these any more."""
        for oid in split_objects(message.object_ids):
            if oid not in self._objects.records and task_of(oid) not in self._tasks:
                continue
            record = self.named(oid, now)  # a pending task's: that it is not held is noted
            self._objects.drop(message.holder, oid, process=True)
            if not record.served and isinstance(sender, JobMember):
                self._objects.remove_location(oid, record, message.holder)

    def on_promise(self, sender: Member, message: Promise, now: float) -> None:
        """A process will put these: they are results of calls that it waits for."""
        self._processes.note_worker(sender, message.holder)
        for oid in split_objects(message.object_ids):
            record = self._objects.make(oid)
            if record.kind == PENDING and self._promised.get(oid, message.holder) == message.holder:
                self.unknown.drop(oid)
                self._promised[oid] = message.holder
                self._promises.setdefault(message.holder, {})[oid] = None
                self._objects.hold(message.holder, oid, process=True)
                if self.early_cancels:
                    self._cancel_early(oid, message.holder, now)

    def _cancel_early(self, oid: bytes, promiser: bytes, now: float) -> None:
        """Somebody else has had the call or leased task cancelled before this was heard of it."""
        cancel = self.early_cancels.take(task_of(oid), now)
        if cancel is not None:
            self._processes.send_to(promiser, replace(cancel, target=promiser))

    def _forget_promise(self, oid: bytes, holder: bytes) -> None:
        if self._promised.get(oid) == holder:
            del self._promised[oid], self._promises[holder][oid]

    def is_promised(self, oid: bytes) -> bool:
        """Whether the object is the result of a call that somebody waits for."""
        return oid in self._promised

    def promiser(self, oid: bytes) -> bytes:
        """The process that will put the object, or empty."""
        return self._promised.get(oid, b"")

    def broken(self, process_id: bytes) -> None:
        """The process is gone, and will not put what it has promised."""
        for oid in self._promises.pop(process_id, ()):
            if self._objects.make(oid).kind != PENDING:
                continue
            text = f"the process that awaited the call of which object {oid.hex()} is the result"
            self._lose(oid, OwnerDiedError, f"{text} ended before the answer came")

    # ---- outcomes --------------------------------------------------------------------------

    def settle(self, outcome: Outcome, locations: tuple[bytes, ...]) -> ObjectRecord:
        """Commit an object's outcome and wake whoever waits for it."""
        oid = outcome.object_id
        record = self._objects.settle(outcome, locations)
        if self.unknown:
            self.unknown.drop(oid)
        if self._promised:
            holder = self._promised.pop(oid, b"")
            self._promises.get(holder, {}).pop(oid, None)
        waiters, record.waiters = record.waiters, None
        for task_id in waiters or ():
            task = self._tasks.get(task_id)
            if task is not None:
                task.waiting -= 1
                self._wake(task)
        watchers, record.watchers = record.watchers, None
        for target in watchers or ():
            self._results.tell(target, outcome)
        if self._transfers.unheard:
            self._transfers.heard(oid)
        return record

    def found(self, outcome: Outcome, place: bytes) -> None:
        """A process has the object: its outcome, unless that was known already."""
        oid = outcome.object_id
        record = self._objects.get(oid)
        if record is None or record.kind == PENDING:
            self.settle(outcome, (place,))
            return
        if is_item(oid) and self._objects.is_lost(oid, record):
            self._objects.made_again(oid, record, outcome)
        self._objects.add_location(record, place)
        self._objects.contain(oid, record, outcome.contained)
        if is_item(oid):
            self._transfers.serve(oid)

    def refuse_copies(self, outcomes: Iterable[Outcome], node: NodeMember) -> None:
        """A node keeps values that nobody asked it for: only those of known objects may stay."""
        unwanted = []
        for outcome in outcomes:
            record = self._objects.get(outcome.object_id)
            if record is not None and record.kind != PENDING:
                self._objects.add_location(record, node.process_id)
            else:
                unwanted.append(outcome.object_id)
        if unwanted:
            self._outbox.send(node.process_id, Free(0, b"".join(unwanted)))

    # ---- unknown objects ---------------------------------------------------------------------

    def _lose(self, oid: bytes, error: type[ZrayError], text: str) -> None:
        value = failures.encode(error, text)
        self._counters["lost"] += 1
        self.settle(Outcome(oid, ERROR, len(value), value), ())

    def postpone(self, now: float) -> None:
        """A head that recovers from a restart begins to count only when that is over."""
        self.unknown.postpone(now + limits.UNKNOWN_OBJECT_S)

    def forget_unknown(self, now: float) -> None:
        """Objects of which nobody has told for too long are lost, or forgotten."""
        if not self.unknown or self._recovery.active:
            return
        due = self.unknown.due(now)
        if due and self._members.may_say_more(now):
            for oid in due:
                self.unknown.put(oid, now + limits.UNHEARD_OBJECT_S)
            return
        for oid in due:
            record = self._objects.get(oid)
            if record is None or record.kind != PENDING or task_of(oid) in self._tasks:
                continue
            if record.waiters or record.watchers or oid in self._transfers.unheard:
                if not self._rebuild(oid):  # it was freed before it was known who holds it
                    if is_item(oid):  # which its task may not yield this time
                        self.unknown.put(oid, now + limits.UNKNOWN_OBJECT_S)
                    continue
                what = "it was freed, its owner ended, or it was lost while there was no head"
                text = f"object {oid.hex()} is not known: {what}"
                self._lose(oid, ObjectLostError, text)
            elif record.holders is not None:
                self.unknown.put(oid, now + limits.UNKNOWN_OBJECT_S)

    def deadline(self) -> float:
        """When ``forget_unknown`` has something to do."""
        return NEVER if self._recovery.active else self.unknown.soonest()

    def forget_freed(self, oid: bytes) -> None:
        """Nobody holds the object any more."""
        if self._promised:
            holder = self._promised.pop(oid, b"")
            self._promises.get(holder, {}).pop(oid, None)
