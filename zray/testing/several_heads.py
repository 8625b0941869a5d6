"""SeveralHeads: a simulated cluster whose store is shared, so that any of its heads may lead.

Owns the heads and what can be done to them and to the store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zray import limits
from zray.core.head.members import Member
from zray.protocol import messages as m
from zray.store.etcd_layout import Layout
from zray.testing.cluster import SimCluster
from zray.testing.judgement.terms import Terms
from zray.testing.processes.candidate import Realm, SimCandidate
from zray.testing.processes.process import SimPeer, SimProcess
from zray.testing.world.errors import ACTOR_UNAVAILABLE, CANCELLED, DEATHS, LOSSES, RAISED
from zray.testing.world.network import NOBODY, Link, Trap
from zray.testing.world.shared_store import SharedStore
from zray.testing.world.store_link import Weather

LED_S = 20.0  # simulated seconds after the last harm for one head to lead and all to be with it
KNOWN_S = 10.0
RATES = (0.95, 1.05)  # of the clocks that leases are measured by


class SeveralHeads(SimCluster):
    """``heads``: how many. ``store_lost``: of requests to the store and answers, so many are lost.

    The other arguments are ``SimCluster``'s. ``head`` is the one that leads; None: none does.

    Attributes:
        candidates: the heads that run, by where they listen.
        troubled_until: when the last harm that has an end is over.
    """

    def __init__(
        self, seed: int = 0, *, heads: int = 3, store_lost: float = 0.0, **others: Any
    ) -> None:
        super().__init__(seed, **others)
        world = self.world
        layout = Layout("simulated")
        self.shared = SharedStore(self.clock, self.random)
        self.terms = Terms(self.clock, self.shared, layout)
        latency_s = others.get("latency_s", 0.0003)
        self.weather = Weather(latency_s, others.get("commit_s", 0.003), store_lost)
        self.candidates: dict[str, SimCandidate] = {}
        self.troubled_until = 0.0
        self._freezes: list[tuple[Trap, bool]] = []  # that are to come
        self._layout = layout
        self._realm = Realm(
            *(self.shared, self.weather, layout, self.terms, self._leads, self._ends, set())
        )
        self._addresses = tuple(f"h{number + 1}:10001" for number in range(heads))
        self._rates = {address: world.draw(*RATES) for address in self._addresses}
        self._scene = replace(self._scene, heads=self._addresses, obeyed=self.terms.obeyed)
        self.shared.gone = self._gone
        self.checkers.small = -1  # other seeds look at everything in each step

    def _boot(self) -> None:
        for address in self._addresses:
            self.start_candidate(address)
        for resources in self._nodes:
            self.add_node(resources)
        for _ in range(self._drivers):
            self.add_driver()

    # ---- heads -----------------------------------------------------------------------------

    def start_candidate(self, address: str) -> None:
        """Start a head process there, unless one runs."""
        if address not in self.candidates:
            name = address.partition(":")[0]
            rate = self._rates[address]
            self.candidates[address] = SimCandidate(
                *(self._scene, self._realm, name, address, rate)
            )

    def _leads(self, head: SimCandidate) -> None:
        self.head = head
        self.history.head_started(head)
        self.ledger.calls.head_started()

    def _ends(self, head: SimCandidate) -> None:
        if self.head is head:
            self.head = None

    def _gone(self, key: bytes) -> None:
        for candidate in self.candidates.values():
            candidate.election.changed(key)

    def leader(self) -> SimCandidate | None:
        """The head that leads."""
        return self.head if isinstance(self.head, SimCandidate) else None

    def standbys(self) -> list[SimCandidate]:
        """The heads that run and do not lead."""
        return [one for one in self.candidates.values() if one is not self.head]

    def trouble(self, seconds: float) -> None:
        """Something is wrong for so long."""
        self.troubled_until = max(self.troubled_until, self.clock.now + seconds)

    # ---- harm to heads ---------------------------------------------------------------------

    def kill_candidate(self, head: SimCandidate, after_s: float) -> None:
        """SIGKILL; another process starts there later."""
        self.clock.tell(f"{head.name} is killed")
        self.trouble(after_s)
        del self.candidates[head.address]
        head.die()
        self.clock.after(after_s, self.start_candidate, head.address)

    def lose_head_machine(self, head: SimCandidate, after_s: float) -> None:
        """Its machine vanishes from the network, and comes back with another process later."""
        self.clock.tell(f"the machine of {head.name} is lost")
        links = [link for link in self.network.links.values() if link.head is head]
        self._isolate(head, limits.DEAD_S)
        for link in links:
            link.head, link.head_open = NOBODY, False
        self.kill_candidate(head, after_s)
        self.clock.after(after_s, self.network.unreachable.discard, head.address)

    def cut_from_peers(self, head: SimCandidate, seconds: float) -> None:
        """Nothing passes between a head and its peers for a while."""
        self.clock.tell(f"{head.name} is cut from its peers for {seconds:.2f} s")
        self.trouble(seconds + limits.TRANSPORT_HEARTBEAT_TIMEOUT_S)
        self._isolate(head, seconds)
        self.clock.after(seconds, self.network.unreachable.discard, head.address)

    def _isolate(self, head: SimCandidate, seconds: float) -> None:
        self.network.unreachable.add(head.address)
        for link in [link for link in self.network.links.values() if link.head is head]:
            if seconds < limits.TRANSPORT_HEARTBEAT_TIMEOUT_S:
                self.network.hold(link, seconds)
            elif not link.broken:
                self.network.go_silent(link)

    def cut_from_store(self, head: SimCandidate, seconds: float) -> None:
        """Nothing passes between a head and the store for a while."""
        self.clock.tell(f"{head.name} is cut from the store for {seconds:.2f} s")
        self.trouble(seconds)
        head.store_link.cut = True

        def heal() -> None:
            head.store_link.cut = False

        self.clock.after(seconds, heal)

    def step_wall_clock(self, head: SimCandidate, seconds: float) -> None:
        """Somebody sets the clock of a head's machine."""
        self.clock.tell(f"the clock of {head.name} is set by {seconds:+.0f} s")
        head.wall_s += seconds

    def step_down(self) -> None:
        """An operator wants another head to lead, if there is one to be asked."""
        if self.head is not None:
            self.clock.tell(f"{self.head.name} is asked to step down")
            operator = Member(bytes(16), 0, self.clock.now)
            self.head.gcs.succession.on_step_down(operator, m.StepDown(1, "a test"), self.clock.now)
            self.head.wake()

    def freeze_at(self, kind: type[m.Message], seconds: float) -> None:
        """The head that leads stops just after it has sent, or is sent, a message of a kind."""

        traps = self.network.traps

        def strike(head: SimCandidate) -> None:
            if trap in traps:
                traps.remove(trap)
                self.freeze(head, seconds)

        def springs(link: Link, upwards: bool, messages: list[m.Message]) -> bool:
            head = self.leader()
            if head is link.head and any(isinstance(message, kind) for message in messages):
                self.clock.after(0.0, strike, head)
            return False

        trap = (springs, False)
        self._freezes.append(trap)
        traps.append(trap)

    # ---- harm to the store -----------------------------------------------------------------

    def lose_quorum(self, seconds: float) -> None:
        """The store has no majority for a while."""
        self.trouble(seconds)
        self.shared.lose_quorum(seconds)

    def slow_store(self, by_s: float, seconds: float) -> None:
        """Changes take up to so much longer, or their answers do, for a while."""
        self.clock.tell(f"the store takes up to {by_s:.2f} s for {seconds:.2f} s")
        self.trouble(seconds + by_s)
        self.weather.slow_s = by_s
        self.weather.slow_until = self.clock.now + seconds

    def lossy_store(self, lost: float, seconds: float) -> None:
        """So many of the questions to the store, and of its answers, are lost for a while."""
        self.clock.tell(f"the store loses {lost:.0%} for {seconds:.2f} s")
        self.trouble(seconds)
        before, self.weather.lost = self.weather.lost, lost

        def recover() -> None:
            self.weather.lost = min(before, self.weather.lost)

        self.clock.after(seconds, recover)

    # ---- as with one head ------------------------------------------------------------------

    def restart_head(self, after_s: float = 0.1) -> None:
        """Kill the head that leads; another process starts there later."""
        if (head := self.leader()) is not None:
            self.kill_candidate(head, after_s)

    def usurp_head(self, for_s: float) -> None:
        """Somebody deletes the leader's key: another head leads, and the old one serves until it
        looks, or is fenced. What it hears meanwhile dies with it."""
        head = self.leader()
        if head is not None:
            self.excuse(*LOSSES, ACTOR_UNAVAILABLE)
            self.clock.tell("the leader's key is deleted")
            until = self.clock.now + limits.LEADER_FENCE_S / RATES[0]
            self.terms.deposed_until[head.gcs.epoch] = until
            self.history.head_replaced(head)
            self.shared.lose_key(self._layout.leader)

    def freeze(self, process: SimProcess, seconds: float) -> None:
        """As ``SimCluster.freeze``; who knows no other head than one that sleeps is lost."""
        super().freeze(process, seconds)
        self.trouble(seconds)
        peers: list[SimPeer] = [*self.drivers, *self.raylets]
        lonely = [peer for peer in peers if len(peer.known_heads().all()) == 1]
        if lonely and isinstance(process, SimCandidate) and seconds >= limits.DEAD_S:
            self.history.nodes_died += 1
            self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED, "stopped")

    # ---- the end of a run ------------------------------------------------------------------

    def finish(self) -> None:
        """As ``SimCluster.finish``; before that, one head leads and all peers are with it."""
        self.network.traps[:] = [one for one in self.network.traps if one not in self._freezes]
        self.weather.lost = 0.0
        while self.troubled_until > self.clock.now:  # what is under way may bring more
            self.run_for(self.troubled_until - self.clock.now)
        self.run_until(self.is_led, LED_S, "one head leads, and all are with it")
        super().finish()
        self.run_until(self.is_known, KNOWN_S, "every head knows which there are, and who leads")

    def is_known(self) -> bool:
        """Whether every head knows which heads there are, and which of them leads."""
        leader, heads = self.leader(), [*self.candidates.values()]
        views = [head.election.view() for head in heads]
        ids = {head.head_id for head in heads}
        return leader is not None and all(
            {one.head_id for one in view.heads} == ids
            and view.leader is not None
            and view.leader.head_id == leader.head_id
            for view in views
        )

    def is_led(self) -> bool:
        """Whether exactly one head leads, and all peers are with it."""
        leading = [one for one in self.candidates.values() if one.leads]
        drivers = [d for d in self.drivers if not (d.leaving or d.client.stopped)]
        raylets = [raylet for raylet in self.raylets if not raylet.raylet.stopping]
        peers: list[SimPeer] = [peer for peer in (*drivers, *raylets) if peer.alive]
        return leading == [self.head] and all(
            peer.linked() and peer.link is not None and peer.link.head is self.head
            for peer in peers
        )
