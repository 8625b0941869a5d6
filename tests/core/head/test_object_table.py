"""Who holds what at the head, and what is freed when: sets of holders, never counts."""

from __future__ import annotations

from tests.core.benches import HeadBench, done, identity, object_of, spec, template, value
from zray import limits
from zray.core.head.object_table import ObjectTable
from zray.protocol import messages as m

WORK = template()
TWO = template("two", returns=2)
NONE = template("none", returns=0)


def head_with(node: bool = True) -> HeadBench:
    head = HeadBench()
    head.driver("d1", WORK, TWO, NONE)
    if node:
        head.node("n1", 8)
        head.taken("n1")
    return head


def known(head: HeadBench, *tasks: str) -> list[bool]:
    return [object_of(identity(name)) in head.gcs.objects.records for name in tasks]


def freed(head: HeadBench, route: str) -> list[bytes]:
    joined = b"".join(message.object_ids for message in head.taken(route, m.Free))
    return [joined[start : start + 20] for start in range(0, len(joined), 20)]


def acknowledge(head: HeadBench, name: str = "d1") -> None:
    for result in head.taken(name, m.Result):
        head.say(name, m.ResultAck(0, result.target, result.seq))


# ---- the table -----------------------------------------------------------------------------


def test_hold_and_drop_are_set_operations() -> None:
    table = ObjectTable()
    oid, job = object_of(identity("t")), identity("d1")
    for _ in range(3):
        table.hold(job, oid, process=True)
    table.hold(b"other", oid)
    table.settle(value(identity("t")), (b"n1",))
    table.drop(b"other", oid)
    table.drop(b"stranger", oid)
    assert table.sweep(lambda *_: False) == []
    table.drop(job, oid, process=True)
    assert [found for found, _ in table.sweep(lambda *_: False)] == [oid]
    assert not table.records and not table.cache and not table.cache_bytes


def test_ids_that_a_peer_has_cut_short_are_as_others() -> None:
    table = ObjectTable()
    for oid in (b"", b"12345678", b"12345678\xff", bytes(15)):
        table.hold(b"p", oid, process=True)
    table.vanish(b"p")
    assert len(table.sweep(lambda oid, record: False)) == 4
    assert not table.records and not table.items


def test_a_process_that_vanishes_takes_all_its_holds_with_it() -> None:
    table = ObjectTable()
    job = identity("d1")
    ids = [object_of(identity(f"t{number}")) for number in range(3)]
    for oid in ids:
        table.settle(value(oid[:16]), (b"n1",))
        table.hold(job, oid, process=True)
    table.hold(b"another", ids[1])
    table.vanish(job)
    assert [found for found, _ in table.sweep(lambda *_: False)] == [ids[0], ids[2]]


def test_the_cache_keeps_its_bound_and_the_last_copy_stays() -> None:
    table = ObjectTable()
    size = limits.HEAD_CACHE_BYTES // 4
    for number in range(6):
        table.settle(value(identity(f"t{number}"), bytes(size)), (b"n1",))
    assert table.cache_bytes <= limits.HEAD_CACHE_BYTES
    assert len(table.cache) == 4
    last = object_of(identity("t5"))
    table.remove_location(last, table.records[last], b"n1")
    table.settle(value(identity("t6"), bytes(4 * size)), (b"n1",))
    assert table.value(last) is not None


def test_contained_objects_follow_their_container() -> None:
    table = ObjectTable()
    inner, outer = object_of(identity("inner")), object_of(identity("outer"))
    table.settle(value(identity("inner")), (b"n1",))
    table.hold(identity("d1"), outer, process=True)
    table.settle(value(identity("outer"), contained=[inner]), (b"n1",))
    assert table.sweep(lambda *_: False) == []
    table.drop(identity("d1"), outer, process=True)
    assert [found for found, _ in table.sweep(lambda *_: False)] == [outer, inner]


# ---- through the head's messages -----------------------------------------------------------


def test_a_submitter_holds_its_returns_until_it_drops_them() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    acknowledge(head)
    assert known(head, "t1") == [True]
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    assert known(head, "t1") == [False]
    assert freed(head, "n1") == [object_of(identity("t1"))]


def test_a_return_that_a_value_names_before_its_end_is_its_submitters_all_the_same() -> None:
    head = head_with()
    head.driver("d2")
    head.submit("d1", spec("t1", WORK))
    list_of_it = m.Outcome(
        object_of(identity("p")), m.VALUE, 4, b"list", [object_of(identity("t1"))]
    )
    head.say("d2", m.Put(0, identity("d2"), list_of_it))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    acknowledge(head)
    head.say("d2", m.Drop(0, identity("d2"), list_of_it.object_id))
    assert known(head, "p", "t1") == [False, True]
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    assert known(head, "t1") == [False]


def test_a_return_that_was_dropped_goes_once_its_submitter_knows_how_it_ended() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    assert known(head, "t1") == [True]
    acknowledge(head)
    assert known(head, "t1") == [False]
    assert freed(head, "n1") == [object_of(identity("t1"))]


def test_a_resubmitted_task_with_an_outcome_is_answered_and_not_run() -> None:
    head = head_with()
    head.submit("d1", spec("t1", TWO))
    results = [value(identity("t1")), value(identity("t1"), index=1)]
    head.say("n1", m.Done(1, [done(identity("t1"), results=results)]))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    head.taken("d1")
    head.taken("n1")
    head.submit("d1", spec("t1", TWO))
    (result,) = head.taken("d1", m.Result)
    assert [outcome.object_id for outcome in result.outcomes] == [o.object_id for o in results]
    assert not head.gcs.tasks and not head.assigned("n1")


def test_an_acknowledgement_of_before_does_not_free_what_was_told_again() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK), spec("t2", WORK))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    (lost,) = head.taken("d1", m.Result)
    head.submit("d1", spec("t1", WORK))
    (again,) = head.taken("d1", m.Result)
    head.say("d1", m.ResultAck(0, identity("d1"), lost.seq))
    assert known(head, "t1") == [True]
    head.say("d1", m.ResultAck(0, identity("d1"), again.seq))
    assert known(head, "t1") == [False]


def test_a_new_session_that_asks_for_nothing_has_everything() -> None:
    head = head_with()
    head.submit("d1", spec("t1", WORK))
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("t1"))))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    head.say("d1-again", head.hello_driver("d1"), epoch=1)
    assert known(head, "t1") == [True]
    head.say("d1-again", m.Hold(0, identity("d1"), b"", True))
    assert known(head, "t1") == [False]


def test_arguments_are_held_by_their_task_until_its_end_is_committed() -> None:
    head = head_with()
    a, b = object_of(identity("a")), object_of(identity("b"))
    head.say("d1", m.Put(0, identity("d1"), value(identity("a"))))
    head.say("d1", m.Put(0, identity("d1"), value(identity("b"))))
    head.submit("d1", spec("t1", WORK, dependencies=[a], nested=[b]))
    head.say("d1", m.Drop(0, identity("d1"), a + b))
    assert known(head, "a", "b") == [True, True]
    head.say("n1", m.Done(1, [done(identity("t1"), status=m.CRASHED)]))
    assert known(head, "a", "b") == [True, True]
    head.say("n1", m.Done(2, [done(identity("t1"), 2)]))
    assert known(head, "a", "b") == [False, False]
    assert sorted(freed(head, "d1")) == [a, b]  # its maker served them until now


def test_a_borrow_is_applied_before_the_task_s_own_hold_goes() -> None:
    head = head_with()
    a, worker = object_of(identity("a")), identity("w1")
    head.say("d1", m.Put(0, identity("d1"), value(identity("a"))))
    head.submit("d1", spec("t1", WORK, nested=[a]))
    head.say("d1", m.Drop(0, identity("d1"), a))
    head.say("n1", m.Done(1, [done(identity("t1"), borrowed=[a], worker_id=worker)]))
    assert known(head, "a") == [True]
    head.say("n1", m.Drop(0, worker, a))
    assert known(head, "a") == [False]


def test_a_borrow_goes_with_its_worker_and_with_its_node() -> None:
    for ending in (m.WorkerDied(0, identity("w1")), m.Goodbye(0, "stopped")):
        head = head_with()
        a = object_of(identity("a"))
        head.say("d1", m.Put(0, identity("d1"), value(identity("a"))))
        head.submit("d1", spec("t1", WORK, nested=[a]))
        head.say("d1", m.Drop(0, identity("d1"), a))
        end = done(identity("t1"), borrowed=[a], worker_id=identity("w1"))
        head.say("n1", m.Done(1, [end]))
        head.say("n1", ending)
        assert known(head, "a") == [False]
        assert identity("w1") not in head.gcs.processes.workers


def test_an_end_that_does_not_count_borrows_nothing_and_leaves_no_copy() -> None:
    head = head_with()
    head.node("n2", 8)
    a = object_of(identity("a"))
    head.say("d1", m.Put(0, identity("d1"), value(identity("a"))))
    head.submit("d1", spec("t1", WORK, nested=[a]))
    holder = "n1" if head.taken("n1", m.Tasks) else "n2"
    other = "n2" if holder == "n1" else "n1"
    end = done(identity("t1"), borrowed=[a], worker_id=identity("w9"))
    head.say(other, m.Done(1, [end]))
    assert head.gcs.counters["stale"] == 1
    assert freed(head, other) == [object_of(identity("t1"))]
    assert identity("w9") not in head.gcs.objects.held_by
    assert not head.taken("d1", m.Result)
    head.say(holder, m.Done(1, [done(identity("t1"), 7)]))  # another attempt: stale too
    assert head.gcs.counters["stale"] == 2
    head.say(holder, m.Done(2, [done(identity("t1"))]))
    assert len(head.taken("d1", m.Result)) == 1


def test_a_task_without_returns_is_told_and_leaves_nothing() -> None:
    head = head_with()
    head.submit("d1", spec("t1", NONE))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    acknowledge(head)
    assert not head.gcs.objects.records and not head.gcs.results.unacked
    assert freed(head, "n1") == [object_of(identity("t1"))]


def test_a_driver_that_ends_leaves_nothing() -> None:
    head = head_with()
    a = object_of(identity("a"))
    head.say("d1", m.Put(0, identity("d1"), value(identity("a"))))
    head.submit("d1", spec("t1", WORK, dependencies=[a]), spec("t2", TWO))
    head.say("n1", m.Done(1, [done(identity("t1"))]))
    head.say("d1", m.Goodbye(0, "done"))
    assert not head.gcs.tasks and not head.gcs.objects.records
    assert not head.gcs.objects.held_by.get(identity("d1"))
    assert head.taken("n1", m.JobEnded)
    assert all(view.free == view.total for view in head.gcs.scheduler.nodes.values())


# ---- unknown and lost ----------------------------------------------------------------------


def test_an_object_that_nobody_announces_is_lost_after_a_while() -> None:
    head = head_with()
    gone = object_of(identity("gone"))
    head.say("d1", m.Watch(0, identity("d1"), gone))
    head.submit("d1", spec("t1", WORK, dependencies=[gone]))
    head.after(limits.UNKNOWN_OBJECT_S - 1)
    assert not head.taken("d1", m.Result)
    head.after(2.0)
    (result,) = head.taken("d1", m.Result)
    assert result.outcomes[0].kind == m.ERROR and b"ZR-3005" in result.outcomes[0].value
    (sent,) = head.taken("n1", m.Tasks)
    assert sent.values[0].kind == m.ERROR


def test_an_object_that_is_only_held_is_waited_for() -> None:
    head = head_with()
    late = object_of(identity("late"))
    head.say("d1", m.Hold(0, identity("d1"), late))
    head.after(3 * limits.UNKNOWN_OBJECT_S)
    head.say("d1", m.Put(0, identity("d1"), value(identity("late"))))
    assert head.gcs.objects.records[late].kind == m.VALUE


def test_a_drop_of_something_unknown_leaves_no_trace() -> None:
    head = head_with()
    head.say("d1", m.Drop(0, identity("d1"), object_of(identity("x"))))
    assert not head.gcs.objects.records and not head.gcs.holders.unknown


def test_a_value_is_pulled_from_who_has_it_and_then_from_another() -> None:
    head = head_with()
    head.node("n2", 8)
    head.taken("n2")
    big = object_of(identity("big"))
    located = m.Outcome(big, m.LOCATED, 1 << 20)
    head.submit("d1", spec("big", WORK))
    holder = "n1" if head.taken("n1", m.Tasks) else "n2"
    other = "n2" if holder == "n1" else "n1"
    head.say(holder, m.Done(1, [done(identity("big"), results=[located])]))
    head.say(other, m.Have(0, big))
    head.say("d1", m.Pull(0, 5, big))
    (pull,) = head.taken(holder, m.Pull)
    head.say(holder, m.Chunk(0, pull.transfer, 0, 0, 8, b"half"))
    head.sessions.link_lost(holder.encode(), head.now)
    head.turn()
    (pull,) = head.taken(other, m.Pull)
    head.say(other, m.Chunk(0, pull.transfer, 0, 0, 8, b"halfhalf"))
    chunks = head.taken("d1", m.Chunk)
    assert [(chunk.transfer, chunk.offset, chunk.data) for chunk in chunks] == [
        (5, 0, b"half"),
        (5, 0, b"halfhalf"),
    ]
    assert not head.gcs.transfers._relays


def test_a_value_without_a_copy_is_lost() -> None:
    head = head_with()
    big = object_of(identity("big"))
    once = template("once", retries=0)
    head.say("d1", once)
    head.submit("d1", spec("big", once))
    located = m.Outcome(big, m.LOCATED, 1 << 20)
    head.say("n1", m.Done(1, [done(identity("big"), results=[located])]))
    head.sessions.link_lost(b"n1", head.now)
    head.say("d1", m.Pull(0, 5, big))
    assert not head.taken("d1", m.PullFailed)  # its node may come back
    head.after(21.0)
    (failed,) = head.taken("d1", m.PullFailed)
    assert failed.code == "ZR-3005" and failed.transfer == 5


def test_a_value_that_a_driver_serves_outlives_its_own_reference() -> None:
    head = head_with()
    big = object_of(identity("big"))
    head.say("d1", m.Put(0, identity("d1"), m.Outcome(big, m.LOCATED, 1 << 20)))
    head.submit("d1", spec("t1", WORK, dependencies=[big]))
    head.say("d1", m.Drop(0, identity("d1"), big))
    head.say("n1", m.Pull(0, 1, big))
    assert head.taken("d1", m.Pull)
    assert not freed(head, "d1")


def test_a_pull_may_come_before_its_object_is_announced() -> None:
    """An actor's answer names the object, and took a shorter way than the word of it."""
    head = head_with()
    big = object_of(identity("big"))
    head.say("d1", m.Pull(0, 5, big))
    head.say("n1", m.Put(0, identity("w1"), m.Outcome(big, m.LOCATED, 1 << 20)))
    (pull,) = head.taken("n1", m.Pull)
    head.say("n1", m.Chunk(0, pull.transfer, 0, 0, 8, b"halfhalf"))
    (chunk,) = head.taken("d1", m.Chunk)
    assert chunk.transfer == 5 and not head.gcs.transfers.unheard
    assert not head.gcs.holders.unknown


def test_a_pull_of_what_nobody_announces_fails_after_a_while() -> None:
    head = head_with()
    head.say("d1", m.Pull(0, 5, object_of(identity("never"))))
    head.after(limits.UNHEARD_OBJECT_S - 0.5)
    assert {type(msg) for msg in head.taken("d1")} <= {m.Pong}
    head.after(2.0)
    (answer,) = head.taken("d1", m.Chunk)
    assert answer.transfer == 5 and answer.kind & m.ERROR
    assert not head.gcs.objects.records and not head.gcs.transfers._relays


def test_two_processes_that_promise_the_same_object_harm_nobody() -> None:
    head = head_with()
    head.driver("d2")
    promised = object_of(identity("promised"))
    for name in ("d1", "d2"):
        head.say(name, m.Promise(0, identity(name), promised))
    for name in ("d2", "d1"):
        head.say(name, m.Goodbye(0, "done"))
    assert not head.gcs.objects.records


def test_an_actor_cannot_take_the_id_of_a_process() -> None:
    head = head_with()
    info = m.ActorInfo("Counter", b"f" * 16, [], detached=True)
    driver = identity("d1")
    task = m.TaskSpec(driver, WORK.template_id, b"")
    head.say("d1", m.CreateActor(7, driver, driver, task, info))
    (answer,) = head.taken("d1", m.ActorCreated)
    assert (answer.about, answer.code) == (7, "ZR-2001")
    head.say("d1", m.Goodbye(0, "done"))
    assert not head.gcs.members.jobs and not head.gcs.actor_table
