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
    """

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

    def on_trace(self, message: m.Trace, now: float) -> None:
        """Somebody asks what has run here, or whether all is told that was printed here."""
        if message.echo:
            self._tell_head(m.Traced(0, message.target, message.source, message.seq))
            return
        workers = self._scheduler.workers
        waiting = {slot.worker_id: None for slot in workers.values() if slot.pid}
        question = Question(message, now + limits.TRACE_WAIT_S, waiting)
        self._questions[message.source, message.seq] = question
        for worker_id in waiting:
            self._outbox.send(worker_id, m.Trace(message.seq, message.source, worker_id))

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
            found = [one for one in last if one.spans]
        asked = question.message
        self._tell_head(m.Traced(0, asked.target, asked.source, asked.seq, found))

    def deadline(self) -> float:
        """When to answer though not all workers have."""
        return min([question.due for question in self._questions.values()], default=NEVER)


def _from(spans: list[m.Span], since: float) -> list[m.Span]:
    return [span for span in spans if span.began_s + span.seconds >= since]
