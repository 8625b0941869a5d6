"""ChunkSizes: what goes together, by measured time and size. No cluster."""

from __future__ import annotations

import pytest

from zray.util.parallel.chunk_sizes import ITEMS_MAX, ChunkSizes, FunctionTimes


def sizes_of(items: int, each_s: float, workers: int = 2) -> list[int]:
    """The chunks of a map whose calls take so long, each measured before the next."""
    sizes, left, found = ChunkSizes(workers), items, []
    while left:
        found.append(min(left, sizes.next(left)))
        left -= found[-1]
        sizes.measured(found[-1], found[-1] * each_s)
    return found


def test_the_first_chunk_is_one_item() -> None:
    assert ChunkSizes(2).next(10_000) == 1


def test_until_one_is_measured_each_worker_has_one() -> None:
    sizes = ChunkSizes(3)
    assert sizes.chunks_max == 3
    sizes.measured(1, 0.1)
    assert sizes.chunks_max == 6


@pytest.mark.parametrize("items", [1, 2, 10, 1000, 100_000])
@pytest.mark.parametrize("each_s", [1e-8, 1e-6, 1e-3, 1.0])
def test_all_items_are_in_some_chunk(items, each_s) -> None:
    found = sizes_of(items, each_s)
    assert sum(found) == items
    assert min(found) > 0


def test_no_ops_go_in_few_chunks() -> None:
    assert len(sizes_of(10_000, 1e-7)) < 8


def test_long_calls_go_alone() -> None:
    assert set(sizes_of(100, 0.2)) == {1}


def test_chunks_become_smaller_to_the_end() -> None:
    found = sizes_of(5000, 0.0005, workers=4)
    assert found[1:] == sorted(found[1:], reverse=True)
    assert found[-1] < found[1] / 4


def test_a_chunk_of_unknown_many_is_a_moment_of_work() -> None:
    sizes = ChunkSizes(2)
    sizes.measured(1, 0.001)
    assert sizes.next(None) == 50


def test_a_given_size_is_kept() -> None:
    sizes = ChunkSizes(2, 7)
    sizes.measured(7, 1e-6)
    sizes.weighed(7, 1 << 30)
    assert sizes.next(1000) == 7
    assert sizes.stop_s is None


def test_large_items_go_in_small_chunks() -> None:
    sizes = ChunkSizes(2)
    sizes.measured(1, 1e-6)
    sizes.weighed(2, 2 << 20)
    assert sizes.next(1000) == 4
    sizes.weighed(1, 1 << 30)
    assert sizes.next(1000) == 1
    sizes.weighed(1, 8)
    assert sizes.items_max == ITEMS_MAX


def test_after_one_that_was_cut_off_they_begin_small_again() -> None:
    sizes = ChunkSizes(2)
    sizes.measured(1000, 0.001)
    sizes.cut_off()
    assert sizes.next(100_000) == 1
    for _ in range(12):
        sizes.measured(1, 1e-6)
    assert sizes.next(100_000) > 1000


def test_a_function_that_was_measured_is_not_tried_out_again() -> None:
    times = FunctionTimes()
    times.sizes(2, abs, None).measured(100, 1e-4)
    assert times.sizes(2, abs, None).next(10_000) == 2500
    assert times.sizes(2, len, None).next(10_000) == 1
    assert times.sizes(2, None, None).next(10_000) == 1
    assert times.sizes(2, abs, 3).next(10_000) == 3


def test_so_many_functions_are_remembered_and_no_more() -> None:
    times = FunctionTimes()
    for name in range(10_000):
        times.sizes(2, name, None).measured(1, 1e-6)
    assert times.sizes(2, 9_999, None).next(10_000) == 2500
    assert times.sizes(2, 0, None).next(10_000) == 1
