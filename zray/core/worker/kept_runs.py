"""Failed attempts of a worker that its node is to keep: how many, and until that is told."""

from __future__ import annotations

from zray import limits
from zray.protocol import messages as m


class KeptRuns:
    """Of one worker. Failures that come faster than a node could want them are not kept."""

    def __init__(self) -> None:
        self._untold: list[m.KeepRun] = []
        self._room = float(limits.REPLAY_WORKER_RUNS)
        self._room_at = 0.0

    def admits(self, now: float) -> bool:
        """Whether one more is worth to be made; if so, it counts."""
        most = float(limits.REPLAY_WORKER_RUNS)
        earned = (now - self._room_at) * limits.REPLAY_WORKER_RUNS_PER_S
        self._room, self._room_at = min(most, self._room + earned), now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def add(self, message: m.KeepRun) -> None:
        """One is to be told of."""
        self._untold.append(message)

    def take(self) -> list[m.KeepRun]:
        """What is to be told of; whoever takes it does that."""
        taken, self._untold = self._untold, []
        return taken


def remembered(values: list[m.Outcome]) -> list[m.Outcome]:
    """What is kept of the values that a constructor was given, while its actor lives."""
    room, found = limits.REPLAY_CREATION_BYTES, []
    for value in values:
        if not value.kind & m.LOCATED and len(value.value) <= room:
            room -= len(value.value)
            found.append(value)
        else:
            kind = value.kind | m.LOCATED
            found.append(m.Outcome(value.object_id, kind, value.size, b"", value.contained))
    return found
