"""The incarnations of an actor: launched, living, lost, followed by others, and their end."""

from __future__ import annotations

import msgspec
import pytest

from tests.core.benches import FUNCTION, done, identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray import limits
from zray.core.head.actor_directory import ActorDirectory
from zray.core.head.actor_records import DETACHED, TABLE, ActorRecord, ActorRow
from zray.core.head.catalog import Catalog
from zray.core.head.definitions import Definitions
from zray.core.head.incarnations import Incarnations
from zray.core.head.task_records import TaskRecord
from zray.core.machine import NEVER
from zray.protocol import messages as m

ACTOR = identity("actor")
WORKER = identity("worker")
OWNER = identity("d")
MADE = template("Counter")
ARGUMENT = object_of(identity("argument"))


class Bench(Tables):
    """An actor of driver d; ``begun``: how often its constructor was started."""

    def __init__(self, **info: object) -> None:
        super().__init__()
        self.begun: list[TaskRecord] = []
        self.directory = ActorDirectory(
            epoch=1,
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            recovery=self.recovery,
            records=self.actors,
        )
        self.definitions = Definitions(
            outbox=self.outbox,
            members=self.members,
            processes=self.processes,
            objects=self.objects,
            catalog=Catalog({}, self.journal.persist, self.outbox),
            recovery=self.recovery,
            hold=lambda holder, oid, now: None,
            wake=lambda task: None,
        )
        self.incarnations = Incarnations(
            outbox=self.outbox,
            persist=self.journal.persist,
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            records=self.actors,
            scheduler=self.scheduler,
            definitions=self.definitions,
            directory=self.directory,
            events=self.events,
            placement=self.placement,
            begin=lambda task, made_of, now: self.begun.append(task),
        )
        self.n1 = self.node("n1")
        self.driver("d")
        about = m.ActorInfo("Counter", FUNCTION, [], "name", "space")
        about = msgspec.structs.replace(about, **info)
        made_of = spec("actor", MADE, dependencies=[ARGUMENT])
        template = self.definitions.take(MADE)
        self.record = ActorRecord(about, made_of, template, OWNER, OWNER)
        self.record.until_stored = None
        self.actors.add(self.record)
        self.directory.enter(self.record)
        self.directory.made(self.record)
        self.objects.hold(ACTOR, ARGUMENT)

    def states(self) -> list[tuple[int, int]]:
        """State and incarnation, as its owner was told since the last time."""
        return [(one.state, one.incarnation) for one in self.sent(m.ActorState).get(OWNER, [])]

    def construct(self, status: int = m.FINISHED) -> None:
        """Start the next incarnation on the node, and end its constructor."""
        self.incarnations.launch(self.record, 0.0)
        task = self.tasks[ACTOR]
        task.attempt += 1
        results = [value(ACTOR, b"?")]
        self.incarnations.creation_ended(
            task, done(ACTOR, task.attempt, status, results=results, worker_id=WORKER), self.n1
        )


def test_it_lives_for_others_when_that_is_durable() -> None:
    bench = Bench()
    bench.construct()
    assert ACTOR not in bench.tasks and bench.begun
    assert not bench.states()
    ((table, key, row),) = bench.commit()
    assert (table, key) == (TABLE, ACTOR)
    assert msgspec.msgpack.decode(row, type=ActorRow).worker_id == WORKER
    assert bench.states() == [(m.ACTOR_ALIVE, 1)]
    assert bench.incarnations.at(ACTOR, bench.n1, 1) is bench.record
    assert bench.incarnations.at(ACTOR, bench.n1, 2) is None


@pytest.mark.parametrize("restarts", [0, 2])
def test_its_constructor_s_arguments_are_kept_while_it_may_run_again(restarts: int) -> None:
    bench = Bench(max_restarts=restarts)
    bench.construct()
    argument = bench.objects.get(ARGUMENT)
    assert argument is not None
    assert (argument.holders == ACTOR) is bool(restarts)
    bench.incarnations.end(bench.record, "it was killed")
    assert argument.holders is None


def test_each_loss_costs_a_restart_and_they_come_later_and_later() -> None:
    bench = Bench(max_restarts=3)
    pauses = []
    for _ in range(3):
        bench.construct()
        bench.incarnations.left(bench.record, bench.n1)
        bench.incarnations.lost(bench.record, "its worker died")
        assert bench.incarnations.deadline() == NEVER  # not before it is durable
        bench.commit(100.0)
        pauses.append(bench.incarnations.deadline() - 100.0)
        begun = len(bench.begun)
        bench.incarnations.step(bench.incarnations.deadline())
        assert len(bench.begun) == begun + 1
    first = limits.ACTOR_RESTART_FIRST_S
    assert pauses == pytest.approx([0.0, first, 2 * first])
    bench.construct()
    bench.sent(m.ActorState)
    bench.incarnations.lost(bench.record, "its worker died")
    bench.commit()
    assert [state for state, _ in bench.states()] == [m.ACTOR_DEAD]
    assert "restarted 3 times" in bench.record.text and not bench.actors


def test_its_node_stops_it_and_others_hear_of_its_end_when_that_is_durable() -> None:
    bench = Bench()
    free = dict(bench.n1.view.free)
    bench.construct()
    bench.commit()
    bench.outbox.take()
    bench.incarnations.end(bench.record, "it was killed")
    bench.incarnations.end(bench.record, "it was killed once more")
    assert not bench.outbox and bench.n1.view.free == free
    assert bench.directory.names == {}  # the name is free from now on
    ((table, key, row),) = bench.commit()
    assert (table, key, row) == (TABLE, ACTOR, None)
    sent = bench.outbox.take()
    assert [type(one) for one in sent[bench.n1.process_id]] == [m.StopActor]
    assert [type(one) for one in sent[OWNER]] == [m.ActorState]
    assert not bench.actors and ACTOR in bench.directory.dead


def test_one_that_waits_for_a_node_leaves_the_queue_and_stops_nobody() -> None:
    bench = Bench()
    bench.incarnations.launch(bench.record, 0.0)
    task = bench.tasks[ACTOR]
    bench.scheduler.push(task)
    bench.incarnations.end(bench.record, "it was killed")
    bench.commit()
    assert not bench.scheduler.group_of(task).ready and ACTOR not in bench.tasks
    assert not bench.sent(m.StopActor)


def test_a_constructor_that_raised_is_the_end_and_its_error_is_told() -> None:
    bench = Bench(max_restarts=5)
    bench.incarnations.launch(bench.record, 0.0)
    error = m.Outcome(object_of(ACTOR), m.ERROR, 5, b"error")
    ended = done(ACTOR, 1, results=[error])
    bench.incarnations.creation_ended(bench.tasks[ACTOR], ended, bench.n1)
    bench.commit()
    (told,) = bench.sent(m.ActorState)[OWNER]
    assert (told.state, told.error) == (m.ACTOR_DEAD, b"error")


def test_a_process_that_was_to_end_before_it_lived_is_ended_when_it_does() -> None:
    bench = Bench(max_restarts=1)
    bench.record.kill_text = "it was killed"
    bench.construct()
    (stop,) = bench.sent(m.StopActor)[bench.n1.process_id]
    assert (stop.incarnation, stop.graceful) == (1, False)


def test_the_job_of_a_detached_one_is_over_with_it() -> None:
    bench = Bench(detached=True)
    bench.objects.hold(DETACHED, bench.record.handle)
    bench.incarnations.end(bench.record, "it was killed")
    assert not bench.incarnations.jobs_over
    bench.commit()
    assert bench.incarnations.jobs_over == [OWNER]
    handle = bench.objects.get(bench.record.handle)
    assert handle is not None and handle.holders is None


def test_without_its_job_none_is_launched() -> None:
    bench = Bench()
    bench.members.jobs.clear()
    bench.incarnations.launch(bench.record, 0.0)
    assert not bench.begun and bench.record.state == m.ACTOR_DEAD
