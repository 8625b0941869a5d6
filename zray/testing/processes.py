"""The simulated shells of head and raylet around the shipped machines. They decide nothing.

Each does what the real shell does: drain what arrived, handle it, settle once, send one batch per
peer. A process can be slow, frozen (SIGSTOP) or dead (SIGKILL).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zray import limits
from zray.core.head.gcs import Gcs
from zray.core.head.traffic_controller import TrafficController
from zray.core.incidents import Incidents
from zray.core.machine import NEVER
from zray.core.raylet.effects import FindProcess, StartWorker
from zray.core.raylet.raylet import HEAD, Raylet
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.store.memory import MemoryStore
from zray.testing.network import Link, in_words
from zray.testing.workers import SimWorker

if TYPE_CHECKING:
    from zray.testing.cluster import SimCluster

CLUSTER_ID = b"simulated-cluste"
VERSIONS = m.Versions("3.11", "0", "3")
USER = "user"
PROBE_S = 0.25


class Fatal(Incidents):
    """What a real daemon survives is a bug, and ends the simulation."""

    def record(self, what: str, whom: str, error: BaseException, now: float) -> str:
        """Raises what went wrong."""
        raise error


class SimProcess:
    """A process with turns: it wakes when something arrived or its deadline has come."""

    def __init__(self, cluster: SimCluster, name: str) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.name: str = name
        self.alive = True
        self.frozen_until = 0.0
        self.slowness = 1.0
        self._awake = False
        self._armed = NEVER

    def wake(self) -> None:
        """Have a turn soon."""
        if self.alive and not self._awake:
            self._awake = True
            self.clock.after(self.cluster.draw(2e-5, 2e-4) * self.slowness, self._run)

    def _run(self) -> None:
        if not self.alive:
            return
        if self.clock.now < self.frozen_until:
            self.clock.at(self.frozen_until, self._run)
            return
        self._awake = False
        self.turn()
        self.cluster.turned(self)
        if self.alive:
            self._arm(self.deadline())

    def _arm(self, due: float) -> None:
        due = max(due, self.clock.now + 1e-5)
        if due != self._armed and due < NEVER:
            self._armed = due
            self.clock.at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        if due == self._armed:
            self._armed = NEVER
            self.wake()

    def turn(self) -> None:
        """Do everything there is to do now."""
        raise NotImplementedError

    def deadline(self) -> float:
        """When there will be something to do although nothing arrives."""
        raise NotImplementedError


class SimHead(SimProcess):
    """One head process, from its start to its death."""

    def __init__(self, cluster: SimCluster, store: MemoryStore) -> None:
        super().__init__(cluster, "head")
        self.store = store
        self.usurped = False  # another head has the store: nothing gets durable here any more
        opened = store.open()
        if opened.cluster_id is None:
            store.set_cluster_id(CLUSTER_ID)
        now = self.clock.now
        self.gcs = Gcs(opened.epoch, opened.rows, now, Fatal())
        self.controller = TrafficController(self.gcs, CLUSTER_ID, VERSIONS, now, now)
        self._inbox: deque[tuple[bytes, bytes | None]] = deque()
        self._probe_at = now
        cluster.network.head = self
        self.clock.tell(f"head starts, epoch {opened.epoch}")
        self.wake()

    # ---- network ---------------------------------------------------------------------------

    def arrived(self, route: bytes, payload: bytes) -> None:
        """A payload came in."""
        self._inbox.append((route, payload))
        self.wake()

    def lost(self, route: bytes) -> None:
        """The monitor says that a connection is cut; it is no part of that connection's order."""
        if self.cluster.random.random() < 0.3:
            self._inbox.appendleft((route, None))
        else:
            self._inbox.append((route, None))
        self.wake()

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, settle, persist, send."""
        now = self.clock.now
        for _ in range(min(len(self._inbox), self.cluster.drain_max)):
            route, data = self._inbox.popleft()
            if data is None:
                self.controller.link_lost(route, now)
                continue
            payload = codec.decode(data)
            name = self.cluster.name_of(route)
            if words := in_words(payload):
                self.clock.tell(f"head <- {name}: {words}", data)
            self.controller.receive(route, USER, payload, now)
        self._probe(now)
        self._persist()
        self.controller.settle(now)
        while self.gcs.journal and self._persist():
            self.controller.settle(now)
        for route, messages in self.controller.outbox.take().items():
            unsent: list[codec.Unsent] = []
            for data in codec.encode(self.gcs.epoch, messages, unsent):
                if not self.cluster.network.down(route, data):
                    self.controller.link_lost(route, now)
            if unsent:
                self.controller.too_large(route, unsent, now)
                self.wake()
        if self._inbox:
            self.wake()

    def _persist(self) -> bool:
        journal = self.gcs.journal.take()
        if self.usurped:
            return False
        for token, rows in journal:
            self.store.submit(token, rows)
            self.clock.after(self.cluster.commit_delay(), self._commit)
        completed = self.store.completed()
        for token in completed:
            self.gcs.committed(token, self.clock.now)
        return bool(completed)

    def _commit(self) -> None:
        if self.alive and not self.usurped and self.store.commit(1):
            self.wake()

    def _probe(self, now: float) -> None:
        if now < self._probe_at:
            return
        self._probe_at = now + PROBE_S
        for node in self.gcs.members.suspects():
            refused = self.cluster.port_refuses(node.process_id)
            if refused is not None:
                self.gcs.members.probed(node.process_id, refused, now)

    def deadline(self) -> float:
        """The machine's own, and the next look at suspects' ports."""
        due = self.controller.deadline()
        return min(due, self._probe_at) if self.gcs.members.suspects() else due

    def die(self) -> None:
        """SIGKILL: what was not durable is lost."""
        self.alive = False
        self.cluster.network.refuse(self)


class SimPeer(SimProcess):
    """What raylet and driver shells share: the link to the head."""

    def __init__(self, cluster: SimCluster, name: str) -> None:
        super().__init__(cluster, name)
        self.link: Link | None = None
        self.heard = self.opened = self.clock.now
        self._arrivals: deque[tuple[Link, bytes | None]] = deque()
        self._retry_at = self.clock.now
        self._wait_s = limits.RECONNECT_FIRST_S

    def received(self, link: Link, payload: bytes) -> None:
        """A payload came in."""
        self._arrivals.append((link, payload))
        self.wake()

    def cut(self, link: Link) -> None:
        """The monitor says that the connection is cut."""
        self._arrivals.append((link, None))
        self.wake()

    def read(self) -> None:
        """Handle what the head sent; a cut ends the session after what came before it."""
        while self._arrivals:
            link, data = self._arrivals.popleft()
            if link is not self.link:
                continue
            if data is None:
                self.hang_up()
                continue
            self.heard = self.clock.now
            payload = codec.decode(data)
            if words := in_words(payload):
                self.clock.tell(f"{self.name} <- head: {words}", data)
            self.take(payload)
            if self.linked():
                self._wait_s = limits.RECONNECT_FIRST_S

    def tend(self) -> None:
        """Open, or give up, the link."""
        now = self.clock.now
        if self.link is None:
            if now >= self._retry_at:
                self.link = self.cluster.network.connect(self)
                self.opened = self.heard = now
                if self.link is None:
                    self.hang_up()
                else:
                    self.clock.tell(f"{self.name} connects ({self.link.route[5:].hex()})")
                    self.say_hello()
            return
        silent = self.linked() and now - self.heard > limits.DEAD_S
        unanswered = not self.linked() and now - self.opened > limits.CONNECT_TIMEOUT_S
        if silent or unanswered or self.refusal():
            self.hang_up()

    def hang_up(self) -> None:
        """End the session; the next is tried after a back-off."""
        link, self.link = self.link, None
        if link is not None and link.peer_open:
            self.cluster.network.close(link)
        self.forget_session()
        self._retry_at = self.clock.now + self._wait_s * self.cluster.draw(0.5, 1.0)
        self._wait_s = min(self._wait_s * 2, limits.RECONNECT_MAX_S)

    def transmit(self, epoch: int, messages: list[m.Message]) -> None:
        """One batch to the head."""
        if self.link is not None and messages:
            unsent: list[codec.Unsent] = []
            for data in codec.encode(epoch, messages, unsent):
                self.cluster.network.up(self.link, data)
            if unsent:
                self.too_large(unsent)
                self.wake()

    def link_deadline(self) -> float:
        """When ``tend`` has something to do."""
        if self.link is None:
            return self._retry_at
        if self.linked():
            return self.heard + limits.DEAD_S + 0.001
        return self.opened + limits.CONNECT_TIMEOUT_S + 0.001

    def end_link(self) -> None:
        """The process is dead: its connection with it."""
        self.alive = False
        if self.link is not None and self.link.peer_open:
            self.cluster.network.close(self.link)

    def take(self, payload: codec.Payload) -> None:
        """Hand a payload to the machine."""
        raise NotImplementedError

    def linked(self) -> bool:
        """Whether the machine has a session."""
        raise NotImplementedError

    def refusal(self) -> bool:
        """Whether the machine wants another session."""
        raise NotImplementedError

    def too_large(self, found: list[codec.Unsent]) -> None:
        """Tell the machine what is too large to be sent."""
        raise NotImplementedError

    def say_hello(self) -> None:
        """Send HELLO."""
        raise NotImplementedError

    def forget_session(self) -> None:
        """Tell the machine that the session is over."""
        raise NotImplementedError


class SimRaylet(SimPeer):
    """One raylet process with its workers."""

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        node_id: bytes,
        incarnation: int,
        resources: dict[str, int],
        machine: str,
    ) -> None:
        super().__init__(cluster, name)
        info = m.NodeInfo(
            *(name, "host-" + name, cluster.next_pid(), sorted(resources.items())),
            *([], machine, f"host-{name}:1"),
        )
        gpus = -(-resources.get("GPU", 0) // limits.RESOURCE_UNIT)
        ids = IdSource(cluster.random.randbytes(8))
        # Few workers on most nodes: the bound on them is met in every other seed.
        most = (None, 1, 2, 4)[(cluster.seed + len(cluster.raylets)) % 4]
        self.raylet = Raylet(
            *(node_id, info, VERSIONS, ids, gpus, incarnation), max_workers=most, incidents=Fatal()
        )
        self.workers: dict[bytes, SimWorker] = {}
        self._from_workers: deque[tuple[bytes, bytes]] = deque()
        self._exits: deque[tuple[bytes, int, str]] = deque()
        self.wake()

    # ---- workers ---------------------------------------------------------------------------

    def from_worker(self, worker_id: bytes, data: bytes) -> None:
        """A batch of a worker came in."""
        self._from_workers.append((worker_id, data))
        self.wake()

    def exited(self, worker_id: bytes, started: int, cause: str) -> None:
        """The zygote reaped a worker."""
        self._exits.append((worker_id, started, cause))
        self.wake()

    def _start(self, effect: StartWorker) -> None:
        worker = SimWorker(self.cluster, self, effect.worker_id, effect.key)
        self.workers[effect.worker_id] = worker
        self.cluster.clock.after(self.cluster.draw(0.001, 0.004), self._forked, worker)

    def _forked(self, worker: SimWorker) -> None:
        if self.alive and worker.alive:
            self.raylet.workers.started(worker.worker_id, worker.pid)
            worker.begin()

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, tend the link, settle, carry out, send."""
        now = self.clock.now
        self.read()
        while self._from_workers:
            worker_id, data = self._from_workers.popleft()
            payload = codec.decode(data)
            name = self.cluster.process_name(worker_id)
            self.clock.tell(f"{self.name} <- {name}: {in_words(payload)}", data)
            for message in payload.messages:
                self.raylet.worker_message(worker_id, message, now)
        while self._exits:
            worker_id, started, cause = self._exits.popleft()
            self.clock.tell(f"{self.name} reaps {self.cluster.process_name(worker_id)}: {cause}")
            self.workers.pop(worker_id, None)
            self.raylet.worker_exited(worker_id, started, cause, now)
        self.tend()
        self.raylet.settle(now)
        effects, self.raylet.effects = self.raylet.effects, []
        for effect in effects:
            if isinstance(effect, StartWorker):
                self._start(effect)
            elif isinstance(effect, FindProcess):
                if self.cluster.has_ended(effect.job_id):
                    self.raylet.driver_ended(effect.job_id)
            elif effect.worker_id in self.workers:
                self.workers[effect.worker_id].die("killed by its raylet")
        for peer, messages in self.raylet.outbox.take().items():
            if peer == HEAD:
                self.transmit(self.raylet.epoch, messages)
            elif peer in self.workers:
                self.workers[peer].send(messages)

    def ask_again(self) -> None:
        """Resend what is not acknowledged, unchanged."""
        machine = self.raylet
        messages: list[m.Message] = [*machine.completions.unacked.values()]
        for principal in machine.worker_requests.principals.values():
            specs = list(principal.unresolved.values())
            messages.append(m.Submit(0, principal.job_id, principal.worker_id, specs))
            if principal.actors:
                messages.append(m.ActorWatch(0, principal.worker_id, [*principal.actors]))
        self.transmit(machine.epoch, messages)

    def deadline(self) -> float:
        """The machine's own and the link's."""
        return min(self.raylet.deadline(), self.link_deadline())

    def die(self) -> None:
        """SIGKILL: its workers end with it."""
        self.end_link()
        for worker in [*self.workers.values()]:
            worker.vanish()

    # ---- SimPeer ---------------------------------------------------------------------------

    def take(self, payload: codec.Payload) -> None:
        """Hand a payload to the machine."""
        self.raylet.receive(payload, self.clock.now)

    def linked(self) -> bool:
        """Whether the machine has a session."""
        return self.raylet.linked

    def refusal(self) -> bool:
        """Whether the machine wants another session."""
        return self.raylet.refused is not None

    def too_large(self, found: list[codec.Unsent]) -> None:
        """Tell the machine what is too large to be sent."""
        self.raylet.too_large(found)

    def say_hello(self) -> None:
        """Send HELLO."""
        self.transmit(self.raylet.epoch, [self.raylet.hello()])

    def forget_session(self) -> None:
        """Tell the machine that the session is over."""
        self.raylet.disconnected(self.clock.now)
        self.raylet.refused = None
