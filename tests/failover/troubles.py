"""What befalls heads, their etcd and nodes: kill -9, lost machines, pauses, cuts, stepping down.

A trouble does all of its own and heals it, so that after it everything runs again that did. What it
does it notes at the testbed, with the moment.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.failover.machines import Way, between
from tests.failover.testbed import FAR, HEADS, KEPT, MEMBERS, NODES, Testbed
from zray import limits

PEERS = (*NODES, FAR)
# Nodes that the leader does not hear are away for it, and calls of actors there fail: not so long.
NEARLY_AWAY_S = limits.AWAY_S / 2

Act = Callable[[Testbed, random.Random, "Spans"], None]


class Spans(NamedTuple):
    """How long things last, in seconds."""

    pause_s: float  # of a head or member that sleeps; longer than any lease
    cut_s: float
    without_quorum_s: float


LONG = Spans(pause_s=30, cut_s=20, without_quorum_s=20)
SHORT = Spans(pause_s=8, cut_s=6, without_quorum_s=5)
TROUBLES: dict[str, Act] = {}


def trouble(function: Act) -> Act:
    TROUBLES[function.__name__] = function
    return function


@contextmanager
def a_head(bed: Testbed, chance: random.Random) -> Iterator[str]:
    """Mostly the one that leads."""
    leader = bed.leader()
    wanted = [leader] if leader and bed.calm(leader) and chance.random() < 0.8 else bed.names
    with bed.held(wanted, chance) as name:
        yield name


@contextmanager
def told(bed: Testbed, name: str, what: str) -> Iterator[None]:
    """What the block does to the head; the moment is that after it."""
    leads = name != "" and bed.leader() == name
    yield
    bed.note(f"{name}{' (leads)' if leads else ''} {what}", of_leader=leads)


# ---- ends ---------------------------------------------------------------------------------------


@trouble
def a_killed_head(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    with a_head(bed, chance) as name:
        with told(bed, name, "is killed"):
            bed.kill_head(name)
        time.sleep(chance.choice((0.0, 1.0, 5.0)))
        bed.start_head(name)


@trouble
def a_lost_machine(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    with a_head(bed, chance) as name:
        with told(bed, name, "is lost with its machine"):
            bed.lose_head(name)
        time.sleep(chance.uniform(4, 8))
        bed.machines.renew(name)
        bed.start_head(name)


@trouble
def a_stopped_head(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    with a_head(bed, chance) as name:
        with told(bed, name, "is told to stop (SIGTERM)"):
            bed.heads[name].signal(signal.SIGTERM)
        bed.await_end_of_head(name)
        time.sleep(chance.uniform(0, 3))
        bed.start_head(name)


@trouble
def a_step_down(bed: Testbed, _chance: random.Random, _spans: Spans) -> None:
    calm = bed.calm()
    with told(bed, bed.leader(), "is about to be asked to step down"):
        pass
    status, said = bed.command("head", "step-down")
    bed.note(f"that was said: {said.strip()[-200:]!r}")
    # Else it may have been struck meanwhile, and others may not have been there to lead.
    assert status == 0 or not (calm and bed.calm()), f"exit status {status}: {said}"


@trouble
def a_killed_node(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    with bed.held({*NODES} - {*KEPT}, chance) as name:
        bed.kill_node(name)
        bed.note(f"{name} is killed")
        time.sleep(chance.uniform(0, 3))
        bed.start_node(name)


# ---- pauses -------------------------------------------------------------------------------------


@trouble
def a_paused_head(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    with a_head(bed, chance) as name:
        with told(bed, name, f"sleeps for {spans.pause_s:g} s"):
            bed.heads[name].signal(signal.SIGSTOP)
        time.sleep(spans.pause_s)
        bed.heads[name].signal(signal.SIGCONT)
        bed.note(f"{name} wakes")


@trouble
def a_nap(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    """Shorter than a lease, or about as long."""
    with a_head(bed, chance) as name:
        seconds = chance.choice((0.5, 1.5, 2.0, 2.5, 3.0, 4.0))
        with told(bed, name, f"sleeps for {seconds:g} s"):
            bed.heads[name].signal(signal.SIGSTOP)
        time.sleep(seconds)
        bed.heads[name].signal(signal.SIGCONT)


# ---- cuts ---------------------------------------------------------------------------------------


def cut(bed: Testbed, name: str, what: str, ways: set[Way], seconds: float) -> None:
    with told(bed, name, f"{what} for {seconds:g} s"):
        bed.machines.cut(ways)
    try:
        time.sleep(seconds)
    finally:
        bed.machines.heal(ways)
        bed.note("the cut is healed")


@trouble
def a_head_cut_from_etcd(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    with a_head(bed, chance) as name:
        cut(bed, name, "is cut off from etcd", between(name, MEMBERS), spans.cut_s)


@trouble
def a_head_cut_from_peers(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    with a_head(bed, chance) as name:
        seconds = min(spans.cut_s, NEARLY_AWAY_S)
        ways = between(name, (*PEERS, *bed.names))
        cut(bed, name, "is cut off from all but etcd", ways, seconds)


@trouble
def a_head_cut_off(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    with a_head(bed, chance) as name:
        ways = between(name, (*PEERS, *bed.names, *MEMBERS))
        cut(bed, name, "is cut off from all", ways, spans.cut_s)


@trouble
def a_mute_head(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    """It hears and is not heard."""
    with a_head(bed, chance) as name:
        others = {*PEERS, *bed.names, *MEMBERS} - {name}
        ways = {(name, other) for other in others}
        cut(bed, name, "is not heard by anybody", ways, spans.cut_s)


@trouble
def a_deaf_head(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    """It is heard, by etcd only, and hears nothing."""
    with a_head(bed, chance) as name:
        ways = {(other, name) for other in MEMBERS}
        cut(bed, name, "does not hear etcd", ways, spans.cut_s)


# ---- etcd ---------------------------------------------------------------------------------------


@contextmanager
def a_member(bed: Testbed, chance: random.Random) -> Iterator[int]:
    assert bed.etcd is not None
    wanted = [MEMBERS[bed.etcd.leader()]] if chance.random() < 0.6 else MEMBERS
    with bed.held(wanted, chance) as name:
        yield MEMBERS.index(name)


@trouble
def a_killed_member(bed: Testbed, chance: random.Random, _spans: Spans) -> None:
    assert bed.etcd is not None
    with a_member(bed, chance) as number:
        bed.etcd.kill(number)
        bed.note(f"{MEMBERS[number]} is killed")
        time.sleep(chance.uniform(0, 4))
        bed.etcd.start(number)


@trouble
def a_paused_member(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    assert bed.etcd is not None
    with a_member(bed, chance) as number:
        bed.note(f"{MEMBERS[number]} sleeps for {spans.cut_s:g} s")
        bed.etcd.signal(number, signal.SIGSTOP)
        time.sleep(spans.cut_s)
        bed.etcd.signal(number, signal.SIGCONT)


@trouble
def a_member_cut_off(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    with a_member(bed, chance) as number:
        name = MEMBERS[number]
        cut(bed, name, "is cut off", between(name, (*MEMBERS, *bed.names)), spans.cut_s)


@trouble
def no_quorum(bed: Testbed, chance: random.Random, spans: Spans) -> None:
    """Two of three are killed or asleep: nobody can lead for a while."""
    assert bed.etcd is not None
    with bed.held(MEMBERS, chance) as one, bed.held(MEMBERS, chance) as other:
        seconds = spans.without_quorum_s
        numbers = [MEMBERS.index(one), MEMBERS.index(other)]
        if chance.random() < 0.5:
            bed.note(f"{one} and {other} are killed for {seconds:g} s")
            for number in numbers:
                bed.etcd.kill(number)
            time.sleep(seconds)
            for number in numbers:
                bed.etcd.start(number, wait=False)
        else:
            bed.note(f"{one} and {other} sleep for {seconds:g} s")
            for number in numbers:
                bed.etcd.signal(number, signal.SIGSTOP)
            time.sleep(seconds)
            for number in numbers:
                bed.etcd.signal(number, signal.SIGCONT)
        bed.note("etcd has a quorum again")
        for number in range(len(MEMBERS)):
            bed.etcd.await_member(number)


# Both need two members: they would wait for each other's.
OF_MEMBERS = {"a_killed_member", "a_paused_member", "a_member_cut_off", "no_quorum"}
assert len(HEADS) == len(MEMBERS)
