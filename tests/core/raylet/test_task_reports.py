"""What a node tells the head of ended tasks: exact numbers, and some of them, failures first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.core.benches import identity
from zray import limits
from zray.core.raylet.local_records import WorkerSlot
from zray.core.raylet.task_reports import JOB_ENDED, TaskReports
from zray.protocol import messages as m

INFO = m.NodeInfo("n1", "host", 1, [], [], "machine")
KEY = (identity("job"), (), 1, "")


class Bench:
    def __init__(self) -> None:
        self.linked = True
        self.told: list[m.TaskReport] = []
        self.reports = TaskReports(
            *(identity("n1"), INFO, lambda: self.linked, self.told.append)  # type: ignore[arg-type]
        )
        self.now = 100.0
        self.begun = 0

    def worker(self, name: str = "w") -> WorkerSlot:
        slot = WorkerSlot(identity(name), KEY)
        slot.pid, slot.begun = 4711, lambda: self.begun
        self.reports.started(slot)
        return slot

    def runs(self, slot: WorkerSlot, name: str, begun: int = 0, *, events: bool = True) -> None:
        self.reports.on_runs(slot, m.Runs(0, name, begun, events), self.now)
        slot.leased_name = name

    def after(self, seconds: float) -> None:
        """So much later, in steps of what it waits for."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.now + 0.001, self.reports.deadline()))
            self.reports.step(self.now)

    def counts(self) -> dict[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for report in self.told:
            for one in report.tallies:
                found[one.name, one.state] += one.more
        return {key: more for key, more in found.items() if more}

    def rows(self) -> list[m.ListedTask]:
        return [row for report in self.told for row in report.ended]


def rows(count: int, state: str = m.ENDED_WELL, first: int = 0) -> list[m.ListedTask]:
    return [
        m.ListedTask(number.to_bytes(16, "big"), 0, "f", state)
        for number in range(first, first + count)
    ]


def test_what_workers_report_goes_on_together_and_soon() -> None:
    bench = Bench()
    first, second = bench.worker("w1"), bench.worker("w2")
    bench.after(1.0)
    bench.told.clear()
    for slot in (first, second):
        told = m.TaskReport(0, rows(2), rows(1), slot.worker_id, [], 3)
        bench.reports.on_report(slot, told, bench.now)
    bench.after(limits.REPORT_NODE_S)
    (report,) = bench.told
    assert (len(report.ended), len(report.running), report.dropped) == (4, 2, 6)
    assert report.heard == first.worker_id + second.worker_id
    assert bench.reports.deadline() > bench.now + 1e6, "there is nothing more to tell"


def test_past_a_rate_successes_are_counted_and_failures_are_told() -> None:
    bench = Bench()
    slot = bench.worker()
    count = 3 * limits.REPORT_BURST_ROWS
    for first in range(0, count, 1000):
        bench.reports.on_report(slot, m.TaskReport(0, rows(1000, first=first)), bench.now)
        bench.after(0.001)
    bench.reports.on_report(slot, m.TaskReport(0, rows(500, m.ENDED_BADLY, count)), bench.now)
    bench.after(60.0)
    told, dropped = bench.rows(), sum(report.dropped for report in bench.told)
    states = Counter(row.state for row in told)
    assert states[m.ENDED_BADLY] == 500
    assert states[m.ENDED_WELL] <= limits.REPORT_BURST_ROWS + 61 * limits.REPORT_ROWS_PER_S
    assert states[m.ENDED_WELL] + dropped == count
    assert max(len(report.ended) for report in bench.told) <= limits.REPORT_ROWS_MAX


def test_without_a_head_what_is_kept_has_a_bound_and_nothing_of_the_numbers_is_lost() -> None:
    bench = Bench()
    slot = bench.worker()
    bench.linked = False
    for first in range(0, 100_000, 1000):
        tally = m.Tally("f", m.ACTOR_TASK, m.ENDED_WELL, 1000)
        bench.reports.on_report(slot, m.TaskReport(0, rows(1000, first=first), [], b"", [tally]), 1)
        bench.reports.step(bench.now)
    assert bench.told == []
    bench.linked = True
    bench.reports.new_session()
    bench.after(60.0)
    assert bench.counts() == {("f", m.ENDED_WELL): 100_000}
    kept = len(bench.rows())
    assert kept <= limits.REPORT_BURST_ROWS
    assert kept + sum(report.dropped for report in bench.told) == 100_000
    (worker,) = bench.told[0].workers
    assert worker.worker_id == slot.worker_id and worker.alive


# ---- leased tasks ------------------------------------------------------------------------------


def test_leased_tasks_are_counted_by_name_while_they_run() -> None:
    bench = Bench()
    slot = bench.worker()
    bench.runs(slot, "f")
    bench.begun = 1001  # the last one runs
    bench.after(1.5)
    assert bench.counts() == {("f", m.ENDED_WELL): 1000}
    bench.begun = 1500
    bench.runs(slot, "g", 1500)
    bench.begun = 1600
    bench.reports.lease_ended(slot, 1600)
    bench.after(2.0)
    assert bench.counts() == {("f", m.ENDED_WELL): 1500, ("g", m.ENDED_WELL): 100}


def test_what_was_counted_under_the_former_name_is_set_right() -> None:
    """The counter of a worker runs ahead of what it says."""
    bench = Bench()
    slot = bench.worker()
    bench.runs(slot, "f")
    bench.begun = 501
    bench.after(1.5)
    bench.runs(slot, "g", 200)
    bench.reports.lease_ended(slot, 501)
    bench.after(2.0)
    assert bench.counts() == {("f", m.ENDED_WELL): 200, ("g", m.ENDED_WELL): 301}


def test_the_next_lease_counts_from_its_beginning() -> None:
    bench = Bench()
    slot = bench.worker()
    for name in ("f", "g"):
        bench.runs(slot, name)
        bench.reports.lease_ended(slot, 10)
    bench.after(2.0)
    assert bench.counts() == {("f", m.ENDED_WELL): 10, ("g", m.ENDED_WELL): 10}


def died(why: str = "", *, runs_long: bool = False) -> dict[Any, int]:
    bench = Bench()
    slot = bench.worker()
    bench.runs(slot, "f")
    if runs_long:
        told = m.TaskReport(0, [], rows(1, m.RUNNING), slot.worker_id)
        bench.reports.on_report(slot, told, bench.now)
    bench.reports.exited(slot, 10, "signal 9", why)
    bench.after(2.0)
    (ended,) = [one for report in bench.told for one in report.workers if not one.alive]
    assert ended.exit_detail == (why or "signal 9")
    assert ended.exit_type == ("INTENDED_SYSTEM_EXIT" if why else "SYSTEM_ERROR")
    return bench.counts()


def test_of_a_worker_that_died_the_last_task_has_failed() -> None:
    assert died() == {("f", m.ENDED_WELL): 9, ("f", m.ENDED_BADLY): 1}


def test_a_worker_whose_job_is_over_was_idle_unless_it_has_told_otherwise() -> None:
    assert died(JOB_ENDED) == {("f", m.ENDED_WELL): 10}
    assert died(JOB_ENDED, runs_long=True) == {("f", m.ENDED_WELL): 9, ("f", m.ENDED_BADLY): 1}


def test_tasks_that_are_not_to_be_listed_are_not_counted() -> None:
    bench = Bench()
    slot = bench.worker()
    bench.runs(slot, "silent", events=False)
    bench.runs(slot, "f", 100)
    bench.reports.lease_ended(slot, 150)
    bench.after(2.0)
    assert bench.counts() == {("f", m.ENDED_WELL): 50}


def test_a_node_at_rest_is_never_woken_for_this() -> None:
    bench = Bench()
    slot = bench.worker()
    bench.runs(slot, "f")
    bench.reports.lease_ended(slot, 1)
    bench.after(5.0)
    assert bench.reports.deadline() == float("inf")


def test_how_long_attempts_took_is_added_up_and_nonsense_is_ignored() -> None:
    bench = Bench()
    slot = bench.worker()
    counts = [1] * (len(limits.TASK_BUCKETS_S) + 1)
    told = [
        m.Durations(m.NORMAL_TASK, counts, 5.0),
        m.Durations(m.NORMAL_TASK, [1, 2], 99.0),
        m.Durations("no such type", counts, 99.0),
    ]
    for _ in range(2):
        bench.reports.on_report(slot, m.TaskReport(0, durations=told), bench.now)
    found = bench.reports.durations[m.NORMAL_TASK]
    assert (sum(found.counts), found.total) == (2 * len(counts), 10.0)
    assert len(bench.reports.durations) == 3
