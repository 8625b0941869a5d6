"""Leases on nodes of other machines through a whole head: who reaches them, and who has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import UNIT, HeadBench, identity, template
from zray import limits
from zray.core.head.roles import FORBIDDEN
from zray.errors import NodeDiedError
from zray.protocol import messages as m

WORK = template()
CPU = [("CPU", UNIT)]
DRIVER, NEAR, FAR = identity("d"), identity("near"), identity("far")


def demand(bench: HeadBench, count: int) -> None:
    bench.say("d", m.Demand(0, DRIVER, DRIVER, CPU, count))


def reaches(bench: HeadBench, *names: str) -> None:
    bench.say("d", m.Reaches(0, DRIVER, b"".join(map(identity, names))))
    bench.after(limits.LEASE_PAUSE_S)


def opened(bench: HeadBench) -> bool:
    """Whether the driver has heard that its tasks may wait for leases."""
    return any(one.open for one in bench.taken("d", m.Leasing))


def leased(bench: HeadBench, route: str) -> bytes:
    (grant,) = bench.taken(route, m.Grant)
    held = m.HeldLease(grant.lease_id, DRIVER, DRIVER, CPU, identity("w"))
    bench.say(route, m.Leased(0, held, "elsewhere", route, identity(route)))
    return bytes(grant.lease_id)


def cluster(near: float = 1, far: float = 1) -> HeadBench:
    bench = HeadBench()
    if near:
        bench.node("near", cpus=near)
    bench.node("far", cpus=far, machine="elsewhere")
    bench.driver("d", WORK)
    return bench


def test_a_node_elsewhere_is_told_of_and_used_once_it_is_reached() -> None:
    bench = cluster(near=0)
    demand(bench, 1)
    (told,) = bench.taken("d", m.Reach)
    assert (told.target, told.nodes) == (DRIVER, [(FAR, "host:1")])
    bench.after(10.0)
    assert bench.taken("far", m.Grant) == [] and not opened(bench)
    reaches(bench, "far")
    assert opened(bench)
    demand(bench, 1)
    leased(bench, "far")
    (lease,) = bench.taken("d", m.Leased)
    assert lease.node_id == FAR


def test_nodes_of_its_own_machine_come_first() -> None:
    bench = cluster(near=1, far=4)
    demand(bench, 1)
    reaches(bench, "far")
    demand(bench, 3)
    assert len(bench.taken("near", m.Grant)) == 1
    assert len(bench.taken("far", m.Grant)) == 2


def test_room_on_a_node_that_is_not_reached_closes_the_way() -> None:
    bench = cluster()
    bench.node("other", cpus=1, machine="elsewhere")
    demand(bench, 1)
    assert not opened(bench)
    reaches(bench, "far")
    assert not opened(bench)
    reaches(bench, "far", "other")
    assert opened(bench)


def test_what_is_not_reached_any_more_is_revoked() -> None:
    bench = cluster(near=0)
    demand(bench, 1)
    reaches(bench, "far")
    demand(bench, 1)
    lease_id = leased(bench, "far")
    bench.taken("far")
    reaches(bench)
    (revoked,) = bench.taken("far", m.Revoke)
    assert revoked.lease_id == lease_id
    bench.say("far", m.LeaseEnded(1, lease_id, 3, "", 7))
    (ended,) = bench.taken("d", m.LeaseEnded)
    assert (ended.begun, ended.told) == (3, 7)


def test_a_worker_that_its_node_does_not_reach_bars_that_node_for_a_while() -> None:
    bench = cluster()
    demand(bench, 1)
    reaches(bench, "far")
    demand(bench, 2)
    leased(bench, "near")
    lease_id = leased(bench, "far")
    bench.taken("d")
    bench.say("d", m.Revoke(0, lease_id))
    bench.say("far", m.LeaseEnded(1, lease_id))
    demand(bench, 1)
    assert bench.taken("far", m.Grant) == []
    assert not opened(bench)
    bench.after(limits.LEASE_BAR_S)
    bench.after(limits.LEASE_PAUSE_S)
    assert opened(bench)


def test_a_new_session_is_told_again() -> None:
    bench = cluster(near=0)
    demand(bench, 1)
    assert len(bench.taken("d", m.Reach)) == 1
    demand(bench, 2)
    assert bench.taken("d", m.Reach) == []
    bench.say("d2", bench.hello_driver("d"), m.Hold(0, DRIVER, b"", True))
    bench.say("d2", m.Demand(0, DRIVER, DRIVER, CPU, 1))
    assert len(bench.taken("d2", m.Reach)) == 1


def test_only_nodes_that_are_there_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_NODES_MAX", 2)
    bench = cluster(near=0)
    demand(bench, 1)
    bench.taken("d")
    bench.say("far", m.Goodbye(0, "it was told to stop"))
    for name in ("one", "two", "three"):
        bench.node(name, cpus=1, machine="elsewhere")
    told = bench.taken("d", m.Reach)[-1]
    assert [node_id for node_id, _ in told.nodes] == [identity("one"), identity("two")]


def test_what_they_say_to_each_other_passes() -> None:
    bench = cluster(near=0)
    words = [m.LeaseWord(m.WORD_PAYLOAD, b"anything")]
    up = m.Relay(0, DRIVER, FAR, identity("l"), 1, 1, 0, words)
    bench.say("d", up)
    assert bench.taken("far", m.Relay) == [up]
    for down in (
        m.Relay(0, FAR, DRIVER, identity("l"), 1, 1, 0, words),
        m.RelayRefused(0, FAR, DRIVER, identity("l"), FORBIDDEN, "no"),
    ):
        bench.say("far", down)
        assert bench.taken("d") == [down]


def test_nobody_speaks_for_others() -> None:
    bench = cluster()
    bench.driver("e")
    lies: list[tuple[str, Any]] = [
        ("e", m.Relay(0, DRIVER, FAR, identity("l"), 1, 1, 0)),
        ("e", m.Reaches(0, DRIVER, FAR)),
        ("e", m.RelayRefused(0, FAR, DRIVER, identity("l"), FORBIDDEN, "no")),
        ("near", m.Relay(0, FAR, DRIVER, identity("l"), 1, 1, 0)),
    ]
    for route, lie in lies:
        bench.say(route, lie)
        assert [one.code for one in bench.taken(route, m.Rejected)] == [FORBIDDEN] * (route == "e")
    assert bench.taken("far") == [] and bench.taken("d") == []


def test_a_node_that_is_lost_answers_nothing_any_more() -> None:
    bench = cluster()
    bench.say("far", m.Goodbye(0, "it was told to stop"))
    bench.taken("d")
    bench.say("d", m.Relay(0, DRIVER, FAR, identity("l"), 1, 1, 0))
    (refused,) = bench.taken("d")
    assert (type(refused), refused.code) == (m.RelayRefused, NodeDiedError.code)
    assert (refused.source, refused.lease_id) == (FAR, identity("l"))
