"""One process's way to the shared store: delays, losses, and whom it does not reach.

An answer that does not come says nothing: what was asked may be carried out, later too, or twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Protocol

from zray.testing.world.clock import Clock
from zray.testing.world.shared_store import Answer, KeepAlive, Request, SharedStore, Transact

Done = Callable[[Answer | None], None]
ATTEMPT_S = 0.5  # until another member is asked


class Asker(Protocol):
    """The process that asks; one that is stopped reads answers later."""

    name: str
    alive: bool
    frozen_until: float


class Weather:
    """How well the store is reached by everybody.

    Attributes:
        latency_s, commit_s: mean times of a message on the way, and of a change.
        lost: how many messages do not arrive, of questions and answers alike.
        slow_until, slow_s: until when answers to changes and renewals take up to so much longer.
    """

    def __init__(self, latency_s: float, commit_s: float, lost: float = 0.0) -> None:
        self.latency_s = latency_s
        self.commit_s = commit_s
        self.lost = lost
        self.slow_until = 0.0
        self.slow_s = 0.0


class StoreLink:
    """``cut``: nothing passes."""

    def __init__(
        self, asker: Asker, clock: Clock, random: Random, store: SharedStore, weather: Weather
    ) -> None:
        self.cut = False
        self.clock = clock
        self.random = random
        self.store = store
        self.weather = weather
        self._asker = asker

    def ask(self, request: Request, within_s: float, done: Done) -> None:
        """``done`` gets the answer, once; or None when the time is over."""
        _Question(self, request, self.clock.now + within_s, done).attempt()

    def when_awake(self, action: Callable[[], None]) -> None:
        """Do it now, or when the process goes on; never if it has ended."""
        wakes_at = self._asker.frozen_until
        if not self._asker.alive:
            return
        if self.clock.now < wakes_at:
            self.clock.at(wakes_at + self.random.uniform(0.0, 0.002), self.when_awake, action)
        else:
            action()


class _Question:
    """One request, asked until it is answered."""

    def __init__(self, link: StoreLink, request: Request, deadline: float, done: Done) -> None:
        self._link = link
        self._request = request
        self._deadline = deadline
        self._done = done
        self._over = False
        link.clock.at(deadline, link.when_awake, self._give_up)

    def attempt(self) -> None:
        link = self._link
        if self._over:
            return
        if not self._is_lost():
            link.clock.after(self._delay(), self._reach)
        link.clock.after(ATTEMPT_S, link.when_awake, self.attempt)

    def _is_lost(self) -> bool:
        return self._link.cut or self._link.random.random() < self._link.weather.lost

    def _delay(self) -> float:
        link, weather = self._link, self._link.weather
        return weather.latency_s * link.random.uniform(0.5, 2.0)

    def _reach(self) -> None:
        """The question is there; what is asked is carried out after a while, answered or not."""
        link, weather = self._link, self._link.weather
        took = self._delay()
        if isinstance(self._request, Transact):
            took += weather.commit_s * link.random.uniform(0.3, 2.0)
        slow = isinstance(self._request, Transact | KeepAlive)
        slow = slow and link.clock.now < weather.slow_until
        more = link.random.uniform(0.0, weather.slow_s) if slow else 0.0
        before = more * link.random.random()  # until it is carried out; the rest is the answer's
        link.clock.after(took + before, self._carry_out, more - before)

    def _carry_out(self, answer_s: float) -> None:
        link = self._link
        if not link.store.quorum:
            link.store.park(lambda: self._carry_out(answer_s))
            return
        answer = link.store.execute(self._request)
        if not self._is_lost():
            link.clock.after(self._delay() + answer_s, self._arrived, answer)

    def _arrived(self, answer: Answer) -> None:
        """It is there; a process that is stopped reads it later."""
        if not self._link.cut:
            self._link.when_awake(partial(self._answered, answer))

    def _answered(self, answer: Answer) -> None:
        if not self._over:
            self._over = True
            self._done(answer)

    def _give_up(self) -> None:
        if not self._over:
            self._over = True
            self._done(None)
