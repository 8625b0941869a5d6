"""Stories of clusters with several heads: each thing that can happen to the one that leads."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.sim.stories import runs, started, until_done
from zray import limits
from zray.core.head.leadership import State
from zray.protocol import messages as m
from zray.testing.head_faults import HEARD, SAID
from zray.testing.processes.candidate import SimCandidate
from zray.testing.processes.steps import Get, Program, Sleep
from zray.testing.several_heads import SeveralHeads
from zray.testing.world.errors import ACTOR_UNAVAILABLE

FOLLOWED_S = 5.0  # a head that is killed is followed within


def working(driver: Any, random: Random) -> Program:
    """Tasks and numbered calls of one actor for some seconds; each runs once, in order."""
    actor, _ = driver.create("counter", [0.001, 0], cpus=0)
    for round_ in range(10):
        refs = [driver.submit("add", [0.3, 0, n], max_retries=0)[0] for n in range(2)]
        call = driver.call(actor, "inc", [0.001, 1])
        values = yield Get([*refs, *call])
        assert [value.number for value in values] == [0, 1, round_ + 1]
        yield Sleep(0.5)


def at_work(seed: int = 0, heads: int = 3, **others: Any) -> SeveralHeads:
    return SeveralHeads(seed, heads=heads, nodes=[{"CPU": 2}, {"CPU": 2}], drivers=2, **others)


def begin(cluster: SeveralHeads) -> SimCandidate:
    """Both drivers work, and a head leads."""
    for driver in (0, 1):
        cluster.run(working, driver)
    cluster.run_until(started(cluster, "add", 3), 10.0)
    cluster.run_until(cluster.is_led, 10.0)
    return leader(cluster)


def leader(cluster: SeveralHeads) -> SimCandidate:
    head = cluster.leader()
    assert head is not None
    return head


def is_followed(cluster: SeveralHeads, former: SimCandidate) -> Callable[[], bool]:
    """Another head leads, and all are with it."""
    return lambda: cluster.head is not former and cluster.is_led()


def end(cluster: SeveralHeads) -> None:
    """Nothing was lost, and nothing ran twice."""
    until_done(cluster)
    assert set(runs(cluster, "add")) == {1}
    cluster.finish()


# ---- another follows -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_that_is_killed_is_followed(seed: int) -> None:
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.kill_candidate(former, after_s=60.0)
        cluster.run_until(is_followed(cluster, former), FOLLOWED_S)
        end(cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_whose_machine_is_gone_is_followed(seed: int) -> None:
    """No connection is reset, and no port refuses: peers ask the others."""
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.lose_head_machine(former, after_s=60.0)
        cluster.run_until(is_followed(cluster, former), FOLLOWED_S)
        end(cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_that_steps_down_is_followed_at_once(seed: int) -> None:
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.step_down()
        cluster.run_until(is_followed(cluster, former), 1.0)
        cluster.run_for(limits.STEP_DOWN_S + 1.0)
        assert cluster.head is not former and former.alive
        end(cluster)


def test_the_only_head_does_not_step_down() -> None:
    with at_work(heads=1) as cluster:
        head = begin(cluster)
        epoch = head.gcs.epoch
        cluster.step_down()
        cluster.run_for(3.0)
        assert cluster.head is head and head.gcs.epoch == epoch
        end(cluster)


def test_the_lead_goes_round() -> None:
    """Each head in turn, while work goes on; epochs rise."""
    with at_work() as cluster:
        begin(cluster)
        led = {leader(cluster).name}
        for _ in range(6):
            former = leader(cluster)
            cluster.step_down()
            cluster.run_until(is_followed(cluster, former), 1.0)
            led.add(leader(cluster).name)
            cluster.run_for(0.3)
        assert len(led) > 1 and len(cluster.terms.leaders) == 7
        end(cluster)


# ---- a leader that sleeps --------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.5, 2.0, 2.8, 3.2, 10.0, 30.0])
def test_a_leader_that_is_stopped_says_nothing_once_another_leads(seconds: float) -> None:
    for seed in range(2):
        with at_work(seed) as cluster:
            former = begin(cluster)
            epoch = former.gcs.epoch
            cluster.freeze(former, seconds)
            cluster.run_for(seconds + 0.1)
            if seconds < 2.0:
                assert cluster.head is former and former.gcs.epoch == epoch
            if seconds > limits.LEADER_TTL_S:
                assert former.election.view().state is not State.LEADING or former.leads
                assert cluster.head is None or leader(cluster).gcs.epoch > epoch
            end(cluster)


@pytest.mark.parametrize("kind", [*HEARD, *SAID], ids=lambda kind: kind.__name__)
def test_a_leader_is_stopped_at_a_message(kind: type[m.Message]) -> None:
    with at_work(3) as cluster:
        begin(cluster)
        cluster.freeze_at(kind, 8.0)
        for link in [*cluster.network.links.values()]:
            cluster.network.sever(link)
        cluster.run_for(9.0)
        assert cluster.terms.leaders[1:], "another has followed"
        end(cluster)


# ---- cuts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_that_does_not_reach_the_store_stands_by(seed: int) -> None:
    """In the same process; it leads again when it is its turn."""
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.cut_from_store(former, 8.0)
        cluster.run_until(is_followed(cluster, former), FOLLOWED_S)
        assert former.alive and not former.leads
        cluster.run_for(8.0)
        cluster.kill_candidate(leader(cluster), after_s=60.0)
        cluster.run_until(lambda: cluster.head is not None, FOLLOWED_S)
        end(cluster)


def test_a_leader_whose_peers_do_not_reach_it_leads_on() -> None:
    """It has the store: what peers can reach makes no difference to that, and they come back."""
    with at_work() as cluster:
        head = begin(cluster)
        epoch = head.gcs.epoch
        cluster.cut_from_peers(head, 4.0)
        cluster.run_for(4.0)
        cluster.run_until(cluster.is_led, 15.0)
        assert cluster.head is head and head.gcs.epoch == epoch
        end(cluster)


def test_a_leader_that_is_cut_from_store_and_peers_is_followed() -> None:
    with at_work() as cluster:
        former = begin(cluster)
        cluster.cut_from_store(former, 20.0)
        cluster.cut_from_peers(former, 20.0)
        cluster.run_until(is_followed(cluster, former), FOLLOWED_S)
        end(cluster)


# ---- the store -------------------------------------------------------------------------------


def test_a_store_without_a_majority_for_a_moment_changes_nothing() -> None:
    with at_work() as cluster:
        head = begin(cluster)
        epoch = head.gcs.epoch
        cluster.lose_quorum(1.5)
        cluster.run_for(5.0)
        assert cluster.head is head and head.gcs.epoch == epoch
        end(cluster)


@pytest.mark.parametrize("seconds", [4.0, 30.0])
def test_a_store_without_a_majority_has_no_leader_until_it_has_one(seconds: float) -> None:
    """Running tasks and direct calls go on; no process of a head ends."""
    for seed in range(2):
        with at_work(seed) as cluster:
            heads = {begin(cluster), *cluster.candidates.values()}
            cluster.excuse(ACTOR_UNAVAILABLE)
            cluster.lose_quorum(seconds)
            cluster.run_for(3.0)
            assert cluster.head is None
            cluster.run_for(seconds - 3.0)
            cluster.run_until(cluster.is_led, 15.0)
            assert heads == {*cluster.candidates.values()}
            end(cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_store_that_is_slow_or_loses_answers_loses_no_row(seed: int) -> None:
    with at_work(seed) as cluster:
        begin(cluster)
        cluster.slow_store(2.0, 6.0)
        cluster.run_for(2.0)
        cluster.lossy_store(0.5, 5.0)
        cluster.run_for(6.0)
        end(cluster)


def test_a_leader_whose_key_somebody_deletes_is_followed_and_not_followed_again() -> None:
    """It serves until it looks. Who was with it, and knows the next, does not go back."""
    for seed in range(2):
        with at_work(seed) as cluster:
            former = begin(cluster)
            cluster.usurp_head(0.0)
            cluster.run_until(lambda: cluster.terms.leaders[1:] != [], FOLLOWED_S)
            cluster.run_until(cluster.is_led, FOLLOWED_S)
            until_done(cluster)
            cluster.finish()
            assert former.alive


# ---- clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [86400.0, -86400.0])
def test_setting_a_clock_changes_nothing(seconds: float) -> None:
    with at_work() as cluster:
        head = begin(cluster)
        epoch = head.gcs.epoch
        for one in cluster.candidates.values():
            cluster.step_wall_clock(one, seconds * (1 if one is head else -1))
        cluster.run_for(6.0)
        assert cluster.head is head and head.gcs.epoch == epoch
        end(cluster)


# ---- several at once -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_the_next_leader_is_killed_while_it_takes_over(seed: int) -> None:
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.kill_candidate(former, after_s=2.0)
        cluster.run_until(lambda: any(one.has_won() for one in cluster.candidates.values()), 10.0)
        (second,) = [one for one in cluster.candidates.values() if one.has_won()]
        cluster.kill_candidate(second, after_s=1.0)
        cluster.run_until(lambda: cluster.head is not None, 2 * FOLLOWED_S)
        end(cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_is_killed_while_the_store_has_no_majority(seed: int) -> None:
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.lose_quorum(2.0)
        cluster.kill_candidate(former, after_s=10.0)
        cluster.run_until(is_followed(cluster, former), 2 * FOLLOWED_S)
        end(cluster)


@pytest.mark.parametrize("seed", range(2))
def test_a_leader_and_a_node_are_killed_at_once(seed: int) -> None:
    with at_work(seed) as cluster:
        former = begin(cluster)
        cluster.kill_candidate(former, after_s=3.0)
        cluster.replace(cluster.raylets[0], 1.0, same_id=False)
        cluster.run_until(is_followed(cluster, former), FOLLOWED_S)
        cluster.run_for(30.0)
        cluster.finish()


def test_all_heads_are_killed_and_others_start() -> None:
    with at_work() as cluster:
        begin(cluster)
        epoch = cluster.terms.leaders[-1]
        for head in [*cluster.candidates.values()]:
            cluster.kill_candidate(head, after_s=2.0)
        cluster.run_for(2.0)
        cluster.run_until(cluster.is_led, FOLLOWED_S)
        assert cluster.terms.leaders[-1] > epoch
        end(cluster)


def test_what_was_said_in_an_earlier_epoch_is_ignored() -> None:
    """At nodes, drivers and heads."""
    with at_work() as cluster:
        former = begin(cluster)
        cluster.step_down()
        cluster.run_until(is_followed(cluster, former), 1.0)
        for _ in range(6):
            cluster.network.replay(leader(cluster).gcs.epoch, cluster.random)
            cluster.run_for(0.3)
        end(cluster)
