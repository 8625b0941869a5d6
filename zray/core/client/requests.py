"""What the process has asked the head, and who waits for the answers."""

from __future__ import annotations

from collections.abc import Callable

from zray.core.client.waiters import Waiter
from zray.protocol import messages as m


def offers_handle(request: m.Message) -> bool:
    """Whether the answer may name any actor, of which the asking process is then a holder."""
    return isinstance(request, m.FindActor) or (
        isinstance(request, m.CreateActor) and request.get_if_exists
    )


class Asked:
    """A request; ``answer`` gets what is answered as ``waiter`` arrives."""

    __slots__ = ("answer", "request", "waiter")

    def __init__(self, waiter: Waiter, answer: list[m.Message], request: m.Message) -> None:
        self.waiter = waiter
        self.answer = answer
        self.request = request


class Requests:
    """``outbox``: to the head, or to the node."""

    def __init__(self, outbox: list[m.Message]) -> None:
        self._outbox = outbox
        self._asked: dict[int, Asked] = {}
        self._offers: dict[int, None] = {}  # those of which the answer may bring a handle
        self._numbers = 0

    def number(self) -> int:
        """A new one, for what may be answered or refused."""
        self._numbers += 1
        return self._numbers

    def ask(
        self,
        make: Callable[[int], m.Message],
        waiter: Waiter,
        answer: list[m.Message] | None = None,
    ) -> list[m.Message]:
        """Send a request; its answer is appended to the returned list as ``waiter`` arrives."""
        number = self.number()
        answer = [] if answer is None else answer
        waiter.remaining += 1
        request = make(number)
        self._asked[number] = Asked(waiter, answer, request)
        if offers_handle(request):
            self._offers[number] = None
        self._outbox.append(request)
        return answer

    def take(self, number: int) -> Asked | None:
        """What was asked under that number: it is answered now."""
        self._offers.pop(number, None)
        return self._asked.pop(number, None)

    def may_bring_handle(self) -> bool:
        """Whether an answer is due that makes this process a holder of a handle it cannot tell."""
        return bool(self._offers)

    def unanswered(self) -> list[m.Message]:
        """The requests, for a new session."""
        return [asked.request for asked in self._asked.values()]

    def release_all(self) -> None:
        """No answer will come any more."""
        for asked in self._asked.values():
            asked.waiter.arrived()
        self._asked.clear()
        self._offers.clear()
