"""What a workload would do on an imagined cluster: exact where it can be told, and repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from zray.errors import WorkloadError
from zray.testing import forecast as forecasting
from zray.testing.forecast import Forecast, Terms, forecast
from zray.testing.workload import FORMAT, Task, Workload

CPU4 = {"CPU": 4.0}


def workload(*tasks: Task) -> Workload:
    return Workload(FORMAT, [*tasks])


def told(tasks: Sequence[Task], *nodes: Mapping[str, float], **terms: Any) -> Forecast:
    return forecast(workload(*tasks), nodes, Terms(**{"overhead_s": 0.0, **terms}))


def burst(count: int, seconds: float = 0.1, **fields: Any) -> list[Task]:
    return [Task("work", seconds, **fields) for _ in range(count)]


def test_independent_tasks_take_their_work_divided_by_the_cpus() -> None:
    found = told(burst(200), CPU4)
    assert 5.0 <= found.makespan_s < 5.2
    assert found.utilisation > 0.95 and found.tasks == 200
    assert found.work_s == pytest.approx(20.0) and found.critical_path_s == pytest.approx(0.1)
    (node,) = found.nodes
    assert (node.tasks, node.resources["CPU"]) == (200, 4.0)
    assert node.busy_s == pytest.approx(20.0, rel=0.01)


def test_more_nodes_are_faster_until_the_work_runs_out() -> None:
    spans = [told(burst(160), *[CPU4] * count).makespan_s for count in (1, 2, 4)]
    assert spans[0] == pytest.approx(4.0, rel=0.1)
    assert spans[1] == pytest.approx(2.0, rel=0.15)
    assert spans[2] == pytest.approx(1.0, rel=0.25)


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    tasks = burst(50, 0.01)
    first, again = (told(tasks, CPU4, CPU4, seed=3) for _ in range(2))
    assert first == again
    assert told(tasks, CPU4, CPU4, seed=4).makespan_s != first.makespan_s


def test_a_chain_takes_its_length_and_its_tasks_wait_for_dependencies() -> None:
    tasks = [Task("step", 0.1, after=[n - 1] if n else []) for n in range(20)]
    found = told(tasks, CPU4)
    assert 2.0 <= found.makespan_s < 2.2
    assert found.critical_path_s == pytest.approx(2.0)
    # The second waits for 0.1 s, the third for 0.2 s, and so on.
    assert found.waits.dependencies == pytest.approx(0.1 * sum(range(20)), rel=0.1)
    assert found.waits.queue < 0.5


def test_tasks_that_wait_for_room_wait_in_the_queue() -> None:
    found = told(burst(40), {"CPU": 1.0})
    assert found.waits.queue == pytest.approx(0.1 * sum(range(40)), rel=0.05)
    assert found.waits.dependencies == found.waits.transfer == 0
    assert found.queue_p50_s == pytest.approx(2.0, rel=0.1)
    assert found.queue_max_s == pytest.approx(3.9, rel=0.05)


def test_they_are_submitted_when_they_were() -> None:
    tasks = [Task("late", 0.01, submitted_s=float(n)) for n in range(5)]
    found = told(tasks, CPU4)
    assert 4.0 < found.makespan_s < 4.1 and found.waits.queue < 0.1


def test_a_program_may_pause_for_longer_than_a_cluster_rests() -> None:
    found = told([Task("a", 0.1), Task("b", 0.1, 3600.0)], CPU4)
    assert found.makespan_s == pytest.approx(3600.1, abs=0.1)


def test_values_too_large_to_be_moved_are_said() -> None:
    made = burst(2, result_bytes=1 << 40)
    with pytest.raises(WorkloadError, match=r"1 of 3 tasks came to nothing .* --bandwidth"):
        told([*made, Task("sum", 0.1, after=[0, 1])], {"CPU": 1.0}, {"CPU": 1.0})


def test_large_results_take_their_time_on_the_way() -> None:
    """Made on one node, needed on the other, over 10 MB/s."""
    made = Task("make", 0.1, resources={"a": 1.0}, result_bytes=2_000_000)
    used = Task("use", 0.1, resources={"b": 1.0}, after=[0])
    nodes = [{"CPU": 1.0, "a": 1.0}, {"CPU": 1.0, "b": 1.0}]

    slow = told([made, used], *nodes, bytes_per_s=10e6)
    fast = told([made, used], *nodes, bytes_per_s=10e9)
    assert slow.waits.transfer == pytest.approx(0.2, rel=0.3)
    assert fast.waits.transfer < 0.02
    assert slow.makespan_s - fast.makespan_s == pytest.approx(0.2, rel=0.3)


def test_results_that_would_not_fit_into_memory_are_scaled_with_the_bandwidth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecasting, "VALUES_BYTES_MAX", 16 << 20)
    made = [Task("make", 0.1, resources={"a": 1.0}, result_bytes=64 << 20) for _ in range(2)]
    used = Task("use", 0.1, resources={"b": 1.0}, after=[0])
    nodes = [{"CPU": 1.0, "a": 2.0}, {"CPU": 1.0, "b": 1.0}]

    found = told([*made, used], *nodes, bytes_per_s=64e6)
    assert found.scale == 8
    assert found.waits.transfer == pytest.approx(1.05, rel=0.3)


def test_nodes_of_several_kinds_get_what_only_they_can_run() -> None:
    tasks = [*burst(8), *burst(4, 0.5, resources={"CPU": 1.0, "GPU": 1.0})]
    found = told(tasks, {"CPU": 1.0}, {"CPU": 2.0, "GPU": 2.0})
    assert found.nodes[1].tasks >= 4
    assert found.makespan_s == pytest.approx(1.0, rel=0.4)


def test_what_no_node_can_run_is_refused_at_once() -> None:
    with pytest.raises(WorkloadError, match="work needs GPU 1, which no imagined node has"):
        told(burst(1, resources={"GPU": 1.0}), CPU4)
    with pytest.raises(WorkloadError, match="needs CPU 8"):
        told(burst(1, resources={"CPU": 8.0}), *[CPU4] * 3)


def test_a_worker_s_own_cost_counts_for_each_task() -> None:
    plain = told(burst(400, 0.001), {"CPU": 1.0}).makespan_s
    more = told(burst(400, 0.001), {"CPU": 1.0}, overhead_s=0.001).makespan_s
    assert more - plain == pytest.approx(0.4, rel=0.1)


def test_two_thousand_tasks_on_fifty_nodes() -> None:
    found = told(burst(2000), *[CPU4] * 50)
    assert 1.0 <= found.makespan_s < 1.6
    assert len(found.nodes) == 50 and sum(node.tasks for node in found.nodes) == 2000
