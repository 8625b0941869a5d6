"""SimCluster: a whole cluster of shipped machines in one process, on a simulated clock and network.

Owns the simulated processes and what can be done to them. Holds no decision of the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from zray import limits
from zray.core.head.members import Member
from zray.ids import object_id
from zray.protocol import messages as m
from zray.store.memory import MemoryStore
from zray.testing.judgement.checkers import Checkers
from zray.testing.judgement.history import History
from zray.testing.judgement.ledger import Ledger
from zray.testing.judgement.leftovers import Leftovers
from zray.testing.processes.driver import SimDriver, Thread, Workload
from zray.testing.processes.head import SimOnlyHead
from zray.testing.processes.population import Population
from zray.testing.processes.process import Scene, SimPeer, SimProcess
from zray.testing.processes.raylet import SimRaylet
from zray.testing.processes.steps import Library
from zray.testing.processes.worker import SimWorker
from zray.testing.programs import stream_workloads
from zray.testing.programs.actor_workloads import end_named_actors
from zray.testing.programs.actors import CONSTRUCTORS, METHODS
from zray.testing.programs.group_workloads import GROUP_RUTHLESS
from zray.testing.programs.lease_workloads import LEASE_RUTHLESS
from zray.testing.programs.near_workloads import NEAR_RUTHLESS
from zray.testing.programs.workloads import FUNCTIONS
from zray.testing.world.errors import (
    ACTOR_UNAVAILABLE,
    CANCELLED,
    DEATHS,
    LOSSES,
    RAISED,
    Violation,
)
from zray.testing.world.network import Link
from zray.testing.world.world import World

UNIT = limits.RESOURCE_UNIT
LIBRARY = Library(
    {**FUNCTIONS, **{one.__name__: one for one in stream_workloads.TASKS}},
    CONSTRUCTORS,
    {**METHODS, **{one.__name__: one for one in stream_workloads.STREAM_METHODS}},
)
EVENTS_MAX = 1_500_000
QUIET_S = 400.0  # simulated seconds after the last fault for everything to be done
EMPTY_S = 90.0  # and for everything to be freed
# Workloads that end processes or tasks on purpose.
RUTHLESS = {
    *("crashing", "cancelling", "killing", "crashing_actor", "named", "sharing", "families"),
    *("stubborn", "abandoning"),
    *GROUP_RUTHLESS,
    *LEASE_RUTHLESS,
    *NEAR_RUTHLESS,
    *stream_workloads.STREAM_RUTHLESS,
}


class SimCluster(Population):
    """A simulated cluster; the same seed and the same calls give the same trace.

    Use it as a context manager: ``bounds`` replaces values of ``zray.limits`` until it is left.

    Args:
        seed: of everything random.
        nodes: resources of each raylet, in whole units, such as ``{"CPU": 2, "GPU": 0.5}``.
        drivers: how many programs connect.
        latency_s: mean time of a payload on the way.
        commit_s: mean time until the store has a batch.
        bounds: names of ``zray.limits`` and their values here.
        machines: on how many machines all processes are; 0: each node and driver has its own.
        direct: how likely a direct socket between two processes of one machine works.
        packets_max: that the queue of a leased worker takes.
        stream_max: payloads that the socket to one takes; 0: any number.
        eager: drivers hand over the first tasks of a burst one by one, as real ones do.
        verbose: print the story as it happens.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        nodes: Iterable[Mapping[str, float]] = ({"CPU": 2},),
        drivers: int = 1,
        latency_s: float = 0.0003,
        commit_s: float = 0.003,
        bounds: Mapping[str, Any] | None = None,
        machines: int = 0,
        direct: float = 1.0,
        packets_max: int = 64,
        stream_max: int = 0,
        eager: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        self.world = World(
            *(seed,), events_max=EVENTS_MAX, latency_s=latency_s, commit_s=commit_s, direct=direct
        )
        self.world.direct.packets_max = packets_max
        self.world.direct.stream_max = stream_max
        self.random = self.world.random
        self.clock = self.world.clock
        self.clock.verbose = verbose
        self.network = self.world.network
        self.history = History(self.clock)
        self.ledger = Ledger(self.clock, self, self.history)
        self.checkers = Checkers(self.world, self, self.ledger)
        self._leftovers = Leftovers(self.world, self, self.ledger)
        self._scene = Scene(self.world, self.ledger, LIBRARY, self._turned)
        self._nodes = [{k: int(v * UNIT) for k, v in node.items()} for node in nodes]
        self._drivers = drivers
        self._machines = machines
        self._eager = eager
        self._bounds = dict(bounds or {})
        self._saved: dict[str, Any] = {}

    def __enter__(self) -> SimCluster:
        self._saved = {name: getattr(limits, name) for name in self._bounds}
        for name, value in self._bounds.items():
            setattr(limits, name, value)
        try:
            self._boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, value in self._saved.items():
            setattr(limits, name, value)

    def _boot(self) -> None:
        self.store = MemoryStore(auto=False)
        self._start_head()
        for resources in self._nodes:
            self.add_node(resources)
        for _ in range(self._drivers):
            self.add_driver()

    # ---- what processes tell ---------------------------------------------------------------

    def _turned(self, process: SimProcess) -> None:
        """A process had a turn: look at what it left behind."""
        if process is self.head:
            self.history.head_turned(self.head)
        self.checkers.step(process)

    def excuse(self, *codes: str) -> None:
        """What is done now explains these errors."""
        self.history.excuse(*codes)

    # ---- starting and ending processes -----------------------------------------------------

    def add_node(
        self, resources: Mapping[str, int], node_id: bytes = b"", incarnation: int = 1
    ) -> SimRaylet:
        """Start a raylet; amounts in units of 1/10000."""
        name = f"n{len(self.raylets) + 1}"
        node_id = node_id or self.random.randbytes(16)
        machine = self._machine(name, len(self.raylets))
        # Few workers on most nodes: the bound on them is met in every other seed.
        most = (None, 1, 2, 4)[(self.world.seed + len(self.raylets)) % 4]
        raylet = SimRaylet(
            *(self._scene, self.everywhere, name, node_id, incarnation),
            *(dict(resources), machine, most),
        )
        self.world.names[node_id] = name
        self.raylets.append(raylet)
        return raylet

    def add_driver(self) -> SimDriver:
        """Start a driver that runs nothing yet."""
        name = f"d{len(self.drivers) + 1}"
        driver = SimDriver(self._scene, name, self._machine(name, len(self.drivers)), self._eager)
        self.world.names[driver.process_id] = name
        self.drivers.append(driver)
        return driver

    def _machine(self, name: str, place: int) -> str:
        return f"machine-{place % self._machines if self._machines else name}"

    def run(self, workload: Workload, driver: int = 0) -> Thread:
        """Have a driver run a workload, as one more thread."""
        if workload.__name__ in RUTHLESS:
            self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        return self.drivers[driver].run(workload, self.random.getrandbits(32))

    def run_if_alive(self, workload: Workload, driver: int) -> None:
        """The same, if that driver's process still lives."""
        if self.drivers[driver].alive and not self.drivers[driver].leaving:
            self.run(workload, driver)

    def _start_head(self) -> None:
        self.head = SimOnlyHead(self._scene, self.store)
        self.history.head_started(self.head)
        self.ledger.calls.head_started()

    def restart_head(self, after_s: float = 0.1) -> None:
        """Kill the head and start another on its store; uncommitted batches are lost."""
        if self.head is None:
            return
        self.clock.tell("head is killed")
        self.head.die()
        self.head = None
        self.store = self.store.crash()
        self.clock.after(after_s, self._start_head)

    def usurp_head(self, for_s: float) -> None:
        """Another head takes the store over, and the old one still runs for a while.

        It stores nothing any more. Half of its peers stay with it, and some find it again. It does
        not hear who holds an object with the other head, and frees what nobody holds with it. To it
        the peers that have left are away.
        """
        self.excuse(*LOSSES, ACTOR_UNAVAILABLE)
        old = self.head
        if not isinstance(old, SimOnlyHead):
            return
        self.clock.tell("another head takes the store over")
        old.usurped = True
        self.store = self.store.crash()
        self._start_head()
        self.history.head_replaced(old)
        self.network.former = old
        for link in [link for link in self.network.links.values() if link.head is old]:
            if self.random.random() < 0.5:
                self.network.sever(link)

        def end() -> None:
            self.clock.tell("the old head ends")
            old.die()

        self.clock.after(for_s, end)

    def replace(self, raylet: SimRaylet, after_s: float, *, same_id: bool) -> None:
        """Kill a raylet; another starts in its place, as the same node or as a new one."""
        self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        self.history.nodes_died += 1
        self.clock.tell(f"{raylet.name} is killed")
        raylet.die()
        self._again(raylet, after_s, same_id)

    def kill_worker(self, worker: SimWorker) -> None:
        """SIGKILL."""
        self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        self.clock.tell(f"{worker.name} is killed")
        worker.die("signal 9")

    def lose_machine(self, raylet: SimRaylet, back_after_s: float = 60.0) -> None:
        """A node's machine vanishes from the network; another starts later."""
        self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        self.history.nodes_died += 1
        self.clock.tell(f"the machine of {raylet.name} is lost")
        self.world.lost.add(raylet.raylet.node_id)
        if raylet.link is not None and not raylet.link.broken:
            self.network.go_silent(raylet.link)
            raylet.link.peer_open = False
        raylet.die()
        self._again(raylet, back_after_s, False)

    def _again(self, raylet: SimRaylet, after_s: float, same_id: bool) -> None:
        resources = dict(raylet.raylet.info.resources)
        node_id = raylet.raylet.node_id if same_id else b""
        incarnation = raylet.raylet.incarnation + 1 if same_id else 1
        self.clock.after(after_s, self._add_node, resources, node_id, incarnation)

    def _add_node(self, resources: dict[str, int], node_id: bytes, incarnation: int) -> None:
        self.add_node(resources, node_id, incarnation)

    def drain(self, raylet: SimRaylet, deadline_s: float = 0.0) -> None:
        """An operator empties a node, if there is a head to be asked."""
        if self.head is not None:
            node_id = raylet.raylet.node_id
            self.clock.tell(f"{raylet.name} is drained")
            operator = Member(bytes(16), 0, self.clock.now)
            asked = m.Drain(1, operator.process_id, node_id, "a test", deadline_s)
            self.head.gcs.drains.on_drain(operator, asked, self.clock.now)
            self.head.wake()

    def drain_for_good(self, raylet: SimRaylet, deadline_s: float, back_after_s: float) -> None:
        """The same; another node like it starts later, so that there is one for what only it ran.

        Without a deadline nothing dies with it; but what only it has may find no other place.
        """
        self.excuse(*LOSSES)
        if deadline_s:
            self.history.nodes_died += 1
            self.excuse(*DEATHS, CANCELLED, RAISED)
        self._again(raylet, back_after_s, False)
        self.drain(raylet, deadline_s)

    def freeze(self, process: SimProcess, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later. Its transport answers no heartbeat meanwhile."""
        self.clock.tell(f"{process.name} is stopped for {seconds:.2f} s")
        process.frozen_until = self.clock.now + seconds
        if seconds >= limits.DEAD_S and isinstance(process, SimPeer):
            self.history.nodes_died += 1
            self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        timeout = limits.TRANSPORT_HEARTBEAT_TIMEOUT_S + self.world.draw(0.0, 1.0)
        if seconds > timeout:
            self.clock.after(timeout, self._heartbeats_missed, process)

    def _heartbeats_missed(self, process: SimProcess) -> None:
        for link in [*self.network.links.values()]:
            ends: list[object] = [link.peer, link.head]
            if process in ends:
                self.network.sever(link)

    def slow(self, raylet: SimRaylet, factor: float, seconds: float) -> None:
        """Everything on a node takes so many times as long, for a while."""
        self.clock.tell(f"{raylet.name} is {factor:g} times as slow for {seconds:.1f} s")
        raylet.slowness = factor

        def recover() -> None:
            raylet.slowness = 1.0

        self.clock.after(seconds, recover)

    def cut_at(
        self,
        kind: type[m.Message],
        peer: SimPeer | None = None,
        *,
        behind: bool = False,
        like: Callable[[Any], bool] = lambda _: True,
    ) -> None:
        """Cut the connection on which the next message of a kind is sent; it is lost.

        Args:
            kind: of the message.
            peer: whose connection; None: anybody's.
            behind: what was sent before it still arrives.
            like: whether it is one of those meant.
        """

        def springs(link: Link, upwards: bool, messages: list[m.Message]) -> bool:
            meant = peer is None or link.peer is peer
            return meant and any(isinstance(msg, kind) and like(msg) for msg in messages)

        self.network.traps.append((springs, behind))

    # ---- time ------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Let simulated time pass."""
        end = self.clock.now + seconds
        while self.clock.next_at() <= end:
            self.clock.step()
        self.clock.now = end

    def run_until(self, condition: Callable[[], bool], within_s: float, what: str = "") -> None:
        """Run until a condition holds.

        Raises:
            Violation: it does not within the simulated time.
        """
        end = self.clock.now + within_s
        while not condition():
            if self.clock.next_at() > end or not self.clock.step():
                waits = "; ".join(self._unresolved())
                raise Violation(f"not within {within_s:g} s: {what or 'the condition'}; {waits}")

    def _unresolved(self) -> list[str]:
        """What drivers still wait for, and what the head says about it."""
        found = []
        for driver in self.drivers:
            if not driver.alive:
                continue
            waiting = [thread.name for thread in driver.threads if not thread.done]
            if waiting or driver.client.unresolved:
                found.append(f"{driver.name} (linked: {driver.linked()}) is in {waiting}")
            for task_id in [*driver.client.unresolved][:5]:
                reason = "no head"
                if self.head is not None:
                    reason = self.head.gcs.causes.why(object_id(task_id), self.clock.now)
                found.append(f"{self.ledger.word(task_id)}: {reason or 'has its outcome'}")
            for oid in [*driver.client.waiters.values, *driver.client.waiters.ends][:5]:
                found.append(f"awaits {self.ledger.word(oid[:16])}[{oid[-1]}]")
        return found

    # ---- the end of a run ------------------------------------------------------------------

    def finish(self) -> None:
        """The liveness phase: every task has its outcome in time, then nothing is left.

        Raises:
            Violation: something does not end, or stays behind.
        """
        self.clock.tell("no more faults from here on")
        self.run_until(self._all_done, QUIET_S, "every submitted task has its outcome")
        if self.head is not None and self.head.gcs.actor_directory.names:
            self.add_driver()
            self.run(end_named_actors, len(self.drivers) - 1)
            self.run_until(self._all_done, QUIET_S, "the actors with names are ended")
        for driver in self.drivers:
            if driver.alive:
                for ref in driver.kept:
                    ref.drop()
                driver.wake()
        for worker in [*self.workers.values()]:
            worker.let_go()
        self.clock.tell("every reference is dropped")
        end = self.clock.now + EMPTY_S
        while (left := self._leftovers.found()) and self.clock.now < end:
            self.run_for(0.25)
            for worker in [*self.workers.values()]:
                worker.let_go()
        if left:
            raise Violation("left behind: " + "; ".join(left))

    def _all_done(self) -> bool:
        if self.head is None or any(d.leaving and d.alive for d in self.drivers):
            return False
        return all(
            driver.idle()
            and not driver.client.unresolved
            and driver.linked()
            and not driver.client.call_results.awaited
            for driver in self.drivers
            if driver.alive and not driver.client.stopped
        )

    def trace(self) -> str:
        """A digest of everything that happened."""
        return self.clock.trace()


__all__ = ["SimCluster", "SimDriver", "SimPeer", "SimRaylet", "Violation", "m"]
