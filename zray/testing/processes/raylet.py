"""The simulated shell of a raylet around the shipped machine. Decides nothing."""

from __future__ import annotations

from collections import deque

from zray import limits
from zray.core.known_heads import KnownHeads
from zray.core.machine import NEVER
from zray.core.raylet.effects import (
    BuildPart,
    FindProcess,
    KillWorker,
    RemovePart,
    StartWorker,
)
from zray.core.raylet.head_session import HEAD
from zray.core.raylet.raylet import Raylet
from zray.ids import IdSource
from zray.protocol import codec
from zray.protocol import messages as m
from zray.testing.processes.builds import Builds
from zray.testing.processes.process import VERSIONS, Fatal, Scene, SimPeer
from zray.testing.processes.relay_links import RelayLinks
from zray.testing.processes.worker import SimWorker
from zray.testing.processes.workers import Workers
from zray.testing.world.network import in_words

LINGER_S = 0.5  # for so long its last words may still leave


class SimRaylet(SimPeer):
    """One raylet process with its workers. ``most``: workers at a time; None: without a bound."""

    def __init__(
        self,
        scene: Scene,
        workers: Workers[SimWorker],
        name: str,
        node_id: bytes,
        incarnation: int,
        resources: dict[str, int],
        machine: str,
        most: int | None,
    ) -> None:
        super().__init__(scene, name)
        world = scene.world
        info = m.NodeInfo(
            *(name, "host-" + name, world.next_pid(), sorted(resources.items())),
            *([("zone", "a" if "special" in resources else "b")], machine, f"host-{name}:1"),
        )
        self.labels = dict(info.labels)
        gpus = -(-resources.get("GPU", 0) // limits.RESOURCE_UNIT)
        ids = IdSource(world.random.randbytes(8))
        self.raylet = Raylet(
            *(node_id, info, VERSIONS, ids, gpus, incarnation), max_workers=most, incidents=Fatal()
        )
        self.raylet.take_back = self._take_back
        session = self.raylet.session
        session.known_heads = self.aimed(session.known_heads)
        self.workers: dict[bytes, SimWorker] = {}
        self.relays = RelayLinks(self)
        world.far_ports.listen(info.liveness, self.relays.arrived)
        self._everywhere = workers
        self._from_workers: deque[tuple[bytes, bytes]] = deque()
        self._exits: deque[tuple[bytes, int, str]] = deque()
        self._builds = Builds(
            *(self, lambda: self.raylet.environments),
            lambda: [worker.key for worker in self.workers.values()],
        )
        self._leaves = False  # it has said so
        world.ports.add(node_id)
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
        scene = self._scene
        self._builds.check_start(effect.key)
        worker = SimWorker(
            *(scene.world, scene.witness, scene.library, self._everywhere),
            *(self, effect.worker_id, effect.key),
        )
        self.workers[effect.worker_id] = worker
        self.clock.after(self.world.draw(0.001, 0.004), self._forked, worker)

    def _forked(self, worker: SimWorker) -> None:
        if self.alive and worker.alive:
            self.raylet.workers.started(worker.worker_id, worker.pid, lambda: worker.started)
            worker.begin()

    def something_came(self) -> None:
        """A socket to a leased worker has something to read, or its end."""
        self.wake()

    # ---- turn ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Drain, tend the link, settle, carry out, send."""
        if self._leaves:
            return
        now = self.clock.now
        self.read()
        self.relays.receive()
        while self._from_workers:
            worker_id, data = self._from_workers.popleft()
            payload = codec.decode(data)
            name = self.world.name(worker_id)
            self.clock.tell(f"{self.name} <- {name}: {in_words(payload)}", data)
            for message in payload.messages:
                self.raylet.worker_message(worker_id, message, now)
        while self._exits:
            worker_id, started, cause = self._exits.popleft()
            self.clock.tell(f"{self.name} reaps {self.world.name(worker_id)}: {cause}")
            self.workers.pop(worker_id, None)
            self.raylet.worker_exited(worker_id, started, cause, now)
        self.tend()
        self.raylet.settle(now)
        effects, self.raylet.effects = self.raylet.effects, []
        for effect in effects:
            if isinstance(effect, StartWorker):
                self._start(effect)
            elif isinstance(effect, FindProcess):
                if effect.job_id not in self.world.drivers:
                    self.raylet.driver_ended(effect.job_id)
            elif isinstance(effect, KillWorker) and effect.worker_id in self.workers:
                self.workers[effect.worker_id].die("killed by its raylet")
            elif isinstance(effect, BuildPart):
                self._builds.begin(effect)
            elif isinstance(effect, RemovePart):
                self._builds.remove(effect)
        self.relays.renew()
        self.relays.send_out()
        for peer, messages in self.raylet.outbox.take().items():
            if peer == HEAD:
                self.transmit(self.raylet.session.epoch, messages)
            elif peer in self.workers:
                self.workers[peer].send(messages)
        packets, self.raylet.behind.packets = self.raylet.behind.packets, []
        for worker_id, tasks in packets:
            self._put(worker_id, tasks)
        if self.raylet.stopping and not self._leaves:
            self._leaves = True
            self.clock.tell(f"{self.name} leaves: {self.raylet.stopping}")
            self.transmit(self.raylet.session.epoch, [m.Goodbye(0, self.raylet.stopping)])
            self.clock.after(LINGER_S, self.die)

    def _put(self, worker_id: bytes, tasks: m.Tasks) -> None:
        worker = self.workers.get(worker_id)
        payloads = codec.encode_local([tasks])  # one, unless what fits in is little
        if worker is not None and not (len(payloads) == 1 and worker.queue(payloads[0])):
            self.raylet.behind.refused(worker_id, tasks)

    def _take_back(self, worker_id: bytes) -> list[m.Tasks]:
        found: list[m.Tasks] = []
        worker = self.workers.get(worker_id)
        while worker is not None and worker.packets:
            for message in codec.decode(worker.packets.popleft()).messages:
                assert isinstance(message, m.Tasks)
                found.append(message)
        if found:
            name = self.world.name(worker_id)
            self.clock.tell(f"{self.name} takes back {len(found)} of {name}")
        return found

    def ask_again(self) -> None:
        """Resend what is not acknowledged, unchanged."""
        machine = self.raylet
        messages: list[m.Message] = [*machine.completions.unacked.values()]
        for principal in machine.worker_requests.principals.values():
            specs = list(principal.unresolved.values())
            messages.append(m.Submit(0, principal.job_id, principal.worker_id, specs))
            if principal.actors:
                messages.append(m.ActorWatch(0, principal.worker_id, [*principal.actors]))
        self.transmit(machine.session.epoch, messages)

    def deadline(self) -> float:
        """The machine's own and the link's."""
        return NEVER if self._leaves else min(self.raylet.deadline(), self.link_deadline())

    def die(self) -> None:
        """SIGKILL: its workers end with it."""
        self.end_link()
        self.world.ports.discard(self.raylet.node_id)
        self.world.far_ports.shut(self.raylet.info.liveness)
        self.relays.end()
        for worker in [*self.workers.values()]:
            worker.vanish()

    # ---- SimPeer ---------------------------------------------------------------------------

    def take(self, payload: codec.Payload) -> None:
        """Hand a payload to the machine."""
        self.raylet.session.receive(payload, self.clock.now)

    def linked(self) -> bool:
        """Whether the machine has a session."""
        return self.raylet.session.linked

    def epoch(self) -> int:
        """The latest that the machine knows."""
        return self.raylet.session.epoch

    def known_heads(self) -> KnownHeads:
        """Which the machine knows."""
        return self.raylet.session.known_heads

    def refusal(self) -> bool:
        """Whether the machine wants another session."""
        session = self.raylet.session
        return session.refused is not None or session.known_heads.parting

    def too_large(self, found: list[codec.Unsent]) -> None:
        """Tell the machine what is too large to be sent."""
        self.raylet.tasks.too_large(found)

    def say_hello(self) -> None:
        """Send HELLO."""
        self.transmit(self.raylet.session.epoch, [self.raylet.hello()])

    def forget_session(self) -> None:
        """Tell the machine that the session is over."""
        self.raylet.session.disconnected()
        self.raylet.session.refused = None
