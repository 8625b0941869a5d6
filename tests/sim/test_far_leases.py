"""Workers leased to drivers on other machines, told on purpose: what is cut, and who dies."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.sim.lease_ways import FAR, far, kill_in_a_task, linked, one_burst, reach
from tests.sim.stories import burst, failures, leased, lessees, runs, until_done
from zray.protocol import messages as m
from zray.testing.cluster import SimCluster
from zray.testing.processes.steps import Get, Program, Sleep
from zray.testing.world.ports import PortLink

CRASHED = "ZR-3003"
UP = (m.WORD_PAYLOAD, m.WORD_TASKS, m.WORD_RECALL, m.WORD_CLOSE)
DOWN = (m.WORD_PAYLOAD, m.WORD_RETURNED)


def cut_at_word(cluster: SimCluster, kind: int, *, upwards: bool, after: int = 0) -> None:
    """Cut the connection to a port on which a word of a kind is sent, after so many of it."""
    seen = [0]

    def springs(link: PortLink, up: bool, messages: list[m.Message]) -> bool:
        relays = [message for message in messages if isinstance(message, m.Relay)]
        if up == upwards and any(word.kind == kind for one in relays for word in one.words):
            seen[0] += 1
        return seen[0] > after

    cluster.world.far_ports.traps.append(springs)


# ---- the way in ----------------------------------------------------------------------------


def test_nodes_of_its_own_machine_come_first() -> None:
    def story(driver: Any, random: Random) -> Program:
        yield from reach(driver, 0.002)
        for _ in range(40):
            yield Get(burst(driver, 0.002, 1, max_retries=0))

    # The driver is on the machine of the first node.
    with far(2, nodes=[{"CPU": 1}, {"CPU": 4}], machines=2) as cluster:
        cluster.run(story)
        until_done(cluster)
        last = [*cluster.ledger.tasks.values()][-40:]
        assert {run.worker.name.partition("/")[0] for deed in last for run in deed.runs} == {"n1"}
        cluster.finish()


def test_a_port_out_of_reach_keeps_nobody_waiting() -> None:
    def story(driver: Any, random: Random) -> Program:
        for _ in range(20):
            began = driver.clock.now
            yield Get(burst(driver, 0.001, 20, max_retries=0))
            assert driver.clock.now - began < 0.2
            yield Sleep(0.3)

    with far(3) as cluster:
        cluster.world.far_ports.wall_up("d1", "host-n1:1")
        cluster.run(story)
        until_done(cluster)
        assert not leased(cluster) and runs(cluster, "add") == [1] * 400
        cluster.finish()


@pytest.mark.parametrize("stopped", [True, False])
def test_what_is_behind_a_long_task_moves_to_an_idle_worker(stopped: bool) -> None:
    """Its worker may even be stopped: its node takes the tasks out of the queue."""

    def story(driver: Any, random: Random) -> Program:
        yield from reach(driver, 0.01)
        refs = burst(driver, 0.01, 12, max_retries=0)
        yield Get(refs[:4])
        if stopped:
            worker = next(w for w in lessees(cluster) if w.delivered is not None)
            worker.frozen_until = driver.clock.now + 30.0
        else:
            refs += burst(driver, 5.0, 1, max_retries=0)
            refs += burst(driver, 0.01, 8, max_retries=0)
        began = driver.clock.now
        while len([ref for ref in refs if ref.oid not in driver.client.outcomes]) > 1:
            yield Sleep(0.005)
            assert driver.clock.now - began < 1.0
        yield Get(refs)

    with far(6) as cluster:
        cluster.run(story)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert set(runs(cluster, "add")) == {1}
        cluster.finish()


# ---- cuts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("kind", "upwards"), [*((kind, True) for kind in UP), *((kind, False) for kind in DOWN)]
)
def test_a_word_that_is_lost_is_said_again(kind: int, upwards: bool, after: int) -> None:
    """Nothing may be retried, and nothing runs twice."""

    def story(driver: Any, random: Random) -> Program:
        yield from reach(driver, 0.002)
        for _ in range(4):
            refs = burst(driver, 0.002, 30, max_retries=0)
            refs += burst(driver, 0.05, 3, max_retries=0)
            yield Get(refs)
            yield Sleep(0.3)  # leases end meanwhile

    for seed in range(3):
        with far(seed) as cluster:
            cut_at_word(cluster, kind, upwards=upwards, after=after)
            cluster.run(story)
            until_done(cluster)
            assert runs(cluster, "add") == [1] * 152
            assert leased(cluster) > 50
            cluster.finish()


def test_a_connection_that_is_cut_again_and_again() -> None:
    with far(7) as cluster:
        cluster.run(one_burst(FAR, 0.002, 400))
        for _ in range(50):
            cluster.run_for(0.02)
            for link in linked(cluster):
                cluster.world.far_ports.sever(link)
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 420
        cluster.finish()


@pytest.mark.parametrize("for_s", [1.0, 5.0, 60.0])
def test_a_port_that_gets_out_of_reach_loses_nothing(for_s: float) -> None:
    """Ends that were not heard come by way of the head, as do the next tasks."""

    def story(driver: Any, random: Random) -> Program:
        yield from one_burst(FAR, 0.01, 400)(driver, random)
        yield Sleep(for_s + 70.0)
        yield from one_burst(FAR, 0.01, 100)(driver, random)

    with far(8) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        ports = cluster.world.far_ports
        ports.wall_up("d1", "host-n1:1")
        cluster.clock.after(for_s, ports.walls.discard, ("d1", "host-n1:1"))
        before = leased(cluster)
        until_done(cluster, 300.0)
        assert runs(cluster, "add") == [1] * 540
        assert leased(cluster) > before + 90  # by leases again, at last
        cluster.finish()


@pytest.mark.parametrize("seconds", [0.5, 3.0, 12.0])
def test_a_node_that_is_stopped_for_a_while_loses_nothing(seconds: float) -> None:
    with far(9, nodes=[{"CPU": 2}, {"CPU": 2}]) as cluster:
        cluster.run(one_burst(FAR, 0.01, 300))
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        cluster.freeze(cluster.raylets[0], seconds)
        until_done(cluster, 120.0)
        assert runs(cluster, "add") == [1] * 320
        cluster.finish()


# ---- deaths --------------------------------------------------------------------------------


def test_a_worker_dies_while_its_node_is_out_of_reach() -> None:
    """What it had answered counts: only the task that it ran is charged."""

    def story(driver: Any, random: Random) -> Program:
        yield from reach(driver, 0.01)
        errors = yield from failures(burst(driver, 0.01, 200, max_retries=0))
        assert [error.code for error in errors] == [CRASHED]

    with far(10) as cluster:
        cluster.run(story)
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        ports = cluster.world.far_ports
        ports.wall_up("d1", "host-n1:1")
        kill_in_a_task(cluster)
        cluster.clock.after(20.0, ports.walls.clear)
        until_done(cluster)
        assert cluster.drivers[0].threads[0].error is None
        assert runs(cluster, "add") == [1] * 220
        cluster.finish()


@pytest.mark.parametrize("after_s", [0.5, 30.0])
def test_the_head_restarts_while_a_port_is_out_of_reach(after_s: float) -> None:
    with far(14) as cluster:
        cluster.run(one_burst(FAR, 0.05, 200))
        cluster.run_until(lambda: len(lessees(cluster)) == 2 and leased(cluster) > 30, 9.0)
        cluster.world.far_ports.wall_up("d1", "host-n1:1")
        cluster.run_for(1.99)
        cluster.restart_head(after_s)
        until_done(cluster, 120.0)
        assert runs(cluster, "add") == [1] * 220
        cluster.finish()


# ---- liars ---------------------------------------------------------------------------------


def test_who_has_no_lease_reaches_no_worker() -> None:
    """Another driver says that a lease is its own, or names its submitter; nobody is harmed."""

    with far(19, drivers=2) as cluster:
        cluster.run(one_burst(FAR, 0.01, 200))
        cluster.run_until(lambda: leased(cluster) > 50, 5.0)
        relays = cluster.raylets[0].raylet.lease_relays
        victim, liar = (driver.process_id for driver in cluster.drivers)
        lease_id = next(iter(relays._relays))
        junk = [m.LeaseWord(m.WORD_TASKS, b"junk"), m.LeaseWord(m.WORD_CLOSE)]
        hello = (m.PROTOCOL_VERSION, m.ROLE_DRIVER, liar, 7, b"", m.Versions("3", "0", "3"))
        relays.on_relay("liar", m.Relay(0, liar, bytes(16), lease_id, 7, 1, 0, junk))
        relays.on_hello("liar", m.Hello(0, *hello))
        relays.on_relay("liar", m.Relay(0, liar, bytes(16), lease_id, 7, 1, 0, junk))
        relays.on_relay("liar", m.Relay(0, victim, bytes(16), lease_id, 7, 1, 0, junk))
        answers = relays.outbox.take()["liar"]
        kinds = [m.Rejoin, m.Welcome, m.RelayRefused, m.RelayRefused]
        assert [type(answer) for answer in answers] == kinds
        until_done(cluster)
        assert runs(cluster, "add") == [1] * 220
        cluster.finish()
