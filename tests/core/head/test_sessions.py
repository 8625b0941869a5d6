"""Sessions, and the mailbox before the machines: what gets through, in whose name, and whereto."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.benches import CLUSTER, VERSIONS, Fatal, identity
from tests.core.head.tables import Tables
from zray.core.head.admission import Admission
from zray.core.head.control_store import ControlStore
from zray.core.head.identity import HeadIdentity
from zray.core.head.members import JobMember, Member
from zray.core.head.notices import Notices
from zray.core.head.sessions import Sessions
from zray.core.head.succession import Succession
from zray.core.head.traffic_controller import TrafficController
from zray.core.incidents import Incidents
from zray.core.machine import Outbox
from zray.core.prints import Prints
from zray.errors import InternalFaultError, StoreError
from zray.protocol import messages as m
from zray.protocol.codec import Payload

EPOCH = 5
D = identity("d")


class Joins:
    """Who joins is stored when the test says so; deaths and lost sessions are noted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.waiting: list[Any] = []
        self.noted: list[tuple[str, bytes]] = []

    def job_joins(self, hello: m.Hello, now: float, welcome: Any) -> None:
        def stored() -> None:
            assert hello.job is not None
            job = JobMember(hello.process_id, hello.job, now)
            self._tables.members.jobs.setdefault(hello.process_id, job)
            welcome(now)

        self.waiting.append(stored)

    def session_begins(self, member: Member, now: float) -> None:
        member.begin_session(now)

    def session_lost(self, member: Member, now: float) -> None:
        self.noted.append(("lost", member.process_id))

    def job_ended(self, job: JobMember) -> None:
        self.noted.append(("ended", job.process_id))


class Bench(Tables):
    def __init__(self, incidents: Incidents | None = None) -> None:
        super().__init__()
        self.joins = Joins(self)
        self.routed: Outbox[bytes] = Outbox()
        self.handled: list[m.Message] = []
        head = HeadIdentity(CLUSTER, EPOCH, VERSIONS, 0.0)
        store = ControlStore(EPOCH)
        self.sessions = Sessions(
            identity=head,
            store=store,
            notices=Notices(),
            outbox=self.outbox,
            routed=self.routed,
            members=self.members,
            admission=Admission(head, self.members, store),
            membership=self.joins,  # type: ignore[arg-type]
            departures=self.joins,  # type: ignore[arg-type]
            succession=Succession(
                *(self.outbox, self.journal.persist, store, self.events, Notices()),
            ),
        )
        self.controller = TrafficController(
            epoch=EPOCH,
            handlers={
                m.Hello: self.sessions.on_hello,
                m.Goodbye: self.sessions.on_goodbye,
                m.Kv: self._broken,
                m.Sync: lambda member, message, now: self.handled.append(message),
            },
            routed=self.routed,
            members=self.members,
            sessions=self.sessions,
            prints=Prints(),
            incidents=incidents or Fatal(),
        )

    def _broken(self, member: Member, message: m.Kv, now: float) -> None:
        raise ValueError("on purpose")

    def hear(self, route: str, *messages: m.Message, epoch: int = EPOCH) -> list[m.Message]:
        """What is answered on that route."""
        self.controller.receive(route.encode(), "user", Payload(epoch, [*messages], []), 0.0)
        return self.answers(route)

    def answers(self, route: str) -> list[m.Message]:
        return self.routed.take().get(route.encode(), [])

    def store(self) -> None:
        waiting, self.joins.waiting = self.joins.waiting, []
        for stored in waiting:
            stored()

    def join(self, route: str) -> None:
        self.hear(route, hello(), epoch=0 if D not in self.members.jobs else EPOCH)
        self.store()
        assert [type(one) for one in self.answers(route)] == [m.Welcome]


def hello(minor: int = m.PROTOCOL_MINOR) -> m.Hello:
    job = m.JobInfo("program", "/", [], "machine", "host", 1)
    ids = (m.ROLE_DRIVER, D, 0, b"")
    return m.Hello(0, 1, *ids, VERSIONS, ["tasks"], None, job, minor=minor)


def test_a_session_begins_when_who_says_hello_is_stored() -> None:
    bench = Bench()
    assert bench.hear("r1", hello(), epoch=0) == []
    assert [type(one) for one in bench.hear("r1", m.Sync(1))] == [m.Rejoin]
    bench.store()
    assert [type(one) for one in bench.answers("r1")] == [m.Welcome]
    assert bench.hear("r1", m.Sync(2)) == [] and bench.handled == [m.Sync(2)]


def test_only_the_connection_of_the_last_hello_counts() -> None:
    bench = Bench()
    bench.hear("r1", hello(), epoch=0)
    bench.hear("r2", hello(), epoch=0)
    bench.store()
    assert {*bench.routed.take()} == {b"r2"}
    bench.join("r3")
    assert bench.joins.noted == [("lost", D)]  # the session of r2
    assert [type(one) for one in bench.hear("r2", m.Sync(1))] == [m.Rejoin]
    bench.sessions.link_lost(b"r2", 1.0)  # its end is told late
    assert bench.hear("r3", m.Sync(2)) == [] and bench.handled == [m.Sync(2)]


def test_messages_go_by_the_process_s_present_route_or_not_at_all() -> None:
    bench = Bench()
    bench.join("r1")
    bench.outbox.send(D, m.Pong(0, 0.0, "OK"))
    bench.outbox.send(identity("nobody"), m.Pong(0, 0.0, "OK"))
    bench.sessions.hand_over()
    assert {*bench.routed.take()} == {b"r1"} and not bench.outbox
    for _ in range(2):
        bench.outbox.send(D, m.Pong(0, 0.0, "OK"))
        bench.sessions.hand_over()
        bench.sessions.link_lost(b"r1", 1.0)
        assert not bench.routed


@pytest.mark.parametrize("epoch", [EPOCH - 1, EPOCH + 1])
def test_nothing_of_another_epoch_reaches_a_machine(epoch: int) -> None:
    bench = Bench()
    bench.join("r1")
    assert [type(one) for one in bench.hear("r1", m.Sync(1), epoch=epoch)] == [m.Rejoin]
    assert not bench.handled


def test_a_fault_costs_the_session_and_what_comes_after_it_is_told_again() -> None:
    bench = Bench(Incidents())
    bench.join("r1")
    answers = bench.hear("r1", m.Kv(1, "get", b"key"), m.Sync(2))
    assert [type(one) for one in answers] == [m.Rejoin] and not bench.handled
    assert bench.joins.noted == [("lost", D)]
    bench.join("r1")
    (refused,) = bench.hear("r1", m.Kv(3, "get", b"key"), m.Sync(4))
    assert isinstance(refused, m.Rejected)
    assert (refused.about, refused.code) == (3, InternalFaultError.code)
    assert bench.handled == [m.Sync(4)]


def test_who_waits_to_be_stored_is_refused_when_nothing_can_be() -> None:
    bench = Bench()
    bench.driver("other")
    bench.hear("r1", hello(), epoch=0)
    bench.sessions.store_stalls("the disk is full")
    (refused,) = bench.answers("r1")
    assert isinstance(refused, m.Refused) and refused.code == StoreError.code
    assert {*bench.sent(m.Notice)} == {identity("other")}
    bench.sessions.store_stalls("the disk is full")  # which all know by now
    assert not bench.outbox and not bench.routed
    bench.store()
    assert not bench.answers("r1")  # it has been told no


def test_who_says_goodbye_hears_it_back_and_has_ended() -> None:
    bench = Bench()
    bench.join("r1")
    assert bench.hear("r1", m.Goodbye(0, "done")) == [m.Goodbye(0, "done")]
    assert bench.joins.noted == [("ended", D)] and not bench.sessions.routes
    assert [type(one) for one in bench.hear("r1", m.Sync(1))] == [m.Rejoin]


def test_one_that_was_declared_dead_must_say_hello_again() -> None:
    bench = Bench()
    bench.join("r1")
    del bench.members.jobs[D]
    bench.sessions.drop_dead()
    assert [type(one) for one in bench.hear("r1", m.Sync(1))] == [m.Rejoin]


@pytest.mark.parametrize("minor", [0, m.PROTOCOL_MINOR])
def test_a_member_hears_what_its_minor_has(minor: int) -> None:
    bench = Bench()
    bench.hear("r1", hello(minor), epoch=0)
    bench.store()
    (welcome,) = bench.answers("r1")
    assert isinstance(welcome, m.Welcome) and welcome.minor == m.PROTOCOL_MINOR
    newer, older = m.HeadsChanged(0, []), m.Synced(0, 3)
    bench.outbox.send_all(D, [newer, older])
    bench.sessions.hand_over()
    assert bench.answers("r1") == ([newer, older] if minor else [older])
