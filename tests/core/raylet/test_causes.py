"""What a node tells a head that is asked why its tasks are not done."""

from __future__ import annotations

from msgspec.structs import replace

from tests.core.benches import UNIT, identity, object_of, spec, template
from tests.core.raylet.test_near_tasks import JOB, WORK, Bench
from zray.protocol import messages as m

MUCH = template("much", resources=[("CPU", 2)])


def ask(bench: Bench, thing: bytes | m.AskWhy) -> m.ToldWhy:
    for slot in bench.raylet.scheduler.workers.values():
        slot.pid = 42  # as the shell says of those that have started
    bench.to_head.clear()
    bench.head(m.AskWhy(9, thing) if isinstance(thing, bytes) else thing)
    (told,) = [one for one in bench.to_head if isinstance(one, m.ToldWhy)]
    assert told.about == 9
    return told


def codes(told: m.ToldWhy) -> list[str]:
    return [one.code for one in told.causes]


def test_a_task_runs_for_so_long_in_a_process() -> None:
    bench = Bench()
    bench.give(spec("t", WORK))
    bench.now += 5
    told = ask(bench, object_of(identity("t")))
    (found,) = told.causes
    assert (found.kind, found.code, found.since_s) == ("attempt", "RUNNING", 5)
    assert found.text == "work runs in worker pid 42 of node n1"
    assert ask(bench, bench.runner("t")).causes[0].text == "pid 42 of node n1 runs work"


def test_a_task_waits_for_what_others_have() -> None:
    bench = Bench(2)
    bench.head(MUCH)
    bench.give(spec("t", WORK))
    bench.give(spec("waits", MUCH))
    (found,) = ask(bench, identity("waits")).causes
    assert found.code == "WAIT_RESOURCES"
    assert [(one.name, one.text) for one in found.details] == [("n1", "1 of 2 CPU free, needs 2")]


def test_a_task_that_waits_for_one_of_its_own() -> None:
    bench = Bench()
    bench.submit(
        bench.child("child"), bench.child("next", dependencies=[object_of(identity("child"))])
    )
    told = ask(bench, identity("root"))
    assert codes(told) == ["BLOCKED", "RUNNING"] and not told.next
    told = ask(bench, object_of(identity("next")))
    assert codes(told) == ["WAIT_DEPS", "RUNNING"]
    assert [one.kind for one in told.causes] == ["task", "task"]
    bench.ends("child")
    assert codes(ask(bench, identity("child"))) == ["READY"]
    assert codes(ask(bench, identity("root"))) == ["BLOCKED", "RUNNING"]


def test_a_leased_worker_and_what_its_task_waits_for() -> None:
    bench = Bench(2)
    lease, task_id = identity("lease"), identity("leased")
    bench.head(m.Grant(0, lease, JOB, identity("driver"), [("CPU", UNIT)]))
    slot = bench.raylet.leases.worker_of(lease)
    assert slot is not None
    asked = m.AskWhy(9, task_id, lease, "work")
    assert codes(ask(bench, task_id)) == []
    assert codes(ask(bench, asked)) == ["RUNNING"]
    assert codes(ask(bench, replace(asked, lease_id=identity("another")))) == []
    bench.worker(slot.worker_id, m.Blocked(0))
    bench.submit(spec("child", WORK, parent=task_id), worker=slot.worker_id)
    told = ask(bench, asked)
    assert [(one.id, one.code) for one in told.causes] == [
        (task_id, "BLOCKED"),
        (identity("child"), "RUNNING"),
    ]


def test_of_what_is_not_here_nothing_is_told() -> None:
    assert ask(Bench(), identity("other")) == m.ToldWhy(0, 9, [])
    assert ask(Bench(), b"") == m.ToldWhy(0, 9, [])
