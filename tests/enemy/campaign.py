"""Rounds of loads and blows at random against one cluster, with a witness that works all along.

A gentle round has blows after which nothing may fail; in a rough one processes are killed. After
each, every daemon is alive and of a moderate size, every node is a member, and every load has ended
as it should. In the end nothing of any job is left.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.enemy.besieged import Besieged
from tests.enemy.blows import GENTLE, LIARS, ROUGH
from tests.enemy.loads import LOADS
from tests.real_cluster import Program

LOAD_S = 400.0
SILENT_S = 200.0  # a witness that says nothing for so long waits for something that hangs


class Campaign:
    def __init__(
        self, home: Path, notes: Path, seed: int, say: Callable[[str], object] = print
    ) -> None:
        """``home`` may be a disk that is filled; what attackers and witness write is not on it."""
        self.seed = seed
        self.chance = random.Random(seed)
        self.say = say
        self.notes = notes
        self.can_fill_disk = os.path.ismount(home)
        self.besieged = Besieged(home)
        self.witness = self._program("witness", "tests.enemy.witness", str(notes))
        self.rounds = 0
        self.lied = False

    def _program(self, name: str, module: str, *arguments: str, rough: bool = False) -> Program:
        given = {"ZRAY_ADDRESS": self.besieged.cluster.address}
        if rough:
            given["ZRAY_ENEMY_ROUGH"] = "1"
        command = [sys.executable, "-m", module, *arguments]
        program = Program(name, self.notes / f"{name}.out", command, given)
        self.besieged.cluster.programs.append(program)
        return program

    # ---- rounds --------------------------------------------------------------------------------

    def play(self, seconds: float) -> None:
        """Rounds for so long; raises AssertionError for what is wrong."""
        self.witness.says("round 1")
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self.round()
        (self.notes / "stop").touch()
        assert self.witness.wait(SILENT_S) == 0, self.witness.text()
        cluster = self.besieged.cluster
        cluster.until(cluster.at_rest, 60, f"nothing is left to do: {cluster.status()}")
        if not self.lied:
            cluster.until(lambda: not cluster.status().objects, 60, "all is freed")
        self.say(f"{self.rounds} rounds, witness: {self.witness.text().splitlines()[-1]}")

    def round(self) -> None:
        self.rounds += 1
        rough = self.chance.random() < 0.5
        chosen = self.chance.sample(sorted(LOADS), self.chance.choice((1, 2, 2, 3)))
        kinds = ROUGH if rough else GENTLE
        possible = sorted(set(kinds) - ({"a_full_disk"} if not self.can_fill_disk else set()))
        blows = self.chance.sample(possible, self.chance.choice((1, 1, 2)))
        self.lied = self.lied or not LIARS.isdisjoint(blows)
        seed = self.chance.randrange(1 << 30)
        text = str(seed)
        began = time.monotonic()
        loads = [
            self._program(f"{self.rounds}-{name}", "tests.enemy.loads", name, text, rough=rough)
            for name in chosen
        ]
        failures: list[str] = []
        for place, name in enumerate(blows):
            time.sleep(self.chance.uniform(0, 3))
            try:
                kinds[name](self.besieged, random.Random(seed + place))
            except Exception:
                failures.append(f"{name}: {traceback.format_exc()}")
        failures += self._ends(loads)
        try:
            self.besieged.settle()
        except AssertionError as error:
            failures.append(str(error))
        failures += self._of_witness()
        took = time.monotonic() - began
        excused = sum("EXCUSED" in program.text() for program in loads)
        kind = "rough" if rough else "gentle"
        self.say(
            f"{self.rounds:4} {kind:6} {took:5.0f} s  {', '.join(chosen)} | {', '.join(blows)}"
            f"{f' ({excused} excused)' if excused else ''}"
        )
        assert not failures, "\n".join([f"round {self.rounds} of seed {self.seed}:", *failures])

    def _ends(self, loads: list[Program]) -> list[str]:
        """What is wrong with how they ended."""
        deadline = time.monotonic() + LOAD_S
        found = []
        for program in loads:
            try:
                status = program.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                found.append(str(error))
                program.kill()
                continue
            if status:
                found.append(f"{program.name} ended with {status}:\n{program.text()[-3000:]}")
        return found

    def _of_witness(self) -> list[str]:
        if self.witness.process.poll() is not None:
            return [f"the witness has ended:\n{self.witness.text()[-3000:]}"]
        silent_s = time.time() - os.stat(self.witness.log).st_mtime
        return [f"the witness is silent for {silent_s:.0f} s"] if silent_s > SILENT_S else []

    def close(self) -> None:
        self.besieged.cluster.close()
