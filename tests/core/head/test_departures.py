"""What the end of a node, a worker or a driver does to tasks, objects and actors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.core.benches import identity, object_of, spec, template, value
from tests.core.head.tables import Tables
from zray.core.head.departures import Departures
from zray.core.head.members import JobMember, NodeMember, NodeRow
from zray.core.head.task_records import ASSIGNED, GONE, TaskRecord
from zray.core.prints import Prints
from zray.protocol import messages as m

WORK = template()
T, WORKER, JOB = identity("t"), identity("w"), identity("d")
OID = object_of(identity("x"))


class Others:
    """The machines that are told. ``retries``: whether tasks have any left."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.retries = True

    def __getattr__(self, name: str) -> Any:
        def tell(*what: Any, **more: Any) -> bool:
            self.told.append((name, *(one for one in what if isinstance(one, bytes))))
            return self.retries

        return tell

    def names(self) -> list[str]:
        return [name for name, *_ in self.told]


class Bench(Tables):
    def __init__(self, awaited: str = "") -> None:
        super().__init__(awaited)
        self.others: Any = Others()
        self.holders = self.make_holders()
        self.departures = Departures(
            outbox=self.outbox,
            persist=self.journal.persist,
            events=self.events,
            prints=Prints(),
            members=self.members,
            processes=self.processes,
            tasks=self.tasks,
            objects=self.objects,
            scheduler=self.scheduler,
            results=self.results,
            transfers=self.transfers,
            holders=self.holders,
            definitions=self.others,
            lineage=self.others,
            task_manager=self.others,
            task_outcomes=self.others,
            actors=self.others,
            incarnations=self.others,
            actor_table=self.actors,
            leases=self.others,
            placement_groups=self.others,
        )

    def setting(self) -> tuple[NodeMember, JobMember, TaskRecord]:
        """A node with a worker that holds an object, and a task of a driver there."""
        node, job = self.node("n1"), self.driver("d")
        self.processes.note_worker(node, WORKER)
        self.objects.hold(WORKER, OID, process=True)
        record = self.task(spec("t", WORK), WORK, job)
        self.scheduler.adopt(node.view, T, record)
        return node, job, record


def test_nothing_of_a_dead_node_moves_before_its_death_is_durable() -> None:
    bench = Bench()
    node, _, record = bench.setting()
    bench.departures.node_died(node, "it was unplugged")
    bench.departures.node_died(node, "once more")
    assert node.ended and not node.view.usable
    assert bench.members.fenced(node.process_id, 1) and not bench.members.fenced(node.process_id, 2)
    assert record.node is node.view and not bench.others.told
    ((table, key, row),) = bench.commit()
    assert (table, key) == ("nodes", node.process_id)
    assert not msgspec.msgpack.decode(row, type=NodeRow).alive
    assert record.node is None and ("retry", T) in bench.others.told
    assert not bench.members.nodes and not bench.scheduler.nodes
    assert WORKER not in bench.processes.workers and OID not in bench.objects.held_by
    assert bench.notices.latest() == ["node n1 (host) is dead: it was unplugged"]


@pytest.mark.parametrize(
    ("cancelled", "retries", "then"),
    [(False, True, "retry"), (False, False, "fail"), (True, True, "cancel")],
)
def test_a_task_that_a_dead_node_had_is_retried_or_ends(
    cancelled: bool, retries: bool, then: str
) -> None:
    bench = Bench()
    node, _, record = bench.setting()
    record.cancelled = cancelled
    bench.others.retries = retries
    bench.departures.node_died(node, "it was unplugged")
    bench.commit()
    about_task = [name for name, *ids in bench.others.told if ids == [T]]
    assert about_task[-1] == then


def test_a_new_incarnation_s_place_is_not_taken_by_the_old_one_s_end() -> None:
    bench = Bench()
    old, *_ = bench.setting()
    bench.departures.node_died(old, "it was stopped")
    new = bench.node("n1")
    bench.commit()
    assert bench.members.nodes[new.process_id] is new


def test_copies_go_with_their_node() -> None:
    bench = Bench()
    node, *_ = bench.setting()
    bench.objects.settle(value(identity("y")), (node.process_id, identity("n2")))
    bench.departures.node_died(node, "it was unplugged")
    bench.commit()
    record = bench.objects.get(object_of(identity("y")))
    assert record is not None and [*record.locations] == [identity("n2")]


def test_a_worker_s_end_drops_what_it_holds_and_ends_what_nobody_else_wants() -> None:
    bench = Bench()
    node, job, _ = bench.setting()
    for name in ("alone", "shared"):
        record = bench.task(spec(name, WORK), WORK, job)
        bench.tasks.move(identity(name), record, WORKER)
    bench.objects.hold(JOB, object_of(identity("shared")), process=True)
    bench.departures.on_worker_died(node, m.WorkerDied(0, WORKER), 0.0)
    assert WORKER not in node.workers and WORKER not in bench.objects.held_by
    cancelled = [ids for name, *ids in bench.others.told if name == "cancel"]
    assert cancelled == [[identity("alone")]]
    assert {"owner_gone", "process_gone"} <= {*bench.others.names()}


def test_with_a_job_its_tasks_and_objects_go_and_nodes_hear_when_that_is_durable() -> None:
    bench = Bench()
    node, job, record = bench.setting()
    assert record.state == ASSIGNED
    bench.objects.hold(JOB, OID, process=True)
    node.known.add(JOB)
    bench.departures.job_ended(job)
    assert job.ended and JOB not in bench.members.jobs and JOB not in bench.objects.held_by
    assert record.state == GONE and not node.view.assigned and ("cancel", T) in bench.others.told
    assert JOB not in node.known and not bench.sent(m.JobEnded)
    assert ("process_gone", JOB) not in bench.others.told  # FORGET comes after JOB_ENDED
    assert bench.commit() == [("jobs", JOB, None)]
    assert bench.sent(m.JobEnded) == {node.process_id: [m.JobEnded(0, JOB)]}
    assert ("process_gone", JOB) in bench.others.told


def test_a_driver_that_was_given_up_can_be_told_what_it_has_lost() -> None:
    bench = Bench()
    _, job, _ = bench.setting()
    job.unfinished = 1200
    bench.objects.hold(JOB, OID, process=True)
    bench.departures.job_lost(job, "it was away")
    assert bench.members.lost_jobs[JOB] == (
        "it was away, so its job was ended, with 1,200 unfinished tasks, 1 object"
    )
    assert JOB not in bench.members.jobs


def test_a_node_of_before_that_does_not_return_is_fenced_and_awaited_no_more() -> None:
    bench = Bench(awaited="n1")
    bench.departures.process_ended(identity("n1"), "its process has ended")
    assert bench.members.recovering()
    bench.commit()
    assert not bench.members.recovering() and bench.members.fenced(identity("n1"), 1)
    assert bench.notices.latest() == ["node n1 is dead: its process has ended"]
    bench.departures.process_ended(identity("n7"), "nobody knows it")
    assert not bench.journal
