"""What has run on this node, for a timeline: its workers remember, and are asked when somebody is.

Nothing is told while tasks run. What workers that have ended remembered is kept here, bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import nlargest

from msgspec.structs import replace

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.lending import Lending
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol import messages as m


class Question:
    """``waiting``: the workers that have not answered, until ``due``."""

    def __init__(self, message: m.Trace, due: float, waiting: dict[bytes, None]) -> None:
        self.message = message
        self.due = due
        self.waiting = waiting
        self.found: list[m.WorkerSpans] = []


class Tracing:
    """Of one incarnation of the raylet. ``outbox``: messages to workers.

    ``tell_head``: as ``HeadSession.tell``.

    Attributes:
        lending: knows how long tasks wait for their arguments.
        recording: what new workers are told, while what is submitted is to be noted.
    """

    lending: Lending

    def __init__(
        self,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._tell_head = tell_head
        self._questions: dict[tuple[bytes, int], Question] = {}  # by who asks, and its number
        self._ended: deque[m.WorkerSpans] = deque()
        self._ended_spans = 0
        self.recording: m.Trace | None = None
        self._record_until = 0.0

    def on_trace(self, message: m.Trace, now: float) -> None:
        """Somebody asks what has run here, or whether all is told that was printed here."""
        if message.echo:
            self._tell_head(m.Traced(0, message.target, message.source, message.seq))
            return
        if message.record_s:
            self._record(message, now)
        workers = self._scheduler.workers
        waiting = {slot.worker_id: None for slot in workers.values() if slot.pid}
        question = Question(message, now + limits.TRACE_WAIT_S, waiting)
        self._questions[message.source, message.seq] = question
        for worker_id in waiting:
            asked = m.Trace(message.seq, message.source, worker_id, False, message.record_s)
            self._outbox.send(worker_id, asked)

    def _record(self, message: m.Trace, now: float) -> None:
        """Note what is fetched, and have workers note what they submit, for a while."""
        self._record_until = now + message.record_s
        self.lending.fetched = deque(maxlen=limits.SPANS_NODE_MAX)
        self.recording = m.Trace(0, message.source, message.target, False, message.record_s)

    def begin(self, worker_id: bytes) -> None:
        """A worker is about to start."""
        if self.recording is not None:
            self._outbox.send(worker_id, replace(self.recording, target=worker_id))

    def on_traced(self, slot: WorkerSlot, message: m.Traced, now: float) -> None:
        """A worker tells what it has run, as it was asked or is about to end."""
        question = self._questions.get((message.target, message.about))
        if not message.about:
            self._keep(message.workers)
        elif question is not None:
            question.found += message.workers
            question.waiting.pop(slot.worker_id, None)

    def _keep(self, told: list[m.WorkerSpans]) -> None:
        self._ended += told
        self._ended_spans += sum(len(one.spans) for one in told)
        while self._ended_spans > limits.SPANS_NODE_MAX:
            self._ended_spans -= len(self._ended.popleft().spans)

    def exited(self, worker_id: bytes) -> None:
        """A worker is gone, and answers no more."""
        for question in self._questions.values():
            question.waiting.pop(worker_id, None)

    def step(self, now: float) -> None:
        """Answer those for whom all workers have, or are too busy to."""
        if self.recording is not None and now >= self._record_until:
            self.recording = None
        for key, question in [*self._questions.items()] if self._questions else ():
            if not question.waiting or now >= question.due:
                del self._questions[key]
                self._answer(question)

    def _answer(self, question: Question) -> None:
        found = [*self._ended, *question.found]
        ends = [span.began_s + span.seconds for one in found for span in one.spans]
        if len(ends) > limits.SPANS_NODE_MAX:
            since = nlargest(limits.SPANS_NODE_MAX, ends)[-1]
            last = [replace(one, spans=_from(one.spans, since)) for one in found]
            found = [one for one in last if one.spans or one.submits]
        found = _bounded(found)
        asked = question.message
        fetched = [*(self.lending.fetched or ())]
        if self.recording is None:
            self.lending.fetched = None
        answer = m.Traced(0, asked.target, asked.source, asked.seq, found, fetched=fetched)
        self._tell_head(answer)

    def deadline(self) -> float:
        """When to answer though not all workers have."""
        return min([question.due for question in self._questions.values()], default=NEVER)


def _bounded(found: list[m.WorkerSpans]) -> list[m.WorkerSpans]:
    """Of what workers have submitted, the same share of each."""
    count = sum(len(one.submits) for one in found)
    if count <= limits.SPANS_NODE_MAX:
        return found
    share = limits.SPANS_NODE_MAX / count
    return [replace(one, submits=one.submits[-int(len(one.submits) * share) :]) for one in found]


def _from(spans: list[m.Span], since: float) -> list[m.Span]:
    return [span for span in spans if span.began_s + span.seconds >= since]
