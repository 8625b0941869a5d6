"""Which nodes are emptied: refused, durable, told again in each session, and what they wait for."""

from __future__ import annotations

from typing import Any

from tests.core.benches import VERSIONS, HeadBench, identity, object_of, spec, template, value
from tests.core.benches import done as ended
from zray import limits
from zray.errors import DrainRefusedError, NotFoundError
from zray.protocol import messages as m

WORK = template()
ME = identity("operator")
N1, N2 = identity("n1"), identity("n2")


def head(**more: Any) -> HeadBench:
    bench = HeadBench(**more)
    bench.node("n1")
    bench.node("n2")
    bench.driver("d1", WORK)
    bench.say("me", m.Hello(0, 1, m.ROLE_OBSERVER, ME, 0, b"", VERSIONS))
    for name in ("n1", "n2", "me"):
        bench.taken(name)
    return bench


def drain(bench: HeadBench, node_id: bytes = N1, deadline_s: float = 0.0) -> Any:
    bench.say("me", m.Drain(3, ME, node_id, "upgrade", deadline_s))
    return bench.taken("me")


def remark(bench: HeadBench, node_id: bytes = N1) -> str:
    status = bench.gcs.queries.status(0, bench.now)
    return next(node.remark for node in status.nodes if node.node_id == node_id)


def state(bench: HeadBench, node_id: bytes = N1) -> str:
    return bench.gcs.members.nodes[node_id].state()


def test_an_idle_node_is_told_and_leaves() -> None:
    bench = head()
    (answer,) = drain(bench)
    assert (answer.subject, answer.code) == (N1, "")
    bench.after(1)
    told = bench.taken("n1")
    assert [type(one) for one in told if not isinstance(one, m.Pong)] == [m.Drain, m.Shutdown]
    assert told[-1].reason == "drained: upgrade" and state(bench) == "DRAINING"


def test_nobody_hears_of_it_before_it_is_durable() -> None:
    bench = head(durable=True)
    bench.durable = False
    assert drain(bench) == [] and state(bench) == "ALIVE"
    bench.commit()
    bench.turn()
    assert state(bench) == "DRAINING"


def test_it_gets_no_more_tasks_and_says_what_it_waits_for() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK), spec("t2", WORK))
    first = bench.assigned("n1")
    drain(bench)
    bench.submit("d1", *(spec(f"u{number}", WORK) for number in range(3)))
    bench.after(1)
    assert not bench.taken("n1", m.Shutdown)
    assert remark(bench) == "drained: upgrade; waits for 1 task"
    (task,) = first
    bench.say("n1", m.Done(1, [ended(identity(task))]))
    bench.after(1)
    told = bench.taken("n1")
    assert not any(isinstance(one, m.Tasks) for one in told)
    assert any(isinstance(one, m.Shutdown) for one in told)


def test_tasks_say_that_all_nodes_leave() -> None:
    bench = head()
    drain(bench, N1)
    drain(bench, N2)
    bench.submit("d1", spec("t1", WORK))
    reason = bench.gcs.causes.why(object_of(identity("t1")), bench.now)
    assert reason.startswith("NO_NODES") and "drained" in reason


def test_the_heads_own_node_is_refused_and_one_that_is_not_there() -> None:
    bench = head()
    bench.node("own", **{"node:__internal_head__": 1})
    assert drain(bench, identity("own"))[0].code == DrainRefusedError.code
    assert drain(bench, identity("n9"))[0].code == NotFoundError.code
    assert state(bench, identity("own")) == "ALIVE"


def test_the_deadline_is_the_end_and_can_be_moved() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK), spec("t2", WORK))
    drain(bench, deadline_s=60.0)
    assert "60 s left" in remark(bench)
    drain(bench, deadline_s=5.0)
    bench.after(4)
    assert not bench.taken("n1", m.Shutdown)
    bench.after(2)
    (stop,) = bench.taken("n1", m.Shutdown)
    assert "deadline" in stop.reason and "1 task" in stop.reason


def test_a_new_session_is_told_again() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK), spec("t2", WORK))
    (mine,) = bench.assigned("n1")
    drain(bench)
    bench.after(1)
    assert len(bench.taken("n1", m.Drain)) == 1
    bench.sessions.link_lost(b"n1", bench.now)
    bench.say("again", bench.hello_node("n1"))
    held = m.HeldTask(identity(mine), 1, identity("d1"), WORK.template_id)
    bench.say("again", m.Announce(0, [held], [], []), m.Credit(0, 100))
    bench.after(1)
    assert len(bench.taken("again", m.Drain)) == 1 and state(bench) == "DRAINING"


def test_the_next_head_goes_on() -> None:
    first = head()
    drain(first, deadline_s=30.0)
    rows = {"nodes": {N1: first.gcs.members.row(N1, first.gcs.members.node_rows[N1])[2]}}
    bench = HeadBench(rows, epoch=2)
    bench.node("n1")
    assert state(bench) == "DRAINING"
    assert remark(bench).startswith("drained: upgrade, 30 s left")


def test_the_next_incarnation_is_drained_as_well() -> None:
    """The node was out of reach for so long that it counted as dead: nobody has started it anew."""
    bench = head()
    drain(bench)
    bench.say("later", bench.hello_node("n1", 2))
    bench.say("later", m.Announce(0, [], [], []), m.Credit(0, 100))
    bench.after(1)
    told = bench.taken("later")
    assert any(isinstance(one, m.Drain) for one in told)
    assert any(isinstance(one, m.Shutdown) for one in told)
    assert state(bench) == "DRAINING"


# ---- objects ---------------------------------------------------------------------------------


def large(bench: HeadBench, name: str) -> bytes:
    """A large result that n1 has."""
    bench.submit(
        "d1",
        spec(
            name,
            WORK,
        ),
    )
    task = bench.gcs.tasks[identity(name)]
    assert task.node is not None and task.node.node_id == N1
    result = m.Outcome(object_of(identity(name)), m.VALUE | m.LOCATED, 1 << 20)
    bench.say("n1", m.Done(1, [ended(identity(name), results=[result])]))
    return result.object_id


def alone() -> tuple[HeadBench, bytes]:
    bench = HeadBench()
    bench.node("n1")
    me = bench.driver("d1", WORK)
    oid = object_of(identity("t1"))
    bench.say("d1", m.Hold(0, me, oid))
    large(bench, "t1")
    bench.say("me", m.Hello(0, 1, m.ROLE_OBSERVER, ME, 0, b"", VERSIONS))
    bench.taken("me")
    bench.taken("n1")
    return bench, oid


def test_what_only_it_has_is_copied_first() -> None:
    bench, oid = alone()
    drain(bench)
    bench.after(2)
    assert "no node can take" in remark(bench) and not bench.taken("n1", m.Shutdown)
    bench.node("n2")
    bench.after(1)
    (fetch,) = bench.taken("n2", m.Fetch)
    assert fetch.object_ids == oid
    assert "1 left" in remark(bench) and not bench.taken("n1", m.Shutdown)
    bench.say("n2", m.Have(0, oid))
    bench.after(1)
    assert bench.taken("n1", m.Shutdown)


def test_a_copy_that_does_not_come_is_given_up_and_counted() -> None:
    bench, oid = alone()
    bench.node("n2")
    drain(bench)
    bench.after(200)
    asked = bench.taken("n2", m.Fetch)
    assert [one.object_ids for one in asked] == [oid] * 3
    assert bench.taken("n1", m.Shutdown)
    bench.say("n1", m.Goodbye(0, "drained"))
    bench.after(1)
    assert any("1 objects went with it" in text for text in bench.gcs.notices.latest())


def test_they_are_copied_while_something_runs_and_counted_when_time_is_over() -> None:
    bench, oid = alone()
    bench.submit("d1", spec("t2", WORK))
    bench.node("n2")
    drain(bench, deadline_s=20.0)
    bench.after(3)
    assert "waits for 1 task" in remark(bench)
    assert [one.object_ids for one in bench.taken("n2", m.Fetch)] == [oid]
    bench.after(20)
    (stop,) = bench.taken("n1", m.Shutdown)
    assert "deadline" in stop.reason and "1 task" in stop.reason
    bench.say("n1", m.Goodbye(0, stop.reason))
    bench.after(1)
    assert any("1 objects went with it" in text for text in bench.gcs.notices.latest())


def test_small_values_that_the_head_has_need_no_copy() -> None:
    bench = head()
    bench.submit("d1", spec("t1", WORK))
    bench.say("d1", m.Hold(0, identity("d1"), object_of(identity("t1"))))
    place = bench.gcs.tasks[identity("t1")].node
    assert place is not None
    name = place.node_id.rstrip(b"\0").decode()
    bench.say(name, m.Done(1, [ended(identity("t1"), results=[value(identity("t1"))])]))
    drain(bench, place.node_id)
    bench.after(1)
    assert bench.taken(name, m.Shutdown)
    assert not bench.taken("n1", m.Fetch) and not bench.taken("n2", m.Fetch)


def test_many_objects_are_looked_at_some_at_a_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "DRAIN_SCAN_OBJECTS", 10)
    bench, _ = alone()
    for number in range(2, 33):
        large(bench, f"t{number}")
        bench.say("d1", m.Hold(0, identity("d1"), object_of(identity(f"t{number}"))))
    assert len(bench.gcs.objects.records) == 32
    bench.node("n2")
    drain(bench)
    copied = b""
    for _ in range(20):
        bench.after(1)
        for fetch in bench.taken("n2", m.Fetch):
            copied += fetch.object_ids
            bench.say("n2", m.Have(0, fetch.object_ids))
    assert len(copied) == 32 * 20
    assert bench.taken("n1", m.Shutdown)


# ---- actors ------------------------------------------------------------------------------------


def actor(bench: HeadBench, restarts: int) -> bytes:
    info = m.ActorInfo("Counter", b"f" * 16, [("add", 1)], max_restarts=restarts)
    task = spec("a1", WORK)
    bench.say("d1", m.CreateActor(1, identity("d1"), identity("d1"), task, info))
    bench.turn()
    place = bench.gcs.tasks[identity("a1")].node
    assert place is not None
    name = place.node_id.rstrip(b"\0").decode()
    bench.say(name, m.Done(1, [ended(identity("a1"), worker_id=identity("w1"))]))
    return place.node_id


def test_an_actor_that_may_restart_is_ended_gently_to_start_elsewhere() -> None:
    bench = head()
    place = actor(bench, 1)
    name, other = ("n1", "n2") if place == N1 else ("n2", "n1")
    bench.taken(other)
    drain(bench, place)
    bench.after(1)
    (stop,) = bench.taken(name, m.StopActor)
    assert stop.graceful and "drained" in stop.reason
    bench.say(name, m.ActorExited(2, identity("a1"), 1, True, stop.reason))
    bench.after(1)
    assert bench.assigned(other) == ["a1"]
    assert bench.taken(name, m.Shutdown)


def test_an_actor_that_may_not_stays_and_is_waited_for() -> None:
    bench = head()
    place = actor(bench, 0)
    name = "n1" if place == N1 else "n2"
    drain(bench, place)
    bench.after(1)
    told = bench.taken(name)
    assert not any(isinstance(one, m.StopActor | m.Shutdown) for one in told)
    assert remark(bench, place).endswith("waits for 1 actor")
