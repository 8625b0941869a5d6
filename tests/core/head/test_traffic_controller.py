"""Sessions: who may say what, under which epoch, and when a peer has to begin again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import (
    FUNCTION,
    VERSIONS,
    HeadBench,
    identity,
    object_of,
    spec,
    template,
    value,
)
from zray import limits
from zray.core.head import roles
from zray.core.machine import NEVER
from zray.protocol import messages as m
from zray.protocol.codec import Bad, Payload

WORK = template()


def example(kind: type[m.Message]) -> m.Message:
    """A message of the kind that is harmless for a head that knows nothing."""
    if kind is m.Template:
        return WORK
    if kind is m.Shutdown:
        return m.Shutdown(0, "stop")
    message = made(kind)
    assert isinstance(message, m.Message)
    return message


def made(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """The smallest valid value of a message or a part of one."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return kind(*[smallest(field.type) for field in info.fields if field.required])


def smallest(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.BytesType(min_length=length):
            return bytes(length or 0)
        case msgspec.inspect.StrType():
            return ""
        case msgspec.inspect.IntType(ge=least):
            return least or 0
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.FloatType():
            return 0.0
        case msgspec.inspect.ListType():
            return []
        case msgspec.inspect.UnionType(types=kinds):
            return smallest(next(one for one in kinds if smallest(one) is not None))
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.StructType(cls=part):
            return made(part)
    raise AssertionError(f"no example for {kind}")


def observer() -> m.Hello:
    return m.Hello(0, 1, m.ROLE_OBSERVER, identity("o1"), 0, b"", VERSIONS)


@pytest.mark.parametrize("role", [m.ROLE_DRIVER, m.ROLE_NODE, m.ROLE_OBSERVER])
@pytest.mark.parametrize("kind", [kind for kind in m.ALL if kind is not m.Hello])
def test_each_role_may_say_its_own_verbs_and_no_other(role: int, kind: type[m.Message]) -> None:
    head = HeadBench()
    hellos = {
        m.ROLE_DRIVER: head.hello_driver("p1"),
        m.ROLE_NODE: head.hello_node("p1"),
        m.ROLE_OBSERVER: observer(),
    }
    head.say("r1", hellos[role])
    head.taken("r1")
    message = example(kind)
    if kind in roles.SPEAKS_FOR:  # itself
        message = msgspec.structs.replace(message, **{roles.SPEAKS_FOR[kind]: identity("p1")})
    head.say("r1", message)
    rejected = head.taken("r1", m.Rejected)
    allowed = kind in roles.VERBS[role]
    # A driver submits for its own job; that of the example has ended, of which it is told.
    forbidden = [answer for answer in rejected if answer.code == roles.FORBIDDEN]
    assert bool(forbidden) is not allowed
    assert head.sessions.stopping == ("stop" if allowed and kind is m.Shutdown else "")


def test_whatever_some_role_may_say_has_a_handler_and_nothing_else_does() -> None:
    assert set(HeadBench().gcs.controller.handlers) == {m.Hello}.union(*roles.VERBS.values())


@pytest.mark.parametrize("kind", [kind for kind in m.ALL if kind is not m.Hello])
def test_nothing_is_heard_of_before_hello(kind: type[m.Message]) -> None:
    head = HeadBench()
    head.say("r1", example(kind), example(kind))
    assert len(head.taken("r1", m.Rejoin)) == 1
    assert not head.gcs.objects.records and not head.sessions.stopping


@pytest.mark.parametrize("epoch", [0, 4, 6])
def test_a_message_of_another_epoch_has_no_effect(epoch: int) -> None:
    head = HeadBench(epoch=5)
    head.driver("d1", WORK)
    tasks = m.Submit(0, identity("d1"), identity("d1"), [spec("t1", WORK)])
    head.say("d1", tasks, epoch=epoch)
    assert len(head.taken("d1", m.Rejoin)) == 1
    assert not head.gcs.tasks
    head.say("d1", tasks)
    assert len(head.gcs.tasks) == 1


def test_a_session_belongs_to_the_user_who_said_hello() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.say("d1", m.Put(0, identity("d1"), value(identity("p1"))), user="somebody else")
    assert len(head.taken("d1", m.Rejoin)) == 1
    assert not head.gcs.objects.records


def test_welcome_waits_until_the_row_is_durable() -> None:
    head = HeadBench(durable=False)
    head.say("n1", head.hello_node("n1"))
    head.say("d1", head.hello_driver("d1"))
    assert not head.taken("n1") and not head.taken("d1")
    assert not head.gcs.members.nodes and not head.gcs.members.jobs
    head.commit()
    head.turn()
    assert [type(msg) for msg in head.taken("n1")] == [m.Welcome]
    assert [type(msg) for msg in head.taken("d1")] == [m.Welcome]


def test_a_second_hello_does_not_go_around_the_store() -> None:
    head = HeadBench(durable=False)
    head.say("r1", head.hello_node("n1"))
    head.say("r2", head.hello_node("n1"))
    assert not head.taken("r1") and not head.taken("r2")
    head.commit()
    head.turn()
    assert not head.taken("r1")
    assert [type(msg) for msg in head.taken("r2")] == [m.Welcome]


def test_a_peer_that_is_gone_before_it_is_welcome_is_not_connected() -> None:
    head = HeadBench(durable=False)
    head.say("d1", head.hello_driver("d1"))
    head.sessions.link_lost(b"d1", head.now)
    head.commit()
    head.turn()
    assert not head.taken("d1")
    job = head.gcs.members.jobs[identity("d1")]
    assert not job.connected
    head.durable = True
    head.after(21.0)
    assert not head.gcs.members.jobs


def test_a_process_that_connects_again_leaves_its_old_route_behind() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.say("d1-again", head.hello_driver("d1"))
    head.say("d1", m.Put(0, identity("d1"), value(identity("p1"))))
    assert head.taken("d1", m.Rejoin)
    assert not head.gcs.objects.records
    head.sessions.link_lost(b"d1", head.now)
    assert head.gcs.members.jobs[identity("d1")].connected


# ---- who is refused ------------------------------------------------------------------------


def refusal(hello: m.Hello, epoch: int = 0, head: HeadBench | None = None) -> m.Refused | None:
    head = head or HeadBench()
    head.say("r1", hello, epoch=epoch)
    answers = head.taken("r1")
    assert len(answers) == 1
    return answers[0] if isinstance(answers[0], m.Refused) else None


def test_versions_that_cannot_work_together_are_refused_and_both_named() -> None:
    hello = HeadBench().hello_driver("d1")
    hello.protocol = 2
    answer = refusal(hello)
    assert answer and answer.code == "ZR-2005" and "protocol 1" in answer.text
    hello = HeadBench().hello_node("n1")
    hello.versions = m.Versions("3.12", "0", "3")
    answer = refusal(hello)
    assert answer and answer.code == "ZR-2005"
    assert "3.11" in answer.text and "3.12" in answer.text


def test_a_foreign_client_has_no_python_to_compare() -> None:
    hello = HeadBench().hello_driver("d1")
    hello.versions = m.Versions("", "", "")
    assert refusal(hello) is None
    hello = observer()
    hello.versions = m.Versions("3.13", "1", "1")
    assert refusal(hello) is None


def test_another_cluster_is_refused() -> None:
    hello = HeadBench().hello_node("n1")
    hello.cluster_id = b"x" * 16
    answer = refusal(hello)
    assert answer and answer.code == "ZR-2007"


def test_a_hello_without_an_account_of_itself_is_refused() -> None:
    for hello in (HeadBench().hello_node("n1"), HeadBench().hello_driver("d1")):
        hello.node = hello.job = None
        answer = refusal(hello)
        assert answer and answer.code == "ZR-2001"
    hello.role = 9
    assert refusal(hello)


def test_an_incarnation_that_was_declared_dead_does_not_come_back() -> None:
    head = HeadBench()
    head.node("n1")
    head.say("n1", m.Goodbye(0, "stopped"))
    answer = refusal(head.hello_node("n1"), head=head)
    assert answer and answer.code == m.FENCED
    assert refusal(head.hello_node("n1", 2), head=head) is None
    assert refusal(head.hello_node("n1", 1), head=head)


def test_a_driver_whose_job_was_ended_is_told_so() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.sessions.link_lost(b"d1", head.now)
    head.after(21.0)
    answer = refusal(head.hello_driver("d1"), epoch=1, head=head)
    assert answer and answer.code == m.FENCED
    assert answer.text.startswith(
        "the driver was disconnected for 20 s, so its job was ended, with nothing left in it"
    )
    assert refusal(head.hello_driver("d2"), epoch=0, head=head) is None


def test_a_driver_says_how_long_it_may_be_away() -> None:
    head = HeadBench()
    hello = head.hello_driver("d1")
    assert hello.job is not None
    patient = msgspec.structs.replace(hello.job, lost_after_s=100.0)
    head.say("d1", msgspec.structs.replace(hello, job=patient))
    head.driver("d2", WORK)
    head.gcs.members.driver_lost_s = 50.0
    head.submit("d2", spec("t1", WORK), spec("t2", WORK))
    for name in (b"d1", b"d2"):
        head.sessions.link_lost(name, head.now)
    head.after(49.0)
    assert len(head.gcs.members.jobs) == 2
    head.after(2.0)
    assert [*head.gcs.members.jobs] == [identity("d1")]
    answer = refusal(head.hello_driver("d2"), epoch=1, head=head)
    assert answer and "disconnected for 50 s" in answer.text
    assert "with 2 unfinished tasks;" in answer.text
    head.after(50.0)
    assert not head.gcs.members.jobs


def test_a_node_is_asked_for_drivers_of_its_machine_that_are_away() -> None:
    head = HeadBench()
    head.node("n1")
    job_id = head.driver("d1", WORK)
    ended = m.DriverEnded(0, job_id)
    head.say("n1", ended)  # of one that is connected it counts for nothing
    assert job_id in head.gcs.members.jobs
    head.taken("n1")
    head.sessions.link_lost(b"d1", head.now)
    head.turn()
    assert head.taken("n1", m.FindDriver) == [m.FindDriver(0, job_id, 1)]
    head.turn()
    assert head.taken("n1", m.FindDriver) == []
    head.now += limits.FIND_DRIVER_S
    head.turn()
    assert len(head.taken("n1", m.FindDriver)) == 1
    head.say("n1", ended)
    assert job_id not in head.gcs.members.jobs


def test_of_the_nodes_of_a_machine_the_one_that_was_heard_of_last_is_asked() -> None:
    head = HeadBench()
    for name in ("n1", "n2", "n3"):
        head.node(name)
        head.now += 1.0
    head.driver("d1", WORK)
    head.say("n2", m.Ping(0, 1.0))
    head.sessions.link_lost(b"d1", head.now)
    for name in ("n1", "n2", "n3"):
        head.taken(name)
    head.turn()
    asked = {name: len(head.taken(name, m.FindDriver)) for name in ("n1", "n2", "n3")}
    assert asked == {"n1": 0, "n2": 1, "n3": 0}


def test_who_knows_another_head_of_the_same_epoch_is_refused() -> None:
    """As after a backup that is older by one start: its head is of the epoch that they know."""
    head = HeadBench(epoch=5, head_id=identity("head-a"))
    hello = head.hello_driver("d1")
    of_another = msgspec.structs.replace(hello, head_id=identity("head-b"))
    answer = refusal(of_another, epoch=5, head=head)
    assert answer and answer.code == "ZR-4006"
    assert "epoch 5; a node or driver knows another head of it" in answer.text
    of_before = msgspec.structs.replace(hello, head_id=identity("head-b"))
    assert getattr(refusal(of_before, epoch=4, head=HeadBench(epoch=5)), "code", "") != "ZR-4006"
    head = HeadBench(epoch=5, head_id=identity("head-a"))
    head.say("n1", head.hello_node("n1"))
    (welcome,) = head.taken("n1", m.Welcome)
    assert welcome.head_id == identity("head-a")


def test_a_node_of_another_machine_cannot_tell_that_a_driver_has_ended() -> None:
    head = HeadBench()
    hello = head.hello_node("n1")
    assert hello.node is not None
    elsewhere = msgspec.structs.replace(hello.node, machine="another")
    head.say("n1", msgspec.structs.replace(hello, node=elsewhere))
    head.say("n1", m.Announce(0, [], [], []))
    job_id = head.driver("d1", WORK)
    head.sessions.link_lost(b"d1", head.now)
    head.after(1.0)
    assert head.taken("n1", m.FindDriver) == []
    head.say("n1", m.DriverEnded(0, job_id))
    assert job_id in head.gcs.members.jobs


def test_a_driver_that_is_back_is_not_looked_for() -> None:
    head = HeadBench()
    head.node("n1")
    job_id = head.driver("d1", WORK)
    head.sessions.link_lost(b"d1", head.now)
    head.turn()
    head.say("d1b", head.hello_driver("d1"), epoch=1)
    head.taken("n1")
    head.after(5.0)
    assert head.taken("n1", m.FindDriver) == []
    assert job_id in head.gcs.members.jobs and head.gcs.membership.look_at == NEVER


# ---- liveness ------------------------------------------------------------------------------


def test_silence_makes_a_node_suspect_and_then_dead() -> None:
    head = HeadBench()
    node = head.node("n1")
    head.driver("d1", WORK)
    for _ in range(6):
        head.now += 1.0
        head.gcs.members.jobs[identity("d1")].heard = head.now
        head.turn()
    assert node.state() == "SUSPECT"
    head.submit("d1", spec("t1", WORK))
    assert head.assigned("n1") == []
    head.say("n1", m.Ping(0, 1.0))
    head.now += 1.0
    head.turn()
    assert node.state() == "ALIVE" and head.assigned("n1") == ["t1"]
    for _ in range(21):
        head.now += 1.0
        head.turn()
    assert not head.gcs.members.nodes
    head.say("n1", m.Ping(0, 1.0))
    assert head.taken("n1", m.Rejoin)


def test_a_refusing_port_is_proof_of_death_after_two_seconds() -> None:
    head = HeadBench()
    head.node("n1")
    head.sessions.link_lost(b"n1", head.now)
    for _ in range(4):
        head.gcs.members.probed(identity("n1"), True, head.now)
        head.now += 1.0
        head.turn()
    assert not head.gcs.members.nodes


def test_a_port_that_answers_is_a_node_that_lives() -> None:
    head = HeadBench()
    head.node("n1")
    head.sessions.link_lost(b"n1", head.now)
    for refused in (True, False, True, False, True, False):
        head.gcs.members.probed(identity("n1"), refused, head.now)
        head.now += 1.0
        head.turn()
    assert head.gcs.members.nodes


def test_a_connected_driver_may_be_silent() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    head.now += 1000.0
    head.turn()
    head.now += 1.0
    head.turn()
    assert head.gcs.members.jobs


def test_a_head_that_slept_does_not_count_its_own_sleep() -> None:
    head = HeadBench()
    head.node("n1")
    head.now += 3600.0
    head.turn()
    assert head.gcs.members.nodes


def test_what_could_not_be_read_is_answered_with_its_seq() -> None:
    head = HeadBench()
    head.driver("d1", WORK)
    payload = Payload(1, [m.Ping(0, 5.0)], [Bad(7, "field 3 is no integer")])
    head.gcs.controller.receive(b"d1", "user", payload, head.now)
    head.turn()
    answers = head.taken("d1")
    assert [answer.about for answer in answers if isinstance(answer, m.Rejected)] == [7]
    assert [answer.sent_s for answer in answers if isinstance(answer, m.Pong)] == [5.0]


def test_a_driver_speaks_for_itself_alone() -> None:
    """What it held for others would stay for ever, and what it dropped would be lost to them."""
    head = HeadBench()
    owner = head.driver("owner", WORK)
    oid = object_of(identity("kept"))
    head.say("owner", m.Put(1, owner, value(identity("kept"))))
    head.driver("liar", WORK)
    for message in (
        m.Drop(7, owner, oid),
        m.Hold(7, owner, b"", True),
        m.Put(7, identity("nobody"), value(identity("forged"))),
        m.Submit(7, identity("liar"), owner, [spec("t", WORK)]),
        m.Forget(7, FUNCTION, owner),
    ):
        head.say("liar", message)
        (refused,) = head.taken("liar", m.Rejected)
        assert (refused.about, refused.code) == (7, roles.FORBIDDEN)
    assert list(head.gcs.objects.records) == [oid]
    head.say("owner", m.Drop(0, owner, oid))
    assert not head.gcs.objects.records
