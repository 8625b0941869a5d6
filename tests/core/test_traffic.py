"""Sessions: who may say what, under which epoch, and when a peer has to begin again."""

from __future__ import annotations

import pytest

from tests.core.benches import (
    CLUSTER,
    VERSIONS,
    HeadBench,
    identity,
    object_of,
    spec,
    template,
    value,
)
from zray.core import traffic
from zray.protocol import messages as m
from zray.protocol.codec import Bad, Payload

WORK = template()


def example(kind: type[m.Message]) -> m.Message:
    """A message of the kind that is harmless for a head that knows nothing."""
    node, job = identity("n1"), identity("d1")
    oid = object_of(identity("t1"))
    known: dict[type[m.Message], m.Message] = {
        m.Template: WORK,
        m.Export: m.Export(0, b"f" * 16, "f", b""),
        m.Submit: m.Submit(0, job, job, []),
        m.ResultAck: m.ResultAck(0, job, 1),
        m.Cancel: m.Cancel(0, identity("t1"), False, True),
        m.Hold: m.Hold(0, job, b""),
        m.Drop: m.Drop(0, job, oid),
        m.Watch: m.Watch(0, job, oid),
        m.Put: m.Put(0, job, value(identity("p1"))),
        m.Pull: m.Pull(0, 1, oid),
        m.Chunk: m.Chunk(0, 1, 0, 0, 0, b""),
        m.ChunkAck: m.ChunkAck(0, 1, 0),
        m.PullFailed: m.PullFailed(0, 1, "", ""),
        m.Query: m.Query(1, m.STATUS),
        m.Kv: m.Kv(1, "get", b"key"),
        m.Ping: m.Ping(0, 1.0),
        m.Goodbye: m.Goodbye(0, "bye"),
        m.Credit: m.Credit(0, 1),
        m.Done: m.Done(1, []),
        m.Returned: m.Returned(0, b""),
        m.WorkerDied: m.WorkerDied(0, identity("w1")),
        m.Announce: m.Announce(0, [], [], []),
        m.Have: m.Have(0, oid),
        m.Log: m.Log(0, job, "f", 1, "n1", False, ["text"]),
        m.Shutdown: m.Shutdown(0, "stop"),
        m.Welcome: m.Welcome(0, 1, CLUSTER, 1, 1.0),
        m.Refused: m.Refused(0, "", ""),
        m.Rejoin: m.Rejoin(0, ""),
        m.Pong: m.Pong(0, 1.0, ""),
        m.Rejected: m.Rejected(0, 1, "", ""),
        m.Exported: m.Exported(0, []),
        m.Result: m.Result(1, job, []),
        m.Notice: m.Notice(0, "", ""),
        m.Status: m.Status(0, 1, CLUSTER, 0.0, "", [], [], [], 0, [], []),
        m.Reasons: m.Reasons(0, 1, []),
        m.KvReply: m.KvReply(0, 1, False),
        m.Tasks: m.Tasks(0, []),
        m.Ack: m.Ack(0, 1),
        m.Reclaim: m.Reclaim(0, [], 1),
        m.CancelTask: m.CancelTask(0, identity("t1"), 1, False),
        m.Free: m.Free(0, b""),
        m.Job: m.Job(0, job, m.JobInfo("p", "/", [], "m", "h", 1)),
        m.JobEnded: m.JobEnded(0, job),
        m.Discard: m.Discard(0, []),
        m.Setup: m.Setup(0, job, m.JobInfo("p", "/", [], "m", "h", 1), node, "n1", True),
        m.Recall: m.Recall(0),
        m.Blocked: m.Blocked(0),
        m.Unblocked: m.Unblocked(0),
        m.Exit: m.Exit(0),
    }
    return known[kind]


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
    head.say("r1", example(kind))
    rejected = head.taken("r1", m.Rejected)
    allowed = kind in traffic.VERBS[role]
    # A driver submits for its own job; that of the example has ended, of which it is told.
    forbidden = [answer for answer in rejected if answer.code == traffic.FORBIDDEN]
    assert bool(forbidden) is not allowed
    assert head.controller.stopping == ("stop" if allowed and kind is m.Shutdown else "")


@pytest.mark.parametrize("kind", [kind for kind in m.ALL if kind is not m.Hello])
def test_nothing_is_heard_of_before_hello(kind: type[m.Message]) -> None:
    head = HeadBench()
    head.say("r1", example(kind), example(kind))
    assert len(head.taken("r1", m.Rejoin)) == 1
    assert not head.gcs.objects.records and not head.controller.stopping


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
    head.controller.link_lost(b"d1", head.now)
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
    head.controller.link_lost(b"d1", head.now)
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
    head.controller.link_lost(b"d1", head.now)
    head.after(21.0)
    answer = refusal(head.hello_driver("d1"), epoch=1, head=head)
    assert answer and answer.code == m.FENCED and "out of reach" in answer.text
    assert refusal(head.hello_driver("d2"), epoch=0, head=head) is None


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
    head.controller.link_lost(b"n1", head.now)
    for _ in range(4):
        head.gcs.members.probed(identity("n1"), True, head.now)
        head.now += 1.0
        head.turn()
    assert not head.gcs.members.nodes


def test_a_port_that_answers_is_a_node_that_lives() -> None:
    head = HeadBench()
    head.node("n1")
    head.controller.link_lost(b"n1", head.now)
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
    head.controller.receive(b"d1", "user", payload, head.now)
    head.turn()
    answers = head.taken("d1")
    assert [answer.about for answer in answers if isinstance(answer, m.Rejected)] == [7]
    assert [answer.sent_s for answer in answers if isinstance(answer, m.Pong)] == [5.0]
