"""What operators ask of the cluster: what an id or name stands for, and what nodes know of it.

Answers from the tables, passes questions on to nodes and their answers back. Ends what is to be
killed. Keeps how many questions of each observer are open, and what drivers have recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zray import limits
from zray.core.head.actor_records import ActorRecord
from zray.core.head.identity import HeadIdentity
from zray.core.head.incarnations import Incarnations
from zray.core.head.members import Member, NodeMember
from zray.core.head.tables import Tables
from zray.core.head.task_records import ASSIGNED, TaskRecord
from zray.core.head.task_table import TaskTable
from zray.errors import AmbiguousError, BusyError, NotFoundError, ZrayError
from zray.protocol import messages as m
from zray.protocol.words import is_hex, is_id

if TYPE_CHECKING:  # loaded when a program has recorded something
    from zray.core.recorded_metrics import RecordedMetrics

PREFIX_MIN = 6  # digits of an id that stand for the whole
NAMED_MAX = 8  # of those that a word may stand for, in a text
HEAD = "head"

Question = (
    m.Locate
    | m.ReadLog
    | m.Examine
    | m.Kill
    | m.Measure
    | m.AskHeld
    | m.Scrape
    | m.ReadRun
    | m.ListRuns
    | m.ListEnvironments
)
Answer = (
    m.Answered
    | m.LogFiles
    | m.LogPart
    | m.Examined
    | m.Measured
    | m.Held
    | m.Scraped
    | m.RunPart
    | m.RunsListed
    | m.EnvironmentsListed
)
Asked = m.Locate | m.Kill


class Inspection:
    """``cancel``: ends a task, as ``TaskManager.cancel``. ``dead``: last words on dead actors.

    ``is_there``: whether a process has a session.

    Attributes:
        figures: of the head and the cluster, as they are now; by the shell.
        own_node_id: of the node on this head's machine; empty: there is one head's node at most.
    """

    def __init__(
        self,
        identity: HeadIdentity,
        tables: Tables,
        tasks: TaskTable,
        dead: dict[bytes, m.ActorState],
        incarnations: Incarnations,
        cancel: Callable[[bytes, TaskRecord, bool], None],
        is_there: Callable[[bytes], bool],
    ) -> None:
        self._identity = identity
        self._outbox = tables.outbox
        self._persist = tables.journal.persist
        self._members = tables.members
        self._processes = tables.processes
        self._tasks = tasks
        self._actors = tables.actor_table
        self._dead = dead
        self._incarnations = incarnations
        self._cancel = cancel
        self._is_there = is_there
        self.figures: Callable[[float], list[m.Figure]] = lambda now: []
        self.own_node_id = b""
        self._recorded: RecordedMetrics | None = None
        self._open: dict[bytes, dict[int, float]] = {}  # observer -> question -> when it is over
        self.handlers: dict[type[m.Message], Callable[[Any, Any, float], None]] = {
            m.Locate: self.on_locate,
            m.Kill: self.on_kill,
            **dict.fromkeys((m.ReadLog, m.Examine, m.Measure), self.pass_on),
            **dict.fromkeys((m.ReadRun, m.ListRuns, m.ListEnvironments), self.pass_on),
            **dict.fromkeys((m.Answered, m.LogFiles, m.LogPart, m.Examined), self.on_answer),
            m.AskHeld: self.on_ask_held,
            **dict.fromkeys((m.Held, m.EnvironmentsListed), self.on_answer),
            **dict.fromkeys((m.Measured, m.Scraped, m.RunPart, m.RunsListed), self.on_answer),
            m.Scrape: self.on_scrape,
            m.Recorded: self.on_recorded,
            m.KeepRun: self.on_keep_run,
        }

    # ---- what is it ------------------------------------------------------------------------

    def on_locate(self, sender: Member, message: m.Locate, now: float) -> None:
        """What a word stands for, and on which node that is, as far as the head knows."""
        if message.target:
            self.pass_on(sender, message, now)
            return
        found = [*self._meant(message)]
        if not found:
            self._outbox.send(sender.process_id, self._unknown(sender, message))
        elif len(found) > 1:
            named = ", ".join(map(_in_words, found[:NAMED_MAX]))
            more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
            text = f"{message.word!r} may be {named}{more}"
            self._refuse(sender, message, AmbiguousError, text)
        else:
            found[0].target, found[0].about = sender.process_id, message.seq
            self._outbox.send(sender.process_id, found[0])

    def _unknown(self, sender: Member, message: m.Locate) -> m.Answered:
        word = message.word
        dead = self._dead.get(bytes.fromhex(word)) if is_id(word) else None
        text = dead.text if dead is not None else f"the head knows nothing that is {word!r}"
        return m.Answered(0, sender.process_id, message.seq, NotFoundError.code, text)

    def _meant(self, message: m.Locate) -> Iterable[m.Answered]:
        word, kind = message.word, message.kind
        if kind == m.THE_HEAD or (kind == m.SOMETHING and word == HEAD):
            yield self.of_head()
            return
        digits = PREFIX_MIN <= len(word) <= 32 and is_hex(word)
        whole = bytes.fromhex(word) if digits and len(word) == 32 else b""
        if kind in (m.SOMETHING, m.A_NODE):
            for node in self._members.nodes.values():
                if node.info.name == word or _begins(node.process_id, word, digits):
                    yield self._node(node)
        if kind in (m.SOMETHING, m.A_WORKER) and digits:
            known = [whole] if whole in self._processes.workers else ()
            for worker_id in known if whole else self._processes.workers:
                if whole or _begins(worker_id, word, digits):
                    yield self._worker(worker_id)
        if kind in (m.SOMETHING, m.AN_ACTOR):
            for record in self._actors.values():
                if record.info.name == word or _begins(record.actor_id, word, digits):
                    yield self._actor(record)
        if kind in (m.SOMETHING, m.A_TASK) and whole and whole not in self._actors:
            task = self._tasks.get(whole)
            if task is not None:
                yield self._task(whole, task)

    def of_head(self) -> m.Answered:
        """The head: what is asked about it, its own node answers."""
        node = self._own_node()
        where = (node.process_id, node.info.name) if node is not None else (b"", "")
        me = (m.THE_HEAD, self._identity.head_id, HEAD, *where, b"", self._identity.pid)
        return m.Answered(0, b"", 0, "", "", *me)

    def _own_node(self) -> NodeMember | None:
        return next((one for one in self._members.nodes.values() if self._is_own(one)), None)

    def _is_own(self, node: NodeMember) -> bool:
        """Whether it is on this head's machine, and of the same start: it sees its process."""
        if self.own_node_id:
            return node.process_id == self.own_node_id
        return node.is_of_head()

    @staticmethod
    def _node(node: NodeMember) -> m.Answered:
        name = node.info.name
        me = (m.A_NODE, node.process_id, name, node.process_id, name, b"", node.info.pid)
        return m.Answered(0, b"", 0, "", "", *me)

    def _worker(self, worker_id: bytes) -> m.Answered:
        where = self._place(self._processes.workers[worker_id])
        return m.Answered(0, b"", 0, "", "", m.A_WORKER, worker_id, "", *where, worker_id)

    def _actor(self, record: ActorRecord) -> m.Answered:
        alive = record.state == m.ACTOR_ALIVE
        where = self._place(record.node_id) if alive else (b"", "")
        text = "" if alive else record.reason(0.0)[: limits.TEXT_MAX]
        me = (m.AN_ACTOR, record.actor_id, record.info.class_name, *where)
        return m.Answered(0, b"", 0, "", text, *me, record.worker_id if alive else b"")

    def _task(self, task_id: bytes, task: TaskRecord) -> m.Answered:
        name = task.template.message.name if task.template is not None else ""
        held = task.state == ASSIGNED and task.node is not None
        where = self._place(task.node.node_id) if held and task.node is not None else (b"", "")
        text = "" if held else "it waits, and no process has it"
        return m.Answered(0, b"", 0, "", text, m.A_TASK, task_id, name, *where)

    def _place(self, node_id: bytes) -> tuple[bytes, str]:
        node = self._members.nodes.get(node_id)
        return (node_id, node.info.name) if node is not None else (b"", "")

    # ---- questions to nodes ----------------------------------------------------------------

    def pass_on(self, sender: Member, message: Question, now: float) -> None:
        """A node is asked, on behalf of the observer, who may have few questions open at a time."""
        node = self._members.nodes.get(message.target)
        if node is None or not node.connected:
            name = node.info.name if node is not None else message.target.hex()
            text = f"node {name} is not connected to the head now; see zray status"
            self._refuse(sender, message, NotFoundError, text)
        elif self._may_ask(sender, message, now):
            message.source = sender.process_id
            if isinstance(message, m.ReadLog | m.Examine | m.Measure):
                message.head_pid = self._identity.pid if self._is_own(node) else 0
            if isinstance(message, m.Examine) and message.of_head and not self._is_own(node):
                self._refuse(sender, message, NotFoundError, "that is not the head's own node")
                return
            self._outbox.send(node.process_id, message)

    def on_ask_held(self, sender: Member, message: m.AskHeld, now: float) -> None:
        """A driver knows by itself what it holds; workers are asked by their nodes."""
        job = self._members.jobs.get(message.target)
        if job is None or job.driverless or not job.connected:
            self.pass_on(sender, message, now)
        elif self._may_ask(sender, message, now):
            message.source = sender.process_id
            self._outbox.send(job.process_id, message)

    def _may_ask(self, sender: Member, message: Question, now: float) -> bool:
        mine = self._open.setdefault(sender.process_id, {})
        if len(mine) >= limits.OPEN_QUESTIONS_MAX:
            for seq in [seq for seq, over in mine.items() if now >= over]:
                del mine[seq]
        if len(mine) >= limits.OPEN_QUESTIONS_MAX:
            text = f"{len(mine)} questions of this process are open; wait for their answers"
            self._refuse(sender, message, BusyError, text)
            return False
        takes_s = message.seconds if isinstance(message, m.Examine) else 0.0
        mine[message.seq] = now + takes_s + limits.QUESTION_S + limits.EXAMINE_S
        if len(self._open) > limits.OPEN_QUESTIONS_MAX:
            gone = [one for one in self._open if not self._is_there(one)]
            for one in gone:
                del self._open[one]
        return True

    def on_answer(self, sender: Member, message: Answer, now: float) -> None:
        """Pass what a node says on to who has asked, if that is still open."""
        mine = self._open.get(message.target)
        if mine is None or mine.pop(message.about, None) is None:
            return
        if not mine:
            del self._open[message.target]
        self._outbox.send(message.target, message)

    def on_keep_run(self, sender: Member, message: m.KeepRun, now: float) -> None:
        """A driver knows of an attempt that died with its worker: a node is to keep it."""
        node = self._members.nodes.get(message.node_id)
        if node is None or not node.connected:
            node = self._own_node()
        if node is not None and node.connected:
            self._outbox.send(node.process_id, message)

    def _refuse(
        self, sender: Member, message: Question | m.Drain, kind: type[ZrayError], text: str
    ) -> None:
        refusal = m.Answered(0, sender.process_id, message.seq, kind.code, text)
        self._outbox.send(sender.process_id, refusal)

    # ---- figures ---------------------------------------------------------------------------

    def on_recorded(self, sender: Member, message: m.Recorded, now: float) -> None:
        """A driver tells what its program has recorded."""
        if sender.process_id not in self._members.jobs:
            return
        if self._recorded is None:
            from zray.core.recorded_metrics import RecordedMetrics

            self._recorded = RecordedMetrics()
        self._recorded.recorded(sender.process_id, sender.process_id, message, now)

    def on_scrape(self, sender: Member, message: m.Scrape, now: float) -> None:
        """Somebody reads the figures of the cluster, or of a node."""
        if message.target:
            node = self._members.nodes.get(message.target)
            if node is not None and not node.view.live:  # who asks would wait, and again soon
                text = f"node {node.info.name} is not heard of now; see zray status"
                self._refuse(sender, message, NotFoundError, text)
            else:
                self.pass_on(sender, message, now)
            return
        answer = m.Scraped(0, sender.process_id, message.seq, figures=self.figures(now))
        recorded = self._recorded
        if recorded is not None:
            for process_id in recorded.processes():
                if process_id not in self._members.jobs:
                    recorded.ended(process_id)
                    recorded.job_ended(process_id, now)
            answer.programs, answer.left_out = recorded.programs(now), recorded.lost()
        self._outbox.send(sender.process_id, answer)

    # ---- ends ------------------------------------------------------------------------------

    def on_kill(self, sender: Member, message: m.Kill, now: float) -> None:
        """End something; who is asked for a task that only its submitter knows is its driver."""
        subject = message.subject
        task = self._tasks.get(subject)
        record = self._actors.get(subject)
        if message.kind == m.A_WORKER:
            self.pass_on(sender, message, now)
        elif subject in self._dead:
            self._refuse(sender, message, NotFoundError, self._dead[subject].text)
        elif record is not None:
            answer = self._actor(record)
            self._incarnations.end(record, "it was killed with zray kill")
            answer.target, answer.about, answer.text = sender.process_id, message.seq, ""
            self._persist([], lambda _now: self._outbox.send(sender.process_id, answer))
        elif message.kind == m.A_TASK and task is not None:
            answer = self._task(subject, task)
            self._cancel(subject, task, True)
            answer.target, answer.about, answer.text = sender.process_id, message.seq, ""
            self._outbox.send(sender.process_id, answer)
        elif message.kind == m.A_TASK:
            self._ask_submitter(sender, message, now)
        else:
            text = f"the head knows no actor {subject.hex()} that is not dead"
            self._refuse(sender, message, NotFoundError, text)

    def _ask_submitter(self, sender: Member, message: m.Kill, now: float) -> None:
        """The ids of a driver's tasks begin as its own."""
        subject = message.subject
        for job in self._members.jobs.values():
            if job.process_id[:8] == subject[:8] and not job.driverless and job.connected:
                target = job.process_id
                self._outbox.send(target, m.Cancel(0, subject, True, False, 0, target))
                text = (
                    f"the head does not know the task; its driver (pid {job.info.pid} on "
                    f"{job.info.host}) was told to end it, if it has it"
                )
                answer = m.Answered(0, sender.process_id, message.seq, "", text, m.A_TASK, subject)
                self._outbox.send(sender.process_id, answer)
                return
        if message.target:
            self.pass_on(sender, message, now)
        else:
            text = f"no task {subject.hex()} is known: it has ended, or never was"
            self._refuse(sender, message, NotFoundError, text)


def _begins(an_id: bytes, word: str, digits: bool) -> bool:
    return digits and an_id.hex().startswith(word)


_KINDS = {m.A_NODE: "node", m.A_WORKER: "worker", m.AN_ACTOR: "actor", m.A_TASK: "task"}


def _in_words(found: m.Answered) -> str:
    kind = _KINDS.get(found.kind, "something")
    title = f" {found.title}" if found.title else ""
    return f"{kind}{title} {found.subject.hex()}"
