"""Metrics of programs: what tasks, actors and drivers record is read, and no count falls."""

from __future__ import annotations

import os
import signal
import warnings
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import zray
from tests.real_cluster import until
from zray import limits
from zray.errors import HeadConnectionError
from zray.metrics.exposition import exposed
from zray.nodes.driver.operator import Operator
from zray.util.metrics import Counter, Gauge, Histogram

WAIT_S = 20.0


def scrape(bare: Any, node: str = "") -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by name, as Prometheus reads them, of the cluster or of a node."""
    with Operator(bare.info(), bare.address) as operator:
        node_id = operator.locate(node).node_id if node else b""
        text, _ = exposed([operator.scrape(node_id)])
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for one in family.samples:
            found.setdefault(one.name, []).append((one.labels, one.value))
    return found


def total(bare: Any, name: str, node: str = "", **labels: str) -> float:
    samples = scrape(bare, node).get(name, [])
    return sum(value for has, value in samples if labels.items() <= has.items())


def reaches(bare: Any, wanted: float, name: str, node: str = "", **labels: str) -> None:
    def there() -> bool:
        try:
            return total(bare, name, node, **labels) == wanted
        except HeadConnectionError:  # it has just been started again
            return False

    until(there, WAIT_S, f"{name} is {wanted}")


def test_text_that_utf_8_cannot_carry_ends_nothing(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 1)
    bare.connect()

    @zray.remote
    def work(tag: str) -> None:
        Counter("odd", "\udcff", ("kind",)).inc(tags={"kind": tag})

    zray.get(work.remote(chr(0xD800)), timeout=WAIT_S)
    reaches(bare, 1, "odd_total", "one", kind="\\ud800")
    zray.get(work.remote("more"), timeout=WAIT_S)
    reaches(bare, 1, "odd_total", "one", kind="more")


def test_what_tasks_and_actors_record_is_added_up_on_their_node(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()

    @zray.remote
    def work(number: int) -> None:
        Counter("items", "Done.", ("kind",)).inc(2, {"kind": "odd" if number % 2 else "even"})
        Histogram("took", "Seconds.", boundaries=[1.0, 10.0]).observe(5.0)

    @zray.remote
    class Keeper:
        def __init__(self) -> None:
            self.depth = Gauge("depth", "Of a queue.")
            self.calls = Counter("calls")

        def set(self, value: float) -> None:
            self.depth.set(value)
            self.calls.inc()

    keepers = [Keeper.remote() for _ in range(2)]
    zray.get([work.remote(number) for number in range(20)])
    zray.get([keeper.set.remote(number) for number, keeper in enumerate(keepers)])
    reaches(bare, 20, "items_total", "one", kind="odd")
    reaches(bare, 20, "items_total", "one", kind="even")
    reaches(bare, 2, "calls_total", "one")
    found = scrape(bare, "one")
    assert {(has["le"], value) for has, value in found["took_bucket"]} == {
        *(("1.0", 0.0), ("10.0", 20.0), ("+Inf", 20.0)),
    }
    assert found["took_sum"][0][1] == 100.0
    gauges = {has["worker"]: value for has, value in found["depth"]}
    assert sorted(gauges.values()) == [0.0, 1.0]
    job = zray.get_runtime_context().get_job_id()
    assert {has["job"] for has, _ in found["items_total"]} == {job}


def test_counts_outlive_their_workers_and_gauges_go_with_them(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 2)
    bare.connect()

    @zray.remote(max_calls=1)
    def leaves() -> None:
        Counter("left").inc()
        Gauge("last").set(1)

    @zray.remote
    class Keeper:
        def count(self) -> int:
            Counter("kept").inc(5)
            Gauge("held").set(1)
            return os.getpid()

    zray.get([leaves.remote() for _ in range(5)])
    reaches(bare, 5, "left_total", "one")
    keeper = Keeper.remote()
    pid = zray.get(keeper.count.remote())
    reaches(bare, 5, "kept_total", "one")
    assert total(bare, "held", "one") == 1
    os.kill(pid, signal.SIGKILL)
    until(lambda: "held" not in scrape(bare, "one"), WAIT_S, "the gauge goes with its process")
    assert total(bare, "kept_total", "one") == 5


def test_what_a_driver_records_is_with_the_head_though_that_restarts(bare: Any) -> None:
    bare.start_head()
    bare.connect()
    counter = Counter("driver_items")
    counter.inc(3)
    reaches(bare, 3, "driver_items_total")
    bare.head.kill()
    bare.start_head(port=-1)
    reaches(bare, 3, "driver_items_total")  # told again though nothing was recorded since
    counter.inc()
    reaches(bare, 4, "driver_items_total")


def test_what_a_program_has_counted_when_it_ends_can_still_be_read(bare: Any) -> None:
    bare.start_head()
    bare.start_node("one", 1)
    program = bare.run(
        "counts",
        """
        import zray
        from zray.util.metrics import Counter

        zray.init()

        @zray.remote
        def work():
            Counter("worked").inc()

        zray.get([work.remote() for _ in range(10)])
        Counter("submitted").inc(10)
        """,
    )
    assert program.wait(30) == 0, program.text()
    reaches(bare, 10, "worked_total", "one")
    reaches(bare, 10, "submitted_total")


def test_more_series_than_there_may_be_are_left_out_with_a_warning(bare: Any) -> None:
    bare.start_head()
    bare.connect()
    counter = Counter("wild", "", ("user",))
    with pytest.warns(UserWarning, match="few values"):
        for number in range(limits.SERIES_PROCESS_MAX + 50):
            counter.inc(tags={"user": str(number)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counter.inc(tags={"user": "one more"})
        counter.inc(tags={"user": "0"})

    def left_out() -> bool:
        return total(bare, "zray_user_series_left_out") >= 51

    until(left_out, WAIT_S, "what was left out is told")
    assert len(scrape(bare)["wild_total"]) == total(bare, "wild_total") - 1
    assert total(bare, "wild_total", user="0") == 2
