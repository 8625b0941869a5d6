"""The programs that work on while heads come and go: one on a node, one on a machine without any.

Owns their processes and what they wrote down; must never decide what befalls the cluster.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.failover.testbed import FAR, Testbed

PROGRAMS = ("near", "far")
WHAT = ("change", "task", "call")
START_S = 60.0
SILENT_S = 200.0  # a program that says nothing for so long waits for something that hangs
TAIL_BYTES = 256 << 10  # of what is written down: some minutes


class Travellers:
    """``how``: as `tests.failover.program` takes it."""

    def __init__(self, bed: Testbed, notes: Path, *how: str) -> None:
        self._notes = notes
        module, folder = "tests.failover.program", str(notes)
        self.programs = [
            bed.start_program("near", "n0", module, "near", folder, *how),
            bed.start_program("far", FAR, module, "far", folder, "far", *how),
        ]

    def await_start(self) -> None:
        for program in self.programs:
            program.says("round 1", START_S)

    def check(self) -> None:
        """Raises AssertionError where one has ended or says nothing any more."""
        for program in self.programs:
            assert program.runs(), f"{program.name} has ended:\n{program.text()[-3000:]}"
            silent_s = time.time() - os.stat(program.log).st_mtime
            assert silent_s < SILENT_S, f"{program.name} is silent for {silent_s:.0f} s"

    def stop(self) -> None:
        """Let them check all and end."""
        (self._notes / "stop").touch()
        for program in self.programs:
            status = program.wait(SILENT_S)
            assert status == 0, f"{program.name} ended with {status}:\n{program.text()[-3000:]}"

    def times(self, program: str, what: str) -> list[tuple[float, float]]:
        """When each of the last ones began and ended."""
        path = self._notes / f"{program}-{what}"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode().split("\n")[:-1]
        pairs = [line.split() for line in lines]
        return [(float(pair[0]), float(pair[1])) for pair in pairs if len(pair) == 2]

    def next_s(self, what: str, after_s: float) -> float | None:
        """From then until the first that began later was done, in the slower program.

        None: not yet. ``after_s``: by the monotonic clock, some minutes ago at most.
        """
        waits = []
        for program in PROGRAMS:
            ended = [end - after_s for began, end in self.times(program, what) if began >= after_s]
            if not ended:
                return None
            waits.append(ended[0])
        return max(waits)
