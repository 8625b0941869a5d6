"""``Executor.map``: order, errors, timeouts, chunks, buffers."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.util.executors.functions import fail_at, nap, note, square, wait_for
from zray import Executor

pytestmark = pytest.mark.usefixtures("cluster")
SIZES = [None, 1, 7, 1000]


@pytest.fixture(scope="module")
def executor(cluster: None):
    with Executor() as executor:
        yield executor


@pytest.mark.parametrize("chunksize", SIZES)
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_values_come_in_order(executor, count, chunksize) -> None:
    values = executor.map(square, range(count), chunksize=chunksize)
    assert iter(values) is values
    assert [*values] == [x * x for x in range(count)]


def test_ten_thousand(executor) -> None:
    assert [*executor.map(square, range(10_000))] == [x * x for x in range(10_000)]


@pytest.mark.parametrize("chunksize", SIZES)
def test_several_iterables_end_with_the_shortest(executor, chunksize) -> None:
    found = executor.map(pow, itertools.count(1), [1, 2, 3], chunksize=chunksize)
    assert [*found] == [1, 4, 27]


def test_items_are_read_and_sent_at_once(executor, tmp_path: Path) -> None:
    read = iter(range(5))
    values = executor.map(note, [str(tmp_path / "ran")] * 5)
    executor.map(square, read)
    assert [*read] == []
    _eventually((tmp_path / "ran").exists)
    _eventually(lambda: (tmp_path / "ran").stat().st_size == 5)
    assert sorted(values) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("chunksize", [1, 2, 3, 8])
def test_values_before_an_error_come_first(executor, chunksize) -> None:
    values = executor.map(fail_at, range(8), [5] * 8, chunksize=chunksize)
    assert [next(values) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5") as raised:
        next(values)
    assert type(raised.value) is ValueError
    assert "fail_at" in str(raised.value.__cause__)
    with pytest.raises(StopIteration):
        next(values)


def test_an_error_that_cannot_be_pickled(executor) -> None:
    class Odd(Exception):
        def __reduce__(self):
            raise TypeError("never")

    def odd(x):
        raise Odd("so odd")

    with pytest.raises(Exception, match="so odd"):
        [*executor.map(odd, [1])]


def test_results_that_cannot_be_pickled(executor) -> None:
    with pytest.raises(TypeError, match="pickle"):
        [*executor.map(lambda x: threading.Lock(), [1, 2])]


def test_items_that_cannot_be_pickled(executor) -> None:
    with pytest.raises(TypeError, match="pickle"):
        [*executor.map(id, [threading.Lock()])]
    assert [*executor.map(square, [3])] == [9]


def test_a_function_that_cannot_be_pickled(executor) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        executor.map(lambda x: lock, [1])


def test_a_timeout_counts_from_the_call(executor) -> None:
    values = executor.map(nap, [0.0, 3.0], ["a", "b"], timeout=1.0, chunksize=1)
    began = time.monotonic()
    assert next(values) == "a"
    with pytest.raises(concurrent.futures.TimeoutError):
        next(values)
    assert time.monotonic() - began < 2.5


def test_none_is_no_timeout(executor) -> None:
    assert [*executor.map(nap, [0.1], ["a"], timeout=None)] == ["a"]


def test_what_nobody_wants_any_more_does_not_start(tmp_path: Path) -> None:
    with Executor(max_workers=1) as executor:
        values = executor.map(note, [str(tmp_path / "ran")] * 50, chunksize=1)
        next(values)
        values.close()
    assert (tmp_path / "ran").stat().st_size < 50


@pytest.mark.parametrize("wrong", [0, -1])
def test_bad_sizes_are_refused(executor, wrong) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=wrong)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(square, [1], buffersize=wrong)
    with pytest.raises(TypeError, match="buffersize"):
        executor.map(square, [1], buffersize="1")


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_a_buffer_bounds_what_is_read(executor, chunksize) -> None:
    read = []

    def items():
        for i in itertools.count():
            read.append(i)
            yield i

    values = executor.map(square, items(), buffersize=6, chunksize=chunksize)
    assert len(read) <= 6
    for i in range(20):
        assert next(values) == i * i
        assert len(read) <= i + 1 + 6 + (chunksize or 6)


def test_a_buffer_of_a_short_iterable(executor) -> None:
    assert [*executor.map(square, iter([1, 2]), buffersize=10)] == [1, 4]
    assert [*executor.map(square, iter([]), buffersize=10)] == []


def test_short_calls_go_in_few_chunks(executor) -> None:
    pids = [*executor.map(lambda x: (os.getpid(), time.monotonic()), range(3000))]
    assert len({pid for pid, _ in pids}) <= 4


def test_long_calls_are_shared_though_short_ones_came_first(executor) -> None:
    """What was taken for short and is not is given back to be shared."""

    def who(seconds):
        time.sleep(seconds)
        return seconds, os.getpid()

    seconds = [0.0] * 400 + [0.15] * 24
    found = [*executor.map(who, seconds)]
    assert [value for value, _ in found] == seconds
    assert len({pid for _, pid in found[400:]}) > 1


def test_large_items_go_in_small_chunks(executor) -> None:
    arrays = [np.full(500_000, i, dtype=float) for i in range(12)]
    assert [*executor.map(np.max, arrays)] == [float(i) for i in range(12)]


def test_calls_beside_a_map(executor, tmp_path: Path) -> None:
    values = executor.map(wait_for, [tmp_path / "go"])
    assert executor.submit(square, 3).result(timeout=20) == 9
    (tmp_path / "go").touch()
    assert [*values] == [str(tmp_path / "go")]


def test_a_worker_that_dies_in_a_map() -> None:
    executor = Executor(2)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        [*executor.map(os._exit, [3, 3])]
    executor.shutdown()


def test_a_worker_that_dies_in_a_map_with_retries(tmp_path: Path) -> None:
    with Executor(2, max_retries=3) as executor:
        paths = [str(tmp_path / str(i)) for i in range(20)]
        assert all(count <= 2 for count in executor.map(_die_at_seven, paths, range(20)))


def _die_at_seven(path, i):
    count = note(path)
    if i == 7 and count == 1:
        os._exit(1)
    return count


def test_shutdown_with_cancelling_ends_a_map(tmp_path: Path) -> None:
    executor = Executor(max_workers=1)
    values = executor.map(wait_for, [tmp_path / "go"] * 5, chunksize=1)
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()
    with pytest.raises(concurrent.futures.CancelledError):
        list(values)


def _eventually(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
