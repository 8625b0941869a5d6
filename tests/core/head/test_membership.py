"""Who joins, and what a session's begin and end change."""

from __future__ import annotations

from typing import Any

from tests.core.benches import VERSIONS, identity
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.catalog import Catalog
from zray.core.head.definitions import Definitions
from zray.core.head.members import JobMember, NodeMember
from zray.core.head.membership import Membership
from zray.core.head.notices import Notices
from zray.core.machine import NEVER
from zray.core.offers import Offers
from zray.core.prints import Prints
from zray.protocol import messages as m

N1, JOB = identity("n1"), identity("d")


class Ends:
    """Whoever is given up."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def node_died(self, node: NodeMember, why: str) -> None:
        self.told.append(("node", node.incarnation))

    def job_lost(self, job: JobMember, why: str) -> None:
        self.told.append(("lost", job.process_id))

    def job_ended(self, job: JobMember) -> None:
        self.told.append(("ended", job.process_id))

    def never_returned(self, node_id: bytes, why: str) -> None:
        self.told.append(("never returned", node_id))


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.ends = Ends()
        self.welcomed: list[float] = []
        definitions = Definitions(
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            catalog=Catalog({}, self.journal.persist, self.outbox),
            recovery=self.recovery,
            hold=lambda holder, oid, now: None,
            wake=lambda task: None,
        )
        self.membership = Membership(
            outbox=self.outbox,
            persist=self.journal.persist,
            notices=Notices(),
            prints=Prints(),
            members=self.members,
            offers=Offers(),
            scheduler=self.scheduler,
            transfers=self.transfers,
            definitions=definitions,
            departures=self.ends,  # type: ignore[arg-type]
            leases=self.make_leases(),
        )

    def hello(self, incarnation: int = 1) -> m.Hello:
        node = m.NodeInfo("n1", "host", 1, [("CPU", 10_000)], [], "machine")
        job = m.JobInfo("program", "/", [], "machine", "host", 1)
        head = (b"", VERSIONS, ["tasks"])
        return m.Hello(0, 1, m.ROLE_NODE, N1, incarnation, *head, node, job)

    def node_joins(self, incarnation: int = 1) -> None:
        self.membership.node_joins(self.hello(incarnation), 1.0, self.welcomed.append)


def test_a_node_takes_part_once_that_is_durable() -> None:
    bench = Bench()
    bench.node_joins()
    assert not bench.members.nodes and not bench.scheduler.nodes and not bench.welcomed
    bench.commit(2.0)
    assert bench.welcomed == [2.0] and N1 in bench.scheduler.nodes
    bench.node_joins()  # another session of the same process
    assert bench.welcomed == [2.0, 1.0] and not bench.journal


def test_who_says_hello_again_before_that_waits_for_the_same_row() -> None:
    bench = Bench()
    bench.node_joins()
    bench.node_joins()
    assert not bench.welcomed
    bench.commit()
    assert len(bench.welcomed) == 2 and len(bench.members.nodes) == 1


def test_one_that_was_fenced_meanwhile_is_not_welcome() -> None:
    bench = Bench()
    bench.node_joins(1)
    bench.node_joins(2)
    bench.commit()
    assert bench.members.nodes[N1].incarnation == 2 and len(bench.welcomed) == 1


def test_a_later_incarnation_is_proof_that_the_one_before_is_dead() -> None:
    bench = Bench()
    bench.node_joins(1)
    bench.commit()
    bench.node_joins(2)
    assert bench.ends.told == [("node", 1)]


def test_a_node_of_before_the_restart_is_back_or_shows_that_it_is_dead() -> None:
    bench = Bench(awaited="n1")
    bench.node_joins(1)
    assert bench.welcomed and not bench.journal  # its row is there
    assert bench.members.recovering()  # it has yet to tell what it has
    bench = Bench(awaited="n1")
    bench.node_joins(2)
    bench.commit()
    assert not bench.members.recovering()


def test_a_driver_takes_part_once_that_is_durable() -> None:
    bench = Bench()
    bench.membership.job_joins(bench.hello(), 1.0, bench.welcomed.append)
    assert not bench.members.jobs and not bench.welcomed
    ((table, key, _),) = bench.commit(2.0)
    assert (table, key) == ("jobs", N1) and bench.welcomed == [2.0]


def test_a_lost_session_sends_no_more_and_decides_nothing() -> None:
    bench = Bench()
    node, job = bench.node("n1"), bench.driver("d")
    for member in (node, job):
        bench.outbox.send(member.process_id, m.Pong(0, 0.0, "OK"))
        bench.membership.session_lost(member, 5.0)
    assert not bench.outbox and not node.view.usable and not bench.ends.told
    assert bench.membership.look_at == 5.0
    bench.membership.session_lost(job, 9.0)
    assert job.lost == 5.0  # it counts from the first


def test_a_new_session_starts_from_nothing() -> None:
    bench = Bench()
    node = bench.node("n1")
    node.known.add(JOB)
    bench.outbox.send(N1, m.Pong(0, 0.0, "OK"))
    bench.membership.session_begins(node, 5.0)
    assert not bench.outbox and not node.known and not node.announced
    assert not node.view.usable  # before it has announced what it has


def test_a_driver_that_is_away_is_looked_for_on_its_machine_until_it_is_back() -> None:
    bench = Bench()
    bench.node("n1")
    job = bench.driver("d")
    bench.membership.session_lost(job, 5.0)
    bench.membership.look_for_drivers(5.0)
    assert bench.sent(m.FindDriver) == {N1: [m.FindDriver(0, JOB, 1)]}
    bench.membership.session_begins(job, 6.0)
    bench.membership.on_driver_ended(bench.members.nodes[N1], m.DriverEnded(0, JOB), 6.0)
    assert not bench.ends.told  # who is connected lives
    bench.membership.look_for_drivers(7.0)
    assert not bench.outbox and bench.membership.look_at == NEVER


# ---- nodes that are away -----------------------------------------------------------------------


class Watched(Bench):
    """A node that said something last at 0 s; the head looks once a second."""

    def __init__(self) -> None:
        super().__init__()
        self.member = self.node("n1")
        self.member.resynced = self.member.connected = True
        self.member.heard = self.now = 0.0
        self.changed: list[tuple[float, bool]] = []

    def looks(self, until: float, every: float = 1.0) -> None:
        while self.now < until:
            self.now += every
            self.membership.check(self.now)
            for node_id in self.members.away_changed:
                self.changed.append((self.now, self.members.nodes[node_id].away))
            self.members.away_changed.clear()


def test_a_node_is_away_after_some_silence_and_back_with_a_word() -> None:
    bench = Watched()
    bench.looks(limits.AWAY_S + 1.0)
    bench.member.heard = bench.now
    bench.looks(limits.AWAY_S + 2.0)
    assert bench.changed == [(limits.AWAY_S, True), (limits.AWAY_S + 2.0, False)]


def test_one_without_a_session_is_away_until_it_has_announced_what_it_has() -> None:
    bench = Watched()
    bench.membership.session_lost(bench.member, 0.5)
    bench.looks(limits.AWAY_S)
    bench.membership.session_begins(bench.member, bench.now)
    bench.looks(limits.AWAY_S + 1.0)
    assert bench.changed == [(limits.AWAY_S, True)] and bench.member.away
    bench.member.resynced = True
    bench.looks(limits.AWAY_S + 2.0)
    assert not bench.member.away


def test_a_head_that_was_held_up_does_not_count_that_time() -> None:
    bench = Watched()
    bench.looks(3.0)
    bench.looks(12.0, every=9.0)
    bench.looks(11.0 + limits.AWAY_S)
    assert not bench.changed
    bench.looks(13.0 + limits.AWAY_S)
    assert bench.changed == [(12.0 + limits.AWAY_S, True)]
