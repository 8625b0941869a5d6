"""What goes wrong in a simulation, and when: drawn from the seed, carried out on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zray import limits
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.process import SimPeer
from zray.testing.processes.raylet import SimRaylet
from zray.testing.processes.worker import SimWorker
from zray.testing.programs.workloads import fan_out
from zray.testing.world.errors import ACTOR_UNAVAILABLE
from zray.testing.world.network import Link
from zray.testing.world.ports import PortLink

Fault = Callable[[SimCluster, Random], None]


def _peer(cluster: SimCluster, random: Random) -> SimPeer | None:
    peers: list[SimPeer] = [r for r in cluster.raylets if r.alive]
    peers += [d for d in cluster.drivers if d.alive]
    linked = [peer for peer in peers if peer.link is not None]
    return random.choice(linked) if linked else None


def _raylet(cluster: SimCluster, random: Random) -> SimRaylet | None:
    alive = [raylet for raylet in cluster.raylets if raylet.alive]
    return random.choice(alive) if alive else None


def _worker(cluster: SimCluster, random: Random) -> SimWorker | None:
    workers = [w for raylet in cluster.raylets for w in raylet.workers.values() if w.alive]
    busy = [
        worker
        for worker in workers
        if worker.delivered is not None or (worker.actor is not None and worker.actor.runs)
    ]
    pool = busy if busy and random.random() < 0.7 else workers
    return random.choice(pool) if pool else None


def cut(cluster: SimCluster, random: Random) -> None:
    """A connection is reset; what was on the way is lost."""
    peer = _peer(cluster, random)
    if peer is not None and peer.link is not None:
        cluster.network.sever(peer.link)


def cut_between(cluster: SimCluster, random: Random) -> None:
    """A connection is cut within what belongs together: the first part of it arrives."""
    peer = _peer(cluster, random)
    if peer is not None and peer.link is not None:
        peer.link.fragile = True


def cut_all(cluster: SimCluster, random: Random) -> None:
    """Every connection is reset at once."""
    for link in [*cluster.network.links.values()]:
        cluster.network.sever(link)


def silence(cluster: SimCluster, random: Random) -> None:
    """A connection is half-open: only heartbeats tell."""
    peer = _peer(cluster, random)
    if peer is not None and peer.link is not None:
        cluster.network.go_silent(peer.link)


def stall(cluster: SimCluster, random: Random) -> None:
    """Nothing passes for up to 5 s, then everything does."""
    peer = _peer(cluster, random)
    if peer is not None and peer.link is not None:
        cluster.network.hold(peer.link, random.uniform(0.1, 5.0))


def freeze(cluster: SimCluster, random: Random) -> None:
    """SIGSTOP of some process that runs, shorter than what counts as dead."""
    found = [p for p in [cluster.head, _peer(cluster, random)] if p is not None]
    processes = [p for p in found if p.frozen_until <= cluster.clock.now]
    if processes:
        cluster.freeze(random.choice(processes), random.uniform(0.05, 12.0))


def freeze_head(cluster: SimCluster, random: Random) -> None:
    """The head stops for longer than what counts as dead."""
    if cluster.head is not None:
        cluster.freeze(cluster.head, random.uniform(5.0, 40.0))


def freeze_worker(cluster: SimCluster, random: Random) -> None:
    """SIGSTOP of a worker."""
    worker = _worker(cluster, random)
    if worker is not None:
        worker.frozen_until = cluster.clock.now + random.uniform(0.01, 8.0)


def slow(cluster: SimCluster, random: Random) -> None:
    """A node gets slow for a while."""
    raylet = _raylet(cluster, random)
    if raylet is not None:
        cluster.slow(raylet, random.choice([3.0, 10.0, 30.0]), random.uniform(1.0, 5.0))


def restart_head(cluster: SimCluster, random: Random) -> None:
    """The head is killed, and starts again on its store."""
    cluster.restart_head(after_s=random.choice([0.01, 0.5, random.uniform(0.1, 15.0)]))


def kill_worker(cluster: SimCluster, random: Random) -> None:
    """A worker is killed, most likely in the middle of a task."""
    worker = _worker(cluster, random)
    if worker is not None:
        cluster.kill_worker(worker)


def kill_unseen(cluster: SimCluster, random: Random) -> None:
    """Workers are killed while their node has no session: it cannot say so."""
    raylet = _raylet(cluster, random)
    if raylet is not None and raylet.link is not None:
        cluster.network.sever(raylet.link)
        for worker in [*raylet.workers.values()]:
            if worker.alive and random.random() < 0.7:
                cluster.kill_worker(worker)


def kill_actor(cluster: SimCluster, random: Random) -> None:
    """An actor's process is killed."""
    actors = [worker for worker in cluster.workers.values() if worker.actor is not None]
    if actors:
        cluster.kill_worker(random.choice(actors))


def cut_wire(cluster: SimCluster, random: Random) -> None:
    """A direct socket is closed although both its processes live: what may not be retried fails."""
    wires = [
        wire
        for worker in cluster.workers.values()
        if worker.actor is not None
        for wire in worker.actor.wires
    ]
    if wires:
        wire = random.choice(wires)
        cluster.clock.tell(f"the socket of {wire.caller.name} to {wire.worker.name} is closed")
        cluster.excuse(ACTOR_UNAVAILABLE)
        wire.sever()


def kill_raylet(cluster: SimCluster, random: Random) -> None:
    """A raylet is killed; another starts in its place, as the same node or as a new one."""
    raylet = _raylet(cluster, random)
    if raylet is not None:
        delay = random.choice([0.05, random.uniform(0.5, 10.0), 25.0])
        cluster.replace(raylet, delay, same_id=random.random() < 0.5)


def lose_machine(cluster: SimCluster, random: Random) -> None:
    """A machine disappears: no connection is reset, no port refuses."""
    raylet = _raylet(cluster, random)
    if raylet is not None:
        cluster.lose_machine(raylet)


def freeze_long(cluster: SimCluster, random: Random) -> None:
    """A raylet stops for longer than what counts as dead, and goes on."""
    raylet = _raylet(cluster, random)
    if raylet is not None:
        cluster.freeze(raylet, random.uniform(limits.DEAD_S, 3 * limits.DEAD_S))


def kill_driver(cluster: SimCluster, random: Random) -> None:
    """A driver dies, or leaves with a word."""
    alive = [driver for driver in cluster.drivers if driver.alive]
    if len(alive) > 1:
        driver = random.choice(alive)
        if random.random() < 0.5:
            driver.die()
        else:
            driver.leaving = True
            driver.wake()


def echo(cluster: SimCluster, random: Random) -> None:
    """A peer asks again for what was not answered yet."""
    drivers = [driver for driver in cluster.drivers if driver.alive and driver.linked()]
    raylets = [raylet for raylet in cluster.raylets if raylet.alive and raylet.linked()]
    if drivers and random.random() < 0.5:
        random.choice(drivers).ask_again()
    elif raylets:
        random.choice(raylets).ask_again()


def stutter(cluster: SimCluster, random: Random) -> None:
    """A raylet asks again and again for a while: what it says arrives several times."""
    raylet = _raylet(cluster, random)

    def again(times: int) -> None:
        if raylet is not None and raylet.alive and times:
            if raylet.linked():
                raylet.ask_again()
            cluster.clock.after(random.uniform(0.001, 0.1), again, times - 1)

    again(random.randint(5, 30))


def replay(cluster: SimCluster, random: Random) -> None:
    """The head starts again, and what was said before that arrives once more, at both ends."""

    def again() -> None:
        if cluster.head is not None:
            cluster.network.replay(cluster.head.gcs.epoch, random)

    cluster.restart_head(after_s=0.01)
    for delay in (0.3, 1.0, 3.0):
        cluster.clock.after(delay * random.uniform(0.5, 1.5), again)


def usurp(cluster: SimCluster, random: Random) -> None:
    """A head that another one has replaced goes on for a while, with some of its peers."""
    cluster.usurp_head(random.uniform(0.1, 12.0))


# ---- what is aimed at leases: drawn from a stream of its own --------------------------------


LEASE_WORDS = (m.Demand, m.Grant, m.Leased, m.Revoke, m.LeaseEnded, m.Leasing, m.CancelLeased)
HEARD = (m.Demand, m.Leased, m.LeaseEnded)  # by the head


def _leased(cluster: SimCluster, random: Random) -> SimWorker | None:
    leased = [worker for worker in cluster.workers.values() if worker.lease is not None]
    busy = [worker for worker in leased if worker.delivered is not None]
    pool = busy if busy and random.random() < 0.7 else leased
    return random.choice(pool) if pool else None


def freeze_leased(cluster: SimCluster, random: Random) -> None:
    """SIGSTOP of a worker that has a lease; what it has not taken can be taken back."""
    worker = _leased(cluster, random)
    if worker is not None:
        cluster.clock.tell(f"{worker.name} is stopped")
        worker.frozen_until = cluster.clock.now + random.choice([0.02, 0.2, 3.0])


def kill_leased(cluster: SimCluster, random: Random) -> None:
    """A worker that has a lease is killed."""
    worker = _leased(cluster, random)
    if worker is not None:
        cluster.kill_worker(worker)


def crowd(cluster: SimCluster, random: Random) -> None:
    """Somebody else wants the CPUs, too."""
    cluster.run_if_alive(fan_out, random.randrange(len(cluster.drivers)))


def unreachable(cluster: SimCluster, random: Random) -> None:
    """For a while no direct socket can be made: there are no descriptors left."""
    direct = cluster.world.direct
    before, direct.likely = direct.likely, 0.0

    def recover() -> None:
        direct.likely = max(direct.likely, before)

    cluster.clock.after(random.choice([0.05, 0.5, 3.0]), recover)


def lose_word(cluster: SimCluster, random: Random) -> None:
    """A connection is cut at the next word about leases."""
    cluster.cut_at(random.choice(LEASE_WORDS), behind=random.random() < 0.5)


def restart_head_soon(cluster: SimCluster, random: Random) -> None:
    """The head is killed just after it has heard of some lease."""
    traps, head = cluster.network.traps, cluster.head

    def strike() -> None:
        if trap in traps:
            traps.remove(trap)
        if cluster.head is head:
            cluster.restart_head(after_s=random.choice([0.01, 0.3]))

    def watches(link: Link, upwards: bool, messages: list[m.Message]) -> bool:
        if upwards and any(isinstance(message, HEARD) for message in messages):
            cluster.clock.after(random.choice([0.0, 0.0005, 0.002]), strike)
        return False

    trap = (watches, False)
    traps.append(trap)


# ---- what is aimed at leases on other machines: from one more stream ------------------------


def cut_port(cluster: SimCluster, random: Random) -> None:
    """A connection to a node's own port is reset."""
    links = [*cluster.world.far_ports.links.values()]
    if links:
        cluster.world.far_ports.sever(random.choice(links))


def cut_ports(cluster: SimCluster, random: Random) -> None:
    """All of them, several times in a row."""

    def again(times: int) -> None:
        for link in [*cluster.world.far_ports.links.values()]:
            cluster.world.far_ports.sever(link)
        if times:
            cluster.clock.after(random.choice([0.001, 0.02, 0.3]), again, times - 1)

    again(random.randint(0, 4))


def lose_relayed(cluster: SimCluster, random: Random) -> None:
    """A connection to a node's own port is cut at the next words of some kind."""
    up = random.random() < 0.5
    kinds = (m.WORD_PAYLOAD, m.WORD_TASKS, m.WORD_RECALL, m.WORD_CLOSE)
    kind = random.choice(kinds if up else (m.WORD_PAYLOAD, m.WORD_RETURNED, m.WORD_ENDED))

    def springs(link: PortLink, upwards: bool, messages: list[m.Message]) -> bool:
        relays = [message for message in messages if isinstance(message, m.Relay)]
        return up == upwards and any(word.kind == kind for one in relays for word in one.words)

    cluster.world.far_ports.traps.append(springs)


def wall(cluster: SimCluster, random: Random) -> None:
    """For a while nothing passes between a driver and a node's own port; others reach both."""
    ports = cluster.world.far_ports
    raylet, driver = _raylet(cluster, random), random.choice(cluster.drivers)
    if raylet is None:
        return
    pair = (driver.name, raylet.raylet.info.liveness)
    cluster.clock.tell(f"{pair[0]} does not reach {pair[1]} any more")
    ports.wall_up(*pair)
    cluster.clock.after(random.choice([0.3, 3.0, 30.0]), ports.walls.discard, pair)


def drain(cluster: SimCluster, random: Random) -> None:
    """An operator empties a node, most often without a deadline; another one comes."""
    raylet = _raylet(cluster, random)
    deadline_s, back_after_s = random.choice([0.0, 0.0, 0.0, 0.5, 5.0]), random.uniform(0.0, 5.0)
    if raylet is not None:
        cluster.drain_for_good(raylet, deadline_s, back_after_s)


FAR_GENTLE: tuple[Fault, ...] = (
    *(cut_port, cut_ports, lose_relayed, lose_relayed, lose_relayed, wall, lose_word),
)
FAR_DEADLY: tuple[Fault, ...] = (kill_raylet, kill_leased, lose_machine, freeze_long)

LEASE_GENTLE: tuple[Fault, ...] = (
    *(freeze_leased, freeze_leased, crowd, unreachable, lose_word, restart_head_soon),
)
LEASE_DEADLY: tuple[Fault, ...] = (kill_leased, kill_leased)

GENTLE: tuple[Fault, ...] = (  # after these, every value must still come
    *(cut, cut_all, silence, stall, freeze, freeze_head, freeze_worker, slow, restart_head, echo),
    *(cut_wire, cut_between, stutter, replay, usurp),
)
DEADLY: tuple[Fault, ...] = (
    *(kill_worker, kill_unseen, kill_actor, kill_raylet, lose_machine, freeze_long),
)
FINAL: tuple[Fault, ...] = (kill_driver,)
DRAINS: tuple[Fault, ...] = (drain,)
