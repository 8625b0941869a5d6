"""SimCluster: a whole cluster of shipped machines in one process, on a simulated clock and network.

Owns the simulated processes and what can be done to them. Holds no decision of the cluster's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import TracebackType
from typing import Any

import msgspec

from zray import limits
from zray.core.head import state_queries as overview
from zray.ids import object_id
from zray.protocol import messages as m
from zray.store.memory import MemoryStore
from zray.testing.actor_workloads import end_named_actors
from zray.testing.call_ledger import Violation
from zray.testing.callers import Caller
from zray.testing.checkers import Checkers
from zray.testing.clock import Clock
from zray.testing.direct import Wire
from zray.testing.drivers import SimDriver, Thread
from zray.testing.ledger import CANCELLED, DEATHS, LOSSES, Ledger
from zray.testing.network import Link, Network
from zray.testing.processes import SimHead, SimPeer, SimProcess, SimRaylet
from zray.testing.programs import RAISED
from zray.testing.workers import SimWorker
from zray.testing.workloads import Workload

UNIT = limits.RESOURCE_UNIT
EVENTS_MAX = 1_500_000
QUIET_S = 400.0  # simulated seconds after the last fault for everything to be done
EMPTY_S = 90.0  # and for everything to be freed
# Workloads that end processes or tasks on purpose.
RUTHLESS = {
    *("crashing", "cancelling", "killing", "crashing_actor", "named", "sharing", "families"),
    *("stubborn", "abandoning"),
}


class SimCluster:
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
        verbose: bool = False,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = Clock(EVENTS_MAX)
        self.clock.verbose = verbose
        self.network = Network(self.clock, Random(self.random.random()), latency_s)
        self.ledger = Ledger(self)
        self.checkers = Checkers(self)
        self.drain_max = limits.DRAIN_MESSAGES_MAX
        self.head: SimHead | None = None
        self.raylets: list[SimRaylet] = []
        self.drivers: list[SimDriver] = []
        self.workers: dict[bytes, SimWorker] = {}
        self.fenced_rows: dict[bytes, tuple[int, bool]] = {}  # node -> incarnation, alive
        self.fenced_at: dict[tuple[bytes, int], float] = {}  # when a head has last decided so
        self._rows_seen: dict[bytes, tuple[int, bool]] = {}  # as this head knows them
        self._names: dict[bytes, str] = {}
        self._nodes = [{k: int(v * UNIT) for k, v in node.items()} for node in nodes]
        self._drivers = drivers
        self._commit_s = commit_s
        self._machines = machines
        self._direct = direct
        self._bounds = dict(bounds or {})
        self._saved: dict[str, Any] = {}
        self._starts: list[float] = []
        self._usurped: list[SimHead] = []
        self._lost_machines: set[bytes] = set()
        self._excuses: set[str] = set()
        self._pids = 100
        self.nodes_died = 0
        self.rebuilt: set[bytes] = set()  # tasks that ran again because their results were lost

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

    # ---- what processes ask ----------------------------------------------------------------

    def draw(self, low: float, high: float) -> float:
        """A number between two, from the seed."""
        return self.random.uniform(low, high)

    def next_pid(self) -> int:
        """A process id that nobody has had."""
        self._pids += 1
        return self._pids

    def commit_delay(self) -> float:
        """How long the store takes for one batch, now and then very long."""
        factor = 50.0 if self.random.random() < 0.02 else 1.0
        return self._commit_s * self.draw(0.1, 2.0) * factor

    def name_of(self, route: bytes) -> str:
        """Who is behind a route."""
        link = self.network.links.get(route)
        return link.peer.name if link is not None else f"route {route[5:].hex()}"

    def process_name(self, process_id: bytes) -> str:
        """A short name of a worker."""
        return self._names.get(process_id, process_id.hex()[:8])

    def add_worker(self, worker: SimWorker) -> None:
        """A worker was forked."""
        self.workers[worker.worker_id] = self.ledger.workers[worker.worker_id] = worker
        self._names[worker.worker_id] = worker.name

    def remove_worker(self, worker: SimWorker) -> None:
        """A worker ended."""
        self.workers.pop(worker.worker_id, None)

    def port_refuses(self, node_id: bytes) -> bool | None:
        """What knocking at a node's own port says; None: nothing comes back."""
        if node_id in self._lost_machines:
            return None
        for raylet in self.raylets:
            if raylet.raylet.node_id == node_id and raylet.alive:
                return None if self.clock.now < raylet.frozen_until - 1e9 else False
        return True

    def turned(self, process: SimProcess) -> None:
        """A process had a turn: look at what it left behind."""
        if process is self.head:
            assert isinstance(process, SimHead)
            if process.gcs.counters["rebuilt"]:
                again = [key for key, task in process.gcs.tasks.items() if task.rebuilds]
                self.rebuilt.update(again)
            for node_id, row in process.gcs.members.node_rows.items():
                self._note_row(node_id, row.incarnation, row.alive)
        self.checkers.step(process)

    def _note_row(self, node_id: bytes, incarnation: int, alive: bool) -> None:
        if (incarnation, not alive) >= self._row_key(node_id):
            self.fenced_rows[node_id] = incarnation, alive
        before, lived = seen = self._rows_seen.get(node_id, (incarnation, True))
        if lived and seen != (incarnation, alive):  # else this was decided before
            self.fenced_at[node_id, before] = self.clock.now
        self._rows_seen[node_id] = incarnation, alive

    def _row_key(self, node_id: bytes) -> tuple[int, bool]:
        incarnation, alive = self.fenced_rows.get(node_id, (0, True))
        return incarnation, not alive

    def fenced(self, node_id: bytes, incarnation: int) -> bool:
        """Whether a head has declared that incarnation dead."""
        known, alive = self.fenced_rows.get(node_id, (0, True))
        return incarnation < known or (incarnation == known and not alive)

    def restarts_since(self, when: float) -> int:
        """How many heads started after that time."""
        return sum(1 for start in self._starts[1:] if start >= when)

    def number_in(self, value: bytes) -> int:
        """The number in a simulated value."""
        number: int = msgspec.msgpack.decode(value)[0]
        return number

    def excuses(self) -> set[str]:
        """Error codes that what happened so far explains."""
        return self._excuses

    def excuse(self, *codes: str) -> None:
        """What is done now explains these errors."""
        self._excuses.update(codes)

    # ---- starting and ending processes -----------------------------------------------------

    def add_node(
        self, resources: Mapping[str, int], node_id: bytes = b"", incarnation: int = 1
    ) -> SimRaylet:
        """Start a raylet; amounts in units of 1/10000."""
        name = f"n{len(self.raylets) + 1}"
        node_id = node_id or self.random.randbytes(16)
        machine = self._machine(name, len(self.raylets))
        raylet = SimRaylet(self, name, node_id, incarnation, dict(resources), machine)
        self._names[node_id] = name
        self.raylets.append(raylet)
        return raylet

    def add_driver(self) -> SimDriver:
        """Start a driver that runs nothing yet."""
        name = f"d{len(self.drivers) + 1}"
        driver = SimDriver(self, name, self._machine(name, len(self.drivers)))
        self._names[driver.process_id] = name
        self.drivers.append(driver)
        return driver

    def _machine(self, name: str, place: int) -> str:
        return f"machine-{place % self._machines if self._machines else name}"

    def connect_directly(self, caller: Caller, worker_id: bytes) -> Wire | None:
        """A socket to an actor's worker on the caller's machine; None: there is no such way."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.actor is None or self.random.random() >= self._direct:
            return None
        return worker.accept(caller)

    def run(self, workload: Workload, driver: int = 0) -> Thread:
        """Have a driver run a workload, as one more thread."""
        if workload.__name__ in RUTHLESS:
            self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        return self.drivers[driver].run(workload, self.random.getrandbits(32))

    def _start_head(self) -> None:
        self.head = SimHead(self, self.store)
        rows = self.head.gcs.members.node_rows
        self._rows_seen = {key: (row.incarnation, row.alive) for key, row in rows.items()}
        self._starts.append(self.clock.now)
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
        not hear who holds an object with the other head, and frees what nobody holds with it.
        """
        self.excuse(*LOSSES)
        old = self.head
        if old is None:
            return
        self.clock.tell("another head takes the store over")
        old.usurped = True
        self.store = self.store.crash()
        self._start_head()
        self._usurped.append(old)
        self.network.former = old
        for link in [link for link in self.network.links.values() if link.head is old]:
            if self.random.random() < 0.5:
                self.network.sever(link)

        def end() -> None:
            self.clock.tell("the old head ends")
            old.die()

        self.clock.after(for_s, end)

    def divided(self) -> bool:
        """Whether a head that another has replaced goes on, and what it hears dies with it."""
        return any(head.alive for head in self._usurped)

    def replace(self, raylet: SimRaylet, after_s: float, *, same_id: bool) -> None:
        """Kill a raylet; another starts in its place, as the same node or as a new one."""
        self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        self.nodes_died += 1
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
        self.nodes_died += 1
        self.clock.tell(f"the machine of {raylet.name} is lost")
        self._lost_machines.add(raylet.raylet.node_id)
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

    def has_ended(self, job_id: bytes) -> bool:
        """Whether the process of that driver is gone, as its machine knows."""
        return not any(driver.alive and driver.process_id == job_id for driver in self.drivers)

    def freeze(self, process: SimProcess, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later. Its transport answers no heartbeat meanwhile."""
        self.clock.tell(f"{process.name} is stopped for {seconds:.2f} s")
        process.frozen_until = self.clock.now + seconds
        if seconds >= limits.DEAD_S and isinstance(process, SimPeer):
            self.nodes_died += 1
            self.excuse(*DEATHS, *LOSSES, CANCELLED, RAISED)
        timeout = limits.TRANSPORT_HEARTBEAT_TIMEOUT_S + self.draw(0.0, 1.0)
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
                    reason = overview.why(self.head.gcs, object_id(task_id), self.clock.now)
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
        if self.head is not None and self.head.gcs.actors.directory.names:
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
        while (left := self.checkers.left()) and self.clock.now < end:
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


def resources_in_units(amounts: Mapping[str, float]) -> dict[str, int]:
    """Amounts such as ``{"CPU": 2}`` in units of 1/10000."""
    return {name: int(amount * UNIT) for name, amount in amounts.items()}


__all__ = ["SimCluster", "SimDriver", "SimPeer", "SimRaylet", "Violation", "m"]
