"""What an operator asks of a cluster's processes: an observer that finds, reads, looks and ends.

Questions are asked of the head, which passes those about a node on to that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from zray import limits
from zray.errors import (
    AmbiguousError,
    BusyError,
    DrainRefusedError,
    HeadConnectionError,
    HeadSilentError,
    LogUnavailableError,
    NoStandbyError,
    NotFoundError,
    ProfilerError,
    StateQueryError,
    ZrayError,
)
from zray.nodes.driver.observer import ANSWER_S, Observer
from zray.protocol import messages as m
from zray.protocol.words import is_id

AT_ONCE = limits.OPEN_QUESTIONS_MAX // 2  # nodes that are asked together
_ERRORS = {
    one.code: one
    for one in (
        *(AmbiguousError, BusyError, DrainRefusedError, LogUnavailableError, NotFoundError),
        *(NoStandbyError, ProfilerError),
    )
}
_KINDS = {
    m.A_NODE: "node",
    m.A_WORKER: "worker",
    m.AN_ACTOR: "actor",
    m.A_TASK: "task",
    m.THE_HEAD: "head",
}

Answer = TypeVar("Answer", bound=m.Message)


class Place(NamedTuple):
    """What a word stands for, and in which process that is.

    ``worker_id`` empty: no worker has it; ``node_id`` empty: no node. ``text``: why not.
    """

    kind: str  # node, worker, actor, task or head
    subject: bytes
    title: str
    node_id: bytes
    node: str
    worker_id: bytes
    pid: int
    text: str

    def described(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "kind": self.kind,
            "id": self.subject.hex(),
            "title": self.title,
            "node": self.node,
            "node_id": self.node_id.hex(),
            "worker_id": self.worker_id.hex(),
            "pid": self.pid,
        }

    def in_words(self) -> str:
        """What it is, for people."""
        if self.kind in ("head", "node"):
            return f"the {self.kind} {self.node}" if self.kind == "node" else "the head"
        where = f" (node {self.node})" if self.node else ""
        name = f" {self.title}" if self.title else ""
        pid = f" pid {self.pid}" if self.pid and self.kind == "worker" else ""
        return f"{self.kind}{name}{pid} {self.subject.hex()}{where}"


class Operator(Observer):
    """Of one cluster, for the length of a ``with`` block, as its base.

    All methods raise HeadConnectionError where the connection is lost, HeadSilentError where head
    or node do not answer in time, and else what the answer says: NotFoundError and its like.
    """

    @property
    def process_id(self) -> bytes:
        """Its own, to which answers go."""
        return self._process_id

    def reopen(self, timeout_s: float) -> None:
        """Another session in the place of one that was lost, or in which nobody answers.

        Raises:
            HeadConnectionError: there is none within that time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._join()
                return
            except HeadConnectionError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(limits.RECONNECT_MAX_S / 4)

    # ---- asking ----------------------------------------------------------------------------

    def _numbered(self, question: m.Message) -> m.Message:
        self._asked += 1
        question.seq = self._asked
        return question

    def ask(self, query: m.Message, kind: type[Answer], timeout_s: float = ANSWER_S) -> Answer:
        """The one answer to a question."""
        (answer,) = self.ask_all([query], timeout_s)
        return self.checked(answer, kind, timeout_s)

    def checked(self, answer: m.Message | None, kind: type[Answer], timeout_s: float) -> Answer:
        """An answer that is a ``kind`` and tells of no error; ``timeout_s``: waited for it."""
        if answer is None:
            raise HeadSilentError(
                f"the head at {self.address}, or the node that it has asked, did not answer within "
                f"{timeout_s:g} s; see zray status"
            )
        _check(answer)
        if not isinstance(answer, kind):
            raise HeadConnectionError(f"the head at {self.address} answered something else")
        return answer

    def ask_all(self, questions: Sequence[m.Message], timeout_s: float) -> list[m.Message | None]:
        """The answers in the order of the questions; None: there was none in time.

        Raises:
            StateQueryError: no message can say that.
        """
        found: list[m.Message | None] = []
        for low in range(0, len(questions), AT_ONCE):
            some = questions[low : low + AT_ONCE]
            try:
                found += self._ask_some(some, timeout_s)
            except HeadConnectionError as error:
                if not self._again(some, error):
                    raise
                found += self._ask_some(some, timeout_s)
        return found

    def _ask_some(self, questions: Sequence[m.Message], timeout_s: float) -> list[m.Message | None]:
        numbered = [self._numbered(question) for question in questions]
        self._send(numbered)
        waiting: dict[int, m.Message | None] = {one.seq: None for one in numbered}
        left = len(waiting)
        deadline = time.monotonic() + timeout_s
        while left:
            for message in self._arrived():
                about = getattr(message, "about", 0)
                if about in waiting and waiting[about] is None:
                    waiting[about] = message
                    left -= 1
            if left and time.monotonic() >= deadline:
                break
            if left:
                try:
                    self._wait(deadline, timeout_s)
                except HeadSilentError:
                    break
        return [*waiting.values()]

    def _arrived(self) -> Iterable[m.Message]:
        for payload in self._link.receive():
            for message in payload.messages:
                self._check_goes_on(message)
                yield message
        self._check_link()

    # ---- what is it ------------------------------------------------------------------------

    def nodes(self) -> list[m.NodeStatus]:
        """Those that are connected."""
        return [node for node in self.status().nodes if node.state != "JOINING"]

    def locate(self, word: str, kind: int = m.SOMETHING, *, running: bool = False) -> Place:
        """What an id, a name or a pid stands for. ``running``: no task that has ended.

        Raises:
            NotFoundError: nothing does. AmbiguousError: several things do.
        """
        source = self._process_id
        question = m.Locate(0, source, word, kind)
        (answer,) = self.ask_all([question], limits.QUESTION_S)
        if isinstance(answer, m.Answered) and answer.code == AmbiguousError.code:
            _check(answer)
        is_known = isinstance(answer, m.Answered) and not answer.code
        if isinstance(answer, m.Answered) and is_known and not _is_open(answer):
            return _place(answer)
        there = [answer.node_id] if isinstance(answer, m.Answered) and answer.node_id else []
        nodes = there or [node.node_id for node in self.nodes()]
        if isinstance(answer, m.Answered) and is_known:
            word = answer.subject.hex()
        asked = [m.Locate(0, source, word, kind, node_id, running) for node_id in nodes]
        told = [
            one for one in self.ask_all(asked, limits.QUESTION_S) if isinstance(one, m.Answered)
        ]
        found = [one for one in told if not one.code]
        unsure = [one.text for one in told if one.code and one.pid]
        if len(found) > 1:
            named = ", ".join(_place(one).in_words() for one in found[:8])
            raise AmbiguousError(f"{word!r} may be {named}; say which with its id")
        if found:
            return _place(found[0])
        if answer is None:
            raise HeadSilentError(f"the head at {self.address} did not answer in time")
        assert isinstance(answer, m.Answered)
        if answer.code and unsure:
            answer.text = "; ".join([answer.text, *unsure[:8]])
        _check(answer)
        return _place(answer)

    # ---- logs ------------------------------------------------------------------------------

    def log_files(self, node_ids: Sequence[bytes]) -> list[m.LogFiles | None]:
        """The logs of nodes, in their order; None: the node has not answered."""
        asked = [m.ReadLog(0, self._process_id, node_id) for node_id in node_ids]
        found = self.ask_all(asked, limits.QUESTION_S)
        return [one if isinstance(one, m.LogFiles) else None for one in found]

    def read_log(
        self,
        node_id: bytes,
        name: str,
        file_id: int,
        offset: int,
        size: int,
        task_id: bytes = b"",
    ) -> m.LogPart:
        """A part of a log, of at most that size, or of what a task has written there."""
        asked = m.ReadLog(0, self._process_id, node_id, name, file_id, offset, size)
        asked.task_id = task_id
        return self.ask(asked, m.LogPart, limits.QUESTION_S)

    def traces(
        self,
        process_ids: Sequence[bytes],
        record_s: float = 0.0,
        timeout_s: float = limits.QUESTION_S,
    ) -> list[m.Traced | None]:
        """What has run lately on nodes, or drivers have submitted, in their order; None: no answer.

        ``record_s``: for so long they are to note what is submitted.
        """
        me = self._process_id
        asked = [m.Trace(0, me, process_id, False, record_s) for process_id in process_ids]
        found = self.ask_all(asked, timeout_s)
        return [one if isinstance(one, m.Traced) else None for one in found]

    def measure(
        self, node_ids: Sequence[bytes], timeout_s: float = limits.QUESTION_S
    ) -> list[m.Measured | None]:
        """What the processes of nodes use, in their order; None: the node has not answered."""
        asked = [m.Measure(0, self._process_id, node_id) for node_id in node_ids]
        found = self.ask_all(asked, timeout_s)
        return [one if isinstance(one, m.Measured) else None for one in found]

    def held(
        self, process_ids: Sequence[bytes], most: int, timeout_s: float
    ) -> list[m.Held | None]:
        """What drivers, and nodes with their workers, hold, in their order; None: no answer."""
        asked = [m.AskHeld(0, self._process_id, process_id, most) for process_id in process_ids]
        found = self.ask_all(asked, timeout_s)
        return [one if isinstance(one, m.Held) else None for one in found]

    def scrape(self, node_id: bytes = b"") -> m.Scraped:
        """The figures of a node, or without one those of the head and the cluster.

        Raises:
            NotFoundError: the node is not connected.
        """
        asked = m.Scrape(0, self._process_id, node_id)
        return self.ask(asked, m.Scraped, limits.QUESTION_S)

    def scrapes(self, node_ids: Sequence[bytes]) -> list[m.Scraped | None]:
        """Those of several nodes, in their order; None: the node has not answered."""
        asked = [m.Scrape(0, self._process_id, node_id) for node_id in node_ids]
        found = self.ask_all(asked, limits.QUESTION_S)
        return [one if isinstance(one, m.Scraped) and not one.code else None for one in found]

    # ---- looks and ends --------------------------------------------------------------------

    def examine(self, place: Place, seconds: float = 0.0) -> m.Examined:
        """The stacks of a process, or with ``seconds`` its flame graph.

        Raises:
            NotFoundError: no process has it. ProfilerError: it cannot be looked into.
        """
        if not place.node_id or (place.kind not in ("head", "node") and not place.worker_id):
            why = place.text or "no process has it now"
            raise NotFoundError(f"{place.in_words()} cannot be looked into: {why}")
        where = (place.node_id, place.worker_id, seconds, place.kind == "head")
        asked = m.Examine(0, self._process_id, *where)
        waits_s = limits.QUESTION_S + seconds + limits.EXAMINE_S
        return self.ask(asked, m.Examined, waits_s)

    def victim(self, what: str) -> Place:
        """What ``kill`` is to end, by an id, a name or a pid.

        Raises:
            NotFoundError, AmbiguousError: as ``locate``. ValueError: it is a node or the head.
        """
        try:
            place = self.locate(what, running=True)
        except NotFoundError:
            if not is_id(what):
                raise
            # A task that runs nowhere may wait with its driver, which alone knows it.
            return Place("task", bytes.fromhex(what), "", b"", "", b"", 0, "")
        if place.kind in ("node", "head"):
            how = f"zray drain {place.node}" if place.kind == "node" else "zray stop"
            raise ValueError(
                f"{place.in_words()} is a daemon, which zray kill does not end; see {how}"
            )
        return place

    def step_down(self, reason: str) -> list[m.HeadInfo]:
        """Have the head that leads stand by; returns those of which one leads next.

        Raises:
            NoStandbyError: there is no other.
        """
        try:
            return self.ask(m.StepDown(0, reason), m.SteppingDown, limits.STEP_DOWN_WAIT_S).heads
        except HeadConnectionError as error:
            if error.code == NoStandbyError.code:
                raise NoStandbyError(error.args[0].partition(": ")[2]) from None
            raise

    def kill(self, place: Place) -> m.Answered:
        """End a task, an actor or a worker.

        Raises:
            NotFoundError: it has ended meanwhile. ValueError: it is a node or the head.
        """
        kinds = {"task": m.A_TASK, "actor": m.AN_ACTOR, "worker": m.A_WORKER}
        if place.kind not in kinds:
            raise ValueError(f"{place.in_words()} is not killed so")
        target = place.node_id if place.kind in ("worker", "task") else b""
        asked = m.Kill(0, self._process_id, kinds[place.kind], place.subject, target)
        return self.ask(asked, m.Answered, limits.QUESTION_S)

    def drain(self, place: Place, reason: str, deadline_s: float) -> m.Answered:
        """Have a node take no more work, and leave.

        Raises:
            DrainRefusedError: it cannot.
        """
        asked = m.Drain(0, self._process_id, place.node_id, reason, deadline_s)
        return self.ask(asked, m.Answered, limits.QUESTION_S)


def _check(answer: m.Message) -> None:
    """Raises what an answer says that went wrong."""
    if isinstance(answer, m.Rejected):
        if answer.code == StateQueryError.code:
            raise StateQueryError(answer.text)
        raise HeadConnectionError(f"the head refused: {answer.text}", code=answer.code)
    code = getattr(answer, "code", "")
    if code:
        kind: type[ZrayError] = _ERRORS.get(code, ZrayError)
        raise kind(getattr(answer, "text", ""), code=code)


def _is_open(answer: m.Answered) -> bool:
    """Whether nodes know more: which of their workers has the task, or its pid."""
    if answer.kind in (m.A_WORKER, m.AN_ACTOR):
        return bool(answer.node_id) and not answer.pid
    return answer.kind == m.A_TASK and bool(answer.node_id) and not answer.worker_id


def _place(answer: m.Answered) -> Place:
    where = (answer.node_id, answer.node, answer.worker_id, answer.pid)
    return Place(_KINDS.get(answer.kind, ""), answer.subject, answer.title, *where, answer.text)
