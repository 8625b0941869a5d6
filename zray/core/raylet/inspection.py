"""What operators ask a node: which worker is meant, its log, where it is, its end.

Owns the questions that are open. Reading files and running the tool that looks into a process is
the shell's, as the effects say; what it finds comes back to `examined`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.effects import (
    Effect,
    EndExamination,
    ReadLogFile,
    ScrapeNode,
    StartExamination,
)
from zray.core.raylet.failed_runs import FailedRuns
from zray.core.raylet.local_records import LocalTask, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.measuring import Measuring
from zray.core.raylet.printed import Printed, PrintedPart, TaskOutput
from zray.errors import BusyError, NotFoundError, ProfilerError
from zray.protocol import messages as m
from zray.protocol.words import is_id

NAMED_MAX = 20  # pids, in a text

Key = tuple[bytes, int]  # who asks, and the number of the question


class WorkerFacts(NamedTuple):
    """A worker of this node, also one that has ended, for people."""

    pid: int
    job_id: bytes
    title: str  # of what it runs, or has run last
    alive: bool


class _Search:
    """A task that is looked for: the workers that have not said whether they run it."""

    def __init__(self, message: m.Locate, due: float, waiting: dict[bytes, None]) -> None:
        self.message = message
        self.due = due
        self.waiting = waiting


class _Examination:
    """A process that is looked into, by the tool or, once that cannot, by itself."""

    def __init__(self, message: m.Examine, slot: WorkerSlot | None, due: float) -> None:
        self.message = message
        self.slot = slot
        self.due = due
        self.by_itself = ""  # why


class Inspection:
    """Of one incarnation of the raylet.

    Args:
        held: the tasks that are here.
        actor_slot: the worker that is an actor, by the actor's id.
        effect: takes what the shell is to do.
        cancel: as ``LocalTasks.on_cancel``.
        kill: end a worker, and say why.
        tell_head: as ``HeadSession.tell``.
        failed_runs: answers for itself.
    """

    def __init__(
        self,
        node_id: bytes,
        info: m.NodeInfo,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        held: dict[bytes, LocalTask],
        actor_slot: Callable[[bytes], WorkerSlot | None],
        effect: Callable[[Effect], None],
        cancel: Callable[[m.CancelTask, float], None],
        kill: Callable[[WorkerSlot, str], None],
        tell_head: Callable[[m.Message], None],
        failed_runs: FailedRuns,
    ) -> None:
        self._node_id = node_id
        self._info = info
        self._outbox = outbox
        self._scheduler = scheduler
        self._held = held
        self._actor_slot = actor_slot
        self._effect = effect
        self._cancel = cancel
        self._kill = kill
        self._tell_head = tell_head
        self._searches: dict[Key, _Search] = {}
        self._examinations: dict[int, _Examination] = {}
        self._next = 1
        self._past: dict[bytes, WorkerFacts] = {}
        self._printed = Printed()
        self.measuring = Measuring(info.pid, scheduler, effect, tell_head)
        # Parts of the raylet's tables.
        self.head_handlers: dict[type[m.Message], Callable[[Any, float], None]] = {
            m.Locate: self.on_locate,
            m.ReadLog: self.on_read_log,
            m.Examine: self.on_examine,
            m.Kill: self.on_kill,
            m.Scrape: self.on_scrape,
            **self.measuring.handlers,
            **failed_runs.head_handlers,
        }
        self.worker_handlers: dict[type[m.Message], Callable[[WorkerSlot, Any, float], None]] = {
            m.Answered: self.on_answered,
            m.Examined: self.on_worker_examined,
            m.KeepRun: lambda slot, message, now: failed_runs.keep(message),
        }

    # ---- who is it -------------------------------------------------------------------------

    def facts(self, worker_id: bytes) -> WorkerFacts | None:
        """What is known of a worker that was here; None: nothing, or not any more."""
        slot = self._scheduler.workers.get(worker_id)
        return _facts(slot) if slot is not None else self._past.get(worker_id)

    def on_locate(self, message: m.Locate, now: float) -> None:
        """Somebody asks what an id or a pid stands for here."""
        word = message.word
        if word.isdecimal() and len(word) < 20 and (found := self._by_pid(int(word), message)):
            self._tell_head(found)
            return
        subject = bytes.fromhex(word) if is_id(word) else b""
        if not subject:
            self._not_found(message)
        elif (found := self._by_id(subject, message)) is not None:
            self._tell_head(found)
        elif message.kind not in (m.SOMETHING, m.A_TASK):
            self._not_found(message)
        elif len(self._searches) >= limits.OPEN_QUESTIONS_MAX:
            text = f"node {self._info.name} answers too many such questions already; ask again"
            self._tell_head(_answer(message, code=BusyError.code, text=text))
        else:
            workers = self._scheduler.workers.values()
            waiting = {slot.worker_id: None for slot in workers if slot.pid}
            search = _Search(message, now + limits.LOCATE_WAIT_S, waiting)
            self._searches[message.source, message.seq] = search
            for worker_id in waiting:
                asked = m.Locate(message.seq, message.source, word, m.A_TASK, worker_id)
                self._outbox.send(worker_id, asked)

    def _by_pid(self, pid: int, message: m.Locate) -> m.Answered | None:
        if pid == self._info.pid and message.kind in (m.SOMETHING, m.A_NODE):
            where = (self._info.name, self._node_id, self._info.name, b"", pid)
            return _answer(message, m.A_NODE, self._node_id, *where)
        if message.kind not in (m.SOMETHING, m.A_WORKER):
            return None
        for slot in self._scheduler.workers.values():
            if slot.pid == pid:
                return self._worker(message, m.A_WORKER, slot.worker_id, slot.worker_id)
        for worker_id, facts in reversed(self._past.items()):
            if facts.pid == pid:
                return self._worker(message, m.A_WORKER, worker_id, worker_id)
        return None

    def _by_id(self, subject: bytes, message: m.Locate) -> m.Answered | None:
        kind = message.kind
        if kind in (m.SOMETHING, m.A_WORKER) and self.facts(subject) is not None:
            return self._worker(message, m.A_WORKER, subject, subject)
        if kind in (m.SOMETHING, m.AN_ACTOR):
            slot = self._actor_slot(subject)
            if slot is not None:
                return self._worker(message, m.AN_ACTOR, subject, slot.worker_id)
        task = self._held.get(subject) if kind in (m.SOMETHING, m.A_TASK) else None
        if task is not None and task.worker is not None and task.worker.current() is task:
            return self._worker(message, m.A_TASK, subject, task.worker.worker_id)
        output = self._printed.get(subject) if kind in (m.SOMETHING, m.A_TASK) else None
        if output is not None and not message.running:
            return self._worker(message, m.A_TASK, subject, output.worker_id)
        return None

    def _worker(self, message: m.Locate, kind: int, subject: bytes, worker_id: bytes) -> m.Answered:
        facts = self.facts(worker_id) or WorkerFacts(0, b"", "", False)
        where = (facts.title, self._node_id, self._info.name, worker_id, facts.pid)
        return _answer(message, kind, subject, *where)

    def _not_found(self, message: m.Locate) -> None:
        text = f"node {self._info.name} does not have {message.word!r}"
        self._tell_head(_answer(message, code=NotFoundError.code, text=text))

    def _give_up(self, search: _Search) -> None:
        """No worker has it, of those that have said; it may have printed something before."""
        message = search.message
        subject = bytes.fromhex(message.word)
        output = self._printed.get(subject)
        if output is not None and output.worker_id in search.waiting:
            self._tell_head(self._worker(message, m.A_TASK, subject, output.worker_id))
        elif search.waiting:
            pids = [str(facts.pid) for one in search.waiting if (facts := self.facts(one))]
            text = (
                f"on node {self._info.name} {len(pids)} workers did not say whether it is theirs: "
                f"they are stopped, or in C code (pid {', '.join(pids[:NAMED_MAX])})"
            )
            self._tell_head(_answer(message, pid=1, code=NotFoundError.code, text=text))
        else:
            self._not_found(message)

    def on_answered(self, slot: WorkerSlot, message: m.Answered, now: float) -> None:
        """A worker says whether the task is the one that it runs."""
        key = (message.target, message.about)
        search = self._searches.get(key)
        if search is None or search.waiting.pop(slot.worker_id, slot) is slot:
            return
        if not message.code:
            del self._searches[key]
            subject = bytes.fromhex(search.message.word)
            found = self._worker(search.message, m.A_TASK, subject, slot.worker_id)
            found.title = message.title or found.title
            self._tell_head(found)

    # ---- logs ------------------------------------------------------------------------------

    def printed(self, worker_id: bytes, task_id: bytes, part: PrintedPart) -> None:
        """A task has printed that part of its worker's log."""
        self._printed.add(worker_id, task_id, part)

    def output(self, task_id: bytes) -> TaskOutput | None:
        """What a task has printed here, as far as is known."""
        return self._printed.get(task_id)

    def on_read_log(self, message: m.ReadLog, now: float) -> None:
        """Somebody reads a log that is kept on this node."""
        self._effect(ReadLogFile(message))

    def on_scrape(self, message: m.Scrape, now: float) -> None:
        """Somebody reads the figures of this node."""
        self._effect(ScrapeNode(message))

    # ---- where it is -----------------------------------------------------------------------

    def on_examine(self, message: m.Examine, now: float) -> None:
        """Somebody wants to see where a process is, or where its time goes."""
        slot = None
        pid = message.head_pid if message.of_head else self._info.pid
        if message.worker_id:
            slot = self._scheduler.workers.get(message.worker_id)
            if slot is None or not slot.pid:
                facts = self._past.get(message.worker_id)
                what = "has ended" if facts is not None else "is not known here, or starts"
                text = f"worker {message.worker_id.hex()} {what} (node {self._info.name})"
                self._examined(message, code=NotFoundError.code, text=text)
                return
            pid = slot.pid
        if len(self._examinations) >= limits.EXAMINATIONS_MAX:
            text = (
                f"node {self._info.name} looks into {limits.EXAMINATIONS_MAX} processes already, "
                "which is as many as it may at a time; try again when one of them is done"
            )
            self._examined(message, code=BusyError.code, text=text)
            return
        number, self._next = self._next, self._next + 1
        due = now + message.seconds + limits.EXAMINE_S
        self._examinations[number] = _Examination(message, slot, due)
        self._effect(StartExamination(number, pid, message.seconds))

    def examined(self, number: int, data: bytes, code: str, text: str, now: float) -> None:
        """What the tool has found, or why it has not: then a worker may say where it is."""
        one = self._examinations.get(number)
        if one is None or one.by_itself:
            return
        if code and one.slot is not None and not one.message.seconds:
            one.by_itself = text
            one.due = now + limits.WORKER_STACK_S
            asked = m.Examine(number, self._node_id, one.slot.worker_id, one.slot.worker_id)
            self._outbox.send(one.slot.worker_id, asked)
            return
        del self._examinations[number]
        self._examined(one.message, data, code, text)

    def on_worker_examined(self, slot: WorkerSlot, message: m.Examined, now: float) -> None:
        """A worker says where its threads are."""
        one = self._examinations.get(message.about)
        if one is not None and one.by_itself and one.slot is slot:
            del self._examinations[message.about]
            text = f"as Python sees it, from inside the process ({one.by_itself})"
            self._examined(one.message, message.data, text=text)

    def _examined(
        self, message: m.Examine, data: bytes = b"", code: str = "", text: str = ""
    ) -> None:
        text = text[: limits.TEXT_MAX]
        self._tell_head(m.Examined(0, message.source, message.seq, data, code, text))

    def _overdue(self, number: int, one: _Examination) -> None:
        text = (
            "it did not answer in time: it is stopped, or keeps Python from running other threads"
        )
        if one.by_itself:
            text += f"; a profiler would see more ({one.by_itself})"
        else:
            self._effect(EndExamination(number))
            text = f"the profiler has not ended {limits.EXAMINE_S:g} s after it should have"
        self._examined(one.message, code=ProfilerError.code, text=text)

    # ---- ends ------------------------------------------------------------------------------

    def on_kill(self, message: m.Kill, now: float) -> None:
        """Somebody ends a worker's process, or a task that only this node knows."""
        task = self._held.get(message.subject) if message.kind == m.A_TASK else None
        if task is not None:
            attempt = task.assignment.attempt
            self._cancel(m.CancelTask(0, message.subject, attempt, True), now)
            name = task.template.message.name
            here = (name, self._node_id, self._info.name)
            self._tell_head(_answer(message, m.A_TASK, message.subject, *here))
            return
        slot = self._scheduler.workers.get(message.subject)
        if slot is None:
            text = f"node {self._info.name} has neither worker nor task {message.subject.hex()}"
            self._tell_head(_answer(message, code=NotFoundError.code, text=text))
            return
        facts = _facts(slot)
        self._kill(slot, "it was killed with zray kill")
        where = (facts.title, self._node_id, self._info.name, slot.worker_id, slot.pid)
        self._tell_head(_answer(message, m.A_WORKER, slot.worker_id, *where))

    def exited(self, slot: WorkerSlot) -> None:
        """A worker has ended: it answers no more, and its log stays."""
        self._past.pop(slot.worker_id, None)
        self._past[slot.worker_id] = _facts(slot)._replace(alive=False)
        if len(self._past) > limits.PAST_WORKERS_KEPT:
            del self._past[next(iter(self._past))]
        for search in self._searches.values():
            search.waiting.pop(slot.worker_id, None)
        for number, one in [*self._examinations.items()] if self._examinations else ():
            if one.slot is slot and one.by_itself:
                del self._examinations[number]
                self._examined(one.message, code=NotFoundError.code, text="it has just ended")

    # ---- turn ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Answer those for whom nobody has, in time."""
        for key, search in [*self._searches.items()] if self._searches else ():
            if not search.waiting or now >= search.due:
                del self._searches[key]
                self._give_up(search)
        for number, one in [*self._examinations.items()] if self._examinations else ():
            if now >= one.due:
                del self._examinations[number]
                self._overdue(number, one)

    def deadline(self) -> float:
        """When that is."""
        due = [search.due for search in self._searches.values()]
        due += [one.due for one in self._examinations.values()]
        return min(due, default=NEVER)


def _facts(slot: WorkerSlot) -> WorkerFacts:
    first = slot.current()
    running = first.template.message.name if first is not None else ""
    return WorkerFacts(slot.pid, slot.key[0], slot.class_name or slot.leased_name or running, True)


def _answer(
    message: m.Locate | m.Kill,
    kind: int = m.SOMETHING,
    subject: bytes = b"",
    title: str = "",
    node_id: bytes = b"",
    node: str = "",
    worker_id: bytes = b"",
    pid: int = 0,
    *,
    code: str = "",
    text: str = "",
) -> m.Answered:
    where = (kind, subject, title, node_id, node, worker_id, pid)
    return m.Answered(0, message.source, message.seq, code, text, *where)
