"""Failed attempts of a worker that its node is to keep: how many, and until that is told."""

from __future__ import annotations

from zray import limits
from zray.protocol import messages as m


class KeptRuns:
    """Of one worker. Failures that come faster than a node could want them are not kept."""

    def __init__(self) -> None:
        self._untold: list[m.KeepRun] = []
        self._bytes = 0
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

    def add(self, message: m.KeepRun) -> bool:
        """One is to be told of; True: now, since they take much."""
        self._untold.append(message)
        self._bytes += len(message.data) + len(message.function)
        return self._bytes > limits.REPLAY_UNTOLD_BYTES

    def take(self) -> list[m.KeepRun]:
        """What is to be told of; whoever takes it does that."""
        taken, self._untold, self._bytes = self._untold, [], 0
        return taken
