"""One look at the cluster a second for all viewers together, and the last minutes of it.

It looks only while somebody does. Viewers are told the latest: one that is slow misses what was in
between, and costs no memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from zray.dashboard import figures, http_limits
from zray.dashboard.events import server_event, to_json
from zray.dashboard.figures import Sample
from zray.dashboard.problems import Problem, problem_of
from zray.dashboard.service import Service
from zray.errors import StateQueryError
from zray.nodes.driver.operator import Operator
from zray.protocol import messages as m
from zray.util.state.records import ClusterEventState

EVENTS_KEPT_MAX = 200
EVENTS_TOLD_MAX = 50  # to one viewer at a time
EVENTS_ASKED_MAX = 100  # of the head at a time


class Sampler:
    """``history``: samples of the last minutes, the oldest first."""

    def __init__(self, service: Service) -> None:
        self._service = service
        service.away = self.away
        self.history: deque[Sample] = deque(maxlen=http_limits.LIVE_SAMPLES_MAX)
        self.number = 0  # of the latest sample
        self.event_number = 0  # of the latest event that is known here
        self._latest: dict[str, Any] = {}
        self._shared = b"{}"
        self._problem: Problem | None = None
        self._events: deque[ClusterEventState] = deque(maxlen=EVENTS_KEPT_MAX)
        self._events_at = -1  # the head's number of the last event; below 0: not known yet
        self._seen: dict[str, Any] = {}
        self._changed: dict[str, int] = {}  # kind of things -> number of the sample that shows it
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()

    # ---- looking ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Look as long as the process lives."""
        while True:
            if not self._service.viewers.taken:
                self._wanted.clear()
                await self._wanted.wait()
            began = time.monotonic()
            await self._look()
            self._shared = to_json(self._told_to_all())
            self.number += 1
            self._news.set()
            self._news = asyncio.Event()
            took = time.monotonic() - began
            # A head that takes long is asked less often.
            await asyncio.sleep(max(http_limits.LIVE_S - took, took / 2))

    async def _look(self) -> None:
        try:
            status, listed = await self._service.sample(self._ask)
        except Exception as error:
            self._problem = problem_of(error)
            if self.history and self.history[-1]["up"]:
                self.history.append({**self.history[-1], "t": round(time.time(), 3), "up": False})
            return
        self._problem = None
        now_s = time.time()
        before = self.history[-1] if self.history else None
        self.history.append(figures.sample_of(status, now_s, before))
        kinds, self._seen = figures.changed(status, self._seen)
        self._changed |= dict.fromkeys(kinds, self.number + 1)
        self._latest = figures.details_of(status)
        self._take_events(listed)

    def _ask(self, operator: Operator) -> tuple[m.Status, m.Listed | None]:
        """In a thread: the status, and what has happened if anything has."""
        question = m.Query(0, m.STATUS)
        status = operator.ask(question, m.Status, http_limits.LIVE_PATIENCE_S)
        there = dict(status.counters).get("events", 0)
        if there == self._events_at:
            return status, None
        try:
            listed = operator.page(m.EVENTS, limit=EVENTS_ASKED_MAX)
        except StateQueryError:  # too many others ask: the next time, then
            return status, None
        self._events_at = there
        return status, listed

    def _take_events(self, listed: m.Listed | None) -> None:
        rows = listed.events if listed is not None else []
        if rows and rows[0].number < self.event_number:  # another head
            self._events.clear()
            self.event_number = 0
        for row in reversed(rows):
            if row.number > self.event_number:
                self._events.append(ClusterEventState.of(row))
                self.event_number = row.number

    # ---- telling ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Somebody looks on from now on."""
        self._wanted.set()

    async def after(self, number: int, timeout_s: float) -> bool:
        """Wait for a later sample than that; whether there is one."""
        if self.number > number:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def overview(self, number: int, event_number: int) -> bytes:
        """What a viewer is told now that knows samples and events up to these numbers."""
        events = [one for one in self._events if int(one.event_id) > event_number]
        told = events[-EVENTS_TOLD_MAX:]
        missed = 0
        if event_number and told:
            missed = max(0, int(told[0].event_id) - event_number - 1)
        own = {
            "changed": [kind for kind, at in self._changed.items() if at > number],
            "events": [one.asdict() for one in told],
            "events_missed": missed,
            "viewers": self._service.viewers.taken,
        }
        return server_event("overview", self._shared, own)

    def _told_to_all(self) -> dict[str, Any]:
        """What is the same for all viewers: it is written once."""
        problem = self._problem
        head = {"age_s": self._service.age_s(), "code": "", "text": "", "next": ""}
        if problem is not None:
            head |= {"code": problem.code, "text": problem.message, "next": problem.next_step}
        latest = self.history[-1] if self.history else {"t": round(time.time(), 3), "up": False}
        details: dict[str, Any] = {"health": "", "queue": [], "node_figures": []}
        return {**latest, **details, **self._latest, "head": head}

    def away(self) -> Problem | None:
        """Why there is no use in asking the head now: it has just not answered the sampler."""
        problem = self._problem
        if problem is None or problem.status < 503 or not self._service.viewers.taken:
            return None
        said = (problem.message, problem.effect, problem.next_step, problem.headers)
        again = Problem(problem.status, problem.code, *said)
        again.age_s = self._service.age_s()
        return again
