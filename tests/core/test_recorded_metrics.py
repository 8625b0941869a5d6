"""What programs record is kept within bounds, and what they have counted never falls."""

from __future__ import annotations

from tests.core.benches import identity
from zray import limits
from zray.core.recorded_metrics import RecordedMetrics
from zray.protocol import messages as m

JOB, OTHER = identity("job"), identity("other")
W1, W2 = identity("w1"), identity("w2")


def counter(name: str, *series: tuple[str, float], keys: tuple[str, ...] = ("k",)) -> m.UserMetric:
    return m.UserMetric(name, m.COUNTER, "", [*keys], [], [m.UserSeries([t], v) for t, v in series])


def gauge(value: float) -> m.UserMetric:
    return m.UserMetric("depth", m.GAUGE, "", [], [], [m.UserSeries([], value)])


def histogram(*counts: int, total: float = 1.0) -> m.UserMetric:
    return m.UserMetric("lat", m.HISTOGRAM, "", [], [1.0], [m.UserSeries([], total, [*counts])])


def told(kept: RecordedMetrics, now: float = 0.0) -> dict[tuple[str, ...], float]:
    return {
        (metric.name, *one.tags): one.value
        for metric in kept.programs(now)
        for one in metric.series
    }


def record(
    kept: RecordedMetrics, worker: bytes, *metrics: m.UserMetric, job: bytes = JOB, lost: int = 0
) -> None:
    kept.recorded(worker, job, m.Recorded(0, [*metrics], lost), 0.0)


def test_what_workers_count_is_one_sum_which_stays_when_they_end() -> None:
    kept = RecordedMetrics()
    record(kept, W1, counter("n", ("a", 3.0), ("b", 1.0)))
    record(kept, W2, counter("n", ("a", 4.0)))
    assert told(kept) == {("n", "a"): 7.0, ("n", "b"): 1.0}
    kept.ended(W1)
    assert told(kept) == {("n", "a"): 7.0, ("n", "b"): 1.0}
    record(kept, W2, counter("n", ("a", 5.0)))
    kept.ended(W2)
    assert told(kept) == {("n", "a"): 8.0, ("n", "b"): 1.0}


def test_a_message_that_comes_twice_counts_once() -> None:
    kept = RecordedMetrics()
    for _ in range(3):
        record(kept, W1, counter("n", ("a", 3.0)), histogram(1, 2))
    assert told(kept) == {("n", "a"): 3.0, ("lat",): 1.0}


def test_a_gauge_is_each_process_s_own_and_goes_with_it() -> None:
    kept = RecordedMetrics()
    record(kept, W1, gauge(5.0))
    record(kept, W2, gauge(6.0))
    (metric,) = kept.programs(0.0)
    assert {one.worker_id: one.value for one in metric.series} == {W1: 5.0, W2: 6.0}
    kept.ended(W1)
    (metric,) = kept.programs(0.0)
    assert [one.worker_id for one in metric.series] == [W2]


def test_histograms_are_added_up_bucket_by_bucket() -> None:
    kept = RecordedMetrics()
    record(kept, W1, histogram(1, 2, total=5.0))
    kept.ended(W1)
    record(kept, W2, histogram(10, 0, total=1.0))
    (metric,) = kept.programs(0.0)
    assert (metric.series[0].counts, metric.series[0].value) == ([11, 2], 6.0)


def test_a_job_that_is_over_is_told_for_a_while_and_then_forgotten() -> None:
    kept = RecordedMetrics()
    record(kept, W1, counter("n", ("a", 3.0)))
    record(kept, W2, counter("n", ("a", 1.0)), job=OTHER)
    kept.job_ended(JOB, 100.0)
    kept.ended(W1)
    (mine, _) = kept.programs(99.0 + limits.SERIES_KEPT_S)
    assert mine.series[0].value == 3.0
    (left,) = kept.programs(101.0 + limits.SERIES_KEPT_S)
    assert left.series[0].job_id == OTHER
    record(kept, W2, *[counter(f"n{i}", ("a", 1.0)) for i in range(5)], job=OTHER)
    assert len(kept.programs(0.0)) == 6  # the room of what was forgotten is free again


def test_what_there_is_no_room_for_is_counted_and_all_others_go_on() -> None:
    kept = RecordedMetrics()
    for number in range(limits.SERIES_KEPT_MAX // 500 + 2):
        series = [(f"{number}-{i}", 1.0) for i in range(500)]
        record(kept, number.to_bytes(16, "big"), counter("n", *series))
    assert len(told(kept)) == limits.SERIES_KEPT_MAX and kept.lost() == 1000
    record(kept, (0).to_bytes(16, "big"), counter("n", ("0-0", 9.0)))
    assert told(kept)["n", "0-0"] == 9.0
    for number in range(limits.SERIES_KEPT_MAX // 500 + 2):
        kept.ended(number.to_bytes(16, "big"))
    assert len(told(kept)) == limits.SERIES_KEPT_MAX


def test_metrics_that_do_not_fit_what_is_known_are_left_out() -> None:
    kept = RecordedMetrics()
    record(kept, W1, counter("n", ("a", 3.0)))
    wrong = [
        counter("n", ("a", 9.0), keys=("other",)),
        m.UserMetric("n", m.GAUGE, "", ["k"], [], [m.UserSeries(["a"], 9.0)]),
        m.UserMetric("h", m.HISTOGRAM, "", [], [1.0], [m.UserSeries([], 1.0, [1, 2, 3])]),
        m.UserMetric("c", m.COUNTER, "", ["k"], [], [m.UserSeries([], 1.0)]),
    ]
    record(kept, W2, *wrong)
    assert told(kept) == {("n", "a"): 3.0} and kept.lost() == 2


def test_of_how_many_a_process_lost_count_is_told_with_the_others() -> None:
    kept = RecordedMetrics()
    record(kept, W1, lost=5)
    record(kept, W2, lost=2)
    assert kept.lost() == 7
    record(kept, W1, lost=6)
    kept.ended(W1)
    assert kept.lost() == 8


def test_who_names_metrics_without_end_takes_no_memory() -> None:
    kept = RecordedMetrics()
    many = [m.UserMetric(f"n{i}", m.COUNTER, "", ["k"], [], []) for i in range(1000)]
    wrong = [
        m.UserMetric(f"w{i}", m.COUNTER, "", ["k"], [], [m.UserSeries([], 1.0)]) for i in (1, 2)
    ]
    record(kept, W1, *many, *wrong)
    assert kept.programs(0.0) == []
    text = "x" * limits.BRIEF_TEXT_MAX
    for number in range(limits.SERIES_KEPT_MAX):
        one = m.UserMetric(f"n{number}", m.GAUGE, text, [], [], [m.UserSeries([], 1.0)])
        record(kept, W1, one)
    size = sum(len(one.description) for one in kept.programs(0.0))
    assert 0.8 * limits.SERIES_CHARACTERS_MAX < size <= limits.SERIES_CHARACTERS_MAX
    assert kept.lost() > 0
    kept.ended(W1)
    assert kept.programs(0.0) == [] and (kept._series, kept._characters) == (0, 0)
