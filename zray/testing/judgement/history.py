"""What heads have decided and what was done to the cluster: it may explain an error."""

from __future__ import annotations

from zray.testing.processes.head import SimHead
from zray.testing.processes.worker import SimWorker
from zray.testing.world.clock import Clock
from zray.testing.world.errors import ACTOR_UNAVAILABLE


class History:
    """``rebuilt``: tasks that ran again because their results were lost."""

    def __init__(self, clock: Clock) -> None:
        self.fenced_rows: dict[bytes, tuple[int, bool]] = {}  # node -> incarnation, alive
        self.fenced_at: dict[tuple[bytes, int], float] = {}  # when a head has last decided so
        self.nodes_died = 0
        self.rebuilt: set[bytes] = set()
        self.excuses: set[str] = set()  # codes of errors that what happened so far explains
        self._clock = clock
        self._rows_seen: dict[bytes, tuple[int, bool]] = {}  # as this head knows them
        self._starts: list[float] = []  # of heads
        self._usurped: list[tuple[SimHead, int]] = []  # and the epochs that they served

    def head_started(self, head: SimHead) -> None:
        """A head has read the store."""
        rows = head.gcs.members.node_rows
        self._rows_seen = {key: (row.incarnation, row.alive) for key, row in rows.items()}
        self._starts.append(self._clock.now)

    def head_replaced(self, head: SimHead) -> None:
        """Another one has its store, and it goes on."""
        self._usurped.append((head, head.serving()))

    def head_turned(self, head: SimHead) -> None:
        """The head had a turn."""
        if head.gcs.counters["rebuilt"]:
            again = [key for key, task in head.gcs.tasks.items() if task.rebuilds]
            self.rebuilt.update(again)
        members = head.gcs.members
        if any(members.why_away(node_id) for node_id in (*members.nodes, *members.awaited)):
            self.excuse(ACTOR_UNAVAILABLE)  # whatever may not wait for those nodes
        for node_id, row in members.node_rows.items():
            self._note_row(node_id, row.incarnation, row.alive)

    def _note_row(self, node_id: bytes, incarnation: int, alive: bool) -> None:
        if (incarnation, not alive) >= self._row_key(node_id):
            self.fenced_rows[node_id] = incarnation, alive
        before, lived = seen = self._rows_seen.get(node_id, (incarnation, True))
        if lived and seen != (incarnation, alive):  # else this was decided before
            self.fenced_at[node_id, before] = self._clock.now
        self._rows_seen[node_id] = incarnation, alive

    def _row_key(self, node_id: bytes) -> tuple[int, bool]:
        incarnation, alive = self.fenced_rows.get(node_id, (0, True))
        return incarnation, not alive

    def fenced(self, node_id: bytes, incarnation: int) -> bool:
        """Whether a head has declared that incarnation dead."""
        known, alive = self.fenced_rows.get(node_id, (0, True))
        return incarnation < known or (incarnation == known and not alive)

    def counts(self, worker: SimWorker) -> bool:
        """Whether the cluster still believes in this worker's node."""
        raylet = worker.raylet
        return raylet.alive and not self.fenced(raylet.raylet.node_id, worker.incarnation)

    def restarts_since(self, when: float) -> int:
        """How many heads started after that time."""
        return sum(1 for start in self._starts[1:] if start >= when)

    def divided(self) -> bool:
        """Whether a head that another has replaced goes on, and what it hears dies with it."""
        return any(head.serving() == epoch for head, epoch in self._usurped)

    def excuse(self, *codes: str) -> None:
        """What is done now explains these errors."""
        self.excuses.update(codes)
