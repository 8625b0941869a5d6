"""Troubles at random, one or two at once, while programs work; each with its history.

After each trouble every process runs that was not ended, all nodes are members, one head leads and
the others stand by, and the programs go on. In the end every result was right, every numbered call
has run once, and nothing is left of the work.
"""

from __future__ import annotations

import json
import random
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.failover.testbed import Event, Testbed
from tests.failover.travellers import PROGRAMS, WHAT, Travellers
from tests.failover.troubles import LONG, OF_MEMBERS, TROUBLES, Spans

AT_REST_S = 10.0
PROGRESS_S = 200.0


def befall(
    bed: Testbed, chosen: list[str], chance: random.Random, spans: Spans, gap_s: float = 2.0
) -> list[str]:
    """Let these troubles befall it at once; which of them could not do what they do, and why."""
    running = {}
    with ThreadPoolExecutor(len(chosen)) as pool:
        for name in chosen:
            own = random.Random(chance.randrange(1 << 30))
            running[name] = pool.submit(TROUBLES[name], bed, own, spans)
            time.sleep(chance.uniform(0, gap_s))
    errors = {name: future.exception() for name, future in running.items()}
    return [
        f"{name}: {''.join(traceback.format_exception(error))}"
        for name, error in errors.items()
        if error is not None
    ]


class Campaign:
    def __init__(
        self,
        home: Path,
        notes: Path,
        seed: int,
        *,
        spans: Spans = LONG,
        say: Callable[[str], object] = print,
    ) -> None:
        self.seed = seed
        self.spans = spans
        self.chance = random.Random(seed)
        self.say = say
        self.notes = notes
        self.rounds = 0
        self.bed = Testbed(home)
        self.travellers = Travellers(self.bed, notes)
        self._deck: list[str] = []
        self._waits: dict[str, list[float]] = {}  # for a change, by what befell the leader

    # ---- rounds --------------------------------------------------------------------------------

    def play(self, seconds: float) -> None:
        """Rounds for so long; raises AssertionError for what is wrong."""
        self.travellers.await_start()
        self.say(f"seed {self.seed}; ROUND, SECONDS until all was well | troubles")
        self.say("    what was done; then what came next, in seconds from there:")
        self.say("    a change that was acknowledged, a task's result, an actor's answer")
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self.round()
        self.finish()

    def deal(self) -> list[str]:
        """One trouble or two; each comes once before any comes again."""
        chosen: list[str] = []
        for _ in range(self.chance.choice((1, 1, 2))):
            if not self._deck:
                self._deck = self.chance.sample(sorted(TROUBLES), len(TROUBLES))
            at = 0
            if chosen and chosen[0] in OF_MEMBERS:
                at = next((i for i, name in enumerate(self._deck) if name not in OF_MEMBERS), -1)
            if at >= 0:
                chosen.append(self._deck.pop(at))
        return chosen

    def round(self) -> None:
        self.rounds += 1
        chosen = self.deal()
        began, first = time.monotonic(), len(self.bed.events)
        failures = befall(self.bed, chosen, self.chance, self.spans)
        healed = time.monotonic()
        try:
            self.bed.settle()
            self._await_progress(healed)
            self.travellers.check()
        except AssertionError as error:
            failures.append(str(error))
        self.say(f"{self.rounds:4} {time.monotonic() - began:5.0f} s | {', '.join(chosen)}")
        for event in self.bed.events[first:]:
            self.say(self._history(event, began))
        assert not failures, "\n".join([f"round {self.rounds} of seed {self.seed}:", *failures])

    # ---- programs ------------------------------------------------------------------------------

    def _await_progress(self, since: float) -> None:
        """Until every kind of thing was begun and done since then, by each program."""

        def probe() -> str:
            self.travellers.check()
            missing = [what for what in WHAT if self.travellers.next_s(what, since) is None]
            return f"nothing done: {missing}" if missing else ""

        self.bed.await_nothing(probe, PROGRESS_S)

    def _history(self, event: Event, began: float) -> str:
        waits = [self.travellers.next_s(what, event.at_s) for what in WHAT]
        if event.of_leader and waits[0] is not None:
            self._waits.setdefault(event.what.partition(" (leads) ")[2], []).append(waits[0])
        text = "  ".join("-" if wait is None else f"{wait:.2f}" for wait in waits)
        return f"    {event.at_s - began:6.1f} s  {event.what}: {text}"

    # ---- end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let the programs end, and see that all was right and nothing is left."""
        self.travellers.stop()
        self.bed.await_nothing(self.bed.unrest, AT_REST_S)
        summaries = {name: self._summary(name) for name in PROGRAMS}
        for name, summary in summaries.items():
            excused = self.bed.nodes_killed or not summary["excused"]
            assert excused, f"{name} had failures, and no node was killed: {summary}"
        self.say("a change that was acknowledged came after (median, worst of how many), seconds:")
        for what, waits in sorted(self._waits.items()):
            middle, worst = statistics.median(waits), max(waits)
            self.say(f"{middle:8.2f} {worst:6.2f} {len(waits):4}  the leader {what}")
        self.say(f"{self.rounds} rounds, all right: {summaries}")
        self.say(f"memory: {', '.join(self._memory())}")
        self.bed.stop()

    def _summary(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.notes / f"{name}.json").read_text())
        return found

    def _memory(self) -> Iterator[str]:
        for daemon in self.bed.daemons():
            yield f"{daemon.name} {psutil.Process(daemon.pid).memory_info().rss / 1e6:.0f} MB"

    def close(self) -> None:
        self.bed.close()
