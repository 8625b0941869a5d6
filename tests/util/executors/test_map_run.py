"""MapRun and its sinks, with a dispatcher that a test answers for. No cluster."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from zray.util.parallel import calls
from zray.util.parallel.chunk_sizes import ChunkSizes
from zray.util.parallel.dispatcher import Job
from zray.util.parallel.map_run import MapRun, NotInTime, Part, Results


class Desk:
    """Takes chunks as a dispatcher, and runs one when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.refuses: Exception | None = None
        self.sent: list[list[Any]] = []

    def put(self, job: Job) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.jobs.append(job)

    def run(self, place: int = 0, *, stop_after: int | None = None) -> None:
        """Run the chunk at that place; its worker stops after so many items."""
        job = self.jobs.pop(place)
        work = job.begin()
        if work is None:
            return
        function, items, star, _ = work.arguments
        self.sent.append(items)
        job.succeeded(calls.run_chunk(function, items[:stop_after], star, None))

    def run_all(self) -> None:
        while self.jobs:
            self.run()


def run_of(desk: Desk, items: Any, fixed: int | None = 2, **options: Any) -> tuple[Any, Results]:
    results = Results(ordered=options.pop("ordered", True))
    function = options.pop("function", abs)
    run = MapRun(desk, function, items, False, ChunkSizes(2, fixed), results, **options)
    run.feed()
    return run, results


def test_chunks_go_as_others_come_back() -> None:
    desk = Desk()
    _, results = run_of(desk, [*range(20)])
    assert len(desk.jobs) == 4
    desk.run()
    assert len(desk.jobs) == 4
    desk.run_all()
    assert [*results] == [*range(20)]
    assert desk.sent == [[i, i + 1] for i in range(0, 20, 2)]


@pytest.mark.parametrize("place", [0, -1])
def test_they_may_come_back_in_any_order(place) -> None:
    desk = Desk()
    _, results = run_of(desk, [*range(9)])
    while desk.jobs:
        desk.run(place)
    assert [*results] == [*range(9)]


def test_in_the_order_in_which_they_come() -> None:
    desk = Desk()
    _, results = run_of(desk, [*range(4)], ordered=False)
    desk.run(1)
    desk.run(0)
    assert [*results] == [2, 3, 0, 1]


def test_what_was_cut_off_goes_again_in_pieces() -> None:
    desk = Desk()
    _, results = run_of(desk, [*range(100)], None)
    desk.run()
    desk.run()
    while desk.jobs:
        desk.run(stop_after=3)
    assert [*results] == [*range(100)]
    assert max(map(len, desk.sent[5:])) < 20


@pytest.mark.parametrize("fixed", [1, 3, 100])
def test_after_an_error_the_rest_of_its_chunk_goes_again(fixed) -> None:
    def fail(x: int) -> int:
        if x % 3 == 0:
            raise ValueError(x)
        return x

    desk = Desk()
    _, results = run_of(desk, [*range(1, 8)], fixed, function=fail)
    desk.run_all()
    found: list[Any] = []
    while True:
        try:
            found.append(results.next(0))
        except StopIteration:
            break
        except ValueError as error:
            found.append(str(error))
    assert found == [1, 2, "3", 4, 5, "6", 7]


def test_a_chunk_that_is_lost_is_an_error_and_the_others_are_not() -> None:
    desk = Desk()
    _, results = run_of(desk, [*range(4)])
    desk.jobs.pop(0).failed(OSError("gone"))
    desk.run_all()
    with pytest.raises(OSError, match="gone"):
        results.next(0)
    assert [*results] == [2, 3]


def test_where_nothing_is_taken_all_ends_with_that_error() -> None:
    desk = Desk()
    desk.refuses = RuntimeError("broken")
    _, results = run_of(desk, [*range(10)])
    with pytest.raises(RuntimeError, match="broken"):
        results.next(0)
    with pytest.raises(StopIteration):
        results.next(0)


def test_items_without_a_length_are_read_by_whoever_takes_results() -> None:
    desk = Desk()
    items = itertools.count()
    run, results = run_of(desk, items, 2, ahead=6)
    results.took, results.feed = run.took, run.feed
    assert next(items) == 6
    desk.run_all()
    assert next(items) == 7
    assert results.next(0) == 0  # of what is there already
    assert results.next(0) == 1
    assert results.next(0) == 2
    assert next(items) > 8


def test_a_run_that_was_stopped_sends_nothing() -> None:
    desk = Desk()
    run, _ = run_of(desk, [*range(100)])
    run.stop()
    desk.run_all()
    assert desk.sent == []


@pytest.mark.parametrize("items", [[], iter([])])
def test_nothing_has_no_results(items) -> None:
    run, results = run_of(Desk(), items)
    results.feed = run.feed
    with pytest.raises(StopIteration):
        results.next(0)


def test_a_result_that_is_not_there_in_time() -> None:
    desk = Desk()
    _, results = run_of(desk, [1])
    with pytest.raises(NotInTime):
        results.next(0.01)
    desk.run()
    assert results.next(0) == 1


def test_ten_thousand_parts_in_the_worst_order() -> None:
    results = Results(ordered=True)
    for i in reversed(range(10_000)):
        results.arrived(Part(i, [i], None, 1))
    results.ended(10_000)
    assert [*results] == [*range(10_000)]


def test_items_that_are_larger_than_was_thought_go_in_pieces() -> None:
    desk = Desk()
    results = Results(ordered=True)
    sizes = ChunkSizes(1, None, each_s=1e-9)
    MapRun(desk, len, [bytes(1 << 20)] * 12, False, sizes, results).feed()
    desk.run_all()
    assert [*results] == [1 << 20] * 12
    assert max(map(len, desk.sent)) == 4
