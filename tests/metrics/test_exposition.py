"""What Prometheus reads: well-formed whatever names there are, and what figures say."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from zray.metrics.catalog import METRICS
from zray.metrics.exposition import exposed
from zray.protocol import messages as m

JOB, WORKER = b"j" * 16, b"w" * 16
NASTY = 'a"b\\c\nd<script>\x1b[31m'


def samples(*answers: m.Scraped, accept: str = "") -> dict[tuple[str, str], float]:
    """By name, and labels in words."""
    text, _ = exposed(answers, accept)
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(one.labels.items()))
            assert (one.name, labels) not in found
            found[one.name, labels] = one.value
    return found


def answer(
    *figures: m.Figure, programs: tuple[m.UserMetric, ...] = (), node: str = ""
) -> m.Scraped:
    return m.Scraped(0, b"me" * 8, 1, "", "", node, [*figures], [*programs])


def test_counters_gauges_and_histograms_are_as_prometheus_has_them() -> None:
    counts = [1, 0, 2, 0, 0, 0, 0, 4]
    found = samples(
        answer(
            m.Figure("zray_head_turn_seconds", 12.5, [], counts),
            m.Figure("zray_nodes", 3, ["ALIVE"]),
            m.Figure("zray_task_retries_total", 7),
        )
    )
    assert found["zray_nodes", "state=ALIVE"] == 3
    assert found["zray_task_retries_total", ""] == 7
    assert found["zray_head_turn_seconds_bucket", "le=0.001"] == 1
    assert found["zray_head_turn_seconds_bucket", "le=0.02"] == 3
    assert found["zray_head_turn_seconds_bucket", "le=+Inf"] == 7
    assert found["zray_head_turn_seconds_count", ""] == 7
    assert found["zray_head_turn_seconds_sum", ""] == 12.5


def test_any_name_may_be_a_label() -> None:
    figure = m.Figure("zray_tasks_ended_total", 1, [NASTY, "NORMAL_TASK", "FINISHED"])
    tagged = m.UserMetric("n", m.COUNTER, NASTY, ["k"], [], [m.UserSeries([NASTY], 2.0, [], JOB)])
    text, _ = exposed([answer(figure, programs=(tagged,))])
    families = {one.name: one for one in text_string_to_metric_families(text.decode())}
    assert families["zray_tasks_ended"].samples[0].labels["name"] == NASTY
    assert families["n"].samples[0].labels["k"] == NASTY


def test_what_is_of_another_version_or_lies_is_left_out() -> None:
    found = samples(
        answer(
            m.Figure("zray_from_the_future", 1),
            m.Figure("zray_nodes", 1, ["ALIVE", "too", "many"]),
            m.Figure("zray_head_turn_seconds", 1.0, [], [1, 2]),
            programs=(
                m.UserMetric("no name}", m.COUNTER, "", [], [], [m.UserSeries([], 1.0)]),
                m.UserMetric("bad_key", m.COUNTER, "", ["}\n"], [], [m.UserSeries(["x"], 1.0)]),
                m.UserMetric("h", m.HISTOGRAM, "", [], [1.0], [m.UserSeries([], 1.0, [1])]),
            ),
        )
    )
    assert [*found] == [("zray_user_series_left_out", "node=")]


def test_what_programs_record_has_node_job_and_worker_as_labels() -> None:
    job, worker = JOB.hex(), WORKER.hex()
    series = [m.UserSeries(["x"], 2.0, [], JOB, WORKER)]
    found = samples(
        answer(
            programs=(
                m.UserMetric("jobs_done", m.COUNTER, "", [], [], [m.UserSeries([], 1.0, [], JOB)]),
                m.UserMetric("depth", m.GAUGE, "", ["k"], [], series),
                m.UserMetric("node_kind", m.GAUGE, "", ["node"], [], series),
                m.UserMetric("zray_nodes", m.GAUGE, "", ["k"], [], series),
            ),
            node="n1",
        )
    )
    assert found["jobs_done_total", f"job={job},node=n1"] == 1.0
    assert found["depth", f"job={job},k=x,node=n1,worker={worker}"] == 2.0
    assert found["node_kind", f"exported_node=x,job={job},node=n1,worker={worker}"] == 2.0
    assert found["zray_user_zray_nodes", f"job={job},k=x,node=n1,worker={worker}"] == 2.0


def test_jobs_that_mean_different_things_by_one_name_do_not_spoil_the_text() -> None:
    one = m.UserMetric("n", m.COUNTER, "", ["k"], [], [m.UserSeries(["x"], 1.0, [], JOB)])
    two = m.UserMetric("n", m.GAUGE, "", [], [], [m.UserSeries([], 2.0, [], WORKER)])
    three = m.UserMetric("n", m.COUNTER, "", ["z"], [], [m.UserSeries(["y"], 3.0, [], WORKER)])
    found = samples(answer(programs=(one, two, three)))
    assert found["n_total", f"job={JOB.hex()},k=x"] == 1.0
    assert found["n_total", f"job={WORKER.hex()},z=y"] == 3.0
    assert not any(value == 2.0 for value in found.values())


@pytest.mark.parametrize("name", ["_total", "zray__total", "_total_total", "", "a b", "a\n"])
@pytest.mark.parametrize("kind", [m.COUNTER, m.GAUGE])
@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_a_name_with_nothing_in_it_takes_no_others_away(name: str, kind: int, accept: str) -> None:
    series = [m.UserSeries([], 1.0, [], JOB)]
    strange = m.UserMetric(name, kind, "", [], [], series)
    text, _ = exposed(
        [answer(programs=(strange, m.UserMetric("n", 1, "", [], [], series)))], accept
    )
    assert b"n_total{" in text


def test_open_metrics_is_spoken_to_who_asks_for_it() -> None:
    figure = m.Figure("zray_head_turn_seconds", 12.5, [], [1, 0, 2, 0, 0, 0, 0, 4])
    text, content_type = exposed([answer(figure)], "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_names_are_those_of_the_field() -> None:
    for metric in METRICS.values():
        assert metric.name.startswith("zray_") and metric.help.endswith((".", ")."))
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert not any(word in metric.name for word in ("_ms", "_kb", "_mb", "_minutes"))
