"""What goes wrong in a daemon: remembered, told, and forgotten after a while."""

from __future__ import annotations

import pytest

from tests.core.benches import HeadBench, RayletBench, done, identity, spec, template
from zray import limits
from zray.core.incidents import Incidents
from zray.protocol import messages as m

WORK = template()


def broken(*_args: object, **_more: object) -> None:
    raise ZeroDivisionError("on purpose")


def head() -> HeadBench:
    """A head that survives, with a node and a driver."""
    bench = HeadBench(incidents=Incidents())
    bench.node("n1", cpus=2)
    bench.driver("job", WORK)
    return bench


# ---- the recorder ----------------------------------------------------------------------------


def test_an_incident_degrades_for_a_while_and_is_logged_once_with_its_traceback() -> None:
    logged: list[str] = []
    incidents = Incidents(logged.append, lambda error: f"the traceback of {error}")
    assert incidents.trouble(0.0) == ""
    for when in (1.0, 2.0, 31.0):
        incidents.record("writing a log", "worker 7", OSError(28, "No space left"), when)
    said = incidents.trouble(41.0)
    assert "writing a log (worker 7)" in said and "No space left" in said
    assert "3 times in 30 s" in said and "last 10 s ago" in said
    assert len(logged) == 1 and "the traceback of [Errno 28]" in logged[0]
    assert incidents.trouble(31.0 + limits.INCIDENT_S + 1) == ""
    incidents.record("writing a log", "worker 7", OSError(28, "No space left"), 1000.0)
    assert len(logged) == 2  # it is news again


def test_kinds_of_incidents_are_bounded_and_the_latest_is_told_first() -> None:
    incidents = Incidents()
    for number in range(10 * limits.INCIDENTS_MAX):
        incidents.record(f"doing {number}", "", ValueError("x" * 10_000), float(number) / 100)
    assert len(incidents.recent(10.0)) == limits.INCIDENTS_MAX
    said = incidents.trouble(10.0)
    assert said.startswith(f"doing {10 * limits.INCIDENTS_MAX - 1}: ")
    assert f"and {limits.INCIDENTS_MAX - 1} more" in said and len(said) < 1000


# ---- in the head -----------------------------------------------------------------------------


def test_a_message_that_cannot_be_handled_begins_a_session_anew_and_then_is_refused() -> None:
    bench = head()
    bench.gcs.controller.handlers[m.Kv] = broken
    bench.say("job", m.Kv(7, "get", b"key"), m.Sync(8))
    assert [type(answer) for answer in bench.taken("job")] == [m.Rejoin]
    bench.say("job", m.Sync(8))  # whatever else comes in that session is lost with it
    assert [type(answer) for answer in bench.taken("job")] == [m.Rejoin]
    bench.say("job", bench.hello_driver("job"), epoch=1)
    bench.taken("job")
    bench.say("job", m.Kv(7, "get", b"key"), m.Sync(8))
    (refused,) = bench.taken("job", m.Rejected)
    assert (refused.about, refused.code) == (7, "ZR-2009") and "on purpose" in refused.text
    bench.say("job", m.Sync(9), m.Query(10, m.STATUS))
    answers = bench.taken("job")
    assert [a.about for a in answers if isinstance(a, m.Synced)] == [9]
    (status,) = [a for a in answers if isinstance(a, m.Status)]
    assert status.health.startswith("DEGRADED: the head: handling a Kv message")


def test_one_bad_task_of_a_batch_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = head()
    begin = bench.gcs.task_manager.begin

    def picky(record: object, chosen: m.TaskSpec, now: float) -> None:
        if chosen.task_id == identity("bad"):
            broken()
        begin(record, chosen, now)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.gcs.task_manager, "begin", picky)
    job = identity("job")
    tasks = [spec("good", WORK), spec("bad", WORK), spec("fine", WORK)]
    bench.say("job", m.Submit(0, job, job, tasks))
    (failed,) = [o for r in bench.taken("job", m.Result) for o in r.outcomes]
    assert failed.object_id[:16] == identity("bad") and failed.kind & m.ERROR
    assert bench.assigned("n1") == ["good", "fine"]


def test_a_node_tells_its_trouble_until_it_is_over() -> None:
    bench = head()
    bench.say("n1", m.Ping(0, 1.0, "starting a worker: no descriptor"))
    bench.say("job", m.Query(1, m.STATUS))
    assert bench.taken("job", m.Status)[0].health == (
        "DEGRADED: node n1: starting a worker: no descriptor"
    )
    bench.say("n1", m.Ping(0, 2.0))
    bench.say("job", m.Query(2, m.STATUS))
    assert bench.taken("job", m.Status)[0].health == "OK"


# ---- in a raylet -----------------------------------------------------------------------------


def test_a_worker_whose_message_cannot_be_handled_ends_and_the_others_work_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = RayletBench(cpus=2, incidents=Incidents())
    bench.head(WORK)
    bench.give(spec("t1", WORK), spec("t2", WORK))
    first, second = bench.workers()
    monkeypatch.setitem(bench.raylet.worker_handlers, m.Hold, broken)
    bench.raylet.worker_message(first, m.Hold(0, first, bytes(20)), bench.now)
    bench.turn()
    assert bench.raylet.workers.killed(first) and not bench.raylet.workers.killed(second)
    bench.worker(second, m.Done(0, [done(identity("t2"))]))
    assert [t.task_id for d in bench.told(m.Done) for t in d.tasks] == [identity("t2")]
    bench.now += limits.PING_S + 1
    bench.turn()
    assert "handling a worker's Hold message" in bench.told(m.Ping)[-1].trouble


def test_a_task_that_cannot_be_taken_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = RayletBench(cpus=2, incidents=Incidents())
    bench.head(WORK)
    monkeypatch.setattr(bench.raylet.objects, "fetch", broken)
    lacking = spec("t1", WORK, dependencies=[bytes(20)])
    bench.give(lacking, spec("t2", WORK))
    (ended,) = [t for d in bench.told(m.Done) for t in d.tasks]
    assert ended.task_id == identity("t1") and ended.results[0].kind & m.ERROR
    assert list(bench.running().values()) == [["t2"]]
