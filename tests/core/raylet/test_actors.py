"""The actors that live on a node, without the raylet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.core.benches import UNIT, identity
from zray.core.machine import Outbox
from zray.core.raylet.actors import HostedActors
from zray.core.raylet.completions import Completions
from zray.core.raylet.local_records import PoolKey, WorkerSlot
from zray.core.raylet.local_scheduler import LocalScheduler
from zray.protocol import messages as m

ACTOR, OTHER = identity("actor"), identity("other")
KEY: PoolKey = (identity("job"), (), 1, "")


class Bench:
    """Two workers, of which the first is the second incarnation of an actor."""

    def __init__(self) -> None:
        self.outbox: Outbox[bytes] = Outbox()
        self.to_head: list[Any] = []
        self.killed: list[tuple[bytes, str]] = []
        scheduler = LocalScheduler({"CPU": 4 * UNIT}, 0)
        numbers: Iterator[int] = count(1)
        self.completions = Completions(self.to_head.append, numbers)
        self.actors = HostedActors(
            *(self.outbox, scheduler, self.completions, self.to_head.append),
            lambda slot, why: self.killed.append((slot.worker_id, why)),
        )
        self.slot, self.caller = (WorkerSlot(identity(name), KEY) for name in ("w1", "w2"))
        for slot in (self.slot, self.caller):
            scheduler.add_worker(slot)
        self.actors.made(self.slot, ACTOR, 2)


def calls(actor: bytes, incarnation: int) -> m.Calls:
    return m.Calls(0, actor, incarnation, identity("w2"), 0, [])


def test_calls_reach_the_incarnation_that_they_are_for_and_no_other() -> None:
    bench = Bench()
    bench.actors.on_calls(calls(ACTOR, 1))
    bench.actors.on_calls(calls(OTHER, 2))
    assert not bench.outbox.take() and not bench.to_head
    bench.actors.on_calls(calls(ACTOR, 2))
    assert bench.outbox.take() == {identity("w1"): [calls(ACTOR, 2)]}


def test_a_worker_s_calls_and_answers_go_the_shortest_way() -> None:
    bench = Bench()
    bench.actors.on_worker_calls(calls(ACTOR, 2))
    here = m.Replies(0, ACTOR, 2, identity("w2"), [])
    bench.actors.pass_on(here)
    assert bench.outbox.take() == {identity("w1"): [calls(ACTOR, 2)], identity("w2"): [here]}
    assert not bench.to_head
    away = m.Replies(0, ACTOR, 2, identity("driver"), [])
    bench.actors.on_worker_calls(calls(OTHER, 1))
    bench.actors.pass_on(away)
    assert bench.to_head == [calls(OTHER, 1), away] and not bench.outbox


def test_generators_and_their_consumers_hear_each_other() -> None:
    bench = Bench()
    items = m.Items(0, identity("w1"), identity("w2"), OTHER, [])
    away = m.Taken(0, identity("w2"), identity("elsewhere"), OTHER, 1, 0)
    bench.actors.pass_on(items)
    bench.actors.pass_on(away)
    assert bench.outbox.take() == {identity("w2"): [items]} and bench.to_head == [away]
    bench.actors.deliver(items)
    bench.actors.deliver(away)
    assert bench.outbox.take() == {identity("w2"): [items]}
    assert bench.to_head == [away], "what the head believed to be here is not sent back"


def test_a_graceful_end_is_the_actor_s_own_and_told_as_meant() -> None:
    bench = Bench()
    bench.actors.on_stop(m.StopActor(0, ACTOR, 1, True, "of the past"))
    bench.actors.on_stop(m.StopActor(0, ACTOR, 2, True, "nobody has its handle"))
    assert [type(message) for message in bench.outbox.take()[identity("w1")]] == [m.Exit]
    assert not bench.killed
    bench.actors.exited(bench.slot, "exit code 0")
    (end,) = bench.to_head
    assert (end.actor_id, end.incarnation, end.intended) == (ACTOR, 2, True)
    assert end.text == "nobody has its handle"
    assert not bench.actors.announced()
    assert bench.completions.held_actors(), "until the head has acknowledged the end"


def test_one_that_is_to_end_at_once_or_is_not_wanted_is_killed() -> None:
    bench = Bench()
    bench.actors.on_stop(m.StopActor(0, ACTOR, 2, False, "it was killed"))
    assert bench.killed == [(identity("w1"), "it was killed")]
    bench.actors.discard(m.HeldTask(ACTOR, 1, identity("job"), bytes(16)))
    assert len(bench.killed) == 1, "another incarnation"
    bench.actors.discard(m.HeldTask(ACTOR, 2, identity("job"), bytes(16)))
    assert len(bench.killed) == 2
    bench.actors.exited(bench.slot, "its worker died: signal 9")
    (end,) = bench.to_head
    assert (end.intended, end.text) == (False, "its worker died: signal 9")


def test_the_end_of_a_worker_that_is_no_actor_is_none_of_an_actor() -> None:
    bench = Bench()
    bench.actors.exited(bench.caller, "signal 9")
    assert not bench.to_head
    assert [held.incarnation for held in bench.actors.announced()] == [2]
