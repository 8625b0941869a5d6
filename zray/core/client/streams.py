"""The part of the Client that consumes what generators yield, whatever way their tasks have gone.

Items are objects of this process's own, as results of calls are: each is held here from when it
comes, until the program takes its reference or wants none. The next one to come is always counted
and awaited, so whoever waits for it does as for any object.
"""

from __future__ import annotations

from collections.abc import Callable

from zray.core.client.call_results import CallResults
from zray.core.client.incoming_stream import IncomingStream
from zray.core.client.references import ClientReferences
from zray.core.client.requests import Requests
from zray.core.client.waiters import Waiter, Waiters
from zray.core.identity import Identity
from zray.ids import item_id, object_id
from zray.protocol import messages as m

END = 0  # index of what the task itself returns


class ClientStreams:
    """Args:
    outcomes: those known here.
    results: those that this process waits for, and are its own.
    say: takes what is for the worker that runs a task or call.
    yielded_large: hears of tasks of which an item is with a node.
    """

    def __init__(
        self,
        *,
        me: Identity,
        outcomes: dict[bytes, m.Outcome],
        results: CallResults,
        references: ClientReferences,
        waiters: Waiters,
        requests: Requests,
        say: Callable[[m.Taken], None],
        yielded_large: Callable[[bytes], None],
    ) -> None:
        self._me = me
        self._outcomes = outcomes
        self._results = results
        self._references = references
        self._waiters = waiters
        self._requests = requests
        self._say = say
        self._yielded_large = yielded_large
        self._streams: dict[bytes, IncomingStream] = {}
        self.tells = False  # ``take`` has something for a worker that waits for it

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, task_id: bytes, *, limited: bool) -> None:
        """A task or call was submitted that yields; ``limited``: only as its items are used."""
        stream = self._streams[task_id] = IncomingStream(task_id, limited)
        end = object_id(task_id, END)
        self._references.add(end)
        self._expect(stream)
        waiter = Waiter(lambda: self._on_end(stream))
        self._waiters.want_outcome(end, waiter)
        if waiter.remaining <= 0:
            self._on_end(stream)

    def _expect(self, stream: IncomingStream) -> None:
        oid = item_id(stream.task_id, stream.came + 1)
        self._results.awaited[oid] = stream
        self._references.count(oid)

    # ---- items -----------------------------------------------------------------------------

    def on_items(self, message: m.Items) -> None:
        """A worker tells what it has yielded, perhaps again."""
        stream = self._streams.get(message.task_id)
        if stream is None:
            self._say(m.Taken(0, self._me.process_id, message.source, message.task_id, 0, 0, True))
            return
        stream.source = message.source
        if stream.ended:  # its call was given up, and runs on
            self._acknowledge(stream)
            return
        before, refers = stream.came, False
        for outcome in message.outcomes:
            index = int.from_bytes(outcome.object_id[16:], "big")
            if index == stream.came + 1:
                refers = self._arrive(stream, outcome) or refers
                while stream.ahead and (next_one := stream.ahead.pop(stream.came + 1, None)):
                    refers = self._arrive(stream, next_one) or refers
            elif index > stream.came:
                stream.ahead[index] = outcome
        if stream.came > before:
            self._expect(stream)
        if refers:
            self._settle(stream, before)
        self._acknowledge(stream)

    def _arrive(self, stream: IncomingStream, outcome: m.Outcome) -> bool:
        """The next item is here; whether the worker keeps anything for it."""
        oid = outcome.object_id
        stream.came += 1
        if self._results.awaited.pop(oid, None) is None:
            self._references.count(oid)
        if outcome.kind & m.LOCATED:
            self._references.take_located(outcome, promised=False)
            self._yielded_large(stream.task_id)
            return True
        self._references.take_result(outcome, promised=False)
        return bool(outcome.contained)

    def _settle(self, stream: IncomingStream, before: int) -> None:
        """The worker keeps what the items refer to until this process's own holds are known.

        ``before``: the number of the last item before these.
        """

        def settled() -> None:
            stream.unsettled.popleft()
            self._acknowledge(stream)

        stream.unsettled.append(before)
        self._references.flush_holds()
        self._requests.ask(lambda number: m.Sync(number), Waiter(settled))

    def _acknowledge(self, stream: IncomingStream) -> None:
        if stream.source:
            upto = stream.unsettled[0] if stream.unsettled else stream.came
            ids = (self._me.process_id, stream.source, stream.task_id)
            self._say(m.Taken(0, *ids, upto, stream.taken, stream.closed or stream.ended))

    def _on_end(self, stream: IncomingStream) -> None:
        """The task has ended, and all that it has yielded is here; or it is lost."""
        if stream.closed:
            return
        end = self._outcomes.get(object_id(stream.task_id, END))
        stream.ended = True
        stream.failed = end is not None and bool(end.kind & m.ERROR)
        stream.ahead.clear()
        oid = item_id(stream.task_id, stream.came + 1)
        if self._results.awaited.pop(oid, None) is not None:
            outcome = self._outcomes[oid] = m.Outcome(oid, m.VALUE, 0)
            self._waiters.wake(oid, outcome)

    # ---- the program -----------------------------------------------------------------------

    def take(self, task_id: bytes) -> bytes | None:
        """The id of the next item, counted for the caller's reference; None: none is here."""
        stream = self._streams[task_id]
        if stream.taken < stream.came:
            stream.taken += 1
            if stream.limited and not stream.ended:
                self.tells = True
                self._acknowledge(stream)
            return item_id(task_id, stream.taken)
        if stream.failed:
            stream.failed = False
            end = object_id(task_id, END)
            self._references.add(end)
            return end
        return None

    def next_id(self, task_id: bytes) -> bytes:
        """What to wait for: it comes when ``take`` has something, or never will have."""
        return item_id(task_id, self._streams[task_id].taken + 1)

    def is_over(self, task_id: bytes) -> bool:
        """Whether nothing more is to be taken, now or later."""
        stream = self._streams[task_id]
        return stream.ended and not stream.failed and stream.taken == stream.came

    def has_next(self, task_id: bytes) -> bool:
        """Whether ``take`` has something."""
        stream = self._streams[task_id]
        return stream.failed or stream.taken < stream.came

    def close(self, task_id: bytes) -> None:
        """The program wants no more items; those that were not taken are let go of."""
        stream = self._streams.pop(task_id, None)
        if stream is None:
            return
        stream.closed = True
        for index in range(stream.taken + 1, stream.came + 2):
            oid = item_id(task_id, index)
            self._results.awaited.pop(oid, None)
            self._references.remove(oid)
        self._references.remove(object_id(task_id, END))
        if not stream.ended:
            self._acknowledge(stream)
