"""What goes wrong where there are several heads: with them, their store, and between these."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zray import limits
from zray.protocol import messages as m
from zray.testing.processes.candidate import SimCandidate
from zray.testing.several_heads import SeveralHeads

HeadFault = Callable[[SeveralHeads, Random], None]

HEARD = (m.Hello, m.Announce, m.Submit, m.Done, m.Ping)
SAID = (m.Welcome, m.Tasks, m.Result, m.Pong)


def _head(cluster: SeveralHeads, random: Random) -> SimCandidate | None:
    """Most often the one that leads."""
    head = cluster.leader()
    if head is not None and random.random() < 0.8:
        return head
    others = cluster.standbys()
    return random.choice(others) if others else head


def _seconds(random: Random) -> float:
    """Shorter and longer than a lease, and just about as long."""
    ttl_s, fence_s = limits.LEADER_TTL_S, limits.LEADER_FENCE_S
    return random.choice(
        [random.uniform(0.05, 1.5), random.uniform(fence_s, ttl_s + 1.0), random.uniform(4.0, 15.0)]
    )


def kill(cluster: SeveralHeads, random: Random) -> None:
    """A head is killed; another starts there."""
    head = _head(cluster, random)
    if head is not None:
        cluster.kill_candidate(head, random.choice([0.05, 1.0, random.uniform(0.1, 15.0)]))


def kill_twice(cluster: SeveralHeads, random: Random) -> None:
    """Whoever leads is killed, and whoever follows, perhaps before it has read everything."""
    cluster.trouble(6.0)
    kill(cluster, random)
    for delay in (random.uniform(0.0, 4.5), random.uniform(3.0, 6.0)):
        cluster.clock.after(delay, kill, cluster, random)


def lose_machine(cluster: SeveralHeads, random: Random) -> None:
    """A head's machine disappears: no connection is reset, no port refuses."""
    head = _head(cluster, random)
    if head is not None:
        cluster.lose_head_machine(head, random.uniform(3.0, 20.0))


def freeze(cluster: SeveralHeads, random: Random) -> None:
    """A head stops, and goes on."""
    head = _head(cluster, random)
    if head is not None and head.frozen_until <= cluster.clock.now:
        cluster.freeze(head, _seconds(random))


def freeze_at_a_word(cluster: SeveralHeads, random: Random) -> None:
    """The same at a message."""
    cluster.freeze_at(random.choice(HEARD + SAID), _seconds(random))


def cut_from_store(cluster: SeveralHeads, random: Random) -> None:
    """A head does not reach the store for a while."""
    head = _head(cluster, random)
    if head is not None:
        cluster.cut_from_store(head, _seconds(random))


def cut_from_peers(cluster: SeveralHeads, random: Random) -> None:
    """Peers do not reach a head for a while; it leads on."""
    head = _head(cluster, random)
    if head is not None:
        cluster.cut_from_peers(head, _seconds(random))


def cut_off(cluster: SeveralHeads, random: Random) -> None:
    """A head is cut from store and peers."""
    head, seconds = _head(cluster, random), _seconds(random)
    if head is not None:
        cluster.cut_from_store(head, seconds)
        cluster.cut_from_peers(head, seconds)


def nod_off(cluster: SeveralHeads, random: Random) -> None:
    """The head that leads stops while it waits for the answer to a renewal, and has lost the store
    soon after it has read that."""

    def strike(tries: int) -> None:
        head = cluster.leader()
        if head is not None and head.election.waits():
            seconds = random.uniform(1.0, limits.LEADER_FENCE_S - limits.LEADER_RENEW_S)
            cluster.freeze(head, seconds)
            cluster.clock.after(seconds + random.uniform(0.03, 0.3), cut, head)
        elif tries:
            cluster.clock.after(0.002, strike, tries - 1)

    def cut(head: SimCandidate) -> None:
        cluster.cut_from_store(head, random.uniform(4.0, 8.0))

    cluster.trouble(5.0)
    strike(500)


def lose_quorum(cluster: SeveralHeads, random: Random) -> None:
    """The store has no majority for a while."""
    cluster.lose_quorum(_seconds(random))


def slow_store(cluster: SeveralHeads, random: Random) -> None:
    """The store is slow for a while."""
    cluster.slow_store(random.choice([0.3, 1.0, 2.0, 4.0]), random.uniform(1.0, 10.0))


def lossy_store(cluster: SeveralHeads, random: Random) -> None:
    """Questions and answers are lost for a while."""
    cluster.lossy_store(random.choice([0.1, 0.5, 0.9]), random.uniform(1.0, 8.0))


def step_down(cluster: SeveralHeads, random: Random) -> None:
    """An operator wants another head to lead."""
    cluster.step_down()


def step_wall_clock(cluster: SeveralHeads, random: Random) -> None:
    """The clock of a machine is set."""
    head = _head(cluster, random)
    if head is not None:
        cluster.step_wall_clock(head, random.choice([-86400.0, -3600.0, -1.0, 3600.0, 86400.0]))


def replay(cluster: SeveralHeads, random: Random) -> None:
    """Another head leads, and what was said before that arrives once more."""

    def again() -> None:
        if cluster.head is not None:
            cluster.network.replay(cluster.head.gcs.epoch, random)

    cluster.trouble(9.0)
    random.choice([kill, step_down, freeze])(cluster, random)
    for delay in (1.0, 4.0, 6.0):
        cluster.clock.after(delay * random.uniform(0.5, 1.5), again)


def lose_key(cluster: SeveralHeads, random: Random) -> None:
    """Somebody deletes the leader's key."""
    cluster.usurp_head(0.0)


def all_at_once(cluster: SeveralHeads, random: Random) -> None:
    """All heads are killed; others start."""
    for head in [*cluster.candidates.values()]:
        cluster.kill_candidate(head, random.uniform(0.05, 5.0))


HEAD_FAULTS: tuple[HeadFault, ...] = (
    *(kill, kill, kill_twice, lose_machine, freeze, freeze, freeze_at_a_word, freeze_at_a_word),
    *(cut_from_store, cut_from_store, cut_from_peers, cut_off, nod_off, nod_off, lose_quorum),
    *(
        slow_store,
        lossy_store,
        step_down,
        step_down,
        step_wall_clock,
        replay,
        lose_key,
        all_at_once,
    ),
)
