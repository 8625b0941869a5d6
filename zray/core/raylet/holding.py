"""What a node's store and its workers hold, for whoever asks: workers are asked when somebody is.

Owns the questions that are open. Nothing is kept but those.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from zray import limits
from zray.core.machine import NEVER, Outbox
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.core.raylet.objects import LocalObjects
from zray.protocol import messages as m


class _Question:
    """``waiting``: the pids of workers that have not answered, until ``due``."""

    def __init__(self, message: m.AskHeld, due: float, waiting: dict[bytes, int]) -> None:
        self.message = message
        self.due = due
        self.waiting = waiting
        self.most = 0  # objects of each
        self.found: list[m.HeldBy] = []


class Holding:
    """Of one incarnation of the raylet. ``outbox``: messages to workers.

    ``tell_head``: as ``HeadSession.tell``.
    """

    def __init__(
        self,
        outbox: Outbox[bytes],
        scheduler: LocalScheduler,
        objects: LocalObjects,
        tell_head: Callable[[m.Message], None],
    ) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._objects = objects
        self._tell_head = tell_head
        self._questions: dict[tuple[bytes, int], _Question] = {}  # by who asks, and its number

    def on_ask(self, message: m.AskHeld, now: float) -> None:
        """Somebody asks."""
        waiting = {
            slot.worker_id: slot.pid for slot in self._scheduler.workers.values() if slot.pid
        }
        question = _Question(message, now + limits.HELD_WAIT_S, waiting)
        self._questions[message.source, message.seq] = question
        room = limits.HELD_NODE_ROWS_MAX // max(1, len(waiting))
        question.most = min(message.most, max(limits.HELD_ROWS_MIN, room))
        for worker_id in waiting:
            asked = m.AskHeld(message.seq, message.source, worker_id, question.most)
            self._outbox.send(worker_id, asked)

    def on_held(self, slot: WorkerSlot, message: m.Held, now: float) -> None:
        """A worker says what it holds."""
        question = self._questions.get((message.target, message.about))
        if question is None or question.waiting.pop(slot.worker_id, None) is None:
            return
        title = slot.class_name or slot.leased_name
        if (first := slot.current()) is not None and not slot.class_name:
            title = first.template.message.name
        for one in message.holders[:1]:
            who = {"process_id": slot.worker_id, "pid": slot.pid, "title": title[:64]}
            told = one.objects[: question.most]
            question.found.append(replace(one, objects=told, **who))

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

    def _answer(self, question: _Question) -> None:
        asked, store = question.message, self._objects.store
        stored, usage = [], m.StoreUsage()
        if store is not None:
            usage = store.usage()
            stored = store.listed(asked.most)
        answer = m.Held(
            *(0, asked.source, asked.seq, question.found, stored, usage),
            silent=[*question.waiting.values()],
        )
        self._tell_head(answer)

    def deadline(self) -> float:
        """When to answer though not all workers have."""
        return min([question.due for question in self._questions.values()], default=NEVER)
