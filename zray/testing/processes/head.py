"""The simulated shell of a head around the shipped machines. Decides nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

from zray.core.head.gcs import Gcs
from zray.core.head.identity import HeadIdentity
from zray.protocol import codec
from zray.store.base import Rows
from zray.store.memory import MemoryStore
from zray.testing.processes.process import VERSIONS, Fatal, Scene, SimProcess
from zray.testing.world.network import in_words

CLUSTER_ID = b"simulated-cluste"
USER = "user"
PROBE_S = 0.25


class SimHead(SimProcess):
    """One head process. ``gcs``: while it leads."""

    gcs: Gcs

    def __init__(self, scene: Scene, name: str) -> None:
        super().__init__(scene, name)
        self._inbox: deque[tuple[bytes, bytes | None]] = deque()
        self._probe_at = self.clock.now

    def serve(self, epoch: int, rows: Rows, started_s: float, head_id: bytes = b"") -> None:
        """It leads from now on."""
        identity = HeadIdentity(CLUSTER_ID, epoch, VERSIONS, started_s, head_id)
        self.gcs = Gcs(identity, rows, self.clock.now, Fatal())
        self.clock.tell(f"{self.name} starts, epoch {epoch}")
        self.wake()

    # ---- network ---------------------------------------------------------------------------

    def arrived(self, route: bytes, payload: bytes) -> None:
        """A payload came in."""
        self._inbox.append((route, payload))
        self.wake()

    def lost(self, route: bytes) -> None:
        """The monitor says that a connection is cut; it is no part of that connection's order."""
        if self.world.random.random() < 0.3:
            self._inbox.appendleft((route, None))
        else:
            self._inbox.append((route, None))
        self.wake()

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, settle, persist, send."""
        now = self.clock.now
        for _ in range(min(len(self._inbox), self.world.drain_max)):
            route, data = self._inbox.popleft()
            if data is None:
                self.gcs.sessions.link_lost(route, now)
            else:
                self.gcs.controller.receive(route, USER, self._read(route, data), now)
        self._probe(now)
        self._persist()
        self.gcs.turn.settle(now)
        while self.gcs.journal and self._persist():
            self.gcs.turn.settle(now)
        self._send()
        if self._inbox:
            self.wake()

    def _read(self, route: bytes, data: bytes) -> codec.Payload:
        payload = codec.decode(data)
        name = self.world.network.name_of(route)
        if words := in_words(payload):
            self.clock.tell(f"{self.name} <- {name}: {words}", data)
        return payload

    def _send(self) -> None:
        for route, messages in self.gcs.routed.take().items():
            unsent: list[codec.Unsent] = []
            for data in codec.encode(self.gcs.epoch, messages, unsent):
                if not self.world.network.down(route, data):
                    self.gcs.sessions.link_lost(route, self.clock.now)
            if unsent:
                self.gcs.too_large(route, unsent)
                self.wake()

    @abstractmethod
    def _persist(self) -> bool:
        """Hand new rows to the store and take what is durable; whether there was any."""

    def serving(self) -> int:
        """The epoch that it serves just now; 0: none."""
        return self.gcs.epoch if self.alive else 0

    @abstractmethod
    def durable(self) -> Rows:
        """What has become durable, for judges; theirs to read."""

    def _probe(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = now + PROBE_S
        for node in self.gcs.members.suspects():
            refused = self.world.refuses(node.process_id)
            if refused is not None:
                self.gcs.members.probed(node.process_id, refused, now)

    def deadline(self) -> float:
        """The machine's own, and the next look at suspects' ports."""
        due = self.gcs.turn.deadline()
        return min(due, self._probe_at) if self.gcs.members.suspects() else due

    def die(self) -> None:
        """SIGKILL: what was not durable is lost."""
        self.alive = False
        self.world.network.refuse(self)


class SimOnlyHead(SimHead):
    """The head of a cluster that has one, with a store of its own, from its start to its death."""

    def __init__(self, scene: Scene, store: MemoryStore) -> None:
        super().__init__(scene, "head")
        self.store = store
        self.usurped = False  # another head has the store: nothing gets durable here any more
        opened = store.open()
        if opened.cluster_id is None:
            store.set_cluster_id(CLUSTER_ID)
        self.world.network.head = self
        self.serve(opened.epoch, opened.rows, self.clock.now)

    def _persist(self) -> bool:
        journal = self.gcs.journal.take()
        if self.usurped:
            return False
        for token, rows in journal:
            self.store.submit(token, rows)
            self.clock.after(self.world.commit_delay(), self._commit)
        completed = self.store.completed()
        for token in completed:
            self.gcs.turn.committed(token, self.clock.now)
        return bool(completed)

    def durable(self) -> Rows:
        """As ``SimHead.durable``."""
        return self.store._rows

    def _commit(self) -> None:
        if self.alive and not self.usurped and self.store.commit(1):
            self.wake()
