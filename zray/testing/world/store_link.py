"""One process's way to the shared store: delays, losses, and whom it does not reach.

An answer that does not come says nothing: what was asked may be carried out, later too, or twice.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zray.testing.world.clock import Clock
from zray.testing.world.shared_store import Answer, KeepAlive, Request, SharedStore, Transact

Done = Callable[[Answer | None], None]
ATTEMPT_S = 2.0  # until another member is asked
PAUSE_S = 0.1  # until the next attempt, where nobody can be asked


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
    """``cut``: nothing passes. ``alive``: whether the process that asks still runs."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        random: Random,
        store: SharedStore,
        weather: Weather,
        alive: Callable[[], bool],
    ) -> None:
        self.cut = False
        self._name = name
        self._clock = clock
        self._random = random
        self._store = store
        self._weather = weather
        self._alive = alive

    def ask(self, request: Request, within_s: float, done: Done) -> None:
        """``done`` gets the answer, once; or None when the time is over."""
        _Question(self, request, self._clock.now + within_s, done).attempt()


class _Question:
    """One request, asked until it is answered."""

    def __init__(self, link: StoreLink, request: Request, deadline: float, done: Done) -> None:
        self._link = link
        self._request = request
        self._deadline = deadline
        self._done = done
        self._over = False
        self._attempts = 0
        link._clock.at(deadline, self._give_up)

    def attempt(self) -> None:
        link = self._link
        if self._over or not link._alive():
            return
        self._attempts += 1
        if not self._is_lost():
            link._clock.after(self._delay(), self._arrive, self._attempts)
        link._clock.after(ATTEMPT_S, self.attempt)

    def _is_lost(self) -> bool:
        return self._link.cut or self._link._random.random() < self._link._weather.lost

    def _delay(self) -> float:
        link, weather = self._link, self._link._weather
        return weather.latency_s * link._random.uniform(0.5, 2.0)

    def _arrive(self, attempt: int) -> None:
        """The question is there; what is asked is carried out after a while, answered or not."""
        link, weather = self._link, self._link._weather
        took = self._delay()
        if isinstance(self._request, Transact):
            took += weather.commit_s * link._random.uniform(0.3, 2.0)
        slow = isinstance(self._request, Transact | KeepAlive)
        slow = slow and link._clock.now < weather.slow_until
        more = link._random.uniform(0.0, weather.slow_s) if slow else 0.0
        before = more * link._random.random()  # until it is carried out; the rest is the answer's
        link._clock.after(took + before, self._carry_out, more - before)

    def _carry_out(self, answer_s: float) -> None:
        link = self._link
        if not link._store.quorum:
            link._store.park(lambda: self._carry_out(answer_s))
            return
        answer = link._store.execute(self._request)
        if not self._is_lost():
            link._clock.after(self._delay() + answer_s, self._answered, answer)

    def _answered(self, answer: Answer) -> None:
        if not self._over and not self._link.cut:
            self._over = True
            if self._link._alive():
                self._done(answer)

    def _give_up(self) -> None:
        if not self._over:
            self._over = True
            if self._link._alive():
                self._done(None)
