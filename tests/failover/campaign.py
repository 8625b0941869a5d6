"""Troubles at random, one or two at once, while programs work; each with its history.

After each trouble every process runs that was not ended, all nodes are members, one head leads and
the others stand by, and the programs go on. In the end every result was right, every numbered call
has run once, and nothing is left of the work.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.failover.testbed import FAR, Event, Testbed
from tests.failover.troubles import LONG, OF_MEMBERS, TROUBLES, Spans

SILENT_S = 200.0  # a program that says nothing for so long waits for something that hangs
AT_REST_S = 10.0
WHAT = ("change", "task", "call")


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
        module = "tests.failover.program"
        start = self.bed.start_program
        self.programs = {
            "near": start("near", "n0", module, "near", str(notes)),
            "far": start("far", FAR, module, "far", str(notes), "--far"),
        }
        self._deck: list[str] = []
        self._seen: dict[str, list[tuple[float, float]]] = {}

    # ---- rounds --------------------------------------------------------------------------------

    def play(self, seconds: float) -> None:
        """Rounds for so long; raises AssertionError for what is wrong."""
        for program in self.programs.values():
            program.says("round 1", 60)
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
        failures: list[str] = []
        with ThreadPoolExecutor(len(chosen)) as pool:
            running = {}
            for name in chosen:
                chance = random.Random(self.chance.randrange(1 << 30))
                running[name] = pool.submit(TROUBLES[name], self.bed, chance, self.spans)
                time.sleep(self.chance.uniform(0, 2))
            for name, future in running.items():
                error = future.exception()
                if error is not None:
                    failures.append(f"{name}: {''.join(traceback.format_exception(error))}")
        healed = time.monotonic()
        try:
            self.bed.settle()
            self._await_progress(healed)
        except AssertionError as error:
            failures.append(str(error))
        failures += self._of_programs()
        self.say(f"{self.rounds:4} {time.monotonic() - began:5.0f} s | {', '.join(chosen)}")
        for event in self.bed.events[first:]:
            self.say(self._history(event, began))
        assert not failures, "\n".join([f"round {self.rounds} of seed {self.seed}:", *failures])

    # ---- programs ------------------------------------------------------------------------------

    def times(self, program: str, what: str) -> list[tuple[float, float]]:
        """When each began and ended."""
        path = self.notes / f"{program}-{what}"
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            began, _, ended = line.partition(" ")
            if ended:
                found.append((float(began), float(ended)))
        return found

    def next_s(self, what: str, after_s: float) -> float | None:
        """How long it took from then until the first that began later was done, for the slowest."""
        waits = []
        for program in self.programs:
            ended = [e - after_s for b, e in self.times(program, what) if b >= after_s]
            if not ended:
                return None
            waits.append(ended[0])
        return max(waits)

    def _await_progress(self, since: float) -> None:
        """Until every kind of thing was begun and done since then, by each program."""

        def probe() -> str:
            if died := self._died():
                raise AssertionError(died)
            missing = [what for what in WHAT if self.next_s(what, since) is None]
            return f"nothing done: {missing}" if missing else ""

        self.bed.await_nothing(probe, SILENT_S)

    def _history(self, event: Event, began: float) -> str:
        waits = [self.next_s(what, event.at_s) for what in WHAT]
        text = "  ".join("-" if wait is None else f"{wait:.2f}" for wait in waits)
        return f"    {event.at_s - began:6.1f} s  {event.what}: {text}"

    def _died(self) -> str:
        for program in self.programs.values():
            if not program.runs():
                return f"{program.name} has ended:\n{program.text()[-3000:]}"
        return ""

    def _of_programs(self) -> list[str]:
        if died := self._died():
            return [died]
        return [
            f"{program.name} is silent for {silent_s:.0f} s"
            for program in self.programs.values()
            if (silent_s := time.time() - os.stat(program.log).st_mtime) > SILENT_S
        ]

    # ---- end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let the programs end, and see that all was right and nothing is left."""
        (self.notes / "stop").touch()
        for program in self.programs.values():
            assert program.wait(SILENT_S) == 0, f"{program.name}:\n{program.text()[-3000:]}"
        self.bed.await_nothing(self.bed.unrest, AT_REST_S)
        summaries = {name: self._summary(name) for name in self.programs}
        for name, summary in summaries.items():
            excused = self.bed.nodes_killed or not summary["excused"]
            assert excused, f"{name} had failures, and no node was killed: {summary}"
        self.say(f"{self.rounds} rounds, all right: {summaries}")
        self.say(f"memory: {', '.join(self._memory())}")

    def _summary(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.notes / f"{name}.json").read_text())
        return found

    def _memory(self) -> Iterator[str]:
        for daemon in self.bed.daemons():
            yield f"{daemon.name} {psutil.Process(daemon.pid).memory_info().rss / 1e6:.0f} MB"

    def close(self) -> None:
        self.bed.close()
