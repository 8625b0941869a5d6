"""Leases through a whole head: demanded, granted, passed on, revoked, ended, adopted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import UNIT, HeadBench, done, identity, spec, template
from zray import limits
from zray.core.head.leases import ANY_NUMBER
from zray.core.head.members import NodeRow
from zray.core.head.roles import FORBIDDEN
from zray.protocol import messages as m

WORK, WIDE = template(), template("wide", resources=[("CPU", 2)])
CPU = [("CPU", UNIT)]
DRIVER, WORKER = identity("d"), identity("w")


def demand(bench: HeadBench, driver: str, count: int, **more: Any) -> None:
    job_id = identity(driver)
    bench.say(driver, m.Demand(0, job_id, job_id, CPU, count, **more))


def held(grant: m.Grant) -> m.HeldLease:
    return m.HeldLease(grant.lease_id, grant.job_id, grant.submitter, grant.resources, WORKER)


def leased(bench: HeadBench, count: int, node: str = "n") -> list[bytes]:
    """The driver has so many leases there, and there are no messages left."""
    demand(bench, "d", count)
    grants = bench.taken(node, m.Grant)
    assert len(grants) == count
    for grant in grants:
        bench.say(node, m.Leased(0, held(grant), "machine", node))
    assert len(bench.taken("d", m.Leased)) == count
    bench.taken(node)
    return [grant.lease_id for grant in grants]


def free(bench: HeadBench, node: str = "n") -> float:
    return bench.gcs.scheduler.nodes[identity(node)].free["CPU"] / UNIT


def status(bench: HeadBench) -> m.Status:
    bench.say("d", m.Query(1, m.STATUS))
    (found,) = bench.taken("d", m.Status)
    assert isinstance(found, m.Status)
    return found


def cluster(cpus: float = 2) -> HeadBench:
    bench = HeadBench()
    bench.node("n", cpus=cpus)
    bench.driver("d", WORK, WIDE)
    return bench


# ---- grants --------------------------------------------------------------------------------


def test_a_demand_is_met_as_far_as_there_is_room() -> None:
    bench = cluster()
    demand(bench, "d", 3)
    sent = bench.taken("n")
    assert [type(message) for message in sent] == [m.Job, m.Grant, m.Grant]
    grants = sent[1:]
    assert {grant.submitter for grant in grants} == {DRIVER} and free(bench) == 0
    bench.say("n", m.Leased(0, held(grants[0]), "machine", "n"))
    (told,) = bench.taken("d", m.Leased)
    assert told.lease.lease_id == grants[0].lease_id and told.node == "n"
    bench.say("n", m.LeaseEnded(7, grants[0].lease_id))
    assert [end.lease_id for end in bench.taken("d", m.LeaseEnded)] == [grants[0].lease_id]
    again, ack = bench.taken("n")
    assert again.lease_id not in {grant.lease_id for grant in grants} and ack.upto == 7


def test_ready_tasks_come_before_leases() -> None:
    bench = cluster()
    bench.hear("d", m.Submit(0, DRIVER, DRIVER, [spec("t", WORK)]))
    demand(bench, "d", 3)
    assert len(bench.taken("n", m.Grant)) == 1
    bench.say("n", m.Done(1, [done(identity("t"))]))
    assert len(bench.taken("n", m.Grant)) == 1


def test_tasks_that_were_sent_ahead_come_before_leases() -> None:
    bench = cluster(cpus=1)
    bench.submit("d", *(spec(f"t{number}", WORK) for number in range(3)))
    demand(bench, "d", 1)
    for number, names in enumerate((["t0", "t1"], [], ["t2"])):
        sent = bench.taken("n")
        tasks = [task for one in sent if isinstance(one, m.Tasks) for task in one.tasks]
        assert [task.spec.task_id for task in tasks] == [identity(name) for name in names]
        assert not any(isinstance(message, m.Grant) for message in sent)
        bench.say("n", m.Done(1 + number, [done(identity(f"t{number}"))]))
    assert len(bench.taken("n", m.Grant)) == 1
    assert bench.taken("d", m.Leasing) == []


def test_a_node_that_joins_is_granted_what_is_wanted_still() -> None:
    bench = cluster(cpus=1)
    demand(bench, "d", 3)
    assert len(bench.taken("n", m.Grant)) == 1
    bench.node("n2", cpus=4)
    assert len(bench.taken("n2", m.Grant)) == 2


def test_a_node_that_does_not_take_a_lease_keeps_nothing() -> None:
    bench = cluster(cpus=1)
    demand(bench, "d", 1)
    for number in range(limits.LEASE_REFUSALS):
        (grant,) = bench.taken("n", m.Grant)
        bench.say("n", m.LeaseEnded(1 + number, grant.lease_id))
        assert free(bench) == 1 and bench.taken("n", m.Grant) == []
        bench.now += limits.LEASE_LATE_S
        bench.turn()
    bench.now += limits.LEASE_PAUSE_S
    bench.turn()
    assert [told.open for told in bench.taken("d", m.Leasing)] == [False, True]


def test_drivers_and_nodes_say_what_is_theirs_alone() -> None:
    bench = cluster()
    bench.driver("e")
    (lease_id, _) = leased(bench, 2)
    grant = m.Grant(0, lease_id, DRIVER, DRIVER, CPU)
    for message in (
        m.Demand(0, DRIVER, DRIVER, CPU, 1),
        m.Leased(0, held(grant), "machine", "n"),
        m.LeaseEnded(0, lease_id),
        grant,
        m.Leasing(0, DRIVER, CPU, False),
    ):
        bench.say("e", message)
        assert [one.code for one in bench.taken("e", m.Rejected)] == [FORBIDDEN]
    bench.say("e", m.Revoke(0, lease_id), m.CancelLeased(0, lease_id, identity("t"), 1, True))
    assert bench.taken("n") == [] and len(bench.gcs.lease_table.leases) == 2


# ---- contention ----------------------------------------------------------------------------


def test_tasks_of_another_job_share_with_leases() -> None:
    bench = cluster()
    ids = leased(bench, 2)
    bench.driver("e", WORK)
    bench.submit("e", *(spec(f"t{number}", WORK) for number in range(4)))
    (revoke,) = [one for one in bench.taken("n", m.Revoke) if not one.spare]
    assert revoke.lease_id in ids and bench.taken("d", m.Leasing) == []
    bench.say("n", m.LeaseEnded(1, revoke.lease_id))
    assert bench.assigned("n")
    demand(bench, "d", 1)
    for number in range(3):
        bench.say("n", m.Done(2 + number, [done(identity(f"t{number}"))]))
    assert not bench.taken("n", m.Grant)  # as long as the other has tasks
    bench.say("n", m.Done(5, [done(identity("t3"))]))
    assert len(bench.taken("n", m.Grant)) == 1


def test_two_jobs_have_one_cpu_in_turn() -> None:
    bench = cluster(cpus=1)
    (lease_id,) = leased(bench, 1)
    bench.driver("e", WORK)
    bench.submit("e", spec("t", WORK))
    assert [one.lease_id for one in bench.taken("n", m.Revoke)] == [lease_id]
    demand(bench, "d", 1)
    bench.say("n", m.LeaseEnded(1, lease_id))
    assert bench.assigned("n")[0] == "t" and bench.taken("n", m.Grant) == []
    bench.submit("e", spec("u", WORK))
    bench.now += limits.LEASE_TURN_S
    bench.turn()
    bench.say("n", m.Done(2, [done(identity("t"))]))
    assert len(bench.taken("n", m.Grant)) == 1 and bench.assigned("n") == []
    assert bench.taken("d", m.Leasing) == bench.taken("e", m.Leasing) == []


def test_a_larger_task_of_the_same_job_ends_the_leases_that_it_needs() -> None:
    bench = cluster(cpus=4)
    ids = leased(bench, 4)
    bench.submit("d", spec("t", WIDE))
    revoked = {revoke.lease_id for revoke in bench.taken("n", m.Revoke)}
    assert len(revoked) == 2 and revoked < {*ids}
    assert [told.open for told in bench.taken("d", m.Leasing)] == [False]
    for lease_id in revoked:
        bench.say("n", m.LeaseEnded(1, lease_id))
    assert bench.assigned("n") == ["t"]


def test_a_child_starts_on_the_cpu_that_its_leased_parent_lends() -> None:
    bench = cluster(cpus=1)
    (parent,) = leased(bench, 1)
    bench.hear("n", m.Submit(0, DRIVER, WORKER, [spec("child", WORK)]))
    bench.say("n", m.Credit(0, 1 << 40, CPU))
    assert bench.assigned("n") == ["child"]
    bench.say("n", m.Done(1, [done(identity("child"))]), m.Credit(0, 1 << 40))
    assert free(bench) == 0 and [*bench.gcs.lease_table.leases] == [parent]
    assert bench.taken("d", m.Leasing) == []


# ---- ends ----------------------------------------------------------------------------------


def test_a_dead_node_takes_its_leases_with_it() -> None:
    bench = cluster(cpus=1)
    (lease_id,) = leased(bench, 1)
    bench.say("n", m.Goodbye(0, "enough"))
    (ended,) = bench.taken("d", m.LeaseEnded)
    assert (ended.lease_id, ended.begun) == (lease_id, ANY_NUMBER)
    assert ended.text == "(node n)\nnode n (host) died: it left: enough"
    bench.node("n2", cpus=1)
    demand(bench, "d", 1)
    assert len(bench.taken("n2", m.Grant)) + len(bench.taken("d", m.Leasing)) >= 1


def test_a_driver_takes_its_leases_with_it() -> None:
    bench = cluster()
    leased(bench, 2)
    bench.say("d", m.Goodbye(0, "bye"))
    assert bench.taken("n")[0] == m.JobEnded(0, DRIVER)
    assert free(bench) == 2 and not bench.gcs.lease_table


def test_an_end_is_acknowledged_whether_or_not_the_lease_is_known() -> None:
    bench = cluster(cpus=1)
    (lease_id,) = leased(bench, 1)
    bench.say("n", m.LeaseEnded(4, lease_id, 1, "(pid 1, node n)\nit died"))
    bench.say("n", m.LeaseEnded(5, identity("unknown")))
    bench.now += limits.ACK_DELAY_S
    bench.turn()
    assert [ack.upto for ack in bench.taken("n", m.Ack)][-1] == 5
    assert len(bench.taken("d", m.LeaseEnded)) == 1


# ---- sessions ------------------------------------------------------------------------------


def test_a_new_session_of_the_node_keeps_what_it_announces() -> None:
    bench = cluster(cpus=3)
    kept, died = leased(bench, 2)
    demand(bench, "d", 1)
    (lost,) = bench.taken("n", m.Grant)
    bench.sessions.link_lost(b"n", bench.now)
    bench.say("n", bench.hello_node("n", 1, 3))
    there = m.HeldLease(kept, DRIVER, DRIVER, CPU, WORKER)
    bench.say(
        "n",
        m.Announce(0, [], [], [], leases=[there]),
        m.LeaseEnded(1, died, 2, "(pid 1, node n)\nit died"),
        m.Credit(0, 1 << 40),
    )
    assert [(one.lease_id, one.begun) for one in bench.taken("d", m.LeaseEnded)] == [(died, 2)]
    (again,) = bench.taken("n", m.Grant)
    assert again.lease_id != lost.lease_id and free(bench) == 1


def test_a_new_session_of_the_driver_states_all_anew() -> None:
    bench = cluster(cpus=2)
    kept, died = leased(bench, 2)
    bench.sessions.link_lost(b"d", bench.now)
    bench.say("n", m.LeaseEnded(1, died, 2, "(pid 1, node n)\nit died"))
    assert bench.taken("n", m.Grant) == []
    bench.say("d", bench.hello_driver("d"))
    demand(bench, "d", 1, lease_ids=kept + died, finished=9)
    assert [(one.lease_id, one.begun) for one in bench.taken("d", m.LeaseEnded)] == [(died, 2)]
    assert len(bench.taken("n", m.Grant)) == 1
    demand(bench, "d", 1, finished=9)
    (job,) = status(bench).jobs
    assert job.finished == 9


def test_leases_go_on_under_a_head_that_was_started_again() -> None:
    job = msgspec.msgpack.encode(HeadBench().hello_driver("d").job)
    row = msgspec.msgpack.encode(NodeRow(1, True, "n", [("CPU", 2 * UNIT)]))
    head = HeadBench({"nodes": {identity("n"): row}, "jobs": {DRIVER: job}}, epoch=2)
    kept, lost = identity("kept"), identity("lost")
    head.say("d", head.hello_driver("d"))
    demand(head, "d", 1, lease_ids=kept + lost)
    assert [told.open for told in head.taken("d", m.Leasing)] == [False]
    head.say("n", head.hello_node("n", 1, 2))
    there = m.HeldLease(kept, DRIVER, DRIVER, CPU, WORKER)
    head.say("n", m.Announce(0, [], [], [], leases=[there]), m.Credit(0, 1 << 40))
    assert free(head) == 1 and head.taken("d", m.LeaseEnded) == []
    head.say("d", m.Hold(0, DRIVER, b"", True))
    (ended,) = head.taken("d", m.LeaseEnded)
    assert (ended.lease_id, ended.begun) == (lost, ANY_NUMBER)
    head.now += limits.LEASE_PAUSE_S
    head.turn()
    assert [told.open for told in head.taken("d", m.Leasing)] == [True]
    demand(head, "d", 5, lease_ids=kept)
    (grant,) = head.taken("n", m.Grant)
    assert grant.lease_id not in (kept, lost)


# ---- what people see -----------------------------------------------------------------------


def test_leases_count_as_running_tasks_and_demands_as_waiting_ones() -> None:
    bench = cluster(cpus=2)
    leased(bench, 2)
    demand(bench, "d", 3, finished=40)
    found = status(bench)
    assert (found.nodes[0].running, found.nodes[0].queued) == (2, 0)
    assert found.nodes[0].available == [("CPU", 0)]
    assert found.jobs[0].finished == 40 and dict(found.counters)["finished"] == 40
    (waiting,) = found.classes
    assert (waiting.resources, waiting.job_id, waiting.waiting) == (CPU, DRIVER, 3)
    assert waiting.reason.startswith("WAIT_LEASES: needs CPU 1")


@pytest.mark.parametrize("head_id", [b"", bytes(range(16))])
def test_ids_of_leases_are_of_one_term_of_the_head(head_id: bytes) -> None:
    found = []
    for epoch in (1, 2):
        bench = HeadBench(epoch=epoch, head_id=head_id)
        bench.node("n", cpus=2)
        bench.driver("d")
        demand(bench, "d", 2)
        found += [grant.lease_id for grant in bench.taken("n", m.Grant)]
    assert len({*found}) == 4  # a head may lead again, with the id that it has
    assert {len(lease_id) for lease_id in found} == {16}
