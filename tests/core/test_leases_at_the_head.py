"""Leases through a whole head: demanded, granted, passed on, revoked, ended, adopted."""

from __future__ import annotations

from typing import Any

from tests.core.benches import UNIT, HeadBench, done, identity, spec, template
from zray.protocol import messages as m

WORK = template()
CPU = [("CPU", UNIT)]
WORKER = identity("w")


def demand(bench: HeadBench, driver: str, count: int, **more: Any) -> None:
    job_id = identity(driver)
    bench.say(driver, m.Demand(0, job_id, job_id, CPU, count, **more))


def granted(bench: HeadBench, node: str) -> list[m.Grant]:
    return bench.taken(node, m.Grant)


def lease(bench: HeadBench, node: str, grant: m.Grant) -> bytes:
    """The node's worker is ready."""
    held = m.HeldLease(grant.lease_id, grant.job_id, grant.submitter, grant.resources, WORKER)
    bench.say(node, m.Leased(0, held, "machine", node))
    return grant.lease_id


def free(bench: HeadBench, node: str) -> float:
    return bench.gcs.scheduler.nodes[identity(node)].free["CPU"] / UNIT


def cluster(cpus: float = 2) -> HeadBench:
    bench = HeadBench()
    bench.node("n", cpus=cpus)
    bench.driver("d", WORK)
    return bench


def test_a_demand_is_met_as_far_as_there_is_room() -> None:
    bench = cluster()
    demand(bench, "d", 3)
    sent = bench.taken("n")
    assert [type(message) for message in sent] == [m.Job, m.Grant, m.Grant]
    grants = sent[1:]
    assert {grant.submitter for grant in grants} == {identity("d")} and free(bench, "n") == 0
    lease_id = lease(bench, "n", grants[0])
    (leased,) = bench.taken("d", m.Leased)
    assert leased.lease.lease_id == lease_id and leased.node == "n"
    bench.say("n", m.LeaseEnded(7, lease_id))
    assert [end.lease_id for end in bench.taken("d", m.LeaseEnded)] == [lease_id]
    again, ack = bench.taken("n")
    assert again.lease_id not in {grant.lease_id for grant in grants} and ack.upto == 7


def test_ready_tasks_come_before_leases() -> None:
    bench = cluster()
    bench.hear("d", m.Submit(0, identity("d"), identity("d"), [spec("t", WORK)]))
    demand(bench, "d", 3)
    assert len(bench.taken("n", m.Grant)) == 1
    bench.say("n", m.Done(1, [done(identity("t"))]))
    assert len(bench.taken("n", m.Grant)) == 1


def test_tasks_of_another_job_end_leases_and_close_leasing() -> None:
    bench = cluster()
    demand(bench, "d", 2)
    ids = [lease(bench, "n", grant) for grant in granted(bench, "n")]
    bench.driver("e", WORK)
    bench.taken("d")
    bench.submit("e", spec("t", WORK))
    assert {revoke.lease_id for revoke in bench.taken("n", m.Revoke)} == {*ids}
    assert [told.open for told in bench.taken("d", m.Leasing)] == [False]
    bench.say("n", m.LeaseEnded(1, ids[0]))
    assert bench.assigned("n") == ["t"]
    assert bench.taken("d", m.Leasing) == []
    bench.now = bench.gcs.turn.deadline()
    bench.turn()
    assert [told.open for told in bench.taken("d", m.Leasing)] == [True]
    assert bench.taken("n", m.Grant) == []  # it has to say anew what it wants
