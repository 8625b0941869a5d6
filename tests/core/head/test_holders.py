"""What processes say of objects, and whom an outcome wakes, without a head around it."""

from __future__ import annotations

import pytest

from tests.core.benches import identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.members import Member
from zray.core.head.object_table import PENDING
from zray.core.head.task_records import TaskRecord
from zray.core.machine import NEVER
from zray.errors import ObjectLostError, OwnerDiedError
from zray.protocol import messages as m

WORK = template()
OID = object_of(identity("x"))
OTHER = object_of(identity("y"))


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.woken: list[TaskRecord] = []
        self.all_told: list[bytes] = []
        self.holders = self.make_holders(told_all=self.all_told.append, wake=self.woken.append)

    @staticmethod
    def hear(*members: Member, now: float) -> None:
        """All of these say something."""
        for member in members:
            member.heard = now

    def error(self, driver: bytes) -> bytes:
        """The code of the one error that the driver is told."""
        (outcome,) = self.told(driver)
        assert outcome.kind & m.ERROR
        codes = [error.code for error in (ObjectLostError, OwnerDiedError)]
        (code,) = [code.encode() for code in codes if code.encode() in outcome.value]
        return code


def test_an_outcome_wakes_each_task_that_waits_and_tells_each_watcher_once() -> None:
    bench = Bench()
    driver = bench.driver("d")
    waiting = bench.task(spec("t", WORK, dependencies=[OID]), WORK, driver)
    waiting.waiting = 1
    bench.holders.hold(identity("t"), OID, 0.0).waiters = [identity("t")]
    for _ in range(2):
        bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    assert not bench.told(driver.process_id)
    bench.holders.on_put(driver, m.Put(0, driver.process_id, value(identity("x"))), 1.0)
    assert bench.woken == [waiting] and waiting.waiting == 0
    assert [outcome.value for outcome in bench.told(driver.process_id)] == [b"value"]
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 2.0)
    assert [outcome.value for outcome in bench.told(driver.process_id)] == [b"value"]


def test_who_tells_all_that_it_holds_holds_nothing_else() -> None:
    bench = Bench()
    driver = bench.driver("d")
    driver.resynced = False
    me = driver.process_id
    bench.holders.on_hold(driver, m.Hold(0, me, OID), 0.0)
    assert not driver.resynced and not bench.all_told
    bench.holders.on_hold(driver, m.Hold(0, me, OTHER, True), 0.0)
    assert [*bench.objects.held_by[me]] == [OTHER]
    assert driver.resynced and bench.all_told == [me]


def test_a_node_speaks_for_its_workers_and_is_not_back_for_that() -> None:
    bench = Bench()
    node, worker = bench.node("n"), identity("w")
    node.resynced = False
    bench.holders.on_hold(node, m.Hold(0, worker, OID, True), 0.0)
    assert [*bench.objects.held_by[worker]] == [OID]
    assert bench.processes.workers[worker] == node.process_id
    assert not node.resynced


def test_what_nobody_announces_is_lost_to_those_who_await_it() -> None:
    bench = Bench()
    driver = bench.driver("d")
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 5.0)
    bench.holders.on_hold(driver, m.Hold(0, driver.process_id, OTHER), 5.0)
    due = 5.0 + limits.UNKNOWN_OBJECT_S
    assert bench.holders.deadline() == due
    bench.holders.forget_unknown(due - 0.1)
    assert not bench.told(driver.process_id)
    bench.hear(driver, now=due)
    bench.holders.forget_unknown(due)
    assert bench.error(driver.process_id) == ObjectLostError.code.encode()
    assert OTHER in bench.holders.unknown  # somebody holds it: whoever made it may be slow


def test_a_head_that_recovers_loses_nothing() -> None:
    bench = Bench(awaited="n1")
    driver = bench.driver("d")
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    assert bench.holders.deadline() == NEVER
    bench.holders.forget_unknown(1000.0)
    bench.recovery.end()
    bench.holders.postpone(1000.0)
    bench.holders.forget_unknown(1000.0)
    assert not bench.told(driver.process_id)
    bench.holders.forget_unknown(1000.0 + limits.UNKNOWN_OBJECT_S)
    assert bench.error(driver.process_id) == ObjectLostError.code.encode()


@pytest.mark.parametrize("kept", [True, False])
def test_a_promised_object_is_never_unknown_and_lost_with_who_promised_it(kept: bool) -> None:
    bench = Bench()
    driver, caller = bench.driver("d"), bench.driver("c")
    bench.holders.on_promise(caller, m.Promise(0, caller.process_id, OID), 0.0)
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    bench.holders.forget_unknown(1000.0)
    assert not bench.told(driver.process_id)
    if kept:
        bench.holders.on_put(caller, m.Put(0, caller.process_id, value(identity("x"))), 1.0)
        assert [outcome.value for outcome in bench.told(driver.process_id)] == [b"value"]
    bench.holders.broken(caller.process_id)
    if not kept:
        assert bench.error(driver.process_id) == OwnerDiedError.code.encode()
    assert not bench.told(driver.process_id)


@pytest.mark.parametrize("full", [False, True])
def test_what_was_promised_and_is_with_a_node_is_lost_with_that(full: bool) -> None:
    bench = Bench()
    driver, caller = bench.driver("d"), bench.driver("c")
    me = caller.process_id
    bench.holders.on_promise(caller, m.Promise(0, me, OID), 0.0)
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    # In a new session it is not held any more by who had its answer, and not promised again.
    bench.holders.on_hold(caller, m.Hold(0, me, OTHER if full else OID, full), 5.0)
    bench.holders.on_drop(caller, m.Drop(0, me, OID), 5.0)
    bench.hear(driver, caller, now=5.0 + limits.UNKNOWN_OBJECT_S)
    bench.holders.forget_unknown(5.0 + limits.UNKNOWN_OBJECT_S)
    assert bench.error(driver.process_id) == ObjectLostError.code.encode()


def test_a_promise_that_is_repeated_in_a_new_session_stands() -> None:
    bench = Bench()
    driver, caller = bench.driver("d"), bench.driver("c")
    me = caller.process_id
    bench.holders.on_promise(caller, m.Promise(0, me, OID), 0.0)
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    bench.holders.on_hold(caller, m.Hold(0, me, OID, True), 5.0)
    bench.holders.on_promise(caller, m.Promise(0, me, OID), 5.0)
    bench.holders.forget_unknown(1000.0)
    assert not bench.told(driver.process_id)


@pytest.mark.parametrize("wait", ["watch", "pull"])
def test_nothing_is_lost_while_somebody_is_silent_who_may_have_said_that_it_is_there(
    wait: str,
) -> None:
    bench = Bench()
    driver, node = bench.driver("d"), bench.node("n")
    if wait == "watch":
        bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    else:
        bench.holders.on_pull(driver, m.Pull(0, 1, OID), 0.0)
    now = 0.0
    while now + limits.UNHEARD_OBJECT_S < limits.DEAD_S:
        now += limits.UNHEARD_OBJECT_S
        bench.hear(driver, now=now)
        bench.holders.forget_unknown(now)
        assert bench.objects.records[OID].kind == PENDING
    due = bench.holders.deadline()
    bench.hear(driver, node, now=due)
    bench.holders.forget_unknown(due)
    assert bench.objects.records[OID].kind == m.ERROR


def test_what_was_freed_before_its_holder_was_known_is_made_again() -> None:
    bench = Bench()
    asked: list[bytes] = []
    bench.holders = bench.make_holders(rebuild=lambda oid: asked.append(oid) or "")
    driver = bench.driver("d")
    bench.holders.on_watch(driver, m.Watch(0, driver.process_id, OID), 0.0)
    bench.holders.forget_unknown(1000.0)
    assert asked == [OID] and not bench.told(driver.process_id)


def test_a_node_may_keep_copies_of_what_is_known_only() -> None:
    bench = Bench()
    node, driver = bench.node("n"), bench.driver("d")
    bench.holders.on_put(driver, m.Put(0, driver.process_id, value(identity("x"))), 0.0)
    bench.holders.refuse_copies([value(identity("x")), value(identity("y"))], node)
    record = bench.objects.get(OID)
    assert record is not None and [*record.locations] == [driver.process_id, node.process_id]
    assert bench.sent(m.Free) == {node.process_id: [m.Free(0, OTHER)]}
