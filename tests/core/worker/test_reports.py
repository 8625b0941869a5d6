"""What a worker tells of what has run in it: all of it once, in bounded amounts."""

from __future__ import annotations

from tests.core.benches import UNIT, identity, somebody, template
from zray import limits
from zray.core import failures
from zray.core.worker.reports import CALL, Ran, Reports
from zray.errors import TaskCancelledError, WorkerCrashedError
from zray.protocol import messages as m

ME, NODE, JOB = identity("w"), identity("n"), identity("job")
DAY = 1_000_000.0  # of 1970, when the clock of the notes was 0


class Bench:
    def __init__(self) -> None:
        self.reports = Reports(somebody(ME, pid=4711))
        self.now = 100.0
        self.begun = 0

    def runs(self, name: str, seconds: float = 0.001, *, error: bytes = b"") -> bytes:
        """A task runs; its id."""
        self.begun += 1
        task_id = identity(f"t{self.begun}")
        ran = (name, task_id, self.now, seconds, 0, b"")
        self.reports.spans.append(ran)
        self.now += seconds
        if error:
            self.reports.failed(ran, error)
        return task_id

    def told(self, *running: Ran) -> m.TaskReport:
        return self.reports.report(self.begun, [*running], (NODE, JOB), self.now, DAY)


ERROR = failures.encode(WorkerCrashedError, "it broke")


def test_what_has_ended_is_told_once() -> None:
    bench = Bench()
    first = bench.runs("f", 0.5)
    (row,) = bench.told().ended
    assert (row.task_id, row.name, row.state) == (first, "f", m.ENDED_WELL)
    assert (row.started_s, row.ended_s) == (DAY + 100.0, DAY + 100.5)
    assert (row.worker_id, row.pid, row.node_id, row.job_id) == (ME, 4711, NODE, JOB)
    second = bench.runs("g")
    assert [row.task_id for row in bench.told().ended] == [second]
    assert bench.told().ended == []


def test_those_that_were_not_noted_any_more_are_counted() -> None:
    bench = Bench()
    for _ in range(limits.SPANS_KEPT_MAX + 234):
        bench.runs("f")
    told = bench.told()
    assert (len(told.ended), told.dropped) == (limits.SPANS_KEPT_MAX, 234)
    assert bench.reports.pause_s == limits.REPORT_BUSY_S
    bench.now += 1.0
    bench.runs("f")
    told = bench.told()
    assert (len(told.ended), told.dropped) == (1, 0)
    assert bench.reports.pause_s == limits.REPORT_FIRST_S


def test_past_a_rate_the_latest_and_those_that_failed_are_told() -> None:
    bench = Bench()
    for _ in range(limits.REPORT_WORKER_ROWS):
        bench.runs("f", 0.0)
    bench.told()
    failed = bench.runs("f", error=ERROR)
    for _ in range(1999):
        last = bench.runs("f")
    told = bench.told()
    states = [row.state for row in told.ended]
    assert states.count(m.ENDED_WELL) == 2 * limits.REPORT_WORKER_ROWS_PER_S
    assert (told.ended[0].task_id, told.ended[-1].task_id) == (failed, last)
    assert len(told.ended) + told.dropped == 2000


def test_a_failure_is_told_with_its_reason_and_urgent() -> None:
    bench = Bench()
    bench.runs("f")
    assert not bench.reports.urgent
    bench.runs("f", error=ERROR)
    assert bench.reports.urgent
    well, badly = bench.told().ended
    assert (well.state, badly.state) == (m.ENDED_WELL, m.ENDED_BADLY)
    assert (badly.error_type, badly.error_code) == ("WORKER_DIED", "ZR-3003")
    assert badly.error_message == "it broke"
    bench.runs("f", error=ERROR)
    assert not bench.reports.urgent, "right after another report it can wait"


def test_under_a_lease_failures_are_taken_off_those_that_are_counted_elsewhere() -> None:
    bench = Bench()
    bench.runs("f", error=ERROR)
    assert bench.told().tallies == []  # the head sees how its own tasks end
    bench.reports.leased = True
    bench.runs("f", error=ERROR)
    assert bench.told().tallies == [
        m.Tally("f", m.NORMAL_TASK, m.ENDED_BADLY, 1),
        m.Tally("f", m.NORMAL_TASK, m.ENDED_WELL, -1),
    ]


def test_calls_are_counted_by_method() -> None:
    bench = Bench()
    bench.reports.actor = (identity("actor"), "Counter")
    counts = bench.reports.calls_of("Counter.add")
    for number in range(3):
        counts[0] += 1
        what = ("Counter.add", identity(f"c{number}"), bench.now, 0.001, CALL, b"")
        bench.reports.spans.append(what)
        bench.now += 0.001
    cancelled = failures.encode(TaskCancelledError, "no")
    bench.reports.failed(what, cancelled)
    told = bench.told()
    assert [(row.type, row.actor_id) for row in told.ended] == [
        (m.ACTOR_TASK, identity("actor"))
    ] * 3
    assert {(one.state, one.more) for one in told.tallies} == {
        (m.ENDED_WELL, 2),
        (m.ENDED_BADLY, 1),
    }
    assert told.dropped == 0


def test_what_made_the_actor_is_its_constructor() -> None:
    bench = Bench()
    bench.reports.actor = (bench.runs("whatever"), "Counter")
    (row,) = bench.told().ended
    assert (row.name, row.type) == ("Counter.__init__", m.ACTOR_CREATION_TASK)


def test_what_runs_for_a_while_is_told() -> None:
    bench = Bench()
    long = ("f", identity("long"), bench.now - 5.0, 0.0, 2, b"")
    short = ("f", identity("short"), bench.now, 0.0, 0, b"")
    told = bench.told(long, short)
    (row,) = told.running
    assert bench.reports.young, "the other one may be long, too"
    bench.told(long)
    assert not bench.reports.young
    assert (row.task_id, row.state, row.attempt) == (identity("long"), m.RUNNING, 2)
    assert (row.started_s, row.ended_s) == (DAY + 95.0, 0.0) and told.heard == ME
    many = [("f", identity(f"r{number}"), 0.0, 0.0, CALL, b"") for number in range(5000)]
    assert len(bench.told(*many).running) == limits.REPORT_RUNNING_MAX


def test_nothing_is_told_of_what_is_to_be_silent_and_what_it_takes_has_a_bound() -> None:
    bench = Bench()
    silent = m.Template(0, identity("s"), identity("f"), "silent", [("CPU", UNIT)], 1, 0)
    silent.events = False
    bench.reports.shows(silent)
    assert bench.reports.silent
    bench.reports.failed(("silent", identity("t"), 1.0, 1.0, 0, b""), ERROR)
    assert bench.told().tallies == [] and not bench.reports.urgent
    for number in range(5000):
        bench.reports.shows(template(f"f{number}"))
        assert len(bench.reports._resources) <= 1000
    for number in range(5000):
        bench.reports.failed(("f", number.to_bytes(16, "big"), 1.0, 1.0, 0, b""), ERROR)
    assert len(bench.reports._failed) <= limits.REPORT_WORKER_ROWS


def test_how_long_attempts_took_is_told_in_buckets_by_type() -> None:
    bench = Bench()
    bench.runs("f", 0.0005)
    bench.runs("f", 0.2)
    bench.reports.spans.append(("A.m", identity("c"), bench.now, 100.0, CALL, b""))
    told = {one.type: one for one in bench.told().durations}
    assert told[m.NORMAL_TASK].counts[0] == 1 and sum(told[m.NORMAL_TASK].counts) == 2
    assert abs(told[m.NORMAL_TASK].seconds - 0.2005) < 1e-9
    place = limits.TASK_BUCKETS_S.index(300.0)
    assert told[m.ACTOR_TASK].counts[place] == 1
    assert bench.told().durations == []


def test_where_more_has_ended_than_is_noted_what_is_noted_stands_for_all() -> None:
    bench = Bench()
    for _ in range(4 * limits.SPANS_KEPT_MAX):
        bench.runs("f", 0.01)
    (told,) = bench.told().durations
    assert sum(told.counts) == 4 * limits.SPANS_KEPT_MAX
    assert abs(told.seconds - 40.0) < 0.1
