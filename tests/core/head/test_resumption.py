"""How a head that was started again goes on, as those of before come back or do not."""

from __future__ import annotations

import msgspec

from tests.core.benches import FUNCTION, identity, object_of, spec, template, value
from tests.core.head.tables import Machines
from zray import limits
from zray.core.head.actor_records import ActorRow
from zray.core.head.catalog import FunctionRow
from zray.core.head.members import NodeRow
from zray.core.head.resumption import Resumption
from zray.core.head.task_records import TaskRecord
from zray.protocol import messages as m

WORK = template()
ACTOR, T, U = identity("a"), identity("t"), identity("u")
OID = object_of(identity("x"))
OLD = b"g" * 16  # a function that nobody names any more


class Bench(Machines):
    """A head of after a restart: node n1 is back, n2 is not, driver d has yet to tell."""

    def __init__(self, *, owner: bytes = identity("d")) -> None:
        function = msgspec.msgpack.encode(FunctionRow("old", b"code", []))
        super().__init__(WORK, awaited="n2", functions={OLD: function})
        self.n1 = self.node("n1", 2)
        self.job = self.driver("d", resumed=True)
        about = m.ActorInfo("Counter", FUNCTION, [], max_restarts=5)
        ids = (self.job.process_id, owner, m.ACTOR_ALIVE, 1, 0, identity("n2"), identity("w"))
        row = ActorRow(about, spec("a", WORK), WORK, *ids, None)
        self.make_actors({ACTOR: msgspec.msgpack.encode(row)})
        self.machine = Resumption(
            recovery=self.recovery,
            members=self.members,
            tasks=self.tasks,
            transfers=self.transfers,
            holders=self.holders,
            definitions=self.definitions,
            task_manager=self.task_manager,
            actors=self.make_actor_reconciliation(),
        )

    def submit(self, *specs: m.TaskSpec) -> None:
        ids = (self.job.process_id, self.job.process_id)
        self.task_manager.on_submit(self.job, m.Submit(1, *ids, list(specs)), 0.0)

    def node_is_lost(self) -> None:
        """The node that is not back is dead."""
        self.members.gone(identity("n2"), NodeRow(1, False, "n2"))

    def everybody_is_back(self, now: float = 0.0) -> None:
        self.node_is_lost()
        self.job.resynced = True
        self.machine.step(now)

    def freed(self) -> list[bytes]:
        return [oid for oid, _ in self.objects.sweep(lambda oid, known: False)]


def test_tasks_of_before_go_on_when_every_node_is_back_or_dead() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK))
    bench.machine.step(0.0)
    assert bench.starts() == []
    bench.node_is_lost()
    bench.machine.step(0.0)
    assert bench.starts() == [(T, 1)]
    bench.submit(spec("u", WORK))  # the driver goes on telling
    bench.machine.step(0.0)
    assert bench.starts() == [(U, 1)]


def test_an_actor_of_a_node_that_is_dead_is_made_again_once() -> None:
    bench = Bench()
    record = bench.actors[ACTOR]
    bench.machine.step(0.0)
    assert record.state == m.ACTOR_ALIVE
    bench.node_is_lost()
    bench.machine.step(0.0)
    bench.machine.step(0.0)
    assert (record.state, record.restarts) == (m.ACTOR_RESTARTING, 1)
    bench.commit()
    bench.incarnations.step(bench.incarnations.deadline())
    assert bench.starts() == [(ACTOR, 2)]


def test_nothing_is_given_up_before_the_drivers_have_told_what_they_hold() -> None:
    bench = Bench(owner=identity("gone"))
    bench.objects.settle(value(identity("x")), (bench.n1.process_id,))
    bench.recovery.hold(OID)
    told_by_node = TaskRecord(None, None, bench.job.process_id, b"")
    told_by_node.attempt = 4
    bench.tasks.add(T, told_by_node)
    bench.scheduler.adopt(bench.n1.view, T, told_by_node)
    bench.node_is_lost()
    bench.machine.step(0.0)
    bench.definitions.settle(0.0)
    assert ("functions", OLD, None) not in bench.commit()
    assert OID not in bench.freed() and T in bench.tasks and ACTOR in bench.actors
    bench.everybody_is_back()
    assert OID in bench.freed()
    cancelled = bench.sent(m.CancelTask)  # nobody is there to be told of it
    assert cancelled == {bench.n1.process_id: [m.CancelTask(0, T, 4, False)]}
    assert bench.actors[ACTOR].state == m.ACTOR_DEAD  # its owner is not there
    bench.definitions.settle(0.0)
    assert ("functions", OLD, None) in bench.commit()


def test_what_nobody_has_told_of_is_waited_for_from_then_on() -> None:
    bench = Bench()
    bench.submit(spec("t", WORK, dependencies=[OID]))
    late = 10 * limits.UNKNOWN_OBJECT_S
    bench.everybody_is_back(late)
    assert bench.holders.deadline() == late + limits.UNKNOWN_OBJECT_S
    bench.machine.step(2 * late)  # it has recovered: that is not put off again
    bench.holders.forget_unknown(late + limits.UNKNOWN_OBJECT_S)
    assert bench.counters["lost"] == 1
